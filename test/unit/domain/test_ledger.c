/* What the ledger keeps, forgets, and makes of damaged text and wrong clocks. */
#include "domain/ledger.h"

#include "base/secret.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define NOW INT64_C(1795459747) /* 2026-11-23 18:49:07 UTC */

enum { HOUR = 3600, DAY = 24 * HOUR };

static char production[] = AUTHORITY_PRODUCTION;
static char other[] = "https://ca.example/directory";

static const struct ledger_subject subject = {
    .directory = AUTHORITY_PRODUCTION, .names = "app.example.org", .account = "v1"};

static struct config config_of(char *directory)
{
    struct config config = {.acme.authorities.count = 1};

    config.acme.authorities.items[0].directory = directory;
    return config;
}

static void enter(struct ledger *ledger, const struct ledger_subject *of, int64_t at,
                  enum ledger_outcome outcome)
{
    const struct ledger_entry result = {.outcome = (unsigned short)outcome};
    struct err err = ERR_INIT;
    int64_t name;

    assert_int_equal(ledger_begin(ledger, of, at, &name, &err), 0);
    assert_int_equal(ledger_end(ledger, of, name, &result, name, &err), 0);
}

static struct buf text_of(const struct ledger *ledger)
{
    struct err err = ERR_INIT;
    struct buf text;

    buf_init(&text, LEDGER_MAX_BYTES);
    assert_int_equal(ledger_write(ledger, &text, &err), 0);
    return text;
}

static void assert_same_text(const struct ledger *ledger, const char *expected)
{
    struct buf text = text_of(ledger);

    assert_string_equal(buf_str(&text), expected);
    buf_done(&text);
}

/* ---- names ---- */

static void expect_names(const char *const *names, size_t count, const char *expected)
{
    struct err err = ERR_INIT;
    struct buf text;

    assert_int_equal(ledger_names(names, count, &text, &err), 0);
    assert_string_equal(buf_str(&text), expected);
    buf_done(&text);
}

static void equal_sets_of_names_are_equal_texts(void **state)
{
    static const char *const one[] = {"App.example.org"};
    static const char *const some[] = {"www.example.org", "app.example.org",
                                       "APP.example.org"};

    (void)state;
    expect_names(one, 1, "app.example.org");
    expect_names(some, 3, "app.example.org www.example.org");
    expect_names(NULL, 0, "");
}

static void names_that_are_too_many_are_refused(void **state)
{
    enum { MANY = LEDGER_NAMES_SIZE / 16 };
    char texts[MANY][24];
    const char *names[MANY];
    struct err err = ERR_INIT;
    struct buf text;

    (void)state;
    for (int i = 0; i < MANY; i++) {
        snprintf(texts[i], sizeof texts[i], "name-%05d.example.org", i);
        names[i] = texts[i];
    }
    assert_int_equal(ledger_names(names, MANY, &text, &err), -1);
    buf_done(&text);
}

/* ---- entries ---- */

static void a_try_is_entered_before_and_after(void **state)
{
    const struct ledger_entry failed = {
        .outcome = LEDGER_CHALLENGE_FAILED, .wait_s = 60, .context = 7};
    struct ledger ledger = {0};
    struct err err = ERR_INIT;
    int64_t at;

    (void)state;
    assert_int_equal(ledger_begin(&ledger, &subject, NOW, &at, &err), 0);
    assert_int_equal(at, NOW);
    assert_int_equal(ledger.entries[0].outcome, LEDGER_PENDING);
    assert_int_equal(ledger_end(&ledger, &subject, at, &failed, NOW, &err), 0);
    assert_int_equal(ledger.count, 1);
    assert_int_equal(ledger.entries[0].outcome, LEDGER_CHALLENGE_FAILED);
    assert_int_equal(ledger.entries[0].wait_s, 60);
    assert_int_equal(ledger.entries[0].context, 7);
    ledger_done(&ledger);
}

static void tries_of_one_second_are_told_apart(void **state)
{
    struct ledger ledger = {0};
    struct err err = ERR_INIT;
    int64_t first;
    int64_t second;

    (void)state;
    assert_int_equal(ledger_begin(&ledger, &subject, NOW, &first, &err), 0);
    assert_int_equal(ledger_begin(&ledger, &subject, NOW, &second, &err), 0);
    assert_int_not_equal(first, second);
    assert_int_equal(ledger_mind_clock(&ledger, NOW), 0); /* and are not of the future */
    ledger_done(&ledger);
}

/* Killed between the two: the next life finds the order's end, and then finds it again. */
static void an_order_that_is_taken_over_is_counted_once(void **state)
{
    const struct ledger_entry issued = {.outcome = LEDGER_ISSUED};
    const struct ledger_entry failed = {.outcome = LEDGER_CHALLENGE_FAILED};
    struct ledger ledger = {0};
    struct err err = ERR_INIT;
    int64_t at;

    (void)state;
    assert_int_equal(ledger_begin(&ledger, &subject, NOW, &at, &err), 0);
    assert_int_equal(ledger_end(&ledger, &subject, at, &issued, NOW, &err), 0);
    assert_int_equal(ledger_end(&ledger, &subject, at, &failed, NOW, &err), 0);
    assert_int_equal(ledger.count, 1);
    assert_int_equal(ledger.entries[0].outcome, LEDGER_ISSUED);
    /* One that a lost ledger had. */
    assert_int_equal(ledger_end(&ledger, &subject, NOW - HOUR, &issued, NOW, &err), 0);
    assert_int_equal(ledger.count, 2);
    ledger_done(&ledger);
}

/* certbot may have been at it for minutes, and an order of another life for days. */
static void a_wait_begins_with_the_end_of_a_try(void **state)
{
    static const struct {
        int64_t lasted_s;
        int64_t wait_s;
    } cases[] = {{0, 60}, {600, 660}, {-600, 60}, {400 * DAY, 60 + 31 * DAY}};
    const struct ledger_entry failed = {.outcome = LEDGER_RATE_LIMITED, .wait_s = 60};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct ledger ledger = {0};
        struct err err = ERR_INIT;
        int64_t at;

        assert_int_equal(ledger_begin(&ledger, &subject, NOW, &at, &err), 0);
        assert_int_equal(
            ledger_end(&ledger, &subject, at, &failed, NOW + cases[i].lasted_s, &err), 0);
        assert_int_equal(ledger.entries[0].wait_s, cases[i].wait_s);
        ledger_done(&ledger);
    }
}

static void an_order_that_was_none_is_withdrawn(void **state)
{
    struct ledger ledger = {0};
    struct err err = ERR_INIT;
    int64_t at;

    (void)state;
    enter(&ledger, &subject, NOW - 1, LEDGER_ISSUED);
    assert_int_equal(ledger_begin(&ledger, &subject, NOW, &at, &err), 0);
    enter(&ledger, &subject, NOW + 1, LEDGER_REFUSED);
    ledger_withdraw(&ledger, &subject, at);
    ledger_withdraw(&ledger, &subject, at);
    assert_int_equal(ledger.count, 2);
    assert_int_equal(ledger.entries[0].outcome, LEDGER_ISSUED);
    assert_int_equal(ledger.entries[1].outcome, LEDGER_REFUSED);
    ledger_done(&ledger);
}

static void only_orders_of_the_subject_are_given_up(void **state)
{
    struct ledger_subject another = subject;
    struct ledger ledger = {0};
    struct err err = ERR_INIT;
    int64_t at;

    (void)state;
    another.account = "v2";
    assert_int_equal(ledger_begin(&ledger, &subject, NOW, &at, &err), 0);
    assert_int_equal(ledger_begin(&ledger, &another, NOW, &at, &err), 0);
    assert_int_equal(ledger_give_up_pending(&ledger, &subject, 60), 1);
    assert_int_equal(ledger.entries[0].outcome, LEDGER_DOUBTFUL);
    assert_int_equal(ledger.entries[0].wait_s, 60);
    assert_int_equal(ledger.entries[1].outcome, LEDGER_PENDING);
    ledger_done(&ledger);
}

static void a_row_counts_what_came_to_the_same_since_the_last_certificate(void **state)
{
    struct ledger ledger = {0};

    (void)state;
    enter(&ledger, &subject, NOW - 9, LEDGER_CHALLENGE_FAILED);
    enter(&ledger, &subject, NOW - 8, LEDGER_ISSUED);
    enter(&ledger, &subject, NOW - 7, LEDGER_CHALLENGE_FAILED);
    enter(&ledger, &subject, NOW - 6, LEDGER_UNREACHED);
    enter(&ledger, &subject, NOW - 5, LEDGER_CHALLENGE_FAILED);
    assert_int_equal(ledger_row(&ledger, &subject, LEDGER_CHALLENGE_FAILED), 2);
    assert_int_equal(ledger_row(&ledger, &subject, LEDGER_UNREACHED), 1);
    assert_int_equal(ledger_row(&ledger, &subject, LEDGER_REFUSED), 0);
    assert_int_equal(ledger_row(&ledger, &subject, LEDGER_ISSUED), 1);
    ledger_done(&ledger);
}

/* ---- the text ---- */

static void what_is_written_is_read_again(void **state)
{
    struct ledger_subject another = subject;
    struct ledger ledger = {.unknown_before = NOW - DAY};
    struct ledger again;
    struct err err = ERR_INIT;
    struct buf text;

    (void)state;
    another.names = "a.example.org b.example.org";
    for (int i = 0; i < LEDGER_OUTCOMES; i++)
        enter(&ledger, i % 2 == 0 ? &subject : &another, NOW + i, (enum ledger_outcome)i);
    ledger.entries[1].wait_s = 600;
    ledger.entries[2].seen = NOW - 5;
    ledger.entries[3].context = UINT32_MAX;
    text = text_of(&ledger);
    assert_int_equal(ledger_read(&text, &again, &err), 0);
    assert_same_text(&again, buf_str(&text));
    assert_int_equal(again.count, ledger.count);
    assert_memory_equal(again.entries, ledger.entries,
                        ledger.count * sizeof *ledger.entries);
    assert_int_equal(again.unknown_before, ledger.unknown_before);
    buf_done(&text);
    ledger_done(&ledger);
    ledger_done(&again);
}

#define SUBJECT "{\"directory\":\"d\",\"names\":\"n\",\"account\":\"a\"}"
#define LEDGER(subjects, entries)                                                        \
    "{\"version\":1,\"subjects\":[" subjects "],\"entries\":[" entries "]}"

static void text_that_is_no_ledger_is_refused(void **state)
{
    static const char *const texts[] = {
        "",
        "null",
        "{",
        "[]",
        "{}",
        "{\"version\":2,\"subjects\":[],\"entries\":[]}",
        "{\"version\":1,\"subjects\":{},\"entries\":[]}",
        "{\"version\":1,\"subjects\":[],\"entries\":[],\"unknown_before\":-1}",
        LEDGER("1", ""),
        LEDGER("{}", ""),
        LEDGER(SUBJECT "," SUBJECT, ""),
        LEDGER("", "{\"subject\":0,\"at\":1,\"outcome\":\"issued\"}"),
        LEDGER(SUBJECT, "{\"subject\":1,\"at\":1,\"outcome\":\"issued\"}"),
        LEDGER(SUBJECT, "{\"subject\":-1,\"at\":1,\"outcome\":\"issued\"}"),
        LEDGER(SUBJECT, "{\"subject\":0,\"at\":-1,\"outcome\":\"issued\"}"),
        LEDGER(SUBJECT, "{\"subject\":0,\"at\":1e99,\"outcome\":\"issued\"}"),
        LEDGER(SUBJECT, "{\"subject\":0,\"at\":1,\"outcome\":\"other\"}"),
        LEDGER(SUBJECT, "{\"subject\":0,\"at\":1}"),
        LEDGER(SUBJECT, "{\"subject\":0,\"at\":1,\"outcome\":\"issued\",\"wait\":-1}"),
        LEDGER(SUBJECT,
               "{\"subject\":0,\"at\":1,\"outcome\":\"issued\",\"wait\":99999999999}"),
        LEDGER(SUBJECT, "{\"subject\":0,\"at\":1,\"outcome\":\"issued\",\"seen\":\"\"}"),
    };

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct err err = ERR_INIT;
        struct ledger ledger;
        struct buf text;

        buf_init(&text, LEDGER_MAX_BYTES);
        buf_append_str(&text, texts[i], &err);
        if (ledger_read(&text, &ledger, &err) == 0)
            fail_msg("taken for a ledger: %s", texts[i]);
        assert_int_equal(err.kind, ERR_CONFIG);
        assert_null(ledger.entries);
        assert_int_equal(ledger.subject_count, 0);
        buf_done(&text);
    }
}

/* Whatever is left of it when a byte was changed, it is refused or a ledger in order. */
static void text_with_a_changed_byte_does_no_harm(void **state)
{
    struct ledger ledger = {0};
    struct err err = ERR_INIT;
    struct buf text;

    (void)state;
    enter(&ledger, &subject, NOW, LEDGER_ISSUED);
    enter(&ledger, &subject, NOW + 1, LEDGER_RATE_LIMITED);
    text = text_of(&ledger);
    for (size_t i = 0; i < text.len; i++) {
        const struct config config = config_of(production);
        unsigned char kept = text.data[i];

        for (unsigned byte = 0; byte < 256; byte += 7) {
            struct ledger again;

            text.data[i] = (unsigned char)byte;
            if (ledger_read(&text, &again, &err) == 0) {
                ledger_prune(&again, &config, NOW);
                ledger_done(&again);
            }
        }
        text.data[i] = kept;
    }
    buf_done(&text);
    ledger_done(&ledger);
}

static void more_subjects_than_fit_are_refused(void **state)
{
    struct ledger ledger = {0};
    struct err err = ERR_INIT;
    char account[16];
    struct ledger_subject one = subject;
    int64_t at;

    (void)state;
    one.account = account;
    for (int i = 0; i < LEDGER_SUBJECTS_MAX; i++) {
        snprintf(account, sizeof account, "v%d", i);
        assert_int_equal(ledger_begin(&ledger, &one, NOW, &at, &err), 0);
    }
    one.account = "one more";
    assert_int_equal(ledger_begin(&ledger, &one, NOW, &at, &err), -1);
    assert_int_equal(err.kind, ERR_SYS);
    ledger_done(&ledger);
}

/* ---- what is forgotten ---- */

static void what_no_limit_looks_at_is_forgotten(void **state)
{
    const struct config config = config_of(production);
    struct ledger_subject gone = subject;
    struct ledger ledger = {.unknown_before = NOW - 32 * DAY};

    (void)state;
    gone.names = "gone.example.org";
    enter(&ledger, &gone, NOW - 9 * DAY, LEDGER_ISSUED);
    enter(&ledger, &subject, NOW - 9 * DAY, LEDGER_ISSUED);
    enter(&ledger, &subject, NOW - 7 * DAY, LEDGER_ISSUED);
    ledger_prune(&ledger, &config, NOW);
    assert_int_equal(ledger.count, 1);
    assert_int_equal(ledger.entries[0].at, NOW - 7 * DAY);
    assert_int_equal(ledger.subject_count, 1);
    assert_string_equal(ledger.subjects[ledger.entries[0].subject].names, subject.names);
    assert_int_equal(ledger.unknown_before, 0);
    ledger_done(&ledger);
}

static void a_ca_without_limits_leaves_little_behind(void **state)
{
    const struct config config = config_of(other);
    struct ledger_subject there = subject;
    struct ledger ledger = {0};

    (void)state;
    there.directory = other;
    for (int i = 0; i < 5000; i++)
        enter(&ledger, &there, NOW - 5000 + i,
              i % 3 == 0 ? LEDGER_CHALLENGE_FAILED : LEDGER_UNREACHED);
    ledger_prune(&ledger, &config, NOW);
    assert_int_equal(ledger.count, 32);
    assert_int_equal(ledger.entries[31].at, NOW - 1); /* the newest, in their order */
    assert_true(ledger.entries[0].at < ledger.entries[1].at);
    ledger_done(&ledger);
}

static void failures_of_a_ca_with_limits_are_kept_as_long_as_they_count(void **state)
{
    const struct config config = config_of(production);
    struct ledger ledger = {0};

    (void)state;
    for (int i = 0; i < 300; i++) /* more than the pace looks at */
        enter(&ledger, &subject, NOW - 3000 + 10 * i, LEDGER_CHALLENGE_FAILED);
    ledger_prune(&ledger, &config, NOW);
    assert_int_equal(ledger.count, 300);
    ledger_prune(&ledger, &config, NOW + 4 * HOUR);
    assert_int_equal(ledger.count, 16);
    ledger_done(&ledger);
}

/* ---- the clock ---- */

static void entries_from_the_future_are_noticed_once(void **state)
{
    struct ledger ledger = {.unknown_before = NOW + DAY};

    (void)state;
    enter(&ledger, &subject, NOW + DAY, LEDGER_ISSUED);
    enter(&ledger, &subject, NOW + 1, LEDGER_ISSUED); /* clocks are set by a second */
    assert_int_equal(ledger_mind_clock(&ledger, NOW), 1);
    assert_int_equal(ledger_mind_clock(&ledger, NOW + 10), 0);
    assert_int_equal(ledger.entries[0].seen, NOW);
    assert_int_equal(ledger.entries[1].seen, 0);
    assert_int_equal(ledger.unknown_before, NOW);
    /* The clock goes back again. */
    assert_int_equal(ledger_mind_clock(&ledger, NOW - DAY), 1);
    assert_int_equal(ledger.entries[0].seen, NOW - DAY);
    ledger_done(&ledger);
}

static void a_clock_that_lost_its_years_forgets_nothing(void **state)
{
    const struct config config = config_of(production);
    struct ledger ledger = {0};

    (void)state;
    enter(&ledger, &subject, NOW, LEDGER_ISSUED);
    assert_int_equal(ledger_mind_clock(&ledger, 1000), 1); /* 1970 */
    ledger_prune(&ledger, &config, 1000);
    ledger_prune(&ledger, &config, NOW + HOUR); /* and is set */
    assert_int_equal(ledger.count, 1);
    ledger_done(&ledger);
}

static void a_clock_that_was_years_ahead_keeps_nothing_for_ever(void **state)
{
    const struct config config = config_of(production);
    struct ledger ledger = {0};

    (void)state;
    enter(&ledger, &subject, NOW + 3650 * (int64_t)DAY, LEDGER_ISSUED);
    assert_int_equal(ledger_mind_clock(&ledger, NOW), 1);
    ledger_prune(&ledger, &config, NOW + 9 * DAY);
    assert_int_equal(ledger.count, 0);
    ledger_done(&ledger);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_sets_of_names_are_equal_texts),
        cmocka_unit_test(names_that_are_too_many_are_refused),
        cmocka_unit_test(a_try_is_entered_before_and_after),
        cmocka_unit_test(tries_of_one_second_are_told_apart),
        cmocka_unit_test(an_order_that_is_taken_over_is_counted_once),
        cmocka_unit_test(a_wait_begins_with_the_end_of_a_try),
        cmocka_unit_test(an_order_that_was_none_is_withdrawn),
        cmocka_unit_test(only_orders_of_the_subject_are_given_up),
        cmocka_unit_test(a_row_counts_what_came_to_the_same_since_the_last_certificate),
        cmocka_unit_test(what_is_written_is_read_again),
        cmocka_unit_test(text_that_is_no_ledger_is_refused),
        cmocka_unit_test(text_with_a_changed_byte_does_no_harm),
        cmocka_unit_test(more_subjects_than_fit_are_refused),
        cmocka_unit_test(what_no_limit_looks_at_is_forgotten),
        cmocka_unit_test(a_ca_without_limits_leaves_little_behind),
        cmocka_unit_test(failures_of_a_ca_with_limits_are_kept_as_long_as_they_count),
        cmocka_unit_test(entries_from_the_future_are_noticed_once),
        cmocka_unit_test(a_clock_that_lost_its_years_forgets_nothing),
        cmocka_unit_test(a_clock_that_was_years_ahead_keeps_nothing_for_ever),
    };

    json_set_alloc_funcs(wipe_malloc, wipe_free);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
