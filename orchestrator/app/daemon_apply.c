/* What the daemon serves: it gets there, and is kept, by the apply flow. */
#include "app/daemon_internal.h"

#include "base/log.h"
#include "base/random.h"
#include "base/text.h"
#include "domain/keys.h"
#include "domain/pace.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

enum {
    PATIENCE_MS = 30 * 1000,     /* with an agent that fails to make an event */
    UNSUPPORTED_MS = 600 * 1000, /* to ask an agent again that makes none */
    BACK_MAX_MS = 3600 * 1000,   /* for a try that costs events, and is taken back */
};

/* ---- what may be done ---- */

/*
 * An attested certificate is not given up for one that is not, until it is nearly over: clients
 * that verify would refuse.
 */
static bool may_be_unattested(const struct daemon *d)
{
    const struct plan_facts *facts = &d->plan_facts;

    if (d->config->development)
        return true;
    return !d->config->measurement_required &&
           (d->served == NULL || !d->attested ||
            plan_is_nearly_over(facts->not_before, facts->not_after,
                                (int64_t)time(NULL)));
}

static uint64_t patience_left_ms(struct daemon *d)
{
    uint64_t passed_ms;

    if (d->unmeasured_since_ms == 0)
        return PATIENCE_MS;
    passed_ms = daemon_uptime_ms(d) - d->unmeasured_since_ms;
    return passed_ms >= PATIENCE_MS ? 0 : PATIENCE_MS - passed_ms;
}

/* ---- what became of it ---- */

void daemon_drop_candidate(struct daemon *d)
{
    d->plan_facts.candidate = false;
    chain_free(d->candidate);
    d->candidate = NULL;
}

void daemon_forget_served(struct daemon *d)
{
    chain_free(d->served);
    EVP_PKEY_free(d->served_key);
    secret_free(d->served_secret);
    d->served = NULL;
    d->served_key = NULL;
    d->served_secret = NULL;
    d->plan_facts.served = false;
    d->told.probe = (struct status_probe){.at = 0};
}

static void log_not_attested(const struct daemon *d)
{
    log_error(
        "NOT ATTESTED: no certificate event names the served leaf, clients that "
        "verify will refuse: %s",
        d->why_not.message);
}

void daemon_lose_attestation(struct daemon *d)
{
    d->attested = false;
    d->source = MEASURE_FROM_LOG;
    d->plan_facts.unattested = true;
    log_not_attested(d);
}

/* One line for each change of what clients can verify. */
static void note_attestation(struct daemon *d, const struct apply_flow *flow,
                             const struct err *failure)
{
    const struct err attested = ERR_INIT;
    const struct err *why_not = flow->attested ? &attested
                                : flow->why_not.kind != ERR_NONE || failure == NULL
                                    ? &flow->why_not
                                    : failure;
    bool changed = d->attested != flow->attested ||
                   strcmp(d->why_not.message, why_not->message) != 0;

    d->attested = flow->attested;
    d->source = flow->source;
    d->why_not = *why_not;
    d->plan_facts.unattested = !flow->attested && !d->config->development;
    if (d->plan_facts.unattested && changed)
        log_not_attested(d);
}

static void note_event(struct daemon *d, const struct apply_flow *flow)
{
    memcpy(d->last_event, flow->recorded, sizeof d->last_event);
    if (d->last_event[0] != '\0')
        daemon_note_event(d, d->last_event, flow->source);
    if (flow->why_not.kind != ERR_NONE && !d->config->development) {
        if (d->unmeasured_since_ms == 0)
            d->unmeasured_since_ms = daemon_uptime_ms(d);
    } else if (flow->emitted || flow->outcome == APPLY_SERVED) {
        d->unmeasured_since_ms = 0;
    }
}

static void log_served(const struct daemon *d)
{
    const struct chain_leaf *leaf = chain_leaf(d->served);
    char date[TEXT_TIME_SIZE];

    log_info("HTTPS serves %s: issuer \"%s\", valid until %s, %s", d->config->domain,
             leaf->issuer_name, text_time(date, leaf->not_after),
             d->config->development ? "development"
             : d->attested          ? "attested"
                                    : "NOT attested");
}

static void take_served(struct daemon *d)
{
    const struct chain_leaf *leaf = chain_leaf(d->candidate);
    struct chain *chain = d->candidate;

    d->candidate = NULL;
    d->plan_facts.candidate = false;
    daemon_forget_served(d);
    d->served = chain;
    EVP_PKEY_up_ref(d->tls_key);
    d->served_key = d->tls_key;
    d->plan_facts.served = true;
    d->plan_facts.rekeyed = false;
    d->plan_facts.unfit = NULL;
    d->plan_facts.incomplete = chain_lacks(chain, &d->config->domains);
    d->plan_facts.not_before = leaf->not_before;
    d->plan_facts.not_after = leaf->not_after;
}

/* An agent that derives other keys changes key, chain and secret together. */
static const struct secret *wanted_secret(const struct daemon *d)
{
    return d->subject == REPAIR || (d->subject == SERVED && d->plan_facts.rekeyed)
               ? d->served_secret
               : d->ekm_secret;
}

static enum plan_activity activity_of(const struct daemon *d)
{
    static const enum plan_activity activities[] = {
        [CANDIDATE] = PLAN_APPLYING,
        [SERVED] = PLAN_REAPPLYING,
        [REPAIR] = PLAN_REPAIRING,
    };

    return activities[d->subject];
}

static void note_served(struct daemon *d, const struct apply_flow *flow)
{
    const struct secret *wanted = wanted_secret(d);
    struct secret *secret = secret_copy(wanted->bytes, wanted->len);
    bool news = d->subject == CANDIDATE || d->plan_facts.disturbed;

    if (d->subject == REPAIR)
        log_info("the former certificate is served again as it was");
    if (d->subject == CANDIDATE)
        take_served(d);
    secret_free(d->served_secret);
    d->served_secret = secret;
    d->nginx_master = nginx_master(d->config);
    if (flow->emitted)
        daemon_look_closely(d);
    d->plan_facts.disturbed = false;
    d->plan_facts.repair = false;
    memcpy(d->live_chain, flow->live_chain, sizeof d->live_chain);
    d->facts.live_chain = d->live_chain[0] == '\0' ? NULL : d->live_chain;
    note_attestation(d, flow, NULL);
    if (d->applied) /* its handshakes with the port have shown it */
        daemon_note_probe(d, chain_leaf(d->served)->sha256, NULL);
    if (news || flow->emitted || d->subject == REPAIR)
        daemon_note_success(d, activity_of(d));
    site_took(&d->site, &flow->compose);
    if (news)
        log_served(d);
    if (d->subject == CANDIDATE)
        daemon_note_renewed(d);
    daemon_tell_applied(d);
    daemon_take_staged(d);
}

/* ---- failures ---- */

static uint64_t pace_of(struct daemon *d, const struct apply_flow *flow)
{
    enum plan_activity activity = activity_of(d);
    uint64_t wait_ms = daemon_local_pace(d, activity);

    if (d->subject == CANDIDATE && flow->emitted && d->served != NULL)
        return pace_doubling(PACE_LOCAL_MIN_MS, BACK_MAX_MS, d->failures[activity],
                             random_number());
    /* Not later than the moment at which it may be served without an event. */
    if (d->unmeasured_since_ms != 0 && may_be_unattested(d) &&
        patience_left_ms(d) < wait_ms)
        return patience_left_ms(d);
    return wait_ms;
}

static void note_failure(struct daemon *d, const struct apply_flow *flow,
                         const struct err *err)
{
    daemon_retry_later(d, activity_of(d), err, pace_of(d, flow));
    daemon_look_closely(d); /* of an event that is not ours it may have heard */
    if (d->served != NULL && flow->outcome != APPLY_NOTHING)
        note_attestation(d, flow, err);
    else if (flow->outcome == APPLY_BACK)
        site_took_http_only(&d->site);
    if (flow->outcome == APPLY_BROKEN && d->served != NULL)
        d->plan_facts.repair = true;
    if (d->subject == CANDIDATE &&
        chain_leaf(d->candidate)->not_after <= (int64_t)time(NULL))
        daemon_drop_candidate(d);
    if (flow->outcome == APPLY_BACK)
        daemon_keep_candidate(d); /* what the volume had of it may be gone */
    if (d->subject == CANDIDATE)
        daemon_note_undeployed(d, err);
}

/* Asked again now and then: agents are updated, and come back. */
static void plan_measuring(struct daemon *d)
{
    uint64_t wait_ms = UNSUPPORTED_MS;

    if (!d->plan_facts.unattested) {
        daemon_count(d, PLAN_MEASURING, false);
        return;
    }
    daemon_count(d, PLAN_MEASURING, true);
    if (d->measure.backend != MEASURE_NONE)
        wait_ms = daemon_local_pace(d, PLAN_MEASURING);
    d->plan_facts.retry_at_ms[PLAN_MEASURING] = daemon_uptime_ms(d) + wait_ms;
}

static void on_apply_done(void *owner, const struct err *err)
{
    struct daemon *d = owner;
    struct apply_flow *flow = &d->flow.apply;

    daemon_count(d, activity_of(d), err != NULL);
    d->applied = !flow->unread;
    note_event(d, flow);
    if (err != NULL) {
        note_failure(d, flow, err);
    } else {
        note_served(d, flow);
    }
    plan_measuring(d);
    daemon_note_settings_applied(d, err);
    daemon_follow_renewal(d);
    daemon_follow_evidence(d);
    apply_flow_done(flow);
    daemon_flow_ended(d);
}

void daemon_keep_candidate(struct daemon *d)
{
    BUF_SCOPED pem = {.max = CHAIN_PEM_MAX_BYTES};
    BUF_SCOPED staged = {0};
    SECRET_SCOPED key = NULL; /* derived at any time, unless it is somebody else's */
    struct err err = ERR_INIT;

    if (d->candidate == NULL)
        return;
    if (chain_to_pem(d->candidate, &pem, &err) == 0 &&
        store_load_staged_chain(&d->store, &staged, &err) == 0 &&
        strcmp(buf_str(&pem), buf_str(&staged)) == 0)
        return;
    if (err.kind == ERR_NONE && d->config->tls.external_key)
        (void)keys_to_pem(d->tls_key, &key, &err);
    if (err.kind != ERR_NONE || store_stage(&d->store, &pem, key, &err) < 0)
        log_warning("the certificate that waits to be served cannot be kept: %s",
                    err.message);
}

void daemon_start_apply(struct daemon *d, enum subject subject)
{
    struct apply_request request = {
        .loop = &d->loop,
        .config = d->config,
        .facts = &d->facts,
        .measure = &d->measure,
        .store = &d->store,
        .former = {.chain = d->served,
                   .key = d->served_key,
                   .ekm_secret = d->served_secret},
        .full_before = site_former(&d->site),
        .recorded = d->last_event,
        .reload = !d->applied,
        .may_be_unattested = may_be_unattested(d),
        .patience_is_over = d->config->development || patience_left_ms(d) == 0,
    };

    d->activity = APPLYING;
    d->subject = subject;
    request.wanted = request.former;
    if (subject == CANDIDATE) {
        request.wanted.chain = d->candidate;
        request.wanted.key = d->tls_key;
    } else {
        daemon_keep_candidate(d);
    }
    request.wanted.ekm_secret = wanted_secret(d);
    apply_flow_start(&d->flow.apply, &request, on_apply_done, d);
}
