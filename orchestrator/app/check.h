/*
 * check: what `cert-manager check` looks at, in rows of verdicts. Nothing that runs is disturbed, and
 * nothing is written but below a temporary folder, which is removed again.
 *
 * cmd_check.c (the command, the settings), check_files.c (this machine's clock, folders and files),
 * check_nginx.c (templates, `nginx -t`, ports) and check_others.c (guest agent, certbot, CAs, DNS).
 */
#ifndef CM_APP_CHECK_H
#define CM_APP_CHECK_H

#include "app/inquiry.h"
#include "app/verdicts.h"
#include "domain/config.h"

#include <openssl/evp.h>
#include <stdbool.h>
#include <sys/stat.h>

struct check {
    const struct config *config;
    bool offline; /* neither agent, CA nor DNS is asked */
    struct verdicts *verdicts;
    char measured[65]; /* by the last certificate event, "" when none is seen */
    bool hangs;        /* a look-up is in the resolver still: end by _exit(2) */
};

/* ---- check_files.c ---- */

void check_files(struct check *check);

/* Whether somebody else than root and we owns it, or its mode lets others than root's group write. */
bool check_others_can_write(const struct stat *status);

/* The pair in tls.dir; `tls_key` is NULL when the agent did not give it. */
void check_pair(struct check *check, const EVP_PKEY *tls_key);

/* ---- check_nginx.c ---- */

void check_nginx(struct check *check);

/* ---- check_others.c ---- */

/* And the pair, which is judged by the agent's key. */
void check_others(struct check *check);

#endif
