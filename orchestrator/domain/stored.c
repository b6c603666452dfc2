#include "domain/stored.h"

#include "base/text.h"
#include "domain/keys.h"

#include <stdio.h>

bool stored_force_acts(const struct stored_rules *rules, int64_t now)
{
    /*
     * A mark from the future comes from a clock that was wrong: it does not block for
     * ever.
     */
    return rules->force_rm && (rules->forced_at <= 0 || rules->forced_at > now ||
                               now - rules->forced_at >= STORED_FORCE_PERIOD_S);
}

/* Why the pair must not be served whatever its dates, or NULL. */
static const char *objection(const struct stored_pair *pair,
                             const struct stored_rules *rules)
{
    if (pair->damage != NULL)
        return pair->damage;
    if (pair->chain == NULL)
        return "the certificate is missing";
    if (!rules->development && chain_leaf(pair->chain)->self_signed)
        return "the certificate is self-signed";
    if (rules->production && chain_issuer_contains(pair->chain, "staging"))
        return "the certificate was issued by a staging CA";
    if (pair->key != NULL && !chain_has_key(pair->chain, pair->key))
        return "the private key does not belong to the certificate";
    if (!chain_covers(pair->chain, rules->domains->items[0]))
        return "the certificate does not cover the domain";
    /* A missing key.pem is no loss: it is derived, and written again. */
    if (rules->derived == NULL && pair->key == NULL)
        return "the private key is missing, and tls.key is external";
    if (rules->derived != NULL && !chain_has_key(pair->chain, rules->derived))
        return "the private key is not the derived one";
    return NULL;
}

enum stored_verdict stored_judge(const struct stored_pair *pair,
                                 const struct stored_rules *rules, int64_t now,
                                 char ret_reason[STORED_REASON_SIZE])
{
    const char *why;
    const char *lacking;
    char date[TEXT_TIME_SIZE];

    if (!pair->present) {
        snprintf(ret_reason, STORED_REASON_SIZE, "no certificate is stored");
        return STORED_OBTAIN;
    }
    (void)chain_lacked_memory();
    why = stored_force_acts(rules, now) ? "FORCE_RM_CERT_FILES is set"
                                        : objection(pair, rules);
    if (chain_lacked_memory()) {
        snprintf(ret_reason, STORED_REASON_SIZE,
                 "there is not enough memory to judge the stored pair");
        return STORED_UNKNOWN;
    }
    if (why != NULL) {
        snprintf(ret_reason, STORED_REASON_SIZE, "%s", why);
        return STORED_SET_ASIDE;
    }
    text_time(date, chain_leaf(pair->chain)->not_after);
    if (chain_leaf(pair->chain)->not_after <= now) {
        snprintf(ret_reason, STORED_REASON_SIZE, "the stored certificate expired on %s",
                 date);
        return STORED_OBTAIN;
    }
    lacking = chain_lacks(pair->chain, rules->domains);
    snprintf(ret_reason, STORED_REASON_SIZE,
             "the stored certificate is valid until %s%s%s", date,
             lacking == NULL ? "" : ", but not for ", lacking == NULL ? "" : lacking);
    return STORED_SERVE;
}
