/* Evidence of what is served, for whoever verifies offline: gathered after an apply. */
#include "app/daemon_internal.h"

#include "adapters/evidence_folder.h"
#include "base/log.h"

#include <string.h>

/* When the CA did not confirm the account. */
enum { ACCOUNT_RETRY_MS = 3600 * 1000 };

static void withdraw(struct daemon *d)
{
    struct err err = ERR_INIT;

    d->evidence_leaf[0] = '\0';
    if (evidence_folder_withdraw(d->config, &err) < 0)
        log_error("old evidence cannot be withdrawn: %s", err.message);
}

int daemon_init_evidence(struct daemon *d, struct err *err)
{
    if (d->config->evidence && d->config->development)
        log_warning("evidence.enabled has no effect in development mode");
    if (evidence_folder_for_nginx(d->config, d->evidence, &d->facts, err) < 0)
        return -1;
    /* Of an earlier process: nobody knows of which leaf. */
    if (d->facts.evidence != NULL && d->evidence_leaf[0] == '\0')
        withdraw(d);
    return 0;
}

/* Evidence of another leaf than the served one is worse than none. */
void daemon_follow_evidence(struct daemon *d)
{
    bool known = d->served != NULL && !d->plan_facts.repair;

    if (d->facts.evidence == NULL ||
        (known && strcmp(chain_leaf(d->served)->sha256, d->evidence_leaf) == 0))
        return;
    if (d->evidence_leaf[0] != '\0')
        withdraw(d);
    daemon_count(d, PLAN_GATHERING, false);
    d->plan_facts.evidence_due = known;
}

/* The rest is shown all the same. */
static void note_missing_account(struct daemon *d, const struct err *why)
{
    log_warning(
        "the evidence names no ACME account, the CA is asked again in an hour: %s",
        why->message);
    d->plan_facts.evidence_due = true;
    d->plan_facts.retry_at_ms[PLAN_GATHERING] = daemon_uptime_ms(d) + ACCOUNT_RETRY_MS;
}

static void note_evidence(struct daemon *d, const struct evidence_flow *flow)
{
    const char *leaf = chain_leaf(d->served)->sha256;

    memcpy(d->evidence_leaf, leaf, sizeof d->evidence_leaf);
    d->plan_facts.evidence_due = false;
    log_info("evidence of leaf %s is served at /evidences/", leaf);
    if (flow->account_err.kind != ERR_NONE)
        note_missing_account(d, &flow->account_err);
}

static void on_evidence_done(void *owner, const struct err *failure)
{
    struct daemon *d = owner;
    struct err err = ERR_INIT;

    daemon_count(d, PLAN_GATHERING, failure != NULL);
    if (failure == NULL) {
        note_evidence(d, &d->flow.evidence);
    } else {
        err = *failure;
        err_wrap(&err, "no new evidence for /evidences/");
        daemon_retry_later(d, PLAN_GATHERING, &err, daemon_local_pace(d, PLAN_GATHERING));
    }
    evidence_flow_done(&d->flow.evidence);
    daemon_flow_ended(d);
}

void daemon_start_evidence(struct daemon *d)
{
    const struct evidence_request request = {
        .loop = &d->loop,
        .http = d->http,
        .config = d->config,
        .authority = daemon_issuer_of_served(d),
        .agent = &d->agent,
        .chain = d->served,
    };

    d->activity = GATHERING;
    evidence_flow_start(&d->flow.evidence, &request, on_evidence_done, d);
}
