#include "domain/runtime_log.h"

#include "base/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define TEXT(literal) literal, sizeof(literal) - 1

/* "é\0" as base64 is w6kA. */
#define LINE_1 "{\"event\":\"system-ready\",\"payload\":\"\"}\n"
#define LINE_2                                                                           \
    "{\"event\":\"a \\\"\xe2\x82\xac\\u0000\",\"payload\":\"w6kA\",\"version\":2}\n"

static struct event_content content(const char *name, size_t name_len,
                                    const char *payload, size_t payload_len)
{
    return (struct event_content){.name = name,
                                  .name_len = name_len,
                                  .payload = payload,
                                  .payload_len = payload_len};
}

static const char second_name[] = "a \"\xe2\x82\xac\0";
static const char second_payload[] = "\xc3\xa9\0";

static void assert_line(int version, struct event_content event, const char *wanted)
{
    struct err err = ERR_INIT;
    BUF_SCOPED line = {0};

    if (runtime_log_line(&line, version, &event, &err) < 0)
        fail_msg("%s", err.message);
    assert_string_equal(buf_str(&line), wanted);
}

static void lines_are_those_of_dstack(void **state)
{
    (void)state;
    assert_line(EVENT_VERSION_1, content(TEXT("system-ready"), TEXT("")), LINE_1);
    assert_line(EVENT_VERSION_2, content(TEXT(second_name), TEXT(second_payload)),
                LINE_2);
    assert_line(EVENT_VERSION_1, content(TEXT("a\nb"), TEXT("\xff\xef\xbe")),
                "{\"event\":\"a\\nb\",\"payload\":\"/+++\"}\n");
    assert_line(EVENT_VERSION_1, content(TEXT("a"), TEXT("f")),
                "{\"event\":\"a\",\"payload\":\"Zg==\"}\n");
}

static void a_name_that_is_not_utf_8_has_no_line(void **state)
{
    const struct event_content event = content(TEXT("\xff"), TEXT(""));
    struct err err = ERR_INIT;
    BUF_SCOPED line = {0};

    (void)state;
    assert_int_equal(runtime_log_line(&line, EVENT_VERSION_1, &event, &err), -1);
    assert_int_equal(err.kind, ERR_PEER);
}

static struct event_log *parsed(const char *text, size_t len)
{
    struct event_log *log = NULL;
    struct err err = ERR_INIT;

    if (runtime_log_parse(text, len, &log, &err) < 0)
        fail_msg("%s", err.message);
    return log;
}

/* The vector is dstack's, the second digest is computed from what the line must mean. */
static void a_file_is_an_event_log_with_computed_digests(void **state)
{
    static const char ready[] =
        "1a76b2a80a0be71eae59f80945d876351a7a3fb8e9fd1ff1cede5734aa84ea11"
        "fd72b4edfbb6f04e5a85edd114c751bd";
    const struct event_content second = content(TEXT(second_name), TEXT(second_payload));
    struct event_log *log = parsed(TEXT(LINE_1 LINE_2));
    unsigned char digest[EVENT_DIGEST_BYTES];
    unsigned char rtmr[EVENT_DIGEST_BYTES] = {0};
    unsigned char replayed[EVENT_DIGEST_BYTES];
    char hex[EVENT_DIGEST_HEX_SIZE];
    struct err err = ERR_INIT;
    struct event event;

    (void)state;
    assert_int_equal(event_log_length(log), 2);
    event_log_entry(log, 0, &event);
    assert_int_equal(event.imr, EVENT_LOG_REGISTER);
    assert_int_equal(event.type, EVENT_TYPE_RUNTIME);
    assert_int_equal(event.version, 1);
    assert_true(event_is_named(&event, "system-ready"));
    assert_string_equal(json_string_value(event.digest), ready);
    assert_string_equal(json_string_value(event.payload), "");
    assert_int_equal(text_unhex(digest, sizeof digest, ready), 0);
    assert_int_equal(event_extend(rtmr, digest, &err), 0);
    event_log_entry(log, 1, &event);
    assert_int_equal(event.version, 2);
    assert_string_equal(json_string_value(event.payload), "c3a900");
    assert_int_equal(json_string_length(event.name), sizeof second_name - 1);
    assert_int_equal(event_digest(digest, EVENT_VERSION_2, &second, &err), 0);
    text_hex(hex, digest, sizeof digest);
    assert_string_equal(json_string_value(event.digest), hex);
    assert_int_equal(event_extend(rtmr, digest, &err), 0);
    assert_int_equal(event_log_replay(log, replayed, &err), 0);
    assert_memory_equal(replayed, rtmr, sizeof rtmr);
    event_log_free(log);
}

static void a_fresh_file_is_an_empty_log(void **state)
{
    unsigned char replayed[EVENT_DIGEST_BYTES];
    static const unsigned char zero[EVENT_DIGEST_BYTES];
    struct event_log *log = parsed("", 0);
    struct err err = ERR_INIT;

    (void)state;
    assert_int_equal(event_log_length(log), 0);
    assert_int_equal(event_log_replay(log, replayed, &err), 0);
    assert_memory_equal(replayed, zero, sizeof zero);
    event_log_free(log);
}

static void members_of_later_releases_are_passed_over(void **state)
{
    struct event_log *log =
        parsed(TEXT("{\"time\":5,\"payload\":\"\",\"event\":\"a\",\"version\":1}\n"));

    (void)state;
    assert_int_equal(event_log_length(log), 1);
    event_log_free(log);
}

static void assert_refused(const char *text, size_t len, const char *says)
{
    struct event_log *log = NULL;
    struct err err = ERR_INIT;

    assert_int_equal(runtime_log_parse(text, len, &log, &err), -1);
    assert_int_equal(err.kind, ERR_PEER);
    assert_null(log);
    if (strstr(err.message, says) == NULL)
        fail_msg("says \"%s\", not \"%s\"", err.message, says);
}

static void anything_else_is_refused_with_its_line(void **state)
{
    static char many[60000];

    (void)state;
    assert_refused(TEXT(LINE_1 "{\"event\":\"a\",\"payload\":\"\"}"),
                   "line 2 is not complete");
    assert_refused(TEXT(LINE_1 "\n"), "line 2: not a JSON object");
    assert_refused(TEXT("[]\n"), "line 1: not a JSON object");
    assert_refused(TEXT("{\"event\":\"a\",\"event\":\"b\",\"payload\":\"\"}\n"),
                   "line 1: not a JSON object");
    assert_refused(TEXT("{\"payload\":\"\"}\n"), "line 1: no name");
    assert_refused(TEXT("{\"event\":5,\"payload\":\"\"}\n"), "no name");
    assert_refused(TEXT("{\"event\":\"a\"}\n"), "not base64");
    assert_refused(TEXT("{\"event\":\"a\",\"payload\":[]}\n"), "not base64");
    assert_refused(TEXT("{\"event\":\"a\",\"payload\":\"\",\"version\":3}\n"),
                   "neither 1 nor 2");
    assert_refused(TEXT("{\"event\":\"a\",\"payload\":\"\",\"version\":\"2\"}\n"),
                   "neither 1 nor 2");
    assert_refused(many, sizeof many, "line 1 is not complete");
    memset(many, '\n', sizeof many);
    assert_refused(many, sizeof many, "line 1: not a JSON object");
}

/* Padding is required, and bits that count for nothing are zero. */
static void base64_is_taken_in_its_canonical_form_only(void **state)
{
    static const char *const bad[] = {
        "Zg",   "Zg=",   "Zg===",   "Zh==",        "Zg==Zg==", "Z===",
        "====", " Zg==", "Zg==\\n", "Zm8=\\u0000", "Zm-_",     "Zm9v\\n"};

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char line[128];
        int len =
            snprintf(line, sizeof line, "{\"event\":\"a\",\"payload\":\"%s\"}\n", bad[i]);

        assert_refused(line, (size_t)len, "line 1: a payload that is not base64");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_are_those_of_dstack),
        cmocka_unit_test(a_name_that_is_not_utf_8_has_no_line),
        cmocka_unit_test(a_file_is_an_event_log_with_computed_digests),
        cmocka_unit_test(a_fresh_file_is_an_empty_log),
        cmocka_unit_test(members_of_later_releases_are_passed_over),
        cmocka_unit_test(anything_else_is_refused_with_its_line),
        cmocka_unit_test(base64_is_taken_in_its_canonical_form_only),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
