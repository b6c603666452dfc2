#include "base/buf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void test_append(void **state)
{
    struct err err = ERR_INIT;
    BUF_SCOPED buf;

    (void)state;
    buf_init(&buf, 100);
    assert_string_equal(buf_str(&buf), "");
    assert_int_equal(buf_append(&buf, NULL, 0, &err), 0);
    assert_string_equal(buf_str(&buf), "");
    assert_int_equal(buf_append(&buf, "a\0b", 3, &err), 0);
    assert_int_equal(buf_append_str(&buf, "cd", &err), 0);
    assert_int_equal(buf_printf(&buf, &err, "%s %d", "e", 42), 0);
    assert_int_equal(buf.len, 9);
    assert_memory_equal(buf.data, "a\0bcde 42", 10);
    assert_int_equal(err.kind, ERR_NONE);
}

static void test_maximum(void **state)
{
    struct err err = ERR_INIT;
    BUF_SCOPED buf;

    (void)state;
    buf_init(&buf, 10);
    assert_int_equal(buf_append_str(&buf, "0123456789", &err), 0);
    assert_int_equal(buf_append(&buf, "", 0, &err), 0);
    assert_int_equal(buf_append_str(&buf, "x", &err), -1);
    assert_int_equal(err.kind, ERR_PEER);
    assert_string_equal(err.message, "more than 10 bytes");
    assert_int_equal(buf_printf(&buf, &err, "%d", 1), -1);
    assert_string_equal(buf_str(&buf), "0123456789");
    assert_int_equal(buf.len, 10);
    buf_clear(&buf);
    assert_int_equal(buf_append(&buf, "x", SIZE_MAX, &err), -1);
    assert_int_equal(buf_printf(&buf, &err, "%s", "0123456789"), 0);
    assert_string_equal(buf_str(&buf), "0123456789");
}

static void test_maximum_of_nothing(void **state)
{
    struct err err = ERR_INIT;
    BUF_SCOPED buf;

    (void)state;
    buf_init(&buf, 0);
    assert_int_equal(buf_append_str(&buf, "", &err), 0);
    assert_int_equal(buf_append_str(&buf, "x", &err), -1);
    assert_string_equal(err.message, "more than 0 bytes");
}

static void test_growth(void **state)
{
    struct err err = ERR_INIT;
    BUF_SCOPED buf;

    (void)state;
    buf_init(&buf, 100000);
    for (size_t i = 0; i < 100000; i++) {
        unsigned char byte = (unsigned char)(i * 7);

        assert_int_equal(buf_append(&buf, &byte, 1, &err), 0);
        assert_int_equal(buf.data[buf.len], 0);
    }
    for (size_t i = 0; i < 100000; i++)
        assert_int_equal(buf.data[i], (unsigned char)(i * 7));
    assert_int_equal(buf_append_str(&buf, "x", &err), -1);
}

static void test_clear_wipes(void **state)
{
    static const unsigned char zeros[6];
    struct err err = ERR_INIT;
    BUF_SCOPED buf;

    (void)state;
    buf_init(&buf, 100);
    buf_clear(&buf);
    assert_int_equal(buf_append_str(&buf, "secret", &err), 0);
    buf_clear(&buf);
    assert_int_equal(buf.len, 0);
    assert_non_null(buf.data);
    assert_memory_equal(buf.data, zeros, sizeof zeros);
    assert_string_equal(buf_str(&buf), "");
}

static void test_done(void **state)
{
    struct buf buf = {.len = 0};
    struct err err = ERR_INIT;

    (void)state;
    buf_done(&buf);
    buf_init(&buf, 10);
    assert_int_equal(buf_append_str(&buf, "x", &err), 0);
    buf_done(&buf);
    assert_null(buf.data);
    buf_done(&buf);
    assert_int_equal(buf_append_str(&buf, "again", &err), 0);
    assert_string_equal(buf_str(&buf), "again");
    buf_done(&buf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_append),
        cmocka_unit_test(test_maximum),
        cmocka_unit_test(test_maximum_of_nothing),
        cmocka_unit_test(test_growth),
        cmocka_unit_test(test_clear_wipes),
        cmocka_unit_test(test_done),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
