#include "base/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void test_hex(void **state)
{
    char hex[9];
    unsigned char bytes[4];

    (void)state;
    text_hex(hex, "\x00\x7f\x80\xff", 4);
    assert_string_equal(hex, "007f80ff");
    text_hex(hex, "", 0);
    assert_string_equal(hex, "");
    assert_int_equal(text_unhex(bytes, 4, "007F80fF"), 0);
    assert_memory_equal(bytes, "\x00\x7f\x80\xff", 4);
    assert_int_equal(text_unhex(bytes, 0, ""), 0);
    assert_int_equal(text_unhex(bytes, 4, "007f80f"), -1);
    assert_int_equal(text_unhex(bytes, 4, "007f80ff0"), -1);
    assert_int_equal(text_unhex(bytes, 4, "007f80fg"), -1);
    assert_int_equal(text_unhex(bytes, 4, "0x7f80ff"), -1);
    assert_int_equal(text_unhex(bytes, 4, " 07f80ff"), -1);
    assert_int_equal(text_unhex(bytes, 4, ""), -1);
}

/* The vectors of RFC 4648 §10, without padding, and the two letters of its §5. */
static void test_base64url(void **state)
{
    static const struct {
        const char *bytes;
        const char *encoded;
    } vectors[] = {
        {"", ""},
        {"f", "Zg"},
        {"fo", "Zm8"},
        {"foo", "Zm9v"},
        {"foob", "Zm9vYg"},
        {"fooba", "Zm9vYmE"},
        {"foobar", "Zm9vYmFy"},
        {"\xfb\xff\xbf", "-_-_"},
    };
    char encoded[TEXT_BASE64URL_SIZE(8)];

    (void)state;
    for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
        size_t len = strlen(vectors[i].bytes);

        text_base64url(encoded, vectors[i].bytes, len);
        assert_string_equal(encoded, vectors[i].encoded);
        assert_true(strlen(encoded) < TEXT_BASE64URL_SIZE(len));
    }
}

static void test_base64url_of_many_bytes(void **state)
{
    unsigned char bytes[300];
    char encoded[TEXT_BASE64URL_SIZE(sizeof bytes)];

    (void)state;
    memset(bytes, 0xff, sizeof bytes);
    text_base64url(encoded, bytes, sizeof bytes);
    assert_int_equal(strlen(encoded), 400);
    assert_int_equal(strspn(encoded, "_"), 400);
}

static void expect_unbase64url(const char *text, const char *bytes)
{
    unsigned char decoded[TEXT_UNBASE64URL_MAX(16)];
    size_t len = 99;

    if (bytes == NULL) {
        assert_int_equal(text_unbase64url(decoded, &len, text, strlen(text)), -1);
        return;
    }
    assert_int_equal(text_unbase64url(decoded, &len, text, strlen(text)), 0);
    assert_int_equal(len, strlen(bytes));
    assert_memory_equal(decoded, bytes, len);
}

static void test_unbase64url(void **state)
{
    static const char *const bad[] = {"A",     "Zm9vY", "Zg=",      "Zg===",
                                      "Zm9v=", "====",  "Zm9v====", "+/+/",
                                      "Zm 9",  "Zg\n",  "Z=g=",     "="};

    (void)state;
    expect_unbase64url("", "");
    expect_unbase64url("Zg", "f");
    expect_unbase64url("Zg==", "f");
    expect_unbase64url("Zm8", "fo");
    expect_unbase64url("Zm8=", "fo");
    expect_unbase64url("Zm9v", "foo");
    expect_unbase64url("Zm9vYmFy", "foobar");
    expect_unbase64url("-_-_", "\xfb\xff\xbf");
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        expect_unbase64url(bad[i], NULL);
}

static void test_time(void **state)
{
    char text[TEXT_TIME_SIZE];

    (void)state;
    assert_string_equal(text_time(text, 0), "1970-01-01 00:00:00 UTC");
    assert_string_equal(text_time(text, 1795459443), "2026-11-23 18:44:03 UTC");
    assert_string_equal(text_time(text, -1), "1969-12-31 23:59:59 UTC");
    assert_string_equal(text_time(text, 4102444800), "2100-01-01 00:00:00 UTC");
    assert_string_equal(text_time(text, INT64_MAX), "@9223372036854775807");
    assert_string_equal(text_time(text, INT64_MIN), "@-9223372036854775808");
}

static void test_duration(void **state)
{
    char text[TEXT_DURATION_SIZE];

    (void)state;
    assert_string_equal(text_duration(text, 0), "0 s");
    assert_string_equal(text_duration(text, 1), "1 s");
    assert_string_equal(text_duration(text, 119), "119 s");
    assert_string_equal(text_duration(text, 120), "2 minutes");
    assert_string_equal(text_duration(text, 7199), "119 minutes");
    assert_string_equal(text_duration(text, 7200), "2 hours");
    assert_string_equal(text_duration(text, 172799), "47 hours");
    assert_string_equal(text_duration(text, 172800), "2 days");
    assert_string_equal(text_duration(text, 90 * 86400), "90 days");
    assert_string_equal(text_duration(text, -5), "-5 s");
    assert_string_equal(text_duration(text, INT64_MAX), "106751991167300 days");
    assert_string_equal(text_duration(text, INT64_MIN), "-9223372036854775808 s");
}

static void test_character(void **state)
{
    static const struct {
        const char *bytes;
        size_t left;
        size_t size;
        unsigned code;
    } cases[] = {
        {"a", 1, 1, 'a'},
        {"\0", 1, 1, 0},
        {"\x7f", 1, 1, 0x7f},
        {"\xc2\x80", 2, 2, 0x80},
        {"\xdf\xbf", 2, 2, 0x7ff},
        {"\xe0\xa0\x80", 3, 3, 0x800},
        {"\xed\x9f\xbf", 3, 3, 0xd7ff},
        {"\xee\x80\x80", 3, 3, 0xe000},
        {"\xef\xbf\xbf", 3, 3, 0xffff},
        {"\xf0\x90\x80\x80", 4, 4, 0x10000},
        {"\xf4\x8f\xbf\xbf", 4, 4, 0x10ffff},
        {"\x80", 1, 0, 0},
        {"\xbf", 1, 0, 0},
        {"\xc0\x80", 2, 0, 0},
        {"\xc1\xbf", 2, 0, 0},
        {"\xe0\x9f\xbf", 3, 0, 0},
        {"\xed\xa0\x80", 3, 0, 0},
        {"\xed\xbf\xbf", 3, 0, 0},
        {"\xf0\x8f\xbf\xbf", 4, 0, 0},
        {"\xf4\x90\x80\x80", 4, 0, 0},
        {"\xf5\x80\x80\x80", 4, 0, 0},
        {"\xf8\x88\x80\x80\x80", 5, 0, 0},
        {"\xff", 1, 0, 0},
        {"\xc2", 1, 0, 0},
        {"\xe2\x82\xac", 2, 0, 0},
        {"\xf0\x90\x80\x80", 3, 0, 0},
        {"\xc2\x20", 2, 0, 0},
        {"\xe2\x82\x20", 3, 0, 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        unsigned code = 0;

        assert_int_equal(text_character(cases[i].bytes, cases[i].left, &code),
                         cases[i].size);
        assert_int_equal(code, cases[i].code);
    }
}

static void test_control(void **state)
{
    (void)state;
    assert_true(text_is_control(0));
    assert_true(text_is_control(0x1f));
    assert_false(text_is_control(0x20));
    assert_false(text_is_control(0x7e));
    assert_true(text_is_control(0x7f));
    assert_true(text_is_control(0x9f));
    assert_false(text_is_control(0xa0));
    assert_false(text_is_control(0x10ffff));
}

static void assert_escaped(const char *bytes, size_t len, size_t size, const char *wanted)
{
    char text[64];

    assert_int_equal(text_escape(text, size, bytes, len), strlen(wanted));
    assert_string_equal(text, wanted);
}

static void test_escape(void **state)
{
    (void)state;
    assert_escaped("", 0, 64, "");
    assert_escaped("a\xc3\xa9 /\"", 6, 64, "a\xc3\xa9 /\"");
    assert_escaped("a\n\0\x7f", 4, 64, "a\\x0a\\x00\\x7f");
    assert_escaped("\xc2\x85", 2, 64, "\\xc2\\x85");          /* NEL, of C1 */
    assert_escaped("\xff\xe2\x82", 3, 64, "\\xff\\xe2\\x82"); /* not UTF-8 */
    /* Cut between characters, never within one. */
    assert_escaped(
        "ab\xf0\x9f\x98\x80"
        "c",
        7, 7, "ab\xf0\x9f\x98\x80");
    assert_escaped("abc\xf0\x9f\x98\x80", 7, 7, "abc");
    assert_escaped("ab\n\n", 4, 7, "ab\\x0a");
}

static void test_starts_with(void **state)
{
    (void)state;
    assert_true(text_starts_with("abc", "ab"));
    assert_true(text_starts_with("abc", ""));
    assert_true(text_starts_with("abc", "abc"));
    assert_false(text_starts_with("abc", "abcd"));
    assert_false(text_starts_with("", "a"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hex),
        cmocka_unit_test(test_base64url),
        cmocka_unit_test(test_base64url_of_many_bytes),
        cmocka_unit_test(test_unbase64url),
        cmocka_unit_test(test_time),
        cmocka_unit_test(test_duration),
        cmocka_unit_test(test_character),
        cmocka_unit_test(test_control),
        cmocka_unit_test(test_escape),
        cmocka_unit_test(test_starts_with),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
