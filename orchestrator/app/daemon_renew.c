/* A renewal that somebody asks for: POST /v1/renew. The ledger of orders has the last word. */
#include "app/daemon_internal.h"

#include "base/log.h"
#include "base/text.h"
#include "domain/json_text.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static struct control_request *request_of(struct daemon *d)
{
    return &d->requests[REQUEST_RENEW];
}

/* ---- begun ---- */

/* Not before what is due anyway, or is there and waits. */
static bool is_due(const struct daemon *d)
{
    const struct plan_facts *facts = &d->plan_facts;

    return d->served == NULL || d->candidate != NULL || facts->rekeyed ||
           facts->unfit != NULL || facts->incomplete != NULL ||
           (int64_t)time(NULL) >=
               renewal_of(&facts->renewal, facts->not_before, facts->not_after).at;
}

static void say_when_due(struct daemon *d)
{
    const struct plan_facts *facts = &d->plan_facts;
    char date[TEXT_TIME_SIZE];

    text_time(date, renewal_of(&facts->renewal, facts->not_before, facts->not_after).at);
    daemon_request_set(request_of(d), REQUEST_DONE,
                       "nothing is ordered, because the next renewal is due on %s; "
                       "--force orders all the same",
                       date);
}

/* Times of our own are over; those that the ledger keeps are the CA's. */
static void forget_pace(struct daemon *d)
{
    static const enum plan_activity activities[] = {
        PLAN_KEYS, PLAN_ADOPTING, PLAN_PREFLIGHT, PLAN_ISSUING, PLAN_APPLYING,
    };

    for (size_t i = 0; i < sizeof activities / sizeof activities[0]; i++)
        d->plan_facts.retry_at_ms[activities[i]] = 0;
    for (size_t i = 0; i < d->fallback.count; i++)
        d->fallback.items[i].retry_at_ms = 0;
}

static void begin(struct daemon *d, bool force)
{
    struct control_request *request = request_of(d);

    if (!daemon_request_is_open(request))
        d->renew_repeats = d->plan_facts.forced;
    daemon_request_accept(request);
    if (!force && !d->plan_facts.forced && !is_due(d)) {
        say_when_due(d);
        return;
    }
    log_info("a renewal is asked for%s", force ? ", whether it is due or not" : "");
    d->plan_facts.forced = d->plan_facts.forced || force;
    forget_pace(d);
    if (request->state == REQUEST_WAITING)
        daemon_request_set(request, REQUEST_WAITING, "waits for what is at work");
    if (d->activity == IDLE && !d->stopping)
        daemon_proceed(d);
}

/* ---- followed ---- */

bool daemon_follow_renew(struct daemon *d, const struct plan *plan)
{
    struct control_request *request = request_of(d);

    if (!daemon_request_is_open(request))
        return true;
    /* Somebody writes the stored pair, for some seconds more. */
    if (plan->action == PLAN_WAIT && d->unfinished_since_ms != 0 &&
        d->failures[PLAN_EXAMINING] == 0) {
        daemon_request_set(request, REQUEST_WAITING, "%s", plan->reason);
        return true;
    }
    if (plan->action == PLAN_WAIT) {
        d->plan_facts.forced = d->renew_repeats;
        daemon_request_set(request, REQUEST_FAILED, "%s", plan->reason);
        log_warning("the renewal that was asked for is not begun: %s", plan->reason);
        snprintf(d->last_reason, sizeof d->last_reason, "%s", plan->reason);
        return false;
    }
    daemon_request_set(request, REQUEST_RUNNING, "%s", plan->reason);
    return true;
}

void daemon_note_renew_failed(struct daemon *d, enum plan_activity activity,
                              const struct err *err, const char *wait)
{
    struct control_request *request = request_of(d);
    bool belongs = activity == PLAN_KEYS || activity == PLAN_PREFLIGHT ||
                   activity == PLAN_ISSUING || activity == PLAN_APPLYING;

    if (belongs && daemon_request_is_open(request))
        daemon_request_set(request, REQUEST_FAILED, "%s (tried again in %s)",
                           err->message, wait);
}

void daemon_note_renewed(struct daemon *d)
{
    struct control_request *request = request_of(d);
    const struct chain_leaf *leaf = chain_leaf(d->served);
    char date[TEXT_TIME_SIZE];

    /* What somebody has brought meanwhile is not the order that was asked for: that follows. */
    if (d->plan_facts.forced && daemon_serves_deployment(d))
        return;
    d->plan_facts.forced = false;
    if (daemon_request_is_open(request))
        daemon_request_set(request, REQUEST_DONE,
                           "HTTPS serves leaf %s, issuer \"%s\", valid until %s%s",
                           leaf->sha256, leaf->issuer_name,
                           text_time(date, leaf->not_after),
                           d->config->development ? ""
                           : d->attested          ? ", attested"
                                                  : ", NOT attested");
}

/* ---- over the socket ---- */

/* {"force": true}; nothing, and an object without it, is false. */
static int read_force(const struct server_request *request, bool *ret, struct err *err)
{
    json_t *root = request->body_len == 0
                       ? json_object()
                       : json_load_whole(request->body, request->body_len,
                                         JSON_REJECT_DUPLICATES, NULL);
    const json_t *force = json_object_get(root, "force");
    bool sound = json_is_object(root) && (force == NULL || json_is_boolean(force)) &&
                 json_object_size(root) == (force == NULL ? 0 : 1);

    *ret = json_is_true(force);
    json_decref(root);
    return sound ? 0
                 : err_set(err, ERR_CONFIG,
                           "the body is to be {\"force\": true}, {\"force\": false} or "
                           "nothing");
}

int daemon_answer_renew(struct daemon *d, const struct server_request *request,
                        struct server_answer *ret, struct err *err)
{
    bool force;

    if (read_force(request, &force, err) < 0)
        return -1;
    if (d->config->tls.external_key)
        return err_set(err, ERR_CONFIG,
                       "tls.key is external: it is somebody else who renews the "
                       "certificate, and brings it by cert-manager deploy");
    begin(d, force);
    daemon_publish_status(d);
    return daemon_request_answer(request_of(d), ret, err);
}
