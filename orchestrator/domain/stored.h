/*
 * stored: what becomes of the pair that lies in the TLS folder at start. Pure.
 *
 * The folder is a volume that others can write: only a leaf for the derived key is ever
 * measured or served, so that a hostile volume cannot get a key of its own attested.
 */
#ifndef CM_DOMAIN_STORED_H
#define CM_DOMAIN_STORED_H

#include "domain/chain.h"

#include <openssl/evp.h>
#include <stdbool.h>
#include <stdint.h>

enum stored_verdict {
    STORED_SERVE,  /* measure and serve it, now */
    STORED_OBTAIN, /* leave it where it is and obtain a new one: nothing there, or expired
                    */
    STORED_SET_ASIDE, /* move it away, keep it, and obtain a new one */
    STORED_UNKNOWN,   /* there is no memory to judge it: try again */
};

struct stored_pair {
    bool present;       /* there is a chain or a key */
    const char *damage; /* why the pair could not be read or parsed, NULL when it could */
    const struct chain *chain; /* NULL when missing or damaged */
    const EVP_PKEY *key;       /* NULL when missing or damaged */
};

struct stored_rules {
    const struct config_list *domains; /* the leaf has to cover the first of them */
    bool development;
    bool production; /* neither development nor staging: a staging leaf is set aside */
    const EVP_PKEY
        *derived;      /* NULL: any key that belongs to the leaf (tls.key: external) */
    bool force_rm;     /* FORCE_RM_CERT_FILES */
    int64_t forced_at; /* when that acted last, Unix seconds; 0 never */
};

enum { STORED_REASON_SIZE = 512, STORED_FORCE_PERIOD_S = 24 * 3600 };

/*
 * `ret_reason` says why, for log and status. A leaf that lacks another name than the first is served
 * until one is there that has them all.
 */
enum stored_verdict stored_judge(const struct stored_pair *pair,
                                 const struct stored_rules *rules, int64_t now,
                                 char ret_reason[STORED_REASON_SIZE]);

/*
 * Whether force_rm acts at `now`: at most once in STORED_FORCE_PERIOD_S, also across
 * restarts.
 */
bool stored_force_acts(const struct stored_rules *rules, int64_t now);

#endif
