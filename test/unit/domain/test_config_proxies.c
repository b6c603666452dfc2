/* The settings of whoever stands in front or beside: PROXY protocol, trusted networks, HSTS, peers. */
#include "domain/config.h"

#include "support/settings.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define NETWORKS_EXPECTED                                                                \
    "expected an address or a network such as 10.0.0.0/8 or fd00::/8"

static void they_are_off_unless_asked_for(void **state)
{
    struct settings settings;

    (void)state;
    settings_load_good(&settings, "", NULL);
    assert_false(settings.config.nginx.proxy_protocol);
    assert_int_equal(settings.config.nginx.trusted_proxies.count, 0);
    assert_int_equal(settings.config.nginx.hsts_days, 0);
    settings_done(&settings);
}

static void the_values_of_the_file_are_taken(void **state)
{
    struct settings settings;
    const struct config_list *trusted = &settings.config.nginx.trusted_proxies;

    (void)state;
    settings_load_good(&settings,
                       "nginx:\n  proxy_protocol: true\n  hsts_days: 3650\n"
                       "  trusted_proxies:\n    - 10.0.0.0/8\n    - \"fd00::/8\"\n",
                       NULL);
    assert_true(settings.config.nginx.proxy_protocol);
    assert_int_equal(settings.config.nginx.hsts_days, 3650);
    assert_int_equal(trusted->count, 2);
    assert_string_equal(trusted->items[0], "10.0.0.0/8");
    assert_string_equal(trusted->items[1], "fd00::/8");
    settings_done(&settings);
    settings_expect_good("nginx:\n  proxy_protocol: false\n  trusted_proxies: []\n",
                         NULL);
}

/* With one network; `message` is NULL when it is one. */
static void expect_network(const char *network, const char *message)
{
    char file[512];

    assert_true((size_t)snprintf(file, sizeof file,
                                 "nginx:\n  proxy_protocol: true\n"
                                 "  trusted_proxies: [\"%s\"]\n",
                                 network) < sizeof file);
    if (message == NULL)
        settings_expect_good(file, NULL);
    else
        settings_expect_error(file, NULL, message);
}

static void good_networks(void **state)
{
    static const char *const networks[] = {
        "10.0.0.0/8",
        "10.0.0.1",
        "10.0.0.1/32",
        "0.0.0.0/0",
        "128.0.0.0/1",
        "10.0.0.128/25",
        "255.255.255.254/31",
        "192.168.64.0/18",
        "fd00::/8",
        "::1",
        "::1/128",
        "::/0",
        "2001:db8::/32",
        "fe80::/10",
        "2001:db8::8000/113",
        "FD00::/8",
        "::ffff:10.0.0.0/104",
        "0000:0000:0000:0000:0000:ffff:255.255.255.255",
    };

    (void)state;
    for (size_t i = 0; i < sizeof networks / sizeof networks[0]; i++)
        expect_network(networks[i], NULL);
}

static void bad_networks(void **state)
{
    static const char *const networks[] = {
        "localhost",
        "10.0.0.0/33",
        "10.0.0.0/",
        "10.0.0.0/8/8",
        "10.0.0",
        "010.0.0.1",
        "10.0.0.0/-1",
        "10.0.0.0/+8",
        "10.0.0.0/8;",
        "10.0.0.1/8",
        "10.0.0.1/31",
        "10.128.0.0/8",
        "10.0.0.0 /8",
        "/8",
        "/",
        "::/129",
        "fd00::1/8",
        "::1/127",
        "[fd00::]/8",
        "fe80::1%eth0",
        "::1:",
        "unix:",
        "10.0.0.0/255.0.0.0",
        "10.0.0.0/18446744073709551624",
        "a.b/8",
        "2001:db8::8000/112",
        "10.0.0.0/8,11.0.0.0/8",
        "00000:0000:0000:0000:0000:ffff:255.255.255.255",
    };

    (void)state;
    for (size_t i = 0; i < sizeof networks / sizeof networks[0]; i++) {
        char message[256];

        snprintf(
            message, sizeof message,
            "config.yaml:3:21: nginx.trusted_proxies: found \"%s\", " NETWORKS_EXPECTED,
            networks[i]);
        expect_network(networks[i], message);
    }
    expect_network("", "config.yaml:3:21: nginx.trusted_proxies: found an empty text");
    expect_network("10.0.0.0\\n/8",
                   "config.yaml:3:21: nginx.trusted_proxies: byte 9: "
                   "control character 0x0a");
}

static void networks_are_a_sequence(void **state)
{
    (void)state;
    settings_expect_error(
        "nginx:\n  trusted_proxies: 10.0.0.0/8\n", NULL,
        "config.yaml:2:20: nginx.trusted_proxies: found a text, expected a sequence of "
        "networks such as 10.0.0.0/8 or fd00::/8 (did you mean [10.0.0.0/8]?)");
    settings_expect_error(
        "nginx:\n  trusted_proxies:\n", NULL,
        "config.yaml:2:19: nginx.trusted_proxies: found nothing, expected a sequence of "
        "networks such as 10.0.0.0/8 or fd00::/8");
    settings_expect_error(
        "nginx:\n  trusted_proxies: [[10.0.0.0/8]]\n", NULL,
        "config.yaml:2:21: nginx.trusted_proxies: found a sequence, " NETWORKS_EXPECTED);
}

static void the_protocol_needs_somebody_to_trust(void **state)
{
    (void)state;
    settings_expect_error(
        "nginx:\n  proxy_protocol: true\n", NULL,
        "config.yaml:2:19: nginx.proxy_protocol: true, but nginx.trusted_proxies is "
        "empty; list the networks of the balancer there, such as 10.0.0.0/8");
    settings_expect_error(
        "nginx:\n  trusted_proxies: []\n  proxy_protocol: true\n", NULL,
        "config.yaml:3:19: nginx.proxy_protocol: true, but nginx.trusted_proxies is "
        "empty; list the networks of the balancer there, such as 10.0.0.0/8");
}

static void trust_without_the_protocol_is_warned_about(void **state)
{
    (void)state;
    settings_expect_warning("nginx:\n  trusted_proxies: [10.0.0.0/8]\n", NULL,
                            "config.yaml:2:20: nginx.trusted_proxies: no effect without "
                            "nginx.proxy_protocol: true");
}

/* What could not be read says nothing about the other. */
static void a_bad_value_brings_no_second_error(void **state)
{
    (void)state;
    settings_expect_error(
        "nginx:\n  proxy_protocol: on\n  trusted_proxies: [10.0.0.0/8]\n", NULL,
        "config.yaml:2:19: nginx.proxy_protocol: found \"on\", expected true or false");
    settings_expect_error(
        "nginx:\n  proxy_protocol: true\n  trusted_proxies: [x]\n", NULL,
        "config.yaml:3:21: nginx.trusted_proxies: found \"x\", " NETWORKS_EXPECTED);
}

static void the_number_of_networks_has_a_limit(void **state)
{
    char file[2048] = "nginx:\n  proxy_protocol: true\n  trusted_proxies:\n";
    size_t used = strlen(file);
    struct settings settings;

    (void)state;
    for (int i = 0; i < 64; i++)
        used += (size_t)snprintf(file + used, sizeof file - used, "    - 10.0.0.%d\n", i);
    settings_load_good(&settings, file, NULL);
    assert_int_equal(settings.config.nginx.trusted_proxies.count, 64);
    settings_done(&settings);
    snprintf(file + used, sizeof file - used, "    - 10.0.0.64\n");
    settings_expect_error(file, NULL,
                          "config.yaml:68:7: nginx.trusted_proxies: more than 64 items");
}

static void days_of_hsts(void **state)
{
    static const char *const bad[] = {"3651", "-1",   "1d",        "0x1",
                                      "1.5",  "true", "4294967296"};

    (void)state;
    settings_expect_good("nginx:\n  hsts_days: 0\n", NULL);
    settings_expect_good("nginx:\n  hsts_days: 1\n", NULL);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char file[64];
        char message[128];

        snprintf(file, sizeof file, "nginx:\n  hsts_days: %s\n", bad[i]);
        snprintf(message, sizeof message,
                 "config.yaml:2:14: nginx.hsts_days: found \"%s\", expected a whole "
                 "number from 0 to 3650",
                 bad[i]);
        settings_expect_error(file, NULL, message);
    }
}

/* ---- peers ---- */

static void peers_are_hosts_and_ports(void **state)
{
    struct settings settings;
    const struct config_list *peers = &settings.config.acme.peers;

    (void)state;
    settings_load_good(&settings, "", NULL);
    assert_int_equal(peers->count, 0);
    settings_done(&settings);
    settings_load_good(&settings,
                       "acme:\n  peers: [\"replica_1:443\", \"10.0.0.2:8443\", "
                       "\"[fd00::2]:443\"]\n",
                       NULL);
    assert_int_equal(peers->count, 3);
    assert_string_equal(peers->items[0], "replica_1:443");
    assert_string_equal(peers->items[2], "[fd00::2]:443");
    settings_done(&settings);
}

static void what_is_no_peer_is_refused(void **state)
{
    static const char *const bad[] = {"replica", "replica:0", "https://replica:443",
                                      "fd00::2:443", "replica:443/x"};

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char file[128];
        char message[256];

        snprintf(file, sizeof file, "acme:\n  peers: [\"%s\"]\n", bad[i]);
        snprintf(message, sizeof message,
                 "config.yaml:2:11: acme.peers: found \"%s\", expected host:port",
                 bad[i]);
        settings_expect_error(file, NULL, message);
    }
    settings_expect_error("acme:\n  peers: replica:443\n", NULL,
                          "config.yaml:2:10: acme.peers: found a text, expected a "
                          "sequence of host:port (did you mean [replica:443]?)");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(peers_are_hosts_and_ports),
        cmocka_unit_test(what_is_no_peer_is_refused),
        cmocka_unit_test(they_are_off_unless_asked_for),
        cmocka_unit_test(the_values_of_the_file_are_taken),
        cmocka_unit_test(good_networks),
        cmocka_unit_test(bad_networks),
        cmocka_unit_test(networks_are_a_sequence),
        cmocka_unit_test(the_protocol_needs_somebody_to_trust),
        cmocka_unit_test(trust_without_the_protocol_is_warned_about),
        cmocka_unit_test(a_bad_value_brings_no_second_error),
        cmocka_unit_test(the_number_of_networks_has_a_limit),
        cmocka_unit_test(days_of_hsts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
