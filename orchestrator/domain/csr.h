/*
 * csr: the certificate signing request for one domain, and for more names beside it. Pure.
 *
 * Subject: common name = domain, the first name; one subjectAltName DNS for each name; ECDSA with
 * SHA-256. A domain longer than 64 characters (the limit of a common name, RFC 5280 A.1 ub-common-name) has an
 * empty subject and a critical subjectAltName (RFC 5280 §4.2.1.6). Equal inputs give an equal
 * to-be-signed part, bit by bit what the Python service made; the signature is random.
 */
#ifndef CM_DOMAIN_CSR_H
#define CM_DOMAIN_CSR_H

#include "base/buf.h"
#include "base/err.h"
#include "domain/config.h"

#include <openssl/evp.h>

enum { CSR_MAX_BYTES = 64 * 1024 };

/* `names` are config.domains. PEM into `ret`, an initialised buffer. */
int csr_build(EVP_PKEY *key, const struct config_list *names, struct buf *ret,
              struct err *err);

#endif
