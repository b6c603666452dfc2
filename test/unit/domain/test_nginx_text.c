#include "domain/nginx_text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { LIST_SIZE = 16 * NGINX_TEXT_WORD_SIZE };

/* Every location of the fragment, as in "/a 1, = /b 3": modifier, path, line. */
static void list(const char *fragment, char ret[LIST_SIZE])
{
    struct nginx_text_location location;
    struct nginx_text text;
    size_t used = 0;

    ret[0] = '\0';
    nginx_text_init(&text, fragment);
    while (nginx_text_next_location(&text, &location)) {
        used += (size_t)snprintf(ret + used, LIST_SIZE - used, "%s%s%s %zu",
                                 used == 0 ? "" : ", ", location.exact ? "= " : "",
                                 location.path, location.line);
        assert_true(used < LIST_SIZE);
    }
    /* The end stays the end. */
    assert_false(nginx_text_next_location(&text, &location));
}

static void expect(const char *fragment, const char *expected)
{
    char found[LIST_SIZE];

    list(fragment, found);
    if (strcmp(found, expected) != 0)
        fail_msg("in\n%s\nfound \"%s\", not \"%s\"", fragment, found, expected);
}

static void modifiers(void **state)
{
    (void)state;
    expect("location /a { }", "/a 1");
    expect("location = /a { }", "= /a 1");
    expect("location ^~ /a { }", "/a 1");
    expect("location =\n\t/a\n{ }", "= /a 2");
}

/* nginx reads `location =/a` as it reads `location = /a`. */
static void glued_modifiers(void **state)
{
    (void)state;
    expect("location =/a { }", "= /a 1");
    expect("location ^~/a { }", "/a 1");
    expect("location \"=/a\" { }", "= /a 1");
    expect("location '^~/a' { }", "/a 1");
    expect("location ^/a { }", "^/a 1");
}

static void regular_expressions_are_not_compared(void **state)
{
    (void)state;
    expect("location ~ ^/a { } location /b { }", "/b 1");
    expect("location ~* ^/a { } location /b { }", "/b 1");
    expect("location ~^/a { } location /b { }", "/b 1");
    expect("location ~*^/a { } location /b { }", "/b 1");
    expect("location \"~ ^/a\" { } location /b { }", "/b 1");
    expect("location ~ \"^/a{2}$\" { } location /b { }", "/b 1");
    expect("location ~ '^/a{2};}' { } location /b { }", "/b 1");
    expect("location ~ /location { } location /b { }", "/b 1");
}

static void named_locations_are_no_paths(void **state)
{
    (void)state;
    expect("location @a { return 404; } location /b { }", "/b 1");
    expect("location \"@a\" { } location /b { }", "/b 1");
}

static void quotes_are_undone(void **state)
{
    (void)state;
    expect("location \"/a\" { }", "/a 1");
    expect("location '/a' { }", "/a 1");
    expect("\"location\" /a { }", "/a 1");
    expect("location \"=\" \"/a\" { }", "= /a 1");
    expect("location \"/a b;{}#\" { }", "/a b;{}# 1");
    expect("location \"/it's\" { }", "/it's 1");
    expect("location '/a\"b' { }", "/a\"b 1");
    expect("location \"/a\"{ }", "/a 1");
    /* Inside a word a quote is a character like others. */
    expect("location /a\"b { } location /it's { }", "/a\"b 1, /it's 1");
}

/* As nginx does: those of quotes and backslashes, tab, CR and LF; others are no escapes. */
static void escapes_are_undone(void **state)
{
    (void)state;
    expect("location \"/a\\\"b\" { }", "/a\"b 1");
    expect("location '/a\\'b' { }", "/a'b 1");
    expect("location /a\\\\b { }", "/a\\b 1");
    expect("location /a\\tb { }", "/a\tb 1");
    expect("location /a\\rb { }", "/a\rb 1");
    expect("location /a\\nb { }", "/a\nb 1");
    expect("location /a\\.b { }", "/a\\.b 1");
    expect("location /a\\ b { }", "/a\\ b 1");
    expect("location /a\\;b { }", "/a\\;b 1");
    expect("location /a\\{b { }", "/a\\{b 1");
    expect("location \\/a { }", "\\/a 1");
    /* Neither ends the word. */
    expect("return 200 \"\\\"; location /no { }\"; location /b { }", "/b 1");
    expect("return 200 \"\\\\\"; location /b { }", "/b 1");
}

static void comments_are_skipped(void **state)
{
    (void)state;
    expect("# location /a { }\nlocation /b { }", "/b 2");
    expect("#\n#\n\n  # { \" '\nlocation /b { }", "/b 5");
    expect("location # = /a {\n/b # {\n{ # }\n}\nlocation /c { }", "/b 2, /c 5");
    expect("# location /a { }", "");
    /* Only at the beginning of a word. */
    expect("location /a#b { } location /c { }", "/a#b 1, /c 1");
    expect("return 200 \"# not one\"; location /b { }", "/b 1");
}

static void only_the_outermost_level_counts(void **state)
{
    (void)state;
    expect(
        "location /a {\n"
        "    location /a/b { }\n"
        "    if ($x) { location /no { } }\n"
        "    limit_except GET { deny all; }\n"
        "}\n"
        "location /c { }\n",
        "/a 1, /c 6");
    expect("types { text/html html; location /no; } location /b { }", "/b 1");
}

/* A fragment may leave the block that it stands in, and open another one. */
static void what_closes_more_than_it_opened_is_followed(void **state)
{
    (void)state;
    expect("} } location /a { } server { location /no { }", "/a 1");
    expect("}\nserver {\n    listen 81;\n    location /no { }\n", "");
}

static void only_a_directive_is_a_location(void **state)
{
    (void)state;
    expect("return 200 location /no; location /b { }", "/b 1");
    expect("set $x location; location /b { }", "/b 1");
    expect("locations /no { } location2 /no { } Location /no { }", "");
    expect("add_header location \"/no\"; location /b { }", "/b 1");
}

/* The brace of "${" is no block. */
static void variables_in_braces_are_parts_of_words(void **state)
{
    (void)state;
    expect("set $a ${b}c; location /d { }", "/d 1");
    expect("location /a { ${CORS_HEADERS} proxy_pass http://$b${c}; } location /d { }",
           "/a 1, /d 1");
    expect("return 200 \"${b\"; location /d { }", "/d 1");
    expect("location /${a}/b { }", "/${a}/b 1");
    expect("set $a $$${b}; location /d { }", "/d 1");
    expect("location /a${{{b { } location /d { }", "/a${{{b 1, /d 1");
    /* An escaped dollar sign does not begin a variable. */
    expect("x \\${ location /no { } } location /d { }", "/d 1");
}

static void a_text_that_ends_in_the_middle_has_an_end(void **state)
{
    static const char whole[] = "location = \"/a\\\"b\" { # c\n set $x ${y}; } }";

    (void)state;
    for (size_t len = 0; len < sizeof whole; len++) {
        char begin[sizeof whole];
        char found[LIST_SIZE];

        memcpy(begin, whole, len);
        begin[len] = '\0';
        list(begin, found);
        assert_true(strncmp(found, "= ", 2) == 0 || found[0] == '\0');
    }
    expect("location", "");
    expect("location =", "");
    expect("location ^~", "");
    expect("location \"", "");
    expect("location /a\\", "/a\\ 1");
    expect("location \"/a", "/a 1");
    expect("location \"/a\\", "/a\\ 1");
    expect("location /$", "/$ 1");
    expect("location /${", "/${ 1");
}

/* nginx refuses these; what comes behind them is found all the same, or nothing is. */
static void nonsense_is_survived(void **state)
{
    (void)state;
    expect("location { } location /b { }", "/b 1");
    expect("location = { } location /b { }", "/b 1");
    expect("location \"\" { } location /b { }", "/b 1");
    expect("location ; location /b { }", "");
    expect("location } location /b { }", "");
    expect("; ; { } } location /b { }", "/b 1");
    expect("", "");
    expect(" \t\r\n", "");
}

static void lines_are_counted_everywhere(void **state)
{
    (void)state;
    expect("\n\r\nlocation /a { }", "/a 3");
    expect("return 200 \"one\ntwo\nthree\";\nlocation /a { }", "/a 4");
    expect("return 200 one\\\ntwo;\nlocation /a { }", "/a 3");
    expect("location\n\n/a\n{\n}\nlocation /b { }", "/a 3, /b 6");
}

/* Of a word that is longer than any path of a route only the beginning is kept. */
static void long_words_are_cut(void **state)
{
    static const size_t lengths[] = {NGINX_TEXT_WORD_SIZE - 2, NGINX_TEXT_WORD_SIZE - 1,
                                     NGINX_TEXT_WORD_SIZE, 3 * NGINX_TEXT_WORD_SIZE};
    static const char *const tails[] = {"", "${x}", "\\\"", "\\{", "\\n", "$", "\\\\"};

    (void)state;
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        for (size_t k = 0; k < sizeof tails / sizeof tails[0]; k++) {
            char word[3 * NGINX_TEXT_WORD_SIZE + 1];
            char fragment[sizeof word + 128];
            struct nginx_text_location location;
            struct nginx_text text;

            memset(word, 'a', sizeof word);
            word[0] = '/';
            word[lengths[i]] = '\0';
            snprintf(fragment, sizeof fragment,
                     "location %s%s { set $x y; }\nlocation = /b { }", word, tails[k]);
            nginx_text_init(&text, fragment);
            assert_true(nginx_text_next_location(&text, &location));
            assert_true(strlen(location.path) >= NGINX_TEXT_WORD_SIZE - 2);
            assert_true(strlen(location.path) < NGINX_TEXT_WORD_SIZE);
            assert_memory_equal(location.path, word, NGINX_TEXT_WORD_SIZE - 2);
            assert_int_equal(location.line, 1);
            assert_true(nginx_text_next_location(&text, &location));
            assert_string_equal(location.path, "/b");
            assert_true(location.exact);
            assert_int_equal(location.line, 2);
            assert_false(nginx_text_next_location(&text, &location));
        }
    }
}

static void expect_group(const char *conf, const char *expected)
{
    char group[NGINX_TEXT_WORD_SIZE];
    bool found = nginx_text_worker_group(conf, group);

    if (found != (expected != NULL) || (found && strcmp(group, expected) != 0))
        fail_msg("in\n%s\nfound %s", conf, found ? group : "nothing");
}

static void group_of_workers(void **state)
{
    (void)state;
    expect_group("user www-data;", "www-data");
    expect_group("load_module \"a;b\";\nuser  nobody\n  nogroup ;\nhttp { }", "nogroup");
    expect_group("events { }\nuser 'a b';", "a b");
    expect_group("# user one;\nuser two; # three", "two");
    expect_group("user", NULL);
    expect_group("user;", NULL);
    expect_group("", NULL);
    expect_group("events { user no; }\nhttp { }\n", NULL);
    expect_group("env user www-data;", NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(group_of_workers),
        cmocka_unit_test(modifiers),
        cmocka_unit_test(glued_modifiers),
        cmocka_unit_test(regular_expressions_are_not_compared),
        cmocka_unit_test(named_locations_are_no_paths),
        cmocka_unit_test(quotes_are_undone),
        cmocka_unit_test(escapes_are_undone),
        cmocka_unit_test(comments_are_skipped),
        cmocka_unit_test(only_the_outermost_level_counts),
        cmocka_unit_test(what_closes_more_than_it_opened_is_followed),
        cmocka_unit_test(only_a_directive_is_a_location),
        cmocka_unit_test(variables_in_braces_are_parts_of_words),
        cmocka_unit_test(a_text_that_ends_in_the_middle_has_an_end),
        cmocka_unit_test(nonsense_is_survived),
        cmocka_unit_test(lines_are_counted_everywhere),
        cmocka_unit_test(long_words_are_cut),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
