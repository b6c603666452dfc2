/*
 * certbot_record: what lies beside a run of certbot, so that whoever starts after a crash
 * knows which process it is and what for. Pure: JSON text and structs.
 */
#ifndef CM_DOMAIN_CERTBOT_RECORD_H
#define CM_DOMAIN_CERTBOT_RECORD_H

#include "base/buf.h"
#include "base/err.h"
#include "domain/config.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Borrowed. */
struct certbot_purpose {
    const char *directory; /* of the CA */
    const struct config_list *names;
    const char *key; /* keys_id() of the TLS key */
};

struct certbot_record {
    pid_t pid;
    uint64_t started; /* with pid it names one process: runtime/orphan.h */
    int64_t begun;    /* Unix seconds */
    bool ours;        /* when read: it is for the given purpose */
};

enum { CERTBOT_RECORD_MAX_BYTES = 40 * 1024 };

/* Appended to `ret`. */
int certbot_record_write(const struct certbot_record *record,
                         const struct certbot_purpose *purpose, struct buf *ret,
                         struct err *err);

/* ERR_CONFIG for what is no such JSON; `ret` is zeroed then. */
int certbot_record_read(const struct buf *json, const struct certbot_purpose *purpose,
                        struct certbot_record *ret, struct err *err);

#endif
