/*
 * ledger_policy: whether a CA may be asked, and when, by what the ledger has. Pure.
 *
 * What a CA allows is never exceeded, whatever the hurry. Below that, a try that came to nothing is
 * not repeated before its time, and failed challenges are rehearsed elsewhere.
 */
#ifndef CM_DOMAIN_LEDGER_POLICY_H
#define CM_DOMAIN_LEDGER_POLICY_H

#include "domain/ledger.h"
#include "domain/ledger_limits.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    LEDGER_REHEARSE_AFTER = 2, /* failed challenges since the last certificate */
    LEDGER_URGENT_WAIT_S = 3600,
};

struct ledger_question {
    struct ledger_subject subject;
    struct ledger_limits limits;
    /* Where to rehearse after failed challenges; directory NULL: nowhere. */
    struct ledger_subject rehearsal;
    struct ledger_limits rehearsal_limits;
    bool urgent; /* nothing is served, or not for long: wait less, within the limits */
    /* Of the settings that an order depends on: with another one LEDGER_CONFIGURATION is over. */
    uint32_t context;
};

enum ledger_action {
    LEDGER_WAIT,
    LEDGER_ORDER,
    LEDGER_REHEARSE,
    /* An order was not accounted for: what it came to has to be found out first. */
    LEDGER_SETTLE,
    LEDGER_SETTLE_REHEARSAL,
};

struct ledger_answer {
    enum ledger_action action;
    int64_t from;    /* Unix seconds before which there is no order and no rehearsal */
    const char *why; /* static text, "" when that is over */
    enum ledger_outcome last; /* of the subject; LEDGER_OUTCOMES: there was none */
};

struct ledger_answer ledger_ask(const struct ledger *ledger,
                                const struct ledger_question *question, int64_t now);

/* ---- what is left ---- */

/* One for each member of struct ledger_limits. */
enum ledger_bucket {
    LEDGER_CERTIFICATES,
    LEDGER_DOMAIN,
    LEDGER_FAILURES,
    LEDGER_ORDERS,
    LEDGER_BUCKETS,
};

struct ledger_permits {
    unsigned limit; /* 0: there is none, and nothing else is set */
    unsigned left;
    int64_t next_at; /* Unix seconds when one more of them is back, 0: none is missing */
};

/* "certificates", "domain" … as the members are called. */
const char *ledger_bucket_name(enum ledger_bucket bucket);

/*
 * What may still be asked of a CA at this moment by its limits; an order that is under way counts
 * as all that it may come to.
 */
void ledger_permits(const struct ledger *ledger, const struct ledger_subject *subject,
                    const struct ledger_limits *limits, int64_t now,
                    struct ledger_permits ret[LEDGER_BUCKETS]);

#endif
