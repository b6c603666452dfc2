#include "runtime/server.h"

#include "base/fs.h"
#include "runtime/http.h"
#include "support/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

enum { CONNECTIONS = 3, BODY_MAX = 64 * 1024, TIMEOUT_MS = 300, ANY_PORT = 0 };

struct scene {
    uv_loop_t *loop;
    char folder[64];
    char path[80];
    struct server server;
    struct http *http;
    unsigned answered;
    unsigned closed;
};

static void on_closed(void *owner)
{
    ((struct scene *)owner)->closed++;
}

static void answer(void *owner, const struct server_request *request,
                   struct server_answer *ret)
{
    struct scene *scene = owner;
    struct err err = ERR_INIT;

    scene->answered++;
    ret->status = 200;
    ret->type = "text/plain";
    if (strcmp(request->path, "/close") == 0) {
        server_close(&scene->server, on_closed, scene);
        return;
    }
    if (strcmp(request->path, "/long") == 0) {
        for (int i = 0; i < 40000; i++)
            assert_int_equal(buf_append_str(&ret->body, "0123456789", &err), 0);
        return;
    }
    assert_int_equal(buf_printf(&ret->body, &err, "%s %s %zu", request->method,
                                request->path, request->body_len),
                     0);
}

static const struct server_options *options_of(struct scene *scene)
{
    static struct server_options options;

    options = (struct server_options){
        .connections = CONNECTIONS,
        .body_max = BODY_MAX,
        .timeout_ms = TIMEOUT_MS,
        .answer = answer,
        .owner = scene,
    };
    return &options;
}

static void open_scene(struct scene *scene, void **state)
{
    struct err err = ERR_INIT;

    *scene = (struct scene){.loop = *state};
    snprintf(scene->folder, sizeof scene->folder, "/tmp/test_server.XXXXXX");
    assert_non_null(mkdtemp(scene->folder));
    snprintf(scene->path, sizeof scene->path, "%s/socket", scene->folder);
    assert_int_equal(http_setup(&err), 0);
    scene->http = http_new(scene->loop, &err);
    assert_non_null(scene->http);
    assert_int_equal(server_start_unix(&scene->server, scene->loop, scene->path, 0600,
                                       (gid_t)-1, options_of(scene), &err),
                     0);
}

static void close_scene(struct scene *scene)
{
    struct err err = ERR_INIT;

    server_close(&scene->server, on_closed, scene);
    http_close(scene->http, NULL, NULL);
    loop_run(scene->loop);
    assert_int_equal(scene->closed, 1);
    assert_false(fs_exists(scene->path));
    assert_int_equal(fs_remove_tree(scene->folder, &err), 0);
}

/* A client by hand, for what libcurl would not do. */
static int dial(const struct scene *scene)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

    assert_true(fd >= 0);
    snprintf(address.sun_path, sizeof address.sun_path, "%s", scene->path);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

static void say(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

struct heard {
    int fd;
    char text[4096];
    size_t len;
    bool ended;
};

static bool is_over(void *owner)
{
    struct heard *heard = owner;
    ssize_t len =
        recv(heard->fd, heard->text + heard->len, sizeof heard->text - 1 - heard->len, 0);

    if (len > 0)
        heard->len += (size_t)len;
    heard->text[heard->len] = '\0';
    heard->ended = len == 0 || (len < 0 && errno == ECONNRESET);
    return heard->ended;
}

static bool has_headed_on(void *owner)
{
    return is_over(owner) || strstr(((struct heard *)owner)->text, "\r\n\r\n") != NULL;
}

static void call(struct scene *scene, struct http_call *ret, const char *method,
                 const char *path, size_t body_len)
{
    struct ended ended = {0};
    char *body = calloc(1, body_len + 1);
    char url[256];
    struct http_request request = {
        .method = method,
        .url = url,
        .unix_socket = scene->path,
        .body = strcmp(method, "POST") == 0 ? body : NULL,
        .body_len = body_len,
        .max_body = 1024 * 1024,
        .timeout_ms = 10000,
    };

    assert_non_null(body);
    snprintf(url, sizeof url, "http://localhost%s", path);
    *ret = (struct http_call){.status = 0};
    http_start(ret, scene->http, &request, ended_done, &ended);
    loop_run_until(scene->loop, ended_once, &ended);
    ended_assert_ok(&ended);
    free(body);
}

static void test_answers_get_head_and_post(void **state)
{
    struct scene scene;
    struct http_call answered;

    open_scene(&scene, state);
    call(&scene, &answered, "GET", "/v1/status?x", 0);
    assert_int_equal(answered.status, 200);
    assert_string_equal(buf_str(&answered.body), "GET /v1/status 0");
    http_call_done(&answered);

    call(&scene, &answered, "POST", "/v1/deploy", BODY_MAX);
    assert_string_equal(buf_str(&answered.body), "POST /v1/deploy 65536");
    http_call_done(&answered);

    call(&scene, &answered, "HEAD", "/metrics", 0);
    assert_int_equal(answered.status, 200);
    assert_int_equal(answered.body.len, 0);
    http_call_done(&answered);

    call(&scene, &answered, "GET", "/long", 0);
    assert_int_equal(answered.body.len, 400000);
    http_call_done(&answered);
    close_scene(&scene);
}

static void test_socket_has_its_mode_and_takes_the_place_of_an_old_one(void **state)
{
    struct scene scene;
    struct server other = {0};
    struct stat found;
    struct err err = ERR_INIT;

    open_scene(&scene, state);
    assert_int_equal(stat(scene.path, &found), 0);
    assert_int_equal(found.st_mode & 07777, 0600);

    assert_int_equal(server_start_unix(&other, scene.loop, scene.path, 0660, getgid(),
                                       options_of(&scene), &err),
                     0);
    assert_int_equal(stat(scene.path, &found), 0);
    assert_int_equal(found.st_mode & 07777, 0660);
    server_close(&other, NULL, NULL);
    close_scene(&scene);
}

static void test_nothing_but_a_socket_is_replaced(void **state)
{
    char path[200];
    struct scene scene;
    struct server other = {0};
    struct err err = ERR_INIT;

    open_scene(&scene, state);
    assert_int_equal(server_start_unix(&other, scene.loop, scene.folder, 0600, (gid_t)-1,
                                       options_of(&scene), &err),
                     -1);
    assert_int_equal(err.kind, ERR_CONFIG);
    assert_non_null(strstr(err.message, "is no socket"));
    server_close(&other, NULL, NULL);

    snprintf(path, sizeof path, "/tmp/%0150d", 0);
    assert_int_equal(server_start_unix(&other, scene.loop, path, 0600, (gid_t)-1,
                                       options_of(&scene), &err),
                     -1);
    assert_non_null(strstr(err.message, "too long"));
    server_close(&other, NULL, NULL);
    close_scene(&scene);
}

static void test_a_place_that_cannot_be_listened_at_is_named(void **state)
{
    char path[300];
    struct scene scene;
    struct server other = {0};
    struct err err = ERR_INIT;
    int file;

    open_scene(&scene, state);
    snprintf(path, sizeof path, "%.90s/none/socket", scene.folder);
    assert_int_equal(server_start_unix(&other, scene.loop, path, 0600, (gid_t)-1,
                                       options_of(&scene), &err),
                     -1);
    assert_int_equal(err.kind, ERR_SYS);
    assert_int_equal(err.code, ENOENT);
    assert_non_null(strstr(err.message, path));
    server_close(&other, NULL, NULL);

    snprintf(path, sizeof path, "%.90s/file", scene.folder);
    file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(file >= 0);
    close(file);
    snprintf(path, sizeof path, "%.90s/file/socket", scene.folder);
    assert_int_equal(server_start_unix(&other, scene.loop, path, 0600, (gid_t)-1,
                                       options_of(&scene), &err),
                     -1);
    assert_int_equal(err.code, ENOTDIR);
    assert_non_null(strstr(err.message, path));
    server_close(&other, NULL, NULL);
    snprintf(path, sizeof path, "%.90s/file", scene.folder);
    assert_int_equal(unlink(path), 0);

    assert_int_equal(server_start_tcp(&other, scene.loop, "not-an-address", 1,
                                      options_of(&scene), &err),
                     -1);
    assert_non_null(strstr(err.message, "not-an-address"));
    server_close(&other, NULL, NULL);
    close_scene(&scene);
}

static void test_refuses_a_body_that_is_too_long_and_says_so(void **state)
{
    struct scene scene;
    struct http_call answered;

    open_scene(&scene, state);
    call(&scene, &answered, "POST", "/x", BODY_MAX + 1);
    assert_int_equal(answered.status, 413);
    assert_int_equal(scene.answered, 0);
    http_call_done(&answered);
    close_scene(&scene);
}

static void test_lets_a_client_go_on_that_asks_first(void **state)
{
    struct scene scene;
    struct heard heard = {.ended = false};

    open_scene(&scene, state);
    heard.fd = dial(&scene);
    say(heard.fd,
        "POST /x HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    loop_run_until(scene.loop, has_headed_on, &heard);
    assert_string_equal(heard.text, "HTTP/1.1 100 Continue\r\n\r\n");
    say(heard.fd, "ab");
    loop_run_until(scene.loop, is_over, &heard);
    assert_non_null(strstr(heard.text, "\r\n\r\nPOST /x 2"));
    close(heard.fd);
    close_scene(&scene);
}

static void test_silent_and_slow_clients_are_ended_by_the_clock(void **state)
{
    struct scene scene;
    struct heard silent = {.ended = false};
    struct heard slow = {.ended = false};

    open_scene(&scene, state);
    silent.fd = dial(&scene);
    slow.fd = dial(&scene);
    say(slow.fd, "GET /");
    loop_run_until(scene.loop, is_over, &silent);
    loop_run_until(scene.loop, is_over, &slow);
    assert_int_equal(silent.len + slow.len, 0);
    assert_int_equal(scene.answered, 0);
    close(silent.fd);
    close(slow.fd);
    close_scene(&scene);
}

static void test_clients_that_say_nothing_keep_nobody_out(void **state)
{
    struct scene scene;
    struct http_call answered;
    int silent[2 * CONNECTIONS];

    open_scene(&scene, state);
    scene.server.options.timeout_ms = 60 * 1000;
    for (size_t i = 0; i < 2 * CONNECTIONS; i++)
        silent[i] = dial(&scene);
    call(&scene, &answered, "GET", "/", 0);
    assert_int_equal(answered.status, 200);
    assert_true(scene.server.count <= CONNECTIONS);
    http_call_done(&answered);
    for (size_t i = 0; i < 2 * CONNECTIONS; i++)
        close(silent[i]);
    close_scene(&scene);
}

static void test_nonsense_is_answered_and_ends_the_connection(void **state)
{
    struct scene scene;
    struct heard heard = {.ended = false};

    open_scene(&scene, state);
    heard.fd = dial(&scene);
    say(heard.fd, "\x16\x03\x01 hello\r\n\r\nand more");
    loop_run_until(scene.loop, has_headed_on, &heard);
    assert_non_null(strstr(heard.text, "HTTP/1.1 400 Bad Request\r\n"));
    shutdown(heard.fd, SHUT_WR);
    loop_run_until(scene.loop, is_over, &heard);
    close(heard.fd);
    close_scene(&scene);
}

static void test_closes_in_the_middle_of_everything(void **state)
{
    struct scene scene;
    int silent;
    int asking;

    open_scene(&scene, state);
    silent = dial(&scene);
    asking = dial(&scene);
    say(asking, "GET /long HTTP/1.1\r\n\r\n");
    uv_run(scene.loop, UV_RUN_NOWAIT);
    uv_run(scene.loop, UV_RUN_NOWAIT);
    close_scene(&scene);
    close(silent);
    close(asking);
}

static bool is_closed(void *owner)
{
    return ((struct scene *)owner)->closed > 0;
}

static void test_may_be_closed_by_its_own_answer(void **state)
{
    struct scene scene;
    struct heard heard = {0};
    struct err err = ERR_INIT;

    open_scene(&scene, state);
    heard.fd = dial(&scene);
    say(heard.fd, "GET /close HTTP/1.1\r\n\r\n");
    loop_run_until(scene.loop, is_closed, &scene);
    loop_run_until(scene.loop, is_over, &heard);
    assert_int_equal(heard.len, 0);
    close(heard.fd);
    http_close(scene.http, NULL, NULL);
    loop_run(scene.loop);
    assert_int_equal(fs_remove_tree(scene.folder, &err), 0);
}

static void test_tcp(void **state)
{
    struct scene scene;
    struct server tcp = {0};
    struct sockaddr_in place;
    struct ended ended = {0};
    struct http_call answered = {0};
    struct err err = ERR_INIT;
    char url[64];
    struct http_request request = {
        .method = "GET", .url = url, .max_body = 100, .timeout_ms = 10000};
    int len = sizeof place;

    open_scene(&scene, state);
    assert_int_equal(server_start_tcp(&tcp, scene.loop, "127.0.0.1", ANY_PORT,
                                      options_of(&scene), &err),
                     0);
    assert_int_equal(
        uv_tcp_getsockname(&tcp.listener.tcp, (struct sockaddr *)&place, &len), 0);
    snprintf(url, sizeof url, "http://127.0.0.1:%u/metrics", ntohs(place.sin_port));
    http_start(&answered, scene.http, &request, ended_done, &ended);
    loop_run_until(scene.loop, ended_once, &ended);
    ended_assert_ok(&ended);
    assert_string_equal(buf_str(&answered.body), "GET /metrics 0");
    http_call_done(&answered);

    struct server same = {0};
    assert_int_equal(server_start_tcp(&same, scene.loop, "127.0.0.1",
                                      ntohs(place.sin_port), options_of(&scene), &err),
                     -1);
    assert_int_equal(err.code, EADDRINUSE);
    server_close(&same, NULL, NULL);
    assert_int_equal(
        server_start_tcp(&same, scene.loop, "nowhere", 1, options_of(&scene), &err), -1);
    assert_int_equal(err.kind, ERR_CONFIG);
    server_close(&same, NULL, NULL);
    server_close(&tcp, NULL, NULL);
    close_scene(&scene);
}

/* As `metrics.listen` may have it: without brackets by then. */
static void test_tcp_over_ipv6(void **state)
{
    struct scene scene;
    struct server tcp = {0};
    struct err err = ERR_INIT;

    open_scene(&scene, state);
    if (server_start_tcp(&tcp, scene.loop, "::1", ANY_PORT, options_of(&scene), &err) < 0)
        assert_true(err.code == EAFNOSUPPORT || err.code == EADDRNOTAVAIL);
    else
        assert_true(tcp.is_open);
    server_close(&tcp, NULL, NULL);
    close_scene(&scene);
}

/* Who connects while there is none is answered by the next. */
static void test_another_one_goes_on_at_the_same_place(void **state)
{
    struct scene scene;
    struct server_place place;
    struct heard heard = {0};
    struct err err = ERR_INIT;

    open_scene(&scene, state);
    place = server_hand_over(&scene.server);
    assert_true(place.is_there);
    server_close(&scene.server, on_closed, &scene);
    while (scene.closed == 0)
        uv_run(scene.loop, UV_RUN_ONCE);
    scene.closed = 0;
    heard.fd = dial(&scene);
    say(heard.fd, "GET /next HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_int_equal(
        server_take_over(&scene.server, scene.loop, &place, options_of(&scene), &err), 0);
    loop_run_until(scene.loop, is_over, &heard);
    assert_non_null(strstr(heard.text, "GET /next 0"));
    close(heard.fd);
    close_scene(&scene);
}

static void test_one_that_does_not_listen_hands_nothing_over(void **state)
{
    struct server none = {0};

    (void)state;
    assert_false(server_hand_over(&none).is_there);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        loop_test(test_answers_get_head_and_post),
        loop_test(test_socket_has_its_mode_and_takes_the_place_of_an_old_one),
        loop_test(test_nothing_but_a_socket_is_replaced),
        loop_test(test_a_place_that_cannot_be_listened_at_is_named),
        loop_test(test_refuses_a_body_that_is_too_long_and_says_so),
        loop_test(test_lets_a_client_go_on_that_asks_first),
        loop_test(test_silent_and_slow_clients_are_ended_by_the_clock),
        loop_test(test_clients_that_say_nothing_keep_nobody_out),
        loop_test(test_nonsense_is_answered_and_ends_the_connection),
        loop_test(test_closes_in_the_middle_of_everything),
        loop_test(test_may_be_closed_by_its_own_answer),
        loop_test(test_tcp),
        loop_test(test_tcp_over_ipv6),
        loop_test(test_another_one_goes_on_at_the_same_place),
        loop_test(test_one_that_does_not_listen_hands_nothing_over),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
