/*
 * evidence flow: what somebody needs who verifies the served certificate offline, shown at
 * /evidences/. What the files are: domain/evidence.h.
 *
 *     get account key → find account → write files → get quote → publish
 *
 * The CA itself confirms the account's URL: the one that is remembered on the volume could be
 * anybody's. A CA that cannot or will not say it does not hold the rest up, the account is null then.
 * With tls.key: external there is no account of ours, and the first two steps are skipped.
 * Nothing is shown of a flow that fails; it may be run again at any time.
 */
#ifndef CM_FLOWS_EVIDENCE_FLOW_H
#define CM_FLOWS_EVIDENCE_FLOW_H

#include "adapters/acme_account.h"
#include "adapters/dstack.h"
#include "adapters/evidence_folder.h"
#include "domain/chain.h"
#include "domain/evidence.h"
#include "domain/jose.h"
#include "domain/keys.h"
#include "runtime/seq.h"

#include <openssl/evp.h>

/* Borrowed until done, except the chain, of which a copy is taken at the start. */
struct evidence_request {
    uv_loop_t *loop;
    struct http *http;
    const struct config *config;
    const struct authority *authority; /* that issued the chain */
    const struct dstack *agent;
    const struct chain *chain; /* the served one */
};

struct evidence_flow {
    /* Result, valid in done: why the account is null, ERR_NONE when it is not, or need not be. */
    struct err account_err;

    /* Private. */
    struct evidence_request request;
    struct buf chain_pem;
    struct dstack_call call;
    EVP_PKEY *account_key;
    char thumbprint[JOSE_THUMBPRINT_SIZE];
    struct acme_account account;
    char folder[FS_PATH_MAX]; /* in which the files are, not shown yet */
    char report_data[EVIDENCE_SHA256_SIZE];
    struct seq seq;
};

void evidence_flow_start(struct evidence_flow *flow,
                         const struct evidence_request *request, done_fn done,
                         void *owner);
void evidence_flow_cancel(struct evidence_flow *flow);
void evidence_flow_done(struct evidence_flow *flow);

#endif
