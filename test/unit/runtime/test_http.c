#include "runtime/http.h"

#include "base/text.h"

#include "base/secret.h"
#include "support/loop.h"
#include "support/server.h"

#include <curl/curl.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/pem.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <setjmp.h>

#include <cmocka.h>

enum { PARALLEL = 50, PATIENT_MS = 20000 };

#define OK_HEAD "HTTP/1.1 200 OK\r\n"
#define LINE_256                                                                         \
    "0123456789012345678901234567890123456789012345678901234567890123"                   \
    "0123456789012345678901234567890123456789012345678901234567890123"                   \
    "0123456789012345678901234567890123456789012345678901234567890123"                   \
    "0123456789012345678901234567890123456789012345678901234567890123"

static char long_line[200 * 1024];
static char long_header[100 * 1024];

static const struct server_script scripts[] = {
    {.path = "/hello",
     .answer = OK_HEAD "Content-Type: text/plain\r\nX-Padded: \t two words \t\r\n"
                       "X-Empty:\r\nX-Twice: one\r\nX-Twice: two\r\n"
                       "Content-Length: 5\r\n\r\nhello"},
    {.path = "/late", .answer = OK_HEAD "Content-Length: 4\r\n\r\nlate", .delay_ms = 30},
    {.path = "/head", .answer = OK_HEAD "Content-Length: 1000000\r\nX-Head: yes\r\n\r\n"},
    {.path = "/none", .answer = "HTTP/1.1 204 No Content\r\n\r\n"},
    {.path = "/missing",
     .answer = "HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\ngone"},
    {.path = "/broken",
     .answer = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\n\r\noops"},
    {.path = "/moved",
     .answer = "HTTP/1.1 302 Found\r\nLocation: /hello\r\nContent-Length: 0\r\n\r\n"},
    {.path = "/cookie", .answer = OK_HEAD "Set-Cookie: a=b\r\nContent-Length: 0\r\n\r\n"},
    {.path = "/chunked",
     .answer = OK_HEAD "Transfer-Encoding: chunked\r\n\r\n"
                       "5\r\nhello\r\n7\r\n, world\r\n0\r\n\r\n"},
    {.path = "/trailers",
     .answer = OK_HEAD "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"
                       "X-Trailer: late\r\n\r\n"},
    {.path = "/interim",
     .answer = "HTTP/1.1 103 Early Hints\r\nX-Early: yes\r\n\r\n" OK_HEAD
               "X-Final: yes\r\nContent-Length: 2\r\n\r\nok"},
    {.path = "/to-the-end",
     .answer = "HTTP/1.0 200 OK\r\n\r\nuntil it closes",
     .ending = SERVER_CLOSES},
    {.path = "/once",
     .answer = OK_HEAD "Content-Length: 4\r\n\r\nonce",
     .ending = SERVER_CLOSES},
    {.path = "/bytewise",
     .answer = OK_HEAD "Content-Length: 10\r\n\r\n0123456789",
     .pause_ms = 1},
    {.path = "/slow",
     .answer = OK_HEAD "Content-Length: 256\r\n\r\n" LINE_256,
     .pause_ms = 2},
    {.path = "/hang", .answer = "", .ending = SERVER_HANGS},
    {.path = "/hang-in-header", .answer = OK_HEAD "X-", .ending = SERVER_HANGS},
    {.path = "/hang-in-body",
     .answer = OK_HEAD "Content-Length: 10\r\n\r\n01234",
     .ending = SERVER_HANGS},
    {.path = "/empty", .answer = "", .ending = SERVER_CLOSES},
    {.path = "/reset", .answer = "", .ending = SERVER_RESETS},
    {.path = "/cut",
     .answer = OK_HEAD "Content-Length: 10\r\n\r\n01234",
     .ending = SERVER_CLOSES},
    {.path = "/cut-header", .answer = OK_HEAD "Content-Le", .ending = SERVER_CLOSES},
    {.path = "/cut-chunk",
     .answer = OK_HEAD "Transfer-Encoding: chunked\r\n\r\nff\r\n01234",
     .ending = SERVER_CLOSES},
    {.path = "/bad-chunk",
     .answer = OK_HEAD "Transfer-Encoding: chunked\r\n\r\nzz\r\n01234",
     .ending = SERVER_CLOSES},
    {.path = "/banner",
     .answer = "SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n",
     .ending = SERVER_CLOSES},
    {.path = "/flood", .answer = OK_HEAD "\r\n" LINE_256, .ending = SERVER_FLOODS},
    {.path = "/endless-interim",
     .answer = "HTTP/1.1 103 Early Hints\r\nX-Early: " LINE_256 "\r\n\r\n",
     .ending = SERVER_FLOODS},
    {.path = "/long-header", .answer = long_header, .ending = SERVER_HANGS},
    {.path = "/long-line", .answer = long_line, .ending = SERVER_HANGS},
    {.path = NULL, .answer = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"},
};

struct world {
    uv_loop_t loop;
    struct http *http;
    struct server *server;
    char folder[64];
    char url[256];
    char path[128];
    EVP_PKEY *key;
    X509 *certificate;
};

/* One call and what became of it. */
struct recorded {
    struct http_call call;
    struct world *world;
    struct err err;
    int times;
    bool starting;
    void (*then)(struct recorded *recorded);
    struct recorded *other;
};

/* ---- running ---- */

static void on_closed(void *owner)
{
    ++*(int *)owner;
}

static void run(struct world *world)
{
    loop_run(&world->loop);
}

static void on_done(void *owner, const struct err *err)
{
    struct recorded *recorded = owner;

    assert_false(recorded->starting);
    recorded->times++;
    if (err != NULL)
        recorded->err = *err;
    if (recorded->then != NULL)
        recorded->then(recorded);
}

static struct http_request get(struct world *world, const char *path)
{
    snprintf(world->url, sizeof world->url, "%s%s", server_url(world->server), path);
    return (struct http_request){
        .method = "GET", .url = world->url, .max_body = 1024, .timeout_ms = PATIENT_MS};
}

static void start(struct world *world, struct recorded *recorded,
                  const struct http_request *request)
{
    recorded->world = world;
    recorded->starting = true;
    http_start(&recorded->call, world->http, request, on_done, recorded);
    recorded->starting = false;
}

static void finish(struct recorded *recorded)
{
    assert_int_equal(recorded->times, 1);
    http_call_done(&recorded->call);
}

static void expect_answer(struct world *world, const struct http_request *request,
                          int status, const char *body)
{
    struct recorded recorded = {.times = 0};

    start(world, &recorded, request);
    run(world);
    if (recorded.err.kind != ERR_NONE)
        fail_msg("%s", recorded.err.message);
    assert_int_equal(recorded.call.status, status);
    assert_string_equal(buf_str(&recorded.call.body), body);
    finish(&recorded);
}

static void expect_error(struct world *world, const struct http_request *request,
                         enum err_kind kind, int code, const char *text)
{
    struct recorded recorded = {.times = 0};

    start(world, &recorded, request);
    run(world);
    if (recorded.err.kind != kind || strstr(recorded.err.message, text) == NULL)
        fail_msg("%s %s: expected \"%s\"", err_kind_name(recorded.err.kind),
                 recorded.err.message, text);
    assert_int_equal(recorded.err.code, code);
    assert_int_equal(recorded.call.status, 0);
    assert_null(recorded.call.body.data);
    assert_null(recorded.call.headers.data);
    assert_int_equal(recorded.times, 1); /* after a failure there is nothing to free */
}

static void make_long_answers(void)
{
    size_t len;

    len = (size_t)snprintf(long_line, sizeof long_line, OK_HEAD "X-Long: ");
    memset(long_line + len, 'x', sizeof long_line - 1 - len);
    len = (size_t)snprintf(long_header, sizeof long_header, OK_HEAD);
    while (len + 300 < sizeof long_header)
        len += (size_t)snprintf(long_header + len, sizeof long_header - len,
                                "X-Line: " LINE_256 "\r\n");
}

static int set_up_group(void **state)
{
    struct err err;

    (void)state;
    make_long_answers();
    setenv("http_proxy", "http://127.0.0.1:1", 1);
    setenv("HTTPS_PROXY", "http://127.0.0.1:1", 1);
    setenv("ALL_PROXY", "http://127.0.0.1:1", 1);
    setenv("SSLKEYLOGFILE", "/nonexistent/keys", 1);
    return http_setup(&err);
}

static int set_up_world(struct world *world)
{
    struct err err;

    if (uv_loop_init(&world->loop) != 0)
        return -1;
    world->http = http_new(&world->loop, &err);
    strcpy(world->folder, "/tmp/test-http-XXXXXX");
    if (world->http == NULL || mkdtemp(world->folder) == NULL)
        return -1;
    snprintf(world->path, sizeof world->path, "%s/socket", world->folder);
    return 0;
}

static int set_up(void **state)
{
    struct world *world = calloc(1, sizeof *world);

    *state = world;
    if (set_up_world(world) < 0)
        return -1;
    world->server = server_start(&(struct server_options){.scripts = scripts});
    return 0;
}

static int set_up_socket(void **state)
{
    struct world *world = calloc(1, sizeof *world);

    *state = world;
    if (set_up_world(world) < 0)
        return -1;
    world->server = server_start(
        &(struct server_options){.scripts = scripts, .unix_socket = world->path});
    return 0;
}

/* The path is then that of the trusted certificate. */
static int set_up_tls(void **state)
{
    struct world *world = calloc(1, sizeof *world);
    FILE *file;

    *state = world;
    if (set_up_world(world) < 0)
        return -1;
    server_make_certificate(&world->key, &world->certificate);
    world->server = server_start(&(struct server_options){
        .scripts = scripts,
        .tls_key = world->key,
        .tls_certificate = world->certificate,
    });
    file = fopen(world->path, "we");
    if (file == NULL || PEM_write_X509(file, world->certificate) != 1)
        return -1;
    return fclose(file);
}

static int tear_down(void **state)
{
    struct world *world = *state;
    int closed = 0;

    http_close(world->http, on_closed, &closed);
    assert_int_equal(closed, 0);
    run(world);
    assert_int_equal(closed, 1);
    assert_int_equal(uv_loop_close(&world->loop), 0);
    server_stop(world->server);
    EVP_PKEY_free(world->key);
    X509_free(world->certificate);
    unlink(world->path);
    assert_int_equal(rmdir(world->folder), 0);
    free(world);
    return 0;
}

/* ---- proxies: that of the environment is used by no test at all ---- */

static void test_a_named_proxy_is_asked(void **state)
{
    struct world *world = *state;
    struct recorded recorded = {.times = 0};
    struct http_request request = {.method = "GET",
                                   .url = "http://nowhere.example.test/hello",
                                   .proxy = server_url(world->server),
                                   .max_body = 100,
                                   .timeout_ms = PATIENT_MS};
    char text[1024];

    start(world, &recorded, &request);
    run(world);
    assert_int_equal(recorded.err.kind, ERR_NONE);
    assert_int_equal(recorded.call.status, 400); /* the path is a whole URL here */
    assert_true(text_starts_with(server_last_request(world->server, text, sizeof text),
                                 "GET http://nowhere.example.test/hello HTTP/1.1\r\n"));
    http_call_done(&recorded.call);
}

static void test_a_proxy_that_is_down_is_named(void **state)
{
    struct world *world = *state;
    struct recorded recorded = {.times = 0};
    struct http_request request = get(world, "/hello");
    char proxy[64];
    char part[128];

    snprintf(proxy, sizeof proxy, "http://127.0.0.1:%d", server_unused_port());
    snprintf(part, sizeof part, "/hello through %s: connection refused", proxy);
    request.proxy = proxy;
    start(world, &recorded, &request);
    run(world);
    assert_int_equal(recorded.err.kind, ERR_NET);
    assert_int_equal(recorded.err.code, ECONNREFUSED);
    assert_non_null(strstr(recorded.err.message, part));
}

static void test_hosts_without_a_proxy_are_reached_directly(void **state)
{
    struct world *world = *state;
    struct recorded recorded = {.times = 0};
    struct http_request request = get(world, "/hello");

    request.proxy = "http://127.0.0.1:1";
    request.no_proxy = "example.org,127.0.0.0/8";
    start(world, &recorded, &request);
    run(world);
    assert_int_equal(recorded.err.kind, ERR_NONE);
    assert_string_equal(buf_str(&recorded.call.body), "hello");
    http_call_done(&recorded.call);
}

/* ---- answers ---- */

static void test_get(void **state)
{
    struct world *world = *state;
    struct recorded recorded = {.times = 0};
    struct http_request request = get(world, "/hello");
    char text[64];

    start(world, &recorded, &request);
    run(world);
    assert_int_equal(recorded.err.kind, ERR_NONE);
    assert_int_equal(recorded.call.status, 200);
    assert_int_equal(recorded.call.body.len, 5);
    assert_string_equal(buf_str(&recorded.call.body), "hello");
    assert_ptr_equal(http_header(&recorded.call, "content-TYPE", text, sizeof text),
                     text);
    assert_string_equal(text, "text/plain");
    assert_non_null(http_header(&recorded.call, "X-Padded", text, sizeof text));
    assert_string_equal(text, "two words");
    assert_non_null(http_header(&recorded.call, "X-Padded", text, 4));
    assert_string_equal(text, "two");
    assert_non_null(http_header(&recorded.call, "X-Empty", text, sizeof text));
    assert_string_equal(text, "");
    assert_non_null(http_header(&recorded.call, "X-Twice", text, sizeof text));
    assert_string_equal(text, "one");
    assert_null(http_header(&recorded.call, "X-Pad", text, sizeof text));
    assert_null(http_header(&recorded.call, "HTTP/1.1 200 OK", text, sizeof text));
    finish(&recorded);
    http_call_done(&recorded.call); /* harmless */
}

static void test_zeroed_call(void **state)
{
    struct http_call call = {.status = 0};
    char text[8];

    (void)state;
    http_cancel(&call);
    assert_null(http_header(&call, "Date", text, sizeof text));
    http_call_done(&call);
}

static void test_answers(void **state)
{
    static const struct {
        const char *path;
        int status;
        const char *body;
    } cases[] = {
        {"/none", 204, ""},
        {"/missing", 404, "gone"},
        {"/broken", 500, "oops"},
        {"/moved", 302, ""},
        {"/chunked", 200, "hello, world"},
        {"/trailers", 200, "hello"},
        {"/interim", 200, "ok"},
        {"/to-the-end", 200, "until it closes"},
        {"/once", 200, "once"},
        {"/bytewise", 200, "0123456789"},
        {"/late?with=query", 200, "late"},
        {"/unknown", 400, ""},
    };
    struct world *world = *state;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct http_request request = get(world, cases[i].path);

        request.unix_socket = world->path;
        expect_answer(world, &request, cases[i].status, cases[i].body);
    }
}

static void test_answers_tcp(void **state)
{
    struct world *world = *state;
    struct http_request request = get(world, "/chunked");

    expect_answer(world, &request, 200, "hello, world");
    request = get(world, "/once");
    expect_answer(world, &request, 200, "once");
    expect_answer(world, &request, 200, "once");
}

static void test_interim_and_trailers(void **state)
{
    struct world *world = *state;
    struct recorded recorded = {.times = 0};
    struct http_request request = get(world, "/interim");
    char text[16];

    start(world, &recorded, &request);
    run(world);
    assert_string_equal(buf_str(&recorded.call.headers),
                        OK_HEAD "X-Final: yes\r\nContent-Length: 2\r\n\r\n");
    finish(&recorded);

    request = get(world, "/trailers");
    recorded = (struct recorded){.times = 0};
    start(world, &recorded, &request);
    run(world);
    assert_int_equal(recorded.err.kind, ERR_NONE);
    assert_null(http_header(&recorded.call, "X-Trailer", text, sizeof text));
    finish(&recorded);
}

static void test_head(void **state)
{
    struct world *world = *state;
    struct recorded recorded = {.times = 0};
    struct http_request request = get(world, "/head");
    char text[1024];

    request.method = "HEAD";
    request.max_body = 0;
    start(world, &recorded, &request);
    run(world);
    assert_int_equal(recorded.err.kind, ERR_NONE);
    assert_int_equal(recorded.call.status, 200);
    assert_int_equal(recorded.call.body.len, 0);
    assert_non_null(http_header(&recorded.call, "x-head", text, sizeof text));
    finish(&recorded);
    server_last_request(world->server, text, sizeof text);
    assert_ptr_equal(strstr(text, "HEAD /head HTTP/1.1\r\n"), text);
}

/* ---- requests ---- */

static void test_post(void **state)
{
    struct world *world = *state;
    const char *const headers[] = {"Content-Type: application/json", "X-Token: abc",
                                   NULL};
    struct http_request request = get(world, "/hello");
    char text[2048];

    request.method = "POST";
    request.headers = headers;
    request.body = "{\"a\":1}";
    request.body_len = 7;
    expect_answer(world, &request, 200, "hello");
    server_last_request(world->server, text, sizeof text);
    assert_ptr_equal(strstr(text, "POST /hello HTTP/1.1\r\n"), text);
    assert_non_null(strstr(text, "\r\nContent-Type: application/json\r\n"));
    assert_non_null(strstr(text, "\r\nX-Token: abc\r\n"));
    assert_non_null(strstr(text, "\r\nContent-Length: 7\r\n"));
    assert_non_null(
        strstr(text, "\r\nUser-Agent: cert-manager/" CERT_MANAGER_VERSION "\r\n"));
    assert_non_null(strstr(text, "\r\n\r\n{\"a\":1}"));
    assert_null(strcasestr(text, "expect:"));
    assert_null(strcasestr(text, "urlencoded"));
}

static void test_other_methods(void **state)
{
    struct world *world = *state;
    struct http_request request = get(world, "/hello");
    char text[2048];

    request.method = "POST"; /* without a body */
    expect_answer(world, &request, 200, "hello");
    server_last_request(world->server, text, sizeof text);
    assert_non_null(strstr(text, "\r\nContent-Length: 0\r\n"));
    assert_null(strcasestr(text, "content-type"));

    request.method = "PUT";
    request.body = "new";
    request.body_len = 3;
    expect_answer(world, &request, 200, "hello");
    server_last_request(world->server, text, sizeof text);
    assert_ptr_equal(strstr(text, "PUT /hello"), text);
    assert_non_null(strstr(text, "\r\n\r\nnew"));
}

static void test_big_body(void **state)
{
    enum { SIZE = 200 * 1024 };
    struct world *world = *state;
    struct http_request request = get(world, "/hello");
    char *body = malloc(SIZE);
    char *text = malloc(SIZE + 2048);

    memset(body, 'b', SIZE);
    request.method = "POST";
    request.body = body;
    request.body_len = SIZE;
    expect_answer(world, &request, 200, "hello");
    server_last_request(world->server, text, SIZE + 2048);
    assert_null(strcasestr(text, "expect:"));
    assert_int_equal(strlen(strstr(text, "\r\n\r\n") + 4), SIZE);
    free(body);
    free(text);
}

static void test_no_cookies(void **state)
{
    struct world *world = *state;
    struct http_request request = get(world, "/cookie");
    char text[2048];

    expect_answer(world, &request, 200, "");
    expect_answer(world, &request, 200, "");
    server_last_request(world->server, text, sizeof text);
    assert_null(strcasestr(text, "cookie:"));
}

/* ---- connections ---- */

static void test_reuse(void **state)
{
    struct world *world = *state;
    struct http_request request = get(world, "/hello");

    for (int i = 0; i < 5; i++)
        expect_answer(world, &request, 200, "hello");
    assert_int_equal(server_connections(world->server), 1);
    assert_int_equal(server_requests(world->server), 5);
    request.method = "POST";
    for (int i = 0; i < 3; i++)
        expect_answer(world, &request, 200, "hello");
    assert_int_equal(server_connections(world->server), 4);
}

/* The server ends an idle connection: the next GET takes another one. A POST that gets no
 * answer is sent once. */
static void test_not_sent_twice(void **state)
{
    struct world *world = *state;
    struct http_request request = get(world, "/once");

    expect_answer(world, &request, 200, "once");
    expect_answer(world, &request, 200, "once");
    request = get(world, "/hello");
    expect_answer(world, &request, 200, "hello");
    assert_int_equal(server_requests(world->server), 3);
    request = get(world, "/empty");
    request.method = "POST";
    expect_error(world, &request, ERR_PEER, 0, "/empty: ");
    assert_int_equal(server_requests(world->server), 4);
}

static void test_parallel(void **state)
{
    static const char *const paths[] = {"/hello", "/late", "/bytewise", "/once",
                                        "/chunked"};
    struct world *world = *state;
    struct recorded *recorded = calloc(PARALLEL, sizeof *recorded);
    char urls[5][256];

    for (size_t i = 0; i < PARALLEL; i++) {
        struct http_request request = get(world, paths[i % 5]);

        strcpy(urls[i % 5], request.url);
        request.url = urls[i % 5];
        start(world, &recorded[i], &request);
    }
    run(world);
    for (size_t i = 0; i < PARALLEL; i++) {
        assert_int_equal(recorded[i].err.kind, ERR_NONE);
        assert_int_equal(recorded[i].call.status, 200);
        assert_int_equal(recorded[i].call.body.len,
                         strlen((const char *[]){"hello", "late", "0123456789", "once",
                                                 "hello, world"}[i % 5]));
        finish(&recorded[i]);
    }
    assert_int_equal(server_requests(world->server), PARALLEL);
    free(recorded);
}

static void test_two_on_one_loop(void **state)
{
    struct world *world = *state;
    struct err err;
    struct http *first = world->http;
    struct http *second = http_new(&world->loop, &err);
    struct http_request request = get(world, "/hello");
    struct recorded recorded[2] = {{.times = 0}};

    assert_non_null(second);
    start(world, &recorded[0], &request);
    world->http = second;
    start(world, &recorded[1], &request);
    world->http = first;
    run(world);
    assert_int_equal(server_connections(world->server), 2);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(recorded[i].err.kind, ERR_NONE);
        finish(&recorded[i]);
    }
    http_close(second, NULL, NULL);
    run(world);
}

static bool is_close_on_exec(int fd)
{
    return (fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0;
}

static void check_descriptors(struct recorded *recorded)
{
    (void)recorded;
    for (int fd = 3; fd < 256; fd++) {
        struct stat st;

        if (fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode)) {
            struct sockaddr_storage address;
            socklen_t len = sizeof address;

            getsockname(fd, (struct sockaddr *)&address, &len);
            if (address.ss_family == AF_INET)
                assert_true(is_close_on_exec(fd));
        }
    }
}

static void test_close_on_exec(void **state)
{
    struct world *world = *state;
    struct http_request request = get(world, "/hello");
    struct recorded recorded = {.then = check_descriptors};

    start(world, &recorded, &request);
    run(world);
    finish(&recorded);
}

/* ---- not reached ---- */

static void test_no_such_socket(void **state)
{
    struct world *world = *state;
    struct http_request request = get(world, "/hello");
    char expected[512];

    request.url = "http://localhost/GetKey";
    request.unix_socket = world->path;
    snprintf(expected, sizeof expected,
             "GET http://localhost/GetKey through %s: no such socket", world->path);
    expect_error(world, &request, ERR_NET, ENOENT, expected);
}

static void test_socket_without_listener(void **state)
{
    struct world *world = *state;
    struct http_request request = get(world, "/hello");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    strcpy(address.sun_path, world->path);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    request.unix_socket = world->path;
    expect_error(world, &request, ERR_NET, ECONNREFUSED, "connection refused");
    close(fd);
    expect_error(world, &request, ERR_NET, ECONNREFUSED, world->path);
}

/* connect(2) of a unix socket does not wait for a place in the queue. */
static void test_socket_with_full_queue(void **state)
{
    struct world *world = *state;
    struct http_request request = get(world, "/hello");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int waiting = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    strcpy(address.sun_path, world->path);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(listener, 0), 0);
    assert_int_equal(connect(waiting, (struct sockaddr *)&address, sizeof address), 0);
    request.unix_socket = world->path;
    request.timeout_ms = 300;
    expect_error(world, &request, ERR_NET, EAGAIN, "the socket takes no more");
    close(waiting);
    close(listener);
}

static void test_refused(void **state)
{
    struct world *world = *state;
    struct http_request request = get(world, "/hello");
    char expected[512];

    snprintf(world->url, sizeof world->url, "http://127.0.0.1:%d/x",
             server_unused_port());
    snprintf(expected, sizeof expected, "GET %s: connection refused", world->url);
    expect_error(world, &request, ERR_NET, ECONNREFUSED, expected);
}

static void test_name(void **state)
{
    struct world *world = *state;
    struct http_request request = get(world, "/hello");

    request.url = "http://no-such-name.invalid/x";
    expect_error(world, &request, ERR_NET, 0,
                 "GET http://no-such-name.invalid/x: the host name does not resolve");
}

static void test_no_descriptors(void **state)
{
    struct world *world = *state;
    struct http_request request = get(world, "/hello");
    struct rlimit old;
    struct rlimit none;

    expect_answer(world, &request, 200, "hello"); /* whatever libraries open at first */
    request.method = "POST";
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    /* The three that are always open. With fewer the server could not poll(2) its two. */
    none = (struct rlimit){.rlim_cur = 3, .rlim_max = old.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    expect_error(world, &request, ERR_SYS, EMFILE, "cannot open a socket");
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    expect_answer(world, &request, 200, "hello");
}

static void test_bad_requests(void **state)
{
    struct world *world = *state;
    struct http_request request = get(world, "/hello");
    const char *const headers[] = {"X-Token: secret\r\nX-Forged: 1", NULL};
    char path[200];

    request.url = "ftp://127.0.0.1/x";
    expect_error(world, &request, ERR_CONFIG, 0, "\"ftp://127.0.0.1/x\" is not an http");
    request.url = "file:///etc/passwd";
    expect_error(world, &request, ERR_CONFIG, 0, "is not an http");
    request.url = "";
    expect_error(world, &request, ERR_CONFIG, 0, "is not an http");
    request.url = "http://user:word@host:99999/";
    expect_error(world, &request, ERR_CONFIG, 0, "(not shown)");

    memset(path, 'p', sizeof path);
    path[sizeof path - 1] = '\0';
    request = get(world, "/hello");
    request.unix_socket = path;
    expect_error(world, &request, ERR_CONFIG, ENAMETOOLONG, "at most 107 bytes");

    request = get(world, "/hello");
    request.headers = headers;
    expect_error(world, &request, ERR_CONFIG, 0, "header X-Token holds a line break");
}

static void test_secrets_of_url(void **state)
{
    struct world *world = *state;
    struct http_request request = get(world, "/hello");
    struct recorded recorded = {.times = 0};
    int port = server_unused_port();
    char expected[128];

    snprintf(world->url, sizeof world->url, "http://me:word@127.0.0.1:%d/x?key=word#word",
             port);
    snprintf(expected, sizeof expected, "GET http://127.0.0.1:%d/x: ", port);
    start(world, &recorded, &request);
    run(world);
    assert_ptr_equal(strstr(recorded.err.message, expected), recorded.err.message);
    assert_null(strstr(recorded.err.message, "word"));
    finish(&recorded);
}

/* ---- bad answers ---- */

static void test_bad_answers(void **state)
{
    static const struct {
        const char *path;
        const char *text;
    } cases[] = {
        {"/empty", "closed without an answer"},
        {"/cut", "cut short"},
        {"/cut-header", "the header of the answer is cut short"},
        {"/cut-chunk", "/cut-chunk: "},
        {"/bad-chunk", "/bad-chunk: "},
        {"/banner", "the answer is not HTTP"},
        {"/flood", "the answer is too long: more than 1024 bytes"},
        {"/endless-interim", "the header of the answer is longer than 65536 bytes"},
        {"/long-header", "the header of the answer is longer than 65536 bytes"},
        {"/long-line", "a header line of the answer is too long"},
    };
    struct world *world = *state;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct http_request request = get(world, cases[i].path);

        expect_error(world, &request, ERR_PEER, 0, cases[i].text);
    }
}

static void test_bad_answers_socket(void **state)
{
    static const char *const paths[] = {"/empty", "/reset",     "/cut",
                                        "/flood", "/bad-chunk", "/banner"};
    struct world *world = *state;

    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        struct http_request request = get(world, paths[i]);

        request.unix_socket = world->path;
        expect_error(world, &request, ERR_PEER, 0, world->path);
    }
}

static void test_reset(void **state)
{
    struct world *world = *state;
    struct http_request request = get(world, "/reset");

    expect_error(world, &request, ERR_PEER, 0, "the answer cannot be read to its end");
}

static void test_body_limit(void **state)
{
    struct world *world = *state;
    struct http_request request = get(world, "/hello");

    request.max_body = 5;
    expect_answer(world, &request, 200, "hello");
    request.max_body = 4;
    expect_error(world, &request, ERR_PEER, 0, "more than 4 bytes");
    request.max_body = 0;
    expect_error(world, &request, ERR_PEER, 0, "more than 0 bytes");
    request = get(world, "/none");
    request.max_body = 0;
    expect_answer(world, &request, 204, "");
    request = get(world, "/chunked");
    request.max_body = 11;
    expect_error(world, &request, ERR_PEER, 0, "more than 11 bytes");
}

/* ---- timeouts ---- */

static void test_timeouts(void **state)
{
    static const struct {
        const char *path;
        const char *text;
    } cases[] = {
        {"/hang", "/hang: no answer after 60 ms"},
        {"/hang-in-header", "the answer is not complete after 60 ms"},
        {"/hang-in-body", "the answer is not complete after 60 ms"},
        {"/slow", "the answer is not complete after 250 ms"},
    };
    struct world *world = *state;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct http_request request = get(world, cases[i].path);
        uint64_t before = uv_hrtime();

        request.timeout_ms = i == 3 ? 250 : 60;
        expect_error(world, &request, ERR_TIMEOUT, 0, cases[i].text);
        assert_true(uv_hrtime() - before < (uint64_t)5000 * 1000 * 1000);
    }
}

/* A listener whose queue is full drops what asks for a connection. */
static void test_connect_timeout(void **state)
{
    struct world *world = *state;
    struct http_request request = get(world, "/hello");
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int waiting[8];
    struct sockaddr_storage address = {.ss_family = AF_INET};
    socklen_t len = sizeof address;
    char host[128];

    assert_int_equal(listen(listener, 0), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &len), 0);
    for (size_t i = 0; i < 8; i++) {
        waiting[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        (void)!connect(waiting[i], (struct sockaddr *)&address, len);
    }
    uv_ip4_name((struct sockaddr_in *)&address, host, sizeof host);
    snprintf(world->url, sizeof world->url, "http://127.0.0.1:%d/",
             ntohs(((struct sockaddr_in *)&address)->sin_port));
    request.timeout_ms = 100;
    expect_error(world, &request, ERR_TIMEOUT, 0, ": no connection after 100 ms");
    for (size_t i = 0; i < 8; i++)
        close(waiting[i]);
    close(listener);
}

static void test_many_timeouts(void **state)
{
    struct world *world = *state;
    struct recorded *recorded = calloc(PARALLEL, sizeof *recorded);

    for (size_t i = 0; i < PARALLEL; i++) {
        struct http_request request = get(world, "/hang");

        request.timeout_ms = 20 + (unsigned)i;
        start(world, &recorded[i], &request);
    }
    run(world);
    for (size_t i = 0; i < PARALLEL; i++) {
        assert_int_equal(recorded[i].err.kind, ERR_TIMEOUT);
        finish(&recorded[i]);
    }
    free(recorded);
}

/* ---- libcurl without memory ---- */

/* The one after that many, of libcurl's own actions, does nothing and says so. */
static unsigned actions_left = UINT_MAX;

/* In place of libcurl's. */
CURLMcode __attribute__((weak)) curl_multi_socket_action(CURLM *multi, curl_socket_t fd,
                                                         int flags, int *running)
{
    static CURLMcode (*real)(CURLM *, curl_socket_t, int, int *);

    if (real == NULL) {
        void *found = dlsym(RTLD_NEXT, "curl_multi_socket_action");
        memcpy(&real, &found, sizeof real);
    }
    if (actions_left-- == 0)
        return CURLM_OUT_OF_MEMORY;
    return real(multi, fd, flags, running);
}

/* It asks for no timer then, and nothing would ever end the call. */
static void test_a_call_that_libcurl_gives_up_ends(void **state)
{
    struct world *world = *state;

    for (unsigned actions = 0; actions < 6; actions++) {
        struct http_request request = get(world, actions % 2 == 0 ? "/hello" : "/hang");
        struct recorded recorded = {0};

        request.timeout_ms = 300;
        start(world, &recorded, &request);
        actions_left = actions;
        run(world);
        actions_left = UINT_MAX;
        assert_int_equal(recorded.times, 1);
        finish(&recorded);
    }
}

/* ---- TLS ---- */

static void test_tls(void **state)
{
    struct world *world = *state;
    struct http_request request = get(world, "/hello");

    assert_null(getenv("SSLKEYLOGFILE"));
    setenv("SSL_CERT_FILE", world->path, 1);
    setenv("CURL_CA_BUNDLE", world->path, 1);
    expect_error(world, &request, ERR_NET, 0, "certificate is not trusted (");
    unsetenv("SSL_CERT_FILE");
    unsetenv("CURL_CA_BUNDLE");
    request.ca_bundle = world->path;
    expect_answer(world, &request, 200, "hello");
    expect_answer(world, &request, 200, "hello");
    request.ca_bundle = NULL; /* trust is a property of the call, not of the connection */
    expect_error(world, &request, ERR_NET, 0, "certificate is not trusted (");
    request = get(world, "/cut");
    request.ca_bundle = world->path;
    expect_error(world, &request, ERR_PEER, 0, "/cut: ");
}

static void test_tls_bundle(void **state)
{
    struct world *world = *state;
    struct http_request request = get(world, "/hello");
    EVP_PKEY *key;
    X509 *certificate;
    char fifo[256];
    FILE *file;

    request.ca_bundle = "/nonexistent/bundle.pem";
    expect_error(world, &request, ERR_CONFIG, 0, "/nonexistent/bundle.pem");
    /* To wait for somebody who writes to it would be for ever. */
    snprintf(fifo, sizeof fifo, "%s/fifo", world->folder);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    request.ca_bundle = fifo;
    expect_error(world, &request, ERR_CONFIG, 0, "not a regular file");
    assert_int_equal(unlink(fifo), 0);
    request.ca_bundle = world->path;
    /* The file changes: what it says now holds. */
    expect_answer(world, &request, 200, "hello");
    server_make_certificate(&key, &certificate);
    file = fopen(world->path, "we");
    assert_int_equal(PEM_write_X509(file, certificate), 1);
    fclose(file);
    request.method = "POST";
    expect_error(world, &request, ERR_NET, 0, "certificate is not trusted (");
    EVP_PKEY_free(key);
    X509_free(certificate);
}

static void test_tls_name(void **state)
{
    struct world *world = *state;
    struct http_request request = get(world, "/hello");
    char socket_path[128];
    struct server *server;

    snprintf(socket_path, sizeof socket_path, "%s/tls", world->folder);
    server = server_start(&(struct server_options){
        .scripts = scripts,
        .unix_socket = socket_path,
        .tls_key = world->key,
        .tls_certificate = world->certificate,
    });
    request.ca_bundle = world->path;
    request.unix_socket = socket_path;
    request.url = "https://localhost/hello";
    expect_answer(world, &request, 200, "hello");
    request.url = "https://other.example/hello";
    expect_error(world, &request, ERR_NET, 0, "certificate is not trusted (");
    server_stop(server);
}

static void test_tls_without_tls(void **state)
{
    struct world *world = *state;
    struct http_request request = get(world, "/hello");
    char url[128];

    snprintf(url, sizeof url, "https%s", strchr(request.url, ':'));
    request.url = url;
    request.timeout_ms = 200; /* the server waits for the end of the request */
    expect_error(world, &request, ERR_TIMEOUT, 0, "no connection after");
}

static void *answer_without_tls(void *data)
{
    static const char answer[] = "HTTP/1.1 400 Bad Request\r\n\r\n";
    int fd = accept4(*(int *)data, NULL, NULL, SOCK_CLOEXEC);
    char hello[4096];

    (void)!recv(fd, hello, sizeof hello, 0);
    (void)!send(fd, answer, sizeof answer - 1, MSG_NOSIGNAL);
    close(fd);
    return NULL;
}

static void test_tls_handshake(void **state)
{
    struct world *world = *state;
    struct http_request request = get(world, "/hello");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    pthread_t thread;

    strcpy(address.sun_path, world->path);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(pthread_create(&thread, NULL, answer_without_tls, &listener), 0);
    request.unix_socket = world->path;
    request.url = "https://localhost/x";
    expect_error(world, &request, ERR_NET, 0, "the TLS handshake failed (");
    pthread_join(thread, NULL);
    close(listener);
}

static void test_plain_to_tls(void **state)
{
    struct world *world = *state;
    struct http_request request = get(world, "/hello");
    char url[128];

    snprintf(url, sizeof url, "http%s", strchr(request.url, ':'));
    request.url = url;
    expect_error(world, &request, ERR_PEER, 0, url);
}

/* ---- cancel ---- */

static void test_cancel_at_once(void **state)
{
    struct world *world = *state;
    struct recorded recorded = {.times = 0};
    struct http_request request = get(world, "/hello");

    start(world, &recorded, &request);
    http_cancel(&recorded.call);
    http_cancel(&recorded.call);
    assert_int_equal(recorded.times, 0);
    run(world);
    assert_int_equal(recorded.err.kind, ERR_CANCELED);
    assert_non_null(strstr(recorded.err.message, "/hello: canceled"));
    finish(&recorded);
    http_cancel(&recorded.call);
    run(world);
    assert_int_equal(recorded.times, 1);
}

static void test_cancel_failed_start(void **state)
{
    struct world *world = *state;
    struct recorded recorded = {.times = 0};
    struct http_request request = get(world, "/hello");

    request.url = "nonsense://";
    start(world, &recorded, &request);
    http_cancel(&recorded.call);
    run(world);
    assert_int_equal(recorded.err.kind, ERR_CANCELED);
    finish(&recorded);
}

/* Cancel after 0, 1, 2 … rounds of the loop, until the call is over before that. */
static void cancel_everywhere(struct world *world, const struct http_request *request)
{
    bool canceled = true;
    int round = 0;

    for (; canceled && round < 10000; round++) {
        struct recorded recorded = {.times = 0};

        start(world, &recorded, request);
        for (int i = 0; i < round && recorded.times == 0; i++)
            uv_run(&world->loop, UV_RUN_ONCE);
        canceled = recorded.times == 0;
        http_cancel(&recorded.call);
        assert_int_equal(recorded.times, canceled ? 0 : 1);
        run(world);
        assert_int_equal(recorded.err.kind, canceled ? ERR_CANCELED : ERR_NONE);
        finish(&recorded);
    }
    assert_true(round > 1);
    assert_false(canceled);
}

static void test_cancel_everywhere(void **state)
{
    struct world *world = *state;
    struct http_request request = get(world, "/hello");

    cancel_everywhere(world, &request);
    request.method = "POST";
    cancel_everywhere(world, &request);
    request = get(world, "/bytewise");
    cancel_everywhere(world, &request);
}

static void test_cancel_everywhere_tls(void **state)
{
    struct world *world = *state;
    struct http_request request = get(world, "/hello");

    request.ca_bundle = world->path;
    request.method = "POST";
    cancel_everywhere(world, &request);
}

static void test_cancel_name(void **state)
{
    struct world *world = *state;
    struct http_request request = get(world, "/hello");

    request.url = "http://no-such-name.invalid/x";
    for (int round = 0; round < 5; round++) {
        struct recorded recorded = {.times = 0};

        start(world, &recorded, &request);
        for (int i = 0; i < round; i++)
            uv_run(&world->loop, UV_RUN_NOWAIT);
        http_cancel(&recorded.call);
        run(world);
        if (recorded.err.kind != ERR_CANCELED) /* over before that */
            assert_int_equal(recorded.err.kind, ERR_NET);
        finish(&recorded);
    }
}

static void test_cancel_many(void **state)
{
    struct world *world = *state;
    struct recorded *recorded = calloc(PARALLEL, sizeof *recorded);
    struct http_request request = get(world, "/hang");

    for (size_t i = 0; i < PARALLEL; i++)
        start(world, &recorded[i], &request);
    for (size_t i = 0; i < 2 * PARALLEL; i++)
        uv_run(&world->loop, UV_RUN_NOWAIT);
    for (size_t i = 0; i < PARALLEL; i++)
        http_cancel(&recorded[PARALLEL - 1 - i].call);
    run(world);
    for (size_t i = 0; i < PARALLEL; i++) {
        assert_int_equal(recorded[i].err.kind, ERR_CANCELED);
        finish(&recorded[i]);
    }
    free(recorded);
}

/* ---- from within done ---- */

static void cancel_other(struct recorded *recorded)
{
    http_cancel(&recorded->call);
    http_cancel(&recorded->other->call);
}

/* The other one may be running, or over with its done still to come. */
static void test_cancel_other(void **state)
{
    struct world *world = *state;
    struct recorded first = {.then = cancel_other};
    struct recorded second = {.then = cancel_other, .other = &first};
    struct http_request request = get(world, "/late");

    first.other = &second;
    start(world, &first, &request);
    start(world, &second, &request);
    run(world);
    if (first.err.kind == ERR_NONE)
        assert_int_equal(second.err.kind, ERR_CANCELED);
    else
        assert_int_equal(second.err.kind, ERR_NONE);
    finish(&first);
    finish(&second);

    request.url = "bad://";
    first = (struct recorded){.then = cancel_other, .other = &second};
    second = (struct recorded){.other = NULL};
    start(world, &first, &request);
    start(world, &second, &request);
    run(world);
    assert_int_equal(first.err.kind, ERR_CONFIG);
    assert_int_equal(second.err.kind, ERR_CANCELED);
    finish(&first);
    finish(&second);
}

static int chain_left;

static void start_next(struct recorded *recorded)
{
    struct http_request request = get(recorded->world, "/hello");

    http_call_done(&recorded->call);
    if (--chain_left > 0)
        start(recorded->world, recorded, &request);
}

static void start_next_failing(struct recorded *recorded)
{
    struct http_request request = get(recorded->world, "/hello");

    http_call_done(&recorded->call);
    request.url = "bad://";
    if (--chain_left > 0)
        start(recorded->world, recorded, &request);
}

static void test_chain(void **state)
{
    struct world *world = *state;
    struct recorded recorded = {.then = start_next};
    struct http_request request = get(world, "/hello");

    chain_left = 20;
    start(world, &recorded, &request);
    run(world);
    assert_int_equal(recorded.times, 20);
    assert_int_equal(recorded.err.kind, ERR_NONE);
    assert_int_equal(server_requests(world->server), 20);

    recorded = (struct recorded){.then = start_next_failing};
    chain_left = 20;
    start(world, &recorded, &request);
    run(world);
    assert_int_equal(recorded.times, 20);
    assert_int_equal(recorded.err.kind, ERR_CONFIG);
}

static void free_it(struct recorded *recorded)
{
    http_call_done(&recorded->call);
    memset(recorded, 0xff, sizeof *recorded);
    free(recorded);
}

static void test_free_in_done(void **state)
{
    struct world *world = *state;
    struct http_request request = get(world, "/hello");
    struct recorded *recorded;

    for (int i = 0; i < 3; i++) {
        recorded = calloc(1, sizeof *recorded);
        recorded->then = free_it;
        start(world, recorded, &request);
        if (i == 0)
            http_cancel(&recorded->call);
        if (i == 1)
            request.url = "bad://";
    }
    run(world);
}

static int closed_in_done;

static void close_it(struct recorded *recorded)
{
    http_close(recorded->world->http, on_closed, &closed_in_done);
}

static void test_close_in_done(void **state)
{
    static const char *const paths[] = {"/hello", "/cut"};
    struct world *world = *state;
    struct err err;

    for (int i = 0; i < 2; i++) {
        struct recorded recorded = {.then = close_it};
        struct http_request request = get(world, paths[i]);

        closed_in_done = 0;
        start(world, &recorded, &request);
        run(world);
        assert_int_equal(closed_in_done, 1);
        finish(&recorded);
        world->http = http_new(&world->loop, &err);
        assert_non_null(world->http);
    }
}

#define IN(set, name) cmocka_unit_test_setup_teardown(name, set, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN(set_up, test_get),
        IN(set_up, test_a_named_proxy_is_asked),
        IN(set_up, test_a_proxy_that_is_down_is_named),
        IN(set_up, test_hosts_without_a_proxy_are_reached_directly),
        cmocka_unit_test(test_zeroed_call),
        IN(set_up_socket, test_answers),
        IN(set_up, test_answers_tcp),
        IN(set_up, test_interim_and_trailers),
        IN(set_up, test_head),
        IN(set_up, test_post),
        IN(set_up, test_other_methods),
        IN(set_up, test_big_body),
        IN(set_up, test_no_cookies),
        IN(set_up, test_reuse),
        IN(set_up, test_not_sent_twice),
        IN(set_up, test_parallel),
        IN(set_up, test_two_on_one_loop),
        IN(set_up, test_close_on_exec),
        IN(set_up, test_no_such_socket),
        IN(set_up, test_socket_without_listener),
        IN(set_up, test_socket_with_full_queue),
        IN(set_up, test_refused),
        IN(set_up, test_name),
        IN(set_up, test_no_descriptors),
        IN(set_up, test_bad_requests),
        IN(set_up, test_secrets_of_url),
        IN(set_up, test_bad_answers),
        IN(set_up_socket, test_bad_answers_socket),
        IN(set_up, test_reset),
        IN(set_up, test_body_limit),
        IN(set_up, test_timeouts),
        IN(set_up, test_connect_timeout),
        IN(set_up, test_many_timeouts),
        IN(set_up, test_a_call_that_libcurl_gives_up_ends),
        IN(set_up_tls, test_tls),
        IN(set_up_tls, test_tls_bundle),
        IN(set_up_tls, test_tls_name),
        IN(set_up, test_tls_without_tls),
        IN(set_up, test_tls_handshake),
        IN(set_up_tls, test_plain_to_tls),
        IN(set_up, test_cancel_at_once),
        IN(set_up, test_cancel_failed_start),
        IN(set_up, test_cancel_everywhere),
        IN(set_up_tls, test_cancel_everywhere_tls),
        IN(set_up, test_cancel_name),
        IN(set_up, test_cancel_many),
        IN(set_up, test_cancel_other),
        IN(set_up, test_chain),
        IN(set_up, test_free_in_done),
        IN(set_up, test_close_in_done),
    };

    return cmocka_run_group_tests_name("http", tests, set_up_group, NULL);
}
