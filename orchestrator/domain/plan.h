/*
 * plan: what the daemon does next, and why. Pure: facts and time in, one action out.
 *
 * Certificate dates are wall-clock seconds; the instants before which a failed activity
 * is not tried again are milliseconds of the monotonic clock, so that a jump of the wall
 * clock neither hammers a CA nor stalls a retry.
 */
#ifndef CM_DOMAIN_PLAN_H
#define CM_DOMAIN_PLAN_H

#include "domain/renewal.h"

#include <stdbool.h>
#include <stdint.h>

enum plan_action {
    PLAN_WAIT,       /* nothing to do before `wait_ms` are over */
    PLAN_FETCH_KEYS, /* ask the guest agent */
    PLAN_EXAMINE,    /* judge what the TLS folder holds */
    PLAN_APPLY,      /* measure and serve the chain at hand */
    PLAN_REPAIR,     /* serve and measure again what an unfinished way back leads to */
    PLAN_REAPPLY,    /* measure and serve again what is served */
    PLAN_GATHER,     /* evidence of what is served */
    PLAN_ASK_RENEWAL_INFO, /* ask the CA when to renew what is served */
    PLAN_ADOPT, /* look whether others serve what may be served instead of an order */
    PLAN_ISSUE, /* obtain a chain from the CA */
};

/* Activities that fail and are tried again. */
enum plan_activity {
    PLAN_KEYS,
    PLAN_ACCOUNT,
    PLAN_EXAMINING,
    PLAN_APPLYING,
    PLAN_ADOPTING,
    PLAN_PREFLIGHT, /* the checks before an order, and what they wait for */
    PLAN_ISSUING,
    PLAN_REPAIRING,
    PLAN_REAPPLYING,
    PLAN_MEASURING,
    PLAN_GATHERING,
    PLAN_ASKING,
    PLAN_ACTIVITIES,
};

/* The agent's keys can change (key epochs): asked daily, and before every order. */
enum { PLAN_KEYS_PERIOD_MS = 24 * 3600 * 1000, PLAN_KEYS_FRESH_MS = 60 * 1000 };

/* Others are looked at before an order, and while one has to wait: that often. */
enum { PLAN_ADOPT_PERIOD_MS = 60 * 1000 };

struct plan_facts {
    bool keys;           /* TLS key and EKM secret are at hand */
    uint64_t keys_at_ms; /* when the agent gave them, on the monotonic clock */
    bool account_due;    /* nginx is to know the ACME account, and does not yet */
    bool external;       /* certificates are somebody else's: nothing is ordered */
    bool repair;         /* the way back of a failed apply has failed, too */
    bool adopts;         /* what others serve already may be taken instead of an order */
    bool examined;       /* the stored pair has been judged */
    bool candidate;      /* a chain waits to be applied */
    bool disturbed;      /* somebody else touched nginx or its configuration */
    bool unattested;     /* what is served is not attested, and should be */
    bool evidence_due;   /* there is to be evidence, and is none of what is served */
    bool rekeyed;        /* what is served has another key than the agent derives now */
    bool forced;         /* somebody wants another one than is served, due or not */
    const char
        *unfit; /* why the settings want another one than is served, NULL: they do not */
    const char *incomplete; /* a name that what is served lacks, NULL for none */
    bool served;            /* a leaf is applied; its dates follow */
    int64_t not_before;
    int64_t not_after;
    struct renewal_terms renewal; /* what else counts for when it is renewed */
    bool asks;      /* the CA is asked for renewal information of it, the next time */
    int64_t ask_at; /* from then on (Unix seconds, 0: at once) */
    uint64_t retry_at_ms[PLAN_ACTIVITIES]; /* 0: at once */

    /* What the ledger of orders says (domain/ledger.h). */
    int64_t order_from;    /* Unix seconds before which no CA may be asked; 0: at once */
    const char *order_why; /* that is, never NULL then */
    bool
        unsettled; /* an order is not accounted for: looked after whatever is to wait for */
};

enum { PLAN_REASON_SIZE = 400, PLAN_LONGEST_WAIT_MS = 60 * 1000 };

struct plan {
    enum plan_action action;
    uint64_t wait_ms; /* PLAN_WAIT: look again after this, at most PLAN_LONGEST_WAIT_MS */
    bool alarming;    /* somebody should see the reason */
    enum plan_action
        next;            /* what the reason is about: the action, or what is waited for */
    uint64_t next_in_ms; /* that is; UINT64_MAX: nobody knows, or nothing is */
    char reason[PLAN_REASON_SIZE];
};

/*
 * Whether a leaf is so near its end that another one has to be served even if that cannot be
 * attested: a tenth of its life is left.
 */
bool plan_is_nearly_over(int64_t not_before, int64_t not_after, int64_t now);

/* "keys", "apply", "issue" … for the status; "wait" when it is for somebody else. */
const char *plan_action_name(enum plan_action action);
const char *plan_activity_name(enum plan_activity activity);

/* `now` in Unix seconds, `uptime_ms` of the monotonic clock. */
struct plan plan_next(const struct plan_facts *facts, int64_t now, uint64_t uptime_ms);

#endif
