#include "domain/renewal_record.h"

#include "base/secret.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define NOW INT64_C(1795459747) /* 2026-11-23 18:49:07 UTC */
#define LEAF "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static int group_setup(void **state)
{
    (void)state;
    json_set_alloc_funcs(wipe_malloc, wipe_free);
    return 0;
}

static struct renewal_record full(void)
{
    return (struct renewal_record){
        .leaf = LEAF,
        .directory = "https://ca.example/directory",
        .spread = UINT32_MAX,
        .shared = true,
        .info = {.window = {.start = -5, .end = NOW},
                 .explanation = "https://ca.example/why"},
        .asked_at = NOW,
        .ask_at = NOW + 21600,
        .failures = 3,
    };
}

static void expect_same(const struct renewal_record *a, const struct renewal_record *b)
{
    assert_string_equal(a->leaf, b->leaf);
    assert_string_equal(a->directory, b->directory);
    assert_int_equal(a->spread, b->spread);
    assert_int_equal(a->shared, b->shared);
    assert_int_equal(a->info.window.start, b->info.window.start);
    assert_int_equal(a->info.window.end, b->info.window.end);
    assert_string_equal(a->info.explanation, b->info.explanation);
    assert_int_equal(a->asked_at, b->asked_at);
    assert_int_equal(a->ask_at, b->ask_at);
    assert_int_equal(a->failures, b->failures);
}

static void expect_kept(const struct renewal_record *record)
{
    BUF_SCOPED text = {.max = 8192};
    struct renewal_record again;
    struct err err = ERR_INIT;

    assert_int_equal(renewal_record_write(record, &text, &err), 0);
    assert_int_equal(renewal_record_read(buf_str(&text), &again, &err), 0);
    expect_same(&again, record);
}

static void what_is_written_is_read_again(void **state)
{
    struct renewal_record record = full();

    (void)state;
    expect_kept(&record);
    record = (struct renewal_record){.leaf = LEAF};
    expect_kept(&record);
    memset(record.directory, 'd', sizeof record.directory - 1);
    memset(record.info.explanation, 'e', sizeof record.info.explanation - 1);
    record.failures = INT32_MAX;
    expect_kept(&record);
}

/* ---- damage ---- */

static void refuse(const char *json, const char *reason)
{
    const struct renewal_record none = {.leaf = ""};
    struct renewal_record record = full();
    struct err err = ERR_INIT;

    assert_int_equal(renewal_record_read(json, &record, &err), -1);
    assert_int_equal(err.kind, ERR_CONFIG);
    assert_non_null(strstr(err.message, reason));
    expect_same(&record, &none);
}

/* A good one, in which `from` is replaced. */
static void refuse_changed(const char *from, const char *to, const char *reason)
{
    BUF_SCOPED text = {.max = 8192};
    const struct renewal_record record = full();
    struct err err = ERR_INIT;
    char changed[8192];
    const char *at;

    assert_int_equal(renewal_record_write(&record, &text, &err), 0);
    at = strstr(buf_str(&text), from);
    assert_non_null(at);
    snprintf(changed, sizeof changed, "%.*s%s%s", (int)(at - buf_str(&text)),
             buf_str(&text), to, at + strlen(from));
    refuse(changed, reason);
}

static void a_damaged_record_counts_as_none(void **state)
{
    (void)state;
    refuse("", "not JSON");
    refuse("[]", "not of version 1");
    refuse("{\"version\":1}", "\"leaf\"");
    refuse_changed("\"version\": 1", "\"version\": 2", "not of version 1");
    refuse_changed(LEAF, "0123", "not the SHA-256");
    refuse_changed("\"start\": -5", "\"start\": 1795459747", "does not end after");
    refuse_changed("\"start\": -5", "\"start\": \"x\"", "\"start\"");
    refuse_changed("\"start\": -5", "\"start\": -99999999999999999999", "not JSON");
    refuse_changed("4294967295", "4294967296", "\"spread\"");
    refuse_changed("4294967295", "-1", "\"spread\"");
    refuse_changed("\"failures\": 3", "\"failures\": -3", "\"failures\"");
    refuse_changed("1795481347", "253402300800", "\"ask_at\"");
    refuse_changed("\"explanation\"", "\"explanatio\"", "\"explanation\"");
}

/* ---- questions to the CA ---- */

static void an_answer_replaces_what_was_known(void **state)
{
    const struct renewal_info info = {.window = {NOW + 1, NOW + 2}, .explanation = "x"};
    struct renewal_record record = full();

    (void)state;
    renewal_record_note_answer(&record, &info, 7200, NOW + 100, 0);
    assert_int_equal(record.info.window.start, NOW + 1);
    assert_string_equal(record.info.explanation, "x");
    assert_int_equal(record.asked_at, NOW + 100);
    assert_int_equal(record.ask_at, NOW + 7300);
    assert_int_equal(record.failures, 0);
    assert_int_equal(record.spread, UINT32_MAX);
    /* A CA that stopped giving any. */
    renewal_record_note_answer(&record, NULL, 0, NOW + 8000, 0);
    assert_false(renewal_window_is_sound(&record.info.window));
    assert_string_equal(record.info.explanation, "");
    assert_int_equal(record.ask_at, NOW + 8000 + 21600);
}

static void a_failure_leaves_what_was_known(void **state)
{
    struct renewal_record record = full();

    (void)state;
    record.failures = 0;
    renewal_record_note_failure(&record, false, 0, NOW + 100, 0);
    renewal_record_note_failure(&record, false, 0, NOW + 100, 0);
    assert_int_equal(record.failures, 2);
    assert_int_equal(record.ask_at, NOW + 100 + 120);
    assert_int_equal(record.info.window.end, NOW);
    assert_int_equal(record.asked_at, NOW);
    record.failures = INT32_MAX;
    renewal_record_note_failure(&record, false, 900, NOW + 100, 0);
    assert_int_equal(record.failures, INT32_MAX);
    assert_int_equal(record.ask_at, NOW + 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read_again),
        cmocka_unit_test(a_damaged_record_counts_as_none),
        cmocka_unit_test(an_answer_replaces_what_was_known),
        cmocka_unit_test(a_failure_leaves_what_was_known),
    };

    return cmocka_run_group_tests(tests, group_setup, NULL);
}
