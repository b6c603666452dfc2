/*
 * ledger: every order and every failure at a CA, and whether it may be asked again. Pure: the time
 * is an argument.
 *
 * A CA counts by directory, account and names, and so does this. What it allows is a bucket of
 * permits that refill one by one, which is how Let's Encrypt counts, too: nothing is ever kept
 * "until the week is over". Where it is not known what became of an order, it counts as all that it
 * may have been; a try that came to nothing also has a time before which it is not repeated.
 *
 * Clocks are wrong now and then. An entry from the future counts as made when it was first seen to
 * be from there, until the clock has passed its time: neither forgotten nor waited for for ever.
 */
#ifndef CM_DOMAIN_LEDGER_H
#define CM_DOMAIN_LEDGER_H

#include "base/buf.h"
#include "base/err.h"
#include "domain/config.h"
#include "domain/ledger_outcome.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    LEDGER_SUBJECTS_MAX = 64,
    LEDGER_ENTRIES_MAX = 200 * 1000,
    LEDGER_KEPT_MAX = 100 * 1000,  /* the newest; no known limit leads to as many */
    LEDGER_NAMES_SIZE = 32 * 1024, /* 100 names of 253 bytes */
    LEDGER_MAX_BYTES = 32 * 1024 * 1024,
};

/* What orders are told apart by. Borrowed. */
struct ledger_subject {
    const char *directory; /* URL */
    const char *names;     /* as ledger_names() writes them */
    const char *account;   /* whatever tells our accounts at one CA apart */
};

struct ledger_entry {
    int64_t at;       /* Unix seconds, when it began; with its subject it is unique */
    int64_t seen;     /* when it was seen to be from the future; 0: it never was */
    int64_t wait_s;   /* not to be repeated for so long since then */
    uint32_t context; /* see ledger_question */
    unsigned short subject; /* index in ledger.subjects */
    unsigned short outcome; /* enum ledger_outcome */
};

/* Released with ledger_done; zeroed it is an empty one. */
struct ledger {
    struct ledger_entry *entries; /* in the order in which they were made */
    size_t count;
    size_t capacity;
    struct {
        char *directory;
        char *names;
        char *account;
    } subjects[LEDGER_SUBJECTS_MAX];
    size_t subject_count;
    /* What was before is lost: then of each limit all permits but one were used. 0: nothing is. */
    int64_t unknown_before;
};

void ledger_done(struct ledger *ledger);

/* Names in the one order and form that make equal sets equal texts, into `ret`. */
int ledger_names(const char *const *names, size_t count, struct buf *ret,
                 struct err *err);

/* ---- what happens ---- */

/* A try begins. *ret_at names it from now on. */
int ledger_begin(struct ledger *ledger, const struct ledger_subject *subject, int64_t now,
                 int64_t *ret_at, struct err *err);

/*
 * How it ended: outcome, context, and a wait_s that counts from `now`. One that is not known, say because
 * the ledger was lost, is entered as it is.
 */
int ledger_end(struct ledger *ledger, const struct ledger_subject *subject, int64_t at,
               const struct ledger_entry *result, int64_t now, struct err *err);

/* It came to nothing before anything was asked for. */
void ledger_withdraw(struct ledger *ledger, const struct ledger_subject *subject,
                     int64_t at);

/* Tries whose end nobody will ever know: how many became LEDGER_DOUBTFUL. */
size_t ledger_give_up_pending(struct ledger *ledger, const struct ledger_subject *subject,
                              int64_t wait_s);

/* Entries that were found to be from the future: how many there are of them that were not known. */
size_t ledger_mind_clock(struct ledger *ledger, int64_t now);

/* Forgets what no limit and no waiting time looks at any more. */
void ledger_prune(struct ledger *ledger, const struct config *config, int64_t now);

/* How often it came to that since the last certificate. */
unsigned ledger_row(const struct ledger *ledger, const struct ledger_subject *subject,
                    enum ledger_outcome outcome);

/* ---- its text ---- */

/* Appended to `ret`: JSON. */
int ledger_write(const struct ledger *ledger, struct buf *ret, struct err *err);

/* ERR_CONFIG for what is no such JSON, or of another version; `ret` is empty then. */
int ledger_read(const struct buf *json, struct ledger *ret, struct err *err);

#endif
