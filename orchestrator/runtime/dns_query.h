/*
 * dns_query: one question to the DNS, asked through c-ares of the servers in /etc/resolv.conf.
 *
 * For records that getaddrinfo(3) does not know; addresses are runtime/lookup's business. A server
 * that refuses or is silent is followed by the next one; a name that does not exist is an answer.
 * Ownership and order of calls: done.h.
 */
#ifndef CM_RUNTIME_DNS_QUERY_H
#define CM_RUNTIME_DNS_QUERY_H

#include "base/buf.h"
#include "runtime/done.h"
#include "runtime/timer.h"

#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

enum { DNS_MESSAGE_MAX_BYTES = 64 * 1024 };

/* Borrowed until dns_query_start returns. */
struct dns_query_request {
    const char *name;    /* in full, without search list */
    int type;            /* number of the record type */
    const char *servers; /* "address:port", with commas between; NULL: the machine's */
    unsigned timeout_ms; /* for all tries together */
};

struct dns_query {
    /* Result: the whole message of the answer. Valid in done, until dns_query_done. */
    struct buf answer;

    /* Private. */
    uv_loop_t *loop;
    struct ares_channeldata *channel;
    bool library;            /* c-ares is set up */
    struct watched *sockets; /* of c-ares, that are polled */
    struct timer retry;      /* when c-ares wants to be called again */
    struct timer deadline;
    size_t open_handles;
    unsigned timeout_ms;
    char name[256];
    bool answered;
    bool finished;
    bool canceled;
    bool timed_out;
    struct err err;
    done_fn done;
    void *owner;
};

/* ERR_NET: no server answered, or each refused; ERR_TIMEOUT. The message names what was asked for. */
void dns_query_start(struct dns_query *query, uv_loop_t *loop,
                     const struct dns_query_request *request, done_fn done, void *owner);
void dns_query_cancel(struct dns_query *query);
void dns_query_done(struct dns_query *query); /* frees the answer; accepts a zeroed one */

#endif
