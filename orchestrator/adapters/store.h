/*
 * store: the pair cert.pem and key.pem in the TLS folder, and our state beside it in
 * `<tls dir>/.cert-manager/` (0700), on the one volume that deployments keep.
 *
 * Two files cannot be replaced in one step, and nginx opens them separately. So a new
 * pair is staged in the state folder first. A renewal, where the key stays, then renames
 * only the chain. When the key changes too, an intent file is written (and synced) before
 * the two renames, in either direction; whoever finds it finishes them: the daemon at start,
 * and `cert-manager prestart` before it becomes nginx. Both work under one lock in run_dir,
 * so a starting nginx never sees a pair that does not match. All calls block for as long as the disk
 * does.
 */
#ifndef CM_ADAPTERS_STORE_H
#define CM_ADAPTERS_STORE_H

#include "base/buf.h"
#include "base/err.h"
#include "base/fs.h"
#include "base/secret.h"
#include "domain/config.h"

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#define STORE_LEDGER "ledger.json" /* its name in the state folder; ledger_file.h */

struct store {
    char folder[FS_PATH_MAX]; /* the TLS folder */
    char chain[FS_PATH_MAX];  /* cert.pem: full chain, leaf first, 0644 */
    char key[FS_PATH_MAX];    /* key.pem: PKCS#8 PEM, 0600 */
    char state[FS_PATH_MAX];
    char staged_chain[FS_PATH_MAX];
    char staged_key[FS_PATH_MAX];
    char previous_chain
        [FS_PATH_MAX]; /* what is live, or is to be again, while there is an intent */
    char previous_key[FS_PATH_MAX]; /* only when the key changes, too */
    char intent[FS_PATH_MAX];
    char lock[FS_PATH_MAX]; /* in run_dir: it must work when the volume is read-only */
};

/* Only computes paths. */
int store_init(struct store *store, const struct config *config, struct err *err);

/*
 * Folders made and proven writable, by writing. ERR_SYS names what is wrong; until it
 * succeeds nothing may be ordered from a CA, because the result could not be kept.
 */
int store_check_writable(const struct store *store, struct err *err);

/*
 * The state folder becomes ours; what is no file in it is put aside, and what a kill in the middle of
 * writing a file has left is removed. Failures are logged.
 */
void store_clean_up(const struct store *store, time_t now);

/*
 * A key.pem with a key that others can read or change is written again, 0600 and ours, and a warning says
 * what it was. One that `is_external` stays as somebody else has put it, and there is the warning alone.
 */
void store_guard_key(const struct store *store, bool is_external);

/* When one of cert.pem and key.pem was changed last, as fs_changed_ns has it. */
int64_t store_changed_ns(const struct store *store);

/*
 * What is there; a missing file leaves an empty buffer or NULL. Other failures are
 * errors.
 */
int store_load_chain(const struct store *store, struct buf *ret, struct err *err);
int store_load_key(const struct store *store, struct secret **ret, struct err *err);

/* The chain that an earlier run has staged and not promoted, or an empty buffer. */
int store_load_staged_chain(const struct store *store, struct buf *ret, struct err *err);

/* Its key: that of the live pair when it has none of its own; NULL when there is neither. */
int store_load_staged_key(const struct store *store, struct secret **ret,
                          struct err *err);

/*
 * Move the pair into a folder of its own below the state folder, with the reason in a
 * file.
 */
int store_set_aside(const struct store *store, const char *reason, int64_t now,
                    struct err *err);

/* Write the new pair beside the live one. `key_pem` NULL: the key stays as it is. */
int store_stage(const struct store *store, const struct buf *chain_pem,
                const struct secret *key_pem, struct err *err);

/*
 * Keep a copy of what is about to be replaced, or is to be put back. `key_pem` NULL: the key stays as
 * it is.
 */
int store_keep_previous(const struct store *store, const struct buf *chain_pem,
                        const struct secret *key_pem, struct err *err);
int store_forget_previous(const struct store *store, struct err *err);

/* The chain kept by store_keep_previous, or an empty buffer. */
int store_load_previous_chain(const struct store *store, struct buf *ret,
                              struct err *err);

/*
 * The staged pair becomes the live one; all or (after a crash, through the intent) all.
 */
int store_promote(const struct store *store, struct err *err);

/* The previous pair becomes the live one again, in the same way. What is staged stays. */
int store_put_back(const struct store *store, struct err *err);

/*
 * The same, and the chain that was live is staged: it was obtained, and can be tried again. Where
 * there is no room for it, that is logged.
 */
int store_go_back(const struct store *store, struct err *err);

/*
 * The staged chain becomes the live one at once, the key stays as it is. store_sync makes it
 * durable: a power cut before that may bring the former chain back.
 */
int store_promote_chain(const struct store *store, struct err *err);
int store_sync(const struct store *store, struct err *err);

/* Finish a promotion that was cut off. *ret_finished says whether there was one. */
int store_finish_promotion(const struct store *store, bool *ret_finished,
                           struct err *err);

/*
 * Small values in the state folder: JSON text, at most 64 KiB, mode 0600. Missing:
 * empty buffer.
 */
int store_read_state(const struct store *store, const char *name, struct buf *ret,
                     struct err *err);

/* The same for one that may be larger. */
int store_read_large_state(const struct store *store, const char *name, size_t max,
                           struct buf *ret, struct err *err);
int store_write_state(const struct store *store, const char *name, const char *text,
                      struct err *err);
int store_remove_state(const struct store *store, const char *name, struct err *err);

/* One that is damaged is kept as "<name>.damaged". */
int store_set_state_aside(const struct store *store, const char *name, struct err *err);

#endif
