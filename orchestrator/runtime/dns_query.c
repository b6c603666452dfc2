/*
 * c-ares says which sockets to watch and when to call it again; libuv does both.
 *
 * c-ares may answer from within any of its calls, and must not be destroyed from there: what it
 * answers is only noted, and go_on(), the last thing of every callback of libuv, ends the query. Works
 * with c-ares from 1.18 on; what 1.28 calls deprecated is all that the older ones have.
 */
#define CARES_NO_DEPRECATED
#include "runtime/dns_query.h"

#include <ares.h>
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

enum {
    CLASS_IN = 1,
    /* Of the first round of tries; each further one waits longer. */
    SERVER_TIMEOUT_MS = 1000,
    ROUNDS = 3,
};

struct watched {
    uv_poll_t handle;
    struct watched *next;
    struct dns_query *query;
    ares_socket_t fd;
};

/* ---- the end ---- */

/* The last thing that touches the query: `done` may free or restart it. */
static void handle_closed(struct dns_query *q)
{
    struct err err;

    if (--q->open_handles > 0)
        return;
    if (q->canceled)
        err_set(&q->err, ERR_CANCELED, "DNS query for %s: canceled", q->name);
    if (q->err.kind != ERR_NONE)
        buf_done(&q->answer);
    err = q->err;
    q->done(q->owner, err.kind == ERR_NONE ? NULL : &err);
}

static void on_timer_closed(void *owner)
{
    handle_closed(owner);
}

static void on_poll_closed(uv_handle_t *handle)
{
    struct watched *watched = handle->data;
    struct dns_query *q = watched->query;

    free(watched);
    handle_closed(q);
}

static void finish(struct dns_query *q)
{
    if (q->finished)
        return;
    q->finished = true;
    if (q->channel != NULL)
        ares_destroy(q->channel); /* closes its sockets, through on_ares_socket */
    q->channel = NULL;
    if (q->library)
        ares_library_cleanup();
    timer_close(&q->retry, on_timer_closed);
    timer_close(&q->deadline, on_timer_closed);
}

/* ---- what c-ares wants ---- */

static void go_on(struct dns_query *q)
{
    struct timeval wait;

    if (q->answered) {
        finish(q);
        return;
    }
    if (ares_timeout(q->channel, NULL, &wait) == NULL)
        return;
    timer_set(&q->retry,
              (uint64_t)wait.tv_sec * 1000 + ((uint64_t)wait.tv_usec + 999) / 1000);
}

static void on_poll(uv_poll_t *handle, int status, int events)
{
    const struct watched *watched = handle->data;
    struct dns_query *q = watched->query;
    ares_socket_t fd = watched->fd;
    /* An error of the socket is found by whoever uses it. */
    bool reads = status < 0 || (events & UV_READABLE) != 0;
    bool writes = status < 0 || (events & UV_WRITABLE) != 0;

    ares_process_fd(q->channel, reads ? fd : ARES_SOCKET_BAD,
                    writes ? fd : ARES_SOCKET_BAD);
    go_on(q);
}

static void on_retry(void *owner)
{
    struct dns_query *q = owner;

    ares_process_fd(q->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    go_on(q);
}

static void on_deadline(void *owner)
{
    struct dns_query *q = owner;

    q->timed_out = true;
    ares_cancel(q->channel);
    go_on(q);
}

/* A socket that cannot be watched is as one that says nothing: the time limit ends it. */
static void watch_socket(struct dns_query *q, ares_socket_t fd, int events)
{
    struct watched *watched = q->sockets;

    while (watched != NULL && watched->fd != fd)
        watched = watched->next;
    if (watched == NULL) {
        watched = calloc(1, sizeof *watched);
        if (watched == NULL)
            return;
        if (uv_poll_init(q->loop, &watched->handle, fd) != 0) {
            free(watched);
            return;
        }
        watched->handle.data = watched;
        watched->query = q;
        watched->fd = fd;
        watched->next = q->sockets;
        q->sockets = watched;
        q->open_handles++;
    }
    uv_poll_start(&watched->handle, events, on_poll);
}

static void unwatch_socket(struct dns_query *q, ares_socket_t fd)
{
    struct watched **link = &q->sockets;
    struct watched *watched;

    while (*link != NULL && (*link)->fd != fd)
        link = &(*link)->next;
    watched = *link;
    if (watched == NULL)
        return;
    *link = watched->next;
    uv_close((uv_handle_t *)&watched->handle, on_poll_closed);
}

/* Called before a socket is closed, too. */
static void on_ares_socket(void *data, ares_socket_t fd, int readable, int writable)
{
    struct dns_query *q = data;

    if (readable || writable)
        watch_socket(q, fd, (readable ? UV_READABLE : 0) | (writable ? UV_WRITABLE : 0));
    else
        unwatch_socket(q, fd);
}

static void on_ares_answer(void *arg, int status, int timeouts, unsigned char *message,
                           int len)
{
    struct dns_query *q = arg;

    (void)timeouts;
    q->answered = true;
    if (status == ARES_SUCCESS || status == ARES_ENODATA || status == ARES_ENOTFOUND) {
        if (message == NULL || len <= 0)
            err_set(&q->err, ERR_PEER, "DNS query for %s: an empty answer", q->name);
        else
            buf_append(&q->answer, message, (size_t)len, &q->err);
    } else if (q->timed_out || status == ARES_ETIMEOUT) {
        err_set(&q->err, ERR_TIMEOUT, "DNS query for %s: no answer within %u ms", q->name,
                q->timeout_ms);
    } else {
        err_set(&q->err, ERR_NET, "DNS query for %s: %s", q->name, ares_strerror(status));
    }
}

/* ---- the start ---- */

static int open_channel(struct dns_query *q, const char *servers)
{
    struct ares_options options = {
        .timeout = SERVER_TIMEOUT_MS,
        .tries = ROUNDS,
        .sock_state_cb = on_ares_socket,
        .sock_state_cb_data = q,
    };
    int status = ares_library_init(ARES_LIB_INIT_ALL);

    q->library = status == ARES_SUCCESS;
    if (status == ARES_SUCCESS)
        status = ares_init_options(&q->channel, &options,
                                   ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES |
                                       ARES_OPT_SOCK_STATE_CB);
    if (status == ARES_SUCCESS && servers != NULL)
        status = ares_set_servers_ports_csv(q->channel, servers);
    return status;
}

void dns_query_start(struct dns_query *query, uv_loop_t *loop,
                     const struct dns_query_request *request, done_fn done, void *owner)
{
    int status;

    *query = (struct dns_query){
        .loop = loop,
        .timeout_ms = request->timeout_ms,
        .open_handles = 2,
        .done = done,
        .owner = owner,
    };
    buf_init(&query->answer, DNS_MESSAGE_MAX_BYTES);
    snprintf(query->name, sizeof query->name, "%s", request->name);
    timer_init(&query->retry, loop, on_retry, query);
    timer_init(&query->deadline, loop, on_deadline, query);
    status = open_channel(query, request->servers);
    if (status != ARES_SUCCESS) {
        query->answered = true;
        err_set(&query->err, ERR_SYS, "c-ares cannot be used: %s", ares_strerror(status));
    } else {
        timer_set(&query->deadline, request->timeout_ms);
        ares_query(query->channel, query->name, CLASS_IN, request->type, on_ares_answer,
                   query);
    }
    go_on(query);
}

void dns_query_cancel(struct dns_query *query)
{
    if (query->done == NULL || query->canceled || query->finished)
        return;
    query->canceled = true;
    query->answered = true;
    /* Not here: a cancel may come from anywhere. */
    timer_set(&query->deadline, 0);
}

void dns_query_done(struct dns_query *query)
{
    buf_done(&query->answer);
}
