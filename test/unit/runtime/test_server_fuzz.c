/* Whatever comes: no request is read in two ways, and no client harms the server or the others. */
#include "runtime/server.h"

#include "base/fs.h"
#include "support/fuzz.h"
#include "support/loop.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

enum {
    REQUESTS = 20 * 1000,
    TEXT_MAX = 32 * 1024,
    BODY_MAX = 16 * 1024,
    CONNECTIONS = 4,
    CLIENTS = 6, /* at a time, so that some have to go */
    CLIENTS_ALL = 600,
    TIMEOUT_MS = 5000,
};

/* ---- the reader of requests ---- */

/* At the end of a block of memory of its own, so that a sanitizer sees a read behind it. */
static enum server_parse parse(struct server_request *ret, const char *text, size_t len,
                               int *ret_status, char **ret_bytes)
{
    *ret_bytes = malloc(len == 0 ? 1 : len);
    assert_non_null(*ret_bytes);
    memcpy(*ret_bytes, text, len);
    return server_request_parse(ret, *ret_bytes, len, BODY_MAX, ret_status);
}

static void assert_whole(const struct server_request *request, const char *bytes,
                         size_t len)
{
    assert_true(request->body_len <= BODY_MAX);
    assert_true(request->body >= bytes &&
                request->body + request->body_len <= bytes + len);
    assert_true(strnlen(request->method, SERVER_METHOD_SIZE) < SERVER_METHOD_SIZE);
    assert_true(strnlen(request->path, SERVER_TARGET_SIZE) < SERVER_TARGET_SIZE);
    assert_true(strnlen(request->query, SERVER_TARGET_SIZE) < SERVER_TARGET_SIZE);
    assert_int_equal(request->path[0], '/');
}

/* What arrives in parts is read as it is in one. */
static void assert_part_agrees(enum server_parse whole, int status, const char *text,
                               size_t len)
{
    struct server_request request;
    char *bytes;
    int part_status;
    enum server_parse part = parse(&request, text, len, &part_status, &bytes);

    free(bytes);
    if (part == SERVER_PARSE_MORE)
        return;
    assert_int_equal(part, whole);
    assert_int_equal(part_status, status);
}

static void test_no_request_is_read_in_two_ways(void **state)
{
    static char text[TEXT_MAX];
    unsigned seen[3] = {0};
    struct fuzz fuzz;

    (void)state;
    fuzz_init(&fuzz);
    for (int i = 0; i < REQUESTS; i++) {
        size_t len = fuzz_request(&fuzz, text, sizeof text);
        struct server_request request;
        char *bytes;
        int status;
        enum server_parse found = parse(&request, text, len, &status, &bytes);

        seen[found]++;
        if (found == SERVER_PARSE_WHOLE)
            assert_whole(&request, bytes, len);
        assert_int_equal(status != 0, found == SERVER_PARSE_BAD);
        assert_true(status == 0 || server_status_text(status)[0] != '\0');
        assert_part_agrees(found, status, text, fuzz_below(&fuzz, len));
        free(bytes);
    }
    /* Requests of each kind were among them, or this shows nothing. */
    for (size_t i = 0; i < 3; i++)
        assert_true(seen[i] > REQUESTS / 100);
}

/* ---- the server ---- */

struct scene {
    uv_loop_t *loop;
    char folder[64];
    char path[80];
    struct server server;
    unsigned answered;
    struct fuzz fuzz;
};

static void answer(void *owner, const struct server_request *request,
                   struct server_answer *ret)
{
    struct scene *scene = owner;
    struct err err = ERR_INIT;

    scene->answered++;
    assert_true(request->body_len <= BODY_MAX);
    ret->status = 200;
    ret->type = "text/plain";
    /* More than a socket takes at once. */
    for (int i = 0; strcmp(request->path, "/long") == 0 && i < 40000; i++)
        assert_int_equal(buf_append_str(&ret->body, "0123456789", &err), 0);
    assert_int_equal(buf_append_str(&ret->body, request->path, &err), 0);
}

struct client {
    int fd; /* -1: there is none */
    char text[TEXT_MAX];
    size_t len;
    size_t sent;
    char head[16]; /* what was heard first */
    size_t heard;
};

static int dial(const struct scene *scene)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    snprintf(address.sun_path, sizeof address.sun_path, "%s", scene->path);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

static void arrive(struct scene *scene, struct client *client)
{
    client->fd = dial(scene);
    client->len = fuzz_request(&scene->fuzz, client->text, sizeof client->text);
    client->sent = 0;
    client->heard = 0;
}

/* Anything that is heard at all is an answer. */
static void leave(struct client *client)
{
    size_t known = client->heard < 7 ? client->heard : 7;

    assert_memory_equal(client->head, "HTTP/1.", known);
    close(client->fd);
    client->fd = -1;
}

static void listen_to_it(struct client *client)
{
    char chunk[4096];
    ssize_t len = recv(client->fd, chunk, sizeof chunk, 0);

    if (len == 0 || (len < 0 && errno != EAGAIN)) {
        leave(client);
    } else if (len > 0 && client->heard < sizeof client->head) {
        size_t kept = sizeof client->head - client->heard;

        kept = kept < (size_t)len ? kept : (size_t)len;
        memcpy(client->head + client->heard, chunk, kept);
        client->heard += kept;
    }
}

static void say_more(struct scene *scene, struct client *client)
{
    size_t left = client->len - client->sent;
    size_t part =
        fuzz_below(&scene->fuzz, 3) == 0 ? fuzz_below(&scene->fuzz, left) : left;
    ssize_t sent = send(client->fd, client->text + client->sent, part, MSG_NOSIGNAL);

    if (sent > 0)
        client->sent += (size_t)sent;
    else if (sent < 0 && errno != EAGAIN)
        listen_to_it(client); /* it has ended, perhaps with an answer */
}

static void do_something(struct scene *scene, struct client *client)
{
    switch (fuzz_below(&scene->fuzz, 12)) {
    case 0:
        leave(client); /* with an answer unread, or nothing said */
        break;
    case 1:
        shutdown(client->fd, SHUT_WR);
        break;
    case 2:
    case 3:
    case 4:
        listen_to_it(client);
        break;
    default:
        say_more(scene, client);
        break;
    }
}

static bool is_deserted(void *owner)
{
    return ((struct scene *)owner)->server.count == 0;
}

static bool has_answer(void *owner)
{
    struct client *client = owner;

    listen_to_it(client);
    return client->fd < 0;
}

static void open_scene(struct scene *scene, void **state)
{
    const struct server_options options = {
        .connections = CONNECTIONS,
        .body_max = BODY_MAX,
        .timeout_ms = TIMEOUT_MS,
        .answer = answer,
        .owner = scene,
    };
    struct err err = ERR_INIT;

    *scene = (struct scene){.loop = *state};
    fuzz_init(&scene->fuzz);
    snprintf(scene->folder, sizeof scene->folder, "/tmp/test_server_fuzz.XXXXXX");
    assert_non_null(mkdtemp(scene->folder));
    snprintf(scene->path, sizeof scene->path, "%s/socket", scene->folder);
    assert_int_equal(server_start_unix(&scene->server, scene->loop, scene->path, 0600,
                                       (gid_t)-1, &options, &err),
                     0);
}

static void close_scene(struct scene *scene)
{
    struct err err = ERR_INIT;

    server_close(&scene->server, NULL, NULL);
    loop_run(scene->loop);
    assert_int_equal(fs_remove_tree(scene->folder, &err), 0);
}

static void play(struct scene *scene, struct client *clients)
{
    unsigned arrived = 0;
    unsigned here = 0;

    while (arrived < CLIENTS_ALL || here > 0) {
        here = 0;
        for (size_t i = 0; i < CLIENTS; i++) {
            if (clients[i].fd < 0 && arrived < CLIENTS_ALL) {
                arrive(scene, &clients[i]);
                arrived++;
            }
            if (clients[i].fd >= 0)
                do_something(scene, &clients[i]);
            here += clients[i].fd >= 0;
        }
        uv_run(scene->loop, UV_RUN_NOWAIT);
        assert_true(scene->server.count <= CONNECTIONS);
    }
}

static void test_no_client_harms_the_server(void **state)
{
    static const char good[] = "GET /metrics HTTP/1.1\r\n\r\n";
    struct client *clients = calloc(CLIENTS, sizeof *clients);
    struct scene scene;

    assert_non_null(clients);
    signal(SIGPIPE, SIG_IGN); /* as the program does */
    open_scene(&scene, state);
    for (size_t i = 0; i < CLIENTS; i++)
        clients[i].fd = -1;
    play(&scene, clients);
    loop_run_until(scene.loop, is_deserted, &scene);
    assert_true(scene.answered > CLIENTS_ALL / 20);

    clients[0].fd = dial(&scene);
    clients[0].heard = 0;
    assert_int_equal(send(clients[0].fd, good, strlen(good), MSG_NOSIGNAL), strlen(good));
    loop_run_until(scene.loop, has_answer, &clients[0]);
    assert_memory_equal(clients[0].head, "HTTP/1.1 200 OK", 15);
    free(clients);
    close_scene(&scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_request_is_read_in_two_ways),
        loop_test(test_no_client_harms_the_server),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
