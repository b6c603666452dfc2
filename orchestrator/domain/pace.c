#include "domain/pace.h"

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

/* After what a CA may count as a failed challenge. */
static uint64_t spaced(unsigned in_a_row, const struct pace_limits *limits,
                       uint32_t random)
{
    return limits->counts_challenges
               ? pace_challenge(in_a_row, random)
               : pace_doubling(limits->min_ms, limits->max_ms, in_a_row, random);
}

uint64_t pace_order(const struct pace_failure *failure, const struct pace_limits *limits,
                    int64_t now, uint32_t random)
{
    uint64_t wait = 0;

    switch (failure->outcome) {
    case LEDGER_ISSUED: /* of no use to us: to order it again soon is to order it in vain */
    case LEDGER_CONFIGURATION: /* somebody has to change something */
        return limits->max_ms;
    case LEDGER_CHALLENGE_FAILED:
    case LEDGER_CAA_FORBIDS:
    case LEDGER_DOUBTFUL:
        return spaced(failure->in_a_row, limits, random);
    case LEDGER_UNREACHED:
        return pace_doubling(limits->min_ms < NETWORK_MIN_MS ? limits->min_ms
                                                             : NETWORK_MIN_MS,
                             NETWORK_MAX_MS, failure->in_a_row, random);
    case LEDGER_RATE_LIMITED:
        wait = until(failure->retry_at, now, random);
        break;
    default:
        break;
    }
    return wait > 0
               ? wait
               : pace_doubling(limits->min_ms, limits->max_ms, failure->in_a_row, random);
}

uint64_t pace_lost_order(unsigned in_a_row, const struct pace_limits *limits,
                         uint32_t random)
{
    return in_a_row <= 1 ? 0 : spaced(in_a_row - 1, limits, random);
}
