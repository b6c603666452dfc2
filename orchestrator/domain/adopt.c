#include "domain/adopt.h"

#include "base/text.h"

#include <stdio.h>
#include <string.h>

static enum adopt_verdict refuse(char ret_reason[ADOPT_REASON_SIZE], const char *why)
{
    snprintf(ret_reason, ADOPT_REASON_SIZE, "%s", why);
    return ADOPT_REFUSE;
}

static bool is_due(const struct chain_leaf *leaf, const struct adopt_rules *rules,
                   int64_t now)
{
    return renewal_of(&rules->terms, leaf->not_before, leaf->not_after).at <= now;
}

/* A leaf of another key, or one that lacks a name, is no rival: it has to go. */
static bool is_younger(const struct chain *chain, const struct adopt_rules *rules)
{
    return rules->served == NULL ||
           !chain_has_key(rules->served, rules->stored.derived) ||
           chain_lacks(rules->served, rules->stored.domains) != NULL ||
           chain_leaf(chain)->not_before > chain_leaf(rules->served)->not_before;
}

enum adopt_verdict adopt_judge(const struct chain *chain, const struct adopt_rules *rules,
                               int64_t now, char ret_reason[ADOPT_REASON_SIZE])
{
    const struct stored_pair as_stored = {.present = true, .chain = chain};
    const struct chain_leaf *leaf = chain_leaf(chain);
    char why[STORED_REASON_SIZE];
    char date[TEXT_TIME_SIZE];
    struct err err = ERR_INIT;

    ret_reason[0] = '\0';
    if (rules->served != NULL &&
        strcmp(leaf->sha256, chain_leaf(rules->served)->sha256) == 0)
        return ADOPT_OURS;
    if (chain_check_issued(chain, rules->stored.derived, rules->stored.domains, now,
                           &err) < 0 ||
        chain_check_trusted(chain, rules->roots, now, &err) < 0)
        return refuse(ret_reason, err.message);
    /* A restart would set it aside otherwise, and adopt it again. */
    if (stored_judge(&as_stored, &rules->stored, now, why) != STORED_SERVE)
        return refuse(ret_reason, why);
    if (is_due(leaf, rules, now)) {
        snprintf(ret_reason, ADOPT_REASON_SIZE,
                 "the certificate is due for renewal, valid until %s",
                 text_time(date, leaf->not_after));
        return ADOPT_REFUSE;
    }
    if (!is_younger(chain, rules))
        return refuse(ret_reason, "the certificate is not younger than the served one");
    return ADOPT_TAKE;
}
