/*
 * csr: the certificate signing request for one domain. Pure.
 *
 * Subject: common name = domain; one subjectAltName DNS = domain; ECDSA with SHA-256. A domain
 * longer than 64 characters (the limit of a common name, RFC 5280 A.1 ub-common-name) has an
 * empty subject and a critical subjectAltName (RFC 5280 §4.2.1.6). Equal inputs give an equal
 * to-be-signed part, bit by bit what the Python service made; the signature is random.
 */
#ifndef CM_DOMAIN_CSR_H
#define CM_DOMAIN_CSR_H

#include "base/buf.h"
#include "base/err.h"

#include <openssl/evp.h>

/* PEM into `ret`, an initialised buffer. */
int csr_build(EVP_PKEY *key, const char *domain, struct buf *ret, struct err *err);

#endif
