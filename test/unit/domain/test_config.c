/* Settings from defaults, environment and file, and setup_load on top; the file's own
 * errors are test_config_yaml.c. */
#include "app/setup.h"
#include "domain/config.h"
#include "domain/config_internal.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define DEVELOPMENT "DEV_MODE=true"
#define PRODUCTION "DOMAIN=cert.example.org"

struct loaded {
    struct config config;
    struct config_report report;
    int result;
};

/* `file` is NULL for no file; the variables end with NULL. */
static void load(struct loaded *loaded, const char *file, ...)
{
    char *environment[16];
    size_t count = 0;
    va_list args;

    va_start(args, file);
    do {
        assert_true(count < sizeof environment / sizeof environment[0]);
        environment[count] = va_arg(args, char *);
    } while (environment[count++] != NULL);
    va_end(args);
    loaded->result =
        config_load(&loaded->config, &loaded->report,
                    &(struct config_sources){.yaml_name = "config.yaml",
                                             .yaml = file,
                                             .yaml_len = file == NULL ? 0 : strlen(file),
                                             .environment = environment});
    assert_int_equal(loaded->result == 0, loaded->report.error_count == 0);
}

static void release(struct loaded *loaded)
{
    config_done(&loaded->config);
    config_report_done(&loaded->report);
}

static void show_report(const struct loaded *loaded)
{
    for (size_t i = 0; i < loaded->report.error_count; i++)
        print_message("error: %s\n", loaded->report.errors[i]);
    for (size_t i = 0; i < loaded->report.warning_count; i++)
        print_message("warning: %s\n", loaded->report.warnings[i]);
}

static void expect_good(const struct loaded *loaded)
{
    if (loaded->report.error_count > 0 || loaded->report.warning_count > 0)
        show_report(loaded);
    assert_int_equal(loaded->result, 0);
    assert_int_equal(loaded->report.warning_count, 0);
}

static void expect_error(const struct loaded *loaded, const char *message)
{
    if (loaded->report.error_count != 1)
        show_report(loaded);
    assert_int_equal(loaded->report.error_count, 1);
    assert_string_equal(loaded->report.errors[0], message);
}

static void expect_warning(const struct loaded *loaded, const char *message)
{
    if (loaded->report.warning_count != 1 || loaded->result != 0)
        show_report(loaded);
    assert_int_equal(loaded->result, 0);
    assert_int_equal(loaded->report.warning_count, 1);
    assert_string_equal(loaded->report.warnings[0], message);
}

/* ---- every setting ---- */

enum kind { TEXT, NUMBER, BOOLEAN, LEVEL };

/*
 * Written without the table of the program: a field that two settings share is seen
 * here.
 */
static const struct {
    const char *key;
    enum kind kind;
    size_t offset;
    const char *fallback; /* as shown; NULL: the field is NULL */
    const char *in_file;  /* a value that is not the default */
    const char *shown;
    const char *variable; /* with a third value, or NULL */
    const char *variable_shown;
} settings[] = {
#define AT(field) offsetof(struct config, field)
#define MAIN(field) AT(acme.authorities.items[0].field)
    {"domain", TEXT, AT(domain), "localhost", "File.Example.org", "file.example.org",
     "DOMAIN=ENV.example.org", "env.example.org"},
    {"dev_mode", BOOLEAN, AT(development), "true", "true", "true", "DEV_MODE=TrUe",
     "true"},
    {"run_dir", TEXT, AT(run_dir), "/run/cert-manager", "/run/x", "/run/x", NULL, NULL},
    {"log.level", LEVEL, AT(log_level), "DEBUG", "warning", "WARNING", "LOG_LEVEL=Error",
     "ERROR"},
    {"log.format", BOOLEAN, AT(log_json), "false", "json", "true", NULL, NULL},
    {"acme.staging", BOOLEAN, AT(acme.staging), "false", "true", "true",
     "LETSENCRYPT_STAGING=FALSE", "false"},
    {"acme.ca_bundle", TEXT, MAIN(ca_bundle), NULL, "/etc/ca.pem", "/etc/ca.pem", NULL,
     NULL},
    {"acme.profile", TEXT, MAIN(profile), NULL, "shortlived", "shortlived", NULL, NULL},
    {"acme.preferred_chain", TEXT, MAIN(preferred_chain), NULL, "ISRG Root X1",
     "ISRG Root X1", NULL, NULL},
    {"acme.check_caa", BOOLEAN, AT(acme.check_caa), "true", "false", "false", NULL, NULL},
    {"acme.proxy", TEXT, AT(acme.proxy), NULL, "http://proxy:3128", "http://proxy:3128",
     "https_proxy=http://[::1]:8080", "http://[::1]:8080"},
    {"acme.email", TEXT, AT(acme.email), "certbot@concrete-security.com",
     "o'hara+x@example.org", "o'hara+x@example.org", "EMAIL=a@b.example", "a@b.example"},
    {"acme.account_version", TEXT, AT(acme.account_version), "v1", "v2", "v2",
     "LETSENCRYPT_ACCOUNT_VERSION=2026-01_b.c", "2026-01_b.c"},
    {"acme.stateless", BOOLEAN, AT(acme.stateless), "true", "false", "false", NULL, NULL},
    {"acme.resolve_wait", NUMBER, AT(acme.resolve_wait_ms), "10000", "500ms", "500",
     "FQDN_RESOLVE_WAIT_SECONDS=3", "3000"},
    {"acme.resolve_max_tries", NUMBER, AT(acme.resolve_max_tries), "60", "5", "5",
     "FQDN_RESOLVE_MAX_TRIES=0", "0"},
    {"acme.retry_min", NUMBER, AT(acme.retry_min_ms), "30000", "45s", "45000", NULL,
     NULL},
    {"acme.retry_max", NUMBER, AT(acme.retry_max_ms), "3600000", "7d", "604800000", NULL,
     NULL},
    {"acme.renewal_info", BOOLEAN, AT(acme.renewal_info), "true", "false", "false", NULL,
     NULL},
    {"acme.renew_before", NUMBER, AT(acme.renew_before_ms), "0", "45d", "3888000000",
     NULL, NULL},
    {"acme.adopt", BOOLEAN, AT(acme.adopt), "true", "false", "false", NULL, NULL},
    {"acme.trust", TEXT, AT(acme.trust), NULL, "/etc/roots.pem", "/etc/roots.pem", NULL,
     NULL},
    {"acme.rehearsal", BOOLEAN, AT(acme.rehearse), "true", "false", "false", NULL, NULL},
    {"certbot.path", TEXT, AT(certbot.path), "/usr/bin/certbot", "/opt/certbot",
     "/opt/certbot", NULL, NULL},
    {"certbot.user", TEXT, AT(certbot.user), "certbot", "_acme-2", "_acme-2", NULL, NULL},
    {"certbot.timeout", NUMBER, AT(certbot.timeout_ms), "600000", "6h", "21600000", NULL,
     NULL},
    {"tls.dir", TEXT, AT(tls.dir), "/etc/nginx/ssl", "/srv/tls", "/srv/tls", NULL, NULL},
    {"tls.force_rm", BOOLEAN, AT(tls.force_rm), "false", "true", "true",
     "FORCE_RM_CERT_FILES=false", "false"},
    {"tls.key", BOOLEAN, AT(tls.external_key), "false", "external", "true", NULL, NULL},
    {"measurement", BOOLEAN, AT(measurement_required), "false", "required", "true", NULL,
     NULL},
    {"evidence.enabled", BOOLEAN, AT(evidence), "false", "true", "true", NULL, NULL},
    {"rtmr3.register", TEXT, AT(rtmr3.register_file), NULL, "/sys/rtmr3:sha384",
     "/sys/rtmr3:sha384", NULL, NULL},
    {"rtmr3.log_dir", TEXT, AT(rtmr3.log_dir), "/run/log/dstack", "/srv/log", "/srv/log",
     NULL, NULL},
    {"agent.socket", TEXT, AT(agent.socket), NULL, "/run/agent.sock", "/run/agent.sock",
     "DSTACK_SIMULATOR_ENDPOINT=http://simulator:8090", "http://simulator:8090"},
    {"agent.timeout", NUMBER, AT(agent.timeout_ms), "3000", "100ms", "100", NULL, NULL},
    {"agent.retry_max", NUMBER, AT(agent.retry_max_ms), "30000", "2m", "120000", NULL,
     NULL},
    {"nginx.path", TEXT, AT(nginx.path), "/usr/sbin/nginx", "/opt/nginx", "/opt/nginx",
     NULL, NULL},
    {"nginx.conf", TEXT, AT(nginx.conf), "/etc/nginx/nginx.conf", "/srv/nginx.conf",
     "/srv/nginx.conf", NULL, NULL},
    {"nginx.site_conf", TEXT, AT(nginx.site_conf), "/etc/nginx/conf.d/default.conf",
     "/srv/site.conf", "/srv/site.conf", NULL, NULL},
    {"nginx.pid_file", TEXT, AT(nginx.pid_file), "/run/nginx.pid", "/srv/pid", "/srv/pid",
     NULL, NULL},
    {"nginx.templates", TEXT, AT(nginx.templates), "/app/nginx_conf", "/srv/templates",
     "/srv/templates", NULL, NULL},
    {"nginx.webroot", TEXT, AT(nginx.webroot), "/acme-challenge", "/srv/webroot",
     "/srv/webroot", NULL, NULL},
    {"nginx.address", TEXT, AT(nginx.address), NULL, "\"::1\"", "::1", NULL, NULL},
    {"nginx.http_port", NUMBER, AT(nginx.http_port), "80", "8080", "8080", NULL, NULL},
    {"nginx.https_port", NUMBER, AT(nginx.https_port), "443", "65535", "65535", NULL,
     NULL},
    {"nginx.stock_templates", TEXT, AT(nginx.stock_templates),
     "/usr/share/cert-manager/nginx_conf", "/srv/stock", "/srv/stock", NULL, NULL},
    {"nginx.live_chain", BOOLEAN, AT(nginx.live_chain), "true", "false", "false", NULL,
     NULL},
    {"nginx.hsts_days", NUMBER, AT(nginx.hsts_days), "0", "365", "365", NULL, NULL},
    {"nginx.max_body_size", TEXT, AT(nginx.max_body_size), NULL, "8m", "8m",
     "NGINX_MAX_BODY_SIZE=2G", "2G"},
    {"nginx.extra_upstreams", TEXT, AT(nginx.extra_upstreams), "",
     "|\n    upstream a { server b:1; }\n", "upstream a { server b:1; }\n",
     "EXTRA_UPSTREAMS=upstream x {\n\tserver y:2;\r\n}",
     "upstream x {\n\tserver y:2;\r\n}"},
    {"nginx.extra_locations", TEXT, AT(nginx.extra_locations), "",
     "\"location /\\u00fc { return 204; }\"", "location /ü { return 204; }",
     "EXTRA_LOCATIONS=location /x { ${CORS_HEADERS} }",
     "location /x { ${CORS_HEADERS} }"},
    {"upstream.host", TEXT, AT(upstream.host), NULL, "app_1", "app_1",
     "UPSTREAM_HOST=vllm", "vllm"},
    {"upstream.port", NUMBER, AT(upstream.port), "8000", "1", "1", "UPSTREAM_PORT=65535",
     "65535"},
    {"auth.enabled", BOOLEAN, AT(auth.enabled), "true", "false", "false",
     "AUTH_ENABLED=true", "true"},
    {"auth.upstream", TEXT, AT(auth.upstream), "auth-service:8081", "10.0.0.1:1",
     "10.0.0.1:1", NULL, NULL},
    {"attestation.upstream", TEXT, AT(attestation.upstream), "attestation-service:8080",
     "\"[::1]:8080\"", "[::1]:8080", NULL, NULL},
    {"metrics.listen", TEXT, AT(metrics.listen), NULL, "127.0.0.1:9464", "127.0.0.1:9464",
     NULL, NULL},
    {"metrics.nginx", BOOLEAN, AT(metrics.nginx), "false", "true", "true", NULL, NULL},
    {"hooks.timeout", NUMBER, AT(hooks.timeout_ms), "30000", "1h", "3600000", NULL, NULL},
    {"hooks.user", TEXT, AT(hooks.user), "nobody", "root", "root", NULL, NULL},
    {"hardening.sandbox", BOOLEAN, AT(sandbox), "true", "false", "false", NULL, NULL},
    {"health.status_file", TEXT, AT(health_status_file), NULL, "/dstack/health",
     "/dstack/health", NULL, NULL},
    {"ekm.secret_file", TEXT, AT(ekm_secret_file), NULL, "/run/secrets/ekm",
     "/run/secrets/ekm", NULL, NULL},
#undef MAIN
#undef AT
};

enum { SETTINGS = sizeof settings / sizeof settings[0] };

static const char *show(const struct config *config, size_t i, char ret[32])
{
    const char *field = (const char *)config + settings[i].offset;
    const char *text;
    unsigned number;
    bool truth;
    enum log_level level;

    switch (settings[i].kind) {
    case TEXT:
        memcpy(&text, field, sizeof text);
        return text;
    case NUMBER:
        memcpy(&number, field, sizeof number);
        snprintf(ret, 32, "%u", number);
        return ret;
    case BOOLEAN:
        memcpy(&truth, field, sizeof truth);
        return truth ? "true" : "false";
    default:
        memcpy(&level, field, sizeof level);
        return log_level_name(level);
    }
}

static void expect_shown(const struct config *config, size_t i, const char *expected)
{
    char number[32];
    const char *shown = show(config, i, number);

    if (expected == NULL) {
        assert_null(shown);
    } else {
        assert_non_null(shown);
        assert_string_equal(shown, expected);
    }
}

static void write_file(char *ret, size_t size, const char *key, const char *value)
{
    const char *dot = strchr(key, '.');

    if (dot == NULL)
        snprintf(ret, size, "%s: %s\n", key, value);
    else
        snprintf(ret, size, "%.*s:\n  %s: %s\n", (int)(dot - key), key, dot + 1, value);
}

/* Those that mean nothing alone, or follow others, and lists, have tests of their own. */
static bool is_tested_elsewhere(const struct config_setting *setting)
{
    return setting->type == CONFIG_SECRET || config_is_list(setting) ||
           setting->type == CONFIG_ROUTES || setting->type == CONFIG_AUTHORITIES ||
           setting->type == CONFIG_DIRECTORY_URL || setting->type == CONFIG_RATE ||
           (setting->key != NULL && strncmp(setting->key, "acme.eab_", 9) == 0) ||
           setting->type == CONFIG_HOSTS ||
           setting->offset == offsetof(struct config, nginx.proxy_protocol);
}

static void test_every_setting_is_tested(void **state)
{
    (void)state;
    for (size_t i = 0; i < CONFIG_SETTING_COUNT; i++) {
        const struct config_setting *setting = &config_settings[i];
        bool found = is_tested_elsewhere(setting);

        assert_true(setting->key != NULL || setting->variable != NULL);
        assert_true(strlen(setting->meaning) > 0);
        for (size_t k = 0; k < SETTINGS && !found; k++) {
            if (strcmp(settings[k].key, setting->key) != 0)
                continue;
            found = true;
            assert_int_equal(settings[k].variable != NULL, setting->variable != NULL);
            assert_true(setting->variable == NULL ||
                        strncmp(settings[k].variable, setting->variable,
                                strlen(setting->variable)) == 0);
        }
        assert_true(found);
    }
}

static void test_commands(void **state)
{
    static const struct {
        const char *text;
        const char *error;
    } bad[] = {
        {"bin/x", "found \"bin/x\", expected the absolute path of a program first"},
        {"\"\"", "found \"\", expected the absolute path of a program first"},
        {"/bin/a b", "found \"/bin/a b\", expected the absolute path of a program first"},
        {"/bin/x, \"a\\nb\"", "byte 2: control character 0x0a"},
    };
    const struct config_list *command;
    struct loaded loaded;

    (void)state;
    load(&loaded, "hooks:\n  on_failed: [/bin/x, -c, \"\", \"a b\"]\n  on_issued: []\n",
         DEVELOPMENT, NULL);
    expect_good(&loaded);
    command = &loaded.config.hooks.commands[HOOK_FAILED];
    assert_int_equal(command->count, 4);
    assert_string_equal(command->items[0], "/bin/x");
    assert_string_equal(command->items[2], "");
    assert_string_equal(command->items[3], "a b");
    for (enum hook_event event = HOOK_ISSUED; event < HOOK_EVENTS; event++)
        assert_int_equal(loaded.config.hooks.commands[event].count,
                         event == HOOK_FAILED ? 4 : 0);
    release(&loaded);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char file[128];
        char *at;

        snprintf(file, sizeof file, "hooks:\n  on_applied: [%s]\n", bad[i].text);
        load(&loaded, file, DEVELOPMENT, NULL);
        assert_int_equal(loaded.report.error_count, 1);
        at = strstr(loaded.report.errors[0], "hooks.on_applied: ");
        assert_non_null(at);
        assert_string_equal(at + strlen("hooks.on_applied: "), bad[i].error);
        release(&loaded);
    }
}

static void test_a_command_is_a_sequence(void **state)
{
    struct loaded loaded;

    (void)state;
    load(&loaded, "hooks: {on_issued: /bin/x}\n", DEVELOPMENT, NULL);
    expect_error(
        &loaded,
        "config.yaml:1:20: hooks.on_issued: found a text, expected a sequence of "
        "texts: the absolute path of a program, and its arguments "
        "(did you mean [/bin/x]?)");
    release(&loaded);
}

static void test_defaults(void **state)
{
    struct loaded loaded;

    (void)state;
    load(&loaded, NULL, DEVELOPMENT, NULL);
    expect_good(&loaded);
    for (size_t i = 0; i < SETTINGS; i++)
        expect_shown(&loaded.config, i, settings[i].fallback);
    assert_int_equal(loaded.config.cors_origins.count, 0);
    release(&loaded);
}

static void test_defaults_in_production(void **state)
{
    struct loaded loaded;

    (void)state;
    load(&loaded, NULL, PRODUCTION, NULL);
    expect_good(&loaded);
    assert_false(loaded.config.development);
    assert_int_equal(loaded.config.log_level, LOG_INFO);
    assert_null(loaded.config.ekm_secret);
    assert_null(loaded.config.ekm_secret_file);
    release(&loaded);
}

/* Each value arrives in its field and in no other. */
static void test_values_of_the_file(void **state)
{
    (void)state;
    for (size_t i = 0; i < SETTINGS; i++) {
        struct loaded loaded;
        char file[512];

        write_file(file, sizeof file, settings[i].key, settings[i].in_file);
        load(&loaded, file, strcmp(settings[i].key, "dev_mode") == 0 ? NULL : DEVELOPMENT,
             NULL);
        expect_good(&loaded);
        for (size_t k = 0; k < SETTINGS; k++)
            expect_shown(&loaded.config, k,
                         k == i ? settings[k].shown : settings[k].fallback);
        release(&loaded);
    }
}

static void test_environment_wins(void **state)
{
    (void)state;
    for (size_t i = 0; i < SETTINGS; i++) {
        struct loaded loaded;
        char file[512];

        if (settings[i].variable == NULL)
            continue;
        write_file(file, sizeof file, settings[i].key, settings[i].in_file);
        load(&loaded, file, settings[i].variable, DEVELOPMENT, NULL);
        expect_good(&loaded);
        for (size_t k = 0; k < SETTINGS; k++)
            expect_shown(&loaded.config, k,
                         k == i ? settings[k].variable_shown : settings[k].fallback);
        release(&loaded);
    }
}

static void test_empty_variables_are_unset(void **state)
{
    (void)state;
    for (size_t i = 0; i < SETTINGS; i++) {
        struct loaded loaded;
        char entry[64];

        if (settings[i].variable == NULL || strcmp(settings[i].key, "acme.email") == 0 ||
            strcmp(settings[i].key, "dev_mode") == 0)
            continue;
        snprintf(entry, sizeof entry, "%.*s=", (int)strcspn(settings[i].variable, "="),
                 settings[i].variable);
        load(&loaded, NULL, DEVELOPMENT, entry, NULL);
        expect_good(&loaded);
        expect_shown(&loaded.config, i, settings[i].fallback);
        release(&loaded);
    }
}

static void test_empty_email_is_no_contact(void **state)
{
    struct loaded loaded;

    (void)state;
    load(&loaded, "acme:\n  email: a@example.org\n", DEVELOPMENT, "EMAIL=", NULL);
    expect_good(&loaded);
    assert_string_equal(loaded.config.acme.email, "");
    release(&loaded);
    load(&loaded, "acme:\n  email: \"\"\n", DEVELOPMENT, NULL);
    expect_good(&loaded);
    assert_string_equal(loaded.config.acme.email, "");
    release(&loaded);
}

static void test_more_good_values(void **state)
{
    static const char *const entries[] = {
        "UPSTREAM_HOST=[::1]",
        "UPSTREAM_HOST=::1",
        "UPSTREAM_HOST=192.0.2.1",
        "NGINX_MAX_BODY_SIZE=0",
        "NGINX_MAX_BODY_SIZE=9223372036854775807",
        "NGINX_MAX_BODY_SIZE=8589934591g",
        "NGINX_MAX_BODY_SIZE=1K",
        "DSTACK_SIMULATOR_ENDPOINT=http://[::1]:8090/",
        "DSTACK_SIMULATOR_ENDPOINT=http://127.0.0.1:8090",
        "FQDN_RESOLVE_WAIT_SECONDS=0",
        "FQDN_RESOLVE_WAIT_SECONDS=3600",
        "LOG_LEVEL=FATAL",
        "AUTH_ENABLED=False",
        "DOMAIN=a.b-c.xn--bcher-kva.example",
    };
    struct loaded loaded;

    (void)state;
    for (size_t i = 0; i < sizeof entries / sizeof entries[0]; i++) {
        load(&loaded, NULL, DEVELOPMENT, entries[i], NULL);
        expect_good(&loaded);
        release(&loaded);
    }
    static const char *const directories[] = {
        "http://localhost:14000/dir", "http://127.0.0.1/dir", "http://127.9.9.9:1/",
        "http://[::1]:14000/dir",     "https://pebble:14000", "https://[2001:db8::1]/dir",
    };
    for (size_t i = 0; i < sizeof directories / sizeof directories[0]; i++) {
        char file[128];

        write_file(file, sizeof file, "acme.directory", directories[i]);
        load(&loaded, file, DEVELOPMENT, NULL);
        expect_good(&loaded);
        assert_string_equal(config_directory(&loaded.config), directories[i]);
        release(&loaded);
    }
}

/* ---- values that cannot be used ---- */

#define SIZE_EXPECTED                                                                    \
    "expected a size such as 20m, 512k or 1g (digits, then nothing, k, m or g)"
#define LEVEL_EXPECTED "expected debug, info, warning, error or fatal"
#define WORD_EXPECTED "expected 1 to 64 letters, digits, dots, hyphens and underscores"
#define EMAIL_EXPECTED "expected an address such as admin@example.org, or \"\" for none"
#define ENDPOINT_EXPECTED "expected the absolute path of a socket or an http:// URL"
#define HOST_EXPECTED                                                                    \
    "expected the name of a host, an IPv4 address or an IPv6 address in [], without a "  \
    "port"
#define PORT_EXPECTED "expected a whole number from 1 to 65535"
#define WAIT_EXPECTED "expected a whole number of seconds from 0 to 3600"

static const struct {
    const char *entry;
    const char *message;
} bad_variables[] = {
    {"LOG_LEVEL=verbose", "LOG_LEVEL: found \"verbose\", " LEVEL_EXPECTED},
    {"LOG_LEVEL=info ",
     "LOG_LEVEL: found \"info \", " LEVEL_EXPECTED "; remove the blank behind it"},
    {"EMAIL=nobody", "EMAIL: found \"nobody\", " EMAIL_EXPECTED},
    {"EMAIL=a@", "EMAIL: found \"a@\", " EMAIL_EXPECTED},
    {"EMAIL=@example.org", "EMAIL: found \"@example.org\", " EMAIL_EXPECTED},
    {"EMAIL=a b@example.org", "EMAIL: found \"a b@example.org\", " EMAIL_EXPECTED},
    {"EMAIL=a,b@example.org", "EMAIL: found \"a,b@example.org\", " EMAIL_EXPECTED},
    {"EMAIL=a@b@example.org", "EMAIL: found \"a@b@example.org\", " EMAIL_EXPECTED},
    {"EMAIL=--x@example.org", "EMAIL: found \"--x@example.org\", " EMAIL_EXPECTED},
    {"EMAIL=a@example_org", "EMAIL: found \"a@example_org\", " EMAIL_EXPECTED},
    {"LETSENCRYPT_ACCOUNT_VERSION=a/b",
     "LETSENCRYPT_ACCOUNT_VERSION: found \"a/b\", " WORD_EXPECTED},
    {"LETSENCRYPT_ACCOUNT_VERSION=v 1",
     "LETSENCRYPT_ACCOUNT_VERSION: found \"v 1\", " WORD_EXPECTED},
    {"LETSENCRYPT_ACCOUNT_VERSION="
     "aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffff12345",
     "LETSENCRYPT_ACCOUNT_VERSION: found "
     "\"aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffff12345\","
     " " WORD_EXPECTED},
    {"FQDN_RESOLVE_WAIT_SECONDS=3s",
     "FQDN_RESOLVE_WAIT_SECONDS: found \"3s\", " WAIT_EXPECTED},
    {"FQDN_RESOLVE_WAIT_SECONDS=-1",
     "FQDN_RESOLVE_WAIT_SECONDS: found \"-1\", " WAIT_EXPECTED},
    {"FQDN_RESOLVE_WAIT_SECONDS=3601",
     "FQDN_RESOLVE_WAIT_SECONDS: found \"3601\", " WAIT_EXPECTED},
    {"FQDN_RESOLVE_WAIT_SECONDS=18446744073709552",
     "FQDN_RESOLVE_WAIT_SECONDS: found \"18446744073709552\", " WAIT_EXPECTED},
    {"FQDN_RESOLVE_MAX_TRIES=many",
     "FQDN_RESOLVE_MAX_TRIES: found \"many\", expected a whole number from 0 to 1000000"},
    {"UPSTREAM_PORT=0", "UPSTREAM_PORT: found \"0\", " PORT_EXPECTED},
    {"UPSTREAM_PORT=65536", "UPSTREAM_PORT: found \"65536\", " PORT_EXPECTED},
    {"UPSTREAM_PORT=4294967376", "UPSTREAM_PORT: found \"4294967376\", " PORT_EXPECTED},
    {"UPSTREAM_PORT=18446744073709551696",
     "UPSTREAM_PORT: found \"18446744073709551696\", " PORT_EXPECTED},
    {"UPSTREAM_PORT=+80", "UPSTREAM_PORT: found \"+80\", " PORT_EXPECTED},
    {"UPSTREAM_PORT=0x50", "UPSTREAM_PORT: found \"0x50\", " PORT_EXPECTED},
    {"UPSTREAM_HOST=app;", "UPSTREAM_HOST: found \"app;\", " HOST_EXPECTED},
    {"UPSTREAM_HOST=app:80", "UPSTREAM_HOST: found \"app:80\", " HOST_EXPECTED},
    {"UPSTREAM_HOST=http://app", "UPSTREAM_HOST: found \"http://app\", " HOST_EXPECTED},
    {"UPSTREAM_HOST=[::1", "UPSTREAM_HOST: found \"[::1\", " HOST_EXPECTED},
    {"UPSTREAM_HOST=-app", "UPSTREAM_HOST: found \"-app\", " HOST_EXPECTED},
    {"NGINX_MAX_BODY_SIZE=8 m", "NGINX_MAX_BODY_SIZE: found \"8 m\", " SIZE_EXPECTED},
    {"NGINX_MAX_BODY_SIZE=m", "NGINX_MAX_BODY_SIZE: found \"m\", " SIZE_EXPECTED},
    {"NGINX_MAX_BODY_SIZE=20MB", "NGINX_MAX_BODY_SIZE: found \"20MB\", " SIZE_EXPECTED},
    {"NGINX_MAX_BODY_SIZE=8mb", "NGINX_MAX_BODY_SIZE: found \"8mb\", " SIZE_EXPECTED},
    {"NGINX_MAX_BODY_SIZE=-8", "NGINX_MAX_BODY_SIZE: found \"-8\", " SIZE_EXPECTED},
    {"NGINX_MAX_BODY_SIZE=1t", "NGINX_MAX_BODY_SIZE: found \"1t\", " SIZE_EXPECTED},
    {"NGINX_MAX_BODY_SIZE=9223372036854775808",
     "NGINX_MAX_BODY_SIZE: found \"9223372036854775808\", " SIZE_EXPECTED},
    {"NGINX_MAX_BODY_SIZE=8589934592g",
     "NGINX_MAX_BODY_SIZE: found \"8589934592g\", " SIZE_EXPECTED},
    {"DSTACK_SIMULATOR_ENDPOINT=dstack.sock",
     "DSTACK_SIMULATOR_ENDPOINT: found \"dstack.sock\", " ENDPOINT_EXPECTED},
    {"DSTACK_SIMULATOR_ENDPOINT=https://agent",
     "DSTACK_SIMULATOR_ENDPOINT: found \"https://agent\", " ENDPOINT_EXPECTED},
    {"DSTACK_SIMULATOR_ENDPOINT=http://",
     "DSTACK_SIMULATOR_ENDPOINT: found \"http://\", " ENDPOINT_EXPECTED},
    {"DSTACK_SIMULATOR_ENDPOINT=http://user:password@agent",
     "DSTACK_SIMULATOR_ENDPOINT: " ENDPOINT_EXPECTED},
    {"EXTRA_LOCATIONS=location / {\n\x01}",
     "EXTRA_LOCATIONS: byte 14: control character 0x01"},
    {"EXTRA_UPSTREAMS=a\xff", "EXTRA_UPSTREAMS: byte 2: not valid UTF-8"},
    {"EXTRA_UPSTREAMS=\xc3\xbc\xe2\x82", "EXTRA_UPSTREAMS: byte 3: not valid UTF-8"},
    {"EXTRA_UPSTREAMS=\xc0\xaf", "EXTRA_UPSTREAMS: byte 1: not valid UTF-8"},
    {"EXTRA_UPSTREAMS=\xed\xa0\x80", "EXTRA_UPSTREAMS: byte 1: not valid UTF-8"},
    {"EXTRA_UPSTREAMS=\xf4\x90\x80\x80", "EXTRA_UPSTREAMS: byte 1: not valid UTF-8"},
    {"EXTRA_UPSTREAMS=x\xc2\x9b", "EXTRA_UPSTREAMS: byte 2: control character 0x9b"},
    {"UPSTREAM_HOST=a\nb", "UPSTREAM_HOST: byte 2: control character 0x0a"},
    {"UPSTREAM_HOST=a\x7f", "UPSTREAM_HOST: byte 2: control character 0x7f"},
    {"CORS_ORIGINS=[\"ok\", \"a\\nb\"]",
     "CORS_ORIGINS: item 2: byte 2: control character 0x0a"},
    {"CORS_ORIGINS=[\"\"]", "CORS_ORIGINS: item 1: found an empty text"},
    {"EKM_SHARED_SECRET=hunter2\n", "EKM_SHARED_SECRET: byte 8: control character 0x0a"},
};

static void test_bad_variables(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad_variables / sizeof bad_variables[0]; i++) {
        struct loaded loaded;

        load(&loaded, NULL, DEVELOPMENT, bad_variables[i].entry, NULL);
        expect_error(&loaded, bad_variables[i].message);
        release(&loaded);
    }
}

static void test_long_values(void **state)
{
    static const struct {
        const char *variable;
        size_t most;
    } limits[] = {
        {"EXTRA_LOCATIONS", 262144},
        {"EKM_SHARED_SECRET", 1024},
        {"DSTACK_SIMULATOR_ENDPOINT", 4095},
    };
    struct loaded loaded;

    (void)state;
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        size_t name = strlen(limits[i].variable);
        char *entry = malloc(name + limits[i].most + 3);
        char message[128];

        assert_non_null(entry);
        memcpy(entry, limits[i].variable, name);
        memset(entry + name, 'x', limits[i].most + 2);
        entry[name] = '=';
        entry[name + limits[i].most + 2] = '\0';
        load(&loaded, NULL, DEVELOPMENT, entry, NULL);
        snprintf(message, sizeof message, "%s: %zu bytes long, at most %zu are allowed",
                 limits[i].variable, limits[i].most + 1, limits[i].most);
        expect_error(&loaded, message);
        release(&loaded);
        /* A fragment and a secret of exactly the limit are fine. */
        entry[name + limits[i].most + 1] = '\0';
        load(&loaded, NULL, DEVELOPMENT, entry, NULL);
        assert_int_equal(loaded.result, i < 2 ? 0 : -1);
        release(&loaded);
        free(entry);
    }
}

static void test_socket_path_fits_the_kernel(void **state)
{
    char entry[160] = "DSTACK_SIMULATOR_ENDPOINT=/";
    size_t name = strlen(entry) - 1;
    struct loaded loaded;

    (void)state;
    memset(entry + name + 1, 's', 106);
    load(&loaded, NULL, DEVELOPMENT, entry, NULL);
    expect_good(&loaded);
    release(&loaded);
    entry[name + 107] = 's';
    load(&loaded, NULL, DEVELOPMENT, entry, NULL);
    assert_int_equal(loaded.result, -1);
    release(&loaded);
}

static void test_long_values_are_cut_in_messages(void **state)
{
    struct loaded loaded;
    char entry[400] = "LOG_LEVEL=";

    (void)state;
    memset(entry + strlen(entry), 'x', 300);
    load(&loaded, NULL, DEVELOPMENT, entry, NULL);
    assert_int_equal(loaded.report.error_count, 1);
    assert_true(strlen(loaded.report.errors[0]) < 220);
    assert_non_null(strstr(loaded.report.errors[0], "xxx…\", expected"));
    release(&loaded);
}

static void test_all_errors_are_reported(void **state)
{
    struct loaded loaded;

    (void)state;
    load(&loaded, "nginx:\n  http_port: x\nfoo: 1\n", DEVELOPMENT, "LOG_LEVEL=x",
         "UPSTREAM_PORT=y", NULL);
    assert_int_equal(loaded.report.error_count, 4);
    assert_string_equal(
        loaded.report.errors[0],
        "config.yaml:2:14: nginx.http_port: found \"x\", expected a whole "
        "number from 1 to 65535");
    assert_string_equal(loaded.report.errors[1], "config.yaml:3:1: unknown key \"foo\"");
    assert_string_equal(loaded.report.errors[2],
                        "LOG_LEVEL: found \"x\", " LEVEL_EXPECTED);
    assert_string_equal(loaded.report.errors[3],
                        "UPSTREAM_PORT: found \"y\", " PORT_EXPECTED);
    release(&loaded);
}

static void test_bad_value_of_the_file_stays_an_error(void **state)
{
    struct loaded loaded;

    (void)state;
    load(&loaded, "upstream:\n  port: 99999\n", DEVELOPMENT, "UPSTREAM_PORT=80", NULL);
    expect_error(&loaded,
                 "config.yaml:2:9: upstream.port: found \"99999\", "
                 "expected a whole number from 1 to 65535");
    assert_int_equal(loaded.config.upstream.port, 80);
    release(&loaded);
}

static void test_first_of_repeated_variables_counts(void **state)
{
    struct loaded loaded;

    (void)state;
    load(&loaded, NULL, DEVELOPMENT, "UPSTREAM_HOST=a", "UPSTREAM_HOST=b",
         "UPSTREAM_HOST", NULL);
    expect_good(&loaded);
    assert_string_equal(loaded.config.upstream.host, "a");
    release(&loaded);
}

/* ---- booleans ---- */

static void test_other_words_are_false_with_a_warning(void **state)
{
    static const char *const names[] = {"LETSENCRYPT_STAGING", "FORCE_RM_CERT_FILES",
                                        "AUTH_ENABLED"};
    static const char *const words[] = {"1", "yes", "on", "true ", "wahr"};
    struct loaded loaded;

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        for (size_t k = 0; k < 5; k++) {
            char entry[64];
            char warning[128];

            snprintf(entry, sizeof entry, "%s=%s", names[i], words[k]);
            snprintf(warning, sizeof warning,
                     "%s: \"%s\" is neither true nor false, taken as false", names[i],
                     words[k]);
            load(&loaded, "acme:\n  staging: true\n", DEVELOPMENT, entry, NULL);
            expect_warning(&loaded, warning);
            assert_int_equal(loaded.config.acme.staging, i != 0);
            assert_false(loaded.config.tls.force_rm);
            assert_int_equal(loaded.config.auth.enabled, i != 2);
            release(&loaded);
        }
    }
    load(&loaded, NULL, PRODUCTION, "DEV_MODE=1\n", NULL);
    expect_warning(&loaded,
                   "DEV_MODE: \"1\\x0a\" is neither true nor false, taken as false");
    assert_false(loaded.config.development);
    release(&loaded);
}

/* ---- domain ---- */

#define DOMAIN_ADVICE                                                                    \
    "; set it to the public name of this service, or DEV_MODE=true for a self-signed "   \
    "certificate"

static void test_domain_must_be_public(void **state)
{
    static const struct {
        const char *entry;
        const char *message;
    } cases[] = {
        {"UNRELATED=1", "DOMAIN: not set" DOMAIN_ADVICE},
        {"DOMAIN=", "DOMAIN: not set" DOMAIN_ADVICE},
        {"DOMAIN=localhost",
         "DOMAIN: \"localhost\" cannot get a certificate: no CA issues for \"localhost\" "
         "or "
         "names below it" DOMAIN_ADVICE},
        {"DOMAIN=bare",
         "DOMAIN: \"bare\" has a single label, a CA needs at least two "
         "(service.example.org)" DOMAIN_ADVICE},
        {"DOMAIN=printer.local",
         "DOMAIN: \"printer.local\" cannot get a certificate: no CA issues for \"local\" "
         "or "
         "names below it" DOMAIN_ADVICE},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct loaded loaded;

        load(&loaded, NULL, cases[i].entry, NULL);
        expect_error(&loaded, cases[i].message);
        release(&loaded);
        /* In development there is no CA. */
        load(&loaded, NULL, cases[i].entry, DEVELOPMENT, NULL);
        expect_good(&loaded);
        release(&loaded);
    }
}

static void test_domain_messages(void **state)
{
    static const struct {
        const char *value;
        const char *message;
    } cases[] = {
        {"*.x.example",
         "\"*.x.example\" is a wildcard; expected one name such as service.example.org"},
        {"192.0.2.1",
         "\"192.0.2.1\" is an address; expected a name such as service.example.org"},
        {"2001:db8::1",
         "\"2001:db8::1\" is an address; expected a name such as service.example.org"},
        {"https://app.example.com/",
         "\"https://app.example.com/\" is a URL; write only the name: app.example.com"},
        {"app.example.com:443",
         "\"app.example.com:443\" has a port; write only the name: app.example.com"},
        {"\"app.example.com\"",
         "\"\"app.example.com\"\" has quotes in it; remove them (docker's --env-file "
         "keeps "
         "them)"},
        {"app.example.com.", "\"app.example.com.\" ends with a dot; remove the dot"},
        {"app.example.com ",
         "\"app.example.com \" has a blank at position 16; remove the blank"},
        {"https://me:hunter2@app.example.com/",
         "has an @ in it; expected a name such as service.example.org"},
        {"app.example.com\r",
         "byte 16: a carriage return, as in files with the line ends of Windows; remove "
         "it"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct loaded loaded;
        char entry[64];
        char message[160];

        snprintf(entry, sizeof entry, "DOMAIN=%s", cases[i].value);
        snprintf(message, sizeof message, "DOMAIN: %s", cases[i].message);
        load(&loaded, NULL, entry, NULL);
        expect_error(&loaded, message);
        release(&loaded);
    }
}

/* What was not understood may have been the domain, or the mode. */
static void test_file_with_unread_parts_brings_no_second_error(void **state)
{
    static const char *const files[] = {
        "domain: [a\n",
        "domian: a.example.com\n",
        "dev_moed: true\n",
        "# \xff\ndomain: a.example.com\n",
        "domain a.example.com\n",
        "[domain]: a.example.com\n",
        "nginx: 80\n",
        "domain: &a a.example.com\nrun_dir: *a\n---\n",
    };
    struct loaded loaded;

    (void)state;
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        for (int bare = 0; bare < 2; bare++) {
            load(&loaded, files[i], bare ? "DOMAIN=bare" : "UNRELATED=1", NULL);
            assert_true(loaded.report.error_count > 0);
            for (size_t n = 0; n < loaded.report.error_count; n++)
                assert_memory_equal(loaded.report.errors[n], "config.yaml:", 12);
            release(&loaded);
        }
    }
    /* Here it is known what is meant. */
    load(&loaded, "zebra: 1\n", "DOMAIN=bare", "DEV_MODE=false", NULL);
    assert_int_equal(loaded.report.error_count, 2);
    release(&loaded);
    load(&loaded, "zebra: 1\ndomain: bare\ndev_mode: false\n", NULL, NULL);
    assert_int_equal(loaded.report.error_count, 2);
    release(&loaded);
    load(&loaded, "nginx:\n  http_port: x\n", NULL, NULL);
    assert_int_equal(loaded.report.error_count, 2);
    assert_string_equal(loaded.report.errors[1], "DOMAIN: not set" DOMAIN_ADVICE);
    release(&loaded);
}

static void test_domain_syntax_holds_in_every_mode(void **state)
{
    static const char *const names[] = {
        "*.example.org", "192.0.2.1", "::1",         "example.org.", "a_b.example",
        "-a.example",    "a..b",      "exämple.org", "a b",          "a.example;",
    };

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        for (int development = 0; development < 2; development++) {
            struct loaded loaded;
            char entry[64];

            snprintf(entry, sizeof entry, "DOMAIN=%s", names[i]);
            load(&loaded, NULL, entry, development ? DEVELOPMENT : NULL, NULL);
            /* One error, not also one about the default that was left in its place. */
            assert_int_equal(loaded.report.error_count, 1);
            assert_int_equal(strncmp(loaded.report.errors[0], "DOMAIN: ", 8), 0);
            release(&loaded);
        }
    }
}

static void test_domain_of_the_file_is_named_with_its_line(void **state)
{
    struct loaded loaded;

    (void)state;
    load(&loaded, "# comment\ndomain: bare\n", NULL, NULL);
    expect_error(&loaded,
                 "config.yaml:2:9: domain: \"bare\" has a single label, a CA needs at "
                 "least two (service.example.org)" DOMAIN_ADVICE);
    release(&loaded);
}

static void test_unknown_mode_brings_no_second_error(void **state)
{
    struct loaded loaded;

    (void)state;
    load(&loaded, "dev_mode: yes\n", NULL, NULL);
    expect_error(&loaded,
                 "config.yaml:1:11: dev_mode: found \"yes\", expected true or false");
    release(&loaded);
}

/* ---- log level ---- */

static void test_log_level_of_development_and_staging(void **state)
{
    struct loaded loaded;

    (void)state;
    load(&loaded, NULL, PRODUCTION, "LETSENCRYPT_STAGING=true", NULL);
    expect_good(&loaded);
    assert_int_equal(loaded.config.log_level, LOG_DEBUG);
    release(&loaded);
    load(&loaded, NULL, PRODUCTION, "LETSENCRYPT_STAGING=true", "LOG_LEVEL=info", NULL);
    assert_int_equal(loaded.config.log_level, LOG_INFO);
    release(&loaded);
    load(&loaded, "log:\n  level: info\n", DEVELOPMENT, NULL);
    assert_int_equal(loaded.config.log_level, LOG_INFO);
    release(&loaded);
    load(&loaded, NULL, DEVELOPMENT, "LOG_LEVEL=", NULL);
    assert_int_equal(loaded.config.log_level, LOG_DEBUG);
    release(&loaded);
}

/* ---- CORS ---- */

static void test_origins(void **state)
{
    struct loaded loaded;

    (void)state;
    load(&loaded, NULL, DEVELOPMENT,
         "CORS_ORIGINS=[\"https://a\\\\.example\", \"^http://(x|y)$\"]", NULL);
    expect_good(&loaded);
    assert_int_equal(loaded.config.cors_origins.count, 2);
    assert_string_equal(loaded.config.cors_origins.items[0], "https://a\\.example");
    assert_string_equal(loaded.config.cors_origins.items[1], "^http://(x|y)$");
    release(&loaded);

    load(&loaded, "cors:\n  origins: ['https://a\\.example', plain]\n", DEVELOPMENT,
         NULL);
    expect_good(&loaded);
    assert_int_equal(loaded.config.cors_origins.count, 2);
    assert_string_equal(loaded.config.cors_origins.items[0], "https://a\\.example");
    assert_string_equal(loaded.config.cors_origins.items[1], "plain");
    release(&loaded);

    /* The variable replaces the file's list, it does not add to it. */
    load(&loaded, "cors:\n  origins: [a, b]\n", DEVELOPMENT, "CORS_ORIGINS=[\"c\"]",
         NULL);
    expect_good(&loaded);
    assert_int_equal(loaded.config.cors_origins.count, 1);
    assert_string_equal(loaded.config.cors_origins.items[0], "c");
    release(&loaded);
    load(&loaded, "cors:\n  origins: [a, b]\n", DEVELOPMENT, "CORS_ORIGINS=[]", NULL);
    expect_good(&loaded);
    assert_int_equal(loaded.config.cors_origins.count, 0);
    release(&loaded);
}

static void test_invalid_origins_switch_cors_off(void **state)
{
    static const char *const values[] = {
        "https://a.example", "[\"a\"",    "[\"a\",]", "['a']",
        "[\"a\\u0000b\"]",   "[\"a\"] x", "{",        "\xff",
    };
    static const char *const others[] = {"{}", "[1]", "[\"a\", null]", "[[\"a\"]]"};
    struct loaded loaded;
    char entry[64];

    (void)state;
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        snprintf(entry, sizeof entry, "CORS_ORIGINS=%s", values[i]);
        load(&loaded, "cors:\n  origins: [a]\n", DEVELOPMENT, entry, NULL);
        assert_int_equal(loaded.result, 0);
        assert_int_equal(loaded.report.warning_count, 1);
        assert_int_equal(strncmp(loaded.report.warnings[0],
                                 "CORS_ORIGINS: not valid JSON (line 1", 36),
                         0);
        assert_non_null(strstr(loaded.report.warnings[0],
                               "): CORS is off; expected an "
                               "array of texts such as "
                               "[\"https://app\\\\.example"));
        assert_int_equal(loaded.config.cors_origins.count, 0);
        release(&loaded);
    }
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        snprintf(entry, sizeof entry, "CORS_ORIGINS=%s", others[i]);
        load(&loaded, NULL, DEVELOPMENT, entry, NULL);
        expect_warning(&loaded,
                       "CORS_ORIGINS: not a JSON array of texts: CORS is off; "
                       "expected one such as [\"https://app\\\\.example\\\\.org\"]");
        assert_int_equal(loaded.config.cors_origins.count, 0);
        release(&loaded);
    }
}

static void expect_error_begins(const struct loaded *loaded, const char *begin)
{
    if (loaded->report.error_count != 1)
        show_report(loaded);
    assert_int_equal(loaded->report.error_count, 1);
    assert_true(strlen(loaded->report.errors[0]) > strlen(begin));
    assert_memory_equal(loaded->report.errors[0], begin, strlen(begin));
}

static void test_origins_are_regular_expressions(void **state)
{
    /* The reasons are PCRE's, and differ a little from version to version. */
    static const struct {
        const char *value;
        const char *begin;
    } bad[] = {
        {"[\"ok\", \"([\"]",
         "CORS_ORIGINS: item 2: \"([\" is not a regular expression: missing "},
        {"[\"(a\"]",
         "CORS_ORIGINS: item 1: \"(a\" is not a regular expression: missing closing "
         "parenthesis at offset "},
        {"[\"*.example.org\"]",
         "CORS_ORIGINS: item 1: \"*.example.org\" is not a regular expression: "
         "quantifier "
         "does not follow a repeatable item at offset "},
        {"[\"a\\\\\"]", "CORS_ORIGINS: item 1: \"a\\\" is not a regular expression: "},
        {"[\"a)\"]", "CORS_ORIGINS: item 1: \"a)\" is not a regular expression: "},
    };
    static const char *const good[] = {
        "[\"^https?://([^.]+\\\\.)*vercel\\\\.app(:[0-9]+)?$\"]",
        "[\"(a)\\\\1(?!b)(?i)c++\"]",
        "[\".*\"]",
        "[\"a{\", \"]\", \"b{1,2}\", \"(*UTF)ü\", \"(?i)x\"]",
    };
    struct loaded loaded;
    char entry[128];

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        snprintf(entry, sizeof entry, "CORS_ORIGINS=%s", bad[i].value);
        load(&loaded, NULL, DEVELOPMENT, entry, NULL);
        expect_error_begins(&loaded, bad[i].begin);
        assert_non_null(strstr(loaded.report.errors[0], " at offset "));
        release(&loaded);
    }
    load(&loaded, NULL, DEVELOPMENT, "CORS_ORIGINS=[\"(?<host>a)\"]", NULL);
    expect_error_begins(&loaded,
                        "CORS_ORIGINS: item 1: \"(?<host>a)\" has a named group");
    release(&loaded);
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        snprintf(entry, sizeof entry, "CORS_ORIGINS=%s", good[i]);
        load(&loaded, NULL, DEVELOPMENT, entry, NULL);
        expect_good(&loaded);
        release(&loaded);
    }
    load(&loaded, "cors:\n  origins: ['a', '(b']\n", DEVELOPMENT, NULL);
    expect_error_begins(&loaded,
                        "config.yaml:2:18: cors.origins: \"(b\" is not a regular "
                        "expression: missing closing parenthesis at offset ");
    release(&loaded);
}

static void test_number_of_origins_is_bounded(void **state)
{
    struct loaded loaded;
    char entry[512] = "CORS_ORIGINS=[";

    (void)state;
    for (int i = 0; i < 65; i++)
        strcat(entry, i == 0 ? "\"a\"" : ",\"a\"");
    strcat(entry, "]");
    load(&loaded, NULL, DEVELOPMENT, entry, NULL);
    expect_error(&loaded, "CORS_ORIGINS: item 65: more than 64 items");
    release(&loaded);
}

/* ---- rules between settings ---- */

static void test_rules_between_settings(void **state)
{
    struct loaded loaded;

    (void)state;
    load(&loaded, "nginx:\n  http_port: 443\n", DEVELOPMENT, NULL);
    expect_error(&loaded,
                 "nginx.https_port: 443 is also nginx.http_port; they must differ");
    release(&loaded);
    load(&loaded, "nginx:\n  https_port: 80\n", DEVELOPMENT, NULL);
    expect_error(&loaded,
                 "config.yaml:2:15: nginx.https_port: 80 is also nginx.http_port; they "
                 "must differ");
    release(&loaded);
    load(&loaded, "acme:\n  retry_max: 2s\n", DEVELOPMENT, NULL);
    expect_error(&loaded,
                 "config.yaml:2:14: acme.retry_max: shorter than acme.retry_min");
    release(&loaded);
}

static void test_staging_beside_a_directory(void **state)
{
    struct loaded loaded;

    (void)state;
    load(&loaded, "acme:\n  directory: https://ca.example.org/dir\n", PRODUCTION,
         "LETSENCRYPT_STAGING=true", NULL);
    expect_warning(&loaded,
                   "LETSENCRYPT_STAGING: does not choose the CA, because "
                   "config.yaml:2:14: acme.directory is set; remove one of them");
    assert_string_equal(config_directory(&loaded.config), "https://ca.example.org/dir");
    release(&loaded);
    load(&loaded, "acme:\n  staging: true\n  directory: https://ca.example.org/dir\n",
         PRODUCTION, NULL);
    expect_warning(&loaded,
                   "config.yaml:2:12: acme.staging: does not choose the CA, because "
                   "config.yaml:3:14: acme.directory is set; remove one of them");
    release(&loaded);
    /* They say the same. */
    load(&loaded,
         "acme:\n  directory: https://acme-staging-v02.api.letsencrypt.org/directory\n",
         PRODUCTION, "LETSENCRYPT_STAGING=true", NULL);
    expect_good(&loaded);
    release(&loaded);
    load(&loaded, "acme:\n  directory: https://ca.example.org/dir\n", PRODUCTION,
         "LETSENCRYPT_STAGING=false", NULL);
    expect_good(&loaded);
    release(&loaded);
}

static void test_directory_in_force(void **state)
{
    struct loaded loaded;

    (void)state;
    load(&loaded, NULL, PRODUCTION, NULL);
    assert_string_equal(config_directory(&loaded.config),
                        "https://acme-v02.api.letsencrypt.org/directory");
    release(&loaded);
    load(&loaded, NULL, PRODUCTION, "LETSENCRYPT_STAGING=true", NULL);
    assert_string_equal(config_directory(&loaded.config),
                        "https://acme-staging-v02.api.letsencrypt.org/directory");
    release(&loaded);
}

/* ---- the secret ---- */

static void expect_secret(const struct config *config, const char *text)
{
    assert_non_null(config->ekm_secret);
    assert_int_equal(config->ekm_secret->len, strlen(text));
    assert_memory_equal(config->ekm_secret->bytes, text, strlen(text) + 1);
    assert_null(config->ekm_secret_file);
}

static void test_secret_of_development(void **state)
{
    struct loaded loaded;

    (void)state;
    load(&loaded, NULL, DEVELOPMENT, NULL);
    expect_good(&loaded);
    expect_secret(&loaded.config, "dev-mode-ekm-placeholder-not-for-production");
    release(&loaded);
    load(&loaded, NULL, DEVELOPMENT, "EKM_SHARED_SECRET=", NULL);
    expect_secret(&loaded.config, "dev-mode-ekm-placeholder-not-for-production");
    release(&loaded);
    load(&loaded, "ekm:\n  secret_file: /run/x\n", DEVELOPMENT,
         "EKM_SHARED_SECRET=  hunter2 ü", NULL);
    expect_good(&loaded);
    expect_secret(&loaded.config, "  hunter2 ü");
    release(&loaded);
    load(&loaded, "ekm:\n  secret_file: /run/x\n", DEVELOPMENT, NULL);
    expect_good(&loaded);
    assert_null(loaded.config.ekm_secret);
    assert_string_equal(loaded.config.ekm_secret_file, "/run/x");
    release(&loaded);
}

static void test_secret_is_ignored_in_production(void **state)
{
    struct loaded loaded;

    (void)state;
    load(&loaded, NULL, PRODUCTION, "EKM_SHARED_SECRET=hunter2", NULL);
    expect_warning(&loaded,
                   "EKM_SHARED_SECRET: ignored outside development: the secret is "
                   "derived by the guest agent; remove the variable");
    assert_null(loaded.config.ekm_secret);
    release(&loaded);
    load(&loaded, "ekm:\n  secret_file: /run/x\n", PRODUCTION, NULL);
    expect_warning(&loaded,
                   "config.yaml:2:16: ekm.secret_file: ignored outside development: the "
                   "secret is derived by the guest agent; remove the key");
    assert_null(loaded.config.ekm_secret_file);
    release(&loaded);
}

/* In whatever way it is given wrongly. */
static void test_secret_is_in_no_message(void **state)
{
    static const char *const files[] = {
        NULL,
        "ekm:\n  secret_file: hunter2\n",
        "ekm:\n  secret: hunter2\n",
        "ekm: hunter2\n",
        "ekm:\n  secret_file: [hunter2]\n",
        "ekm:\n  secret_file: {a: hunter2}\n",
        "ekm_shared_secret: hunter2\n",
        "EKM_SHARED_SECRET: \"hunter2\n",
        "ekm:\n  secret_file: \"\\0hunter2\"\n",
        "ekm:\n  secret_file: &hunter2 x\n",
    };
    static const char *const entries[] = {
        "EKM_SHARED_SECRET=hunter2",
        "EKM_SHARED_SECRET=hunter2\x01",
        "EKM_SHARED_SECRET=\xffhunter2",
        "EKM_SHARED_SECRT=hunter2",
    };

    (void)state;
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        for (size_t k = 0; k < sizeof entries / sizeof entries[0]; k++) {
            for (int development = 0; development < 2; development++) {
                struct loaded loaded;

                load(&loaded, files[i], entries[k],
                     development ? DEVELOPMENT : PRODUCTION, NULL);
                for (size_t n = 0; n < loaded.report.error_count; n++)
                    assert_null(strstr(loaded.report.errors[n], "hunter2"));
                for (size_t n = 0; n < loaded.report.warning_count; n++)
                    assert_null(strstr(loaded.report.warnings[n], "hunter2"));
                release(&loaded);
            }
        }
    }
}

/* ---- mistyped variables ---- */

static void test_mistyped_variables(void **state)
{
    static const struct {
        const char *entry;
        const char *warning;
    } cases[] = {
        {"DOMIAN=x", "DOMIAN: unknown variable, ignored; did you mean DOMAIN?"},
        {"DOMAINS=x", "DOMAINS: unknown variable, ignored; did you mean DOMAIN?"},
        {"domain=x", "domain: unknown variable, ignored; did you mean DOMAIN?"},
        {"EMIAL=x", "EMIAL: unknown variable, ignored; did you mean EMAIL?"},
        {"DEVMODE=x", "DEVMODE: unknown variable, ignored; did you mean DEV_MODE?"},
        {"LETSENCRYPT_STAGNG=x",
         "LETSENCRYPT_STAGNG: unknown variable, ignored; did you "
         "mean LETSENCRYPT_STAGING?"},
        {"UPSTREAM_PROT=x",
         "UPSTREAM_PROT: unknown variable, ignored; did you mean UPSTREAM_PORT?"},
        {"EKM_SHARED_SECRETE=x",
         "EKM_SHARED_SECRETE: unknown variable, ignored; did you mean "
         "EKM_SHARED_SECRET?"},
        {"DOMA\nIN=x", "DOMA\\x0aIN: unknown variable, ignored; did you mean DOMAIN?"},
    };
    static const char *const innocent[] = {
        "MAIL=/var/mail/root",
        "SHELL=/bin/sh",
        "HOSTNAME=x",
        "PATH=/bin",
        "TERM=x",
        "HOME=/root",
        "LANG=C",
        "EMPTY=x",
        "_=x",
        "=x",
        "NOEQUALS",
        "DEBUG=1",
        "CORS_ENABLED=1",
        "LOGNAME=x",
        "TZ=UTC",
        "http_proxy=http://proxy:3128",
        "HTTP_PROXY=http://proxy:3128",
        "ALL_PROXY=x",
        "ftp_proxy=x",
    };
    struct loaded loaded;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        load(&loaded, NULL, DEVELOPMENT, cases[i].entry, NULL);
        expect_warning(&loaded, cases[i].warning);
        release(&loaded);
    }
    for (size_t i = 0; i < sizeof innocent / sizeof innocent[0]; i++) {
        load(&loaded, NULL, DEVELOPMENT, innocent[i], NULL);
        expect_good(&loaded);
        release(&loaded);
    }
}

/* ---- what setup_load makes of it: the file that is read, and the lines of the log ---- */

enum { LOGGED_MAX = 4096 };

struct setup_case {
    const char *variable; /* CERT_MANAGER_CONFIG, or NULL */
    const char *option;   /* --config, or NULL */
    enum setup_warnings warnings;
};

/* The exit code; what is logged on standard output meanwhile comes into `ret`. */
static int run_setup(const struct setup_case *setup, char ret[LOGGED_MAX])
{
    static const struct command_option options[] = {SETUP_OPTIONS, {0}};
    static const struct command command = {.name = "test", .options = options};
    const char *flags[] = {NULL};
    const struct command_line said = {
        .command = &command, .values = {setup->option}, .repeated = flags};
    struct config config;
    FILE *file = tmpfile();
    int out = dup(STDOUT_FILENO);
    size_t len;
    int code;

    assert_non_null(file);
    assert_true(out >= 0);
    if (setup->variable == NULL)
        unsetenv("CERT_MANAGER_CONFIG");
    else
        setenv("CERT_MANAGER_CONFIG", setup->variable, 1);
    fflush(stdout);
    dup2(fileno(file), STDOUT_FILENO);
    code = setup_load(&config, &said, setup->warnings);
    dup2(out, STDOUT_FILENO);
    close(out);
    config_done(&config);
    rewind(file);
    len = fread(ret, 1, LOGGED_MAX - 1, file);
    ret[len] = '\0';
    fclose(file);
    return code;
}

static void test_settings_file_that_cannot_be_read(void **state)
{
    static const char folder[] = "/tmp/cert-manager-test-XXXXXX";
    char path[64];
    char link[80];
    char logged[LOGGED_MAX];
    char line[256];

    (void)state;
    setenv("DEV_MODE", "true", 1);
    assert_int_equal(run_setup(&(struct setup_case){.variable = "/nope"}, logged),
                     EXIT_CONFIG);
    assert_non_null(strstr(logged,
                           " - FATAL - settings file /nope (named by "
                           "CERT_MANAGER_CONFIG): No such file or directory\n"));
    assert_int_equal(
        run_setup(&(struct setup_case){.variable = "/x", .option = "/nope"}, logged),
        EXIT_CONFIG);
    assert_non_null(strstr(logged,
                           " - FATAL - settings file /nope (named by --config): "
                           "No such file or directory\n"));
    assert_int_equal(run_setup(&(struct setup_case){.option = "/tmp"}, logged),
                     EXIT_CONFIG);
    assert_non_null(strstr(logged,
                           " - FATAL - settings file /tmp (named by --config): "
                           "a folder, expected a regular file\n"));
    assert_int_equal(run_setup(&(struct setup_case){.option = ""}, logged), EXIT_CONFIG);
    assert_non_null(strstr(logged,
                           " - FATAL - --config: found \"\", expected the path of "
                           "the settings file\n"));

    snprintf(path, sizeof path, "%s", folder);
    assert_non_null(mkdtemp(path));
    snprintf(link, sizeof link, "%s/link", path);
    assert_int_equal(symlink("nothing", link), 0);
    assert_int_equal(run_setup(&(struct setup_case){.option = link}, logged),
                     EXIT_CONFIG);
    snprintf(
        line, sizeof line,
        " - FATAL - settings file %s (named by --config): a link to a file that does "
        "not exist\n",
        link);
    assert_non_null(strstr(logged, line));
    unlink(link);
    rmdir(path);
    unsetenv("DEV_MODE");
}

static void test_empty_name_of_the_settings_file_is_unset(void **state)
{
    char logged[LOGGED_MAX];

    (void)state;
    if (access(SETUP_DEFAULT_CONFIG, F_OK) == 0)
        skip(); /* this machine's own settings */
    setenv("DEV_MODE", "true", 1);
    assert_int_equal(run_setup(&(struct setup_case){.variable = ""}, logged), 0);
    assert_int_equal(run_setup(&(struct setup_case){.variable = NULL}, logged), 0);
    unsetenv("DEV_MODE");
}

static void test_warnings_are_logged_or_skipped(void **state)
{
    static const char warning[] =
        "AUTH_ENABLED: \"maybe\" is neither true nor false, taken as false\n";
    char path[] = "/tmp/cert-manager-test-XXXXXX";
    int fd = mkstemp(path);
    struct setup_case setup = {.option = path, .warnings = SETUP_LOG_WARNINGS};
    char logged[LOGGED_MAX];

    (void)state;
    assert_true(fd >= 0);
    close(fd);
    setenv("DEV_MODE", "true", 1);
    setenv("LOG_LEVEL", "info", 1);
    setenv("AUTH_ENABLED", "maybe", 1);
    assert_int_equal(run_setup(&setup, logged), 0);
    assert_non_null(strstr(logged, " - WARNING - "));
    assert_non_null(strstr(logged, warning));
    setup.warnings = SETUP_SKIP_WARNINGS;
    assert_int_equal(run_setup(&setup, logged), 0);
    assert_null(strstr(logged, warning));
    setenv("LOG_LEVEL", "debug", 1);
    assert_int_equal(run_setup(&setup, logged), 0);
    assert_non_null(strstr(logged, " - DEBUG - AUTH_ENABLED: "));
    /* Errors are never skipped. */
    setenv("UPSTREAM_PORT", "x", 1);
    assert_int_equal(run_setup(&setup, logged), EXIT_CONFIG);
    assert_non_null(strstr(logged, " - FATAL - UPSTREAM_PORT: "));
    unsetenv("UPSTREAM_PORT");
    unsetenv("AUTH_ENABLED");
    unsetenv("LOG_LEVEL");
    unsetenv("DEV_MODE");
    unlink(path);
}

static void test_done_accepts_zeroed(void **state)
{
    struct config config = {.development = false};
    struct config_report report = {.error_count = 0};

    (void)state;
    config_done(&config);
    config_done(&config);
    config_report_done(&report);
}

static void *no_memory(size_t size)
{
    (void)size;
    return wipe_malloc(SIZE_MAX);
}

/* The daemon is started again then; settings that are wrong it would stay down for. */
static void test_a_lack_of_memory_is_not_the_settings_fault(void **state)
{
    struct loaded loaded;

    (void)state;
    json_set_alloc_funcs(no_memory, wipe_free);
    load(&loaded, NULL, DEVELOPMENT, "CORS_ORIGINS=[\"^x$\"]", NULL);
    json_set_alloc_funcs(wipe_malloc, wipe_free);
    assert_int_equal(loaded.result, -1);
    expect_error(&loaded, "CORS_ORIGINS: not enough memory");
    assert_true(loaded.report.passing);
    release(&loaded);
    load(&loaded, NULL, DEVELOPMENT, "NGINX_MAX_BODY_SIZE=x", NULL);
    assert_int_equal(loaded.result, -1);
    assert_false(loaded.report.passing);
    release(&loaded);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_lack_of_memory_is_not_the_settings_fault),
        cmocka_unit_test(test_every_setting_is_tested),
        cmocka_unit_test(test_commands),
        cmocka_unit_test(test_a_command_is_a_sequence),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_defaults_in_production),
        cmocka_unit_test(test_values_of_the_file),
        cmocka_unit_test(test_environment_wins),
        cmocka_unit_test(test_empty_variables_are_unset),
        cmocka_unit_test(test_empty_email_is_no_contact),
        cmocka_unit_test(test_more_good_values),
        cmocka_unit_test(test_bad_variables),
        cmocka_unit_test(test_long_values),
        cmocka_unit_test(test_socket_path_fits_the_kernel),
        cmocka_unit_test(test_long_values_are_cut_in_messages),
        cmocka_unit_test(test_all_errors_are_reported),
        cmocka_unit_test(test_bad_value_of_the_file_stays_an_error),
        cmocka_unit_test(test_first_of_repeated_variables_counts),
        cmocka_unit_test(test_other_words_are_false_with_a_warning),
        cmocka_unit_test(test_domain_must_be_public),
        cmocka_unit_test(test_domain_messages),
        cmocka_unit_test(test_file_with_unread_parts_brings_no_second_error),
        cmocka_unit_test(test_domain_syntax_holds_in_every_mode),
        cmocka_unit_test(test_domain_of_the_file_is_named_with_its_line),
        cmocka_unit_test(test_unknown_mode_brings_no_second_error),
        cmocka_unit_test(test_log_level_of_development_and_staging),
        cmocka_unit_test(test_origins),
        cmocka_unit_test(test_invalid_origins_switch_cors_off),
        cmocka_unit_test(test_origins_are_regular_expressions),
        cmocka_unit_test(test_number_of_origins_is_bounded),
        cmocka_unit_test(test_rules_between_settings),
        cmocka_unit_test(test_staging_beside_a_directory),
        cmocka_unit_test(test_directory_in_force),
        cmocka_unit_test(test_secret_of_development),
        cmocka_unit_test(test_secret_is_ignored_in_production),
        cmocka_unit_test(test_secret_is_in_no_message),
        cmocka_unit_test(test_mistyped_variables),
        cmocka_unit_test(test_settings_file_that_cannot_be_read),
        cmocka_unit_test(test_empty_name_of_the_settings_file_is_unset),
        cmocka_unit_test(test_warnings_are_logged_or_skipped),
        cmocka_unit_test(test_done_accepts_zeroed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
