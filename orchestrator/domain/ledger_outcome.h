/*
 * ledger_outcome: what a try at a CA came to, as the ledger keeps it, and what a CA counts of it.
 * Pure.
 */
#ifndef CM_DOMAIN_LEDGER_OUTCOME_H
#define CM_DOMAIN_LEDGER_OUTCOME_H

#include "base/err.h"
#include "domain/certbot_outcome.h"

#include <stdbool.h>

enum ledger_outcome {
    LEDGER_PENDING,          /* certbot was started, and its end is not known yet */
    LEDGER_DOUBTFUL,         /* it never will be: the CA may have issued, or failed us */
    LEDGER_ISSUED,           /* also when the chain was of no use */
    LEDGER_CHALLENGE_FAILED, /* the CA could not validate a name */
    LEDGER_CAA_FORBIDS,      /* so it said; it counts that like a failed challenge */
    LEDGER_RATE_LIMITED,     /* by its own count */
    LEDGER_UNREACHED,        /* CA or network down before anything can have been issued */
    LEDGER_REFUSED,          /* whatever else it, or certbot, had against it */
    LEDGER_CONFIGURATION,    /* nothing will change before a setting does */
    LEDGER_OUTCOMES,
};

/* What a CA counts: bits. */
enum {
    LEDGER_COUNTS_ORDER = 1,
    LEDGER_COUNTS_CERTIFICATE = 2,
    LEDGER_COUNTS_FAILURE = 4, /* of an authorization */
};

/* What the outcome counts as; where that is not known, all that it may be. */
unsigned ledger_counts(enum ledger_outcome outcome);

/*
 * Of a run of certbot, `ran` being NULL when it did not come to its end, and of an error; NULL
 * when there is none. Before certbot is started nothing can have been issued.
 */
enum ledger_outcome ledger_outcome_of(const struct certbot_outcome *ran, bool started,
                                      const struct err *err);

/* "challenge failed", … in the file, log and status. */
const char *ledger_outcome_name(enum ledger_outcome outcome);

/* LEDGER_OUTCOMES for a text that is none. */
enum ledger_outcome ledger_outcome_parse(const char *name);

#endif
