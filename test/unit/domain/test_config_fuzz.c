/*
 * Settings that are damaged at random, in the file, in the environment and on the command line:
 * whatever comes of it is a configuration that can be shown and loaded again, or errors of one line
 * each. SEED=… repeats a run.
 */
#include "domain/config_internal.h"
#include "domain/config_show.h"

#include "base/secret.h"
#include "base/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

enum { ROUNDS = 8000, FILE_MAX = 8192, LINE_MAX = 2048 };

static const char good[] =
    "# a deployment\n"
    "domain: app.example.org\n"
    "domains: [www.example.org, \"api.example.org\"]\n"
    "dev_mode: false\n"
    "measurement: required\n"
    "log:\n"
    "  level: info\n"
    "acme:\n"
    "  directory: https://acme.example.net/directory\n"
    "  email: ''\n"
    "  resolve_wait: 10s\n"
    "  retry_min: 30s\n"
    "  limit_orders: 300/3h\n"
    "  peers:\n"
    "    - 10.0.0.1:443\n"
    "    - '[::1]:443'\n"
    "  fallback:\n"
    "    - directory: https://acme-v02.api.letsencrypt.org/directory\n"
    "    - directory: https://acme.example.org/v2/directory\n"
    "      eab_key_id: kid-1\n"
    "      eab_key_file: /run/secrets/eab-key\n"
    "tls: {dir: /etc/nginx/ssl, key: derived}\n"
    "nginx:\n"
    "  http_port: 80\n"
    "  max_body_size: 10MB\n"
    "  proxy_protocol: true\n"
    "  trusted_proxies: [10.0.0.0/8, 'fd00::/8']\n"
    "  extra_locations: |\n"
    "    location /a {\n"
    "      return 204; # nothing\n"
    "    }\n"
    "cors:\n"
    "  origins: ['^https://a\\.b$', \"c\\u00fc\"]\n"
    "routes:\n"
    "  - path: /v1/\n"
    "    upstream: vllm:8000\n"
    "    auth: true\n"
    "    timeout: 1h\n"
    "  - {path: /, upstream: \"app:80\", match: exact}\n";

static const char *const pieces[] = {
    ":",
    ": ",
    "- ",
    "\n",
    "\n\n",
    "  ",
    "\t",
    "[",
    "]",
    "{",
    "}",
    ",",
    "\"",
    "'",
    "#",
    " # ",
    "&a ",
    "*a",
    "<<: ",
    "!!str ",
    "|\n",
    ">-\n",
    "---\n",
    "...\n",
    "%",
    "@",
    "`",
    "\\",
    "~",
    "null",
    "?",
    "\r",
    "\0x",
    "\xff",
    "\xc3",
    "\xef\xbb\xbf",
    "\xe2\x80\xa8",
    "\x01",
    "yes",
    "0",
    "-1",
    "1e9",
    "9999999999999999999d",
    "domain: x\n",
    "acme:\n",
    "\xc2\xa0",
    "$",
    ";",
};

enum { PIECE_COUNT = sizeof pieces / sizeof pieces[0] };

static size_t below(size_t limit)
{
    return (size_t)random() % limit;
}

struct text {
    char bytes[FILE_MAX];
    size_t len;
};

static void cut(struct text *text, size_t at, size_t len)
{
    if (len > text->len - at)
        len = text->len - at;
    memmove(text->bytes + at, text->bytes + at + len, text->len - at - len);
    text->len -= len;
}

static void insert(struct text *text, size_t at, const char *bytes, size_t len)
{
    if (text->len + len > FILE_MAX)
        return;
    memmove(text->bytes + at + len, text->bytes + at, text->len - at);
    memcpy(text->bytes + at, bytes, len);
    text->len += len;
}

/* The place where a line begins. */
static size_t some_line(const struct text *text)
{
    size_t at = below(text->len + 1);

    while (at > 0 && text->bytes[at - 1] != '\n')
        at--;
    return at;
}

static void copy_line(struct text *text)
{
    size_t from = some_line(text);
    size_t end = from;
    char line[LINE_MAX];
    size_t to = some_line(text);

    while (end < text->len && end - from < sizeof line - 1 && text->bytes[end] != '\n')
        end++;
    memcpy(line, text->bytes + from, end - from);
    line[end - from] = '\n';
    insert(text, to, line, end - from + 1);
}

static void change(struct text *text)
{
    size_t at = below(text->len + 1);
    const char *piece = pieces[below(PIECE_COUNT)];
    size_t piece_len = piece[0] == '\0' ? 1 : strlen(piece);

    switch (below(6)) {
    case 0:
        if (at < text->len)
            text->bytes[at] = (char)below(256);
        break;
    case 1:
        cut(text, at, below(8) + 1);
        break;
    case 2:
        insert(text, at, piece, piece_len);
        break;
    case 3:
        insert(text, some_line(text), piece, piece_len);
        break;
    case 4:
        cut(text, some_line(text), below(60));
        break;
    default:
        copy_line(text);
        break;
    }
}

/* One line that a terminal and a log can show, with the name of the file or of a setting before it. */
static void expect_fine_line(const char *line)
{
    size_t left = strlen(line);
    size_t size;

    assert_true(left > 0 && left < LINE_MAX);
    assert_non_null(strchr(line, ':'));
    for (const char *at = line; left > 0; at += size, left -= size) {
        unsigned code;

        size = text_character(at, left, &code);
        if (size == 0 || text_is_control(code))
            fail_msg("not fit for a log: %s", line);
    }
}

static char *const environment[] = {NULL};

static void load_from(struct config *config, struct config_report *report,
                      const struct config_sources *sources)
{
    int result = config_load(config, report, sources);

    assert_int_equal(result == 0, report->error_count == 0);
    for (size_t i = 0; i < report->error_count; i++) {
        if (strcmp(report->errors[i], "further lines are left out") != 0)
            expect_fine_line(report->errors[i]);
    }
    for (size_t i = 0; i < report->warning_count; i++)
        expect_fine_line(report->warnings[i]);
}

static void load(struct config *config, struct config_report *report, const char *yaml,
                 size_t len)
{
    load_from(config, report,
              &(struct config_sources){.yaml_name = "config.yaml",
                                       .yaml = yaml,
                                       .yaml_len = len,
                                       .environment = environment});
}

static bool have_same_values(const struct config *a, const struct config *b)
{
    json_t *shown_a = config_show_json(a, false);
    json_t *shown_b = config_show_json(b, false);
    const json_t *other = json_object_get(shown_b, "settings");
    const char *key;
    json_t *setting;
    bool same = true;

    json_object_foreach(json_object_get(shown_a, "settings"), key, setting)
    {
        same = same && json_equal(json_object_get(setting, "value"),
                                  json_object_get(json_object_get(other, key), "value"));
    }
    json_decref(shown_a);
    json_decref(shown_b);
    return same;
}

static void expect_same_when_shown(const struct config *config)
{
    struct config again;
    struct config_report report;
    struct err err = ERR_INIT;
    BUF_SCOPED text = {0};

    assert_int_equal(config_show_yaml(config, false, &text, &err), 0);
    load(&again, &report, buf_str(&text), text.len);
    if (report.error_count > 0)
        fail_msg("%s, in:\n%s", report.errors[0], buf_str(&text));
    if (!have_same_values(config, &again))
        fail_msg("other values come from:\n%s", buf_str(&text));
    config_report_done(&report);
    config_done(&again);
}

static size_t run_round(const struct text *file)
{
    struct config config;
    struct config_report report;
    size_t good_files;

    load(&config, &report, file->bytes, file->len);
    good_files = report.error_count == 0;
    if (good_files == 1)
        expect_same_when_shown(&config);
    config_report_done(&report);
    config_done(&config);
    return good_files;
}

static void the_file_is_good_as_it_is(void **state)
{
    struct text text = {.len = sizeof good - 1};

    (void)state;
    memcpy(text.bytes, good, sizeof good - 1);
    assert_int_equal(run_round(&text), 1);
}

static void damaged_files_are_refused_or_taken(void **state)
{
    size_t good_files = 0;

    (void)state;
    for (int round = 0; round < ROUNDS; round++) {
        struct text text = {.len = sizeof good - 1};

        memcpy(text.bytes, good, sizeof good - 1);
        do
            change(&text);
        while (below(3) == 0);
        good_files += run_round(&text);
    }
    /* Otherwise the damage would be so large that nothing behind the syntax is reached. */
    assert_true(good_files > ROUNDS / 100);
    print_message("%zu of %d files were good\n", good_files, ROUNDS);
}

/* "name=" and anything. */
static char *assignment(const char *name)
{
    char text[512];
    size_t used = (size_t)snprintf(text, sizeof text, "%s=", name);

    for (size_t left = below(8); left > 0 && used < 256; left--)
        used +=
            (size_t)snprintf(text + used, sizeof text - used, "%s",
                             below(3) == 0 ? "a.example" : pieces[below(PIECE_COUNT)]);
    return strdup(text);
}

static void any_text_of_a_flag_or_a_variable_is_refused_or_taken(void **state)
{
    enum { EACH = 4 };

    (void)state;
    for (int round = 0; round < ROUNDS; round++) {
        char *flags[EACH + 1] = {NULL};
        char *variables[EACH + 1] = {NULL};
        struct config config;
        struct config_report report;

        for (size_t i = 0; i < EACH; i++) {
            const char *key = config_settings[below(CONFIG_SETTING_COUNT)].key;
            const char *variable = config_settings[below(CONFIG_SETTING_COUNT)].variable;

            flags[i] = assignment(key == NULL ? "" : key);
            variables[i] = assignment(variable == NULL ? "DEV_MODE" : variable);
        }
        load_from(&config, &report,
                  &(struct config_sources){.environment = variables,
                                           .flags = (const char *const *)flags});
        config_report_done(&report);
        config_done(&config);
        for (size_t i = 0; i < EACH; i++) {
            free(flags[i]);
            free(variables[i]);
        }
    }
}

static void seed_and_tell(void)
{
    const char *given = getenv("SEED");
    unsigned seed =
        given != NULL ? (unsigned)strtoul(given, NULL, 10) : (unsigned)time(NULL);

    print_message("SEED=%u\n", seed);
    srandom(seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_file_is_good_as_it_is),
        cmocka_unit_test(damaged_files_are_refused_or_taken),
        cmocka_unit_test(any_text_of_a_flag_or_a_variable_is_refused_or_taken),
    };
    struct err err = ERR_INIT;

    if (secret_setup(&err) < 0)
        return 1;
    seed_and_tell();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
