/*
 * examine: judge the pair in the TLS folder by the start rules (domain/stored.h), and set
 * it aside when it must not stay. Blocks only for the disk; run again after a failure.
 */
#ifndef CM_FLOWS_EXAMINE_H
#define CM_FLOWS_EXAMINE_H

#include "adapters/store.h"
#include "domain/chain.h"
#include "domain/config.h"
#include "domain/stored.h"

#include <openssl/evp.h>

/* What is to be served. Owned by the caller. */
struct examined {
    struct chain *chain; /* NULL: one has to be obtained */
    EVP_PKEY *key;       /* with tls.key: external, that of the pair; else NULL */
    /* Not judged: somebody may be about to write the rest of it. */
    bool unfinished;
};

struct examine_request {
    const struct store *store;
    const struct config *config;
    const EVP_PKEY *tls_key; /* NULL with tls.key: external */
    /* Leaf that an intent of before wants to be served, taken where it can be found; "": none. */
    const char *preferred;
    const char
        *no_order; /* why FORCE_RM_CERT_FILES could not lead to an order now, or NULL */
    /* What must not stay, and has been changed more lately than that, is not set aside yet. */
    int64_t rest_ms;
    /* Called before the pair is moved: an nginx that starts must not need it any more. */
    int (*withdraw)(void *owner, struct err *err);
    void *owner;
};

/* What holds for a pair here; `tls_key` as above. Borrows both. */
struct stored_rules examine_rules(const struct config *config, const EVP_PKEY *tls_key);

int examine_stored(const struct examine_request *request, struct examined *ret,
                   struct err *err);

/*
 * Once `live` is served: what waits in the state folder when it may be served and is better than that;
 * else no chain.
 */
struct examined examine_staged(const struct store *store, const struct config *config,
                               const EVP_PKEY *tls_key, const struct chain *live);

/*
 * The same of a pair that somebody has put there while another one is served: judged, and
 * nothing moved. Without a chain in `ret`, `ret_reason` says why it must not be served.
 */
int examine_replaced(const struct store *store, const struct config *config,
                     const EVP_PKEY *tls_key, struct examined *ret,
                     char ret_reason[STORED_REASON_SIZE], struct err *err);

#endif
