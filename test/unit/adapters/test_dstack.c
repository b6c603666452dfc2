#include "adapters/dstack.h"

#include "base/fs.h"
#include "base/text.h"
#include "support/loop.h"
#include "support/program.h"
#include "support/server.h"

#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <setjmp.h>

#include <cmocka.h>

#define HEX_32 "0123456789abcdef0123456789abcdef"
#define HEX_64 HEX_32 HEX_32
#define SECRET_PART "89abcdef0123" /* of every key that is sent in here */

#define NOT_JSON "the answer is not JSON (line 1, column "

#define ANSWER_HEAD(status) "HTTP/1.1 " status "\r\nConnection: close\r\n"
#define ANSWER_OK(length) ANSWER_HEAD("200 OK") "Content-Length: " length "\r\n\r\n"
#define ANSWER_TO_END(status, body) ANSWER_HEAD(status) "\r\n" body

enum { PATIENT_MS = 20000, HASTY_MS = 50 };

static const unsigned char key_bytes[DSTACK_KEY_BYTES] = {
    0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0x01, 0x23, 0x45,
    0x67, 0x89, 0xab, 0xcd, 0xef, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab,
    0xcd, 0xef, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef};

struct fixture {
    uv_loop_t *loop;
    struct http *http;
    char folder[64];
    char socket[96];
    struct server *server;
    struct dstack agent;
    struct dstack_call call;
    struct ended ended;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    struct err err = ERR_INIT;
    void *loop = NULL;

    assert_non_null(f);
    loop_setup(&loop);
    f->loop = loop;
    snprintf(f->folder, sizeof f->folder, "/tmp/test-dstack-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    snprintf(f->socket, sizeof f->socket, "%s/agent.sock", f->folder);
    f->http = http_new(f->loop, &err);
    assert_non_null(f->http);
    f->agent = (struct dstack){
        .http = f->http, .configured = f->socket, .timeout_ms = PATIENT_MS};
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    struct err err = ERR_INIT;
    void *loop = f->loop;

    dstack_call_done(&f->call);
    server_stop(f->server);
    http_close(f->http, NULL, NULL);
    loop_run(f->loop);
    assert_int_equal(fs_remove_tree(f->folder, &err), 0);
    free(f);
    return loop_teardown(&loop);
}

/* ---- parsers ---- */

static void assert_not_in(const char *part, const char *text)
{
    if (strcasestr(text, part) != NULL)
        fail_msg("\"%s\" is in \"%s\"", part, text);
}

static void assert_in(const char *part, const char *text)
{
    if (strstr(text, part) == NULL)
        fail_msg("\"%s\" is not in \"%s\"", part, text);
}

static void expect_key(const char *body)
{
    struct dstack_call call = {0};
    struct err err = ERR_INIT;

    if (dstack_read_key(&call, body, &err) < 0)
        fail_msg("%s: %s", body, err.message);
    assert_int_equal(call.key->len, DSTACK_KEY_BYTES);
    assert_memory_equal(call.key->bytes, key_bytes, DSTACK_KEY_BYTES);
    assert_int_equal(err.kind, ERR_NONE);
    dstack_call_done(&call);
    assert_null(call.key);
}

static void a_key_is_read(void **state)
{
    (void)state;
    expect_key("{\"key\":\"" HEX_64 "\"}");
    expect_key(
        "{\"key\":\"0123456789ABCDEF0123456789abcdef"
        "0123456789AbCdEf0123456789ABCDEF\"}");
    expect_key(
        "\t{ \"signature_chain\" : [\"00\", \"ff\"], \"extra\": null,\r\n"
        " \"key\" : \"" HEX_64 "\" } \n");
    expect_key("{\"\\u006bey\":\"\\u0030123456789abcdef0123456789abcdef" HEX_32 "\"}");
}

struct malformed {
    const char *body;
    const char *says;
};

static void expect_malformed(int (*read)(struct dstack_call *, const char *,
                                         struct err *),
                             const struct malformed *malformed)
{
    struct dstack_call call = {0};
    struct err err = ERR_INIT;

    assert_int_equal(read(&call, malformed->body, &err), -1);
    assert_int_equal(err.kind, ERR_PEER);
    if (strcmp(malformed->says, NOT_JSON) == 0)
        assert_true(text_starts_with(err.message, NOT_JSON));
    else
        assert_string_equal(err.message, malformed->says);
    assert_null(call.key);
    assert_null(call.tcb_info);
    assert_null(call.quote);
    assert_not_in(SECRET_PART, err.message);
    dstack_call_done(&call);
}

static void a_malformed_key_is_refused(void **state)
{
    static const struct malformed list[] = {
        {"{\"key\":\"0x" HEX_64 "\"}", "member \"key\" has 66 characters instead of 64"},
        {"{\"key\":\" " HEX_64 "\"}", "member \"key\" has 65 characters instead of 64"},
        {"{\"key\":\"" HEX_64 "\\n\"}", "member \"key\" has 65 characters instead of 64"},
        {"{\"key\":\"0123456789abcdef 0123456789abcdef " HEX_32 "\"}",
         "member \"key\" has 66 characters instead of 64"},
        {"{\"key\":\"01 02\"}", "member \"key\" has 5 characters instead of 64"},
        {"{\"key\":\"" HEX_32 "0123456789abcdef0123456789abcde\"}",
         "member \"key\" has 63 characters instead of 64"},
        {"{\"key\":\"" HEX_32 "\"}", "member \"key\" has 32 characters instead of 64"},
        {"{\"key\":\"\"}", "member \"key\" has 0 characters instead of 64"},
        {"{\"key\":\"0x" HEX_32 "0123456789abcdef0123456789abcd\"}",
         "member \"key\" is not hexadecimal"},
        {"{\"key\":\" " HEX_32 "0123456789abcdef0123456789abcde\"}",
         "member \"key\" is not hexadecimal"},
        {"{\"key\":\"" HEX_32 "0123456789abcdef0123456789abcdeg\"}",
         "member \"key\" is not hexadecimal"},
        {"{\"key\":\"" HEX_32 "0123456789abcdef0123456789abcd\xc3\xa9\"}",
         "member \"key\" is not hexadecimal"},
        {"{\"key\":null}", "member \"key\" of the answer is not a string"},
        {"{\"key\":1}", "member \"key\" of the answer is not a string"},
        {"{\"key\":[\"" HEX_64 "\"]}", "member \"key\" of the answer is not a string"},
        {"{\"key\":{\"key\":\"" HEX_64 "\"}}",
         "member \"key\" of the answer is not a string"},
        {"{}", "the answer has no member \"key\""},
        {"{\"Key\":\"" HEX_64 "\"}", "the answer has no member \"key\""},
        {"[\"" HEX_64 "\"]", "the answer is JSON, but not an object"},
        {"[]", "the answer is JSON, but not an object"},
        {"", NOT_JSON},
        {HEX_64, NOT_JSON},
        {"\"" HEX_64 "\"", NOT_JSON},
        {"{\"key\":\"" HEX_64 "\"", NOT_JSON},
        {"{\"key\":\"" HEX_64 "\"}}", NOT_JSON},
        {"{\"key\":\"" HEX_64 "\",}", NOT_JSON},
        {"{\"key\":\"" HEX_64 "\",\"key\":\"" HEX_64 "\"}", NOT_JSON},
        {"{\"key\":\"" HEX_64 "\\u0000\"}", NOT_JSON},
        {"{\"key\":\"\xff" HEX_64 "\"}", NOT_JSON},
        {"<html>\n502 Bad Gateway\n</html>", NOT_JSON},
    };

    (void)state;
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++)
        expect_malformed(dstack_read_key, &list[i]);
}

static void nesting_does_not_exhaust_the_stack(void **state)
{
    static char deep[200000];
    struct dstack_call call = {0};
    struct err err = ERR_INIT;

    (void)state;
    memset(deep, '[', sizeof deep - 1);
    assert_int_equal(dstack_read_key(&call, deep, &err), -1);
    assert_in("the answer is not JSON", err.message);
}

static void the_information_is_read(void **state)
{
    struct dstack_call call = {0};
    struct err err = ERR_INIT;

    (void)state;
    assert_int_equal(
        dstack_read_info(
            &call, "{\"app_id\":\"x\",\"tcb_info\":\"{\\\"event_log\\\":[]}\"}", &err),
        0);
    assert_string_equal(call.tcb_info, "{\"event_log\":[]}");
    dstack_call_done(&call);
    assert_null(call.tcb_info);
    assert_int_equal(dstack_read_info(&call, "{\"tcb_info\":\"\"}", &err), 0);
    assert_string_equal(call.tcb_info, "");
    dstack_call_done(&call);
}

static void malformed_information_is_refused(void **state)
{
    static const struct malformed list[] = {
        {"{}", "the answer has no member \"tcb_info\""},
        {"{\"tcb_info\":{\"event_log\":[]}}",
         "member \"tcb_info\" of the answer is not a string"},
        {"{\"tcb_info\":null}", "member \"tcb_info\" of the answer is not a string"},
        {"[]", "the answer is JSON, but not an object"},
        {"", NOT_JSON},
        {"{\"tcb_info\":\"a\",\"tcb_info\":\"b\"}", NOT_JSON},
    };

    (void)state;
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++)
        expect_malformed(dstack_read_info, &list[i]);
}

static void a_quote_is_kept_as_it_came(void **state)
{
    static const char answer[] =
        "{ \"quote\":\"00\", \"event_log\":\"[]\", \"new\":[1] }\n";
    struct dstack_call call = {0};
    struct err err = ERR_INIT;

    (void)state;
    assert_int_equal(dstack_read_quote(&call, answer, &err), 0);
    assert_string_equal(call.quote, answer);
    dstack_call_done(&call);
    assert_null(call.quote);
}

static void an_answer_without_a_quote_is_refused(void **state)
{
    static const struct malformed list[] = {
        {"{\"quote\":\"\"}", "member \"quote\" is empty"},
        {"{\"quote\":null}", "member \"quote\" of the answer is not a string"},
        {"{\"event_log\":\"[]\"}", "the answer has no member \"quote\""},
        {"[]", "the answer is JSON, but not an object"},
        {"", NOT_JSON},
    };

    (void)state;
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++)
        expect_malformed(dstack_read_quote, &list[i]);
}

static void an_unused_call_can_be_done_with(void **state)
{
    struct dstack_call call = {0};

    (void)state;
    dstack_call_done(&call);
    dstack_call_done(&call);
}

/* ---- whole calls ---- */

static void serve(struct fixture *f, const struct server_script *scripts)
{
    const struct server_options options = {.unix_socket = f->socket, .scripts = scripts};

    f->server = server_start(&options);
}

/* Before another one takes its place. */
static void serve_no_more(struct fixture *f)
{
    server_stop(f->server);
    f->server = NULL;
}

static void get_key(struct fixture *f)
{
    f->ended = (struct ended){0};
    dstack_call_done(&f->call);
    dstack_get_key(&f->call, &f->agent, "ekm/hmac-key/v1", ended_done, &f->ended);
    assert_int_equal(f->ended.times, 0);
    loop_run_until(f->loop, ended_once, &f->ended);
}

static void emit(struct fixture *f)
{
    f->ended = (struct ended){0};
    dstack_call_done(&f->call);
    dstack_emit_event(&f->call, &f->agent, "New TLS Certificate", "3031", ended_done,
                      &f->ended);
    loop_run_until(f->loop, ended_once, &f->ended);
}

/* The message begins with agent and method. */
static void assert_failed(const struct fixture *f, enum err_kind kind, int code,
                          const char *part)
{
    char head[160];

    snprintf(head, sizeof head, "guest agent %s: GetKey: ", f->agent.configured);
    ended_assert_failed(&f->ended, kind, part);
    assert_true(text_starts_with(f->ended.err.message, head));
    assert_int_equal(f->ended.err.code, code);
    assert_not_in(SECRET_PART, f->ended.err.message);
    assert_null(f->call.key);
}

static void assert_last_request(const struct fixture *f, const char *line,
                                const char *body)
{
    char request[4096];
    const char *found;

    server_last_request(f->server, request, sizeof request);
    assert_true(text_starts_with(request, line));
    assert_in("\r\nContent-Type: application/json\r\n", request);
    found = strstr(request, "\r\n\r\n");
    assert_non_null(found);
    assert_string_equal(found + 4, body);
}

static void a_key_is_asked_for(void **state)
{
    static const struct server_script scripts[] = {
        {.path = "/GetKey", .answer = ANSWER_OK("74") "{\"key\":\"" HEX_64 "\"}"}, {0}};
    struct fixture *f = *state;

    serve(f, scripts);
    get_key(f);
    ended_assert_ok(&f->ended);
    assert_memory_equal(f->call.key->bytes, key_bytes, DSTACK_KEY_BYTES);
    assert_last_request(f, "POST /GetKey HTTP/1.1\r\n",
                        "{\"path\":\"ekm/hmac-key/v1\",\"purpose\":\"\"}");
    assert_int_equal(server_requests(f->server), 1);
}

/* As agents of several versions answer. */
static void an_event_is_emitted(void **state)
{
    static const struct server_script scripts[][2] = {
        {{.path = "/EmitEvent", .answer = ANSWER_OK("0")}},
        {{.path = "/EmitEvent",
          .answer = ANSWER_TO_END("200 OK", "{}"),
          .ending = SERVER_CLOSES}},
        {{.path = "/EmitEvent",
          .answer = ANSWER_TO_END("200 OK", "null"),
          .ending = SERVER_CLOSES}},
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof scripts / sizeof scripts[0]; i++) {
        serve(f, scripts[i]);
        emit(f);
        ended_assert_ok(&f->ended);
        assert_last_request(f, "POST /EmitEvent HTTP/1.1\r\n",
                            "{\"event\":\"New TLS Certificate\",\"payload\":\"3031\"}");
        assert_int_equal(server_requests(f->server), 1);
        serve_no_more(f);
    }
}

/* Sent twice it would be in the log twice. */
static void an_event_whose_answer_is_lost_is_not_sent_again(void **state)
{
    static const struct server_script scripts[] = {
        {.path = "/EmitEvent", .answer = "", .ending = SERVER_CLOSES}, {0}};
    struct fixture *f = *state;

    serve(f, scripts);
    emit(f);
    ended_assert_failed(&f->ended, ERR_PEER, ": EmitEvent: ");
    assert_int_equal(server_requests(f->server), 1);
}

/* A call that overlaps another inside the agent spoils its quotes: so no second one soon. */
static void an_event_has_more_patience(void **state)
{
    static const struct server_script scripts[] = {
        {.path = "/EmitEvent", .answer = "", .ending = SERVER_HANGS}, {0}};
    struct fixture *f = *state;

    f->agent.timeout_ms = HASTY_MS;
    serve(f, scripts);
    emit(f);
    ended_assert_failed(&f->ended, ERR_TIMEOUT, "no answer after 500 ms");
}

/* Whoever listens there instead of the agent has not measured anything. */
static void an_event_is_not_taken_for_emitted_by_any_answer(void **state)
{
    static const struct {
        struct server_script scripts[2];
        const char *problem;
    } cases[] = {
        {{{.path = "/EmitEvent",
           .answer = ANSWER_TO_END("200 OK", "<html>welcome</html>"),
           .ending = SERVER_CLOSES}},
         ": EmitEvent: the answer is not JSON"},
        {{{.path = "/EmitEvent",
           .answer = ANSWER_TO_END("200 OK", "[\"welcome\"]"),
           .ending = SERVER_CLOSES}},
         ": EmitEvent: the answer is JSON, but not an object"},
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        serve(f, cases[i].scripts);
        emit(f);
        ended_assert_failed(&f->ended, ERR_PEER, cases[i].problem);
        serve_no_more(f);
    }
}

static void the_information_is_asked_for(void **state)
{
    static const struct server_script scripts[] = {
        {.path = "/Info",
         .answer = ANSWER_TO_END("200 OK", "{\"tcb_info\":\"{}\"}"),
         .ending = SERVER_CLOSES},
        {0}};
    struct fixture *f = *state;

    serve(f, scripts);
    dstack_info(&f->call, &f->agent, ended_done, &f->ended);
    loop_run_until(f->loop, ended_once, &f->ended);
    ended_assert_ok(&f->ended);
    assert_string_equal(f->call.tcb_info, "{}");
    assert_last_request(f, "POST /Info HTTP/1.1\r\n", "{}");
}

static void texts_are_escaped(void **state)
{
    static const struct server_script scripts[] = {
        {.path = "/GetKey", .answer = ANSWER_OK("74") "{\"key\":\"" HEX_64 "\"}"}, {0}};
    struct fixture *f = *state;

    serve(f, scripts);
    dstack_get_key(&f->call, &f->agent, "a\"b\\c\n", ended_done, &f->ended);
    loop_run_until(f->loop, ended_once, &f->ended);
    ended_assert_ok(&f->ended);
    assert_last_request(f, "POST /GetKey HTTP/1.1\r\n",
                        "{\"path\":\"a\\\"b\\\\c\\n\",\"purpose\":\"\"}");
}

/* Not valid UTF-8: no JSON can hold it, so the agent refuses the empty request. */
static void a_text_without_json_form_is_refused(void **state)
{
    static const struct server_script scripts[] = {
        {.path = "/GetKey",
         .answer = ANSWER_TO_END("400 Bad Request", "EOF while parsing"),
         .ending = SERVER_CLOSES},
        {0}};
    struct fixture *f = *state;

    serve(f, scripts);
    dstack_get_key(&f->call, &f->agent, "\xff", ended_done, &f->ended);
    loop_run_until(f->loop, ended_once, &f->ended);
    assert_failed(f, ERR_PEER, 400, "HTTP status 400: EOF while parsing");
    assert_last_request(f, "POST /GetKey HTTP/1.1\r\n", "");
}

/* ---- nobody answers ---- */

static void a_missing_socket_comes_with_a_hint(void **state)
{
    struct fixture *f = *state;
    char says[256];

    get_key(f);
    snprintf(says, sizeof says,
             "through %s: no such socket; is the agent's socket mounted into the "
             "container?",
             f->socket);
    assert_failed(f, ERR_NET, ENOENT, says);
}

static void the_first_known_path_is_named_when_there_is_none(void **state)
{
    static const char *const known[] = {"/var/run/dstack.sock", "/run/dstack.sock",
                                        "/var/run/dstack/dstack.sock",
                                        "/run/dstack/dstack.sock"};
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (fs_exists(known[i]))
            skip();
    f->agent.configured = NULL;
    get_key(f);
    f->agent.configured = known[0];
    assert_failed(f, ERR_NET, ENOENT, "is the agent's socket mounted");
}

static void a_dead_socket_refuses(void **state)
{
    struct fixture *f = *state;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    snprintf(address.sun_path, sizeof address.sun_path, "%s", f->socket);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    close(fd);
    get_key(f);
    assert_failed(f, ERR_NET, ECONNREFUSED, "connection refused");
    assert_not_in("mounted", f->ended.err.message);
}

static void a_file_is_no_socket(void **state)
{
    struct fixture *f = *state;
    struct err err = ERR_INIT;

    assert_int_equal(fs_replace(f->socket, "", 0, 0600, &err), 0);
    get_key(f);
    assert_failed(f, ERR_NET, ECONNREFUSED, "connection refused");
}

static void a_path_can_be_too_long_for_a_socket(void **state)
{
    struct fixture *f = *state;
    char path[300];

    memset(path, 'x', sizeof path - 1);
    path[0] = '/';
    path[sizeof path - 1] = '\0';
    f->agent.configured = path;
    get_key(f);
    ended_assert_failed(&f->ended, ERR_CONFIG, "the path of a socket has at most");
}

static void a_silent_agent_takes_its_time_limit(void **state)
{
    static const struct server_script scripts[] = {
        {.path = "/GetKey", .answer = "", .ending = SERVER_HANGS}, {0}};
    struct fixture *f = *state;

    f->agent.timeout_ms = HASTY_MS;
    serve(f, scripts);
    get_key(f);
    assert_failed(f, ERR_TIMEOUT, 0, "no answer after 50 ms");
}

/* ---- refusals and nonsense ---- */

/* The answer to GetKey is not used, for this reason. */
static void expect_failure(struct fixture *f, const char *answer,
                           enum server_ending ending, int status, const char *says)
{
    const struct server_script scripts[] = {
        {.path = "/GetKey", .answer = answer, .ending = ending}, {0}};

    server_stop(f->server);
    unlink(f->socket);
    serve(f, scripts);
    get_key(f);
    server_stop(f->server);
    f->server = NULL;
    assert_failed(f, ERR_PEER, status, says);
}

/* It is a refusal, and ends with these words. */
static void expect_refusal(struct fixture *f, const char *answer, int status,
                           const char *says)
{
    const char *message = f->ended.err.message;

    expect_failure(f, answer, SERVER_CLOSES, status, says);
    assert_string_equal(message + strlen(message) - strlen(says), says);
}

static void a_refusal_tells_the_words_of_the_agent(void **state)
{
    struct fixture *f = *state;

    expect_refusal(f, ANSWER_TO_END("400 Bad Request", "{\"error\":\"removed in 0.6\"}"),
                   400, "HTTP status 400: removed in 0.6");
    expect_refusal(f, ANSWER_TO_END("404 Not Found", "no such method"), 404,
                   "HTTP status 404: no such method");
    expect_refusal(f, ANSWER_TO_END("500 Internal Server Error", ""), 500,
                   "HTTP status 500: no explanation");
    expect_refusal(f, ANSWER_TO_END("500 Internal Server Error", "{\"error\":\"\"}"), 500,
                   "HTTP status 500: no explanation");
    expect_refusal(f, ANSWER_TO_END("500 Internal Server Error", "{\"error\":[1]}"), 500,
                   "HTTP status 500: no explanation");
    expect_refusal(f, ANSWER_TO_END("301 Moved", "Location: /x"), 301,
                   "HTTP status 301: Location: /x");
    expect_refusal(f, "HTTP/1.1 204 No Content\r\n\r\n", 204,
                   "HTTP status 204: no explanation");
}

static void words_of_the_agent_are_cut(void **state)
{
    struct fixture *f = *state;
    char answer[1024];
    char says[256];

    snprintf(answer, sizeof answer, "%s%0400d", ANSWER_TO_END("500 Error", ""), 7);
    snprintf(says, sizeof says, "HTTP status 500: %0200d", 0);
    expect_refusal(f, answer, 500, says);
}

/* What an agent might send with a wrong status never reaches the log. */
static void a_refusal_never_shows_a_key(void **state)
{
    static const char *const bodies[] = {
        "{\"key\":\"" HEX_64 "\"}", "{\"key\":\"" HEX_64, "  {\"key\":\"" HEX_64 "\"}x",
        "[\"" HEX_64 "\"]",         "\"" HEX_64 "\"",
    };
    struct fixture *f = *state;
    char answer[512];

    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++) {
        snprintf(answer, sizeof answer, "%s%s", ANSWER_TO_END("202 Accepted", ""),
                 bodies[i]);
        expect_refusal(f, answer, 202, "HTTP status 202: no explanation");
    }
}

static void a_malformed_answer_names_its_method(void **state)
{
    struct fixture *f = *state;

    expect_refusal(f, ANSWER_TO_END("200 OK", "{\"key\":\"0x" HEX_64 "\"}"), 0,
                   ": GetKey: member \"key\" has 66 characters instead of 64");
    expect_failure(f, ANSWER_TO_END("200 OK", "{\"key\":\"" HEX_64), SERVER_CLOSES, 0,
                   ": GetKey: " NOT_JSON);
    expect_failure(f, ANSWER_TO_END("200 OK", ""), SERVER_CLOSES, 0,
                   ": GetKey: " NOT_JSON);
}

static void an_answer_may_break(void **state)
{
    struct fixture *f = *state;

    expect_failure(f, ANSWER_OK("100") "{\"key\":\"" HEX_64 "\"}", SERVER_CLOSES, 0,
                   "the answer is cut short");
    expect_failure(f, "", SERVER_CLOSES, 0, "closed without an answer");
    expect_failure(f, "SSH-2.0-OpenSSH_9.2\r\n", SERVER_CLOSES, 0, "not HTTP");
}

static void an_answer_may_be_too_long(void **state)
{
    expect_failure(*state,
                   ANSWER_OK("100000000") "{\"key\":\"" HEX_64 HEX_64 HEX_64 HEX_64,
                   SERVER_FLOODS, 0, "the answer is too long");
}

/* ---- cancel ---- */

static void a_call_is_canceled(void **state)
{
    static const struct server_script scripts[] = {
        {.path = "/GetKey", .answer = "", .ending = SERVER_HANGS}, {0}};
    struct fixture *f = *state;

    serve(f, scripts);
    dstack_get_key(&f->call, &f->agent, "x", ended_done, &f->ended);
    dstack_cancel(&f->call);
    dstack_cancel(&f->call);
    assert_int_equal(f->ended.times, 0);
    loop_run_until(f->loop, ended_once, &f->ended);
    assert_failed(f, ERR_CANCELED, 0, "canceled");
    dstack_cancel(&f->call);
    loop_run(f->loop);
    assert_int_equal(f->ended.times, 1);
}

/* ---- the simulator: TCP ---- */

static void an_agent_may_listen_on_tcp(void **state)
{
    static const struct server_script scripts[] = {
        {.path = "/GetKey", .answer = ANSWER_OK("74") "{\"key\":\"" HEX_64 "\"}"},
        {.path = "/below/GetKey", .answer = ANSWER_OK("74") "{\"key\":\"" HEX_64 "\"}"},
        {.path = NULL, .answer = ANSWER_TO_END("404 Not Found", "")}};
    static const char *const ends[] = {"", "/", "//", "/below", "/below/"};
    const struct server_options options = {.scripts = scripts};
    struct fixture *f = *state;
    char url[128];

    f->server = server_start(&options);
    f->agent.configured = url;
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        snprintf(url, sizeof url, "%s%s", server_url(f->server), ends[i]);
        get_key(f);
        ended_assert_ok(&f->ended);
    }
    snprintf(url, sizeof url, "http://127.0.0.1:%d", server_unused_port());
    get_key(f);
    assert_failed(f, ERR_NET, ECONNREFUSED, "connection refused");
}

#define call_test(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_key_is_read),
        cmocka_unit_test(a_malformed_key_is_refused),
        cmocka_unit_test(nesting_does_not_exhaust_the_stack),
        cmocka_unit_test(the_information_is_read),
        cmocka_unit_test(malformed_information_is_refused),
        cmocka_unit_test(a_quote_is_kept_as_it_came),
        cmocka_unit_test(an_answer_without_a_quote_is_refused),
        cmocka_unit_test(an_unused_call_can_be_done_with),
        call_test(a_key_is_asked_for),
        call_test(an_event_is_emitted),
        call_test(an_event_has_more_patience),
        call_test(an_event_is_not_taken_for_emitted_by_any_answer),
        call_test(an_event_whose_answer_is_lost_is_not_sent_again),
        call_test(the_information_is_asked_for),
        call_test(texts_are_escaped),
        call_test(a_text_without_json_form_is_refused),
        call_test(a_missing_socket_comes_with_a_hint),
        call_test(the_first_known_path_is_named_when_there_is_none),
        call_test(a_dead_socket_refuses),
        call_test(a_file_is_no_socket),
        call_test(a_path_can_be_too_long_for_a_socket),
        call_test(a_silent_agent_takes_its_time_limit),
        call_test(a_refusal_tells_the_words_of_the_agent),
        call_test(words_of_the_agent_are_cut),
        call_test(a_refusal_never_shows_a_key),
        call_test(a_malformed_answer_names_its_method),
        call_test(an_answer_may_break),
        call_test(an_answer_may_be_too_long),
        call_test(a_call_is_canceled),
        call_test(an_agent_may_listen_on_tcp),
    };

    return cmocka_run_group_tests(tests, program_setup_http, NULL);
}
