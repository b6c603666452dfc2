/*
 * A certificate that somebody brings (`cert-manager deploy`, POST /v1/deploy) becomes the candidate, and
 * is measured and served like one of our own.
 */
#include "app/daemon_internal.h"

#include "base/log.h"
#include "base/text.h"
#include "flows/examine.h"

#include <string.h>
#include <time.h>

static struct control_request *request_of(struct daemon *d)
{
    return &d->requests[REQUEST_DEPLOY];
}

static bool is_leaf(const struct chain *chain, const char *sha256)
{
    return chain != NULL && strcmp(chain_leaf(chain)->sha256, sha256) == 0;
}

/* ---- its end ---- */

static void end(struct daemon *d)
{
    deployment_done(&d->deploy.waits);
    if (!d->deploys_only)
        return;
    d->stopping = true;
    daemon_publish_status(d);
}

static void end_served(struct daemon *d)
{
    bool is_doubtful = !d->config->development && !d->attested;
    char date[TEXT_TIME_SIZE];

    daemon_request_set(request_of(d), REQUEST_DONE,
                       "HTTPS serves %s with leaf %s, valid until %s, %s%s",
                       d->config->domain, d->deploy.leaf,
                       text_time(date, chain_leaf(d->served)->not_after),
                       d->config->development ? "development"
                       : d->attested          ? "attested"
                                              : "NOT attested: ",
                       is_doubtful ? d->why_not.message : "");
    end(d);
}

static void refuse(struct daemon *d, const struct err *err)
{
    log_warning("a deployment is refused: %s", err->message);
    daemon_request_set(request_of(d), REQUEST_FAILED, "%s", err->message);
    end(d);
}

/* ---- when its time has come ---- */

/* One that came without a key may be for the one at hand. */
static void complete_key(const struct daemon *d, struct deployment *deployment)
{
    EVP_PKEY *const at_hand[] = {d->served_key, d->tls_key};

    for (size_t i = 0; i < sizeof at_hand / sizeof at_hand[0]; i++) {
        if (deployment->key == NULL && at_hand[i] != NULL &&
            chain_has_key(deployment->chain, at_hand[i]) &&
            EVP_PKEY_up_ref(at_hand[i]) == 1)
            deployment->key = at_hand[i];
    }
}

static int check(const struct daemon *d, struct deployment *deployment, struct err *err)
{
    const struct deployment_rules rules = {
        .stored = examine_rules(d->config, daemon_required_key(d)),
        .served = d->served,
        .waits = is_leaf(d->candidate, chain_leaf(deployment->chain)->sha256)
                     ? NULL
                     : d->candidate,
    };

    complete_key(d, deployment);
    return deployment_check(deployment, &rules, (int64_t)time(NULL), err);
}

/* Why it cannot be the candidate yet, or NULL. */
static const char *obstacle(const struct daemon *d)
{
    const struct plan_facts *facts = &d->plan_facts;

    if (!facts->keys)
        return "the keys are not at hand yet";
    if (facts->repair)
        return "the former certificate has to be served and measured again";
    if (!facts->examined)
        return "the stored certificate has not been judged yet";
    /* What may be served already goes first: the way back of the other one leads to it. */
    if (d->candidate != NULL && d->failures[PLAN_APPLYING] == 0)
        return "another certificate is about to be served";
    return NULL;
}

/* For keys to come, and again for tries that fail; what else is at work is waited for without it. */
static void set_deadline(struct daemon *d, const struct deployment *deployment)
{
    unsigned timeout_s =
        deployment->timeout_s == 0 ? DEPLOYMENT_TIMEOUT_S : deployment->timeout_s;

    d->deploy.deadline_ms = daemon_uptime_ms(d) + timeout_s * UINT64_C(1000);
}

static void become_candidate(struct daemon *d)
{
    struct deployment *deployment = &d->deploy.waits;

    log_info("a certificate was deployed: leaf %s", d->deploy.leaf);
    daemon_drop_candidate(d);
    d->candidate = deployment->chain;
    deployment->chain = NULL;
    if (d->config->tls.external_key) {
        EVP_PKEY_free(d->tls_key);
        d->tls_key = deployment->key;
        deployment->key = NULL;
    }
    set_deadline(d, deployment);
    deployment_done(deployment);
    d->plan_facts.candidate = true;
    daemon_count(d, PLAN_APPLYING, false);
    daemon_expect_renewal(d, chain_leaf(d->candidate), NULL, false);
    daemon_request_set(request_of(d), REQUEST_RUNNING, "it is measured and served");
}

static void wait_or_give_up(struct daemon *d, const char *why)
{
    struct err late = ERR_INIT;

    if (daemon_uptime_ms(d) < d->deploy.deadline_ms) {
        daemon_request_set(request_of(d), REQUEST_WAITING, "%s", why);
        return;
    }
    err_set(&late, ERR_TIMEOUT, "given up, the time is over: %s", why);
    refuse(d, &late);
}

static void begin(struct daemon *d)
{
    const char *why = obstacle(d);
    struct err err = ERR_INIT;

    if (why != NULL)
        wait_or_give_up(d, why);
    else if (check(d, &d->deploy.waits, &err) < 0)
        refuse(d, &err);
    else if (!is_leaf(d->served, d->deploy.leaf))
        become_candidate(d);
}

void daemon_follow_deployment(struct daemon *d)
{
    struct err lost = ERR_INIT;

    if (!daemon_request_is_open(request_of(d)))
        return;
    if (d->deploy.waits.chain != NULL)
        begin(d);
    if (!daemon_request_is_open(request_of(d)))
        return;
    if (is_leaf(d->served, d->deploy.leaf))
        end_served(d);
    else if (d->deploy.waits.chain == NULL && !is_leaf(d->candidate, d->deploy.leaf)) {
        err_set(&lost, ERR_PEER, "another certificate has taken its place");
        refuse(d, &lost);
    }
}

bool daemon_serves_deployment(const struct daemon *d)
{
    return daemon_request_is_open(&d->requests[REQUEST_DEPLOY]) &&
           is_leaf(d->served, d->deploy.leaf);
}

uint64_t daemon_until_deadline(struct daemon *d, uint64_t wait_ms)
{
    uint64_t now_ms = daemon_uptime_ms(d);
    uint64_t left_ms =
        d->deploy.deadline_ms <= now_ms ? 0 : d->deploy.deadline_ms - now_ms;

    return d->deploy.waits.chain != NULL && left_ms < wait_ms ? left_ms : wait_ms;
}

void daemon_inherit_deployment(struct daemon *d, struct daemon *former)
{
    struct deployment *waits = &d->deploy.waits;

    d->deploy = former->deploy;
    former->deploy.waits = (struct deployment){.chain = NULL};
    if (!daemon_request_is_open(request_of(former)) || waits->chain != NULL ||
        !is_leaf(former->candidate, d->deploy.leaf))
        return;
    waits->chain = former->candidate;
    former->candidate = NULL;
    if (former->config->tls.external_key && EVP_PKEY_up_ref(former->tls_key) == 1)
        waits->key = former->tls_key;
}

/* One that was measured and taken back costs events each time: nobody waits for the next. */
static bool is_tried_in_time(const struct daemon *d)
{
    return !d->flow.apply.emitted &&
           d->plan_facts.retry_at_ms[PLAN_APPLYING] < d->deploy.deadline_ms;
}

static void fail_and_keep(struct daemon *d, const struct err *err)
{
    uint64_t next_ms = d->plan_facts.retry_at_ms[PLAN_APPLYING];
    uint64_t now_ms = daemon_uptime_ms(d);
    char wait[TEXT_DURATION_SIZE];

    text_duration(wait, next_ms <= now_ms ? 0 : (int64_t)(next_ms - now_ms) / 1000);
    if (d->deploys_only)
        daemon_request_set(request_of(d), REQUEST_FAILED,
                           "%s; it is kept, and tried again when the daemon runs",
                           err->message);
    else
        daemon_request_set(request_of(d), REQUEST_FAILED,
                           "%s; it is kept, and tried again in %s", err->message, wait);
    end(d);
}

void daemon_note_undeployed(struct daemon *d, const struct err *err)
{
    struct control_request *request = request_of(d);

    if (!daemon_request_is_open(request) || d->deploy.waits.chain != NULL ||
        (err->kind == ERR_CANCELED && d->stopping))
        return;
    if (!is_leaf(d->candidate, d->deploy.leaf)) {
        daemon_request_set(request, REQUEST_FAILED, "%s", err->message);
        end(d);
    } else if (is_tried_in_time(d)) {
        daemon_request_set(request, REQUEST_RUNNING, "%s", err->message);
    } else {
        fail_and_keep(d, err);
    }
}

/* ---- what is asked ---- */

int daemon_accept_deployment(struct daemon *d, struct deployment *deployment,
                             struct err *err)
{
    struct control_request *request = request_of(d);
    const char *leaf = chain_leaf(deployment->chain)->sha256;
    bool open = daemon_request_is_open(request);
    bool serves_it = is_leaf(d->served, leaf);

    if (open && strcmp(leaf, d->deploy.leaf) != 0)
        return err_set_code(err, ERR_CONFIG, 409,
                            "another certificate, leaf %s, is being deployed",
                            d->deploy.leaf);
    /* What is certain now need not wait for what is at work. */
    if (!serves_it && obstacle(d) == NULL && check(d, deployment, err) < 0)
        return -1;
    daemon_request_accept(request);
    if (open)
        return 0;
    memcpy(d->deploy.leaf, leaf, sizeof d->deploy.leaf);
    set_deadline(d, deployment);
    deployment_done(&d->deploy.waits);
    d->deploy.waits = *deployment;
    *deployment = (struct deployment){.chain = NULL};
    daemon_request_set(request, REQUEST_WAITING,
                       d->activity == ISSUING ? "an order is at work"
                                              : "something else is at work");
    if (serves_it)
        end_served(d);
    else if (d->activity == IDLE)
        timer_set(&d->wake, 0);
    return 0;
}

int daemon_answer_deploy(struct daemon *d, const struct server_request *request,
                         struct server_answer *ret, struct err *err)
{
    struct deployment deployment = {.chain = NULL};
    int failed = deployment_from_json(&deployment, request->body, request->body_len, err);

    if (failed == 0)
        failed = daemon_accept_deployment(d, &deployment, err);
    deployment_done(&deployment);
    if (failed == 0)
        return daemon_request_answer(request_of(d), ret, err);
    if (err->code != 409) /* which is tried again */
        log_warning("a deployment is refused: %s", err->message);
    return err->kind == ERR_CRYPTO
               ? err_set_code(err, ERR_CONFIG, 422, "%s", err->message)
               : -1;
}
