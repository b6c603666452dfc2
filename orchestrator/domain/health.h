/*
 * health: whether what HTTPS serves is of use to clients. Pure.
 */
#ifndef CM_DOMAIN_HEALTH_H
#define CM_DOMAIN_HEALTH_H

#include "base/buf.h"
#include "base/err.h"
#include "domain/chain.h"
#include "domain/config.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct health {
    bool healthy;
    bool attested;   /* by the last certificate event, as the daemon knows it */
    char sha256[65]; /* of the leaf, "" for none */
    char reason
        [ERR_MESSAGE_MAX]; /* not healthy: why, in one line; else not attested: why */
};

/* ERR_CRYPTO unless it is valid now, and for each of the names. Whom it leads to is not looked at. */
int health_check_chain(const struct chain *chain, const struct config_list *names,
                       int64_t now, struct err *err);

/* As JSON, appended to `ret`, and back again: ERR_PEER for what is no such JSON. */
int health_to_json(const struct health *health, struct buf *ret, struct err *err);
int health_from_json(const struct buf *json, struct health *ret, struct err *err);

#endif
