/*
 * pace: how long to wait after a failure, by what failed and how often in a row. Pure.
 */
#ifndef CM_DOMAIN_PACE_H
#define CM_DOMAIN_PACE_H

#include <stdbool.h>
#include <stdint.h>

/* Doubling from `first_ms` to `longest_ms`; `failures` counts from 1. `random` spreads it
 * ±10 %. */
uint64_t pace_doubling(uint64_t first_ms, uint64_t longest_ms, unsigned failures,
                       uint32_t random);

/*
 * After a failed challenge at a CA that counts them (Let's Encrypt: 5 an hour, and its
 * advice): 1, 10, 100 minutes, then daily, with up to 10 % more.
 */
uint64_t pace_challenge(unsigned failures, uint32_t random);

#endif
