#include "domain/ledger_outcome.h"

#include <string.h>

static const struct {
    const char *name;
    unsigned counts;
} outcomes[LEDGER_OUTCOMES] = {
    [LEDGER_PENDING] = {"pending", LEDGER_COUNTS_ORDER | LEDGER_COUNTS_CERTIFICATE |
                                       LEDGER_COUNTS_FAILURE},
    [LEDGER_DOUBTFUL] = {"doubtful", LEDGER_COUNTS_ORDER | LEDGER_COUNTS_CERTIFICATE |
                                         LEDGER_COUNTS_FAILURE},
    [LEDGER_ISSUED] = {"issued", LEDGER_COUNTS_ORDER | LEDGER_COUNTS_CERTIFICATE},
    [LEDGER_CHALLENGE_FAILED] = {"challenge failed",
                                 LEDGER_COUNTS_ORDER | LEDGER_COUNTS_FAILURE},
    [LEDGER_CAA_FORBIDS] = {"CAA forbids", LEDGER_COUNTS_ORDER | LEDGER_COUNTS_FAILURE},
    [LEDGER_RATE_LIMITED] = {"rate limited", 0},
    [LEDGER_UNREACHED] = {"CA unreachable", LEDGER_COUNTS_ORDER},
    [LEDGER_REFUSED] = {"refused", LEDGER_COUNTS_ORDER},
    [LEDGER_CONFIGURATION] = {"configuration", 0},
};

unsigned ledger_counts(enum ledger_outcome outcome)
{
    return outcomes[outcome].counts;
}

const char *ledger_outcome_name(enum ledger_outcome outcome)
{
    return outcomes[outcome].name;
}

enum ledger_outcome ledger_outcome_parse(const char *name)
{
    unsigned i = 0;

    while (i < LEDGER_OUTCOMES && strcmp(outcomes[i].name, name) != 0)
        i++;
    return (enum ledger_outcome)i;
}

static enum ledger_outcome of_certbot(const struct certbot_outcome *ran)
{
    bool is_caa = strcmp(ran->problem, "caa") == 0;

    switch (ran->verdict) {
    case CERTBOT_ISSUED:
        return LEDGER_ISSUED;
    case CERTBOT_CHALLENGE_FAILED:
        return is_caa ? LEDGER_CAA_FORBIDS : LEDGER_CHALLENGE_FAILED;
    case CERTBOT_RATE_LIMITED:
        return LEDGER_RATE_LIMITED;
    case CERTBOT_CA_UNREACHABLE:
        return ran->may_have_issued ? LEDGER_DOUBTFUL : LEDGER_UNREACHED;
    case CERTBOT_CA_REFUSED:
        return is_caa ? LEDGER_CAA_FORBIDS : LEDGER_REFUSED;
    case CERTBOT_KILLED:
        return LEDGER_DOUBTFUL;
    case CERTBOT_TOO_OLD:
        return LEDGER_CONFIGURATION;
    case CERTBOT_ACCOUNT_GONE:
    case CERTBOT_LOCKED:
    case CERTBOT_LOCAL_FAILURE:
        break;
    }
    return ran->may_have_issued ? LEDGER_DOUBTFUL : LEDGER_REFUSED;
}

enum ledger_outcome ledger_outcome_of(const struct certbot_outcome *ran, bool started,
                                      const struct err *err)
{
    if (ran != NULL)
        return of_certbot(ran);
    if (err == NULL)
        return LEDGER_ISSUED;
    if (started) /* ended by us, or not to be run at all */
        return err->kind == ERR_TIMEOUT || err->kind == ERR_CANCELED ? LEDGER_DOUBTFUL
                                                                     : LEDGER_REFUSED;
    switch (err->kind) {
    case ERR_CONFIG:
        return LEDGER_CONFIGURATION;
    case ERR_NET:
    case ERR_TIMEOUT:
        return LEDGER_UNREACHED;
    default:
        return LEDGER_REFUSED;
    }
}
