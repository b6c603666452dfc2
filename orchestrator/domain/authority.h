/*
 * authority: a CA that certificates can be ordered from, and what is known about it without
 * asking it. Pure.
 *
 * There is a main one, and those that are asked when it cannot or will not help. The account
 * key is the same everywhere, and thus each has an account of its own for it.
 */
#ifndef CM_DOMAIN_AUTHORITY_H
#define CM_DOMAIN_AUTHORITY_H

#include <stdbool.h>
#include <stddef.h>

/* Let's Encrypt's directories. */
#define AUTHORITY_PRODUCTION "https://acme-v02.api.letsencrypt.org/directory"
#define AUTHORITY_STAGING "https://acme-staging-v02.api.letsencrypt.org/directory"

enum { AUTHORITIES_MAX = 8 };

/* Owned by the configuration. */
struct authority {
    char *directory; /* URL, never NULL once the configuration is loaded */
    char *ca_bundle; /* PEM file that verifies the connection, or NULL: the system's */
    char *profile;   /* of the certificates, by the CA's own name, or NULL */
    char *preferred_chain; /* common name of the issuer that it is to end at, or NULL */
    char *eab_key_id; /* external account binding (RFC 8555 §7.3.4); NULL with the next */
    char *eab_key_file; /* base64url of its HMAC key */
    const char *proxy;  /* that it is reached through, or NULL; borrowed, with the next */
    const char *no_proxy; /* hosts that are reached without it */
    size_t line;          /* in the file, from 1; 0 for the main one */
    size_t column;
};

struct authorities {
    size_t count; /* at least 1 once the configuration is loaded */
    struct authority items[AUTHORITIES_MAX]; /* 0 is the main one */
};

/* Whether its limits are known and failures counted: production and staging alike. */
bool authority_is_lets_encrypt(const struct authority *authority);

/* Let's Encrypt's staging, whose certificates nobody trusts. */
bool authority_is_staging(const struct authority *authority);

/*
 * The domain name that it goes by in CAA records (RFC 8659 §4.2), or NULL: its directory may have
 * that.
 */
const char *authority_caa_identity(const struct authority *authority);

#endif
