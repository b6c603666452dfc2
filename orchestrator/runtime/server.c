#include "runtime/server.h"

#include "base/secret.h"
#include "runtime/timer.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { BACKLOG = 128, ANSWER_MAX_BYTES = 1024 * 1024, LINGER_MS = 1000 };

/* What a connection is at. What comes in while it lingers is of no interest any more. */
enum phase { READING, ANSWERING, LINGERING, CLOSING };

/* What comes in may be a key: wiped when it is freed. */
struct server_connection {
    struct server *server;
    struct server_connection *next;
    union server_handle io;
    struct timer timer;
    unsigned open_handles;
    enum phase phase;
    bool told_to_go_on;
    char chunk[16 * 1024];
    struct buf in;
    struct buf head; /* of the answer */
    struct server_answer answer;
    uv_write_t write;
    uv_write_t go_on;
    uv_shutdown_t shutdown;
};

/* ---- the end of a connection ---- */

static void finish_close(struct server *server)
{
    if (server->is_closing && !server->is_open && !server->is_turning_away &&
        server->count == 0 && server->closed != NULL)
        server->closed(server->closed_owner);
}

static void forget(struct server_connection *connection)
{
    struct server *server = connection->server;
    struct server_connection **at = &server->connections;

    while (*at != connection)
        at = &(*at)->next;
    *at = connection->next;
    server->count--;
    buf_done(&connection->in);
    buf_done(&connection->head);
    buf_done(&connection->answer.body);
    wipe_free(connection);
    finish_close(server);
}

static void on_handle_closed(void *owner)
{
    struct server_connection *connection = owner;

    if (--connection->open_handles == 0)
        forget(connection);
}

static void on_io_closed(uv_handle_t *handle)
{
    on_handle_closed(handle->data);
}

static void end(struct server_connection *connection)
{
    if (connection->phase == CLOSING)
        return;
    connection->phase = CLOSING;
    uv_close(&connection->io.handle, on_io_closed);
    timer_close(&connection->timer, on_handle_closed);
}

/* ---- the answer ---- */

static void on_shut_down(uv_shutdown_t *request, int status)
{
    struct server_connection *connection = request->data;

    if (status < 0)
        end(connection);
}

/* Closing with bytes of the client unread would reset the connection, and the answer with it. */
static void on_answered(uv_write_t *request, int status)
{
    struct server_connection *connection = request->data;

    if (connection->phase == CLOSING)
        return;
    connection->phase = LINGERING;
    timer_set(&connection->timer, LINGER_MS);
    connection->shutdown.data = connection;
    if (status < 0 ||
        uv_shutdown(&connection->shutdown, &connection->io.stream, on_shut_down) < 0)
        end(connection);
}

static void send_answer(struct server_connection *connection, bool with_body)
{
    struct server_answer *answer = &connection->answer;
    struct err err = ERR_INIT;
    uv_buf_t parts[2];

    connection->phase = ANSWERING;
    timer_set(&connection->timer, connection->server->options.timeout_ms);
    if (buf_printf(&connection->head, &err,
                   "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
                   "Connection: close\r\nCache-Control: no-store\r\n"
                   "X-Content-Type-Options: nosniff\r\n\r\n",
                   answer->status, server_status_text(answer->status), answer->type,
                   answer->body.len) < 0) {
        end(connection);
        return;
    }
    parts[0] = uv_buf_init((char *)connection->head.data, (unsigned)connection->head.len);
    parts[1] = uv_buf_init((char *)answer->body.data, (unsigned)answer->body.len);
    connection->write.data = connection;
    if (uv_write(&connection->write, &connection->io.stream, parts,
                 with_body && answer->body.len > 0 ? 2 : 1, on_answered) < 0)
        end(connection);
}

static void answer_bad(struct server_connection *connection, int status)
{
    struct err err = ERR_INIT;

    connection->answer.status = status;
    connection->answer.type = "text/plain";
    if (buf_printf(&connection->answer.body, &err, "%s\n", server_status_text(status)) <
        0)
        end(connection);
    else
        send_answer(connection, true);
}

static void answer_whole(struct server_connection *connection,
                         const struct server_request *request)
{
    const struct server_options *options = &connection->server->options;

    options->answer(options->owner, request, &connection->answer);
    if (connection->phase != CLOSING) /* with the server, by whoever answers */
        send_answer(connection, strcmp(request->method, "HEAD") != 0);
}

/* ---- the request ---- */

static void on_told(uv_write_t *request, int status)
{
    (void)request;
    (void)status; /* then the next read or write fails as well */
}

static void tell_to_go_on(struct server_connection *connection)
{
    static char line[] = "HTTP/1.1 100 Continue\r\n\r\n";
    uv_buf_t part = uv_buf_init(line, sizeof line - 1);

    if (connection->told_to_go_on)
        return;
    connection->told_to_go_on = true;
    if (uv_write(&connection->go_on, &connection->io.stream, &part, 1, on_told) < 0)
        end(connection);
}

static void consider(struct server_connection *connection)
{
    struct server_request request;
    int status;

    switch (server_request_parse(&request, buf_str(&connection->in), connection->in.len,
                                 connection->server->options.body_max, &status)) {
    case SERVER_PARSE_MORE:
        if (request.expects_continue)
            tell_to_go_on(connection);
        break;
    case SERVER_PARSE_WHOLE:
        answer_whole(connection, &request);
        break;
    case SERVER_PARSE_BAD:
        answer_bad(connection, status);
        break;
    }
}

static void on_read(uv_stream_t *stream, ssize_t len, const uv_buf_t *chunk)
{
    struct server_connection *connection = stream->data;
    struct err err = ERR_INIT;

    if (len < 0 &&
        (connection->phase == READING || connection->phase == LINGERING || len != UV_EOF))
        end(connection);
    if (len <= 0 || connection->phase != READING)
        return;
    if (buf_append(&connection->in, chunk->base, (size_t)len, &err) < 0)
        answer_bad(connection, 413);
    else
        consider(connection);
}

static void on_alloc(uv_handle_t *handle, size_t wanted, uv_buf_t *ret)
{
    struct server_connection *connection = handle->data;

    (void)wanted;
    *ret = uv_buf_init(connection->chunk, sizeof connection->chunk);
}

static void on_time_is_up(void *owner)
{
    end(owner);
}

/* ---- a new one ---- */

static void make_room(struct server *server)
{
    struct server_connection *oldest = NULL;

    if (server->count < server->options.connections)
        return;
    for (struct server_connection *one = server->connections; one != NULL;
         one = one->next) {
        if (one->phase != CLOSING)
            oldest = one;
    }
    if (oldest != NULL)
        end(oldest);
}

static int init_handle(struct server *server, uv_loop_t *loop, union server_handle *ret)
{
    return server->is_tcp ? uv_tcp_init(loop, &ret->tcp)
                          : uv_pipe_init(loop, &ret->pipe, 0);
}

static void on_turned_away(uv_handle_t *handle)
{
    struct server *server = handle->data;

    server->is_turning_away = false;
    finish_close(server);
}

/* libuv listens no further until the one that waits was accepted, memory or not. */
static void turn_away(struct server *server)
{
    if (server->is_turning_away ||
        init_handle(server, server->listener.handle.loop, &server->turned_away) < 0)
        return;
    server->is_turning_away = true;
    server->turned_away.handle.data = server;
    uv_accept(&server->listener.stream, &server->turned_away.stream);
    uv_close(&server->turned_away.handle, on_turned_away);
}

static void on_connection(uv_stream_t *listener, int status)
{
    struct server *server = listener->data;
    struct server_connection *connection;

    if (status < 0)
        return;
    make_room(server);
    connection = wipe_calloc(1, sizeof *connection);
    if (connection == NULL || init_handle(server, listener->loop, &connection->io) < 0) {
        wipe_free(connection);
        turn_away(server);
        return;
    }
    connection->server = server;
    connection->io.handle.data = connection;
    connection->open_handles = 2;
    connection->next = server->connections;
    server->connections = connection;
    server->count++;
    connection->answer =
        (struct server_answer){.status = 500, .type = "application/json"};
    buf_init(&connection->in, SERVER_HEAD_MAX + server->options.body_max);
    buf_init(&connection->head, 1024);
    buf_init(&connection->answer.body, ANSWER_MAX_BYTES);
    timer_init(&connection->timer, listener->loop, on_time_is_up, connection);
    timer_set(&connection->timer, server->options.timeout_ms);
    if (uv_accept(listener, &connection->io.stream) < 0 ||
        uv_read_start(&connection->io.stream, on_alloc, on_read) < 0)
        end(connection);
}

/* ---- its life ---- */

/* The descriptor is the handle's from here on. */
static int open_listener(struct server *server, uv_loop_t *loop, int fd, const char *what,
                         struct err *err)
{
    int status = init_handle(server, loop, &server->listener);

    if (status < 0) {
        close(fd);
        return err_sys(err, -status, "%s", what);
    }
    server->is_open = true;
    server->listener.handle.data = server;
    status = server->is_tcp ? uv_tcp_open(&server->listener.tcp, fd)
                            : uv_pipe_open(&server->listener.pipe, fd);
    if (status < 0)
        close(fd);
    else
        status = uv_listen(&server->listener.stream, BACKLOG, on_connection);
    return status < 0 ? err_sys(err, -status, "cannot listen on %s", what) : 0;
}

/* The mode holds from the first moment on: nobody may connect in between. */
static int bind_unix(const char *path, const struct sockaddr_un *address, mode_t mode,
                     gid_t group, struct err *err)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    mode_t before;
    int failed;

    if (fd < 0)
        return err_sys(err, errno, "cannot make a socket");
    before = umask(0777);
    failed = bind(fd, (const struct sockaddr *)address, sizeof *address);
    umask(before);
    if (failed == 0 && ((group != (gid_t)-1 && lchown(path, (uid_t)-1, group) < 0) ||
                        chmod(path, mode) < 0))
        failed = -1;
    if (failed == 0)
        return fd;
    err_sys(err, errno, "cannot listen on %s", path);
    close(fd);
    return -1;
}

int server_start_unix(struct server *server, uv_loop_t *loop, const char *path,
                      mode_t mode, gid_t group, const struct server_options *options,
                      struct err *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct stat old;
    int fd;

    *server = (struct server){.options = *options};
    if (strlen(path) >= sizeof address.sun_path)
        return err_set(err, ERR_CONFIG, "%s is too long for a socket: at most %zu bytes",
                       path, sizeof address.sun_path - 1);
    if (lstat(path, &old) == 0 && !S_ISSOCK(old.st_mode))
        return err_set(err, ERR_CONFIG, "%s is there, and is no socket", path);
    if (unlink(path) < 0 && errno != ENOENT)
        return err_sys(err, errno, "%s", path);
    memcpy(address.sun_path, path, strlen(path) + 1);
    fd = bind_unix(path, &address, mode, group, err);
    if (fd < 0)
        return -1;
    snprintf(server->path, sizeof server->path, "%s", path);
    return open_listener(server, loop, fd, path, err);
}

static int bind_tcp(const struct sockaddr *address, const char *what, struct err *err)
{
    bool is_v6 = address->sa_family == AF_INET6;
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    const int yes = 1;

    if (fd < 0)
        return err_sys(err, errno, "cannot make a socket for %s", what);
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) == 0 &&
        bind(fd, address,
             is_v6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in)) == 0)
        return fd;
    err_sys(err, errno, "cannot listen on %s", what);
    close(fd);
    return -1;
}

int server_start_tcp(struct server *server, uv_loop_t *loop, const char *address,
                     unsigned port, const struct server_options *options, struct err *err)
{
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } place = {0};
    char what[80];
    int fd;

    *server = (struct server){.options = *options, .is_tcp = true};
    snprintf(what, sizeof what, "%s, port %u", address, port);
    if (uv_ip4_addr(address, (int)port, &place.v4) < 0 &&
        uv_ip6_addr(address, (int)port, &place.v6) < 0)
        return err_set(err, ERR_CONFIG, "%s is no IPv4 or IPv6 address", address);
    fd = bind_tcp(&place.any, what, err);
    return fd < 0 ? -1 : open_listener(server, loop, fd, what, err);
}

struct server_place server_hand_over(struct server *server)
{
    struct server_place place = {.is_tcp = server->is_tcp};
    uv_os_fd_t fd;

    if (!server->is_open || uv_fileno(&server->listener.handle, &fd) < 0)
        return place;
    place.fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    place.is_there = place.fd >= 0;
    if (!place.is_there)
        return place;
    memcpy(place.path, server->path, sizeof place.path);
    server->path[0] = '\0';
    return place;
}

int server_take_over(struct server *server, uv_loop_t *loop,
                     const struct server_place *place,
                     const struct server_options *options, struct err *err)
{
    *server = (struct server){.options = *options, .is_tcp = place->is_tcp};
    memcpy(server->path, place->path, sizeof server->path);
    return open_listener(server, loop, place->fd,
                         place->path[0] == '\0' ? "the former socket" : place->path, err);
}

static void on_listener_closed(uv_handle_t *handle)
{
    struct server *server = handle->data;

    server->is_open = false;
    finish_close(server);
}

void server_close(struct server *server, void (*closed)(void *owner), void *owner)
{
    struct server_connection *next;

    server->is_closing = true;
    server->closed = closed;
    server->closed_owner = owner;
    for (struct server_connection *one = server->connections; one != NULL; one = next) {
        next = one->next;
        end(one);
    }
    if (server->path[0] != '\0')
        unlink(server->path);
    if (server->is_open)
        uv_close(&server->listener.handle, on_listener_closed);
    else
        finish_close(server);
}
