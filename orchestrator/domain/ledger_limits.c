#include "domain/ledger_limits.h"

#include <string.h>

#define MINUTES(count) ((count) * INT64_C(60))
#define HOURS(count) ((count) * INT64_C(3600))

/*
 * https://letsencrypt.org/docs/rate-limits and …/docs/staging-environment, with the refill rates
 * rounded up. Overrides of certificates per set of names do not exist.
 */
static const struct ledger_limits production = {
    .certificates = {5, HOURS(34)},
    .domain = {50, MINUTES(202)},
    .failures = {5, MINUTES(12)},
    .orders = {300, 36},
};
static const struct ledger_limits staging = {
    .certificates = {30000, 21},
    .domain = {30000, 21},
    .failures = {200, 18},
    .orders = {1500, 8},
};

static void override(struct ledger_limit *limit, const struct config_rate *rate)
{
    if (rate->count == 0)
        return;
    limit->count = rate->count;
    limit->refill_s = (rate->period_ms + 1000L * rate->count - 1) / (1000L * rate->count);
}

struct ledger_limits ledger_limits_of(const struct config *config, const char *directory)
{
    struct ledger_limits limits = {0};

    if (strcmp(directory, AUTHORITY_PRODUCTION) == 0)
        limits = production;
    else if (strcmp(directory, AUTHORITY_STAGING) == 0)
        limits = staging;
    if (strcmp(directory, config_directory(config)) == 0) {
        override(&limits.certificates, &config->acme.limits.certificates);
        override(&limits.domain, &config->acme.limits.domain);
        override(&limits.failures, &config->acme.limits.failures);
        override(&limits.orders, &config->acme.limits.orders);
    }
    return limits;
}

int64_t ledger_limit_horizon(const struct ledger_limit *limit)
{
    return (int64_t)limit->count * limit->refill_s;
}
