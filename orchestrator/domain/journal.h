/*
 * journal: what the program writes down about a certificate on its way in, so that whoever starts
 * after a crash knows what was meant and what was measured. Pure: JSON text and structs.
 *
 * The intent exists from just before a leaf is measured until it is served, or the one before is
 * back. The record says what holds; it stands in for the event log of agents that show none, and
 * counts only within the boot in which it was written.
 */
#ifndef CM_DOMAIN_JOURNAL_H
#define CM_DOMAIN_JOURNAL_H

#include "base/buf.h"
#include "base/err.h"

#define JOURNAL_INTENT "intent.json"
#define JOURNAL_RECORD "applied.json"

enum { JOURNAL_LEAF_SIZE = 65, JOURNAL_BOOT_SIZE = 40 };

enum journal_way {
    JOURNAL_FORWARD, /* `leaf` is to be served */
    JOURNAL_BACK,    /* `previous` is to be served again */
};

struct journal_intent {
    enum journal_way way;
    char leaf[JOURNAL_LEAF_SIZE];     /* hex SHA-256 of the DER */
    char previous[JOURNAL_LEAF_SIZE]; /* "" for none */
};

struct journal_record {
    char leaf[JOURNAL_LEAF_SIZE]; /* served last */
    char event
        [JOURNAL_LEAF_SIZE]; /* named by the last event that we emitted, "" for none */
    char boot[JOURNAL_BOOT_SIZE]; /* boot id (random(4)) in which that was */
};

/* Appended to `ret`. */
int journal_intent_write(const struct journal_intent *intent, struct buf *ret,
                         struct err *err);
int journal_record_write(const struct journal_record *record, struct buf *ret,
                         struct err *err);

/* ERR_CONFIG for what is no such JSON, or of another version; `ret` is zeroed then. */
int journal_intent_read(const char *json, struct journal_intent *ret, struct err *err);
int journal_record_read(const char *json, struct journal_record *ret, struct err *err);

/* The leaf that the intent wants to be served. */
const char *journal_wanted(const struct journal_intent *intent);

#endif
