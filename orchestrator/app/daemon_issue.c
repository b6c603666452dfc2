/* Obtaining a certificate, from others or from the CA, and what comes of it. */
#include "app/daemon_internal.h"
#include "base/log.h"
#include "base/random.h"
#include "base/text.h"
#include "domain/pace.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static uint64_t issue_pace(const struct daemon *d, const struct issue_flow *flow,
                           const struct err *err)
{
    const struct config *config = d->config;
    const struct pace_limits limits = {
        .min_ms = config->acme.retry_min_ms,
        .max_ms = config->acme.retry_max_ms,
        .counts_challenges = authority_is_lets_encrypt(flow->request.authority),
    };
    const struct pace_failure failure = {
        .kind = err->kind,
        .asked_ca = flow->asked_ca,
        .outcome = flow->certbot_ran ? &flow->outcome : NULL,
        .in_a_row = d->fallback.items[d->authority].failures + 1,
    };

    return pace_issue(&failure, &limits, (int64_t)time(NULL), random_number());
}

static void rest_after_issue(struct daemon *d, const struct chain_leaf *leaf)
{
    const struct renewal_terms by_dates = {0};
    char date[TEXT_TIME_SIZE];

    d->plan_facts.retry_at_ms[PLAN_ISSUING] =
        daemon_uptime_ms(d) + renewal_rest_ms(leaf->not_before, leaf->not_after);
    if (renewal_of(&by_dates, leaf->not_before, leaf->not_after).at <=
        (int64_t)time(NULL))
        log_warning(
            "the new certificate is due for renewal already, valid until %s: is this "
            "machine's clock right?",
            text_time(date, leaf->not_after));
}

/* The next CA is asked at once where that may help; this one is left alone for its own time. */
static void fall_back(struct daemon *d, const struct issue_flow *flow,
                      const struct err *err)
{
    bool helps = fallback_helps(err->kind, flow->asked_ca,
                                flow->certbot_ran ? &flow->outcome : NULL);
    uint64_t now_ms = daemon_uptime_ms(d);
    uint64_t wait_ms = issue_pace(d, flow, err);
    uint64_t due_ms;

    fallback_failed(&d->fallback, d->authority, helps, now_ms + wait_ms);
    due_ms = fallback_due(&d->fallback, now_ms);
    if (due_ms > now_ms) {
        daemon_retry_later(d, PLAN_ISSUING, err, due_ms - now_ms);
        return;
    }
    if (err->kind == ERR_CANCELED && d->stopping)
        return;
    log_error(
        "%s (attempt %u; %s is asked now)", err->message, d->failures[PLAN_ISSUING],
        d->config->acme.authorities.items[fallback_next(&d->fallback, now_ms)].directory);
}

static void take_candidate(struct daemon *d, struct chain **chain)
{
    daemon_drop_candidate(d);
    d->candidate = *chain;
    *chain = NULL;
    d->plan_facts.candidate = true;
    d->plan_facts.retry_at_ms[PLAN_APPLYING] = 0;
}

static void on_issue_done(void *owner, const struct err *err)
{
    struct daemon *d = owner;

    daemon_count(d, PLAN_ISSUING, err != NULL);
    daemon_note_account(d, d->authority, &d->flow.issue.account);
    if (err != NULL || d->flow.issue.chain != NULL)
        daemon_count_issue(d, &d->flow.issue, err);
    if (d->flow.issue.certbot_ran && !d->flow.issue.request.takes_over_only)
        daemon_judge_challenges(d, &d->flow.issue.outcome);
    if (err != NULL) {
        fall_back(d, &d->flow.issue, err);
    } else if (d->flow.issue.chain != NULL) {
        fallback_succeeded(&d->fallback, d->authority);
        take_candidate(d, &d->flow.issue.chain);
        rest_after_issue(d, chain_leaf(d->candidate));
        daemon_expect_renewal(d, chain_leaf(d->candidate),
                              d->flow.issue.request.authority, false);
    }
    /* One that could not be kept still waits in certbot's folder. */
    d->plan_facts.adopts = d->flow.issue.chain == NULL && adopt_is_on(d->config);
    issue_flow_done(&d->flow.issue);
    daemon_flow_ended(d);
}

void daemon_start_order(struct daemon *d, bool takes_over_only)
{
    size_t authority = fallback_next(&d->fallback, daemon_uptime_ms(d));
    const struct issue_request request = {
        .loop = &d->loop,
        .http = d->http,
        .config = d->config,
        .authority = &d->config->acme.authorities.items[authority],
        .agent = &d->agent,
        .store = &d->store,
        .tls_key = d->tls_key,
        .takes_over_only = takes_over_only,
    };

    d->authority = authority;
    d->activity = ISSUING;
    daemon_begin_challenges(d);
    issue_flow_start(&d->flow.issue, &request, on_issue_done, d);
}

void daemon_start_issue(struct daemon *d)
{
    bool left = !d->config->development && certbot_has_left(d->config);

    if (left || d->config->development)
        daemon_start_order(d, left);
    else
        daemon_start_preflight(d);
}

/* ---- what others serve ---- */

/* Once for each change: others are looked at again and again while an order has to wait. */
static void log_refusal(struct daemon *d, const char *refusal)
{
    if (refusal[0] != '\0' && strcmp(refusal, d->last_refusal) != 0)
        log_info("not adopted: %s", refusal);
    snprintf(d->last_refusal, sizeof d->last_refusal, "%s", refusal);
}

static void on_adopt_done(void *owner, const struct err *err)
{
    struct daemon *d = owner;
    struct adopt_flow *flow = &d->flow.adopt;

    d->plan_facts.retry_at_ms[PLAN_ADOPTING] = daemon_uptime_ms(d) + PLAN_ADOPT_PERIOD_MS;
    if (err != NULL && err->kind != ERR_CANCELED)
        log_warning("%s; nothing is adopted", err->message);
    else if (err == NULL && flow->chain != NULL) {
        d->failures[PLAN_ISSUING] = 0; /* and the CA is still left alone for its time */
        take_candidate(d, &flow->chain);
        daemon_expect_renewal(d, chain_leaf(d->candidate), NULL, true);
    } else
        log_refusal(d, flow->refusal);
    adopt_flow_done(flow);
    daemon_flow_ended(d);
}

void daemon_start_adopt(struct daemon *d)
{
    const struct adopt_request request = {
        .loop = &d->loop,
        .config = d->config,
        .store = &d->store,
        .tls_key = d->tls_key,
        .served = d->served,
    };

    d->activity = ADOPTING;
    adopt_flow_start(&d->flow.adopt, &request, on_adopt_done, d);
}
