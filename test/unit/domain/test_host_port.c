#include "domain/host_port.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void hosts_and_ports_are_taken_apart(void **state)
{
    static const struct {
        const char *text;
        const char *host;
        unsigned port;
        bool literal;
    } good[] = {
        {"peer:443", "peer", 443, false},
        {"peer_1.example.test:1", "peer_1.example.test", 1, false},
        {"10.0.0.2:65535", "10.0.0.2", 65535, true},
        {"[fd00::2]:8443", "fd00::2", 8443, true},
        {"[::1]:80", "::1", 80, true},
        {"10.0.0:80", "10.0.0", 80, false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        struct host_port place = {.port = 7};

        assert_int_equal(host_port_parse(&place, good[i].text), 0);
        assert_string_equal(place.host, good[i].host);
        assert_int_equal(place.port, good[i].port);
        assert_int_equal(place.literal, good[i].literal);
    }
}

static void what_is_no_host_and_port_is_refused(void **state)
{
    static const char *const bad[] = {
        "",           "peer",      "peer:",        "peer:0",        "peer:65536",
        ":443",       "-peer:443", ".peer:443",    "peer:44x",      "peer:-1",
        "fd00::2:80", "[fd00::2]", "[10.0.0.2]:1", "[peer]:443",    "[]:443",
        "peer/x:443", "a b:443",   "peer: 443",    "user@peer:443", "peer:+443",
        "[::1:443",   "::1]:443",  "[::1]x:443",   "peer:443:444",
    };
    char long_name[HOST_PORT_HOST_SIZE + 8];
    struct host_port place;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(host_port_parse(&place, bad[i]), -1);
    memset(long_name, 'a', sizeof long_name);
    strcpy(long_name + HOST_PORT_HOST_SIZE, ":443");
    assert_int_equal(host_port_parse(&place, long_name), -1);
    strcpy(long_name + HOST_PORT_HOST_SIZE - 1, ":443");
    assert_int_equal(host_port_parse(&place, long_name), 0);
}

static void hosts_alone_may_be_without_brackets(void **state)
{
    struct host_port place = {.port = 7};

    (void)state;
    assert_int_equal(host_port_set_host(&place, "fd00::2", 7), 0);
    assert_true(place.literal);
    assert_int_equal(host_port_set_host(&place, "peer:443", 4), 0);
    assert_string_equal(place.host, "peer");
    assert_false(place.literal);
    assert_int_equal(place.port, 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hosts_and_ports_are_taken_apart),
        cmocka_unit_test(what_is_no_host_and_port_is_refused),
        cmocka_unit_test(hosts_alone_may_be_without_brackets),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
