/*
 * chain search: what do a few places present that may serve the same name? Each address of each is
 * asked by a handshake, all at the same time, until the owner has what it looks for or the time is up.
 *
 * A balancer in front of several servers may lead to any of them: a place that presents something else,
 * or closes the connection, is asked a few times. Ownership and order of calls: done.h. A resolver
 * cannot be interrupted: what it has not answered when the time is up ends by itself, and the loop does
 * not end before.
 */
#ifndef CM_ADAPTERS_CHAIN_SEARCH_H
#define CM_ADAPTERS_CHAIN_SEARCH_H

#include "base/buf.h"
#include "base/err.h"
#include "domain/host_port.h"
#include "runtime/done.h"
#include "runtime/timer.h"

#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

enum { CHAIN_SEARCH_ADDRESSES_MAX = 64, CHAIN_SEARCH_TRIES = 8 };

struct chain_search_place {
    struct host_port at;
    bool proxy_protocol; /* it expects the PROXY protocol's header first */
};

struct chain_search_request {
    uv_loop_t *loop;
    const struct chain_search_place
        *places; /* borrowed until chain_search_start returns */
    size_t place_count;
    const char *server_name; /* borrowed until done, goes into SNI */
    unsigned timeout_ms;     /* for all of it */
    /* `where` presents that chain, in PEM. True: the search is over. */
    bool (*is_it)(void *owner, const char *where, const struct buf *chain_pem);
};

struct chain_search_name;
struct chain_search_probe;

struct chain_search {
    /* Private. */
    struct chain_search_request request;
    struct timer timer;
    struct chain_search_name *names; /* that the resolver has not answered yet */
    struct chain_search_probe *probes;
    size_t addresses;
    size_t open; /* look-ups and probes that have not ended */
    bool running;
    bool over; /* only ends are waited for */
    bool closing;
    struct err err;
    done_fn done;
    void *owner; /* of is_it and done */
};

/* That nothing was found is no error: ERR_CANCELED, or ERR_SYS without memory. */
void chain_search_start(struct chain_search *search,
                        const struct chain_search_request *request, done_fn done,
                        void *owner);
void chain_search_cancel(struct chain_search *search);

#endif
