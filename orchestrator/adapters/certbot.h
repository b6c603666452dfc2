/*
 * certbot: one run of `certbot certonly --csr`, in folders made for it.
 *
 * certbot sees a CSR and the ACME account, never the TLS key. Its account store is seeded
 * with our account, and --account is always passed: without it certbot would silently
 * register another account when it cannot load this one. Its folders are made anew for
 * each run (an existing output file makes certbot fail after the certificate was issued),
 * lie on tmpfs because the account key is in them, and are removed afterwards. It runs as
 * an unprivileged user where that user exists and we may switch to it. Ownership and
 * order of calls: done.h.
 */
#ifndef CM_ADAPTERS_CERTBOT_H
#define CM_ADAPTERS_CERTBOT_H

#include "base/fs.h"
#include "domain/certbot_outcome.h"
#include "domain/config.h"
#include "runtime/process.h"
#include "runtime/seq.h"

#include <openssl/evp.h>
#include <stdbool.h>

/* Borrowed until done. */
struct certbot_request {
    uv_loop_t *loop;
    const struct config *config;
    EVP_PKEY *account_key;
    const char *account_url;
    const char *csr_pem;
};

struct certbot {
    /* Results, valid in done until certbot_done. */
    struct certbot_outcome outcome; /* when certbot ran to an end, good or bad */
    bool ran;                       /* outcome is valid */
    struct buf chain_pem;           /* full chain as certbot wrote it, when issued */

    /* Private. */
    struct certbot_request request;
    struct seq seq;
    struct process process;
    char folder[FS_PATH_MAX];
    uid_t uid;
    gid_t gid;
    bool change_user;
    done_fn done;
    void *owner;
};

/*
 * Success only when a chain was issued and read. Otherwise the error of the outcome
 * (certbot_outcome_err), ERR_TIMEOUT, ERR_CANCELED, or ERR_SYS when it could not be run.
 */
void certbot_start(struct certbot *certbot, const struct certbot_request *request,
                   done_fn done, void *owner);
void certbot_cancel(struct certbot *certbot);
void certbot_done(struct certbot *certbot);

/*
 * Make the folder that challenge files are put into, for certbot's user to write and
 * nginx to read. certbot would make and remove it itself; made beforehand it can be
 * watched.
 */
int certbot_make_challenge_folder(const struct config *config, struct err *err);

/* "<webroot>/.well-known/acme-challenge" into `ret` of FS_PATH_MAX bytes. */
int certbot_challenge_folder(const struct config *config, char *ret, struct err *err);

#endif
