/*
 * renewal info: what is said between us and a CA about when to renew, RFC 9773. Pure.
 */
#ifndef CM_DOMAIN_RENEWAL_INFO_H
#define CM_DOMAIN_RENEWAL_INFO_H

#include "base/err.h"
#include "domain/renewal.h"

#include <openssl/x509.h>
#include <stddef.h>
#include <stdint.h>

/* The longest id is of a key identifier of 64 bytes and a serial number of 21. */
enum {
    RENEWAL_INFO_ID_SIZE = 128,
    RENEWAL_INFO_LINK_SIZE = 256,
    RENEWAL_INFO_MAX_BYTES = 16 * 1024,
};

struct renewal_info {
    struct renewal_window window; /* sound */
    char
        explanation[RENEWAL_INFO_LINK_SIZE]; /* a page for people, "" for none; no control
                                                 characters */
};

/*
 * §4.1: the certificate's name at its CA, from the key identifier of the issuer and the serial
 * number. "" when it has none, as one without that identifier.
 */
void renewal_info_id(const X509 *certificate, char ret[RENEWAL_INFO_ID_SIZE]);

/* §4.2: the body of an answer. ERR_PEER says what is wrong with it. */
int renewal_info_read(const char *json, struct renewal_info *ret, struct err *err);

/*
 * RFC 9110 §10.2.3: a number of seconds or a date, as seconds from `now` on; 0 for what is neither,
 * or over.
 */
int64_t renewal_info_retry_after(const char *value, int64_t now);

#endif
