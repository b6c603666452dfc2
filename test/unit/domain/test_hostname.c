#include "domain/hostname.h"

#include "support/pki.h"

#include <stdio.h>
#include <string.h>

#define L63 "abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz0"

static const struct {
    const char *name;
    const char *says; /* NULL: allowed */
} syntax[] = {
    {"peer.test", NULL},
    {"localhost", NULL},
    {"a", NULL},
    {"A.Example.ORG", NULL},
    {"xn--bcher-kva.example", NULL},
    {"a-b.c--d.example", NULL},
    {"1.example", NULL},
    {"1.2.3", NULL},
    {L63 ".example", NULL},
    {"", "is empty"},
    {".", "empty label"},
    {".example.org", "empty label"},
    {"a..example", "empty label"},
    {"example.org.", "\"example.org.\" ends with a dot; remove the dot"},
    {"a" L63 ".example", "at most 63"},
    {"-a.example", "hyphen"},
    {"a-.example", "hyphen"},
    {"a.-", "hyphen"},
    {"*.example.org", "is a wildcard; expected one name such as service.example.org"},
    {"a.*.example", "is a wildcard"},
    {"a_b.example", "'_' at position 2"},
    {"a,b.example", "not allowed, ',' at position 2"},
    {"a b.example", "has a blank at position 2; remove the blank"},
    {" a.example", "has a blank at position 1; remove the blank"},
    {"a\n.example", "0x0a"},
    {"b\xc3\xbc"
     "cher.example",
     "A-label"},
    {"::1", "is an address; expected a name such as service.example.org"},
    {"[2001:db8::1]", "is an address"},
    {"[2001:db8::1]:443", "is an address"},
    {"192.0.2.1", "is an address; expected a name such as service.example.org"},
    {"[a]", "'['"},
    {"[1111:1111:1111:1111:1111:1111:1111:1111:1111:1111]", "'['"},
    {"example.org:443", "has a port; write only the name: example.org"},
    {"example.org:443/", "has a port; write only the name: example.org"},
    {"192.0.2.1:443", "has a port; write only the name, such as service.example.org"},
    {":443", "has a port; write only the name, such as service.example.org"},
    {"a:b", "':' at position 2"},
    {"a:", "':' at position 2"},
    {"a.example/b", "has a path; write only the name: a.example"},
    {"/", "has a path; write only the name, such as service.example.org"},
    {"https://app.example.com/", "is a URL; write only the name: app.example.com"},
    {"http://app.example.com:8080?a#b", "is a URL; write only the name: app.example.com"},
    {"https://*.example.com", "is a URL; write only the name, such as service."},
    {"https://192.0.2.1/", "is a URL; write only the name, such as service."},
    {"https://", "is a URL; write only the name, such as service."},
    {"'a.example'", "has quotes in it; remove them (docker's --env-file keeps them)"},
    {"\"a.example\"", "has quotes in it; remove them"},
    {"\"https://a.example\"", "has quotes in it; remove them"},
    {"me@a.example", "has an @ in it; expected a name such as service.example.org"},
};

static void names_have_the_syntax_of_host_names(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof syntax / sizeof *syntax; i++) {
        struct err err = ERR_INIT;
        int failed = hostname_check(syntax[i].name, &err);

        if ((failed == 0) != (syntax[i].says == NULL))
            fail_msg("\"%s\": %d %s", syntax[i].name, failed, err.message);
        if (failed == 0) {
            assert_int_equal(err.kind, ERR_NONE);
            continue;
        }
        assert_int_equal(err.kind, ERR_CONFIG);
        if (strstr(err.message, syntax[i].says) == NULL)
            fail_msg("\"%s\" says \"%s\", not \"%s\"", syntax[i].name, err.message,
                     syntax[i].says);
    }
}

static void names_have_at_most_253_bytes(void **state)
{
    char name[300] = L63 "." L63 "." L63 ".";
    struct err err = ERR_INIT;

    (void)state;
    memset(name + 192, 'a', 61);
    assert_int_equal(strlen(name), 253);
    assert_int_equal(hostname_check(name, &err), 0);
    name[253] = 'a';
    assert_int_equal(hostname_check(name, &err), -1);
    assert_int_equal(err.kind, ERR_CONFIG);
    assert_non_null(strstr(err.message, "254 bytes"));
    assert_true(strlen(err.message) < 250);
}

static void long_names_are_cut_between_characters(void **state)
{
    char name[300];
    struct err err = ERR_INIT;

    (void)state;
    memset(name, 'a', sizeof name);
    memcpy(name + 79, "\xc3\xbc", 2);
    name[sizeof name - 1] = '\0';
    assert_int_equal(hostname_check(name, &err), -1);
    assert_memory_equal(err.message + 78, "aa…\" has 299 bytes", 18);
}

static void passwords_of_urls_are_not_repeated(void **state)
{
    struct err err = ERR_INIT;

    (void)state;
    assert_int_equal(hostname_check("https://me:hunter2@a.example/", &err), -1);
    assert_null(strstr(err.message, "hunter2"));
}

static const struct {
    const char *name;
    const char *says; /* NULL: allowed */
} public_names[] = {
    {"peer.test", NULL},
    {"a.example", NULL},
    {"www.example.org", NULL},
    {"a.internal", NULL},
    {"nas.home.arpa", NULL},
    {"local.example", NULL},
    {"a.notlocal", NULL},
    {"4.example", NULL},
    {"a.4b", NULL},
    {"localhost", "\"localhost\""},
    {"LOCALHOST", "\"localhost\""},
    {"a.localhost", "\"localhost\""},
    {"a.Local", "\"local\""},
    {"a.b.invalid", "\"invalid\""},
    {"a.onion", "\"onion\""},
    {"example", "single label"},
    {"a.123", "is a number"},
    {"1.2.3", "is a number"},
    {"192.0.2.1", "is an address"},
    {"a_b.example", "'_'"},
    {"", "is empty"},
};

static void a_public_ca_is_not_asked_for_private_names(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof public_names / sizeof *public_names; i++) {
        struct err err = ERR_INIT;
        int failed = hostname_check_public(public_names[i].name, &err);

        if ((failed == 0) != (public_names[i].says == NULL))
            fail_msg("\"%s\": %d %s", public_names[i].name, failed, err.message);
        if (failed == 0)
            continue;
        assert_int_equal(err.kind, ERR_CONFIG);
        if (strstr(err.message, public_names[i].says) == NULL)
            fail_msg("\"%s\" says \"%s\"", public_names[i].name, err.message);
    }
}

static void patterns_are_names_or_wildcards_of_names(void **state)
{
    static const char *const good[] = {"peer.test", "*.peer.test", "*.test"};
    static const char *const bad[] = {"",          "*", "*.", "*.*.test", "w*.peer.test",
                                      "*peer.test"};
    struct err err = ERR_INIT;

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_int_equal(hostname_check_pattern(good[i], &err), 0);
        assert_int_equal(hostname_is_wildcard(good[i]), i > 0);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(hostname_check_pattern(bad[i], &err), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_have_the_syntax_of_host_names),
        cmocka_unit_test(names_have_at_most_253_bytes),
        cmocka_unit_test(long_names_are_cut_between_characters),
        cmocka_unit_test(passwords_of_urls_are_not_repeated),
        cmocka_unit_test(a_public_ca_is_not_asked_for_private_names),
        cmocka_unit_test(patterns_are_names_or_wildcards_of_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
