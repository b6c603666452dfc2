/* The CAs of the file: the main one, those of acme.fallback, and the rules between them. */
#include "domain/config_internal.h"

#include "support/settings.h"

#include <openssl/err.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define OTHER "https://ca.example.org/dir"

static void without_settings_it_is_lets_encrypt(void **state)
{
    struct settings loaded;

    (void)state;
    settings_load_good(&loaded, "{}\n", NULL);
    assert_int_equal(loaded.config.acme.authorities.count, 1);
    assert_string_equal(loaded.config.acme.authorities.items[0].directory,
                        AUTHORITY_PRODUCTION);
    assert_true(authority_is_lets_encrypt(&loaded.config.acme.authorities.items[0]));
    assert_false(authority_is_staging(&loaded.config.acme.authorities.items[0]));
    settings_done(&loaded);
    settings_load_good(&loaded, "{}\n", "LETSENCRYPT_STAGING=true");
    assert_true(authority_is_lets_encrypt(&loaded.config.acme.authorities.items[0]));
    assert_true(authority_is_staging(&loaded.config.acme.authorities.items[0]));
    settings_done(&loaded);
}

static void a_fallback_has_what_the_main_one_has(void **state)
{
    const struct authority *authority;
    struct settings loaded;

    (void)state;
    settings_load_good(&loaded,
                       "acme:\n"
                       "  eab_key_id: a\n"
                       "  eab_key_file: /run/a\n"
                       "  fallback:\n"
                       "    - directory: " OTHER
                       "\n"
                       "      ca_bundle: /etc/ca.pem\n"
                       "      profile: tlsserver\n"
                       "      preferred_chain: Root, No. 1\n"
                       "      eab_key_id: kid-1\n"
                       "      eab_key_file: /run/b\n"
                       "    - directory: https://third.example.org/dir\n",
                       NULL);
    assert_int_equal(loaded.config.acme.authorities.count, 3);
    authority = loaded.config.acme.authorities.items;
    assert_string_equal(authority->eab_key_id, "a");
    assert_string_equal(authority->eab_key_file, "/run/a");
    assert_int_equal(authority->line, 0);
    authority++;
    assert_string_equal(authority->directory, OTHER);
    assert_string_equal(authority->ca_bundle, "/etc/ca.pem");
    assert_string_equal(authority->profile, "tlsserver");
    assert_string_equal(authority->preferred_chain, "Root, No. 1");
    assert_string_equal(authority->eab_key_id, "kid-1");
    assert_string_equal(authority->eab_key_file, "/run/b");
    assert_int_equal(authority->line, 5);
    assert_int_equal(authority->column, 7);
    assert_false(authority_is_lets_encrypt(authority));
    authority++;
    assert_string_equal(authority->directory, "https://third.example.org/dir");
    assert_null(authority->ca_bundle);
    assert_null(authority->profile);
    settings_done(&loaded);
}

static void values_of_the_wrong_form(void **state)
{
    static const struct {
        const char *file;
        const char *message;
    } examples[] = {
        {"acme:\n  fallback: " OTHER "\n",
         "config.yaml:2:13: acme.fallback: found a text, expected a sequence of mappings "
         "with directory"},
        {"acme:\n  fallback:\n    - " OTHER "\n",
         "config.yaml:3:7: found a text, expected a mapping with directory"},
        {"acme:\n  fallback:\n    - profile: classic\n",
         "config.yaml:3:7: this CA has no \"directory\""},
        {"acme:\n  fallback:\n    - directory: http://ca.example.org/\n",
         "config.yaml:3:18: directory: found \"http://ca.example.org/\", expected an "
         "https:// URL (http:// for a loopback host only)"},
        {"acme:\n  fallback:\n    - directory: " OTHER "\n      profil: a\n",
         "config.yaml:4:7: unknown key \"profil\" of a CA (did you mean \"profile\"?)"},
        {"acme:\n  fallback:\n    - directory: " OTHER "\n      directory: " OTHER "\n",
         "config.yaml:4:7: key \"directory\" appears twice in this CA"},
        {"acme:\n  preferred_chain: --force\n",
         "config.yaml:2:20: acme.preferred_chain: found \"--force\", expected 1 to 255 "
         "bytes that do not begin with a hyphen or a blank"},
        {"acme:\n  profile: short lived\n",
         "config.yaml:2:12: acme.profile: found \"short lived\", expected 1 to 64 "
         "letters, digits, dots, hyphens and underscores"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof examples / sizeof examples[0]; i++)
        settings_expect_error(examples[i].file, NULL, examples[i].message);
}

/* The next message of OpenSSL would give it as a reason of its own. */
static void a_url_that_is_none_leaves_no_error_in_openssl(void **state)
{
    (void)state;
    ERR_clear_error();
    assert_false(config_has_form(CONFIG_DIRECTORY_URL, "https://ca.example.org:x/dir"));
    assert_int_equal(ERR_peek_error(), 0);
}

static void a_binding_has_two_parts(void **state)
{
    (void)state;
    settings_expect_error("acme:\n  eab_key_id: a\n", NULL,
                          "config.yaml:2:15: acme.eab_key_id: an external account "
                          "binding has eab_key_id, but no eab_key_file; the CA gives "
                          "both");
    settings_expect_error("acme:\n  eab_key_file: /run/a\n", NULL,
                          "config.yaml:2:17: acme.eab_key_file: an external account "
                          "binding has eab_key_file, but no eab_key_id; the CA gives "
                          "both");
    settings_expect_error(
        "acme:\n  fallback:\n    - directory: " OTHER "\n      eab_key_id: a\n", NULL,
        "config.yaml:3:7: this CA: an external account binding has "
        "eab_key_id, but no eab_key_file; the CA gives both");
}

static void each_ca_is_named_once(void **state)
{
    (void)state;
    settings_expect_error(
        "acme:\n  fallback:\n    - directory: " AUTHORITY_PRODUCTION "\n", NULL,
        "config.yaml:3:7: this CA: its directory is that of the main "
        "CA, too; name each CA once");
    settings_expect_error("acme:\n  fallback:\n    - directory: " OTHER
                          "\n    - directory: " OTHER "\n",
                          NULL,
                          "config.yaml:4:7: this CA: its directory is in an earlier "
                          "entry, too; name each CA once");
}

static void staging_is_no_fallback_of_production(void **state)
{
    static const char file[] = "acme:\n  directory: " OTHER
                               "\n  fallback:\n"
                               "    - directory: " AUTHORITY_STAGING "\n";

    (void)state;
    settings_expect_error(file, NULL,
                          "config.yaml:4:7: this CA: nobody trusts what the staging "
                          "directory issues");
}

static void their_number_has_a_limit(void **state)
{
    char file[1024] = "acme:\n  fallback:\n";

    (void)state;
    for (int i = 1; i < AUTHORITIES_MAX; i++)
        snprintf(file + strlen(file), sizeof file - strlen(file),
                 "    - directory: https://ca%d.example.org/\n", i);
    settings_expect_good(file, NULL);
    snprintf(file + strlen(file), sizeof file - strlen(file),
             "    - directory: https://one.more.example.org/\n");
    settings_expect_error(file, NULL, "config.yaml:10:7: more than 7 CAs");
}

/* ---- the proxy ---- */

static void expect_proxy(const char *file, const char *variable, const char *proxy,
                         const char *no_proxy)
{
    struct settings loaded;

    settings_load_good(&loaded, file, variable);
    for (size_t i = 0; i < loaded.config.acme.authorities.count; i++) {
        const struct authority *authority = &loaded.config.acme.authorities.items[i];

        if (proxy == NULL) {
            assert_null(authority->proxy);
        } else {
            assert_string_equal(authority->proxy, proxy);
            assert_string_equal(authority->no_proxy, no_proxy);
        }
    }
    settings_done(&loaded);
}

static void every_ca_is_reached_through_the_proxy(void **state)
{
    static const char fallback[] =
        "acme:\n  proxy: http://proxy:3128\n"
        "  no_proxy: ca.example.org, 10.0.0.0/8\n"
        "  fallback:\n    - directory: " OTHER "\n";

    (void)state;
    expect_proxy("{}\n", NULL, NULL, NULL);
    expect_proxy("{}\n", "no_proxy=a.example.org", NULL, NULL);
    expect_proxy(fallback, NULL, "http://proxy:3128",
                 "ca.example.org, 10.0.0.0/8,localhost,127.0.0.0/8,::1");
    expect_proxy(fallback, "https_proxy=http://10.0.0.1:8080", "http://10.0.0.1:8080",
                 "ca.example.org, 10.0.0.0/8,localhost,127.0.0.0/8,::1");
    expect_proxy("{}\n", "HTTPS_PROXY=http://upper:1", "http://upper:1",
                 "localhost,127.0.0.0/8,::1");
    expect_proxy(fallback, "NO_PROXY=*", "http://proxy:3128",
                 "*,localhost,127.0.0.0/8,::1");
}

static void a_proxy_has_no_password_that_could_leak(void **state)
{
    (void)state;
    settings_expect_error("{}\n", "https_proxy=http://user:secret@proxy:3128",
                          "https_proxy: expected http:// with a host and a port, without "
                          "a user or a password");
    settings_expect_error("acme:\n  proxy: proxy:3128\n", NULL,
                          "config.yaml:2:10: acme.proxy: found \"proxy:3128\", expected "
                          "http:// with a host and a port, without a user or a password");
    settings_expect_error("acme:\n  proxy: https://proxy:3128\n", NULL,
                          "config.yaml:2:10: acme.proxy: found \"https://proxy:3128\", "
                          "expected http:// with a host and a port, without a user or a "
                          "password");
    settings_expect_error("acme:\n  no_proxy: a;b\n", NULL,
                          "config.yaml:2:13: acme.no_proxy: found \"a;b\", expected "
                          "names, addresses and networks, separated by commas, or * for "
                          "all");
}

/* ---- what a CA allows ---- */

static void expect_rate(const struct config_rate *rate, unsigned count,
                        unsigned period_ms)
{
    assert_int_equal(rate->count, count);
    assert_int_equal(rate->period_ms, period_ms);
}

static void limits_are_so_many_within_so_long(void **state)
{
    struct settings settings;

    (void)state;
    settings_load_good(&settings,
                       "acme:\n  limit_certificates: 5/7d\n"
                       "  limit_domain: 50/30d\n  limit_failures: 5/1h\n"
                       "  limit_orders: 1000000/1s\n",
                       NULL);
    expect_rate(&settings.config.acme.limits.certificates, 5, 7 * 86400000U);
    expect_rate(&settings.config.acme.limits.domain, 50, 30 * 86400000U);
    expect_rate(&settings.config.acme.limits.failures, 5, 3600000);
    expect_rate(&settings.config.acme.limits.orders, 1000000, 1000);
    settings_done(&settings);
    settings_load_good(&settings, "{}", NULL);
    expect_rate(&settings.config.acme.limits.orders, 0, 0);
    settings_done(&settings);
}

static void limits_of_another_form_are_refused(void **state)
{
    static const char *const texts[] = {
        "5",     "5/",         "/7d",   "0/7d",   "5/7",   "5/0s",   "5/31d",
        "5/1ms", "1000001/7d", "-1/7d", "5 / 7d", "5/7d/", "five/7d"};

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        char file[128];
        char message[256];

        snprintf(file, sizeof file, "acme:\n  limit_orders: \"%s\"\n", texts[i]);
        snprintf(message, sizeof message,
                 "config.yaml:2:17: acme.limit_orders: found \"%s\", expected so many "
                 "within at most 30 days, such as 5/7d or 300/3h",
                 texts[i]);
        settings_expect_error(file, NULL, message);
    }
}

/* ---- rehearsals ---- */

static void expect_rehearsal(const char *file, const char *directory)
{
    struct settings settings;
    const struct authority *rehearsal;

    settings_load_good(&settings, file, NULL);
    rehearsal = config_rehearsal(&settings.config);
    if (directory == NULL)
        assert_null(rehearsal);
    else
        assert_string_equal(rehearsal->directory, directory);
    settings_done(&settings);
}

static void production_is_rehearsed_at_staging(void **state)
{
    (void)state;
    expect_rehearsal("{}", AUTHORITY_STAGING);
    expect_rehearsal("acme:\n  rehearsal: false\n", NULL);
    expect_rehearsal("acme:\n  staging: true\n", NULL);
    expect_rehearsal("acme:\n  directory: " OTHER "\n", NULL);
    expect_rehearsal("acme:\n  directory: " OTHER
                     "\n  rehearsal_directory: https://staging.example.org/\n",
                     "https://staging.example.org/");
    settings_expect_error("acme:\n  rehearsal_directory: " AUTHORITY_PRODUCTION "\n",
                          NULL,
                          "config.yaml:2:24: acme.rehearsal_directory: certificates are "
                          "ordered there, too; a rehearsal has to cost nothing");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_settings_it_is_lets_encrypt),
        cmocka_unit_test(a_fallback_has_what_the_main_one_has),
        cmocka_unit_test(values_of_the_wrong_form),
        cmocka_unit_test(a_url_that_is_none_leaves_no_error_in_openssl),
        cmocka_unit_test(a_binding_has_two_parts),
        cmocka_unit_test(each_ca_is_named_once),
        cmocka_unit_test(staging_is_no_fallback_of_production),
        cmocka_unit_test(their_number_has_a_limit),
        cmocka_unit_test(every_ca_is_reached_through_the_proxy),
        cmocka_unit_test(a_proxy_has_no_password_that_could_leak),
        cmocka_unit_test(limits_are_so_many_within_so_long),
        cmocka_unit_test(limits_of_another_form_are_refused),
        cmocka_unit_test(production_is_rehearsed_at_staging),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
