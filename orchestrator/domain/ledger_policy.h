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

#endif
