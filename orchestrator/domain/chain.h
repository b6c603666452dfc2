/*
 * chain: a certificate chain, leaf first, parsed once and then asked. Pure.
 *
 * Everything in it may come from a hostile file or CA: sizes are bounded, and text taken from
 * certificates has control characters replaced.
 */
#ifndef CM_DOMAIN_CHAIN_H
#define CM_DOMAIN_CHAIN_H

#include "base/buf.h"
#include "base/err.h"
#include "domain/config.h"
#include "domain/renewal_info.h"

#include <openssl/evp.h>
#include <openssl/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CHAIN_PEM_MAX_BYTES = 128 * 1024, CHAIN_MAX_CERTIFICATES = 10 };

struct chain;

/* What people and policy want to know of the leaf. */
struct chain_leaf {
    char sha256[65]; /* of the DER, lower-case hex: what the certificate event measures */
    char serial[48]; /* lower-case hex */
    char subject[256]; /* RFC 2253, "" when empty */
    char issuer[256];
    char issuer_name[128]; /* the issuer's common name, else its organization, else "" */
    int64_t not_before;    /* Unix seconds */
    int64_t not_after;
    bool self_signed;                      /* issuer = subject */
    char renewal_id[RENEWAL_INFO_ID_SIZE]; /* "" when a CA cannot be asked about it */
};

/* ERR_CRYPTO unless there are 1 to CHAIN_MAX_CERTIFICATES well-formed certificates and nothing else in PEM. */
int chain_parse(const void *pem, size_t len, struct chain **ret, struct err *err);
void chain_free(struct chain *chain);

const struct chain_leaf *chain_leaf(const struct chain *chain);
size_t chain_length(const struct chain *chain);
const EVP_PKEY *chain_public_key(const struct chain *chain); /* of the leaf; borrowed */
/*
 * Questions below that OpenSSL has no memory to answer are answered with false. Whether that was so since
 * the last call: for those who do something about a chain for the answer.
 */
bool chain_lacked_memory(void);

bool chain_has_key(const struct chain *chain,
                   const EVP_PKEY *key); /* is the leaf for this key */
bool chain_covers(
    const struct chain *chain,
    const char *name); /* by subjectAltName, RFC 6125; never by common name */

/* The first of the names that the leaf does not cover, borrowed from the list; NULL: none. */
const char *chain_lacks(const struct chain *chain, const struct config_list *names);

bool chain_issuer_contains(const struct chain *chain,
                           const char *word); /* in the issuer's CN, any case */

/*
 * Whether the leaf covers each of `names`, is valid at `now`, and each certificate is signed by the
 * next. ERR_CRYPTO says which of it failed, and how. A not_before up to 5 minutes ahead is allowed: CAs
 * and virtual machines disagree on the time.
 */
int chain_check_fit(const struct chain *chain, const struct config_list *names,
                    int64_t now, struct err *err);

/* Whether an ACME CA's answer may be used: that, and the leaf is for `key` and not self-signed. */
int chain_check_issued(const struct chain *chain, const EVP_PKEY *key,
                       const struct config_list *names, int64_t now, struct err *err);

/*
 * Whether it leads to one of `roots`, as a TLS client would verify it at `now`; names are not looked
 * at. ERR_CRYPTO says why not. Pure but for roots that a store reads when they are asked for.
 */
int chain_check_trusted(const struct chain *chain, X509_STORE *roots, int64_t now,
                        struct err *err);

/* The names that the leaf is for, for people: cut to `size` where there are many. */
void chain_list_names(const struct chain *chain, char *ret, size_t size);

/* The leaf alone in DER, appended to an initialised buffer. */
int chain_leaf_der(const struct chain *chain, struct buf *ret, struct err *err);

/* Only the certificates, in canonical PEM, into an initialised buffer. */
int chain_to_pem(const struct chain *chain, struct buf *ret, struct err *err);

#endif
