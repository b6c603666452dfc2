/*
 * pace: how long to wait after a failure, by what failed and how often in a row. Pure.
 */
#ifndef CM_DOMAIN_PACE_H
#define CM_DOMAIN_PACE_H

#include "domain/ledger_outcome.h"

#include <stdbool.h>
#include <stdint.h>

/* After failures that cost nobody anything: the disk, nginx, our own machine. */
enum { PACE_LOCAL_MIN_MS = 1000, PACE_LOCAL_MAX_MS = 60 * 1000 };

/*
 * Doubling from `first_ms` to `longest_ms`; `failures` counts from 1. `random` spreads
 * it ±10 %.
 */
uint64_t pace_doubling(uint64_t first_ms, uint64_t longest_ms, unsigned failures,
                       uint32_t random);

/*
 * After a failed challenge at a CA that counts them (Let's Encrypt: 5 an hour, and its
 * advice): 1, 10, 100 minutes, then daily, with up to 10 % more.
 */
uint64_t pace_challenge(unsigned failures, uint32_t random);

/* PACE_LOCAL_MIN_MS, doubling to PACE_LOCAL_MAX_MS. */
uint64_t pace_local(unsigned failures, uint32_t random);

/* What the CA wants; min and max are the settings acme.retry_min and retry_max. */
struct pace_limits {
    uint64_t min_ms;
    uint64_t max_ms;
    bool counts_challenges; /* Let's Encrypt: pace_challenge() holds */
};

struct pace_failure {
    enum ledger_outcome outcome;
    unsigned in_a_row; /* from 1: how often it came to that since the last certificate */
    int64_t retry_at;  /* that the CA named, Unix seconds, or 0 */
};

/* How long to leave the CA alone after a try that came to nothing; `now` in Unix seconds. */
uint64_t pace_order(const struct pace_failure *failure, const struct pace_limits *limits,
                    int64_t now, uint32_t random);

/*
 * The same for orders of an earlier life whose end nobody has seen: the first one may be repeated
 * at once, since a power cut says nothing about the CA.
 */
uint64_t pace_lost_order(unsigned in_a_row, const struct pace_limits *limits,
                         uint32_t random);

#endif
