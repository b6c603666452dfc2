#include "domain/log_json.h"

#include "base/text.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

static struct log_record record_of(const char *text)
{
    return (struct log_record){
        .at = {.tv_sec = 1795373375, .tv_nsec = 401999999},
        .level = LOG_ERROR,
        .program = "cert-manager",
        .text = text,
    };
}

static void expect(const struct log_record *record, const char *expected)
{
    char line[4096];
    size_t len = log_json(line, sizeof line, record);

    assert_true(len < sizeof line);
    line[len] = '\0';
    assert_string_equal(line, expected);
}

static void test_what_is_not_known_is_left_out(void **state)
{
    struct log_record record = record_of("text");

    (void)state;
    expect(&record,
           "{\"time\":\"2026-11-22T18:49:35.401Z\",\"level\":\"error\","
           "\"program\":\"cert-manager\",\"msg\":\"text\"}");
}

static void test_a_failure_has_its_place_kind_attempt_and_next_time(void **state)
{
    const struct err failure = {.kind = ERR_PEER, .message = "no"};
    struct log_record record = record_of("no");

    (void)state;
    record.place = (struct log_place){"issue", "run certbot"};
    record.fields =
        (struct log_fields){.failure = &failure, .attempt = 2, .next = 1795373975};
    expect(
        &record,
        "{\"time\":\"2026-11-22T18:49:35.401Z\",\"level\":\"error\",\"program\":\"cert-"
        "manager\",\"msg\":\"no\",\"flow\":\"issue\",\"step\":\"run certbot\",\"kind\":"
        "\"peer\",\"attempt\":2,\"next\":\"2026-11-22T18:59:35Z\"}");
}

static void test_what_can_be_done_is_there_unless_nothing_can(void **state)
{
    struct log_record record = record_of("");

    (void)state;
    record.fields.hint = "open port 80\n";
    expect(&record,
           "{\"time\":\"2026-11-22T18:49:35.401Z\",\"level\":\"error\","
           "\"program\":\"cert-manager\",\"msg\":\"\",\"hint\":\"open port "
           "80\\\\x0a\"}");
    record.fields.hint = "";
    expect(&record,
           "{\"time\":\"2026-11-22T18:49:35.401Z\",\"level\":\"error\","
           "\"program\":\"cert-manager\",\"msg\":\"\"}");
}

static void test_quotes_and_backslashes_stay_what_they_are(void **state)
{
    struct log_record record = record_of("\"a\" \\x0a ü€😀");
    char line[4096];
    size_t len = log_json(line, sizeof line, &record);
    json_t *root = json_loadb(line, len, 0, NULL);

    (void)state;
    assert_non_null(root);
    assert_string_equal(json_string_value(json_object_get(root, "msg")), record.text);
    json_decref(root);
}

static void test_levels_are_those_of_the_settings(void **state)
{
    static const char *const names[] = {"debug", "info", "warning", "error", "fatal"};
    char line[4096];

    (void)state;
    for (enum log_level level = LOG_DEBUG; level <= LOG_FATAL; level++) {
        struct log_record record = record_of("");
        json_t *root;

        record.level = level;
        root = json_loadb(line, log_json(line, sizeof line, &record), 0, NULL);
        assert_string_equal(json_string_value(json_object_get(root, "level")),
                            names[level]);
        json_decref(root);
    }
}

static void test_a_program_of_any_name_makes_a_line(void **state)
{
    struct log_record record = record_of("");
    char line[4096];
    json_t *root;

    (void)state;
    record.program = "\xff\x01";
    root = json_loadb(line, log_json(line, sizeof line, &record), 0, NULL);
    assert_string_equal(json_string_value(json_object_get(root, "program")),
                        "\\xff\\x01");
    json_decref(root);
}

static void test_a_line_that_does_not_fit_is_told_of(void **state)
{
    struct log_record record = record_of(
        "a text that is too long for so few bytes, and "
        "another one, and another one after it");
    char line[128];
    json_t *root = json_loadb(line, log_json(line, sizeof line, &record), 0, NULL);

    (void)state;
    assert_true(json_is_object(root));
    json_decref(root);
}

/* The longest text there is, all of it escaped, through the log itself. */
static void test_the_log_writes_whole_objects(void **state)
{
    static char text[10000];
    static char line[32768];
    int ends[2];

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends), 0);
    log_open(ends[0], LOG_DEBUG);
    log_set_form(log_json);
    for (int c = 1; c < 256; c++) {
        struct log_place former = log_set_place((struct log_place){"flow", "step"});
        ssize_t got;
        json_t *root;

        memset(text, c, sizeof text - 1);
        log_info("%s", text);
        log_set_place(former);
        got = recv(ends[1], line, sizeof line, MSG_DONTWAIT);
        assert_true(got > 4000);
        assert_int_equal(line[got - 1], '\n');
        root = json_loadb(line, (size_t)got, 0, NULL);
        assert_true(json_is_object(root));
        assert_true(json_string_length(json_object_get(root, "msg")) > 4000);
        assert_string_equal(json_string_value(json_object_get(root, "step")), "step");
        json_decref(root);
    }
    log_set_form(NULL);
    log_open(STDERR_FILENO, LOG_INFO);
    close(ends[0]);
    close(ends[1]);
}

static void test_only_an_object_is_a_line_already(void **state)
{
    static const struct {
        const char *text;
        bool is_line;
    } cases[] = {
        {"{}", true},          {"{\"msg\":\"a\"}", true}, {"", false},    {"{", false},
        {"[1]", false},        {"{} {}", false},          {"1", false},   {" {}", false},
        {"{\"a\":1,}", false}, {"{\"a\"", false},         {"{x}", false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_int_equal(log_json_is_line(cases[i].text, strlen(cases[i].text)),
                         cases[i].is_line);
}

static void test_the_level_of_nginx_is_taken_from_its_place_only(void **state)
{
    static const struct {
        const char *text;
        enum log_level level;
    } cases[] = {
        {"2026/11/23 18:49:35 [error] 12#12: *1 open() failed", LOG_ERROR},
        {"2026/11/23 18:49:35 [emerg] 12#12: bind() failed", LOG_FATAL},
        {"2026/11/23 18:49:35 [crit] 12#12: x", LOG_ERROR},
        {"2026/11/23 18:49:35 [alert] 12#12: x", LOG_ERROR},
        {"2026/11/23 18:49:35 [warn] 12#12: x", LOG_WARNING},
        {"2026/11/23 18:49:35 [notice] 12#12: x", LOG_INFO},
        {"2026/11/23 18:49:35 [debug] 12#12: x", LOG_DEBUG},
        {"2026/11/23 18:49:35 [error]", LOG_INFO},
        {"2026/11/23 18:49:35 ", LOG_INFO},
        {"2026/11/23 18:49:3", LOG_INFO},
        {"", LOG_INFO},
        {"127.0.0.1 - - \"GET /[error] HTTP/1.1\" 200", LOG_INFO},
        {"x 2026/11/23 18:49:35 [error] 12#12: x", LOG_INFO},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_int_equal(log_json_level_of(cases[i].text, strlen(cases[i].text)),
                         cases[i].level);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_not_known_is_left_out),
        cmocka_unit_test(test_a_failure_has_its_place_kind_attempt_and_next_time),
        cmocka_unit_test(test_what_can_be_done_is_there_unless_nothing_can),
        cmocka_unit_test(test_quotes_and_backslashes_stay_what_they_are),
        cmocka_unit_test(test_levels_are_those_of_the_settings),
        cmocka_unit_test(test_a_program_of_any_name_makes_a_line),
        cmocka_unit_test(test_a_line_that_does_not_fit_is_told_of),
        cmocka_unit_test(test_the_log_writes_whole_objects),
        cmocka_unit_test(test_only_an_object_is_a_line_already),
        cmocka_unit_test(test_the_level_of_nginx_is_taken_from_its_place_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
