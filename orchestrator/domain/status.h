/*
 * status: what the daemon knows about itself, as JSON text for people and programs. Pure.
 *
 * Times are Unix seconds, fingerprints lower-case hex SHA-256. Nothing in it is secret.
 */
#ifndef CM_DOMAIN_STATUS_H
#define CM_DOMAIN_STATUS_H

#include "base/buf.h"
#include "base/err.h"
#include "domain/account.h"
#include "domain/chain.h"
#include "domain/config.h"
#include "domain/fallback.h"
#include "domain/nginx_conf.h"
#include "domain/preflight.h"
#include "domain/renewal_record.h"

#include <jansson.h>
#include <stdbool.h>

/* Challenges since the start. Those of an order that failed otherwise have no end. */
struct status_challenges {
    unsigned presented;
    unsigned served; /* fetched by ourselves, with the right text */
    unsigned succeeded;
    unsigned failed;
};

struct status {
    const struct config *config;
    const struct chain_leaf *leaf;        /* that is served, NULL for none */
    const struct renewal_record *renewal; /* of it; NULL when it is not ours to renew */
    const struct renewal_terms *terms;    /* and when that is */
    bool attested;
    const char *last_event_from;  /* how that is known: "event log" or "own record" */
    const char *why_not_attested; /* "" when it is */
    const char *backend;          /* of measurement: "emit-event", "native", "none" … */
    enum nginx_level level;
    const char *level_reason; /* why it is not the full one, "" when it is */
    const struct upstreams *upstreams;
    const char *account_thumbprint; /* whose challenges nginx answers, "" for nobody's */
    const struct preflight
        *preflight; /* the checks before the last order, or attempt at one */
    struct status_challenges challenges;
    const struct account *accounts; /* one for each CA of the configuration */
    const struct fallback *fallback;
    int64_t order_from; /* Unix seconds, INT64_MAX: not known; see domain/plan.h */
    const char *order_why;
    json_t *requests; /* over the control socket; consumed */
    const char *next; /* what the daemon is waiting for, and why */
};

/* Appended to `ret`, with a newline at its end. */
int status_to_json(const struct status *status, struct buf *ret, struct err *err);

#endif
