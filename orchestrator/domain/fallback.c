#include "domain/fallback.h"

#include <string.h>

bool fallback_helps(enum err_kind kind, bool asked_ca,
                    const struct certbot_outcome *outcome)
{
    if (kind ==
        ERR_CONFIG) /* of what was configured for this CA, or its wish for a person */
        return true;
    if (!asked_ca)
        return false;
    if (outcome == NULL)
        return kind == ERR_NET || kind == ERR_TIMEOUT || kind == ERR_PEER;
    switch (outcome->verdict) {
    case CERTBOT_CA_UNREACHABLE:
    case CERTBOT_CA_REFUSED:
    case CERTBOT_RATE_LIMITED:
    case CERTBOT_ACCOUNT_GONE:
        return true;
    case CERTBOT_CHALLENGE_FAILED:
        /* The domain's records may allow another CA (RFC 8659). */
        return strcmp(outcome->problem, "caa") == 0;
    case CERTBOT_ISSUED:
    case CERTBOT_LOCKED:
    case CERTBOT_KILLED:
    case CERTBOT_TOO_OLD: /* whose error is ERR_CONFIG */
    case CERTBOT_LOCAL_FAILURE:
        break;
    }
    return false;
}

size_t fallback_next(const struct fallback *fallback, uint64_t now_ms)
{
    size_t soonest = 0;

    for (size_t i = 0; i < fallback->count; i++) {
        if (fallback->items[i].retry_at_ms <= now_ms)
            return i;
        if (fallback->items[i].retry_at_ms < fallback->items[soonest].retry_at_ms)
            soonest = i;
    }
    return soonest;
}

uint64_t fallback_due(const struct fallback *fallback, uint64_t now_ms)
{
    return fallback->items[fallback_next(fallback, now_ms)].retry_at_ms;
}

void fallback_failed(struct fallback *fallback, size_t i, bool helps,
                     uint64_t retry_at_ms)
{
    fallback->items[i].failures++;
    fallback->items[i].retry_at_ms = retry_at_ms;
    for (size_t k = 0; k < fallback->count && !helps; k++) {
        if (fallback->items[k].retry_at_ms < retry_at_ms)
            fallback->items[k].retry_at_ms = retry_at_ms;
    }
}

void fallback_succeeded(struct fallback *fallback, size_t i)
{
    for (size_t k = 0; k < fallback->count; k++)
        fallback->items[k].failures = 0;
    fallback->items[i].retry_at_ms = 0;
}
