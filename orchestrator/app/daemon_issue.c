/* Obtaining a certificate, from others or from the CA, and what comes of it. */
#include "app/daemon_internal.h"
#include "base/log.h"
#include "base/text.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

/*
 * A time that the ledger keeps is one of the wall clock, which may jump: it is not over before so
 * much has gone by on ours, too. No longer, since it may become shorter.
 */
enum { SURE_WAIT_MS = 3600 * 1000 };

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

/* Nobody counts what the CA was not asked for, or what it has given and we could not keep. */
static void fail_locally(struct daemon *d, const struct err *err)
{
    uint64_t now_ms = daemon_uptime_ms(d);
    uint64_t due_ms;

    daemon_count(d, PLAN_ISSUING, true);
    fallback_failed(&d->fallback, d->authority, fallback_helps(err->kind, false, NULL),
                    now_ms + daemon_local_pace(d, PLAN_ISSUING));
    due_ms = fallback_due(&d->fallback, now_ms);
    daemon_retry_later(d, PLAN_ISSUING, err, due_ms > now_ms ? due_ms - now_ms : 0);
}

/* Told to stop is no failure. */
static void log_next_ca(struct daemon *d, const struct err *err)
{
    const struct log_fields fields = {
        .failure = err,
        .attempt = d->failures[PLAN_ISSUING],
        .next = (int64_t)time(NULL),
        .hint = d->told.failure.hint, /* once it is noted */
    };

    if (err->kind == ERR_CANCELED && d->stopping)
        return;
    daemon_note_failure(d, PLAN_ISSUING, err, 0);
    log_write_with(LOG_ERROR, &fields, "%s (attempt %u; %s is asked now)", err->message,
                   fields.attempt,
                   d->config->acme.authorities.items[d->next.authority].directory);
    daemon_tell_failure(d, PLAN_ISSUING, &fields);
}

/* The next CA is asked at once where that may help; this one is left alone for its own time. */
static void fall_back(struct daemon *d, const struct err *err)
{
    const struct issue_flow *flow = &d->flow.issue;
    bool helps = fallback_helps(err->kind, flow->asked_ca,
                                flow->certbot_ran ? &flow->outcome : NULL);
    struct ledger_ending ending = daemon_enter_outcome(d, err);
    uint64_t sure_ms = ending.wait_ms < SURE_WAIT_MS ? ending.wait_ms : SURE_WAIT_MS;
    uint64_t now_ms = daemon_uptime_ms(d);

    d->failures[PLAN_ISSUING] = ending.in_a_row;
    fallback_failed(&d->fallback, d->authority, helps, now_ms + sure_ms);
    d->fallback.items[d->authority].failures = ending.in_a_row;
    daemon_ask_ledger(d);
    if (d->next.authority != d->authority &&
        d->fallback.items[d->next.authority].retry_at_ms <= now_ms &&
        d->plan_facts.order_from <= (int64_t)time(NULL)) {
        d->plan_facts.retry_at_ms[PLAN_ISSUING] = 0;
        daemon_count_failure(d, PLAN_ISSUING, err->kind);
        log_next_ca(d, err);
        return;
    }
    daemon_retry_later(d, PLAN_ISSUING, err, ending.wait_ms);
    d->plan_facts.retry_at_ms[PLAN_ISSUING] = fallback_due(&d->fallback, now_ms);
}

static void fail(struct daemon *d, const struct err *err)
{
    if (d->flow.issue.asked_ca)
        fall_back(d, err);
    else
        fail_locally(d, err);
}

static void take_candidate(struct daemon *d, struct chain **chain)
{
    daemon_drop_candidate(d);
    d->candidate = *chain;
    *chain = NULL;
    d->plan_facts.candidate = true;
    d->plan_facts.retry_at_ms[PLAN_APPLYING] = 0;
}

static void succeed(struct daemon *d)
{
    struct issue_flow *flow = &d->flow.issue;

    if (!d->config->development)
        (void)daemon_enter_outcome(d, NULL);
    daemon_count(d, PLAN_ISSUING, false);
    daemon_note_success(d, PLAN_ISSUING);
    fallback_succeeded(&d->fallback, d->authority);
    take_candidate(d, &flow->chain);
    rest_after_issue(d, chain_leaf(d->candidate));
    daemon_expect_renewal(d, chain_leaf(d->candidate), flow->request.authority, false);
    daemon_tell_issued(d);
}

/* Only a failed challenge holds the real order back: a CAA record may well name the real CA alone. */
static void end_rehearsal(struct daemon *d, const struct err *err)
{
    const char *directory = d->next.question.subject.directory;
    struct err failure = err_copy(err);
    struct ledger_ending ending;

    if (err != NULL && !d->flow.issue.asked_ca) {
        fail_locally(d, err);
        return;
    }
    ending = daemon_enter_outcome(d, err);
    daemon_count(d, PLAN_ISSUING, false);
    if (ending.outcome == LEDGER_CHALLENGE_FAILED) {
        d->failures[PLAN_ISSUING] = ending.in_a_row;
        err_wrap(&failure, "rehearsal at %s, before %s is asked again",
                 d->flow.issue.request.authority->directory, directory);
        daemon_retry_later(d, PLAN_ISSUING, &failure, ending.wait_ms);
    } else if (err != NULL && err->kind != ERR_CANCELED) {
        log_warning(
            "the rehearsal at %s shows nothing about the challenge (%s): %s is "
            "asked",
            d->flow.issue.request.authority->directory, err->message, directory);
    }
}

static void end_order(struct daemon *d, const struct err *err)
{
    const struct issue_flow *flow = &d->flow.issue;

    if (err != NULL && err->kind == ERR_CANCELED && flow->order_at == 0)
        return; /* told to stop, before there was an order */
    if (err == NULL && flow->order_at == 0 && !d->config->development)
        daemon_count(d, PLAN_ISSUING, false); /* nothing was to be taken over */
    else if (flow->request.rehearsal)
        end_rehearsal(d, err);
    else if (err != NULL)
        fail(d, err);
    else
        succeed(d);
}

/* Which CA it was in the end: an order of another life may have been for another one. */
static size_t asked_authority(const struct daemon *d)
{
    const struct authorities *all = &d->config->acme.authorities;

    for (size_t i = 0; i < all->count; i++) {
        if (d->flow.issue.request.authority == &all->items[i])
            return i;
    }
    return d->authority;
}

static void on_issue_done(void *owner, const struct err *err)
{
    struct daemon *d = owner;
    struct issue_flow *flow = &d->flow.issue;

    d->authority = asked_authority(d);
    if (!flow->request.rehearsal)
        daemon_note_account(d, d->authority, &flow->account);
    if (flow->certbot_ran && !flow->request.takes_over_only)
        daemon_judge_challenges(d, &flow->outcome);
    if (err != NULL || flow->chain != NULL || flow->order_at != 0)
        daemon_count_issue(d, flow, err);
    end_order(d, err);
    /* One that could not be kept still waits in certbot's folder. */
    d->plan_facts.adopts = flow->chain == NULL && adopt_is_on(d->config);
    issue_flow_done(flow);
    daemon_flow_ended(d);
}

void daemon_start_order(struct daemon *d, bool takes_over_only)
{
    const struct authority *authority =
        d->next.rehearse ? config_rehearsal(d->config)
                         : &d->config->acme.authorities.items[d->next.authority];
    const struct issue_request request = {
        .loop = &d->loop,
        .http = d->http,
        .config = d->config,
        .authority = authority,
        .agent = &d->agent,
        .store = &d->store,
        .tls_key = d->tls_key,
        .takes_over_only = takes_over_only,
        .rehearsal = d->next.rehearse,
        .ledger = &d->ledger,
        .question = &d->next.question,
        .pace = daemon_pace_limits(d->config, authority, d->next.rehearse),
    };

    d->authority = d->next.authority;
    d->activity = ISSUING;
    daemon_begin_challenges(d);
    issue_flow_start(&d->flow.issue, &request, on_issue_done, d);
}

void daemon_start_issue(struct daemon *d)
{
    bool settles = d->plan_facts.unsettled;

    if (settles || d->config->development)
        daemon_start_order(d, settles);
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
        log_failed(LOG_WARNING, err, "%s; nothing is adopted", err->message);
    else if (err == NULL && flow->chain != NULL) {
        d->failures[PLAN_ISSUING] = 0; /* and the CA is still left alone for its time */
        daemon_count_adoption(d);
        take_candidate(d, &flow->chain);
        daemon_expect_renewal(d, chain_leaf(d->candidate), NULL, true);
        daemon_note_success(d, PLAN_ADOPTING);
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
