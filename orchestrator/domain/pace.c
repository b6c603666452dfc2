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
