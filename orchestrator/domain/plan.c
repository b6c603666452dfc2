#include "domain/plan.h"

#include "base/text.h"

#include <stdio.h>

const char *plan_action_name(enum plan_action action)
{
    static const char *const names[] = {
        [PLAN_WAIT] = "wait",       [PLAN_FETCH_KEYS] = "keys",
        [PLAN_EXAMINE] = "examine", [PLAN_APPLY] = "apply",
        [PLAN_REPAIR] = "repair",   [PLAN_REAPPLY] = "reapply",
        [PLAN_GATHER] = "evidence", [PLAN_ASK_RENEWAL_INFO] = "renewal info",
        [PLAN_ADOPT] = "adopt",     [PLAN_ISSUE] = "issue",
    };

    return names[action];
}

const char *plan_activity_name(enum plan_activity activity)
{
    static const char *const names[PLAN_ACTIVITIES] = {
        [PLAN_KEYS] = "keys",          [PLAN_ACCOUNT] = "account",
        [PLAN_EXAMINING] = "examine",  [PLAN_APPLYING] = "apply",
        [PLAN_ADOPTING] = "adopt",     [PLAN_PREFLIGHT] = "pre-flight",
        [PLAN_ISSUING] = "issue",      [PLAN_REPAIRING] = "repair",
        [PLAN_REAPPLYING] = "reapply", [PLAN_MEASURING] = "measure",
        [PLAN_GATHERING] = "evidence", [PLAN_ASKING] = "renewal info",
    };

    return names[activity];
}

bool plan_is_nearly_over(int64_t not_before, int64_t not_after, int64_t now)
{
    return not_after - now < (not_after - not_before) / 10;
}

static struct plan act(enum plan_action action, const char *reason)
{
    struct plan plan = {.action = action, .next = action};

    snprintf(plan.reason, sizeof plan.reason, "%s", reason);
    return plan;
}

/* Waking every minute notices a wall clock that jumped and a machine that slept. */
static struct plan wait_ms(enum plan_action next, uint64_t ms, const char *reason)
{
    struct plan plan = act(PLAN_WAIT, reason);

    plan.wait_ms = ms < PLAN_LONGEST_WAIT_MS ? ms : PLAN_LONGEST_WAIT_MS;
    plan.next = next;
    plan.next_in_ms = ms;
    return plan;
}

/* For what somebody else has to do. */
static struct plan wait_for_others(const char *reason)
{
    return wait_ms(PLAN_WAIT, UINT64_MAX, reason);
}

static struct plan act_or_wait(enum plan_action action, uint64_t retry_at_ms,
                               uint64_t uptime_ms, const char *reason)
{
    char text[PLAN_REASON_SIZE];

    if (retry_at_ms <= uptime_ms)
        return act(action, reason);
    snprintf(text, sizeof text, "%s; after a pause", reason);
    return wait_ms(action, retry_at_ms - uptime_ms, text);
}

static bool is_due(const struct plan_facts *facts, enum plan_activity activity,
                   uint64_t uptime_ms)
{
    return facts->retry_at_ms[activity] <= uptime_ms;
}

/* A wait ends no later than that. */
static void shorten(struct plan *plan, const struct plan_facts *facts, bool is_wanted,
                    enum plan_activity activity, uint64_t uptime_ms)
{
    uint64_t left_ms;

    if (plan->action != PLAN_WAIT || !is_wanted || is_due(facts, activity, uptime_ms))
        return;
    left_ms = facts->retry_at_ms[activity] - uptime_ms;
    if (left_ms < plan->wait_ms)
        plan->wait_ms = left_ms;
}

/* Both times have to be over: that of the ledger survives a restart, ours a jump of the clock. */
static struct plan wait_for_ledger(const struct plan_facts *facts, int64_t now,
                                   const char *reason)
{
    char text[PLAN_REASON_SIZE];
    char date[TEXT_TIME_SIZE];

    if (facts->order_from == INT64_MAX)
        snprintf(text, sizeof text, "%s; %s", reason, facts->order_why);
    else
        snprintf(text, sizeof text, "%s; no order before %s: %s", reason,
                 text_time(date, facts->order_from), facts->order_why);
    return wait_ms(PLAN_ISSUE,
                   facts->order_from == INT64_MAX
                       ? UINT64_MAX
                       : (uint64_t)(facts->order_from - now) * 1000,
                   text);
}

/*
 * An order is for the key that the agent derives now, and comes after the pre-flight checks, which
 * have a pace of their own. Others may have what it is for, also while the CA must not be asked yet.
 */
static struct plan issue(const struct plan_facts *facts, int64_t now, uint64_t uptime_ms,
                         const char *reason)
{
    uint64_t checks_at_ms = facts->retry_at_ms[PLAN_PREFLIGHT];
    uint64_t order_at_ms = facts->retry_at_ms[PLAN_ISSUING];
    uint64_t retry_at_ms = order_at_ms > checks_at_ms ? order_at_ms : checks_at_ms;
    bool adopts = facts->adopts && !facts->forced;
    struct plan plan = act_or_wait(PLAN_ISSUE, retry_at_ms, uptime_ms, reason);

    if (!facts->unsettled && facts->order_from != 0 && facts->order_from > now)
        plan = wait_for_ledger(facts, now, reason);
    else if (plan.action == PLAN_WAIT && checks_at_ms > order_at_ms)
        snprintf(plan.reason, sizeof plan.reason,
                 "%s; pre-flight checks hold the order back", reason);
    if (plan.action == PLAN_ISSUE && uptime_ms - facts->keys_at_ms > PLAN_KEYS_FRESH_MS)
        return act_or_wait(PLAN_FETCH_KEYS, facts->retry_at_ms[PLAN_KEYS], uptime_ms,
                           "the keys are asked for again before an order");
    if (adopts && is_due(facts, PLAN_ADOPTING, uptime_ms))
        return act(PLAN_ADOPT, reason);
    shorten(&plan, facts, adopts, PLAN_ADOPTING, uptime_ms);
    return plan;
}

/* A clock that is behind says nothing of when to renew: it has to be put right. */
static struct plan wait_for_clock(const struct plan_facts *facts)
{
    char reason[PLAN_REASON_SIZE];
    char date[TEXT_TIME_SIZE];
    struct plan plan;

    text_time(date, facts->not_before);
    snprintf(reason, sizeof reason,
             "the served certificate is valid from %s on only: is this machine's clock "
             "right?",
             date);
    plan = wait_for_others(reason);
    plan.alarming = true;
    return plan;
}

static struct plan renew_in_time(const struct plan_facts *facts, int64_t now,
                                 uint64_t uptime_ms)
{
    static const char *const rules[] = {
        [RENEWAL_BY_LIFETIME] = "by its lifetime",
        [RENEWAL_BY_SETTING] = "by acme.renew_before",
        [RENEWAL_BY_CA] = "as its CA suggests",
    };
    struct renewal renewal =
        renewal_of(&facts->renewal, facts->not_before, facts->not_after);
    char reason[PLAN_REASON_SIZE];
    char due[TEXT_TIME_SIZE];
    char date[TEXT_TIME_SIZE];

    text_time(due, renewal.at);
    if (now >= renewal.at) {
        snprintf(reason, sizeof reason, "the certificate expires on %s; due since %s, %s",
                 text_time(date, facts->not_after), due, rules[renewal.rule]);
        return issue(facts, now, uptime_ms, reason);
    }
    snprintf(reason, sizeof reason, "the next renewal is due on %s, %s", due,
             rules[renewal.rule]);
    return wait_ms(PLAN_ISSUE, (uint64_t)(renewal.at - now) * 1000, reason);
}

static struct plan renew(const struct plan_facts *facts, int64_t now, uint64_t uptime_ms)
{
    char reason[PLAN_REASON_SIZE];
    char date[TEXT_TIME_SIZE];

    if (facts->external) {
        text_time(date, facts->not_after);
        snprintf(reason, sizeof reason,
                 "the certificate expires on %s; tls.key is external, so it is somebody "
                 "else who renews it",
                 date);
        return wait_for_others(reason);
    }
    if (facts->forced)
        return issue(facts, now, uptime_ms, "another certificate was asked for");
    if (facts->rekeyed)
        return issue(facts, now, uptime_ms, "the agent derives another key now");
    if (facts->unfit != NULL)
        return issue(facts, now, uptime_ms, facts->unfit);
    if (renewal_is_before_life(facts->not_before, now))
        return wait_for_clock(facts);
    if (facts->incomplete != NULL) {
        snprintf(reason, sizeof reason, "the certificate is not for %s yet",
                 facts->incomplete);
        return issue(facts, now, uptime_ms, reason);
    }
    return renew_in_time(facts, now, uptime_ms);
}

/* What keeps the served leaf as it should be, and is due now, whatever else waits for its time. */
static enum plan_action upkeep(const struct plan_facts *facts, int64_t now,
                               uint64_t uptime_ms, const char **ret_reason)
{
    if (facts->served && facts->disturbed && is_due(facts, PLAN_REAPPLYING, uptime_ms)) {
        *ret_reason = "nginx or its configuration is not as it was left";
        return PLAN_REAPPLY;
    }
    if (facts->served && facts->evidence_due &&
        is_due(facts, PLAN_GATHERING, uptime_ms)) {
        *ret_reason = "there is no evidence of what is served yet";
        return PLAN_GATHER;
    }
    if (uptime_ms - facts->keys_at_ms >= PLAN_KEYS_PERIOD_MS &&
        is_due(facts, PLAN_KEYS, uptime_ms)) {
        *ret_reason = "the keys are asked for once a day";
        return PLAN_FETCH_KEYS;
    }
    if (facts->account_due && is_due(facts, PLAN_ACCOUNT, uptime_ms)) {
        *ret_reason = "the ACME account is not known to nginx yet";
        return PLAN_FETCH_KEYS;
    }
    if (facts->served && facts->unattested && is_due(facts, PLAN_MEASURING, uptime_ms)) {
        *ret_reason = "the served certificate is not attested";
        return PLAN_REAPPLY;
    }
    if (facts->served && facts->asks && renewal_may_ask(facts->ask_at, now) &&
        is_due(facts, PLAN_ASKING, uptime_ms)) {
        *ret_reason = "the CA is asked when to renew";
        return PLAN_ASK_RENEWAL_INFO;
    }
    return PLAN_WAIT;
}

/* The next certificate: one that is there waits to be served, or it is obtained in its time. */
static struct plan advance(const struct plan_facts *facts, int64_t now,
                           uint64_t uptime_ms)
{
    if (facts->candidate)
        return act_or_wait(PLAN_APPLY, facts->retry_at_ms[PLAN_APPLYING], uptime_ms,
                           "a certificate waits to be served");
    if (facts->served)
        return renew(facts, now, uptime_ms);
    if (facts->external)
        return wait_for_others(
            "no usable pair is stored; tls.key is external, so it is "
            "somebody else who brings one");
    return issue(facts, now, uptime_ms, "no usable certificate is stored");
}

struct plan plan_next(const struct plan_facts *facts, int64_t now, uint64_t uptime_ms)
{
    const char *reason;
    enum plan_action action;
    struct plan plan;

    if (!facts->keys)
        return act_or_wait(PLAN_FETCH_KEYS, facts->retry_at_ms[PLAN_KEYS], uptime_ms,
                           "the keys are not at hand yet");
    if (facts->repair)
        return act_or_wait(PLAN_REPAIR, facts->retry_at_ms[PLAN_REPAIRING], uptime_ms,
                           "the former certificate has to be served and measured again");
    if (!facts->examined)
        return act_or_wait(PLAN_EXAMINE, facts->retry_at_ms[PLAN_EXAMINING], uptime_ms,
                           "the stored certificate has not been judged yet");
    plan = advance(facts, now, uptime_ms);
    if (plan.action == PLAN_APPLY)
        return plan;
    action = upkeep(facts, now, uptime_ms, &reason);
    if (action != PLAN_WAIT)
        return act(action, reason);
    shorten(&plan, facts, facts->account_due, PLAN_ACCOUNT, uptime_ms);
    shorten(&plan, facts, facts->served && facts->disturbed, PLAN_REAPPLYING, uptime_ms);
    shorten(&plan, facts, facts->served && facts->unattested, PLAN_MEASURING, uptime_ms);
    shorten(&plan, facts, facts->served && facts->evidence_due, PLAN_GATHERING,
            uptime_ms);
    return plan;
}
