/* What is said with --set: it wins, and errors name it. */
#include "domain/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

struct loaded {
    struct config config;
    struct config_report report;
    int result;
};

static void load(struct loaded *loaded, const char *file, const char *variable,
                 const char *const *flags)
{
    char development[] = "DEV_MODE=true";
    char more[128];
    char *const environment[] = {development, variable == NULL ? NULL : more, NULL};

    strncpy(more, variable == NULL ? "" : variable, sizeof more - 1);
    more[sizeof more - 1] = '\0';
    loaded->result = config_load(&loaded->config, &loaded->report,
                                 &(struct config_sources){
                                     .yaml_name = file == NULL ? NULL : "config.yaml",
                                     .yaml = file,
                                     .yaml_len = file == NULL ? 0 : strlen(file),
                                     .environment = environment,
                                     .flags = flags,
                                 });
}

static void done(struct loaded *loaded)
{
    config_done(&loaded->config);
    config_report_done(&loaded->report);
}

static void expect_error(const char *flag, const char *message)
{
    const char *const flags[] = {flag, NULL};
    struct loaded loaded;

    load(&loaded, NULL, NULL, flags);
    assert_int_equal(loaded.result, -1);
    assert_int_equal(loaded.report.error_count, 1);
    assert_string_equal(loaded.report.errors[0], message);
    done(&loaded);
}

static void they_win_over_file_and_environment(void **state)
{
    const char *const flags[] = {"acme.email=flag@example.org", "nginx.http_port=8080",
                                 "log.level=warning", NULL};
    struct loaded loaded;

    (void)state;
    load(&loaded, "acme:\n  email: file@example.org\nnginx:\n  http_port: 81\n",
         "EMAIL=variable@example.org", flags);
    assert_int_equal(loaded.result, 0);
    assert_string_equal(loaded.config.acme.email, "flag@example.org");
    assert_int_equal(loaded.config.nginx.http_port, 8080);
    assert_int_equal(loaded.config.log_level, LOG_WARNING);
    done(&loaded);
}

static void the_last_of_the_same_key_wins(void **state)
{
    const char *const flags[] = {"domains=[a.example, b.example]", "domain=x.example",
                                 "domains=[c.example]", "domain=y.example", NULL};
    struct loaded loaded;

    (void)state;
    load(&loaded, "domains: [d.example]\n", NULL, flags);
    assert_int_equal(loaded.result, 0);
    assert_int_equal(loaded.config.domains.count, 2);
    assert_string_equal(loaded.config.domains.items[0], "y.example");
    assert_string_equal(loaded.config.domains.items[1], "c.example");
    done(&loaded);
}

static void lists_are_written_as_in_the_file_and_replace_the_others(void **state)
{
    const char *const flags[] = {
        "routes=[{path: /a, upstream: b:80}]",
        "acme.fallback=\n- directory: https://b.example/d\n  profile: p\n",
        "cors.origins=[]",
        NULL,
    };
    struct loaded loaded;

    (void)state;
    load(&loaded,
         "routes:\n  - {path: /x, upstream: y:1}\n  - {path: /y, upstream: y:1}\n"
         "acme:\n  fallback: [{directory: https://a.example/d}]\n",
         "CORS_ORIGINS=[\"a\"]", flags);
    assert_int_equal(loaded.result, 0);
    assert_int_equal(loaded.config.routes.count, 1);
    assert_string_equal(loaded.config.routes.items[0].path, "/a");
    assert_int_equal(loaded.config.acme.authorities.count, 2);
    assert_string_equal(loaded.config.acme.authorities.items[1].profile, "p");
    assert_int_equal(loaded.config.cors_origins.count, 0);
    done(&loaded);
}

static void everything_behind_the_first_equals_sign_is_the_value(void **state)
{
    static const char location[] = "location = /a { return 200 \"b: [c\"; }";
    const char *const flags[] = {
        "nginx.extra_locations=location = /a { return 200 \"b: [c\"; }",
        "acme.email=", NULL};
    struct loaded loaded;

    (void)state;
    load(&loaded, NULL, NULL, flags);
    assert_int_equal(loaded.result, 0);
    assert_string_equal(loaded.config.nginx.extra_locations, location);
    assert_string_equal(loaded.config.acme.email, "");
    done(&loaded);
}

static void errors_name_the_flag(void **state)
{
    (void)state;
    expect_error("", "--set: found \"\", expected KEY=VALUE such as log.level=debug");
    expect_error(
        "log.level",
        "--set: found \"log.level\", expected KEY=VALUE such as log.level=debug");
    expect_error("=x", "--set: found \"=x\", expected KEY=VALUE such as log.level=debug");
    expect_error("domian=x", "--set: unknown key \"domian\" (did you mean \"domain\"?)");
    expect_error("EMAIL=x",
                 "--set: unknown key \"EMAIL\" (did you mean \"acme.email\"?)");
    expect_error("zebra=x", "--set: unknown key \"zebra\"");
    expect_error("acme=x",
                 "--set: \"acme\" is a section; name a setting in it, such as "
                 "acme.staging");
    expect_error("nginx.http_port=x",
                 "--set nginx.http_port: found \"x\", expected a whole number from 1 to "
                 "65535");
    expect_error("log.level=warn",
                 "--set log.level: found \"warn\", expected debug, info, warning, error "
                 "or fatal (did you mean \"warning\"?)");
    expect_error("dev_mode=yes", "--set dev_mode: found \"yes\", expected true or false");
    expect_error("ekm.secret_file=a secret",
                 "--set ekm.secret_file: expected an absolute path of at most 1024 bytes "
                 "without spaces and none of \" ' \\ ; { } $ #");
    expect_error("domains=",
                 "--set domains: found nothing, expected a sequence of DNS names such as "
                 "www.example.org, or []");
    expect_error("domains=a.example",
                 "--set domains:1:1: domains: found a text, expected a sequence of DNS "
                 "names such as www.example.org (did you mean [a.example]?)");
    expect_error(
        "cors.origins=[a",
        "--set cors.origins:1:1: the [ that opens here is not closed, or a comma "
        "is missing behind it");
    expect_error("cors.origins=[a]]", "--set cors.origins:1:4: a ] that nothing opened");
    expect_error("routes=[{path: /a, upstream: b:80, x: 1}]",
                 "--set routes:1:29: unknown key \"x\" of a route");
    expect_error("routes=[{path: /a, upstream: b:80}, {path: /a, upstream: b:80}]",
                 "--set routes:1:30: route /a: appears twice, first in line 1");
    expect_error(
        "acme.fallback=[{directory: https://a.example/}, {directory: "
        "https://a.example/}]",
        "--set acme.fallback:1:35: this CA: its directory is in an earlier "
        "entry, too; name each CA once");
    expect_error("domain=\xff", "--set domain: byte 1: not valid UTF-8");
}

static void rules_between_settings_name_it_too(void **state)
{
    (void)state;
    expect_error("nginx.https_port=80",
                 "--set nginx.https_port: 80 is also nginx.http_port; they must differ");
    expect_error("dev_mode=false",
                 "DOMAIN: not set; set it to the public name of this service, or "
                 "DEV_MODE=true for a self-signed certificate");
}

static void a_key_that_no_table_holds_is_only_cut_in_the_message(void **state)
{
    char flag[1000];
    struct loaded loaded;
    const char *const flags[] = {flag, NULL};

    (void)state;
    memset(flag, 'x', sizeof flag);
    memcpy(flag + sizeof flag - 3, "=1", 3);
    load(&loaded, NULL, NULL, flags);
    assert_int_equal(loaded.report.error_count, 1);
    assert_true(strlen(loaded.report.errors[0]) < 200);
    done(&loaded);
}

static void an_error_of_the_file_stays_one(void **state)
{
    const char *const flags[] = {"nginx.http_port=81", NULL};
    struct loaded loaded;

    (void)state;
    load(&loaded, "nginx:\n  http_port: x\n", NULL, flags);
    assert_int_equal(loaded.result, -1);
    assert_int_equal(loaded.report.error_count, 1);
    done(&loaded);
}

static void the_file_of_a_secret_wins_over_the_secret_of_the_environment(void **state)
{
    const char *const flags[] = {"ekm.secret_file=/run/secret", NULL};
    struct loaded loaded;

    (void)state;
    load(&loaded, NULL, "EKM_SHARED_SECRET=x", flags);
    assert_int_equal(loaded.result, 0);
    assert_null(loaded.config.ekm_secret);
    assert_string_equal(loaded.config.ekm_secret_file, "/run/secret");
    done(&loaded);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(they_win_over_file_and_environment),
        cmocka_unit_test(the_last_of_the_same_key_wins),
        cmocka_unit_test(lists_are_written_as_in_the_file_and_replace_the_others),
        cmocka_unit_test(everything_behind_the_first_equals_sign_is_the_value),
        cmocka_unit_test(errors_name_the_flag),
        cmocka_unit_test(rules_between_settings_name_it_too),
        cmocka_unit_test(a_key_that_no_table_holds_is_only_cut_in_the_message),
        cmocka_unit_test(an_error_of_the_file_stays_one),
        cmocka_unit_test(the_file_of_a_secret_wins_over_the_secret_of_the_environment),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
