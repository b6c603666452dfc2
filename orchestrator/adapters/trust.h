/*
 * trust: the roots that a chain from the network is verified up to.
 */
#ifndef CM_ADAPTERS_TRUST_H
#define CM_ADAPTERS_TRUST_H

#include "base/err.h"

#include <openssl/types.h>

/*
 * The certificates of a PEM file of at most 1 MiB; `path` NULL: those in OpenSSL's folder
 * (/etc/ssl/certs, or what SSL_CERT_DIR says), each of which is read when it is needed. Released with
 * X509_STORE_free.
 */
int trust_load(const char *path, X509_STORE **ret, struct err *err);

#endif
