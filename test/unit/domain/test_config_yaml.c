/* The configuration file: what is wrong with it is said with line and column. */
#include "domain/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static char development[] = "DEV_MODE=true";
static char *const environment[] = {development, NULL};

static void show_errors(const struct config_report *report)
{
    for (size_t i = 0; i < report->error_count; i++)
        print_message("error: %s\n", report->errors[i]);
}

/* Exactly this one error, or none when `message` is NULL. */
static void expect(const char *file, size_t len, const char *message)
{
    struct config config;
    struct config_report report;
    int result = config_load(&config, &report,
                             &(struct config_sources){.yaml_name = "config.yaml",
                                                      .yaml = file,
                                                      .yaml_len = len,
                                                      .environment = environment});

    if (report.error_count != (message == NULL ? 0 : 1))
        show_errors(&report);
    assert_int_equal(report.error_count, message == NULL ? 0 : 1);
    assert_int_equal(result, message == NULL ? 0 : -1);
    if (message != NULL)
        assert_string_equal(report.errors[0], message);
    config_done(&config);
    config_report_done(&report);
}

static void expect_text(const char *file, const char *message)
{
    expect(file, strlen(file), message);
}

struct example {
    const char *file;
    const char *message;
};

static void expect_all(const struct example *examples, size_t count)
{
    for (size_t i = 0; i < count; i++)
        expect_text(examples[i].file, examples[i].message);
}

#define EXPECT_ALL(examples) expect_all(examples, sizeof(examples) / sizeof(examples)[0])

static void test_files_without_settings(void **state)
{
    static const struct example examples[] = {
        {"", NULL},
        {"# only a comment\n", NULL},
        {"---\n", NULL},
        {"--- {}\n...\n", NULL},
        {"{}", NULL},
        {"nginx:\n  # http_port: 80\nacme: ~\n", NULL},
        {"\xef\xbb\xbf"
         "domain: example.org\n",
         NULL},
        {"domain: example.org\r\nlog:\r\n  level: info\r\n", NULL},
    };

    (void)state;
    EXPECT_ALL(examples);
}

static void test_unknown_keys(void **state)
{
    static const struct example examples[] = {
        {"domian: x\n",
         "config.yaml:1:1: unknown key \"domian\" (did you mean \"domain\"?)"},
        {"nginx:\n    htp_port: 1\n",
         "config.yaml:2:5: unknown key \"nginx.htp_port\" (did you mean "
         "\"nginx.http_port\"?)"},
        {"ngnix:\n  http_port: 1\n",
         "config.yaml:1:1: unknown key \"ngnix\" (did you mean \"nginx\"?)"},
        {"email: a@example.org\n",
         "config.yaml:1:1: unknown key \"email\" (did you mean \"acme.email\"?)"},
        {"tls:\n  timeout: 3s\n",
         "config.yaml:2:3: unknown key \"tls.timeout\" (did you mean "
         "\"certbot.timeout\"?)"},
        {"log.level: info\n",
         "config.yaml:1:1: unknown key \"log.level\": write \"level\" "
         "inside the section \"log\""},
        {"zebra: 1\n", "config.yaml:1:1: unknown key \"zebra\""},
        {"EMAIL: a@example.org\n",
         "config.yaml:1:1: unknown key \"EMAIL\" (did you mean \"acme.email\"?)"},
        {"HTTPS_PROXY: x\n",
         "config.yaml:1:1: unknown key \"HTTPS_PROXY\" (did you mean \"acme.proxy\"?)"},
        {"? \"a\\nb\\0c\"\n: 1\n", "config.yaml:1:3: unknown key \"a\\x0ab\\x00c\""},
        {"\"\": 1\n", "config.yaml:1:1: unknown key \"\""},
        {"\"domain\\0\": example.org\n", "config.yaml:1:1: unknown key \"domain\\x00\""},
        {"aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffgggggggggg: 1\n",
         "config.yaml:1:1: unknown key "
         "\"aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffgggggggggg\""},
        {"[a, b]: 1\n", "config.yaml:1:1: found a sequence as a key, expected a name"},
        {"? {a: b}\n: 1\n", "config.yaml:1:3: found a mapping as a key, expected a name"},
        {"log:\n  level:\n    deeper: 1\n",
         "config.yaml:3:5: log.level: found a mapping, expected debug, info, warning, "
         "error "
         "or fatal"},
    };

    (void)state;
    EXPECT_ALL(examples);
}

static void test_wrong_types(void **state)
{
    static const struct example examples[] = {
        {"- domain\n",
         "config.yaml:1:1: found a sequence, expected a mapping of settings"},
        {"domain\n", "config.yaml:1:1: found a text, expected a mapping of settings"},
        {"nginx: 80\n",
         "config.yaml:1:8: nginx: found a text, expected a mapping of settings"},
        {"nginx: [80]\n",
         "config.yaml:1:8: nginx: found a sequence, expected a mapping of settings"},
        {"domain: [example.org]\n",
         "config.yaml:1:9: domain: found a sequence, expected a "
         "DNS name such as service.example.org"},
        {"domain:\n",
         "config.yaml:1:8: domain: found nothing, expected a DNS name such as "
         "service.example.org"},
        {"domain: null\n",
         "config.yaml:1:9: domain: found nothing, expected a DNS name "
         "such as service.example.org"},
        {"dev_mode: True\n",
         "config.yaml:1:11: dev_mode: found \"True\", expected true or false"},
        {"dev_mode: \"true\"\n",
         "config.yaml:1:11: dev_mode: found a text in quotes, expected true or false"},
        {"nginx: {http_port: '80'}\n",
         "config.yaml:1:20: nginx.http_port: found a text in quotes, expected a whole "
         "number from 1 to 65535"},
        {"nginx: {http_port: 080}\n",
         "config.yaml:1:20: nginx.http_port: found \"080\", expected a whole number from "
         "1 to 65535"},
        {"nginx: {http_port: 8_0}\n",
         "config.yaml:1:20: nginx.http_port: found \"8_0\", "
         "expected a whole number from 1 to 65535"},
        {"cors:\n  origins: https://a\n",
         "config.yaml:2:12: cors.origins: found a text, expected a sequence of texts "
         "(did you mean [https://a]?)"},
        {"cors:\n  origins:\n",
         "config.yaml:2:11: cors.origins: found nothing, expected a sequence of texts"},
        {"cors:\n  origins:\n  - a\n  - [b]\n",
         "config.yaml:4:5: cors.origins: found a sequence, expected a text"},
        {"cors:\n  origins:\n  - a\n  -\n",
         "config.yaml:4:4: cors.origins: found nothing, expected a text"},
        {"cors:\n  origins:\n  - ''\n",
         "config.yaml:3:5: cors.origins: found an empty text"},
        {"cors:\n  origins:\n  - \"a\\tb\"\n",
         "config.yaml:3:5: cors.origins: byte 2: control character 0x09"},
    };

    (void)state;
    EXPECT_ALL(examples);
}

#define RETRY_EXPECTED                                                                   \
    "expected a whole number with a unit (d, h, m, s or ms) from 1s to 1d"
#define PATH_EXPECTED                                                                    \
    "expected an absolute path of at most 1024 bytes without spaces and none of \" ' "   \
    "\\ ; "                                                                              \
    "{ } $ #"
#define URL_EXPECTED "expected an https:// URL (http:// for a loopback host only)"

static void test_values_out_of_range(void **state)
{
    static const struct example examples[] = {
        {"acme: {retry_min: 30}\n",
         "config.yaml:1:19: acme.retry_min: found \"30\", " RETRY_EXPECTED},
        {"acme: {retry_min: 30S}\n",
         "config.yaml:1:19: acme.retry_min: found \"30S\", " RETRY_EXPECTED},
        {"acme: {retry_min: 30 s}\n",
         "config.yaml:1:19: acme.retry_min: found \"30 s\", " RETRY_EXPECTED},
        {"acme: {retry_min: 1.5h}\n",
         "config.yaml:1:19: acme.retry_min: found \"1.5h\", " RETRY_EXPECTED},
        {"acme: {retry_min: -1h}\n",
         "config.yaml:1:19: acme.retry_min: found \"-1h\", " RETRY_EXPECTED},
        {"acme: {retry_min: s}\n",
         "config.yaml:1:19: acme.retry_min: found \"s\", " RETRY_EXPECTED},
        {"acme: {retry_min: 999ms}\n",
         "config.yaml:1:19: acme.retry_min: found \"999ms\", " RETRY_EXPECTED},
        {"acme: {retry_min: 2d}\n",
         "config.yaml:1:19: acme.retry_min: found \"2d\", " RETRY_EXPECTED},
        {"acme: {retry_min: 213503982335d}\n",
         "config.yaml:1:19: acme.retry_min: found \"213503982335d\", " RETRY_EXPECTED},
        {"acme: {resolve_wait: 2h}\n",
         "config.yaml:1:22: acme.resolve_wait: found \"2h\", expected a whole number "
         "with "
         "a unit (d, h, m, s or ms) from 0s to 1h"},
        {"agent: {timeout: 1ms}\n",
         "config.yaml:1:18: agent.timeout: found \"1ms\", expected a whole number with a "
         "unit (d, h, m, s or ms) from 100ms to 10m"},
        {"tls: {dir: ssl}\n", "config.yaml:1:12: tls.dir: found \"ssl\", " PATH_EXPECTED},
        {"tls: {dir: \"/a b\"}\n",
         "config.yaml:1:12: tls.dir: found \"/a b\", " PATH_EXPECTED},
        {"tls: {dir: /a;b}\n",
         "config.yaml:1:12: tls.dir: found \"/a;b\", " PATH_EXPECTED},
        {"tls: {dir: /$a}\n", "config.yaml:1:12: tls.dir: found \"/$a\", " PATH_EXPECTED},
        {"tls: {dir: \"\"}\n", "config.yaml:1:12: tls.dir: found \"\", " PATH_EXPECTED},
        {"acme: {directory: ftp://a}\n",
         "config.yaml:1:19: acme.directory: found \"ftp://a\", " URL_EXPECTED},
        {"acme: {directory: http://ca.example.org/dir}\n",
         "config.yaml:1:19: acme.directory: found "
         "\"http://ca.example.org/dir\", " URL_EXPECTED},
        {"acme: {directory: http://127.example.org/dir}\n",
         "config.yaml:1:19: acme.directory: found "
         "\"http://127.example.org/dir\", " URL_EXPECTED},
        {"acme: {directory: http://localhost.example.org/}\n",
         "config.yaml:1:19: acme.directory: found "
         "\"http://localhost.example.org/\", " URL_EXPECTED},
        {"acme: {directory: \"https://\"}\n",
         "config.yaml:1:19: acme.directory: found \"https://\", " URL_EXPECTED},
        {"acme: {directory: \"https://a/#b\"}\n",
         "config.yaml:1:19: acme.directory: found \"https://a/#b\", " URL_EXPECTED},
        {"acme: {directory: \"https://a b/\"}\n",
         "config.yaml:1:19: acme.directory: found \"https://a b/\", " URL_EXPECTED},
        {"acme: {directory: \"https://a:99999/\"}\n",
         "config.yaml:1:19: acme.directory: found \"https://a:99999/\", " URL_EXPECTED},
        {"acme: {directory: \"https://me:hunter2@a/\"}\n",
         "config.yaml:1:19: acme.directory: " URL_EXPECTED},
        {"certbot: {user: 0day}\n",
         "config.yaml:1:17: certbot.user: found \"0day\", expected the name of a user"},
        {"certbot: {user: a/b}\n",
         "config.yaml:1:17: certbot.user: found \"a/b\", expected the name of a user"},
        {"auth: {upstream: auth}\n",
         "config.yaml:1:18: auth.upstream: found \"auth\", expected host:port"},
        {"auth: {upstream: \"auth:0\"}\n",
         "config.yaml:1:18: auth.upstream: found \"auth:0\", expected host:port"},
        {"auth: {upstream: \":80\"}\n",
         "config.yaml:1:18: auth.upstream: found \":80\", expected host:port"},
        {"auth: {upstream: \"::1:80\"}\n",
         "config.yaml:1:18: auth.upstream: found \"::1:80\", expected host:port"},
        {"auth: {upstream: \"a b:80\"}\n",
         "config.yaml:1:18: auth.upstream: found \"a b:80\", expected host:port"},
        {"nginx: {address: localhost}\n",
         "config.yaml:1:18: nginx.address: found "
         "\"localhost\", expected an IPv4 or IPv6 address"},
        {"nginx: {address: 1.2.3}\n",
         "config.yaml:1:18: nginx.address: found \"1.2.3\", "
         "expected an IPv4 or IPv6 address"},
        {"ekm: {secret_file: hunter2}\n",
         "config.yaml:1:20: ekm.secret_file: " PATH_EXPECTED},
        {"run_dir: \"/a\\0b\"\n",
         "config.yaml:1:10: run_dir: byte 3: control character 0x00"},
        {"run_dir: \"/a\\x1bb\"\n",
         "config.yaml:1:10: run_dir: byte 3: control character 0x1b"},
        {"nginx:\n  extra_locations: \"a\\x07\"\n",
         "config.yaml:2:20: nginx.extra_locations: byte 2: control character 0x07"},
    };

    (void)state;
    EXPECT_ALL(examples);
}

static void test_duplicates(void **state)
{
    static const struct example examples[] = {
        {"domain: a.example\nlog: {}\ndomain: b.example\n",
         "config.yaml:3:1: key \"domain\" appears twice, first in line 1"},
        {"nginx:\n  http_port: 81\n  http_port: 82\n",
         "config.yaml:3:3: key \"nginx.http_port\" appears twice, first in line 2"},
        {"\nnginx:\n  http_port: 81\nnginx:\n  https_port: 82\n",
         "config.yaml:4:1: key \"nginx\" appears twice, first in line 2"},
        {"\"domain\": a.example\n'domain': b.example\n",
         "config.yaml:2:1: key \"domain\" appears twice, first in line 1"},
    };

    (void)state;
    EXPECT_ALL(examples);
}

static void test_refused_features(void **state)
{
    static const struct example examples[] = {
        {"domain: &a example.org\n",
         "config.yaml:1:9: anchors are not allowed: write the value out"},
        {"nginx: &n\n  http_port: 81\n",
         "config.yaml:1:8: anchors are not allowed: write the value out"},
        {"cors: {origins: &o [a]}\n",
         "config.yaml:1:17: anchors are not allowed: write the value out"},
        {"domain: !!str example.org\n", "config.yaml:1:9: tags are not allowed"},
        {"cors: {origins: !set [a]}\n", "config.yaml:1:17: tags are not allowed"},
        {"nginx:\n  <<: {http_port: 1}\n", "config.yaml:2:3: merge keys are not allowed"},
        {"domain: a.example\n---\ndomain: b.example\n",
         "config.yaml:2:1: a second document; one is allowed"},
    };
    static const char alias[] = "domain: &a example.org\nrun_dir: *a\n";
    struct config config;
    struct config_report report;

    (void)state;
    EXPECT_ALL(examples);
    assert_int_equal(config_load(&config, &report,
                                 &(struct config_sources){.yaml_name = "config.yaml",
                                                          .yaml = alias,
                                                          .yaml_len = strlen(alias),
                                                          .environment = environment}),
                     -1);
    assert_true(report.error_count >= 2);
    assert_string_equal(report.errors[0],
                        "config.yaml:1:9: anchors are not allowed: write the value out");
    assert_string_equal(report.errors[1],
                        "config.yaml:2:10: aliases are not allowed: write the value out");
    config_done(&config);
    config_report_done(&report);
}

#define STRAY_COLON                                                                      \
    "a colon that does not belong here: is a blank missing behind that of the line "     \
    "above, is this line indented too far, or does a value need quotes?"

static void test_syntax_errors(void **state)
{
    static const struct example examples[] = {
        {"domain: [a\n",
         "config.yaml:1:9: the [ that opens here is not closed, or a comma is missing "
         "behind it"},
        {"domain: {a: b\n",
         "config.yaml:1:9: the { that opens here is not closed, or a comma is missing "
         "behind it"},
        {"domains: [a]]\n", "config.yaml:1:13: a ] that nothing opened"},
        {"domains: [a,, b]\n", "config.yaml:1:13: a value is missing here"},
        {"a: b: c\n", "config.yaml:1:5: " STRAY_COLON},
        {"domain: @x\n", "config.yaml:1:9: a value that begins with @ needs quotes"},
        {"domain: *.example.org\n",
         "config.yaml:1:9: a value that begins with * needs quotes"},
        {"domain: &.\n", "config.yaml:1:9: a value that begins with & needs quotes"},
        {"log:\n\tlevel: info\n", "config.yaml:2:1: a tab; indent with blanks"},
        {"log:\n  level: info\n\tformat: text\n",
         "config.yaml:3:1: a tab; indent with blanks"},
        {"acme:\n  email: a@b.c\n staging: true\n",
         "config.yaml:3:2: expected a key, indented like those before it"},
        {"domains:\n  - a\n  b: c\n",
         "config.yaml:3:3: expected \"- \" and an item, indented like those before it"},
        {"domain: x\nwords\n",
         "config.yaml:2:1: expected \"key: value\", found no colon"},
        {"domain:x\nlog:\n", "config.yaml:2:4: " STRAY_COLON},
        {"domain:x\n",
         "config.yaml:1:1: found a text, expected a mapping of settings (is the blank "
         "missing "
         "behind a colon?)"},
        {"acme:\n  email:x\n",
         "config.yaml:2:3: acme: found a text, expected a mapping of settings (is the "
         "blank "
         "missing behind a colon?)"},
        {"DOMAIN=x\n",
         "config.yaml:1:1: found a text, expected a mapping of settings; write \"key: "
         "value\", "
         "not \"key=value\""},
        {"cors:\n  origins: [\"a\\.b\"]\n",
         "config.yaml:2:15: no such escape; in double quotes a backslash begins one: "
         "write the "
         "text in single quotes"},
        {"domain: \"x\n", "config.yaml:1:9: the quote that opens here is not closed"},
        {"domain: x\n  y: z\n", "config.yaml:2:4: " STRAY_COLON},
        {"domain: \"\\ud800\"\n",
         "config.yaml:1:12: while parsing a quoted scalar: found "
         "invalid Unicode character escape code"},
    };

    (void)state;
    EXPECT_ALL(examples);
}

static void test_bytes(void **state)
{
    (void)state;
    expect_text("# \xc3\xbc\ndomain: \xc3\xbc\xff\n",
                "config.yaml:2:10: not valid UTF-8");
    expect_text("# fine\n# bell \x07\n", "config.yaml:2:8: control character 0x07");
    expect("domain: a\0b\n", 12, "config.yaml:1:10: control character 0x00");
    expect(
        "\xff\xfe"
        "d\0o\0",
        6, "config.yaml:1:1: not valid UTF-8, but UTF-16; save it as UTF-8");
    expect_text("# \xe2\x82", "config.yaml:1:3: not valid UTF-8");
    expect_text("# \xef\xbf\xbf\n", "config.yaml:1:3: U+FFFF is no character");
}

/* Blanks that are none, and what has no width. */
static void test_characters_that_nobody_sees(void **state)
{
    static const struct example examples[] = {
        {"log:\n\xc2\xa0 level: info\n",
         "config.yaml:2:1: unknown key \"\\u00a0 level\""},
        {"acme:\n  profile: a\xe2\x80\x8b\n",
         "config.yaml:2:12: acme.profile: found \"a\\u200b\", expected 1 to 64 letters, "
         "digits, dots, hyphens and underscores"},
        {"domain: a.example\xe2\x80\x8b\n",
         "config.yaml:1:9: domain: \"a.example\xe2\x80\x8b\" is not ASCII, it has U+200B "
         "at "
         "position 10; write an internationalised name as A-label (\"xn--...\")"},
        {"acme:\n  profile: \xe2\x80\x9cp\xe2\x80\x9d\n",
         "config.yaml:2:12: acme.profile: found \"\xe2\x80\x9cp\xe2\x80\x9d\", expected "
         "1 to "
         "64 letters, digits, dots, hyphens and underscores"},
    };

    (void)state;
    EXPECT_ALL(examples);
}

#define SIZE_EXPECTED "expected a size such as 512k, 10MB or 1g"

static void test_sizes_have_units(void **state)
{
    static const struct {
        const char *file;
        const char *size;
    } good[] = {
        {"nginx: {max_body_size: 0}\n", "0"},
        {"nginx: {max_body_size: 512k}\n", "512k"},
        {"nginx: {max_body_size: 10MB}\n", "10m"},
        {"nginx: {max_body_size: 10mb}\n", "10m"},
        {"nginx: {max_body_size: 2GiB}\n", "2g"},
        {"nginx: {max_body_size: 20B}\n", "20"},
        {"nginx: {max_body_size: 9223372036854775807}\n", "9223372036854775807"},
    };
    static const char *const bad[] = {
        "10 MB",
        "10iB",
        "MB",
        "",
        "1.5g",
        "1t",
        "-1",
        "10MBs",
        "9223372036854775808",
        "8589934592GB",
        "99999999999999999999999999999999k",
    };

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        struct config config;
        struct config_report report;

        assert_int_equal(
            config_load(&config, &report,
                        &(struct config_sources){.yaml_name = "config.yaml",
                                                 .yaml = good[i].file,
                                                 .yaml_len = strlen(good[i].file),
                                                 .environment = environment}),
            0);
        assert_string_equal(config.nginx.max_body_size, good[i].size);
        config_done(&config);
        config_report_done(&report);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char file[128];
        char message[256];

        snprintf(file, sizeof file, "nginx: {max_body_size: '%s'}\n", bad[i]);
        snprintf(message, sizeof message,
                 "config.yaml:1:24: nginx.max_body_size: found \"%s\", " SIZE_EXPECTED,
                 bad[i]);
        expect_text(file, message);
    }
}

static char *repeat(const char *piece, size_t times)
{
    size_t len = strlen(piece);
    char *text = malloc(len * times + 1);

    assert_non_null(text);
    for (size_t i = 0; i < times; i++)
        memcpy(text + i * len, piece, len);
    text[len * times] = '\0';
    return text;
}

static void test_size_limit(void **state)
{
    char *spaces = repeat("\n", CONFIG_YAML_MAX_BYTES + 1);

    (void)state;
    expect(spaces, CONFIG_YAML_MAX_BYTES, NULL);
    expect(spaces, CONFIG_YAML_MAX_BYTES + 1,
           "config.yaml: larger than the 1048576 bytes allowed");
    free(spaces);
}

static void test_nesting(void **state)
{
    static const char *const pieces[] = {"[", "{", "{a: ", "- "};

    (void)state;
    for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
        size_t times = CONFIG_YAML_MAX_BYTES / strlen(pieces[i]);
        char *text = repeat(pieces[i], times);
        char message[64];

        snprintf(message, sizeof message, "config.yaml:1:%zu: nested more than 8 deep",
                 8 * strlen(pieces[i]) + 1);
        expect_text(text, message);
        free(text);
    }
}

/*
 * Each list names the one before it nine times: written out, it would not fit anywhere.
 */
static void test_billion_laughs(void **state)
{
    static const char file[] =
        "a: &a [x,x,x,x,x,x,x,x,x]\n"
        "b: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\n"
        "c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"
        "d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\n"
        "e: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\n"
        "f: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n"
        "cors: {origins: *f}\n";
    struct config config;
    struct config_report report;

    (void)state;
    assert_int_equal(config_load(&config, &report,
                                 &(struct config_sources){.yaml_name = "config.yaml",
                                                          .yaml = file,
                                                          .yaml_len = strlen(file),
                                                          .environment = environment}),
                     -1);
    assert_int_equal(report.error_count, 50);
    config_done(&config);
    config_report_done(&report);
}

static void test_recursive_alias(void **state)
{
    static const char file[] = "cors: {origins: &a [*a]}\nlog: &b {level: *b}\n";
    struct config config;
    struct config_report report;

    (void)state;
    assert_int_equal(config_load(&config, &report,
                                 &(struct config_sources){.yaml_name = "config.yaml",
                                                          .yaml = file,
                                                          .yaml_len = strlen(file),
                                                          .environment = environment}),
                     -1);
    assert_true(report.error_count >= 4);
    config_done(&config);
    config_report_done(&report);
}

/* libyaml needs the square of their number in time: nobody waits for it. */
static void test_file_full_of_anchors(void **state)
{
    char *file = repeat("- &a x\n", 140000);
    struct config config;
    struct config_report report;

    (void)state;
    assert_int_equal(config_load(&config, &report,
                                 &(struct config_sources){.yaml_name = "config.yaml",
                                                          .yaml = file,
                                                          .yaml_len = strlen(file),
                                                          .environment = environment}),
                     -1);
    assert_int_equal(report.error_count, 50);
    config_done(&config);
    config_report_done(&report);
    free(file);
}

static void test_number_of_errors_is_bounded(void **state)
{
    char *file = repeat("x: 1\n", 100000);
    struct config config;
    struct config_report report;

    (void)state;
    assert_int_equal(config_load(&config, &report,
                                 &(struct config_sources){.yaml_name = "config.yaml",
                                                          .yaml = file,
                                                          .yaml_len = strlen(file),
                                                          .environment = environment}),
                     -1);
    assert_int_equal(report.error_count, 50);
    assert_string_equal(report.errors[48], "config.yaml:49:1: unknown key \"x\"");
    assert_string_equal(report.errors[49], "further lines are left out");
    config_done(&config);
    config_report_done(&report);
    free(file);
}

/* Whatever is cut off or changed, it ends with an answer. */
static void test_damaged_files(void **state)
{
    static const char file[] =
        "domain: example.org\nlog: {level: info}\n"
        "cors:\n  origins: [\"a\\u00fc\", 'b', c]\n"
        "nginx:\n  extra_locations: |\n    location / {}\n"
        "  http_port: 8080 # comment\nacme: {email: \"\"}\n";
    char damaged[sizeof file];

    (void)state;
    for (size_t i = 0; i < sizeof file - 1; i++) {
        static const char replacements[] = "\0:[]{}\"'&*!|>%@`#\n\t -\xff\x80?,";

        for (size_t k = 0; k < sizeof replacements; k++) {
            struct config config;
            struct config_report report;
            int result;

            memcpy(damaged, file, sizeof file);
            damaged[i] = replacements[k];
            result = config_load(
                &config, &report,
                &(struct config_sources){.yaml_name = "config.yaml",
                                         .yaml = damaged,
                                         .yaml_len = k == 0 ? i : sizeof file - 1,
                                         .environment = environment});
            assert_int_equal(result == 0, report.error_count == 0);
            config_done(&config);
            config_report_done(&report);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_files_without_settings),
        cmocka_unit_test(test_unknown_keys),
        cmocka_unit_test(test_wrong_types),
        cmocka_unit_test(test_values_out_of_range),
        cmocka_unit_test(test_duplicates),
        cmocka_unit_test(test_refused_features),
        cmocka_unit_test(test_syntax_errors),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_characters_that_nobody_sees),
        cmocka_unit_test(test_sizes_have_units),
        cmocka_unit_test(test_file_full_of_anchors),
        cmocka_unit_test(test_size_limit),
        cmocka_unit_test(test_nesting),
        cmocka_unit_test(test_billion_laughs),
        cmocka_unit_test(test_recursive_alias),
        cmocka_unit_test(test_number_of_errors_is_bounded),
        cmocka_unit_test(test_damaged_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
