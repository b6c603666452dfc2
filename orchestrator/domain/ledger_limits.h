/*
 * ledger_limits: how much a CA allows. Pure.
 */
#ifndef CM_DOMAIN_LEDGER_LIMITS_H
#define CM_DOMAIN_LEDGER_LIMITS_H

#include "domain/config.h"

#include <stdint.h>

/* A bucket of `count` permits, which one by one come back after `refill_s`. */
struct ledger_limit {
    unsigned count; /* 0: no limit */
    int64_t refill_s;
};

struct ledger_limits {
    struct ledger_limit certificates; /* for exactly one set of names */
    struct ledger_limit domain;       /* certificates for a registered domain */
    struct ledger_limit failures;     /* failed authorizations of a name, by account */
    struct ledger_limit orders;       /* of an account */
};

/*
 * Those of a directory: Let's Encrypt's are known. For the main CA acme.limit_… say more, or
 * something else; no other one has any.
 */
struct ledger_limits ledger_limits_of(const struct config *config, const char *directory);

/* For how long a permit can be missed at most. */
int64_t ledger_limit_horizon(const struct ledger_limit *limit);

#endif
