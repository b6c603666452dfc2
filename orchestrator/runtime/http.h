/*
 * http: HTTP calls over TCP, TLS or a unix socket; libcurl's multi interface on libuv.
 *
 * Redirects are not followed, nothing is retried, a proxy is used only where http_request
 * names one. An answer with any status is a success here; what it means is the caller's
 * matter. Memory of libcurl is wiped when freed (secret.h). Ownership and order of calls:
 * done.h.
 */
#ifndef CM_RUNTIME_HTTP_H
#define CM_RUNTIME_HTTP_H

#include "base/buf.h"
#include "base/err.h"
#include "runtime/done.h"

#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

/* Once per process, before the first http_new and before other threads. */
int http_setup(struct err *err);

struct http; /* one per loop: connections and their reuse */

struct http *http_new(uv_loop_t *loop, struct err *err);

/* http_setup(), a loop, and http_new() on it. After a failure there is nothing to close. */
struct http *http_new_loop(uv_loop_t *ret_loop, struct err *err);

/* No call may be running. `closed` (may be NULL) comes in a later round of the loop;
 * `http` is freed. */
void http_close(struct http *http, void (*closed)(void *owner), void *owner);

/*
 * Strings and body are borrowed until done; the struct itself until http_start returns.
 */
struct http_request {
    const char *method; /* "GET", "HEAD", "POST" */
    const char *url;
    const char *unix_socket;    /* path, or NULL for TCP */
    const char *const *headers; /* "Name: value", ends with NULL; may be NULL */
    const void *body;           /* NULL for none */
    size_t body_len;
    const char *ca_bundle; /* PEM file of trusted roots, NULL for the system's */
    const char *proxy;     /* "http://host:port", or NULL for none */
    const char *no_proxy;  /* hosts that are reached without it, separated by commas */
    size_t max_body;       /* a longer answer fails with ERR_PEER */
    unsigned timeout_ms;   /* for the whole call */
    bool proxy_protocol;   /* the connection begins with the PROXY protocol's header */
};

struct http_call {
    /* Results, valid in done when err is NULL, until http_call_done. */
    int status; /* 200, 404, … */
    struct buf body;
    struct buf headers; /* raw lines of the last response */

    /* Private. */
    struct http *http;
    void *transfer;
};

/*
 * ERR_NET: not reached (no socket, refused, name, TLS; the message says which and names
 * the URL or socket). ERR_PEER: not HTTP, cut short, too long. ERR_TIMEOUT. ERR_CANCELED.
 * err->code is the errno of a failed connect where libcurl knows it.
 */
void http_start(struct http_call *call, struct http *http,
                const struct http_request *request, done_fn done, void *owner);
void http_cancel(struct http_call *call);
void http_call_done(
    struct http_call *call); /* frees the answer; accepts a zeroed struct */

/*
 * Value of the first such header of the answer, case-insensitive, or NULL. Into `ret`,
 * cut at `size`.
 */
const char *http_header(const struct http_call *call, const char *name, char *ret,
                        size_t size);

#endif
