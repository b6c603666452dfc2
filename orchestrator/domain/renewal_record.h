/*
 * renewal record: what is known about the renewal of one leaf, kept across restarts as
 * <state>/renewal.json, and shown in the status. Pure.
 *
 * Others may write to the volume. Whatever stands in the record, renewal.h keeps it within bounds.
 */
#ifndef CM_DOMAIN_RENEWAL_RECORD_H
#define CM_DOMAIN_RENEWAL_RECORD_H

#include "base/buf.h"
#include "base/err.h"
#include "domain/renewal.h"
#include "domain/renewal_info.h"

#include <stdbool.h>
#include <stdint.h>

#define RENEWAL_RECORD "renewal.json"

enum { RENEWAL_LEAF_SIZE = 65, RENEWAL_DIRECTORY_SIZE = 1024 };

struct renewal_record {
    char leaf[RENEWAL_LEAF_SIZE]; /* SHA-256 of the DER in lower-case hex, "" for none */
    char directory
        [RENEWAL_DIRECTORY_SIZE]; /* of the CA that issued it, "" when not known */
    uint32_t spread;              /* see renewal_terms */
    bool shared;
    struct renewal_info info; /* zeroed until the CA has given any */
    int64_t asked_at;         /* when it answered last, 0: never */
    int64_t ask_at;           /* not before; 0: at once */
    unsigned failures;        /* to ask, in a row */
};

/*
 * The CA was asked. `info` NULL: it gives no such information. Retry-After in seconds, 0 when it
 * did not say.
 */
void renewal_record_note_answer(struct renewal_record *record,
                                const struct renewal_info *info, int64_t retry_after_s,
                                int64_t now, uint32_t random);

/* It did not answer, or with nonsense: what it said before still counts. */
void renewal_record_note_failure(struct renewal_record *record, bool lasting,
                                 int64_t retry_after_s, int64_t now, uint32_t random);

/* Appended to `ret`. */
int renewal_record_write(const struct renewal_record *record, struct buf *ret,
                         struct err *err);

/* ERR_CONFIG for what is no such JSON, or of another version; `ret` is zeroed then. */
int renewal_record_read(const char *json, struct renewal_record *ret, struct err *err);

#endif
