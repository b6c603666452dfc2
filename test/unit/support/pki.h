/*
 * pki: keys and certificates made at run time, for tests. Everything asserts.
 *
 * Times are Unix seconds. X509 and EVP_PKEY results are owned by the caller.
 */
#ifndef CM_TEST_SUPPORT_PKI_H
#define CM_TEST_SUPPORT_PKI_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <openssl/evp.h>
#include <openssl/x509.h>
#include <stdbool.h>

#define PKI_NOW INT64_C(1795459747) /* 2026-11-23 18:49:07 UTC */
#define PKI_DAY INT64_C(86400)

/* What differs from certificate to certificate; a zeroed one is an unnamed leaf that
 * is valid from PKI_NOW - 1 day for 90 days. */
struct pki_spec {
    const char *common_name;
    size_t common_name_len; /* for names with zero bytes; 0: up to the zero */
    int common_name_type;   /* V_ASN1_…; 0: UTF8String */
    const char *organization;
    const char *names;  /* subjectAltName as in openssl.cnf: "DNS:a.test,DNS:b.test" */
    int64_t not_before; /* 0: PKI_NOW - 1 day */
    int64_t not_after;  /* 0: not_before + 90 days */
    const char *serial; /* decimal or 0x…, maybe negative; NULL: 1 */
    bool ca;            /* basicConstraints CA:TRUE and keyUsage keyCertSign */
    bool without_constraints; /* no basicConstraints at all */
};

EVP_PKEY *pki_key(void); /* a random P-256 key */
EVP_PKEY *
pki_key_of(const char *type,
           const char *group_or_bits); /* "EC","P-384"; "RSA","2048"; "ED25519",NULL */

/* Signed by `issuer_key`; `issuer` NULL: self-signed. */
X509 *pki_certificate(const struct pki_spec *spec, EVP_PKEY *key, const X509 *issuer,
                      EVP_PKEY *issuer_key);

/* Another signature over the same names, after a change to the certificate. */
void pki_sign(X509 *certificate, EVP_PKEY *issuer_key);
/* One extension in the notation of openssl.cnf, before pki_sign. */
void pki_add_extension(X509 *certificate, int nid, const char *value);

/* In PEM, one after the other, NULL ends the list. Caller: free. */
char *pki_pem(X509 *first, ...) __attribute__((sentinel));
/* Any bytes as a PEM block of this label. Caller: free. */
char *pki_block(const char *label, const void *bytes, size_t len);
char *pki_key_pem(EVP_PKEY *key); /* PKCS#8. Caller: free */

/* Root, intermediate and leaf. */
struct pki_chain {
    EVP_PKEY *root_key;
    EVP_PKEY *intermediate_key;
    EVP_PKEY *leaf_key;
    X509 *root;
    X509 *intermediate;
    X509 *leaf;
};
void pki_chain_init(struct pki_chain *chain, const struct pki_spec *leaf);
void pki_chain_done(struct pki_chain *chain);

/* No function leaves anything in OpenSSL's error queue; this fails when one did. */
void pki_assert_queue_empty(void);

#endif
