#include "domain/certbot_record.h"

#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static char name[] = "app.example.test";
static char other_name[] = "www.example.test";
static char *all[] = {name, other_name};
static const struct config_list names = {.items = all, .count = 1};

static const struct certbot_purpose purpose = {
    .directory = "https://ca.example.test/directory",
    .names = &names,
    .key = "0123456789abcdef",
};

static const struct certbot_record record = {
    .pid = 4711, .started = UINT64_C(987654321012), .begun = INT64_C(1795459747)};

static void write_json(struct buf *json, const struct certbot_purpose *of)
{
    struct err err = ERR_INIT;

    buf_init(json, CERTBOT_RECORD_MAX_BYTES);
    assert_int_equal(certbot_record_write(&record, of, json, &err), 0);
}

static void test_record_is_read_as_it_was_written(void **state)
{
    struct certbot_record read;
    struct err err = ERR_INIT;
    BUF_SCOPED json = {0};

    (void)state;
    write_json(&json, &purpose);
    assert_int_equal(certbot_record_read(&json, &purpose, &read, &err), 0);
    assert_int_equal(read.pid, record.pid);
    assert_int_equal(read.started, record.started);
    assert_int_equal(read.begun, record.begun);
    assert_true(read.ours);
}

static void test_record_of_another_purpose_is_not_ours(void **state)
{
    const struct config_list other = {.items = &all[1], .count = 1};
    const struct config_list more = {.items = all, .count = 2};
    const struct config_list none = {.count = 0};
    const struct certbot_purpose others[] = {
        {"https://ca.example.test/directory2", &names, purpose.key},
        {purpose.directory, &other, purpose.key},
        {purpose.directory, &more, purpose.key},
        {purpose.directory, &names, "0123456789abcdee"},
        {"", &none, ""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        struct certbot_record read;
        struct err err = ERR_INIT;
        BUF_SCOPED json = {0};

        write_json(&json, &others[i]);
        assert_int_equal(certbot_record_read(&json, &purpose, &read, &err), 0);
        assert_false(read.ours);
        assert_int_equal(read.pid, record.pid);
    }
}

static void test_purpose_that_is_too_long_is_not_cut(void **state)
{
    char long_text[CERTBOT_RECORD_MAX_BYTES];
    const struct certbot_purpose other = {long_text, &names, purpose.key};
    struct err err = ERR_INIT;
    BUF_SCOPED json = {0};

    (void)state;
    memset(long_text, 'x', sizeof long_text - 1);
    long_text[sizeof long_text - 1] = '\0';
    buf_init(&json, CERTBOT_RECORD_MAX_BYTES);
    assert_int_equal(certbot_record_write(&record, &other, &json, &err), -1);
    assert_int_equal(json.len, 0);
}

#define REST                                                                             \
    "\"directory\":\"https://ca.example.test/directory\",\"domain\":\"app.example."      \
    "test\",\"key\":\"0123456789abcdef\"}"

static void test_garbage_is_refused(void **state)
{
    static const char *const texts[] = {
        "",
        "{",
        "[]",
        "null",
        "\"text\"",
        "{}",
        "\xff\xfe",
        /* numbers that name no single process, or none at all */
        "{\"pid\":0,\"started\":5,\"begun\":5," REST,
        "{\"pid\":1,\"started\":5,\"begun\":5," REST,
        "{\"pid\":-1,\"started\":5,\"begun\":5," REST,
        "{\"pid\":-4711,\"started\":5,\"begun\":5," REST,
        "{\"pid\":2147483648,\"started\":5,\"begun\":5," REST,
        "{\"pid\":4294967297,\"started\":5,\"begun\":5," REST,
        "{\"pid\":99999999999999999999,\"started\":5,\"begun\":5," REST,
        "{\"pid\":4711.0,\"started\":5,\"begun\":5," REST,
        "{\"pid\":\"4711\",\"started\":5,\"begun\":5," REST,
        "{\"pid\":true,\"started\":5,\"begun\":5," REST,
        "{\"pid\":[4711],\"started\":5,\"begun\":5," REST,
        "{\"started\":5,\"begun\":5," REST,
        "{\"pid\":4711,\"started\":0,\"begun\":5," REST,
        "{\"pid\":4711,\"started\":-5,\"begun\":5," REST,
        "{\"pid\":4711,\"begun\":5," REST,
        "{\"pid\":4711,\"started\":5,\"begun\":-1," REST,
        "{\"pid\":4711,\"started\":5," REST,
        /* two values */
        "{\"pid\":4711,\"pid\":4712,\"started\":5,\"begun\":5," REST,
        /* texts that are none */
        "{\"pid\":4711,\"started\":5,\"begun\":5,\"directory\":1,\"domain\":\"a\","
        "\"key\":\"b\"}",
        "{\"pid\":4711,\"started\":5,\"begun\":5,\"directory\":\"a\",\"key\":\"b\"}",
        "{\"pid\":4711,\"started\":5,\"begun\":5,\"directory\":\"a\",\"domain\":null,"
        "\"key\":\"b\"}",
        "{\"pid\":4711,\"started\":5,\"begun\":5,\"directory\":\"a\",\"domain\":\"b\"}",
        /* something behind it */
        "{\"pid\":4711,\"started\":5,\"begun\":5," REST "x",
    };

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct certbot_record read;
        struct err err = ERR_INIT;
        BUF_SCOPED json = {0};

        memset(&read, 'x', sizeof read);
        buf_init(&json, CERTBOT_RECORD_MAX_BYTES);
        assert_int_equal(buf_append_str(&json, texts[i], &err), 0);
        if (certbot_record_read(&json, &purpose, &read, &err) != -1)
            fail_msg("accepted: %s", texts[i]);
        assert_int_equal(err.kind, ERR_CONFIG);
        assert_int_equal(read.pid, 0);
        assert_false(read.ours);
    }
}

static void test_every_part_of_a_record_is_refused(void **state)
{
    BUF_SCOPED whole = {0};

    (void)state;
    write_json(&whole, &purpose);
    for (size_t len = 0; len < whole.len; len++) {
        struct certbot_record read;
        struct err err = ERR_INIT;
        BUF_SCOPED json = {0};

        buf_init(&json, CERTBOT_RECORD_MAX_BYTES);
        assert_int_equal(buf_append(&json, whole.data, len, &err), 0);
        assert_int_equal(certbot_record_read(&json, &purpose, &read, &err), -1);
    }
}

static void test_zero_byte_ends_nothing(void **state)
{
    struct certbot_record read;
    struct err err = ERR_INIT;
    BUF_SCOPED json = {0};

    (void)state;
    write_json(&json, &purpose);
    assert_int_equal(buf_append(&json, "\0{", 2, &err), 0);
    assert_int_equal(certbot_record_read(&json, &purpose, &read, &err), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_record_is_read_as_it_was_written),
        cmocka_unit_test(test_record_of_another_purpose_is_not_ours),
        cmocka_unit_test(test_purpose_that_is_too_long_is_not_cut),
        cmocka_unit_test(test_garbage_is_refused),
        cmocka_unit_test(test_every_part_of_a_record_is_refused),
        cmocka_unit_test(test_zero_byte_ends_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
