/*
 * deployment: a certificate that somebody brings, such as certbot's deploy hook, with its key or
 * without: whether it may be served, and how it goes over the control socket. Pure.
 *
 * On the way it is contents, never paths: {"fullchain": PEM, "key": PEM, "timeout_s": 60}, where all but
 * the first may be missing.
 */
#ifndef CM_DOMAIN_DEPLOYMENT_H
#define CM_DOMAIN_DEPLOYMENT_H

#include "base/buf.h"
#include "base/err.h"
#include "base/secret.h"
#include "domain/chain.h"
#include "domain/stored.h"

#include <openssl/evp.h>
#include <stdint.h>

enum { DEPLOYMENT_TIMEOUT_S = 60, DEPLOYMENT_TIMEOUT_MAX_S = 3600 };

struct deployment {
    struct chain *chain;
    EVP_PKEY *key;      /* NULL: it did not come along */
    unsigned timeout_s; /* for it to be served; 0: DEPLOYMENT_TIMEOUT_S */
};

/* Accepts a zeroed one, and leaves one. */
void deployment_done(struct deployment *deployment);

/*
 * Out of two PEM texts; `key` NULL for none. ERR_CRYPTO when one cannot be used, or they do not belong
 * together.
 */
int deployment_parse(struct deployment *ret, const void *chain, size_t chain_len,
                     const struct secret *key, struct err *err);

/* Into an initialised buffer. */
int deployment_to_json(const struct deployment *deployment, struct buf *ret,
                       struct err *err);

/* ERR_CONFIG when it is not of that form, ERR_CRYPTO as above; neither quotes anything of it. */
int deployment_from_json(struct deployment *ret, const char *text, size_t len,
                         struct err *err);

struct deployment_rules {
    struct stored_rules
        stored; /* as for what lies on disk at start; force_rm does not matter */
    const struct chain *served; /* NULL: none */
    const struct chain *waits;  /* could not be served yet; NULL: none */
};

/*
 * Whether it may be served now: everything that is asked of a pair on disk and of a CA's answer, and it
 * was issued neither before what is served nor before what waits to be, unless that has expired, is
 * self-signed, lacks a name, or has another key than the derived one. ERR_CRYPTO says why not.
 */
int deployment_check(const struct deployment *deployment,
                     const struct deployment_rules *rules, int64_t now, struct err *err);

#endif
