/*
 * hint: what a person can do about a failure, for log, status and hooks. Pure: one table.
 *
 * Never NULL; "" where nobody has to do anything.
 */
#ifndef CM_DOMAIN_HINT_H
#define CM_DOMAIN_HINT_H

#include "base/err.h"
#include "domain/certbot_outcome.h"
#include "domain/plan.h"

/* By what was done, and the kind of its failure. */
const char *hint_of(enum plan_activity activity, enum err_kind kind);

/* The same where certbot has told more of an order. */
const char *hint_of_order(enum certbot_verdict verdict);

#endif
