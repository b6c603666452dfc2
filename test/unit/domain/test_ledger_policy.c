/* Whether a CA may be asked: limits with their refill, waiting times, rehearsals. */
#include "domain/ledger_policy.h"

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
#define OTHER "https://ca.example/directory"

enum { MINUTE = 60, HOUR = 60 * MINUTE, DAY = 24 * HOUR };

static char production[] = AUTHORITY_PRODUCTION;

static struct config config_of(char *directory)
{
    struct config config = {.acme.authorities.count = 1};

    config.acme.authorities.items[0].directory = directory;
    return config;
}

static struct ledger_question about(const char *names)
{
    const struct config config = config_of(production);

    return (struct ledger_question){
        .subject = {.directory = AUTHORITY_PRODUCTION, .names = names, .account = "v1"},
        .limits = ledger_limits_of(&config, AUTHORITY_PRODUCTION),
    };
}

static void enter_wait(struct ledger *ledger, const struct ledger_subject *subject,
                       int64_t at, enum ledger_outcome outcome, int64_t wait_s)
{
    const struct ledger_entry result = {.outcome = (unsigned short)outcome,
                                        .wait_s = wait_s};
    struct err err = ERR_INIT;
    int64_t name;

    assert_int_equal(ledger_begin(ledger, subject, at, &name, &err), 0);
    assert_int_equal(ledger_end(ledger, subject, name, &result, name, &err), 0);
}

static void enter(struct ledger *ledger, const struct ledger_subject *subject, int64_t at,
                  enum ledger_outcome outcome)
{
    enter_wait(ledger, subject, at, outcome, 0);
}

static void expect_free(const struct ledger *ledger,
                        const struct ledger_question *question, int64_t now)
{
    struct ledger_answer answer = ledger_ask(ledger, question, now);

    assert_int_equal(answer.action, LEDGER_ORDER);
    assert_true(answer.from <= now);
    assert_string_equal(answer.why, "");
}

/* It is to wait until then: neither a second less nor a second more. */
static void expect_wait(const struct ledger *ledger,
                        const struct ledger_question *question, int64_t now, int64_t from,
                        const char *why)
{
    struct ledger_answer answer = ledger_ask(ledger, question, now);

    assert_int_equal(answer.action, LEDGER_WAIT);
    assert_int_equal(answer.from, from);
    assert_non_null(strstr(answer.why, why));
    assert_int_equal(ledger_ask(ledger, question, from - 1).action, LEDGER_WAIT);
    assert_int_not_equal(ledger_ask(ledger, question, from).action, LEDGER_WAIT);
}

/* ---- limits ---- */

static void five_certificates_for_the_same_names_and_then_one_in_34_hours(void **state)
{
    const struct ledger_question question = about("app.example.org");
    struct ledger ledger = {0};

    (void)state;
    for (int i = 0; i < 5; i++) {
        expect_free(&ledger, &question, NOW + i);
        enter(&ledger, &question.subject, NOW + i, LEDGER_ISSUED);
    }
    expect_wait(&ledger, &question, NOW + 5, NOW + 34 * HOUR, "for the same names");
    enter(&ledger, &question.subject, NOW + 34 * HOUR, LEDGER_ISSUED);
    expect_wait(&ledger, &question, NOW + 35 * HOUR, NOW + 68 * HOUR, "same names");
    /* All are back after so long without one, and no more than all. */
    for (int i = 0; i < 5; i++) {
        expect_free(&ledger, &question, NOW + 1000 * HOUR);
        enter(&ledger, &question.subject, NOW + 1000 * HOUR, LEDGER_ISSUED);
    }
    expect_wait(&ledger, &question, NOW + 1000 * HOUR, NOW + 1034 * HOUR, "same names");
    ledger_done(&ledger);
}

static void five_failed_challenges_and_then_one_in_12_minutes(void **state)
{
    const struct ledger_question question = about("app.example.org");
    struct ledger_question together = about("app.example.org www.example.org");
    struct ledger_question apart = about("www.example.org");
    struct ledger ledger = {0};

    (void)state;
    for (int i = 0; i < 5; i++) {
        expect_free(&ledger, &question, NOW + i);
        enter(&ledger, &question.subject, NOW + i,
              i == 0 ? LEDGER_CAA_FORBIDS : LEDGER_CHALLENGE_FAILED);
    }
    expect_wait(&ledger, &question, NOW + 5, NOW + 12 * MINUTE, "failed challenges");
    expect_wait(&ledger, &together, NOW + 5, NOW + 12 * MINUTE, "failed challenges");
    expect_free(&ledger, &apart, NOW + 5);
    apart = question; /* another account */
    apart.subject.account = "v2";
    expect_free(&ledger, &apart, NOW + 5);
    apart.subject = question.subject; /* another CA */
    apart.subject.directory = OTHER;
    expect_free(&ledger, &apart, NOW + 5);
    ledger_done(&ledger);
}

static void fifty_certificates_for_a_registered_domain(void **state)
{
    const struct ledger_question question = about("last.example.org");
    struct ledger_question apart = about("app.example.net");
    struct ledger ledger = {0};
    char name[32];

    (void)state;
    for (int i = 0; i < 50; i++) {
        struct ledger_subject subject = question.subject;

        snprintf(name, sizeof name, "app-%d.example.org", i);
        subject.names = name;
        expect_free(&ledger, &question, NOW);
        enter(&ledger, &subject, NOW, LEDGER_ISSUED);
    }
    expect_wait(&ledger, &question, NOW, NOW + 202 * MINUTE, "registered domain");
    expect_free(&ledger, &apart, NOW);
    ledger_done(&ledger);
}

static void orders_of_an_account_are_limited(void **state)
{
    const struct ledger_question question = about("app.example.org");
    struct ledger ledger = {0};

    (void)state;
    for (int i = 0; i < 600; i++) /* one a second: each takes the only permit, or none */
        enter(&ledger, &question.subject, NOW + i, LEDGER_REFUSED);
    expect_wait(&ledger, &question, NOW + 600, NOW + 599 + 36, "limit of orders");
    ledger_done(&ledger);
}

static void what_is_not_known_counts_as_all_that_it_may_be(void **state)
{
    const struct ledger_question question = about("app.example.org");
    struct ledger ledger = {0};

    (void)state;
    for (int i = 0; i < 5; i++)
        enter(&ledger, &question.subject, NOW, LEDGER_DOUBTFUL);
    expect_wait(&ledger, &question, NOW + 10, NOW + 4 + 34 * HOUR - 4, "same names");
    ledger_done(&ledger);
}

static void what_a_ca_does_not_count_costs_nothing(void **state)
{
    const struct ledger_question question = about("app.example.org");
    struct ledger ledger = {0};

    (void)state;
    for (int i = 0; i < 1000; i++)
        enter(&ledger, &question.subject, NOW + i,
              i % 2 == 0 ? LEDGER_RATE_LIMITED : LEDGER_CONFIGURATION);
    expect_free(&ledger, &question, NOW + 1000);
    ledger_done(&ledger);
}

static void a_lost_ledger_leaves_one_permit_of_each_limit(void **state)
{
    const struct ledger_question question = about("app.example.org");
    struct ledger ledger = {.unknown_before = NOW};

    (void)state;
    expect_free(&ledger, &question, NOW);
    enter(&ledger, &question.subject, NOW, LEDGER_ISSUED);
    expect_wait(&ledger, &question, NOW, NOW + 34 * HOUR, "same names");
    ledger_done(&ledger);
}

static void a_ca_has_no_limits_unless_they_are_set(void **state)
{
    char directory[] = OTHER;
    struct config config = config_of(directory);
    struct ledger_limits limits = ledger_limits_of(&config, OTHER);

    (void)state;
    assert_int_equal(limits.certificates.count, 0);
    assert_int_equal(limits.orders.count, 0);
    config.acme.limits.failures = (struct config_rate){.count = 3, .period_ms = 10000};
    limits = ledger_limits_of(&config, OTHER);
    assert_int_equal(limits.failures.count, 3);
    assert_int_equal(limits.failures.refill_s, 4); /* never too early */
    /* Another one than the main CA is known by its own. */
    limits = ledger_limits_of(&config, AUTHORITY_PRODUCTION);
    assert_int_equal(limits.failures.count, 5);
    assert_int_equal(limits.certificates.refill_s, 34 * HOUR);
    limits = ledger_limits_of(&config, AUTHORITY_STAGING);
    assert_true(limits.failures.count > 5);
}

/* ---- what is left ---- */

static void expect_left(const struct ledger *ledger,
                        const struct ledger_question *question, int64_t now,
                        enum ledger_bucket bucket, unsigned left, int64_t next_at)
{
    struct ledger_permits permits[LEDGER_BUCKETS];

    ledger_permits(ledger, &question->subject, &question->limits, now, permits);
    assert_int_equal(permits[bucket].left, left);
    assert_int_equal(permits[bucket].next_at, next_at);
}

static void permits_are_used_and_come_back_one_by_one(void **state)
{
    const struct ledger_question question = about("app.example.org");
    struct ledger ledger = {0};
    struct ledger_permits permits[LEDGER_BUCKETS];

    (void)state;
    ledger_permits(&ledger, &question.subject, &question.limits, NOW, permits);
    assert_int_equal(permits[LEDGER_CERTIFICATES].limit, 5);
    assert_int_equal(permits[LEDGER_DOMAIN].limit, 50);
    assert_int_equal(permits[LEDGER_FAILURES].limit, 5);
    assert_int_equal(permits[LEDGER_ORDERS].limit, 300);
    for (int k = 0; k < LEDGER_BUCKETS; k++) {
        assert_int_equal(permits[k].left, permits[k].limit);
        assert_int_equal(permits[k].next_at, 0);
    }
    enter(&ledger, &question.subject, NOW, LEDGER_ISSUED);
    enter(&ledger, &question.subject, NOW, LEDGER_ISSUED);
    expect_left(&ledger, &question, NOW, LEDGER_CERTIFICATES, 3, NOW + 34 * HOUR);
    expect_left(&ledger, &question, NOW, LEDGER_DOMAIN, 48, NOW + 202 * MINUTE);
    expect_left(&ledger, &question, NOW, LEDGER_ORDERS, 298, NOW + 36);
    expect_left(&ledger, &question, NOW, LEDGER_FAILURES, 5, 0);
    expect_left(&ledger, &question, NOW + 34 * HOUR - 1, LEDGER_CERTIFICATES, 3,
                NOW + 34 * HOUR);
    expect_left(&ledger, &question, NOW + 34 * HOUR, LEDGER_CERTIFICATES, 4,
                NOW + 68 * HOUR);
    expect_left(&ledger, &question, NOW + 68 * HOUR, LEDGER_CERTIFICATES, 5, 0);
    ledger_done(&ledger);
}

/* What is left says the same as the answer: none exactly as long as that is to wait. */
static void none_is_left_for_as_long_as_an_order_has_to_wait(void **state)
{
    const struct ledger_question question = about("app.example.org");
    struct ledger ledger = {0};
    int64_t from;

    (void)state;
    for (int i = 0; i < 5; i++)
        enter(&ledger, &question.subject, NOW + i, LEDGER_CHALLENGE_FAILED);
    from = ledger_ask(&ledger, &question, NOW + 5).from;
    expect_left(&ledger, &question, NOW + 5, LEDGER_FAILURES, 0, from);
    expect_left(&ledger, &question, from - 1, LEDGER_FAILURES, 0, from);
    expect_left(&ledger, &question, from, LEDGER_FAILURES, 1, from + 12 * MINUTE);
    ledger_done(&ledger);
}

static void an_order_under_way_has_taken_all_that_it_may_come_to(void **state)
{
    const struct ledger_question question = about("app.example.org");
    const struct ledger_entry refused = {.outcome = LEDGER_REFUSED};
    struct ledger ledger = {0};
    struct err err = ERR_INIT;
    int64_t at;

    (void)state;
    assert_int_equal(ledger_begin(&ledger, &question.subject, NOW, &at, &err), 0);
    expect_left(&ledger, &question, NOW, LEDGER_CERTIFICATES, 4, NOW + 34 * HOUR);
    expect_left(&ledger, &question, NOW, LEDGER_FAILURES, 4, NOW + 12 * MINUTE);
    assert_int_equal(ledger_end(&ledger, &question.subject, at, &refused, NOW + 9, &err),
                     0);
    expect_left(&ledger, &question, NOW + 9, LEDGER_CERTIFICATES, 5, 0);
    expect_left(&ledger, &question, NOW + 9, LEDGER_FAILURES, 5, 0);
    expect_left(&ledger, &question, NOW + 9, LEDGER_ORDERS, 299, NOW + 36);
    ledger_done(&ledger);
}

static void what_is_left_is_never_more_than_the_limit_nor_below_none(void **state)
{
    const struct ledger_question question = about("app.example.org");
    struct ledger ledger = {.unknown_before = NOW};

    (void)state;
    expect_left(&ledger, &question, NOW, LEDGER_CERTIFICATES, 1, NOW + 34 * HOUR);
    ledger.unknown_before = NOW + 1000 * DAY; /* by a clock that was ahead */
    expect_left(&ledger, &question, NOW, LEDGER_FAILURES, 0, NOW + 1000 * DAY);
    ledger.unknown_before = 0;
    for (int i = 0; i < 20; i++) /* more than there are: another program asks, too */
        enter(&ledger, &question.subject, NOW + i, LEDGER_ISSUED);
    expect_left(&ledger, &question, NOW + 20, LEDGER_CERTIFICATES, 0,
                NOW + 19 + 34 * HOUR);
    ledger_done(&ledger);
}

static void a_ca_without_limits_has_none_that_could_be_used_up(void **state)
{
    struct ledger_question question = about("app.example.org");
    struct ledger ledger = {0};
    struct ledger_permits permits[LEDGER_BUCKETS];

    (void)state;
    question.limits = (struct ledger_limits){0};
    enter(&ledger, &question.subject, NOW, LEDGER_DOUBTFUL);
    ledger_permits(&ledger, &question.subject, &question.limits, NOW, permits);
    for (int k = 0; k < LEDGER_BUCKETS; k++) {
        assert_int_equal(permits[k].limit, 0);
        assert_int_equal(permits[k].left, 0);
        assert_int_equal(permits[k].next_at, 0);
    }
    assert_string_equal(ledger_bucket_name(LEDGER_ORDERS), "orders");
    ledger_done(&ledger);
}

/* ---- waiting ---- */

static void a_try_is_not_repeated_before_its_time(void **state)
{
    const struct ledger_question question = about("app.example.org");
    struct ledger_question another = about("www.example.org");
    struct ledger ledger = {0};

    (void)state;
    enter_wait(&ledger, &question.subject, NOW, LEDGER_RATE_LIMITED, 3 * DAY);
    expect_wait(&ledger, &question, NOW + 1, NOW + 3 * DAY, "limited us");
    expect_free(&ledger, &another, NOW + 1);
    enter(&ledger, &question.subject, NOW + 3 * DAY, LEDGER_ISSUED);
    expect_free(&ledger, &question, NOW + 3 * DAY);
    ledger_done(&ledger);
}

static void when_it_is_urgent_the_wait_is_shorter_within_the_limits(void **state)
{
    struct ledger_question question = about("app.example.org");
    struct ledger ledger = {0};

    (void)state;
    enter_wait(&ledger, &question.subject, NOW, LEDGER_CHALLENGE_FAILED, DAY);
    expect_wait(&ledger, &question, NOW, NOW + DAY, "challenge failed");
    question.urgent = true;
    expect_wait(&ledger, &question, NOW, NOW + HOUR, "challenge failed");
    enter_wait(&ledger, &question.subject, NOW + 1, LEDGER_CHALLENGE_FAILED, MINUTE);
    expect_wait(&ledger, &question, NOW + 1, NOW + 1 + MINUTE, "challenge failed");
    for (int i = 0; i < 5; i++) /* the limits hold */
        enter_wait(&ledger, &question.subject, NOW + 2, LEDGER_CHALLENGE_FAILED, 0);
    expect_wait(&ledger, &question, NOW + 10, NOW + 6 + 12 * MINUTE,
                "limit of failed challenges");
    /* And so does what the CA has said. */
    enter_wait(&ledger, &question.subject, NOW + DAY, LEDGER_RATE_LIMITED, 5 * DAY);
    expect_wait(&ledger, &question, NOW + DAY, NOW + 6 * DAY, "limited us");
    ledger_done(&ledger);
}

static void a_wrong_setting_is_waited_for_until_it_is_changed(void **state)
{
    struct ledger_question question = about("app.example.org");
    struct ledger ledger = {0};

    (void)state;
    enter_wait(&ledger, &question.subject, NOW, LEDGER_CONFIGURATION, HOUR);
    ledger.entries[0].context = question.context = 5;
    expect_wait(&ledger, &question, NOW, NOW + HOUR, "setting");
    question.context = 6;
    expect_free(&ledger, &question, NOW);
    ledger_done(&ledger);
}

static void an_order_without_an_end_is_settled_first(void **state)
{
    const struct ledger_question question = about("app.example.org");
    struct ledger ledger = {0};
    struct err err = ERR_INIT;
    struct ledger_answer answer;
    int64_t at;

    (void)state;
    for (int i = 0; i < 4; i++)
        enter(&ledger, &question.subject, NOW, LEDGER_ISSUED);
    assert_int_equal(ledger_begin(&ledger, &question.subject, NOW, &at, &err), 0);
    answer = ledger_ask(&ledger, &question, NOW);
    assert_int_equal(answer.action, LEDGER_SETTLE);
    assert_int_equal(answer.from, NOW + 34 * HOUR); /* for what it may have been */
    ledger_done(&ledger);
}

static void entries_from_the_future_hold_like_new_ones(void **state)
{
    const struct ledger_question question = about("app.example.org");
    struct ledger ledger = {0};
    struct ledger_answer answer;

    (void)state;
    for (int i = 0; i < 5; i++)
        enter(&ledger, &question.subject, NOW + 365 * DAY, LEDGER_ISSUED);
    assert_int_equal(ledger_mind_clock(&ledger, NOW), 5);
    answer = ledger_ask(&ledger, &question, NOW + 1);
    assert_int_equal(answer.from, NOW + 34 * HOUR);
    expect_free(&ledger, &question, NOW + 34 * HOUR);
    ledger_done(&ledger);
}

/* ---- rehearsals ---- */

static struct ledger_question rehearsed(void)
{
    const struct config config = config_of(production);
    struct ledger_question question = about("app.example.org");

    question.rehearsal = question.subject;
    question.rehearsal.directory = AUTHORITY_STAGING;
    question.rehearsal_limits = ledger_limits_of(&config, AUTHORITY_STAGING);
    return question;
}

static void expect_action(const struct ledger *ledger,
                          const struct ledger_question *question, int64_t now,
                          enum ledger_action action)
{
    assert_int_equal(ledger_ask(ledger, question, now).action, action);
}

static void two_failed_challenges_lead_to_a_rehearsal(void **state)
{
    const struct ledger_question question = rehearsed();
    const struct ledger_question plain = about("app.example.org");
    struct ledger ledger = {0};

    (void)state;
    enter_wait(&ledger, &question.subject, NOW, LEDGER_CHALLENGE_FAILED, MINUTE);
    expect_action(&ledger, &question, NOW + MINUTE, LEDGER_ORDER);
    enter_wait(&ledger, &question.subject, NOW + MINUTE, LEDGER_CHALLENGE_FAILED,
               10 * MINUTE);
    expect_action(&ledger, &question, NOW + 10 * MINUTE, LEDGER_WAIT);
    expect_action(&ledger, &question, NOW + 11 * MINUTE, LEDGER_REHEARSE);
    expect_action(&ledger, &plain, NOW + 11 * MINUTE, LEDGER_ORDER);
    /* It fails, too. */
    enter_wait(&ledger, &question.rehearsal, NOW + 11 * MINUTE, LEDGER_CHALLENGE_FAILED,
               5 * MINUTE);
    expect_wait(&ledger, &question, NOW + 12 * MINUTE, NOW + 16 * MINUTE, "rehearsal");
    expect_action(&ledger, &question, NOW + 16 * MINUTE, LEDGER_REHEARSE);
    /* It succeeds; and the real one fails in spite of it: that has to be rehearsed anew. */
    enter(&ledger, &question.rehearsal, NOW + 16 * MINUTE, LEDGER_ISSUED);
    expect_action(&ledger, &question, NOW + 16 * MINUTE, LEDGER_ORDER);
    enter(&ledger, &question.subject, NOW + 17 * MINUTE, LEDGER_CHALLENGE_FAILED);
    expect_action(&ledger, &question, NOW + 17 * MINUTE, LEDGER_REHEARSE);
    /* A certificate ends all that. */
    enter(&ledger, &question.subject, NOW + HOUR, LEDGER_ISSUED);
    enter(&ledger, &question.subject, NOW + 2 * HOUR, LEDGER_CHALLENGE_FAILED);
    expect_action(&ledger, &question, NOW + 2 * HOUR, LEDGER_ORDER);
    ledger_done(&ledger);
}

static void only_a_failed_challenge_of_a_rehearsal_holds_back(void **state)
{
    const struct ledger_question question = rehearsed();

    (void)state;
    for (int outcome = LEDGER_DOUBTFUL; outcome < LEDGER_OUTCOMES; outcome++) {
        struct ledger ledger = {0};

        for (int i = 0; i < 3; i++)
            enter(&ledger, &question.subject, NOW + i, LEDGER_CHALLENGE_FAILED);
        enter_wait(&ledger, &question.rehearsal, NOW + 9, (enum ledger_outcome)outcome,
                   DAY);
        expect_action(&ledger, &question, NOW + 10,
                      outcome == LEDGER_CHALLENGE_FAILED ? LEDGER_WAIT : LEDGER_ORDER);
        ledger_done(&ledger);
    }
}

static void a_rehearsal_that_is_not_to_be_had_holds_nothing_back(void **state)
{
    struct ledger_question question = rehearsed();
    struct ledger ledger = {0};
    struct err err = ERR_INIT;
    int64_t at;

    (void)state;
    question.rehearsal_limits.orders = (struct ledger_limit){1, DAY};
    enter(&ledger, &question.rehearsal, NOW, LEDGER_ISSUED);
    for (int i = 0; i < 2; i++)
        enter(&ledger, &question.subject, NOW + 1 + i, LEDGER_CHALLENGE_FAILED);
    expect_action(&ledger, &question, NOW + 10, LEDGER_ORDER);
    question.rehearsal_limits.orders.count = 0;
    expect_action(&ledger, &question, NOW + 10, LEDGER_REHEARSE);
    /* One that was cut off is settled before anything else. */
    assert_int_equal(ledger_begin(&ledger, &question.rehearsal, NOW + 11, &at, &err), 0);
    expect_action(&ledger, &question, NOW + 12, LEDGER_SETTLE_REHEARSAL);
    ledger_done(&ledger);
}

/* ---- as many as can be ---- */

/* Entries of many subjects, each a second before the next. */
static void make_large(struct ledger *ret, int count)
{
    struct err err = ERR_INIT;
    struct buf text;

    buf_init(&text, LEDGER_MAX_BYTES);
    buf_append_str(&text, "{\"version\":1,\"subjects\":[", &err);
    for (int i = 0; i < LEDGER_SUBJECTS_MAX; i++)
        buf_printf(&text, &err,
                   "%s{\"directory\":\"" AUTHORITY_PRODUCTION
                   "\",\"names\":\"app-%d.example.org\",\"account\":\"v1\"}",
                   i == 0 ? "" : ",", i);
    buf_append_str(&text, "],\"entries\":[", &err);
    for (int i = 0; i < count; i++)
        buf_printf(&text, &err, "%s{\"subject\":%d,\"at\":%lld,\"outcome\":\"%s\"}",
                   i == 0 ? "" : ",", i % LEDGER_SUBJECTS_MAX,
                   (long long)(NOW - count + i),
                   ledger_outcome_name((enum ledger_outcome)(LEDGER_ISSUED + i % 3)));
    buf_append_str(&text, "]}", &err);
    assert_int_equal(ledger_read(&text, ret, &err), 0);
    assert_int_equal(ret->count, count);
    buf_done(&text);
}

static void a_hundred_thousand_entries_are_judged_and_forgotten(void **state)
{
    const struct ledger_question question = about("app-7.example.org");
    const struct config config = config_of(production);
    struct ledger ledger;

    (void)state;
    make_large(&ledger, 100 * 1000);
    assert_true(ledger_ask(&ledger, &question, NOW).from > NOW);
    ledger_prune(&ledger, &config, NOW + 9 * DAY);
    assert_int_equal(ledger.count, 0);
    ledger_done(&ledger);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(five_certificates_for_the_same_names_and_then_one_in_34_hours),
        cmocka_unit_test(five_failed_challenges_and_then_one_in_12_minutes),
        cmocka_unit_test(fifty_certificates_for_a_registered_domain),
        cmocka_unit_test(orders_of_an_account_are_limited),
        cmocka_unit_test(what_is_not_known_counts_as_all_that_it_may_be),
        cmocka_unit_test(what_a_ca_does_not_count_costs_nothing),
        cmocka_unit_test(a_lost_ledger_leaves_one_permit_of_each_limit),
        cmocka_unit_test(a_ca_has_no_limits_unless_they_are_set),
        cmocka_unit_test(permits_are_used_and_come_back_one_by_one),
        cmocka_unit_test(none_is_left_for_as_long_as_an_order_has_to_wait),
        cmocka_unit_test(an_order_under_way_has_taken_all_that_it_may_come_to),
        cmocka_unit_test(what_is_left_is_never_more_than_the_limit_nor_below_none),
        cmocka_unit_test(a_ca_without_limits_has_none_that_could_be_used_up),
        cmocka_unit_test(a_try_is_not_repeated_before_its_time),
        cmocka_unit_test(when_it_is_urgent_the_wait_is_shorter_within_the_limits),
        cmocka_unit_test(a_wrong_setting_is_waited_for_until_it_is_changed),
        cmocka_unit_test(an_order_without_an_end_is_settled_first),
        cmocka_unit_test(entries_from_the_future_hold_like_new_ones),
        cmocka_unit_test(two_failed_challenges_lead_to_a_rehearsal),
        cmocka_unit_test(only_a_failed_challenge_of_a_rehearsal_holds_back),
        cmocka_unit_test(a_rehearsal_that_is_not_to_be_had_holds_nothing_back),
        cmocka_unit_test(a_hundred_thousand_entries_are_judged_and_forgotten),
    };

    json_set_alloc_funcs(wipe_malloc, wipe_free);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
