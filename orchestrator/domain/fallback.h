/*
 * fallback: which CA is asked next, when there are several. Pure; instants are milliseconds of
 * the monotonic clock.
 *
 * The first in the list whose time has come. One that is down or refuses hands on to the next
 * at once and is left alone for its own time; whatever would fail elsewhere just as well, such
 * as a challenge that nobody answers, holds all of them back. After a success the main one
 * comes first again, as soon as it may be asked.
 */
#ifndef CM_DOMAIN_FALLBACK_H
#define CM_DOMAIN_FALLBACK_H

#include "base/err.h"
#include "domain/authority.h"
#include "domain/certbot_outcome.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fallback {
    size_t count; /* of CAs, at least 1 */
    struct {
        unsigned failures;    /* in a row */
        uint64_t retry_at_ms; /* not asked before; 0: at once */
    } items[AUTHORITIES_MAX];
};

/*
 * Whether another CA may have a certificate for us where this one had none. `outcome` is NULL
 * when certbot did not run to its end.
 */
bool fallback_helps(enum err_kind kind, bool asked_ca,
                    const struct certbot_outcome *outcome);

/* Whom to ask: the first that may be, else the one that may be soonest. */
size_t fallback_next(const struct fallback *fallback, uint64_t now_ms);

/* When fallback_next() may be asked. */
uint64_t fallback_due(const struct fallback *fallback, uint64_t now_ms);

/* `helps` as above; this one is not asked before `retry_at_ms`, nor is another unless it helps. */
void fallback_failed(struct fallback *fallback, size_t i, bool helps,
                     uint64_t retry_at_ms);
void fallback_succeeded(struct fallback *fallback, size_t i);

#endif
