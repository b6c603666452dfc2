#include "domain/template.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct template_value values[] = {
    {"DOMAIN", "example.test"},
    {"DOMAIN_LONG", "long"},
    {"EMPTY", ""},
    {"TRAP", "${DOMAIN} $host"},
};

static void expect(const char *text, const char *expected)
{
    struct err err = ERR_INIT;
    BUF_SCOPED ret;

    buf_init(&ret, 4096);
    assert_int_equal(
        template_render(text, values, sizeof values / sizeof values[0], &ret, &err), 0);
    assert_string_equal(buf_str(&ret), expected);
    assert_int_equal(err.kind, ERR_NONE);
}

static void replaces_known_names(void **state)
{
    (void)state;
    expect("", "");
    expect("no placeholder", "no placeholder");
    expect("${DOMAIN}", "example.test");
    expect("a ${DOMAIN};${DOMAIN_LONG}${EMPTY}.", "a example.test;long.");
}

static void leaves_everything_else(void **state)
{
    (void)state;
    expect("$host ${host} $DOMAIN ${} ${DOM} ${DOMAINS} ${ DOMAIN}",
           "$host ${host} $DOMAIN ${} ${DOM} ${DOMAINS} ${ DOMAIN}");
    expect("$", "$");
    expect("tail ${", "tail ${");
    expect("tail ${DOMAIN", "tail ${DOMAIN");
    expect("$${DOMAIN}$", "$example.test$");
    expect("${a${DOMAIN}}", "${aexample.test}");
    expect("if (a ~ \"x${2}\") { ${DOMAIN} }", "if (a ~ \"x${2}\") { example.test }");
}

/* When each of them is followed to the end of the text, this takes seconds. */
static void openings_without_an_end_are_read_once(void **state)
{
    enum { OPENINGS = 512 * 1024 };
    char *text = malloc(2 * OPENINGS + 2);
    struct err err = ERR_INIT;
    BUF_SCOPED ret;

    (void)state;
    assert_non_null(text);
    for (size_t i = 0; i < OPENINGS; i++)
        memcpy(text + 2 * i, "${", 2);
    memcpy(text + 2 * OPENINGS, "}", 2);
    buf_init(&ret, 2 * OPENINGS + 1);
    assert_int_equal(template_render(text, values, 1, &ret, &err), 0);
    assert_string_equal(buf_str(&ret), text);
    free(text);
}

static void does_not_search_values(void **state)
{
    (void)state;
    expect("<${TRAP}>", "<${DOMAIN} $host>");
}

static void appends(void **state)
{
    struct err err = ERR_INIT;
    BUF_SCOPED ret;

    (void)state;
    buf_init(&ret, 4096);
    assert_int_equal(template_render("one ", NULL, 0, &ret, &err), 0);
    assert_int_equal(template_render("${DOMAIN}", NULL, 0, &ret, &err), 0);
    assert_string_equal(buf_str(&ret), "one ${DOMAIN}");
}

/* Whichever piece is the one too many. */
static void reports_a_full_buffer(void **state)
{
    static const char text[] = "a ${DOMAIN} ${unknown} ${EMPTY} z";
    static const size_t whole = sizeof "a example.test ${unknown}  z" - 1;

    (void)state;
    for (size_t max = 0; max <= whole; max++) {
        struct err err = ERR_INIT;
        BUF_SCOPED ret;
        int result;

        buf_init(&ret, max);
        result =
            template_render(text, values, sizeof values / sizeof values[0], &ret, &err);
        assert_int_equal(result, max < whole ? -1 : 0);
        assert_int_equal(err.kind, max < whole ? ERR_PEER : ERR_NONE);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replaces_known_names),
        cmocka_unit_test(leaves_everything_else),
        cmocka_unit_test(openings_without_an_end_are_read_once),
        cmocka_unit_test(does_not_search_values),
        cmocka_unit_test(appends),
        cmocka_unit_test(reports_a_full_buffer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
