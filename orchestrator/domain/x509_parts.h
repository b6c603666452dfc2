/*
 * x509 parts: what a signing request and a self-signed certificate are both made of. Pure.
 * The bool functions leave the reason of a failure in OpenSSL's error queue.
 */
#ifndef CM_DOMAIN_X509_PARTS_H
#define CM_DOMAIN_X509_PARTS_H

#include "base/buf.h"
#include "base/err.h"
#include "domain/config.h"

#include <openssl/bio.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdbool.h>

enum { X509_COMMON_NAME_MAX_BYTES = 64 }; /* RFC 5280 A.1, ub-common-name */

/* One attribute of a subject, as UTF8String, which is what the Python service made. */
bool x509_add_name_entry(X509_NAME *name, int nid, const char *text);

/* A dNSName of a subjectAltName; it, and those of a list from the index `first` on. */
bool x509_add_dns_name(GENERAL_NAMES *names, const char *dns_name);
bool x509_add_dns_names(GENERAL_NAMES *names, const struct config_list *dns_names,
                        size_t first);

/* What was written to a memory BIO, appended to an initialised buffer. */
int x509_append_written(BIO *bio, struct buf *ret, struct err *err);

#endif
