#include "domain/event_log.h"

#include "base/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define ENTRY                                                                            \
    "{\"imr\":3,\"event_type\":134217729,\"digest\":\"00\",\"event\":\"app-id\","        \
    "\"event_payload\":\"61\",\"version\":2,\"preimage\":\"62\"}"
#define ARRAY "[" ENTRY ",{\"imr\":0}]"
#define RTMR_16 "000102030405060708090a0b0c0d0e0f"
#define RTMR RTMR_16 RTMR_16 RTMR_16

static struct event_log *parsed(const char *text, size_t len)
{
    struct event_log *log = NULL;
    struct err err = ERR_INIT;

    if (event_log_parse(text, len, &log, &err) < 0)
        fail_msg("%s", err.message);
    return log;
}

static void assert_refused_bytes(const char *text, size_t len, const char *says)
{
    struct event_log *log = NULL;
    struct err err = ERR_INIT;

    assert_int_equal(event_log_parse(text, len, &log, &err), -1);
    assert_int_equal(err.kind, ERR_PEER);
    assert_null(log);
    if (strstr(err.message, says) == NULL)
        fail_msg("says \"%s\", not \"%s\"", err.message, says);
}

static void assert_refused(const char *text, const char *says)
{
    assert_refused_bytes(text, strlen(text), says);
}

/* The text as a JSON string. Caller: free. */
static char *quoted(const char *text)
{
    json_t *string = json_string(text);
    char *dumped = json_dumps(string, JSON_ENCODE_ANY);

    json_decref(string);
    return dumped;
}

__attribute__((format(printf, 1, 2))) static char *printed(const char *format, ...)
{
    char *text;
    va_list args;

    va_start(args, format);
    assert_true(vasprintf(&text, format, args) >= 0);
    va_end(args);
    return text;
}

/* Consumes the text. */
static void assert_two_entries(char *text, bool shows_register)
{
    unsigned char rtmr[EVENT_DIGEST_BYTES];
    struct event_log *log = parsed(text, strlen(text));
    const unsigned char *shown = event_log_shown_register(log);
    struct event event;

    assert_int_equal(event_log_length(log), 2);
    event_log_entry(log, 0, &event);
    assert_int_equal(event.position, 1);
    assert_int_equal(event.imr, 3);
    assert_int_equal(event.type, EVENT_TYPE_RUNTIME);
    assert_int_equal(event.version, 2);
    assert_true(event_is_named(&event, "app-id"));
    assert_string_equal(json_string_value(event.digest), "00");
    assert_string_equal(json_string_value(event.payload), "61");
    assert_string_equal(json_string_value(event.preimage), "62");
    assert_int_equal(shown != NULL, shows_register);
    if (shown != NULL) {
        assert_int_equal(text_unhex(rtmr, sizeof rtmr, RTMR), 0);
        assert_memory_equal(shown, rtmr, sizeof rtmr);
    }
    event_log_free(log);
    free(text);
}

static void every_form_that_agents_give_is_taken(void **state)
{
    char *array_text = quoted(ARRAY);
    char *tcb_info = printed("{\"rtmr3\":\"" RTMR "\",\"event_log\":" ARRAY "}");
    char *tcb_info_text = quoted(tcb_info);
    char *info = printed("{\"app_id\":\"00\",\"tcb_info\":%s}", tcb_info_text);
    char *quote = printed("{\"quote\":\"00\",\"event_log\":%s}", array_text);

    (void)state;
    assert_two_entries(strdup(ARRAY), false);
    assert_two_entries(strdup(array_text), false);
    assert_two_entries(strdup(tcb_info), true);
    assert_two_entries(strdup(tcb_info_text), true);
    assert_two_entries(strdup(info), true);
    assert_two_entries(printed("{\"tcb_info\":%s}", tcb_info), true);
    assert_two_entries(quoted(info), true);
    assert_two_entries(strdup(quote), false);
    assert_two_entries(quoted(quote), false);
    /* Info has both in no release, but what is in tcb_info has its digests. */
    assert_two_entries(printed("{\"event_log\":[],\"tcb_info\":%s}", tcb_info), true);
    assert_two_entries(printed("\n\t " ARRAY " \n"), false);
    free(array_text);
    free(tcb_info);
    free(tcb_info_text);
    free(info);
    free(quote);
}

static void a_register_in_another_form_is_none(void **state)
{
    (void)state;
    assert_two_entries(strdup("{\"rtmr3\":\"\",\"event_log\":" ARRAY "}"), false);
    assert_two_entries(strdup("{\"rtmr3\":3,\"event_log\":" ARRAY "}"), false);
    assert_two_entries(strdup("{\"rtmr3\":\"" RTMR "0\",\"event_log\":" ARRAY "}"),
                       false);
    assert_two_entries(strdup("{\"rtmr3\":\"" RTMR "\\u0000\",\"event_log\":" ARRAY "}"),
                       false);
}

static void what_is_no_log_is_refused(void **state)
{
    (void)state;
    assert_refused("", "not JSON");
    assert_refused("[", "not JSON (line 1, column 1)");
    assert_refused("[{}\n{}]", "not JSON (line 2");
    assert_refused("[] x", "not JSON");
    assert_refused_bytes("[\xff]", 3, "not JSON");
    assert_refused_bytes("[\0]", 3, "not JSON");
    assert_refused("[\"\\ud800\"]", "not JSON");
    assert_refused("[99999999999999999999]", "not JSON");
    assert_refused("\"text\"", "not JSON");
    assert_refused("{}", "\"event_log\"");
    assert_refused("5", "\"event_log\"");
    assert_refused("null", "\"event_log\"");
    assert_refused("{\"event_log\":null}", "\"event_log\"");
    assert_refused("{\"event_log\":\"{}\"}", "\"event_log\"");
    assert_refused("{\"tcb_info\":5}", "\"event_log\"");
    assert_refused("[1]", "entry 1 is not a JSON object");
    assert_refused("[{},null]", "entry 2 is not a JSON object");
    assert_refused("[[]]", "entry 1");
}

/* Readers of JSON disagree on which of the two counts. */
static void a_member_twice_is_refused(void **state)
{
    (void)state;
    assert_refused("[{\"imr\":3,\n\"imr\":0}]", "a member twice in one object (line 2)");
    assert_refused("{\"event_log\":[],\"event_log\":[]}", "a member twice");
}

static char *repeated(const char *head, const char *piece, size_t times, const char *tail)
{
    size_t len = strlen(piece);
    char *text = malloc(strlen(head) + len * times + strlen(tail) + 1);
    char *at = text;

    assert_non_null(text);
    at += sprintf(at, "%s", head);
    for (size_t i = 0; i < times; i++, at += len)
        memcpy(at, piece, len);
    sprintf(at, "%s", tail);
    return text;
}

static void hostile_sizes_are_refused_before_they_cost_memory(void **state)
{
    char *many = repeated("[{}", ",{}", 250000, "]");
    char *deep = repeated("", "[", 100000, "");
    char *nested = strdup("[]");
    char *large = malloc(EVENT_LOG_MAX_BYTES + 1);

    (void)state;
    assert_refused(many, "more than the 250000 JSON values");
    assert_refused(deep, "not JSON");
    for (int i = 0; i < 8; i++) {
        char *outer = printed("{\"tcb_info\":%s}", nested);

        free(nested);
        nested = outer;
    }
    assert_refused(nested, "hidden below 6 levels");
    assert_non_null(large);
    memset(large, ' ', EVENT_LOG_MAX_BYTES + 1);
    large[0] = '[';
    large[EVENT_LOG_MAX_BYTES] = ']';
    assert_refused_bytes(large, EVENT_LOG_MAX_BYTES + 1,
                         "larger than the 16777216 bytes");
    large[EVENT_LOG_MAX_BYTES - 1] = ']';
    event_log_free(parsed(large, EVENT_LOG_MAX_BYTES));
    free(many);
    free(deep);
    free(nested);
    free(large);
}

static void members_of_another_type_are_told_from_absent_ones(void **state)
{
    static const char text[] =
        "[{},{\"imr\":\"3\",\"event_type\":1.0,\"version\":\"2\",\"event\":5,"
        "\"digest\":null,\"event_payload\":[],\"preimage\":null},"
        "{\"imr\":-3,\"version\":null}]";
    struct event_log *log = parsed(text, strlen(text));
    struct event event;

    (void)state;
    event_log_entry(log, 0, &event);
    assert_int_equal(event.imr, -1);
    assert_int_equal(event.type, -1);
    assert_int_equal(event.version, 0);
    assert_null(event.name);
    assert_null(event.payload);
    event_log_entry(log, 1, &event);
    assert_int_equal(event.imr, -1);
    assert_int_equal(event.type, -1);
    assert_int_equal(event.version, -1);
    assert_true(json_is_integer(event.name));
    assert_false(event_is_named(&event, ""));
    assert_null(event.digest);
    assert_true(json_is_array(event.payload));
    assert_null(event.preimage);
    event_log_entry(log, 2, &event);
    assert_int_equal(event.imr, -1);
    assert_int_equal(event.version, 0);
    event_log_free(log);
}

static void the_last_of_a_name_is_found_in_the_register_only(void **state)
{
    static const char text[] =
        "[{\"imr\":3,\"event\":\"a\"},{\"imr\":3,\"event\":\"a\"},"
        "{\"imr\":2,\"event\":\"a\"},{\"imr\":3,\"event\":\"b\"},"
        "{\"imr\":3,\"event\":\"a\\u0000\"}]";
    struct event_log *log = parsed(text, strlen(text));
    struct event event;

    (void)state;
    assert_true(event_log_last(log, "a", &event));
    assert_int_equal(event.position, 2);
    assert_true(event_log_last(log, "b", &event));
    assert_int_equal(event.position, 4);
    assert_false(event_log_last(log, "c", &event));
    assert_false(event_log_last(log, "", &event));
    event_log_free(log);
}

static void assert_hex(const json_t *hex, const char *wanted, size_t len)
{
    struct err err = ERR_INIT;
    BUF_SCOPED bytes = {0};
    int failed = event_unhex(hex, &bytes, &err);

    assert_int_equal(failed, wanted == NULL ? -1 : 0);
    if (wanted == NULL) {
        assert_int_equal(err.kind, ERR_PEER);
        return;
    }
    assert_int_equal(bytes.len, len);
    assert_string_equal(buf_str(&bytes), wanted);
}

static void hex_is_taken_in_either_case_and_nothing_else(void **state)
{
    static const struct {
        const char *text;
        size_t len;
        const char *wanted;
    } cases[] = {
        {"", 0, ""},     {"4a4B", 4, "JK"}, {"4", 1, NULL},      {"4a4", 3, NULL},
        {"4g", 2, NULL}, {"0x4a", 4, NULL}, {"4a\0\0", 4, NULL}, {" 4a ", 4, NULL},
    };
    json_t *number = json_integer(5);

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        json_t *hex = json_stringn(cases[i].text, cases[i].len);

        assert_hex(hex, cases[i].wanted, cases[i].len / 2);
        json_decref(hex);
    }
    assert_hex(number, NULL, 0);
    assert_hex(NULL, NULL, 0);
    json_decref(number);
}

static int replay(const char *text, unsigned char ret[EVENT_DIGEST_BYTES],
                  struct err *err)
{
    struct event_log *log = parsed(text, strlen(text));
    int result = event_log_replay(log, ret, err);

    event_log_free(log);
    return result;
}

static void a_digest_that_cannot_be_read_ends_the_replay(void **state)
{
    static const char *const bad[] = {
        "null",           "7",
        "\"\"",           "\"" RTMR_16 "\"",
        "\"" RTMR "00\"", "\"" RTMR_16 RTMR_16 "0001020304050607 8090a0b0c0d0e0f\""};
    unsigned char value[EVENT_DIGEST_BYTES];
    struct err err = ERR_INIT;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char *text = printed(
            "[{\"imr\":3,\"digest\":\"" RTMR "\"},{\"imr\":3,\"digest\":%s}]", bad[i]);

        assert_int_equal(replay(text, value, &err), -1);
        assert_int_equal(err.kind, ERR_PEER);
        assert_non_null(strstr(err.message, "the digest of entry"));
        free(text);
    }
}

/* Those of firmware and kernel have digests of other lengths, too. */
static void entries_of_other_registers_do_not_count(void **state)
{
    static const unsigned char zero[EVENT_DIGEST_BYTES];
    unsigned char one[EVENT_DIGEST_BYTES];
    unsigned char both[EVENT_DIGEST_BYTES];
    struct err err = ERR_INIT;

    (void)state;
    assert_int_equal(replay("[{\"imr\":0,\"digest\":\"00\"}]", one, &err), 0);
    assert_memory_equal(one, zero, sizeof zero);
    assert_int_equal(replay("[{\"imr\":3,\"digest\":\"" RTMR "\"}]", one, &err), 0);
    assert_memory_not_equal(one, zero, sizeof zero);
    assert_int_equal(replay("[{\"imr\":1,\"digest\":\"" RTMR
                            "\"},{\"imr\":3,\"digest\":\"" RTMR "\"},{\"imr\":0}]",
                            both, &err),
                     0);
    assert_memory_equal(one, both, sizeof one);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_form_that_agents_give_is_taken),
        cmocka_unit_test(a_register_in_another_form_is_none),
        cmocka_unit_test(what_is_no_log_is_refused),
        cmocka_unit_test(a_member_twice_is_refused),
        cmocka_unit_test(hostile_sizes_are_refused_before_they_cost_memory),
        cmocka_unit_test(members_of_another_type_are_told_from_absent_ones),
        cmocka_unit_test(the_last_of_a_name_is_found_in_the_register_only),
        cmocka_unit_test(hex_is_taken_in_either_case_and_nothing_else),
        cmocka_unit_test(a_digest_that_cannot_be_read_ends_the_replay),
        cmocka_unit_test(entries_of_other_registers_do_not_count),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
