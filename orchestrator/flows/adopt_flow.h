/*
 * adopt flow: a chain for our key that the domain, or a peer, serves already, instead of an order.
 *
 *     read roots → look around → keep chain
 *
 * What is presented is judged by domain/adopt.h; the first chain that passes is kept in the TLS folder
 * as an issued one is, where the start rules find it. Whatever fails here only means that the CA has
 * to be asked, so it takes ADOPT_LIMIT_MS at most.
 */
#ifndef CM_FLOWS_ADOPT_FLOW_H
#define CM_FLOWS_ADOPT_FLOW_H

#include "adapters/chain_search.h"
#include "adapters/store.h"
#include "domain/adopt.h"
#include "domain/chain.h"
#include "domain/config.h"
#include "runtime/seq.h"

#include <openssl/evp.h>

enum { ADOPT_LIMIT_MS = 3000, ADOPT_REFUSAL_SIZE = ADOPT_REASON_SIZE + 128 };

/* Borrowed until done. */
struct adopt_request {
    uv_loop_t *loop;
    const struct config *config;
    const struct store *store;
    const EVP_PKEY *tls_key;
    const struct chain *served; /* NULL: nothing */
};

struct adopt_flow {
    /* Results, valid in done until adopt_flow_done. */
    struct chain
        *chain; /* NULL: none was found; taken over (set to NULL) by the caller */
    char refusal
        [ADOPT_REFUSAL_SIZE]; /* the last chain that was not taken, and why; or "" */

    /* Private. */
    struct adopt_request request;
    X509_STORE *roots;
    struct chain_search search;
    struct seq seq;
};

/* The steps; end with one without a name. */
extern const struct seq_step adopt_steps[];

/* Whether the settings let anything be adopted. */
bool adopt_is_on(const struct config *config);

void adopt_flow_start(struct adopt_flow *flow, const struct adopt_request *request,
                      done_fn done, void *owner);
void adopt_flow_cancel(struct adopt_flow *flow);
void adopt_flow_done(struct adopt_flow *flow);

#endif
