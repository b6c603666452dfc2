#include "base/err.h"

#include <errno.h>
#include <openssl/err.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void test_set(void **state)
{
    struct err err = ERR_INIT;

    (void)state;
    err.code = 7;
    assert_int_equal(err_set(&err, ERR_NET, "%s: port %d", "host", 80), -1);
    assert_int_equal(err.kind, ERR_NET);
    assert_int_equal(err.code, 0);
    assert_string_equal(err.message, "host: port 80");
    assert_int_equal(err_set_code(&err, ERR_PEER, 404, "no such thing"), -1);
    assert_int_equal(err.kind, ERR_PEER);
    assert_int_equal(err.code, 404);
    assert_string_equal(err.message, "no such thing");
}

static void test_sys(void **state)
{
    struct err err = ERR_INIT;

    (void)state;
    assert_int_equal(err_sys(&err, ENOENT, "%s: cannot open", "/x"), -1);
    assert_int_equal(err.kind, ERR_SYS);
    assert_int_equal(err.code, ENOENT);
    assert_string_equal(err.message, "/x: cannot open: No such file or directory");
}

static void test_openssl(void **state)
{
    struct err err = ERR_INIT;

    (void)state;
    ERR_clear_error();
    assert_int_equal(err_openssl(&err, "cannot sign"), -1);
    assert_int_equal(err.kind, ERR_CRYPTO);
    assert_string_equal(err.message, "cannot sign");
    ERR_raise(ERR_LIB_USER, ERR_R_PASSED_NULL_PARAMETER);
    ERR_raise(ERR_LIB_USER, ERR_R_INTERNAL_ERROR);
    assert_int_equal(err_openssl(&err, "cannot %s", "read"), -1);
    /* The first reason: the others are what it led to. */
    assert_string_equal(err.message, "cannot read: passed a null parameter");
    assert_int_equal(ERR_peek_error(), 0);
}

static void test_openssl_without_memory(void **state)
{
    struct err err = ERR_INIT;

    (void)state;
    ERR_raise(ERR_LIB_USER, ERR_R_MALLOC_FAILURE);
    ERR_raise(ERR_LIB_USER, ERR_R_PASSED_NULL_PARAMETER);
    assert_int_equal(err_openssl(&err, "cannot read"), -1);
    assert_int_equal(err.kind, ERR_SYS);
    assert_int_equal(err.code, ENOMEM);
    assert_string_equal(err.message, "cannot read: Cannot allocate memory");
    assert_int_equal(ERR_peek_error(), 0);
}

static void test_wrap(void **state)
{
    struct err err = ERR_INIT;

    (void)state;
    err_set_code(&err, ERR_PEER, 503, "inner");
    assert_int_equal(err_wrap(&err, "step %d", 2), -1);
    assert_int_equal(err_wrap(&err, "outer"), -1);
    assert_string_equal(err.message, "outer: step 2: inner");
    assert_int_equal(err.kind, ERR_PEER);
    assert_int_equal(err.code, 503);
}

/* The message may be an argument of its own successor. */
static void test_message_as_argument(void **state)
{
    struct err err = ERR_INIT;

    (void)state;
    err_set(&err, ERR_NET, "inner");
    err_set(&err, ERR_PEER, "%s, %s", err.message, err.message);
    assert_string_equal(err.message, "inner, inner");
    err_wrap(&err, "again (%s)", err.message);
    assert_string_equal(err.message, "again (inner, inner): inner, inner");
}

static void test_long_messages_are_cut(void **state)
{
    char text[2 * ERR_MESSAGE_MAX];
    struct err err = ERR_INIT;

    (void)state;
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    err_set(&err, ERR_NET, "%s", text);
    assert_int_equal(strlen(err.message), ERR_MESSAGE_MAX - 1);
    err_sys(&err, EIO, "%s", text);
    assert_int_equal(strlen(err.message), ERR_MESSAGE_MAX - 1);
    err_wrap(&err, "outer");
    assert_int_equal(strlen(err.message), ERR_MESSAGE_MAX - 1);
    assert_memory_equal(err.message, "outer: xxx", 10);
    err_wrap(&err, "%s", text);
    assert_int_equal(strlen(err.message), ERR_MESSAGE_MAX - 1);
}

static void test_a_copy_of_none_is_one_of_no_error(void **state)
{
    struct err err = ERR_INIT;
    struct err copy;

    (void)state;
    err_set_code(&err, ERR_PEER, 404, "no such thing");
    copy = err_copy(&err);
    err_wrap(&err, "outer");
    assert_int_equal(copy.kind, ERR_PEER);
    assert_int_equal(copy.code, 404);
    assert_string_equal(copy.message, "no such thing");
    copy = err_copy(NULL);
    assert_int_equal(copy.kind, ERR_NONE);
    assert_string_equal(copy.message, "");
}

static void test_kind_names(void **state)
{
    static const char *const names[] = {"none", "config", "sys",     "net",
                                        "peer", "crypto", "timeout", "canceled"};

    (void)state;
    for (enum err_kind kind = ERR_NONE; kind <= ERR_CANCELED; kind++)
        assert_string_equal(err_kind_name(kind), names[kind]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_set),
        cmocka_unit_test(test_sys),
        cmocka_unit_test(test_openssl),
        cmocka_unit_test(test_openssl_without_memory),
        cmocka_unit_test(test_wrap),
        cmocka_unit_test(test_message_as_argument),
        cmocka_unit_test(test_long_messages_are_cut),
        cmocka_unit_test(test_a_copy_of_none_is_one_of_no_error),
        cmocka_unit_test(test_kind_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
