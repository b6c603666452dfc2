/* The settings of who may ask for metrics. */
#include "domain/config.h"

#include "support/settings.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

static void they_are_off_unless_asked_for(void **state)
{
    struct settings settings;

    (void)state;
    settings_load_good(&settings, "", NULL);
    assert_null(settings.config.metrics.listen);
    assert_false(settings.config.metrics.nginx);
    settings_done(&settings);
}

static void the_values_of_the_file_are_taken(void **state)
{
    static const char *const places[] = {"127.0.0.1:9464", "0.0.0.0:1", "[::]:65535",
                                         "[2001:db8::1]:9464"};
    struct settings settings;

    (void)state;
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        char file[128];

        snprintf(file, sizeof file, "metrics:\n  nginx: true\n  listen: \"%s\"\n",
                 places[i]);
        settings_load_good(&settings, file, NULL);
        assert_string_equal(settings.config.metrics.listen, places[i]);
        assert_true(settings.config.metrics.nginx);
        settings_done(&settings);
    }
}

/* A name may mean several addresses, and a port alone all of them: that has to be said. */
static void what_is_no_address_with_a_port_is_refused(void **state)
{
    static const char *const bad[] = {
        "9464",          ":9464",           "localhost:9464", "127.0.0.1",
        "127.0.0.1:0",   "127.0.0.1:65536", "::1:9464",       "[::1]",
        "[fe80::1%1]:1", "127.0.0.1:9464/", "unix:/run/x",    "127.1:9464",
        "[127.0.0.1]:1", "*:9464",          "010.0.0.1:9464",
    };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char file[128];
        char message[256];

        snprintf(file, sizeof file, "metrics:\n  listen: \"%s\"\n", bad[i]);
        snprintf(message, sizeof message,
                 "config.yaml:2:11: metrics.listen: found \"%s\", expected an address "
                 "with a port such as 127.0.0.1:9464 or [::]:9464",
                 bad[i]);
        settings_expect_error(file, NULL, message);
    }
}

static void ports_of_nginx_are_not_taken_from_it(void **state)
{
    (void)state;
    settings_expect_error(
        "metrics:\n  listen: 127.0.0.1:80\n", NULL,
        "config.yaml:2:11: metrics.listen: port 80 is nginx's; choose another one");
    settings_expect_error(
        "nginx:\n  https_port: 8443\nmetrics:\n  listen: \"[::1]:8443\"\n", NULL,
        "config.yaml:4:11: metrics.listen: port 8443 is nginx's; choose another one");
    settings_expect_good("nginx:\n  https_port: 8443\nmetrics:\n  listen: 0.0.0.0:443\n",
                         NULL);
}

static void without_authentication_nginx_shows_nothing(void **state)
{
    (void)state;
    settings_expect_warning(
        "metrics:\n  nginx: true\nauth:\n  enabled: false\n", NULL,
        "config.yaml:2:10: metrics.nginx: true, but config.yaml:4:12: auth.enabled says "
        "false: /cert-manager/metrics answers 403 to everybody");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(they_are_off_unless_asked_for),
        cmocka_unit_test(the_values_of_the_file_are_taken),
        cmocka_unit_test(what_is_no_address_with_a_port_is_refused),
        cmocka_unit_test(ports_of_nginx_are_not_taken_from_it),
        cmocka_unit_test(without_authentication_nginx_shows_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
