/*
 * lookup: the addresses of a host name, asked as the rest of the system asks
 * (uv_getaddrinfo: /etc/hosts, search list, DNS).
 *
 * getaddrinfo(3) cannot be interrupted: a canceled look-up that is already in the
 * resolver ends when the resolver gives up. Ownership and order of calls: done.h.
 */
#ifndef CM_RUNTIME_LOOKUP_H
#define CM_RUNTIME_LOOKUP_H

#include "runtime/done.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

enum { LOOKUP_ADDRESSES_MAX = 64 };

struct lookup {
    /* Result: addresses as text, in the resolver's order; further ones are left out. */
    char addresses[LOOKUP_ADDRESSES_MAX][INET6_ADDRSTRLEN];
    size_t count;

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

/* What was found, for messages: "192.0.2.1, 2001:db8::1"; those that find no room are left out. */
void lookup_list(const struct lookup *lookup, char *ret, size_t size);

#endif
