/*
 * server: a small HTTP/1.1 responder on a unix or TCP socket, for control and metrics.
 *
 * One request for each connection, answered at once from memory by `answer`, then closed.
 * Everything is bounded: head, body, time, connections. When all connections are taken, the
 * one that has been silent for longest goes, so that clients that say nothing keep nobody out.
 *
 * Embedded in its owner: server_start_… , then server_close once, also after a failed start;
 * the memory stays until `closed`.
 */
#ifndef CM_RUNTIME_SERVER_H
#define CM_RUNTIME_SERVER_H

#include "base/buf.h"
#include "base/err.h"
#include "runtime/server_request.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <uv.h>

struct server_answer {
    int status;       /* 500 unless it is set */
    const char *type; /* static; "application/json" unless it is set */
    struct buf body;  /* initialised; whoever answers fills it */
};

struct server_options {
    size_t connections;  /* most at a time */
    size_t body_max;     /* of a request */
    unsigned timeout_ms; /* for a request to come, and again for its answer to be taken */
    void (*answer)(void *owner, const struct server_request *request,
                   struct server_answer *ret);
    void *owner;
};

struct server_connection;

/* Where a server listens that another one takes over. */
struct server_place {
    bool is_there;
    bool is_tcp;
    int fd;
    char path[108]; /* of the unix socket, "" for none */
};

union server_handle {
    uv_handle_t handle;
    uv_stream_t stream;
    uv_pipe_t pipe;
    uv_tcp_t tcp;
};

struct server {
    /* Private. */
    struct server_options options;
    union server_handle listener;
    bool is_tcp;
    bool is_open;
    bool is_closing;
    bool is_turning_away;
    union server_handle turned_away;
    char path[108];                        /* of the unix socket, "" for none */
    struct server_connection *connections; /* the newest first */
    size_t count;
    void (*closed)(void *owner);
    void *closed_owner;
};

/*
 * A socket at `path`, in place of one that an earlier process left, with exactly this mode;
 * `group` (gid_t)-1: as it comes. ERR_CONFIG when the path is too long or something else is
 * there, ERR_SYS.
 */
int server_start_unix(struct server *server, uv_loop_t *loop, const char *path,
                      mode_t mode, gid_t group, const struct server_options *options,
                      struct err *err);

/* `address` is an IPv4 or IPv6 literal. ERR_SYS with EADDRINUSE and the like as code. */
int server_start_tcp(struct server *server, uv_loop_t *loop, const char *address,
                     unsigned port, const struct server_options *options,
                     struct err *err);

/*
 * Before server_close, for a server of another loop of this process that goes on there: whoever connects
 * in between waits for it. What is handed over is taken over, once.
 */
struct server_place server_hand_over(struct server *server);
int server_take_over(struct server *server, uv_loop_t *loop,
                     const struct server_place *place,
                     const struct server_options *options, struct err *err);

/*
 * Ends every connection, and removes the unix socket. `closed` may be NULL; it is called at
 * once when nothing is open.
 */
void server_close(struct server *server, void (*closed)(void *owner), void *owner);

#endif
