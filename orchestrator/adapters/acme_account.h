/*
 * acme_account: makes sure that the CA has an account for our key, and learns its URL.
 * RFC 8555 §7.1.1 (directory), §7.2 (nonce), §7.3 and §7.3.1 (account), §7.3.4 (external
 * account binding), §6.5 (badNonce).
 *
 * The key is asked for first with onlyReturnExisting; only when the CA does not know it
 * an account is made. Same key, same account, on every start and every replica. An account
 * that is there needs no binding any more, so its HMAC key is read only to make one.
 * Ownership and order of calls: done.h.
 */
#ifndef CM_ADAPTERS_ACME_ACCOUNT_H
#define CM_ADAPTERS_ACME_ACCOUNT_H

#include "adapters/acme_directory.h"
#include "domain/config.h"
#include "runtime/http.h"
#include "runtime/seq.h"

#include <openssl/evp.h>
#include <stdbool.h>

/* Borrowed until done. */
struct acme_account_request {
    struct http *http;
    uv_loop_t *loop;
    const struct config *config;
    const struct authority *authority;
    EVP_PKEY *key;
    const char *known_url; /* of the account, or NULL: then only the directory is read */
    bool existing_only;    /* ERR_PEER when there is no account: none is made */
};

struct acme_account {
    /* Results, valid in done. */
    char url[ACME_URL_SIZE];
    bool created; /* the CA did not know the key before */
    bool
        deactivated; /* on failure: there is one, and it may not be used (RFC 8555 §7.3.6) */
    bool absent; /* on failure: the CA has none for this key, and none was to be made */
    char caa_identity
        [ACME_IDENTITY_SIZE]; /* the CA's name in CAA records, "" for unknown */

    /* Private. */
    struct acme_account_request request;
    struct seq seq;
    struct acme_directory directory;
    struct http_call http;
    struct buf body;
    char nonce[ACME_NONCE_SIZE];
    unsigned nonce_refusals;
    bool bound; /* the request has an external account binding */
    done_fn done;
    void *owner;
};

/*
 * ERR_NET and ERR_TIMEOUT: the CA is out of reach. ERR_PEER: it refused or talked
 * nonsense (err->code is the HTTP status). ERR_CONFIG: it wants something of the operator
 * (terms that must be agreed to in person, an external account binding, a usable contact,
 * another key, since the account of this one was deactivated).
 */
void acme_account_start(struct acme_account *account,
                        const struct acme_account_request *request, done_fn done,
                        void *owner);
void acme_account_cancel(struct acme_account *account);

#endif
