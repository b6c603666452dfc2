/*
 * selfsigned: the certificate of development mode. Pure but for a random serial.
 *
 * Subject = issuer = O "Concrete Security", CN the domain (left out when longer than 64
 * characters); subjectAltName the domain, "*." the domain, the other names, "localhost", each once;
 * 365 days from `now`; ECDSA with SHA-256; a positive random serial of 159 bits at most.
 */
#ifndef CM_DOMAIN_SELFSIGNED_H
#define CM_DOMAIN_SELFSIGNED_H

#include "base/buf.h"
#include "base/err.h"
#include "domain/config.h"

#include <openssl/evp.h>
#include <stdint.h>

/*
 * `names` are config.domains, the domain first; `now` in Unix seconds. PEM into `ret`, an
 * initialised buffer.
 */
int selfsigned_build(EVP_PKEY *key, const struct config_list *names, int64_t now,
                     struct buf *ret, struct err *err);

#endif
