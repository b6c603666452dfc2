/*
 * libcurl's multi interface says which sockets to watch and when to wake it; libuv does
 * both.
 *
 * One rule keeps the callbacks apart: code of libcurl is entered from on_poll, on_wake
 * and the public functions only, and `done` is called from on_idle only, where no frame
 * of libcurl is on the stack. So whatever decides that a call is over (libcurl's message,
 * a limit, a cancel, a failed start) merely puts the transfer on the list `ended`; the
 * next round of the loop takes it out of libcurl and tells the owner.
 *
 *     http_start ─► running ─┬─ CURLMSG_DONE ──────────┐
 *                            ├─ socket not watchable ──┼─► ended ─► on_idle ─► done
 *                            ├─ http_cancel ───────────┤
 *     http_start fails ──────┴─────────────────────────┘
 */
#include "runtime/http.h"

#include "base/secret.h"
#include "runtime/http_transfer.h"

#include <assert.h>
#include <curl/curl.h>
#include <errno.h>
#include <linux/close_range.h>
#include <openssl/err.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_IDLE_CONNECTIONS = 8, STUCK_PERIOD_MS = 100 };

/* A descriptor of libcurl that is being watched. */
struct watched {
    uv_poll_t handle;
    struct watched *next;
    struct http *http;
    curl_socket_t fd;
    int events; /* UV_READABLE | UV_WRITABLE */
    bool closing;
};

struct http {
    uv_loop_t *loop;
    CURLM *multi;
    uv_timer_t wake; /* libcurl's only timer */
    uv_idle_t idle;  /* active while `ended` is not empty */
    struct watched *watched;
    struct transfer *ended;
    size_t running;      /* calls whose done is still to come */
    size_t open_handles; /* not yet closed, of libuv */
    bool closing;
    bool is_stuck; /* see go_on() */
    void (*closed)(void *owner);
    void *closed_owner;
};

int http_setup(struct err *err)
{
    const curl_version_info_data *version;
    const int needed = CURL_VERSION_SSL | CURL_VERSION_ASYNCHDNS;
    CURLcode code;

    /* With this variable libcurl writes the keys of TLS sessions to a file. */
    unsetenv("SSLKEYLOGFILE");
    /* With CURLOPT_NOSIGNAL libcurl leaves SIGPIPE to the application. */
    signal(SIGPIPE, SIG_IGN); // NOLINT(bugprone-signal-handler,cert-sig30-c)
    code = curl_global_init_mem(CURL_GLOBAL_DEFAULT, wipe_malloc, wipe_free, wipe_realloc,
                                wipe_strdup, wipe_calloc);
    if (code != CURLE_OK)
        return err_set(err, ERR_SYS, "cannot set up libcurl: %s",
                       curl_easy_strerror(code));
    version = curl_version_info(CURLVERSION_NOW);
    if ((version->features & needed) != needed || version->ssl_version == NULL ||
        strstr(version->ssl_version, "OpenSSL") == NULL)
        return err_set(
            err, ERR_SYS,
            "libcurl %s has %s; it must have OpenSSL, and name look-ups that do "
            "not block",
            version->version,
            version->ssl_version == NULL ? "no TLS" : version->ssl_version);
    return 0;
}

/* ---- the end of a call ---- */

/* Takes the transfer out of libcurl and tells the owner, who may close `http` then. */
static void deliver(struct transfer *transfer)
{
    const struct err err = transfer->err;
    const done_fn done = transfer->done;
    void *owner = transfer->owner;

    if (transfer->easy != NULL)
        curl_multi_remove_handle(transfer->http->multi, transfer->easy);
    transfer->http->running--;
    transfer->call->transfer = NULL;
    if (err.kind != ERR_NONE)
        http_call_done(transfer->call);
    transfer_free(transfer);
    done(owner, err.kind != ERR_NONE ? &err : NULL);
}

static void on_idle(uv_idle_t *idle)
{
    struct http *http = idle->data;
    struct transfer *rest = http->ended;

    /* Calls that end from now on have their own turn, in the next round. */
    http->ended = NULL;
    uv_idle_stop(idle);
    while (rest != NULL) {
        struct transfer *transfer = rest;

        rest = transfer->next;
        deliver(transfer);
    }
}

/* `transfer->err` says how it ended. Never enters libcurl. */
static void transfer_end(struct transfer *transfer)
{
    struct transfer **last = &transfer->http->ended;

    assert(!transfer->ended);
    transfer->ended = true;
    transfer->next = NULL;
    while (*last != NULL)
        last = &(*last)->next;
    *last = transfer;
    uv_idle_start(&transfer->http->idle, on_idle);
}

/* ---- what libcurl asks of the loop, and what the loop tells libcurl ---- */

/* After every entry into libcurl: a transfer may end by any of them, the last one too. */
static void collect_ended(struct http *http)
{
    CURLMsg *message;
    int left;

    while ((message = curl_multi_info_read(http->multi, &left)) != NULL) {
        CURLcode code = message->data.result;
        struct transfer *transfer = NULL;

        if (message->msg != CURLMSG_DONE)
            continue;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&transfer);
        if (transfer == NULL || transfer->ended)
            continue;
        transfer_judge(transfer, code);
        transfer_end(transfer);
    }
    /* Nothing of libcurl's stays where err_openssl() would find it. */
    ERR_clear_error();
}

static void on_wake(uv_timer_t *timer);

/*
 * Without memory libcurl stops in the middle, and asks neither for a socket nor for a timer. The limits of its
 * transfers hold all the same when it is made to look at them, which is done until none is left.
 */
static void go_on(struct http *http, curl_socket_t fd, int flags)
{
    int running;

    if (curl_multi_socket_action(http->multi, fd, flags, &running) != CURLM_OK)
        http->is_stuck = true;
    collect_ended(http);
    http->is_stuck = http->is_stuck && http->running > 0 && !http->closing;
    if (http->is_stuck)
        uv_timer_start(&http->wake, on_wake, STUCK_PERIOD_MS, 0);
}

static void on_wake(uv_timer_t *timer)
{
    go_on(timer->data, CURL_SOCKET_TIMEOUT, 0);
}

static int on_curl_timer(CURLM *multi, long timeout_ms, void *data)
{
    struct http *http = data;

    (void)multi;
    if (http->closing)
        return 0;
    if (timeout_ms < 0) {
        uv_timer_stop(&http->wake);
        return 0;
    }
    /* libcurl counts from now, not from the beginning of the loop's round. */
    uv_update_time(http->loop);
    uv_timer_start(&http->wake, on_wake, (uint64_t)timeout_ms, 0);
    return 0;
}

static void on_poll(uv_poll_t *handle, int status, int events)
{
    struct watched *watched = handle->data;
    struct http *http = watched->http;
    int flags = 0;

    /* On an error libuv tells no events and stops watching. What has arrived before the
     * error can still be read, and reading or writing tells which error it is: let
     * libcurl try. */
    if (status < 0)
        events = watched->events;
    if ((events & UV_READABLE) != 0)
        flags |= CURL_CSELECT_IN;
    if ((events & UV_WRITABLE) != 0)
        flags |= CURL_CSELECT_OUT;
    if (status < 0)
        flags |= CURL_CSELECT_ERR;
    go_on(http, watched->fd, flags);
    if (status < 0 && !watched->closing && watched->events != 0)
        uv_poll_start(&watched->handle, watched->events, on_poll);
}

static void handle_closed(struct http *http)
{
    void (*closed)(void *owner) = http->closed;
    void *owner = http->closed_owner;

    http->open_handles--;
    if (!http->closing || http->open_handles > 0)
        return;
    free(http);
    if (closed != NULL)
        closed(owner);
}

static void on_watched_closed(uv_handle_t *handle)
{
    struct watched *watched = handle->data;
    struct http *http = watched->http;

    free(watched);
    handle_closed(http);
}

static void on_handle_closed(uv_handle_t *handle)
{
    handle_closed(handle->data);
}

static void unwatch(struct watched *watched)
{
    struct watched **link = &watched->http->watched;

    while (*link != watched)
        link = &(*link)->next;
    *link = watched->next;
    watched->closing = true;
    uv_close((uv_handle_t *)&watched->handle, on_watched_closed);
}

/* NULL when it cannot be watched, with the reason in `err`. */
static struct watched *watch_socket(struct http *http, curl_socket_t fd, struct err *err)
{
    struct watched *watched = http->watched;
    int code;

    /* A number that was closed behind our back and is in use again. */
    while (watched != NULL && watched->fd != fd)
        watched = watched->next;
    if (watched != NULL)
        unwatch(watched);

    watched = calloc(1, sizeof *watched);
    if (watched == NULL) {
        err_sys(err, ENOMEM, "cannot watch a socket");
        return NULL;
    }
    code = uv_poll_init(http->loop, &watched->handle, fd);
    if (code < 0) { /* then there is no handle to close */
        free(watched);
        err_sys(err, -code, "cannot watch a socket");
        return NULL;
    }
    http->open_handles++;
    watched->handle.data = watched;
    watched->http = http;
    watched->fd = fd;
    watched->next = http->watched;
    http->watched = watched;
    curl_multi_assign(http->multi, fd, watched);
    return watched;
}

/* libcurl takes -1 for the end of the whole multi handle, so a failure here fails the one
 * transfer instead. */
static int fail_transfer(CURL *easy, const struct err *err)
{
    struct transfer *transfer = NULL;

    curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&transfer);
    if (transfer == NULL || transfer->ended)
        return 0;
    transfer->err = *err;
    err_wrap(&transfer->err, "%s", transfer->target);
    transfer_end(transfer);
    return 0;
}

static int on_curl_socket(CURL *easy, curl_socket_t fd, int what, void *data,
                          void *socket_data)
{
    struct http *http = data;
    struct watched *watched = socket_data;
    struct err err = ERR_INIT;
    int code;

    if (http->closing)
        return 0;
    if (what == CURL_POLL_REMOVE) {
        /* libcurl ≥ 8.13 removes sockets, too, that it never told about. */
        if (watched != NULL) {
            curl_multi_assign(http->multi, fd, NULL);
            unwatch(watched);
        }
        return 0;
    }
    if (watched == NULL)
        watched = watch_socket(http, fd, &err);
    if (watched == NULL)
        return fail_transfer(easy, &err);
    watched->events = ((what & CURL_POLL_IN) != 0 ? UV_READABLE : 0) |
                      ((what & CURL_POLL_OUT) != 0 ? UV_WRITABLE : 0);
    code = watched->events == 0
               ? uv_poll_stop(&watched->handle)
               : uv_poll_start(&watched->handle, watched->events, on_poll);
    if (code < 0) {
        err_sys(&err, -code, "cannot watch a socket");
        return fail_transfer(easy, &err);
    }
    return 0;
}

/* ---- one per loop ---- */

struct http *http_new(uv_loop_t *loop, struct err *err)
{
    struct http *http = calloc(1, sizeof *http);
    bool failed = false;

    if (http != NULL)
        http->multi = curl_multi_init();
    if (http == NULL || http->multi == NULL) {
        free(http);
        err_sys(err, ENOMEM, "cannot set up HTTP calls");
        return NULL;
    }
    /* What libcurl wakes itself by is not close-on-exec, and nothing else of ours is otherwise. */
    close_range(STDERR_FILENO + 1, ~0U, CLOSE_RANGE_CLOEXEC);
    http->loop = loop;
    failed |= curl_multi_setopt(http->multi, CURLMOPT_SOCKETFUNCTION, on_curl_socket) !=
              CURLM_OK;
    failed |= curl_multi_setopt(http->multi, CURLMOPT_SOCKETDATA, http) != CURLM_OK;
    failed |=
        curl_multi_setopt(http->multi, CURLMOPT_TIMERFUNCTION, on_curl_timer) != CURLM_OK;
    failed |= curl_multi_setopt(http->multi, CURLMOPT_TIMERDATA, http) != CURLM_OK;
    failed |= curl_multi_setopt(http->multi, CURLMOPT_MAXCONNECTS,
                                (long)MAX_IDLE_CONNECTIONS) != CURLM_OK;
    if (failed) {
        curl_multi_cleanup(http->multi);
        free(http);
        err_set(err, ERR_SYS, "libcurl %s refuses its settings", curl_version());
        return NULL;
    }
    uv_timer_init(loop, &http->wake);
    http->wake.data = http;
    uv_idle_init(loop, &http->idle);
    http->idle.data = http;
    http->open_handles = 2;
    return http;
}

struct http *http_new_loop(uv_loop_t *ret_loop, struct err *err)
{
    struct http *http;

    if (http_setup(err) < 0)
        return NULL;
    if (uv_loop_init(ret_loop) != 0) {
        err_set(err, ERR_SYS, "cannot create the event loop");
        return NULL;
    }
    http = http_new(ret_loop, err);
    if (http == NULL)
        uv_loop_close(ret_loop);
    return http;
}

void http_close(struct http *http, void (*closed)(void *owner), void *owner)
{
    assert(http->running == 0 && !http->closing);
    http->closed = closed;
    http->closed_owner = owner;
    /* While it ends its idle connections libcurl asks for their sockets again; nobody
     * would serve them, so nothing is watched from here on. */
    http->closing = true;
    while (http->watched != NULL)
        unwatch(http->watched);
    curl_multi_cleanup(http->multi);
    http->multi = NULL;
    ERR_clear_error();
    uv_close((uv_handle_t *)&http->wake, on_handle_closed);
    uv_close((uv_handle_t *)&http->idle, on_handle_closed);
}

/* ---- one call ---- */

void http_start(struct http_call *call, struct http *http,
                const struct http_request *request, done_fn done, void *owner)
{
    struct transfer *transfer = wipe_calloc(1, sizeof *transfer);

    assert(!http->closing && request->timeout_ms > 0);
    if (transfer == NULL)
        abort(); /* no way is left to say so */
    *call = (struct http_call){.http = http, .transfer = transfer};
    buf_init(&call->body, request->max_body);
    buf_init(&call->headers, TRANSFER_MAX_HEADER);
    http->running++;
    transfer->http = http;
    transfer->call = call;
    transfer->done = done;
    transfer->owner = owner;
    if (transfer_prepare(transfer, request) == 0 &&
        curl_multi_add_handle(http->multi, transfer->easy) != CURLM_OK)
        err_set(&transfer->err, ERR_SYS, "%s: libcurl does not start it",
                transfer->target);
    if (transfer->err.kind != ERR_NONE)
        transfer_end(transfer);
}

void http_cancel(struct http_call *call)
{
    struct transfer *transfer = call->transfer;

    if (transfer == NULL)
        return;
    err_set(&transfer->err, ERR_CANCELED, "%s: canceled",
            transfer->target[0] == '\0' ? "HTTP call" : transfer->target);
    if (!transfer->ended)
        transfer_end(transfer);
}
