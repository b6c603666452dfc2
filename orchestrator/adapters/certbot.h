/*
 * certbot: one run of `certbot certonly --csr`, in a folder made for it.
 *
 * certbot sees a CSR and the ACME account, never the TLS key. Its account store is seeded
 * with our account, and --account is always passed: without it certbot would silently
 * register another account when it cannot load this one. Its folder is made anew for each
 * run (an existing output file makes certbot fail after the certificate was issued), and
 * lies on tmpfs because the account key is in it. It runs as an unprivileged user where
 * that user exists and we may switch to it. Ownership and order of calls: done.h.
 *
 * When we are killed certbot goes on: its output is in files, and a record in the folder
 * says which process it is and what for. certbot_take_over finds it, so that what it has
 * ordered is not ordered again. For the same reason the folder stays after a success, without
 * the account, until certbot_discard: its chain must be safe before.
 */
#ifndef CM_ADAPTERS_CERTBOT_H
#define CM_ADAPTERS_CERTBOT_H

#include "base/fs.h"
#include "domain/certbot_outcome.h"
#include "domain/certbot_record.h"
#include "domain/config.h"
#include "runtime/orphan.h"
#include "runtime/process.h"
#include "runtime/seq.h"

#include <openssl/evp.h>
#include <stdbool.h>

enum certbot_left {
    CERTBOT_LEFT_NOTHING,
    CERTBOT_LEFT_JUNK, /* not ours, or without a record: nothing can be running in it */
    CERTBOT_LEFT_RUN,
    CERTBOT_LEFT_UNKNOWN, /* it cannot be looked at now */
};

/*
 * Borrowed until done. certbot_take_over needs no account and no CSR, and an authority only when no run
 * for any other one will do.
 */
struct certbot_request {
    uv_loop_t *loop;
    const struct config *config;
    const struct authority *authority;
    const char *key_id; /* keys_id() of the TLS key */
    EVP_PKEY *account_key;
    const char *account_url;
    const char *csr_pem;
    const char *profile; /* that the CA offers, or NULL */
    int64_t begun;       /* Unix seconds, what the record says */
};

struct certbot {
    /* Results, valid in done until certbot_done. */
    struct certbot_outcome outcome; /* when certbot ran to an end, good or bad */
    bool ran;                       /* outcome is valid */
    int64_t taken_over; /* when a run of an earlier life was begun that has ended; or 0 */
    /* Full chain as certbot wrote it, when issued; also when that was no longer wanted. */
    struct buf chain_pem;
    const struct authority *authority; /* that it was for */

    /* Private. */
    struct certbot_request request;
    struct seq seq;
    struct process process;
    uint64_t begun_ns; /* on uv_hrtime's clock */
    struct orphan orphan;
    char folder[FS_PATH_MAX]; /* "": none */
    uid_t uid;
    gid_t gid;
    bool change_user;
    struct err ended_by_us; /* kind ERR_NONE, or why certbot was not left to its end */
    int place;              /* where a run of an earlier life is looked for */
    char found[FS_PATH_MAX];
    struct certbot_record record; /* of what was found there */
    enum certbot_left left;
    done_fn done;
    void *owner;
};

/*
 * Success only when a chain was issued and read. Otherwise the error of the outcome
 * (certbot_outcome_err), ERR_TIMEOUT, ERR_CANCELED, or ERR_SYS when it could not be run.
 */
void certbot_start(struct certbot *certbot, const struct certbot_request *request,
                   done_fn done, void *owner);

/* Whether there is anything for it. */
bool certbot_has_left(const struct config *config);

/*
 * What runs of an earlier life left: one with the same purpose is waited for, within the
 * time limit, and ends as certbot_start would; any other is ended and removed. Success
 * without a chain: there is nothing of use, and nothing left.
 */
void certbot_take_over(struct certbot *certbot, const struct certbot_request *request,
                       done_fn done, void *owner);

void certbot_cancel(struct certbot *certbot);

/* After done: remove the folder and chain_pem, once the chain is safe or of no use. */
void certbot_discard(struct certbot *certbot);
void certbot_done(struct certbot *certbot);

/*
 * At the start: remove what certbot_take_over would have no use for, without waiting. That is
 * what has no record, and a run that has ended with a chain of one of those leaves (hex
 * SHA-256 of their DER), which is safe elsewhere. True when something is left for it.
 */
bool certbot_clean_up(const struct config *config, const char *const *leaves,
                      size_t leaf_count);

/*
 * Make the folder that challenge files are put into, for certbot's user to write and
 * nginx to read. certbot would make and remove it itself; made beforehand it can be
 * watched.
 */
int certbot_make_challenge_folder(const struct config *config, struct err *err);

/* "<webroot>/.well-known/acme-challenge" into `ret` of FS_PATH_MAX bytes. */
int certbot_challenge_folder(const struct config *config, char *ret, struct err *err);

#endif
