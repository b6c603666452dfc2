#include "domain/journal.h"

#include "support/program.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define LEAF "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define OTHER "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210"
#define BOOT "6ab6bff2-2e5c-4d6b-9d4c-2b6c1d8b9a10"

static void intent_comes_back_as_it_was_written(const struct journal_intent *intent,
                                                const char *wanted)
{
    BUF_SCOPED text = {.max = 4096};
    struct journal_intent read;
    struct err err = ERR_INIT;

    assert_int_equal(journal_intent_write(intent, &text, &err), 0);
    if (journal_intent_read(buf_str(&text), &read, &err) < 0)
        fail_msg("%s", err.message);
    assert_int_equal(read.way, intent->way);
    assert_string_equal(read.leaf, intent->leaf);
    assert_string_equal(read.previous, intent->previous);
    assert_string_equal(journal_wanted(&read), wanted);
}

static void an_intent_is_read_as_it_was_written(void **state)
{
    (void)state;
    intent_comes_back_as_it_was_written(
        &(struct journal_intent){.way = JOURNAL_FORWARD, .leaf = LEAF, .previous = OTHER},
        LEAF);
    intent_comes_back_as_it_was_written(
        &(struct journal_intent){.way = JOURNAL_FORWARD, .leaf = LEAF}, LEAF);
    intent_comes_back_as_it_was_written(
        &(struct journal_intent){.way = JOURNAL_BACK, .leaf = LEAF, .previous = OTHER},
        OTHER);
}

static void a_record_is_read_as_it_was_written(void **state)
{
    const struct journal_record record = {.leaf = LEAF, .event = OTHER, .boot = BOOT};
    BUF_SCOPED text = {.max = 4096};
    struct journal_record read;
    struct err err = ERR_INIT;

    (void)state;
    assert_int_equal(journal_record_write(&record, &text, &err), 0);
    assert_int_equal(journal_record_read(buf_str(&text), &read, &err), 0);
    assert_string_equal(read.leaf, LEAF);
    assert_string_equal(read.event, OTHER);
    assert_string_equal(read.boot, BOOT);
}

static void damaged_intents_are_refused(void **state)
{
    static const char *const damaged[] = {
        "",
        "null",
        "[]",
        "{\"version\":1",
        "{\"version\":2,\"way\":\"forward\",\"leaf\":\"" LEAF "\",\"previous\":\"\"}",
        "{\"version\":1,\"way\":\"sideways\",\"leaf\":\"" LEAF "\",\"previous\":\"\"}",
        "{\"version\":1,\"way\":\"forward\",\"leaf\":\"\",\"previous\":\"\"}",
        "{\"version\":1,\"way\":\"forward\",\"leaf\":\"" LEAF "0\",\"previous\":\"\"}",
        "{\"version\":1,\"way\":\"forward\",\"leaf\":\"" LEAF "\",\"previous\":\"x\"}",
        "{\"version\":1,\"way\":\"forward\",\"leaf\":7,\"previous\":\"\"}",
        "{\"version\":1,\"way\":\"forward\",\"leaf\":\"" LEAF "\"}",
        /* A way back leads to something. */
        "{\"version\":1,\"way\":\"back\",\"leaf\":\"" LEAF "\",\"previous\":\"\"}",
    };

    (void)state;
    for (size_t i = 0; i < sizeof damaged / sizeof damaged[0]; i++) {
        struct journal_intent read;
        struct err err = ERR_INIT;

        assert_int_equal(journal_intent_read(damaged[i], &read, &err), -1);
        assert_int_equal(err.kind, ERR_CONFIG);
        assert_string_equal(read.leaf, "");
        assert_string_equal(journal_wanted(&read), "");
    }
}

static void damaged_records_are_refused(void **state)
{
    static const char *const damaged[] = {
        "{}",
        "{\"version\":1,\"leaf\":\"" LEAF "\",\"event\":\"\"}",
        "{\"version\":1,\"leaf\":\"" LEAF "\",\"event\":\"\",\"boot\":null}",
        "{\"version\":1,\"leaf\":\"\",\"event\":\"\",\"boot\":\"" BOOT "\"}",
        "{\"version\":1,\"leaf\":\"" LEAF "\",\"event\":\"1\",\"boot\":\"" BOOT "\"}",
        "{\"version\":1,\"leaf\":\"" LEAF "\",\"event\":\"\",\"boot\":\"" BOOT BOOT "\"}",
    };

    (void)state;
    for (size_t i = 0; i < sizeof damaged / sizeof damaged[0]; i++) {
        struct journal_record read;
        struct err err = ERR_INIT;

        assert_int_equal(journal_record_read(damaged[i], &read, &err), -1);
        assert_int_equal(err.kind, ERR_CONFIG);
        assert_string_equal(read.event, "");
        assert_string_equal(read.boot, "");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_intent_is_read_as_it_was_written),
        cmocka_unit_test(a_record_is_read_as_it_was_written),
        cmocka_unit_test(damaged_intents_are_refused),
        cmocka_unit_test(damaged_records_are_refused),
    };

    return cmocka_run_group_tests(tests, program_setup, NULL);
}
