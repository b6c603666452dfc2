/*
 * certbot_version: whether certbot can be run at all, found out by what it answers to --version.
 * That takes half a second, so the answer is remembered as long as the program stays the same.
 * Ownership and order of calls: done.h.
 */
#ifndef CM_ADAPTERS_CERTBOT_VERSION_H
#define CM_ADAPTERS_CERTBOT_VERSION_H

#include "domain/config.h"
#include "runtime/process.h"

#include <stdbool.h>
#include <sys/stat.h>

struct certbot_version {
    /* Results, valid from done on, as long as it is not started again. */
    char text[128]; /* "certbot 5.8.0" */
    struct err why; /* ERR_NONE, or why it cannot be run: the error that done gets */

    /* Private. */
    const struct config *config;
    struct stat program; /* as it was when it was asked */
    bool answered;
    bool running;
    struct process process;
    done_fn done;
    void *owner;
};

/* ERR_SYS, ERR_TIMEOUT, or ERR_CONFIG with its own words when it ends with an error. */
void certbot_version_start(struct certbot_version *version, uv_loop_t *loop,
                           const struct config *config, done_fn done, void *owner);
void certbot_version_cancel(
    struct certbot_version *version); /* accepts a zeroed struct */

/* Between the start and done. */
bool certbot_version_is_asked(const struct certbot_version *version);

/* Whether it has answered well, and still is the same program. */
bool certbot_version_holds(const struct certbot_version *version);

#endif
