#include "base/secret.h"

#include <openssl/crypto.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static int setup(void **state)
{
    struct err err = ERR_INIT;

    (void)state;
    return secret_setup(&err);
}

static void test_setup_twice(void **state)
{
    struct err err = ERR_INIT;

    (void)state;
    assert_int_equal(secret_setup(&err), 0);
    assert_int_equal(err.kind, ERR_NONE);
}

static void test_copy(void **state)
{
    SECRET_SCOPED secret = secret_copy("key\0text", 8);

    (void)state;
    assert_non_null(secret);
    assert_int_equal(secret->len, 8);
    assert_memory_equal(secret->bytes, "key\0text", 9);
    assert_int_equal(CRYPTO_secure_allocated(secret), 1);
}

static void test_new_is_zero(void **state)
{
    static const unsigned char zeros[33];
    SECRET_SCOPED secret = secret_new(32);
    SECRET_SCOPED nothing = secret_new(0);

    (void)state;
    assert_non_null(secret);
    assert_int_equal(secret->len, 32);
    assert_memory_equal(secret->bytes, zeros, sizeof zeros);
    assert_non_null(nothing);
    assert_int_equal(nothing->bytes[0], 0);
}

static void test_equal(void **state)
{
    SECRET_SCOPED a = secret_copy("abc", 3);
    SECRET_SCOPED same = secret_copy("abc", 3);
    SECRET_SCOPED other = secret_copy("abd", 3);
    SECRET_SCOPED shorter = secret_copy("ab", 2);
    SECRET_SCOPED nothing = secret_new(0);

    (void)state;
    assert_true(a != NULL && same != NULL && other != NULL && shorter != NULL &&
                nothing != NULL);
    assert_true(secret_equal(a, same));
    assert_false(secret_equal(a, other));
    assert_false(secret_equal(a, shorter));
    assert_false(secret_equal(shorter, a));
    assert_true(secret_equal(nothing, nothing));
    assert_false(secret_equal(nothing, a));
}

static void test_free_gives_back(void **state)
{
    size_t used = CRYPTO_secure_used();
    struct secret *secret = secret_copy("abc", 3);

    (void)state;
    assert_true(CRYPTO_secure_used() > used);
    secret_free(secret);
    assert_int_equal(CRYPTO_secure_used(), used);
    secret_free(NULL);
}

static void test_exhausted(void **state)
{
    struct secret *held[64];
    size_t count = 0;

    (void)state;
    while (count < 64 && (held[count] = secret_new(8000)) != NULL)
        count++;
    assert_true(count > 0);
    assert_true(count < 64);
    assert_null(secret_new(8000));
    while (count > 0)
        secret_free(held[--count]);
    held[0] = secret_new(8000);
    assert_non_null(held[0]);
    secret_free(held[0]);
}

static void test_wipe_allocator(void **state)
{
    static const unsigned char zeros[40];
    char *text = wipe_strdup("text");
    unsigned char *memory = wipe_calloc(5, 8);

    (void)state;
    assert_string_equal(text, "text");
    assert_memory_equal(memory, zeros, sizeof zeros);
    assert_int_equal((uintptr_t)memory % _Alignof(max_align_t), 0);
    text = wipe_realloc(text, 1000);
    assert_non_null(text);
    assert_string_equal(text, "text");
    text[999] = 'x';
    text = wipe_realloc(text, 2);
    assert_non_null(text);
    assert_memory_equal(text, "te", 2);
    wipe_free(text);
    wipe_free(memory);
    wipe_free(NULL);
    text = wipe_realloc(NULL, 3);
    assert_non_null(text);
    text[2] = 'x';
    wipe_free(text);
    memory = wipe_malloc(0);
    assert_non_null(memory);
    wipe_free(memory);
    memory = wipe_calloc(0, 0);
    assert_non_null(memory);
    wipe_free(memory);
}

static void test_sizes_that_overflow(void **state)
{
    /* From variables: a compiler that sees the constants warns about them. */
    volatile size_t huge = SIZE_MAX;
    char *kept = wipe_strdup("kept");

    (void)state;
    assert_null(wipe_malloc(huge));
    assert_null(wipe_malloc(huge - 8));
    assert_null(wipe_calloc(huge / 2, 3));
    assert_null(wipe_realloc(kept, huge));
    assert_string_equal(kept, "kept");
    wipe_free(kept);
    assert_null(secret_new(huge));
    assert_null(secret_new(huge - 8));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_setup_twice),
        cmocka_unit_test(test_copy),
        cmocka_unit_test(test_new_is_zero),
        cmocka_unit_test(test_equal),
        cmocka_unit_test(test_free_gives_back),
        cmocka_unit_test(test_exhausted),
        cmocka_unit_test(test_wipe_allocator),
        cmocka_unit_test(test_sizes_that_overflow),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
