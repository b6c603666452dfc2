/*
 * adopt: whether a chain that somebody presents may be served instead of an order from the CA.
 *
 * Replicas, and containers that are made anew, derive the same key: what one of them serves, all may.
 * Nothing of who presents it is believed. It counts that the CA has signed it and that it is for our
 * key; that the start rules would serve it; that it is not due, so that it is worth it; and that it is
 * younger than what we have, so that two who look at each other do not swap leaves for ever. Pure but
 * for the store of roots, see chain_check_trusted.
 */
#ifndef CM_DOMAIN_ADOPT_H
#define CM_DOMAIN_ADOPT_H

#include "domain/chain.h"
#include "domain/renewal.h"
#include "domain/stored.h"

#include <stdint.h>

struct adopt_rules {
    struct stored_rules stored; /* with the derived key, and without force_rm */
    struct renewal_terms terms; /* that say when a leaf is due */
    X509_STORE *roots;
    const struct chain *served; /* here, for whatever key; NULL: nothing */
};

enum adopt_verdict {
    ADOPT_TAKE,
    ADOPT_OURS, /* the leaf that is served here: we have asked ourselves */
    ADOPT_REFUSE,
};

enum { ADOPT_REASON_SIZE = ERR_MESSAGE_MAX };

/* `ret_reason` says why it is refused, and is "" otherwise. */
enum adopt_verdict adopt_judge(const struct chain *chain, const struct adopt_rules *rules,
                               int64_t now, char ret_reason[ADOPT_REASON_SIZE]);

#endif
