#include "domain/pace.h"

#include <stddef.h>

/* `part` of every 1,000 of `ms`. */
static uint64_t share(uint64_t ms, uint64_t part)
{
    return ms / 1000 * part + ms % 1000 * part / 1000;
}

uint64_t pace_doubling(uint64_t first_ms, uint64_t longest_ms, unsigned failures,
                       uint32_t random)
{
    uint64_t wait = first_ms;

    for (unsigned i = 1; i < failures && wait > 0 && wait < longest_ms; i++)
        wait = wait > longest_ms / 2 ? longest_ms : wait * 2;
    if (wait > longest_ms)
        wait = longest_ms;
    return share(wait, 900 + random % 201);
}

uint64_t pace_challenge(unsigned failures, uint32_t random)
{
    static const uint64_t minutes[] = {1, 10, 100, 1440};
    unsigned last = sizeof minutes / sizeof minutes[0] - 1;
    unsigned index = failures == 0 ? 0 : failures - 1;
    uint64_t wait = minutes[index < last ? index : last] * 60000;

    return share(wait, 1000 + random % 101);
}

uint64_t pace_local(unsigned failures, uint32_t random)
{
    return pace_doubling(PACE_LOCAL_MIN_MS, PACE_LOCAL_MAX_MS, failures, random);
}

enum {
    /* A CA or network that is down is asked again soon, then every few minutes. */
    NETWORK_MIN_MS = 5 * 1000,
    NETWORK_MAX_MS = 10 * 60 * 1000,
    /* A text from outside must not stop us for longer. */
    RATE_LIMIT_LONGEST_S = 7 * 24 * 3600,
    RATE_LIMIT_SPREAD_MS = 60 * 1000,
};

/* Until the time that the CA named, within reason; 0 when that is over. */
static uint64_t until(int64_t retry_at, int64_t now, uint32_t random)
{
    if (retry_at <= now)
        return 0;
    if (retry_at - now > RATE_LIMIT_LONGEST_S)
        retry_at = now + RATE_LIMIT_LONGEST_S;
    return (uint64_t)(retry_at - now) * 1000 + random % RATE_LIMIT_SPREAD_MS;
}

uint64_t pace_issue(const struct pace_failure *failure, const struct pace_limits *limits,
                    int64_t now, uint32_t random)
{
    const struct certbot_outcome *outcome = failure->outcome;
    bool unreached =
        outcome == NULL && (failure->kind == ERR_NET || failure->kind == ERR_TIMEOUT);
    uint64_t wait = 0;

    if (!failure->asked_ca) /* nobody counts */
        return pace_local(failure->in_a_row, random);
    /* What it issued is of no use to us: to order it again soon is to order it in vain. */
    if (outcome != NULL && outcome->verdict == CERTBOT_ISSUED)
        return limits->max_ms;
    if (outcome != NULL && outcome->verdict == CERTBOT_RATE_LIMITED)
        wait = until(outcome->retry_at, now, random);
    if (wait > 0)
        return wait;
    if (outcome != NULL && outcome->verdict == CERTBOT_CHALLENGE_FAILED &&
        limits->counts_challenges)
        return pace_challenge(failure->in_a_row, random);
    if (failure->kind == ERR_CONFIG) /* somebody has to change something */
        return limits->max_ms;
    /* Not reached at all. Once certbot runs, a CA that falls silent may have issued. */
    if (unreached)
        return pace_doubling(limits->min_ms < NETWORK_MIN_MS ? limits->min_ms
                                                             : NETWORK_MIN_MS,
                             NETWORK_MAX_MS, failure->in_a_row, random);
    return pace_doubling(limits->min_ms, limits->max_ms, failure->in_a_row, random);
}
