#include "runtime/server_request.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { BODY_MAX = 100 };

static enum server_parse parse(struct server_request *request, const char *text,
                               int *ret_status)
{
    return server_request_parse(request, text, strlen(text), BODY_MAX, ret_status);
}

static void test_reads_a_request_without_a_body(void **state)
{
    struct server_request request;
    int status;

    (void)state;
    assert_int_equal(
        parse(&request, "GET /v1/status?a=b&c HTTP/1.1\r\nHost: x\r\n\r\n", &status),
        SERVER_PARSE_WHOLE);
    assert_string_equal(request.method, "GET");
    assert_string_equal(request.path, "/v1/status");
    assert_string_equal(request.query, "a=b&c");
    assert_int_equal(request.body_len, 0);
    assert_int_equal(parse(&request, "GET / HTTP/1.0\r\n\r\n", &status),
                     SERVER_PARSE_WHOLE);
}

static void test_reads_a_body_and_leaves_what_follows(void **state)
{
    static const char text[] =
        "POST /x HTTP/1.1\r\ncontent-LENGTH: \t5 \r\n\r\nhello, you";
    struct server_request request;
    int status;

    (void)state;
    assert_int_equal(parse(&request, text, &status), SERVER_PARSE_WHOLE);
    assert_int_equal(request.body_len, 5);
    assert_memory_equal(request.body, "hello", 5);
    for (size_t len = 0; len < strlen(text) - strlen(", you"); len++)
        assert_int_equal(server_request_parse(&request, text, len, BODY_MAX, &status),
                         SERVER_PARSE_MORE);
}

static void test_notes_that_a_client_waits_before_its_body(void **state)
{
    struct server_request request;
    int status;

    (void)state;
    assert_int_equal(
        parse(&request,
              "POST /x HTTP/1.1\r\nContent-Length: 5\r\nExpect: 100-Continue\r\n\r\n",
              &status),
        SERVER_PARSE_MORE);
    assert_true(request.expects_continue);
}

#define GET "GET / HTTP/1.1\r\n"
#define POST "POST / HTTP/1.1\r\n"

static const struct {
    const char *text;
    int status;
} bad[] = {
    {"\r\n\r\n", 400},
    {"GET\r\n\r\n", 400},
    {"GET /\r\n\r\n", 400},
    {"GET / HTTP/1.1 \r\n\r\n", 400},
    {"GET  / HTTP/1.1\r\n\r\n", 400},
    {"GET / x HTTP/1.1\r\n\r\n", 400},
    {"GET x HTTP/1.1\r\n\r\n", 400},
    {"GET http://h/ HTTP/1.1\r\n\r\n", 400},
    {"GET * HTTP/1.1\r\n\r\n", 400},
    {"GET /\t HTTP/1.1\r\n\r\n", 400},
    {"GET /\xc3\xa4 HTTP/1.1\r\n\r\n", 400},
    {"GET / HTTP/2.0\r\n\r\n", 505},
    {"GET / HTTP/1-1\r\n\r\n", 400},
    {"GET / http/1.1\r\n\r\n", 400},
    {"GET / HTTP/1.1\nHost: x\r\n\r\n", 400},
    {"G(T / HTTP/1.1\r\n\r\n", 400},
    {"AVERYLONGMETHODNAME / HTTP/1.1\r\n\r\n", 501},
    {GET "Host x\r\n\r\n", 400},
    {GET "Host : x\r\n\r\n", 400},
    {GET ": x\r\n\r\n", 400},
    {GET " Host: x\r\n\r\n", 400},
    {GET "Host: x\r\n folded\r\n\r\n", 400},
    {GET "Host: x\ry\r\n\r\n", 400},
    {GET "Transfer-Encoding: chunked\r\n\r\n", 501},
    {POST "Host: x\r\n\r\n", 411},
    {POST "Content-Length:\r\n\r\n", 400},
    {POST "Content-Length: +1\r\n\r\n", 400},
    {POST "Content-Length: 1,1\r\n\r\n", 400},
    {POST "Content-Length: 1\r\nContent-Length: 1\r\n\r\n", 400},
    {POST "Content-Length: 101\r\n\r\n", 413},
    {POST "Content-Length: 18446744073709551617\r\n\r\n", 413},
    {POST "Content-Length: 99999999999999999999999999999999999\r\n\r\n", 413},
};

static void test_refuses_what_could_be_read_in_two_ways(void **state)
{
    struct server_request request;
    int status;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (parse(&request, bad[i].text, &status) != SERVER_PARSE_BAD ||
            status != bad[i].status)
            fail_msg("%s: status %d", bad[i].text, status);
        assert_string_not_equal(server_status_text(status), "");
    }
}

static void test_refuses_a_zero_byte(void **state)
{
    static const char text[] = GET "Host: \0x\r\n\r\n";
    struct server_request request;
    int status;

    (void)state;
    assert_int_equal(
        server_request_parse(&request, text, sizeof text - 1, BODY_MAX, &status),
        SERVER_PARSE_BAD);
    assert_int_equal(status, 400);
}

static void test_heads_and_targets_have_an_end(void **state)
{
    struct server_request request;
    char *text = malloc(2 * SERVER_HEAD_MAX);
    int status;

    (void)state;
    assert_non_null(text);
    memset(text, 'a', 2 * SERVER_HEAD_MAX);
    assert_int_equal(
        server_request_parse(&request, text, SERVER_HEAD_MAX - 1, BODY_MAX, &status),
        SERVER_PARSE_MORE);
    assert_int_equal(
        server_request_parse(&request, text, SERVER_HEAD_MAX, BODY_MAX, &status),
        SERVER_PARSE_BAD);
    assert_int_equal(status, 431);

    memcpy(text, "GET /", 5);
    memcpy(text + 5 + SERVER_TARGET_SIZE, " HTTP/1.1\r\n\r\n", 14);
    assert_int_equal(parse(&request, text, &status), SERVER_PARSE_BAD);
    assert_int_equal(status, 414);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_a_request_without_a_body),
        cmocka_unit_test(test_reads_a_body_and_leaves_what_follows),
        cmocka_unit_test(test_notes_that_a_client_waits_before_its_body),
        cmocka_unit_test(test_refuses_what_could_be_read_in_two_ways),
        cmocka_unit_test(test_refuses_a_zero_byte),
        cmocka_unit_test(test_heads_and_targets_have_an_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
