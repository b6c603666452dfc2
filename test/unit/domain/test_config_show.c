/* The settings in force: shown so that they can be loaded again, with where each comes from. */
#include "domain/config_show.h"

#include "base/secret.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

static char development[] = "DEV_MODE=true";

static void load(struct config *config, const char *file, char *const *environment,
                 const char *const *flags)
{
    struct config_report report;
    int result = config_load(config, &report,
                             &(struct config_sources){
                                 .yaml_name = "config.yaml",
                                 .yaml = file,
                                 .yaml_len = strlen(file),
                                 .environment = environment,
                                 .flags = flags,
                             });

    for (size_t i = 0; i < report.error_count; i++)
        print_message("error: %s\n", report.errors[i]);
    if (result < 0)
        fail_msg("this is no good file:\n%s", file);
    config_report_done(&report);
}

static void show(const struct config *config, bool said_only, struct buf *ret)
{
    struct err err = ERR_INIT;

    if (config_show_yaml(config, said_only, ret, &err) < 0)
        fail_msg("%s", err.message);
}

/* The JSON without where it comes from. */
static json_t *values_of(const struct config *config)
{
    json_t *shown = config_show_json(config, false);
    json_t *values = json_object();
    const char *key;
    json_t *setting;

    assert_non_null(shown);
    json_object_foreach(json_object_get(shown, "settings"), key, setting)
        json_object_set(values, key, json_object_get(setting, "value"));
    json_decref(shown);
    return values;
}

/* What is shown has the same values when it is loaded. */
static void expect_round_trip(const char *file, const char *const *flags)
{
    char *const environment[] = {development, NULL};
    struct config first;
    struct config second;
    BUF_SCOPED text = {0};
    BUF_SCOPED again = {0};
    json_t *values;
    json_t *same;

    load(&first, file, environment, flags);
    show(&first, false, &text);
    load(&second, buf_str(&text), environment, NULL);
    values = values_of(&first);
    same = values_of(&second);
    if (!json_equal(values, same))
        fail_msg("other values come from:\n%s", buf_str(&text));
    show(&second, false, &again);
    json_decref(values);
    json_decref(same);
    config_done(&first);
    config_done(&second);
}

static void what_is_said_is_shown_with_where(void **state)
{
    char email[] = "EMAIL=me@example.org";
    char proxy[] = "HTTPS_PROXY=http://proxy:3128";
    char *const environment[] = {development, email, proxy, NULL};
    const char *const flags[] = {"log.level=warning", "domains=[b.example]", NULL};
    struct config config;
    BUF_SCOPED text = {0};

    (void)state;
    load(&config,
         "domain: a.example\n"
         "cors:\n"
         "  origins: ['https://a\\.b', c]\n"
         "acme:\n"
         "  retry_min: 90s\n"
         "  limit_orders: 300/3h\n"
         "nginx:\n"
         "  max_body_size: 10MB\n",
         environment, flags);
    show(&config, true, &text);
    assert_string_equal(buf_str(&text),
                        "domain: a.example                       # config.yaml:1:9\n"
                        "domains:                                # --set\n"
                        "  - b.example\n"
                        "dev_mode: true                          # DEV_MODE\n"
                        "log:\n"
                        "  level: warning                        # --set\n"
                        "acme:\n"
                        "  proxy: http://proxy:3128              # HTTPS_PROXY\n"
                        "  email: me@example.org                 # EMAIL\n"
                        "  retry_min: 90s                        # config.yaml:5:14\n"
                        "  limit_orders: 300/3h                  # config.yaml:6:17\n"
                        "nginx:\n"
                        "  max_body_size: 10m                    # config.yaml:8:18\n"
                        "cors:\n"
                        "  origins:                              # config.yaml:3:12\n"
                        "    - 'https://a\\.b'\n"
                        "    - c\n");
    config_done(&config);
}

static void json_has_the_same(void **state)
{
    char email[] = "EMAIL=me@example.org";
    char *const environment[] = {development, email, NULL};
    const char *const flags[] = {"nginx.http_port=81", NULL};
    struct config config;
    json_t *shown;
    json_t *expected;

    (void)state;
    load(&config, "tls:\n  key: external\n", environment, flags);
    shown = config_show_json(&config, true);
    expected = json_pack(
        "{s:s, s:{s:{s:b, s:s, s:s}, s:{s:s, s:s, s:s}, s:{s:s, s:s, s:i, s:i}, s:{s:i, "
        "s:s}}}",
        "file", "config.yaml", "settings", "dev_mode", "value", 1, "from", "variable",
        "variable", "DEV_MODE", "acme.email", "value", "me@example.org", "from",
        "variable", "variable", "EMAIL", "tls.key", "value", "external", "from", "file",
        "line", 2, "column", 8, "nginx.http_port", "value", 81, "from", "flag");
    assert_non_null(expected);
    assert_true(json_equal(shown, expected));
    json_decref(shown);
    json_decref(expected);
    config_done(&config);
}

static void secrets_are_not_shown(void **state)
{
    char secret[] = "EKM_SHARED_SECRET=do-not-show-me";
    char *const environments[][3] = {{development, secret, NULL}, {development, NULL}};
    static const char *const files[] = {"", "ekm:\n  secret_file: /do-not-show-me\n"};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct config config;
        BUF_SCOPED text = {0};
        json_t *shown;
        char *json;

        load(&config, files[i], environments[i], NULL);
        show(&config, false, &text);
        shown = config_show_json(&config, false);
        json = json_dumps(shown, 0);
        assert_non_null(json);
        assert_null(strstr(buf_str(&text), "do-not-show-me"));
        assert_null(strstr(json, "do-not-show-me"));
        assert_non_null(strstr(buf_str(&text), i == 0 ? "# EKM_SHARED_SECRET: not shown"
                                                      : "# secret_file: not shown"));
        free(json);
        json_decref(shown);
        config_done(&config);
    }
}

static void defaults_can_be_loaded_again(void **state)
{
    (void)state;
    expect_round_trip("", NULL);
    expect_round_trip("acme:\n  staging: true\n", NULL);
    expect_round_trip("acme:\n  proxy: http://a:1\n  no_proxy: b\n", NULL);
    expect_round_trip("domain: A.example\ndomains: [a.example, B.example]\n", NULL);
    expect_round_trip("acme:\n  renew_before: 40d\n  resolve_wait: 0s\n", NULL);
    expect_round_trip(
        "routes:\n  - {path: '/~a:,(*)', match: exact, upstream: '[::1]:80', timeout: "
        "1500ms}\n"
        "acme:\n  fallback:\n    - directory: https://a.example/d\n      "
        "preferred_chain: 'x: # y'\n",
        NULL);
}

/* Whatever nginx text a variable or --set brings. */
static void any_text_can_be_loaded_again(void **state)
{
    static const char *const texts[] = {
        "a",
        " a",
        "a ",
        "true",
        "null",
        "~",
        "",
        "12",
        "1e3",
        "0x1f",
        "- a",
        "a: b",
        "a # b",
        "#",
        "'",
        "\"",
        "\\",
        "'\"\\",
        "a\nb",
        "a\nb\n",
        "a\nb\n\n",
        "\n",
        "\n\n",
        "\na",
        "\n\na\n",
        "  a\n b\n",
        "\ta\n\tb\n",
        "a\r\nb\r\n",
        "a \n b \n",
        " \n a",
        "a\n\n\nb",
        "a\n \nb",
        "a\n\t\nb\n",
        "---\na\n",
        "...\na\n",
        "a\n# b\n",
        "\xc3\xa9",
        "\xe2\x80\xa8",
        "a\n\xe2\x80\xa9"
        "b",
        "\xef\xbb\xbf"
        "a\nb\n",
        "\xf0\x9f\x94\x91\n\xf0\x9f\x94\x91",
        "|\n>\n",
        "%a\n",
        "a\n\n ",
        "\t",
        "a\t",
        "\xc2\xa0\n",
        "\xef\xbf\xbe\na",
        "y",
        "off",
    };

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        char flag[128] = "nginx.extra_locations=";
        const char *const flags[] = {flag, NULL};

        strcat(flag, texts[i]);
        expect_round_trip("", flags);
    }
}

static void random_texts_can_be_loaded_again(void **state)
{
    enum { ROUNDS = 3000, LONGEST = 12 };
    static const char *const pieces[] = {"a", " ", "\n", "\t", "\r",       "#",
                                         ":", "-", "'",  "\"", "\\",       "|",
                                         ">", "{", "[",  ",",  "\xc3\xa9", "\xe2\x80\xa8",
                                         "&", "*", "!",  "%",  "@",        "0"};
    const char *given = getenv("SEED");
    unsigned seed =
        given != NULL ? (unsigned)strtoul(given, NULL, 10) : (unsigned)time(NULL);

    (void)state;
    print_message("SEED=%u\n", seed);
    srandom(seed);
    for (int round = 0; round < ROUNDS; round++) {
        char flag[128] = "nginx.extra_locations=";
        const char *const flags[] = {flag, NULL};

        for (long left = random() % (LONGEST + 1); left > 0; left--)
            strcat(flag, pieces[(size_t)random() % (sizeof pieces / sizeof pieces[0])]);
        expect_round_trip("", flags);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_said_is_shown_with_where),
        cmocka_unit_test(json_has_the_same),
        cmocka_unit_test(secrets_are_not_shown),
        cmocka_unit_test(defaults_can_be_loaded_again),
        cmocka_unit_test(any_text_can_be_loaded_again),
        cmocka_unit_test(random_texts_can_be_loaded_again),
    };
    struct err err = ERR_INIT;

    if (secret_setup(&err) < 0)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
