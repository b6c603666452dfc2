/*
 * certbot_outcome: what a run of certbot came to, read from how it ended and what it
 * said. Pure.
 *
 * certbot's exit status is 1 for nearly every failure, so the reason is in its text: with
 * --debug the CA's problem document is on standard error, as
 * "acme.messages.Error: urn:ietf:params:acme:error:<type> :: <title> :: <detail>", and a
 * failed challenge is described on standard output in lines "Domain:" ("Identifier:"
 * since 5.5), "Type:" and "Detail:". The same patterns hold for certbot 2.1, 4.0 and 5.5.
 */
#ifndef CM_DOMAIN_CERTBOT_OUTCOME_H
#define CM_DOMAIN_CERTBOT_OUTCOME_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

enum certbot_verdict {
    CERTBOT_ISSUED,
    CERTBOT_CHALLENGE_FAILED, /* identifier, problem and detail say how */
    CERTBOT_RATE_LIMITED,     /* retry_at says until when, where the CA named it */
    CERTBOT_CA_UNREACHABLE,   /* not reached, or answered with an HTTP error that is not
                                 ACME */
    CERTBOT_CA_REFUSED,       /* any other problem document */
    CERTBOT_ACCOUNT_GONE,     /* the CA does not know the account (any more) */
    CERTBOT_LOCKED,           /* another certbot holds the lock of its folders */
    CERTBOT_KILLED,        /* by a signal that was not ours, or unseen without a word */
    CERTBOT_TOO_OLD,       /* it has no profiles, and one is configured */
    CERTBOT_LOCAL_FAILURE, /* disk, permission, bad option, missing program part */
};

struct certbot_outcome {
    enum certbot_verdict verdict;
    char problem[64];     /* ACME error type ("rateLimited", "unauthorized", …) or "" */
    char identifier[256]; /* the name whose challenge failed, or "" */
    char detail[768];     /* the reason for people, one line, never empty on failure */
    int64_t retry_at;     /* Unix seconds, 0 when the CA named none */
    bool may_have_issued; /* it got as far as the order's end, or nobody can tell */
};

/* How certbot ended; texts are never NULL. */
struct certbot_ending {
    int exit_status; /* -1 when it did not exit, or nobody saw how it ended */
    int term_signal; /* 0 when none is known */
    const char *standard_output;
    const char *standard_error;
};

void certbot_outcome_read(const struct certbot_ending *ending,
                          struct certbot_outcome *ret);

/* "challenge failed", … for log, status and metrics. */
const char *certbot_verdict_name(enum certbot_verdict verdict);

/*
 * The outcome of a failure as an error: its kind drives the pace of retries. Returns
 * -1.
 */
int certbot_outcome_err(const struct certbot_outcome *outcome, struct err *err);

#endif
