/*
 * account: our ACME account at a CA, and the memory of the accounts at several. Pure.
 *
 * The memory lies on a volume that others may write to, and people copy the CAA record that is
 * made of it into their DNS: each entry is sealed with the TLS key, and one that was not written
 * by us counts as none.
 */
#ifndef CM_DOMAIN_ACCOUNT_H
#define CM_DOMAIN_ACCOUNT_H

#include "base/buf.h"
#include "base/err.h"

#include <openssl/evp.h>
#include <stdbool.h>
#include <stddef.h>

enum { ACCOUNT_URL_SIZE = 1024, ACCOUNT_IDENTITY_SIZE = 256, ACCOUNT_CAA_SIZE = 2048 };

struct account {
    char url[ACCOUNT_URL_SIZE]; /* "" for unknown */
    char caa_identity
        [ACCOUNT_IDENTITY_SIZE]; /* the CA's name in CAA records, "" for unknown */
    bool deactivated;            /* at the CA: another key is needed */
};

/* Whose account it is, and where. Borrowed. */
struct account_owner {
    const char *directory;
    const char *version;    /* acme.account_version */
    const char *thumbprint; /* of the account key; NULL to find it by the others alone */
    const EVP_PKEY *seal_key;
};

enum { ACCOUNT_MEMORY_MAX_BYTES = 64 * 1024 };

enum account_memory {
    ACCOUNT_REMEMBERED,
    ACCOUNT_NOT_REMEMBERED,
    ACCOUNT_MEMORY_DAMAGED
};

/* `json` is what account_note() made. Unless it is remembered `ret` is zeroed. */
enum account_memory account_find(const char *json, const struct account_owner *owner,
                                 struct account *ret);

/* `json` (damaged: as if it were empty) with this account in it, appended to `ret`. */
int account_note(const char *json, const struct account_owner *owner,
                 const struct account *account, struct buf *ret, struct err *err);

/*
 * The record that lets this account alone have certificates for the domain, in the form of a
 * zone file (RFC 8659, RFC 8657): 'app.example.org. CAA 0 issue "ca.example.net; …"'. "" when
 * the CA's name is not known.
 */
const char *account_caa_record(const struct account *account, const char *domain,
                               char ret[ACCOUNT_CAA_SIZE]);

#endif
