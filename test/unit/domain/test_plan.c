#include "domain/plan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define NOW INT64_C(1795459747) /* 2026-11-23 18:49:07 UTC */
#define DAY INT64_C(86400)
#define UPTIME UINT64_C(5000)
#define NEXT_RENEWAL "the next renewal is due on 2027-01-12 18:49:07 UTC, by its lifetime"

static const uint64_t longest_ms = PLAN_LONGEST_WAIT_MS;

/* A served leaf of 90 days, 10 days old. */
static struct plan_facts served(void)
{
    return (struct plan_facts){
        .keys = true,
        .examined = true,
        .served = true,
        .not_before = NOW - 10 * DAY,
        .not_after = NOW + 80 * DAY,
    };
}

static struct plan decide(const struct plan_facts *facts)
{
    return plan_next(facts, NOW, UPTIME);
}

static void expect(const struct plan_facts *facts, enum plan_action action,
                   const char *reason)
{
    struct plan plan = decide(facts);

    assert_int_equal(plan.action, action);
    assert_string_equal(plan.reason, reason);
    if (action != PLAN_WAIT)
        assert_int_equal(plan.wait_ms, 0);
}

static void expect_wait(const struct plan_facts *facts, uint64_t wait_ms,
                        const char *reason)
{
    expect(facts, PLAN_WAIT, reason);
    assert_int_equal(decide(facts).wait_ms, wait_ms);
}

static void expect_next(const struct plan_facts *facts, enum plan_action next,
                        uint64_t in_ms)
{
    struct plan plan = decide(facts);

    assert_int_equal(plan.next, next);
    assert_int_equal(plan.next_in_ms, in_ms);
}

/* ---- what comes next ---- */

static void the_plan_says_what_it_waits_for_and_how_long(void **state)
{
    struct plan_facts facts = {0};

    (void)state;
    expect_next(&facts, PLAN_FETCH_KEYS, 0);
    facts.retry_at_ms[PLAN_KEYS] = UPTIME + 700;
    expect_next(&facts, PLAN_FETCH_KEYS, 700);
    facts = served();
    expect_next(&facts, PLAN_ISSUE, 50 * DAY * 1000); /* not just the longest wait */
    facts.not_after = facts.not_before + 12 * DAY;
    facts.order_from = NOW + DAY;
    facts.order_why = "it is used up";
    expect_next(&facts, PLAN_ISSUE, DAY * 1000);
    facts.order_from = INT64_MAX;
    expect_next(&facts, PLAN_ISSUE, UINT64_MAX);
}

static void what_is_for_somebody_else_has_no_time(void **state)
{
    struct plan_facts facts = served();

    (void)state;
    facts.external = true;
    expect_next(&facts, PLAN_WAIT, UINT64_MAX);
    assert_int_equal(decide(&facts).wait_ms, longest_ms);
    facts = served();
    facts.not_before = NOW + DAY;
    expect_next(&facts, PLAN_WAIT, UINT64_MAX);
}

static void actions_and_activities_have_names(void **state)
{
    (void)state;
    for (int i = 0; i <= PLAN_ISSUE; i++)
        assert_non_null(plan_action_name((enum plan_action)i));
    for (int i = 0; i < PLAN_ACTIVITIES; i++)
        assert_non_null(plan_activity_name((enum plan_activity)i));
}

/* ---- one action after the other ---- */

static void the_actions_come_in_their_order(void **state)
{
    struct plan_facts facts = {0};

    (void)state;
    expect(&facts, PLAN_FETCH_KEYS, "the keys are not at hand yet");
    facts.keys = true;
    expect(&facts, PLAN_EXAMINE, "the stored certificate has not been judged yet");
    facts.examined = true;
    expect(&facts, PLAN_ISSUE, "no usable certificate is stored");
    facts.candidate = true;
    expect(&facts, PLAN_APPLY, "a certificate waits to be served");
    facts = served();
    expect_wait(&facts, longest_ms, NEXT_RENEWAL);
}

static void the_keys_come_before_all_else(void **state)
{
    struct plan_facts facts = served();

    (void)state;
    facts.candidate = true;
    facts.not_after = NOW - 1;
    facts.keys = false;
    expect(&facts, PLAN_FETCH_KEYS, "the keys are not at hand yet");
    facts.keys = true;
    facts.examined = false;
    expect(&facts, PLAN_EXAMINE, "the stored certificate has not been judged yet");
}

static void a_candidate_is_applied_before_another_is_asked_for(void **state)
{
    struct plan_facts facts = served();

    (void)state;
    facts.not_after = NOW + 1;
    facts.candidate = true;
    expect(&facts, PLAN_APPLY, "a certificate waits to be served");
}

static void a_served_leaf_is_renewed_when_due(void **state)
{
    struct plan_facts facts = served();

    (void)state;
    facts.not_before = NOW - 60 * DAY;
    facts.not_after = NOW + 30 * DAY;
    expect(&facts, PLAN_ISSUE,
           "the certificate expires on 2026-12-23 18:49:07 UTC; "
           "due since 2026-11-23 18:49:07 UTC, by its lifetime");
    facts.not_after = NOW - DAY;
    facts.not_before = facts.not_after - 90 * DAY;
    expect(&facts, PLAN_ISSUE,
           "the certificate expires on 2026-11-22 18:49:07 UTC; "
           "due since 2026-10-23 18:49:07 UTC, by its lifetime");
}

static void a_leaf_that_lacks_a_name_is_served_while_it_is_issued_again(void **state)
{
    struct plan_facts facts = served();

    (void)state;
    facts.incomplete = "www.example.org";
    expect(&facts, PLAN_ISSUE, "the certificate is not for www.example.org yet");
    facts.retry_at_ms[PLAN_ISSUING] = UPTIME + 5000;
    expect_wait(&facts, 5000,
                "the certificate is not for www.example.org yet; after a pause");
    facts.candidate = true;
    expect(&facts, PLAN_APPLY, "a certificate waits to be served");
    facts.candidate = false;
    facts.external = true;
    assert_int_equal(decide(&facts).action, PLAN_WAIT);
}

static void
what_the_settings_do_not_want_any_more_is_served_while_it_is_replaced(void **state)
{
    struct plan_facts facts = served();

    (void)state;
    facts.unfit = "the certificate was issued by a staging CA";
    expect(&facts, PLAN_ISSUE, facts.unfit);
    facts.disturbed = true;
    assert_int_equal(decide(&facts).action, PLAN_REAPPLY);
    facts.external = true;
    facts.disturbed = false;
    assert_int_equal(decide(&facts).action, PLAN_WAIT);
}

static void what_is_asked_for_is_ordered_within_the_limits_and_not_adopted(void **state)
{
    struct plan_facts facts = served();

    (void)state;
    facts.forced = true;
    facts.adopts = true;
    expect(&facts, PLAN_ISSUE, "another certificate was asked for");
    facts.order_from = NOW + 5;
    facts.order_why = "the limit is reached";
    expect_wait(&facts, 5000,
                "another certificate was asked for; no order before 2026-11-23 18:49:12 "
                "UTC: the limit is reached");
    facts.order_from = 0;
    facts.candidate = true;
    assert_int_equal(decide(&facts).action, PLAN_APPLY);
    facts.candidate = false;
    facts.external = true;
    assert_int_equal(decide(&facts).action, PLAN_WAIT);
}

/* ---- waiting ---- */

static void the_wait_ends_when_the_renewal_is_due(void **state)
{
    struct plan_facts facts = served();

    (void)state;
    facts.not_before = NOW - 60 * DAY + 1;
    facts.not_after = NOW + 30 * DAY + 1;
    expect_wait(&facts, 1000,
                "the next renewal is due on 2026-11-23 18:49:08 UTC, by its lifetime");
    facts.not_before += 59;
    facts.not_after += 59;
    expect_wait(&facts, longest_ms,
                "the next renewal is due on 2026-11-23 18:50:07 UTC, by its lifetime");
    facts.not_before -= 1;
    facts.not_after -= 1;
    expect_wait(&facts, longest_ms - 1000,
                "the next renewal is due on 2026-11-23 18:50:06 UTC, by its lifetime");
}

static void a_far_end_does_not_overflow(void **state)
{
    struct plan_facts facts = served();

    (void)state;
    facts.not_after = INT64_C(253402300799); /* 99991231235959Z, RFC 5280 §4.1.2.5 */
    expect_wait(&facts, longest_ms,
                "the next renewal is due on 7342-04-16 06:16:22 UTC, by its lifetime");
}

/* What an activity says while it has to wait, and when it may act. */
static void expect_retry(struct plan_facts facts, enum plan_activity activity,
                         enum plan_action action, const char *waiting)
{
    facts.retry_at_ms[activity] = UPTIME + 1;
    expect_wait(&facts, 1, waiting);
    facts.retry_at_ms[activity] = UPTIME + longest_ms;
    expect_wait(&facts, longest_ms, waiting);
    facts.retry_at_ms[activity] = UPTIME + longest_ms + 1;
    expect_wait(&facts, longest_ms, waiting);
    facts.retry_at_ms[activity] = UINT64_MAX;
    expect_wait(&facts, longest_ms, waiting);
    facts.retry_at_ms[activity] = UPTIME;
    assert_int_equal(decide(&facts).action, action);
    facts.retry_at_ms[activity] = 0;
    assert_int_equal(decide(&facts).action, action);
}

static void a_failed_activity_waits_for_its_time(void **state)
{
    struct plan_facts facts = {0};

    (void)state;
    expect_retry(facts, PLAN_KEYS, PLAN_FETCH_KEYS,
                 "the keys are not at hand yet; after a pause");
    facts.keys = true;
    expect_retry(facts, PLAN_EXAMINING, PLAN_EXAMINE,
                 "the stored certificate has not been judged yet; "
                 "after a pause");
    facts.examined = true;
    expect_retry(facts, PLAN_ISSUING, PLAN_ISSUE,
                 "no usable certificate is stored; after a pause");
    expect_retry(
        facts, PLAN_PREFLIGHT, PLAN_ISSUE,
        "no usable certificate is stored; pre-flight checks hold the order back");
    facts.candidate = true;
    expect_retry(facts, PLAN_APPLYING, PLAN_APPLY,
                 "a certificate waits to be served; after a pause");
    facts = served();
    facts.not_after = NOW + DAY;
    facts.not_before = facts.not_after - 90 * DAY;
    expect_retry(facts, PLAN_ISSUING, PLAN_ISSUE,
                 "the certificate expires on 2026-11-24 18:49:07 UTC; "
                 "due since 2026-10-25 18:49:07 UTC, by its lifetime; "
                 "after a pause");
}

static void a_failed_activity_does_not_hold_up_another(void **state)
{
    struct plan_facts facts = {.keys = true, .examined = true, .candidate = true};

    (void)state;
    facts.retry_at_ms[PLAN_KEYS] = UINT64_MAX;
    facts.retry_at_ms[PLAN_EXAMINING] = UINT64_MAX;
    facts.retry_at_ms[PLAN_ISSUING] = UINT64_MAX;
    assert_int_equal(decide(&facts).action, PLAN_APPLY);
    facts.candidate = false;
    facts.retry_at_ms[PLAN_ISSUING] = 0;
    facts.retry_at_ms[PLAN_APPLYING] = UINT64_MAX;
    assert_int_equal(decide(&facts).action, PLAN_ISSUE);
}

/* ---- what is served is kept as it should be ---- */

static void a_wait_ends_when_upkeep_is_due(void **state)
{
    struct plan_facts facts = served();

    (void)state;
    facts.unattested = true;
    facts.retry_at_ms[PLAN_MEASURING] = UPTIME + 2000;
    expect_wait(&facts, 2000, NEXT_RENEWAL);
    facts.disturbed = true;
    facts.retry_at_ms[PLAN_REAPPLYING] = UPTIME + 1000;
    expect_wait(&facts, 1000, NEXT_RENEWAL);
    facts.retry_at_ms[PLAN_REAPPLYING] = UPTIME;
    expect(&facts, PLAN_REAPPLY, "nginx or its configuration is not as it was left");
    facts.disturbed = false;
    facts.retry_at_ms[PLAN_MEASURING] = UPTIME;
    expect(&facts, PLAN_REAPPLY, "the served certificate is not attested");
}

static void the_account_is_asked_for_again_and_nothing_waits_for_it(void **state)
{
    struct plan_facts facts = served();

    (void)state;
    facts.account_due = true;
    expect(&facts, PLAN_FETCH_KEYS, "the ACME account is not known to nginx yet");
    facts.retry_at_ms[PLAN_ACCOUNT] = UPTIME + 2000;
    expect_wait(&facts, 2000,
                "the next renewal is due on 2027-01-12 18:49:07 UTC, by its lifetime");
    facts.candidate = true;
    expect(&facts, PLAN_APPLY, "a certificate waits to be served");
    facts = (struct plan_facts){.keys = true, .account_due = true};
    expect(&facts, PLAN_EXAMINE, "the stored certificate has not been judged yet");
    facts.examined = true;
    facts.retry_at_ms[PLAN_ACCOUNT] = UINT64_MAX;
    expect(&facts, PLAN_ISSUE, "no usable certificate is stored");
}

static void a_candidate_that_waits_holds_up_no_upkeep(void **state)
{
    struct plan_facts facts = served();

    (void)state;
    facts.candidate = true;
    facts.retry_at_ms[PLAN_APPLYING] = UPTIME + 3000;
    expect_wait(&facts, 3000, "a certificate waits to be served; after a pause");
    facts.unattested = true;
    expect(&facts, PLAN_REAPPLY, "the served certificate is not attested");
    facts.disturbed = true;
    expect(&facts, PLAN_REAPPLY, "nginx or its configuration is not as it was left");
    facts.disturbed = facts.unattested = false;
    assert_int_equal(plan_next(&facts, NOW, PLAN_KEYS_PERIOD_MS).action, PLAN_APPLY);
    facts.retry_at_ms[PLAN_APPLYING] = UINT64_MAX;
    assert_int_equal(plan_next(&facts, NOW, PLAN_KEYS_PERIOD_MS).action, PLAN_FETCH_KEYS);
}

/* ---- what the CA says about renewal ---- */

static void the_ca_is_asked_at_its_time_and_before_an_order(void **state)
{
    struct plan_facts facts = served();

    (void)state;
    facts.ask_at = NOW;
    assert_int_equal(decide(&facts).action, PLAN_WAIT); /* nobody to ask */
    facts.asks = true;
    expect(&facts, PLAN_ASK_RENEWAL_INFO, "the CA is asked when to renew");
    facts.ask_at = NOW + 1;
    assert_int_equal(decide(&facts).action, PLAN_WAIT);
    facts.ask_at = 0;
    facts.not_after = NOW + DAY;
    assert_int_equal(decide(&facts).action, PLAN_ASK_RENEWAL_INFO);
    facts.retry_at_ms[PLAN_ASKING] = UPTIME + 1;
    assert_int_equal(decide(&facts).action, PLAN_ISSUE);
}

static void what_clients_see_comes_before_a_question(void **state)
{
    struct plan_facts facts = served();

    (void)state;
    facts.asks = facts.candidate = true;
    assert_int_equal(decide(&facts).action, PLAN_APPLY);
    facts.candidate = false;
    facts.unattested = true;
    assert_int_equal(decide(&facts).action, PLAN_REAPPLY);
    facts = served();
    facts.asks = true;
    facts.served = false;
    assert_int_equal(decide(&facts).action, PLAN_ISSUE);
}

static void the_reason_names_the_rule(void **state)
{
    struct plan_facts facts = served();

    (void)state;
    facts.renewal.before_s = 40 * DAY;
    expect_wait(&facts, longest_ms,
                "the next renewal is due on 2027-01-02 18:49:07 UTC, by "
                "acme.renew_before");
    facts.renewal.window = (struct renewal_window){NOW + DAY, NOW + DAY + 1};
    expect_wait(&facts, longest_ms,
                "the next renewal is due on 2026-11-24 18:49:07 UTC, as its CA suggests");
    facts.renewal.window = (struct renewal_window){NOW - DAY, NOW - DAY + 1};
    expect(&facts, PLAN_ISSUE,
           "the certificate expires on 2027-02-11 18:49:07 UTC; "
           "due since 2026-11-22 18:49:07 UTC, as its CA suggests");
}

/* ---- clocks ---- */

static void evidence_is_gathered_when_nothing_else_is_to_be_served(void **state)
{
    struct plan_facts facts = served();

    (void)state;
    facts.evidence_due = true;
    expect(&facts, PLAN_GATHER, "there is no evidence of what is served yet");
    facts.candidate = true;
    expect(&facts, PLAN_APPLY, "a certificate waits to be served");
    facts = (struct plan_facts){.keys = true, .examined = true, .evidence_due = true};
    expect(&facts, PLAN_ISSUE, "no usable certificate is stored");
}

static void evidence_that_failed_holds_nothing_up_and_is_looked_for_again(void **state)
{
    struct plan_facts facts = served();
    const char *later = NEXT_RENEWAL;

    (void)state;
    facts.evidence_due = true;
    facts.retry_at_ms[PLAN_GATHERING] = UPTIME + 1500;
    expect_wait(&facts, 1500, later);
    facts.retry_at_ms[PLAN_GATHERING] = UPTIME + 2 * longest_ms;
    expect_wait(&facts, longest_ms, later);
    facts.retry_at_ms[PLAN_GATHERING] = UPTIME;
    expect(&facts, PLAN_GATHER, "there is no evidence of what is served yet");
    facts.retry_at_ms[PLAN_GATHERING] = UPTIME + 1500;
    facts.not_after = NOW + DAY;
    assert_int_equal(decide(&facts).action, PLAN_ISSUE);
}

static void a_clock_before_the_life_waits_and_alarms(void **state)
{
    struct plan_facts facts = served();
    const int64_t clocks[] = {facts.not_before - 301, facts.not_before - DAY, 0, -DAY};

    (void)state;
    /* A CA that wants the certificate renewed at once changes nothing about that. */
    facts.renewal.window = (struct renewal_window){.start = -DAY, .end = 0};
    for (size_t i = 0; i < sizeof clocks / sizeof clocks[0]; i++) {
        struct plan plan = plan_next(&facts, clocks[i], UPTIME);

        assert_int_equal(plan.action, PLAN_WAIT);
        assert_int_equal(plan.wait_ms, longest_ms);
        assert_true(plan.alarming);
        assert_string_equal(plan.reason,
                            "the served certificate is valid from 2026-11-13 18:49:07 "
                            "UTC on only: is this machine's clock right?");
    }
    facts = served();
    /* CAs and machines disagree by minutes. */
    assert_false(plan_next(&facts, facts.not_before - 300, UPTIME).alarming);
    assert_false(decide(&facts).alarming);
}

static void a_jump_of_the_wall_clock_is_seen_at_the_next_look(void **state)
{
    struct plan_facts facts = served();
    int64_t renew_at = renewal_of(&facts.renewal, facts.not_before, facts.not_after).at;

    (void)state;
    assert_int_equal(plan_next(&facts, NOW, UPTIME).action, PLAN_WAIT);
    assert_int_equal(plan_next(&facts, renew_at, UPTIME).action, PLAN_ISSUE);
    assert_int_equal(plan_next(&facts, facts.not_after + 1000 * DAY, UPTIME).action,
                     PLAN_ISSUE);
    assert_int_equal(plan_next(&facts, NOW, UPTIME).action, PLAN_WAIT);
}

static void a_jump_of_the_wall_clock_leaves_retries_alone(void **state)
{
    static const int64_t jumps[] = {-100 * 365 * DAY, -DAY, DAY, 100 * 365 * DAY};
    struct plan_facts facts = {.keys = true, .examined = true};

    (void)state;
    facts.retry_at_ms[PLAN_ISSUING] = UPTIME + 50000;
    for (size_t i = 0; i < sizeof jumps / sizeof jumps[0]; i++) {
        struct plan plan = plan_next(&facts, NOW + jumps[i], UPTIME);

        assert_int_equal(plan.action, PLAN_WAIT);
        assert_int_equal(plan.wait_ms, 50000);
        plan = plan_next(&facts, NOW + jumps[i], UPTIME + 50000);
        assert_int_equal(plan.action, PLAN_ISSUE);
    }
}

/* ---- the ledger of orders ---- */

static void an_order_waits_for_the_time_of_the_ledger(void **state)
{
    static const char why[] =
        "no usable certificate is stored; no order before 2026-11-23 18:49:17 UTC: the "
        "last "
        "challenge failed";
    struct plan_facts facts = {.keys = true, .examined = true};

    (void)state;
    facts.order_from = NOW + 10;
    facts.order_why = "the last challenge failed";
    expect_wait(&facts, 10 * 1000, why);
    facts.order_from = NOW;
    assert_int_equal(decide(&facts).action, PLAN_ISSUE);
    /* What is under way is found out about at once. */
    facts.order_from = NOW + 10 * DAY;
    assert_int_equal(decide(&facts).wait_ms, longest_ms);
    facts.unsettled = true;
    assert_int_equal(decide(&facts).action, PLAN_ISSUE);
}

static void nothing_is_ordered_without_a_ledger(void **state)
{
    struct plan_facts facts = {.keys = true, .examined = true};

    (void)state;
    facts.order_from = INT64_MAX;
    facts.order_why = "there is no ledger";
    expect_wait(&facts, longest_ms,
                "no usable certificate is stored; there is no ledger");
}

static void the_ledger_holds_nothing_but_orders(void **state)
{
    struct plan_facts facts = served();

    (void)state;
    facts.order_from = INT64_MAX;
    facts.order_why = "there is no ledger";
    assert_non_null(strstr(decide(&facts).reason, "the next renewal is due"));
    facts.candidate = true;
    assert_int_equal(decide(&facts).action, PLAN_APPLY);
    facts.candidate = false;
    facts.disturbed = true;
    assert_int_equal(decide(&facts).action, PLAN_REAPPLY);
}

/* ---- whatever the facts ---- */

/* xorshift64*: the same numbers in every run. */
static uint64_t number(void)
{
    static uint64_t bits = UINT64_C(0x9e3779b97f4a7c15);

    bits ^= bits >> 12;
    bits ^= bits << 25;
    bits ^= bits >> 27;
    return bits * UINT64_C(0x2545f4914f6cdd1d);
}

static int64_t number_below(int64_t limit)
{
    return (int64_t)(number() % (uint64_t)limit);
}

static void every_plan_is_sound(void **state)
{
    (void)state;
    for (int i = 0; i < 200000; i++) {
        uint64_t flags = number();
        struct plan_facts facts = {
            .keys = (flags & 7) != 0,
            .examined = (flags & 0x70) != 0,
            .candidate = (flags & 0x300) == 0,
            .adopts = (flags & 0x400) != 0,
            .served = (flags & 0x1000) != 0,
            .evidence_due = (flags & 0x2000) != 0,
            .disturbed = (flags & 0x6000) == 0,
            .unattested = (flags & 0x18000) == 0,
            .not_before = NOW - number_below(200 * DAY),
            .not_after = NOW - 10 * DAY + number_below(200 * DAY),
            .renewal = {.before_s = (flags & 0x20000) != 0 ? number_below(45 * DAY) : 0,
                        .spread = (uint32_t)number(),
                        .shared = (flags & 0x40000) != 0},
            .asks = (flags & 0x80000) != 0,
            .ask_at = NOW + DAY - number_below(2 * DAY),
        };
        uint64_t uptime_ms = number() % UINT64_C(10000000000);
        struct plan plan;

        if ((flags & 0x100000) != 0) {
            facts.renewal.window.start = NOW + number_below(200 * DAY) - 100 * DAY;
            facts.renewal.window.end = NOW + number_below(200 * DAY) - 100 * DAY;
        }
        for (int activity = 0; activity < PLAN_ACTIVITIES; activity++)
            if (number() % 2 == 0)
                facts.retry_at_ms[activity] =
                    uptime_ms - uptime_ms % 1000 + number() % 1000;
        plan = plan_next(&facts, NOW, uptime_ms);
        assert_true(plan.reason[0] != '\0');
        assert_true(strlen(plan.reason) < sizeof plan.reason - 1); /* never cut */
        /* A wait that is over at once would make the daemon spin. */
        if (plan.action == PLAN_WAIT)
            assert_true(plan.wait_ms > 0 && plan.wait_ms <= longest_ms);
        else
            assert_int_equal(plan.wait_ms, 0);
        if (plan.action == PLAN_APPLY)
            assert_true(facts.candidate);
        if (plan.action == PLAN_ADOPT)
            assert_true(facts.adopts && facts.retry_at_ms[PLAN_ADOPTING] <= uptime_ms);
        if (plan.action == PLAN_ISSUE || plan.action == PLAN_ADOPT)
            assert_true(
                !facts.served ||
                NOW >= renewal_of(&facts.renewal, facts.not_before, facts.not_after).at);
        if (plan.action == PLAN_ASK_RENEWAL_INFO)
            assert_true(facts.served && facts.asks);
    }
}

/* ---- what is served, and how ---- */

static void an_unfinished_way_back_comes_before_all_but_the_keys(void **state)
{
    struct plan_facts facts = served();

    (void)state;
    facts.repair = true;
    facts.candidate = true;
    facts.disturbed = true;
    assert_int_equal(decide(&facts).action, PLAN_REPAIR);
    facts.retry_at_ms[PLAN_REPAIRING] = UPTIME + 7;
    assert_int_equal(decide(&facts).action, PLAN_WAIT);
    assert_int_equal(decide(&facts).wait_ms, 7);
}

static void what_somebody_else_touched_is_applied_again(void **state)
{
    struct plan_facts facts = served();

    (void)state;
    facts.disturbed = true;
    assert_int_equal(decide(&facts).action, PLAN_REAPPLY);
    /* A failure of that holds up nothing else. */
    facts.retry_at_ms[PLAN_REAPPLYING] = UPTIME + 1;
    assert_int_equal(decide(&facts).action, PLAN_WAIT);
    facts.not_after = NOW + DAY;
    assert_int_equal(decide(&facts).action, PLAN_ISSUE);
}

static void
an_unattested_leaf_is_measured_at_its_time_and_renewed_at_its_own(void **state)
{
    struct plan_facts facts = served();

    (void)state;
    facts.unattested = true;
    assert_int_equal(decide(&facts).action, PLAN_REAPPLY);
    facts.retry_at_ms[PLAN_MEASURING] = UPTIME + 1;
    assert_int_equal(decide(&facts).action, PLAN_WAIT);
    facts.not_after = NOW + DAY;
    assert_int_equal(decide(&facts).action, PLAN_ISSUE);
}

static void the_keys_are_asked_for_daily_and_before_an_order(void **state)
{
    struct plan_facts facts = served();
    uint64_t later = UPTIME + PLAN_KEYS_PERIOD_MS;

    (void)state;
    facts.keys_at_ms = UPTIME;
    assert_int_equal(plan_next(&facts, NOW, later - 1).action, PLAN_WAIT);
    assert_int_equal(plan_next(&facts, NOW, later).action, PLAN_FETCH_KEYS);
    /* An agent that does not answer then is asked again later; nothing waits for it. */
    facts.retry_at_ms[PLAN_KEYS] = later + 1;
    assert_int_equal(plan_next(&facts, NOW, later).action, PLAN_WAIT);

    facts = served();
    facts.keys_at_ms = UPTIME;
    facts.not_after = NOW + DAY;
    later = UPTIME + PLAN_KEYS_FRESH_MS;
    assert_int_equal(plan_next(&facts, NOW, later).action, PLAN_ISSUE);
    assert_int_equal(plan_next(&facts, NOW, later + 1).action, PLAN_FETCH_KEYS);
    facts.retry_at_ms[PLAN_KEYS] = later + 2;
    assert_int_equal(plan_next(&facts, NOW, later + 1).action, PLAN_WAIT);
}

static void others_are_looked_at_before_an_order(void **state)
{
    struct plan_facts facts = served();

    (void)state;
    facts.adopts = true;
    assert_int_equal(decide(&facts).action, PLAN_WAIT); /* for the renewal */
    facts.not_after = NOW + DAY;
    assert_int_equal(decide(&facts).action, PLAN_ADOPT);
    /* It was done a moment ago. */
    facts.retry_at_ms[PLAN_ADOPTING] = UPTIME + PLAN_ADOPT_PERIOD_MS;
    assert_int_equal(decide(&facts).action, PLAN_ISSUE);
    facts.retry_at_ms[PLAN_ADOPTING] = 0;
    facts.served = false;
    expect(&facts, PLAN_ADOPT, "no usable certificate is stored");
    facts.adopts = false;
    assert_int_equal(decide(&facts).action, PLAN_ISSUE);
}

static void others_are_looked_at_while_an_order_has_to_wait(void **state)
{
    struct plan_facts facts = {.keys = true, .examined = true, .adopts = true};

    (void)state;
    facts.retry_at_ms[PLAN_ISSUING] = UPTIME + 1000;
    assert_int_equal(decide(&facts).action, PLAN_ADOPT);
    facts.retry_at_ms[PLAN_ADOPTING] = UPTIME + 300;
    assert_int_equal(decide(&facts).action, PLAN_WAIT);
    assert_int_equal(decide(&facts).wait_ms, 300);
    facts.retry_at_ms[PLAN_ADOPTING] = UPTIME + 3000;
    assert_int_equal(decide(&facts).wait_ms, 1000);
}

/* What is found has to be for the key of now; where nothing may be ordered yet the last known will do. */
static void the_keys_are_fresh_before_others_are_looked_at_for_an_order(void **state)
{
    struct plan_facts facts = {.keys = true, .examined = true, .adopts = true};
    uint64_t later = UPTIME + PLAN_KEYS_FRESH_MS + 1;

    (void)state;
    facts.keys_at_ms = UPTIME;
    assert_int_equal(plan_next(&facts, NOW, later).action, PLAN_FETCH_KEYS);
    facts.retry_at_ms[PLAN_ISSUING] = later + 1;
    assert_int_equal(plan_next(&facts, NOW, later).action, PLAN_ADOPT);
}

static void another_key_is_a_reason_to_order_at_once(void **state)
{
    struct plan_facts facts = served();

    (void)state;
    facts.rekeyed = true;
    expect(&facts, PLAN_ISSUE, "the agent derives another key now");
}

static void nothing_is_ordered_for_keys_of_somebody_else(void **state)
{
    struct plan_facts facts = served();

    (void)state;
    facts.external = true;
    facts.not_after = NOW - DAY;
    assert_int_equal(decide(&facts).action, PLAN_WAIT);
    facts.served = false;
    assert_int_equal(decide(&facts).action, PLAN_WAIT);
    assert_non_null(strstr(decide(&facts).reason, "tls.key is external"));
    facts.candidate = true;
    assert_int_equal(decide(&facts).action, PLAN_APPLY);
}

static void a_tenth_of_the_life_is_nearly_over(void **state)
{
    (void)state;
    assert_false(plan_is_nearly_over(NOW - 81 * DAY, NOW + 9 * DAY, NOW));
    assert_true(plan_is_nearly_over(NOW - 81 * DAY, NOW + 9 * DAY, NOW + 1));
    assert_true(plan_is_nearly_over(NOW - 90 * DAY, NOW, NOW + DAY));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_plan_says_what_it_waits_for_and_how_long),
        cmocka_unit_test(what_is_for_somebody_else_has_no_time),
        cmocka_unit_test(actions_and_activities_have_names),
        cmocka_unit_test(the_actions_come_in_their_order),
        cmocka_unit_test(the_keys_come_before_all_else),
        cmocka_unit_test(a_candidate_is_applied_before_another_is_asked_for),
        cmocka_unit_test(a_served_leaf_is_renewed_when_due),
        cmocka_unit_test(a_leaf_that_lacks_a_name_is_served_while_it_is_issued_again),
        cmocka_unit_test(
            what_the_settings_do_not_want_any_more_is_served_while_it_is_replaced),
        cmocka_unit_test(what_is_asked_for_is_ordered_within_the_limits_and_not_adopted),
        cmocka_unit_test(the_wait_ends_when_the_renewal_is_due),
        cmocka_unit_test(a_far_end_does_not_overflow),
        cmocka_unit_test(a_failed_activity_waits_for_its_time),
        cmocka_unit_test(a_failed_activity_does_not_hold_up_another),
        cmocka_unit_test(evidence_is_gathered_when_nothing_else_is_to_be_served),
        cmocka_unit_test(evidence_that_failed_holds_nothing_up_and_is_looked_for_again),
        cmocka_unit_test(a_wait_ends_when_upkeep_is_due),
        cmocka_unit_test(the_account_is_asked_for_again_and_nothing_waits_for_it),
        cmocka_unit_test(a_candidate_that_waits_holds_up_no_upkeep),
        cmocka_unit_test(the_ca_is_asked_at_its_time_and_before_an_order),
        cmocka_unit_test(what_clients_see_comes_before_a_question),
        cmocka_unit_test(the_reason_names_the_rule),
        cmocka_unit_test(a_clock_before_the_life_waits_and_alarms),
        cmocka_unit_test(a_jump_of_the_wall_clock_is_seen_at_the_next_look),
        cmocka_unit_test(a_jump_of_the_wall_clock_leaves_retries_alone),
        cmocka_unit_test(every_plan_is_sound),
        cmocka_unit_test(an_unfinished_way_back_comes_before_all_but_the_keys),
        cmocka_unit_test(what_somebody_else_touched_is_applied_again),
        cmocka_unit_test(
            an_unattested_leaf_is_measured_at_its_time_and_renewed_at_its_own),
        cmocka_unit_test(the_keys_are_asked_for_daily_and_before_an_order),
        cmocka_unit_test(others_are_looked_at_before_an_order),
        cmocka_unit_test(others_are_looked_at_while_an_order_has_to_wait),
        cmocka_unit_test(the_keys_are_fresh_before_others_are_looked_at_for_an_order),
        cmocka_unit_test(another_key_is_a_reason_to_order_at_once),
        cmocka_unit_test(nothing_is_ordered_for_keys_of_somebody_else),
        cmocka_unit_test(a_tenth_of_the_life_is_nearly_over),
        cmocka_unit_test(an_order_waits_for_the_time_of_the_ledger),
        cmocka_unit_test(nothing_is_ordered_without_a_ledger),
        cmocka_unit_test(the_ledger_holds_nothing_but_orders),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
