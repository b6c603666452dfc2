#include "adapters/renewal_info.h"

#include "support/loop.h"
#include "support/program.h"
#include "support/server.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ID "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE"
#define HEAD(status, more) "HTTP/1.1 " status "\r\nConnection: close\r\n" more "\r\n"
#define WINDOW                                                                           \
    "{\"suggestedWindow\":{\"start\":\"2026-11-23T18:49:07Z\","                          \
    "\"end\":\"2026-11-24T18:49:07Z\"},\"explanationURL\":\"https://ca.test/why\"}"

enum { ANSWER_SIZE = 32 * 1024 };

/* A CA that answers each of the two questions with one text. */
struct fixture {
    uv_loop_t *loop;
    struct http *http;
    struct server *server;
    char directory_answer[ANSWER_SIZE];
    char window_answer[ANSWER_SIZE];
    struct server_script scripts[4];
    char directory[128];
    struct authority authority;
    struct renewal_info_request request;
    struct renewal_info_call call;
    struct ended ended;
};

/* What the directory says of renewal information; `member` may be "". */
static void offer(struct fixture *f, const char *member)
{
    snprintf(f->directory_answer, sizeof f->directory_answer,
             HEAD("200 OK", "") "{\"newNonce\":\"%s/n\",\"newAccount\":\"%s/a\"%s}",
             server_url(f->server), server_url(f->server), member);
}

static void offer_at(struct fixture *f, const char *path)
{
    char member[256];

    snprintf(member, sizeof member, ",\"renewalInfo\":\"%s%s\"", server_url(f->server),
             path);
    offer(f, member);
}

static void answer(struct fixture *f, const char *text)
{
    snprintf(f->window_answer, sizeof f->window_answer, "%s", text);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    struct server_options options = {.scripts = NULL};
    struct err err = ERR_INIT;
    void *loop = NULL;

    assert_non_null(f);
    loop_setup(&loop);
    f->loop = loop;
    f->http = http_new(f->loop, &err);
    assert_non_null(f->http);
    f->scripts[0] =
        (struct server_script){"/dir", f->directory_answer, 0, 0, SERVER_CLOSES};
    f->scripts[1] =
        (struct server_script){"/ri/" ID, f->window_answer, 0, 0, SERVER_CLOSES};
    f->scripts[2] =
        (struct server_script){NULL, HEAD("500 Lost", ""), 0, 0, SERVER_CLOSES};
    options.scripts = f->scripts;
    f->server = server_start(&options);
    offer_at(f, "/ri");
    answer(f, HEAD("200 OK", "Retry-After: 21600\r\n") WINDOW);
    snprintf(f->directory, sizeof f->directory, "%s/dir", server_url(f->server));
    f->authority.directory = f->directory;
    f->request = (struct renewal_info_request){
        .http = f->http,
        .loop = f->loop,
        .authority = &f->authority,
        .id = ID,
    };
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    void *loop = f->loop;

    server_stop(f->server);
    http_close(f->http, NULL, NULL);
    loop_run(f->loop);
    free(f);
    return loop_teardown(&loop);
}

static void run(struct fixture *f)
{
    f->ended = (struct ended){0};
    renewal_info_start(&f->call, &f->request, ended_done, &f->ended);
    assert_int_equal(f->ended.times, 0);
    loop_run_until(f->loop, ended_once, &f->ended);
}

static void expect_failure(struct fixture *f, enum err_kind kind, int code, bool lasting,
                           const char *part)
{
    run(f);
    ended_assert_failed(&f->ended, kind, part);
    ended_assert_failed(&f->ended, kind, f->authority.directory);
    assert_int_equal(f->ended.err.code, code);
    assert_int_equal(f->call.lasting, lasting);
}

/* ---- answers ---- */

static void expect_window(struct fixture *f)
{
    run(f);
    ended_assert_ok(&f->ended);
    assert_true(f->call.offered);
    assert_int_equal(f->call.info.window.start, INT64_C(1795459747));
    assert_int_equal(f->call.info.window.end, INT64_C(1795459747) + 86400);
    assert_string_equal(f->call.info.explanation, "https://ca.test/why");
}

static void the_window_is_asked_for_where_the_directory_says(void **state)
{
    struct fixture *f = *state;
    char request[512];

    expect_window(f);
    assert_int_equal(f->call.retry_after_s, 21600);
    server_last_request(f->server, request, sizeof request);
    assert_int_equal(strncmp(request, "GET /ri/" ID " HTTP/1.1\r\n",
                             strlen("GET /ri/" ID " HTTP/1.1\r\n")),
                     0);
    assert_int_equal(server_requests(f->server), 2);
}

static void a_slash_at_the_end_of_the_resource_is_not_doubled(void **state)
{
    struct fixture *f = *state;

    offer_at(f, "/ri/");
    expect_window(f);
}

static void a_ca_need_not_offer_it(void **state)
{
    struct fixture *f = *state;

    offer(f, "");
    run(f);
    ended_assert_ok(&f->ended);
    assert_false(f->call.offered);
    assert_int_equal(server_requests(f->server), 1);
    offer(f, ",\"renewalInfo\":7");
    run(f);
    ended_assert_ok(&f->ended);
    assert_false(f->call.offered);
}

/* ---- failures ---- */

static void a_refusal_lasts_but_not_one_of_a_ca_in_trouble(void **state)
{
    struct fixture *f = *state;

    answer(
        f,
        HEAD(
            "404 Not Found",
            "") "{\"type\":\"urn:ietf:params:acme:error:malformed\",\"detail\":\"who?"
                "\"}");
    expect_failure(f, ERR_PEER, 404, true,
                   "get window: renewalInfo: HTTP status 404 (malformed): who?");
    assert_int_equal(f->call.retry_after_s, 0);
    answer(f, HEAD("301 Moved", "Location: /elsewhere\r\n"));
    expect_failure(f, ERR_PEER, 301, true, "HTTP status 301");
    answer(f, HEAD("429 Slowly", "Retry-After: 77\r\n"));
    expect_failure(f, ERR_PEER, 429, false, "HTTP status 429");
    assert_int_equal(f->call.retry_after_s, 77);
    answer(f, HEAD("503 Unavailable", ""));
    expect_failure(f, ERR_PEER, 503, false, "HTTP status 503");
}

static void nonsense_lasts(void **state)
{
    struct fixture *f = *state;
    size_t len;

    answer(f, HEAD("200 OK", "Retry-After: 9\r\n") "<html>");
    expect_failure(f, ERR_PEER, 0, true,
                   "get window: renewalInfo: the answer is not JSON");
    assert_int_equal(f->call.retry_after_s, 9);
    answer(f, HEAD("200 OK", "") "{\"suggestedWindow\":{\"start\":"
                                 "\"2026-11-23T18:49:07Z\",\"end\":"
                                 "\"2026-11-23T18:49:07Z\"}}");
    expect_failure(f, ERR_PEER, 0, true, "not after that");
    answer(f, HEAD("200 OK", ""));
    len = strlen(f->window_answer);
    memset(f->window_answer + len, ' ', RENEWAL_INFO_MAX_BYTES + 1);
    f->window_answer[len + RENEWAL_INFO_MAX_BYTES + 1] = '\0';
    expect_failure(f, ERR_PEER, 0, false, "too long");
}

static void a_directory_that_is_none_fails(void **state)
{
    struct fixture *f = *state;

    snprintf(f->directory_answer, sizeof f->directory_answer,
             HEAD("503 Unavailable", "") "later");
    expect_failure(f, ERR_PEER, 503, false, "read directory: directory: HTTP status 503");
    snprintf(f->directory_answer, sizeof f->directory_answer, HEAD("200 OK", "") "[]");
    expect_failure(f, ERR_PEER, 0, false, "\"newNonce\"");
}

static void a_ca_that_is_down_is_a_network_error(void **state)
{
    struct fixture *f = *state;
    char nobody[128];

    snprintf(nobody, sizeof nobody, "http://127.0.0.1:%d/dir", server_unused_port());
    f->authority.directory = nobody;
    expect_failure(f, ERR_NET, ECONNREFUSED, false, "read directory");
    f->authority.directory = f->directory;
    snprintf(nobody, sizeof nobody, ",\"renewalInfo\":\"http://127.0.0.1:%d/ri\"",
             server_unused_port());
    offer(f, nobody);
    run(f);
    ended_assert_failed(&f->ended, ERR_NET, "get window");
    assert_false(f->call.lasting);
}

/* ---- cancel ---- */

static void expect_canceled(struct fixture *f)
{
    loop_run_until(f->loop, ended_once, &f->ended);
    ended_assert_failed(&f->ended, ERR_CANCELED, "canceled");
}

static bool second_asked(void *owner)
{
    struct fixture *f = owner;

    return server_requests(f->server) == 2;
}

static void it_may_be_canceled_at_any_time(void **state)
{
    struct fixture *f = *state;

    renewal_info_start(&f->call, &f->request, ended_done, &f->ended);
    renewal_info_cancel(&f->call);
    expect_canceled(f);
    f->ended = (struct ended){0};
    f->scripts[1].ending = SERVER_HANGS;
    answer(f, "");
    renewal_info_start(&f->call, &f->request, ended_done, &f->ended);
    loop_run_until(f->loop, second_asked, f);
    renewal_info_cancel(&f->call);
    renewal_info_cancel(&f->call);
    expect_canceled(f);
}

#define info_test(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        info_test(the_window_is_asked_for_where_the_directory_says),
        info_test(a_slash_at_the_end_of_the_resource_is_not_doubled),
        info_test(a_ca_need_not_offer_it),
        info_test(a_refusal_lasts_but_not_one_of_a_ca_in_trouble),
        info_test(nonsense_lasts),
        info_test(a_directory_that_is_none_fails),
        info_test(a_ca_that_is_down_is_a_network_error),
        info_test(it_may_be_canceled_at_any_time),
    };

    return cmocka_run_group_tests(tests, program_setup_http, NULL);
}
