/*
 * plan: what the daemon does next, and why. Pure: facts and time in, one action out.
 *
 * Certificate dates are wall-clock seconds; the instants before which a failed activity
 * is not tried again are milliseconds of the monotonic clock, so that a jump of the wall
 * clock neither hammers a CA nor stalls a retry.
 */
#ifndef CM_DOMAIN_PLAN_H
#define CM_DOMAIN_PLAN_H

#include <stdbool.h>
#include <stdint.h>

enum plan_action {
    PLAN_WAIT,       /* nothing to do before `wait_ms` are over */
    PLAN_FETCH_KEYS, /* ask the guest agent */
    PLAN_EXAMINE,    /* judge what the TLS folder holds */
    PLAN_APPLY,      /* measure and serve the chain at hand */
    PLAN_ISSUE,      /* obtain a chain from the CA */
};

/* Activities that fail and are tried again. */
enum plan_activity {
    PLAN_KEYS,
    PLAN_EXAMINING,
    PLAN_APPLYING,
    PLAN_ISSUING,
    PLAN_ACTIVITIES,
};

struct plan_facts {
    bool keys;      /* TLS key and EKM secret are at hand */
    bool examined;  /* the stored pair has been judged */
    bool candidate; /* a chain waits to be applied */
    bool served;    /* a leaf is applied; its dates follow */
    int64_t not_before;
    int64_t not_after;
    uint64_t retry_at_ms[PLAN_ACTIVITIES]; /* 0: at once */
};

/*
 * How long to leave the CA alone after it has issued a leaf: a quarter of its life, at most an
 * hour. A leaf that our clock calls due at once must not have us order without end.
 */
uint64_t plan_rest_after_issue_ms(int64_t not_before, int64_t not_after);

enum { PLAN_REASON_SIZE = 160, PLAN_LONGEST_WAIT_MS = 60 * 1000 };

struct plan {
    enum plan_action action;
    uint64_t wait_ms; /* PLAN_WAIT: look again after this, at most PLAN_LONGEST_WAIT_MS */
    char reason[PLAN_REASON_SIZE];
};

/* `now` in Unix seconds, `uptime_ms` of the monotonic clock. */
struct plan plan_next(const struct plan_facts *facts, int64_t now, uint64_t uptime_ms);

/*
 * When a leaf is due for renewal: when a third of its life is left (30 of 90 days), or
 * half of a life below 10 days, so that 90-, 45- and 6-day certificates all have room for
 * several tries.
 */
int64_t plan_renew_at(int64_t not_before, int64_t not_after);

#endif
