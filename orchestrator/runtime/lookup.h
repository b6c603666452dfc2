/*
 * lookup: does a host name resolve, asked as the rest of the system asks
 * (uv_getaddrinfo).
 *
 * getaddrinfo(3) cannot be interrupted: a canceled look-up that is already in the
 * resolver ends when the resolver gives up. Ownership and order of calls: done.h.
 */
#ifndef CM_RUNTIME_LOOKUP_H
#define CM_RUNTIME_LOOKUP_H

#include "runtime/done.h"

#include <stdbool.h>
#include <uv.h>

struct lookup {
    char address[64]; /* result: the first address, as text */

    /* Private. */
    char host[256];
    uv_getaddrinfo_t request;
    uv_timer_t defer; /* brings a failed start to done */
    done_fn done;     /* NULL while it is not running */
    void *owner;
    int start_error;
    bool canceled;
};

/* ERR_NET when it does not resolve; the message names the host and the resolver's reason.
 * `host` is copied. */
void lookup_start(struct lookup *lookup, uv_loop_t *loop, const char *host, done_fn done,
                  void *owner);
void lookup_cancel(struct lookup *lookup);

#endif
