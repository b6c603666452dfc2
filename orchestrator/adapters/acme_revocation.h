/*
 * acme_revocation: takes a certificate back at its CA, RFC 8555 §7.6.
 *
 *     find account → get nonce → revoke
 *
 * The request is signed with the account that ordered it. Where the CA does not have that account, or has
 * another one for the certificate, it is signed with the certificate's own key, which is as good. No account
 * is made. Ownership and order of calls: done.h.
 */
#ifndef CM_ADAPTERS_ACME_REVOCATION_H
#define CM_ADAPTERS_ACME_REVOCATION_H

#include "adapters/acme_account.h"
#include "domain/chain.h"

#include <stdbool.h>

/* CRLReason of RFC 5280 §5.3.1: those that a subscriber gives. */
enum acme_revocation_reason {
    ACME_UNSPECIFIED = 0,
    ACME_KEY_COMPROMISE = 1,
    ACME_SUPERSEDED = 4,
    ACME_CESSATION_OF_OPERATION = 5,
};

/* Borrowed until done. */
struct acme_revocation_request {
    struct http *http;
    uv_loop_t *loop;
    const struct config *config;
    const struct authority *authority;
    EVP_PKEY *account_key;
    EVP_PKEY *certificate_key; /* NULL: it is not ours */
    const struct chain *chain; /* its leaf is revoked */
    enum acme_revocation_reason reason;
};

struct acme_revocation {
    /* Results, valid in done. */
    bool already; /* it was revoked before */

    /* Private. */
    struct acme_revocation_request request;
    struct seq seq;
    struct acme_account account;
    bool by_certificate_key;
    char nonce[ACME_NONCE_SIZE];
    unsigned nonce_refusals;
    struct http_call http;
    struct buf body;
    done_fn done;
    void *owner;
};

/* ERR_NET and ERR_TIMEOUT: the CA is out of reach. ERR_PEER: it refused, and has not revoked. */
void acme_revocation_start(struct acme_revocation *revocation,
                           const struct acme_revocation_request *request, done_fn done,
                           void *owner);

#endif
