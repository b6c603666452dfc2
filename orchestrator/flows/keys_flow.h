/*
 * keys flow: the TLS key and the EKM secret, from the guest agent or, in development,
 * from fixed material; and which ACME account is ours, from its key.
 *
 *     get TLS key → get EKM secret → learn account
 *
 * Nothing is kept when it fails; it may be run again at any time. "learn account" never fails:
 * nginx serves, and answers challenges that have a file, without it. Of the account's key nothing
 * is left but its thumbprint, which is public.
 */
#ifndef CM_FLOWS_KEYS_FLOW_H
#define CM_FLOWS_KEYS_FLOW_H

#include "adapters/dstack.h"
#include "domain/config.h"
#include "domain/jose.h"
#include "domain/keys.h"
#include "runtime/seq.h"

#include <openssl/evp.h>

struct keys_flow {
    /* Results, valid in done; taken over by the caller (set to NULL) or freed by
     * keys_flow_done. */
    EVP_PKEY *tls_key; /* NULL with tls.key: external */
    struct secret *ekm_secret;
    char account_thumbprint[JOSE_THUMBPRINT_SIZE]; /* "" unless nginx is to have it */
    struct err account_err;                        /* why it is not known */

    /* Private. */
    const struct config *config;
    const struct dstack *agent;
    struct dstack_call call;
    char path[KEYS_PATH_SIZE];
    struct seq seq;
};

/* Ends with one without a name. */
extern const struct seq_step keys_steps[];

/* `config` and `agent` are borrowed until done. */
void keys_flow_start(struct keys_flow *flow, uv_loop_t *loop, const struct config *config,
                     const struct dstack *agent, done_fn done, void *owner);
void keys_flow_cancel(struct keys_flow *flow);
void keys_flow_done(struct keys_flow *flow);

#endif
