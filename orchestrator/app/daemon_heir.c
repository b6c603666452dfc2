/*
 * From one life to the next: what is served, and what is known of it, goes on while the settings change.
 * Only what the new ones say nothing else about; the rest is found out anew, as at the start.
 */
#include "app/daemon_internal.h"

#include "base/log.h"
#include "domain/stored.h"

#include <string.h>
#include <time.h>

static bool same_text(const char *a, const char *b)
{
    return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

/* Another kind of key must not be served for a moment longer, or measured: that is judged as at a start. */
static bool goes_on_serving(const struct daemon *former, const struct config *config)
{
    return former->served != NULL && config->development == former->config->development &&
           config->tls.external_key == former->config->tls.external_key;
}

static bool has_same_keys(const struct daemon *former, const struct config *config)
{
    return former->plan_facts.keys && !config->development &&
           !former->config->development &&
           config->tls.external_key == former->config->tls.external_key &&
           strcmp(config->domain, former->config->domain) == 0 &&
           same_text(config->agent.socket, former->config->agent.socket);
}

static bool has_same_account(const struct daemon *former, const struct config *config)
{
    return strcmp(config->domain, former->config->domain) == 0 &&
           strcmp(config->acme.account_version, former->config->acme.account_version) ==
               0;
}

static void take_keys(struct daemon *d, struct daemon *former)
{
    d->tls_key = former->tls_key;
    d->ekm_secret = former->ekm_secret;
    former->tls_key = NULL;
    former->ekm_secret = NULL;
    memcpy(d->told.agent_version, former->told.agent_version,
           sizeof d->told.agent_version);
    memcpy(d->told.app_name, former->told.app_name, sizeof d->told.app_name);
    d->told.version_at_ms = former->told.version_at_ms;
    d->plan_facts.keys = true;
    d->plan_facts.keys_at_ms = former->plan_facts.keys_at_ms;
}

/* Those of the key that stays, at the CAs that stay. */
static void take_accounts(struct daemon *d, const struct daemon *former)
{
    const struct authorities *now = &d->config->acme.authorities;
    const struct authorities *before = &former->config->acme.authorities;

    if (!has_same_account(former, d->config))
        return;
    for (size_t i = 0; i < now->count; i++) {
        for (size_t k = 0; k < before->count; k++) {
            if (strcmp(now->items[i].directory, before->items[k].directory) == 0)
                d->accounts[i] = former->accounts[k];
        }
    }
}

static void take_served(struct daemon *d, struct daemon *former)
{
    struct plan_facts *facts = &d->plan_facts;
    const struct plan_facts *before = &former->plan_facts;

    d->served = former->served;
    d->served_key = former->served_key;
    d->served_secret = former->served_secret;
    former->served = NULL;
    former->served_key = NULL;
    former->served_secret = NULL;
    if (d->config->tls.external_key && d->tls_key == NULL && d->served_key != NULL) {
        EVP_PKEY_up_ref(d->served_key);
        d->tls_key = d->served_key;
    }
    d->attested = former->attested;
    d->why_not = former->why_not;
    d->source = former->source;
    d->unmeasured_since_ms = former->unmeasured_since_ms;
    d->nginx_master = former->nginx_master;
    d->told.probe = former->told.probe;
    d->told.event = former->told.event;
    d->outdone = former->outdone;
    d->outdone_at_ms = former->outdone_at_ms;
    memcpy(d->outdone_by, former->outdone_by, sizeof d->outdone_by);
    d->applied = former->applied && !former->site.unreloaded;
    memcpy(d->live_chain, former->live_chain, sizeof d->live_chain);
    if (has_same_account(former, d->config)) /* which the evidence names */
        memcpy(d->evidence_leaf, former->evidence_leaf, sizeof d->evidence_leaf);
    facts->served = true;
    facts->not_before = before->not_before;
    facts->not_after = before->not_after;
    facts->unattested = before->unattested;
    facts->evidence_due = before->evidence_due;
    facts->repair = before->repair;
    facts->rekeyed = before->rekeyed;
    facts->examined = true;
    /* The CA rests for a while after it has given one; what was tried in vain is tried again. */
    if (former->failures[PLAN_ISSUING] == 0)
        facts->retry_at_ms[PLAN_ISSUING] = before->retry_at_ms[PLAN_ISSUING];
    facts->retry_at_ms[PLAN_MEASURING] = before->retry_at_ms[PLAN_MEASURING];
    d->failures[PLAN_MEASURING] = former->failures[PLAN_MEASURING];
    d->next_renewal = former->renewal;
}

/* With another program nobody knows which certbot it is, before the next order. */
static void take_preflight(struct daemon *d, const struct daemon *former)
{
    d->preflight = former->preflight;
    if (strcmp(d->config->certbot.path, former->config->certbot.path) == 0)
        memcpy(d->certbot_version.text, former->certbot_version.text,
               sizeof d->certbot_version.text);
    else
        d->preflight.findings[PREFLIGHT_CERTBOT] = (struct preflight_finding){0};
}

void daemon_inherit(struct daemon *d, struct daemon *former)
{
    d->told.started_at = former->told.started_at;
    d->told.success = former->told.success;
    d->told.failure = former->told.failure;
    d->told.failed = former->told.failed;
    d->metrics = former->metrics;
    former->metrics = (struct metrics){0};
    d->control_place = former->control_place;
    memcpy(d->requests, former->requests, sizeof d->requests);
    daemon_inherit_deployment(d, former);
    d->challenges.counts = former->challenges.counts;
    take_preflight(d, former);
    d->plan_facts.forced = former->plan_facts.forced;
    d->renew_repeats = former->renew_repeats;
    if (has_same_keys(former, d->config)) {
        take_keys(d, former);
        take_accounts(d, former);
    }
    if (goes_on_serving(former, d->config))
        take_served(d, former);
}

/* What the start rules, by the new settings, have against it; its key is known to be ours. */
static void judge_served(struct daemon *d)
{
    const struct stored_pair pair = {
        .present = true, .chain = d->served, .key = d->served_key};
    const struct stored_rules rules = {
        .domains = &d->config->domains,
        .development = d->config->development,
        .production = !d->config->development && !d->config->acme.staging,
    };

    d->plan_facts.incomplete = chain_lacks(d->served, &d->config->domains);
    if (stored_judge(&pair, &rules, (int64_t)time(NULL), d->unfit) == STORED_SET_ASIDE) {
        d->plan_facts.unfit = d->unfit;
        log_warning("%s: it is served until there is another one", d->unfit);
    }
    if (d->plan_facts.unfit != NULL || d->plan_facts.incomplete != NULL)
        d->plan_facts.retry_at_ms[PLAN_ISSUING] = 0;
}

void daemon_settle_in(struct daemon *d, struct daemon *former)
{
    if (d->plan_facts.keys) {
        d->plan_facts.account_due = config_answers_challenges(d->config) &&
                                    d->facts.account_thumbprint[0] == '\0';
        daemon_recall_accounts(d);
    }
    d->reload.unsettled = d->served != NULL;
    if (d->served == NULL)
        daemon_request_set(&d->requests[REQUEST_RELOAD], REQUEST_DONE,
                           "the new settings are in force");
    upstreams_recall(&d->site.upstreams.upstreams, &former->site.upstreams.upstreams);
    daemon_inherit_hooks(d, former);
    if (d->served == NULL)
        return;
    memcpy(d->last_event, former->last_event, sizeof d->last_event);
    d->facts.live_chain = d->live_chain[0] == '\0' ? NULL : d->live_chain;
    site_inherit(&d->site, &former->site);
    judge_served(d);
    daemon_follow_renewal(d);
    daemon_follow_evidence(d);
    d->next_renewal = former->next_renewal;
    d->looks_for_staged = true;
    if (d->plan_facts.keys)
        daemon_take_staged(d);
    /* Else the site's flow does, for which the agent need not be there. */
    d->plan_facts.disturbed =
        !d->applied || d->config->nginx.live_chain != former->config->nginx.live_chain;
}
