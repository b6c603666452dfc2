#include "domain/config.h"

#include "domain/config_internal.h"
#include "domain/hostname.h"

#include <assert.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum {
    REPORT_LINES_MAX = 50,
    SECOND = 1000,
    MINUTE = 60 * SECOND,
    HOUR = 60 * MINUTE,
    DAY = 24 * HOUR,
};

#define DEVELOPMENT_EKM_SECRET "dev-mode-ekm-placeholder-not-for-production"
#define LETSENCRYPT_DIRECTORY "https://acme-v02.api.letsencrypt.org/directory"
#define LETSENCRYPT_STAGING_DIRECTORY                                                    \
    "https://acme-staging-v02.api.letsencrypt.org/directory"

#define FIELD(name) .offset = offsetof(struct config, name)
#define LIMITS(low, high) .min = (low), .max = (high)

/* Every setting, in the order of the documentation. */
const struct config_setting config_settings[] = {
    {"domain", "DOMAIN", CONFIG_HOSTNAME, FIELD(domain), .fallback = "localhost",
     .meaning = "name of the certificate and server_name of nginx"},
    {"dev_mode", "DEV_MODE", CONFIG_BOOL, FIELD(development), .fallback = "false",
     .meaning = "self-signed certificate and fixed key material, without a guest agent"},
    {"run_dir", NULL, CONFIG_PATH, FIELD(run_dir), .fallback = "/run/cert-manager",
     .meaning = "secrets, staging and work folders; must be on tmpfs"},
    {"log.level", "LOG_LEVEL", CONFIG_LEVEL, FIELD(log_level), .fallback = "info",
     .meaning = "least level that is logged; unset in development and staging: debug"},

    {"acme.staging", "LETSENCRYPT_STAGING", CONFIG_BOOL, FIELD(acme.staging),
     .fallback = "false", .meaning = "use the staging directory of Let's Encrypt"},
    {"acme.directory", NULL, CONFIG_DIRECTORY_URL, FIELD(acme.directory),
     .meaning = "directory of the CA; unset: that of Let's Encrypt"},
    {"acme.ca_bundle", NULL, CONFIG_PATH, FIELD(acme.ca_bundle),
     .meaning = "PEM file that the connection to the CA is verified with"},
    {"acme.email", "EMAIL", CONFIG_EMAIL, FIELD(acme.email),
     .fallback = "certbot@concrete-security.com", .flags = CONFIG_ENV_EMPTY,
     .meaning = "contact of the ACME account; empty for none"},
    {"acme.account_version", "LETSENCRYPT_ACCOUNT_VERSION", CONFIG_WORD,
     FIELD(acme.account_version), .fallback = "v1",
     .meaning = "last part of the path of the account key"},
    {"acme.resolve_wait", "FQDN_RESOLVE_WAIT_SECONDS", CONFIG_DURATION,
     FIELD(acme.resolve_wait_ms), LIMITS(0, HOUR), .fallback = "10s",
     .flags = CONFIG_ENV_SECONDS,
     .meaning = "time between look-ups of the domain before the CA is asked"},
    {"acme.resolve_max_tries", "FQDN_RESOLVE_MAX_TRIES", CONFIG_COUNT,
     FIELD(acme.resolve_max_tries), LIMITS(0, 1000000), .fallback = "60",
     .meaning = "look-ups of the domain before the CA is asked; 0: do not wait"},
    {"acme.retry_min", NULL, CONFIG_DURATION, FIELD(acme.retry_min_ms),
     LIMITS(SECOND, DAY), .fallback = "30s",
     .meaning = "first wait after a failed attempt at a CA without known limits"},
    {"acme.retry_max", NULL, CONFIG_DURATION, FIELD(acme.retry_max_ms),
     LIMITS(SECOND, 7 * DAY), .fallback = "1h",
     .meaning = "longest wait after failed attempts at a CA without known limits"},

    {"certbot.path", NULL, CONFIG_PATH, FIELD(certbot.path),
     .fallback = "/usr/bin/certbot", .meaning = "program of certbot"},
    {"certbot.user", NULL, CONFIG_USER, FIELD(certbot.user), .fallback = "certbot",
     .meaning = "user that certbot runs as, where it exists"},
    {"certbot.timeout", NULL, CONFIG_DURATION, FIELD(certbot.timeout_ms),
     LIMITS(SECOND, DAY), .fallback = "10m", .meaning = "longest run of certbot"},

    {"tls.dir", NULL, CONFIG_PATH, FIELD(tls.dir), .fallback = "/etc/nginx/ssl",
     .meaning = "folder of cert.pem, key.pem and the state that must survive"},
    {"tls.force_rm", "FORCE_RM_CERT_FILES", CONFIG_BOOL, FIELD(tls.force_rm),
     .fallback = "false",
     .meaning = "set the stored pair aside at start and obtain a new certificate"},

    {"agent.socket", "DSTACK_SIMULATOR_ENDPOINT", CONFIG_ENDPOINT, FIELD(agent.socket),
     .meaning = "guest agent; unset: the first of its well-known paths"},
    {"agent.timeout", NULL, CONFIG_DURATION, FIELD(agent.timeout_ms),
     LIMITS(100, 10 * MINUTE), .fallback = "3s", .meaning = "longest call of the agent"},
    {"agent.retry_max", NULL, CONFIG_DURATION, FIELD(agent.retry_max_ms),
     LIMITS(100, DAY), .fallback = "30s",
     .meaning = "longest wait between attempts to reach the agent"},

    {"nginx.path", NULL, CONFIG_PATH, FIELD(nginx.path), .fallback = "/usr/sbin/nginx",
     .meaning = "program of nginx"},
    {"nginx.conf", NULL, CONFIG_PATH, FIELD(nginx.conf),
     .fallback = "/etc/nginx/nginx.conf", .meaning = "main configuration of nginx"},
    {"nginx.site_conf", NULL, CONFIG_PATH, FIELD(nginx.site_conf),
     .fallback = "/etc/nginx/conf.d/default.conf",
     .meaning = "the rendered configuration"},
    {"nginx.pid_file", NULL, CONFIG_PATH, FIELD(nginx.pid_file),
     .fallback = "/run/nginx.pid", .meaning = "where nginx writes its process id"},
    {"nginx.templates", NULL, CONFIG_PATH, FIELD(nginx.templates),
     .fallback = "/app/nginx_conf", .meaning = "folder of the templates"},
    {"nginx.webroot", NULL, CONFIG_PATH, FIELD(nginx.webroot),
     .fallback = "/acme-challenge", .meaning = "folder of the ACME challenges"},
    {"nginx.address", NULL, CONFIG_ADDRESS, FIELD(nginx.address),
     .meaning = "address to listen on; unset: all of IPv4 and IPv6"},
    {"nginx.http_port", NULL, CONFIG_COUNT, FIELD(nginx.http_port), LIMITS(1, 65535),
     .fallback = "80", .meaning = "port of HTTP"},
    {"nginx.https_port", NULL, CONFIG_COUNT, FIELD(nginx.https_port), LIMITS(1, 65535),
     .fallback = "443", .meaning = "port of HTTPS"},
    {"nginx.max_body_size", "NGINX_MAX_BODY_SIZE", CONFIG_SIZE,
     FIELD(nginx.max_body_size), .meaning = "client_max_body_size of nginx"},
    {"nginx.extra_upstreams", "EXTRA_UPSTREAMS", CONFIG_FRAGMENT,
     FIELD(nginx.extra_upstreams), .fallback = "",
     .meaning = "upstream blocks, put into the configuration as they are"},
    {"nginx.extra_locations", "EXTRA_LOCATIONS", CONFIG_FRAGMENT,
     FIELD(nginx.extra_locations), .fallback = "",
     .meaning = "location blocks; ${CORS_HEADERS} in them is replaced"},

    {"upstream.host", "UPSTREAM_HOST", CONFIG_HOST, FIELD(upstream.host),
     .meaning = "host that every path without a location of its own goes to"},
    {"upstream.port", "UPSTREAM_PORT", CONFIG_COUNT, FIELD(upstream.port),
     LIMITS(1, 65535), .fallback = "8000", .meaning = "its port"},
    {"auth.enabled", "AUTH_ENABLED", CONFIG_BOOL, FIELD(auth.enabled), .fallback = "true",
     .meaning = "/_auth asks the authentication service; otherwise it answers 403"},
    {"auth.upstream", NULL, CONFIG_HOST_PORT, FIELD(auth.upstream),
     .fallback = "auth-service:8081", .meaning = "the authentication service"},
    {"attestation.upstream", NULL, CONFIG_HOST_PORT, FIELD(attestation.upstream),
     .fallback = "attestation-service:8080", .meaning = "the attestation service"},
    {"cors.origins", "CORS_ORIGINS", CONFIG_LIST, FIELD(cors_origins),
     .meaning = "regular expressions of allowed origins; none: no CORS"},

    {"ekm.secret_file", NULL, CONFIG_PATH, FIELD(ekm_secret_file), .flags = CONFIG_QUIET,
     .meaning = "file of the EKM secret, in development only"},
    {NULL, "EKM_SHARED_SECRET", CONFIG_SECRET, FIELD(ekm_secret), .flags = CONFIG_QUIET,
     .meaning = "the EKM secret itself, in development only"},
};

_Static_assert(sizeof config_settings / sizeof config_settings[0] == CONFIG_SETTING_COUNT,
               "CONFIG_SETTING_COUNT is not the length of the table");

/* ---- report ---- */

__attribute__((format(printf, 3, 0))) static bool
add_line(char ***lines, size_t *count, const char *format, va_list args)
{
    char **longer;
    char *line;

    if (*count >= REPORT_LINES_MAX)
        return false;
    if (*count == REPORT_LINES_MAX - 1) {
        line = strdup("further lines are left out");
    } else if (vasprintf(&line, format, args) < 0) {
        return false;
    }
    longer = line == NULL ? NULL : realloc(*lines, (*count + 1) * sizeof *longer);
    if (longer == NULL) {
        free(line);
        return false;
    }
    longer[(*count)++] = line;
    *lines = longer;
    return true;
}

void config_error(struct config_load *load, const char *format, ...)
{
    va_list args;

    load->failed = true;
    va_start(args, format);
    add_line(&load->report->errors, &load->report->error_count, format, args);
    va_end(args);
}

void config_warn(struct config_load *load, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    add_line(&load->report->warnings, &load->report->warning_count, format, args);
    va_end(args);
}

bool config_errors_full(const struct config_load *load)
{
    return load->report->error_count >= REPORT_LINES_MAX;
}

/* The setting of a field. */
static size_t index_of(size_t offset)
{
    for (size_t i = 0; i < CONFIG_SETTING_COUNT; i++) {
        if (config_settings[i].offset == offset)
            return i;
    }
    assert(false && "a field without a setting");
    return 0;
}

/* How a person would name the setting that has to be changed. */
static const char *name_of(const struct config_load *load, size_t i, char *ret,
                           size_t size)
{
    const struct config_setting *setting = &config_settings[i];
    const struct config_origin *origin = &load->origins[i];

    if (origin->source == CONFIG_FROM_YAML)
        snprintf(ret, size, "%s:%zu:%zu: %s", load->yaml_name, origin->line,
                 origin->column, setting->key);
    else
        snprintf(ret, size, "%s",
                 setting->variable != NULL ? setting->variable : setting->key);
    return ret;
}

enum { NAME_SIZE = 512 };

/* ---- environment ---- */

static const char *lookup(char *const *environment, const char *name)
{
    size_t len = strlen(name);

    for (; *environment != NULL; environment++) {
        if (strncmp(*environment, name, len) == 0 && (*environment)[len] == '=')
            return *environment + len + 1;
    }
    return NULL;
}

static bool is_known(const char *name)
{
    for (size_t i = 0; i < CONFIG_SETTING_COUNT; i++) {
        const char *variable = config_settings[i].variable;

        if (variable != NULL && strcmp(variable, name) == 0)
            return true;
    }
    return false;
}

/* A variable that nobody reads, but whose name is nearly one of ours. */
static void warn_mistyped(struct config_load *load, const char *entry)
{
    enum { SHORTEST = 5, SURE = 6 };
    const char *equals = strchr(entry, '=');
    const char *nearest = NULL;
    unsigned least = 3;
    char name[64];
    size_t len;

    len = equals == NULL ? 0 : (size_t)(equals - entry);
    if (len < SHORTEST || len >= sizeof name)
        return;
    memcpy(name, entry, len);
    name[len] = '\0';
    if (is_known(name))
        return;
    for (size_t i = 0; i < CONFIG_SETTING_COUNT; i++) {
        const char *variable = config_settings[i].variable;
        unsigned distance;

        if (variable == NULL || strlen(variable) < SHORTEST)
            continue;
        distance = config_distance(name, variable);
        /* Two letters of five are half a word: too little to go by. */
        if (distance > 1 && strlen(variable) < SURE)
            continue;
        if (distance < least) {
            least = distance;
            nearest = variable;
        }
    }
    if (nearest != NULL) {
        char quoted[CONFIG_QUOTED_SIZE];

        config_quoted(quoted, name, len);
        config_warn(load, "%.*s: unknown variable, ignored; did you mean %s?",
                    (int)strlen(quoted) - 2, quoted + 1, nearest);
    }
}

/* CORS_ORIGINS: a JSON array of texts. */
static void set_origins(struct config_load *load, size_t i, const char *text)
{
    const struct config_setting *setting = &config_settings[i];
    struct err err = ERR_INIT;
    json_error_t where;
    json_t *array = json_loads(text, 0, &where);
    json_t *item;
    size_t k;

    config_value_clear(load->config, setting);
    if (array == NULL) {
        char quoted[CONFIG_QUOTED_SIZE];

        config_quoted(quoted, where.text, strlen(where.text));
        config_warn(
            load,
            "%s: not valid JSON (line %d, column %d: %.*s): CORS is off; expected "
            "an array of texts such as [\"https://app\\\\.example\\\\.org\"]",
            setting->variable, where.line, where.column, (int)strlen(quoted) - 2,
            quoted + 1);
        return;
    }
    json_array_foreach(array, k, item)
    {
        if (!json_is_string(item))
            break;
    }
    if (!json_is_array(array) || k < json_array_size(array)) {
        config_warn(load,
                    "%s: not a JSON array of texts: CORS is off; expected one such as "
                    "[\"https://app\\\\.example\\\\.org\"]",
                    setting->variable);
        json_decref(array);
        return;
    }
    json_array_foreach(array, k, item)
    {
        if (config_value_set(load->config, setting, CONFIG_FROM_ENVIRONMENT,
                             json_string_value(item), json_string_length(item),
                             &err) < 0) {
            load->origins[i].bad = true;
            config_error(load, "%s: item %zu: %s", setting->variable, k + 1, err.message);
        }
    }
    json_decref(array);
}

static void set_from_variable(struct config_load *load, size_t i, const char *text)
{
    const struct config_setting *setting = &config_settings[i];
    struct config_origin *origin = &load->origins[i];
    struct err err = ERR_INIT;

    origin->source = CONFIG_FROM_ENVIRONMENT;
    origin->bad = false;
    if (setting->type == CONFIG_LIST) {
        set_origins(load, i, text);
        return;
    }
    /* The Python service takes every other word for false, so it cannot be an error. */
    if (setting->type == CONFIG_BOOL && strcasecmp(text, "true") != 0 &&
        strcasecmp(text, "false") != 0) {
        char quoted[CONFIG_QUOTED_SIZE];

        config_warn(load, "%s: %s is neither true nor false, taken as false",
                    setting->variable, config_quoted(quoted, text, strlen(text)));
        text = "false";
    }
    if (config_value_set(load->config, setting, CONFIG_FROM_ENVIRONMENT, text,
                         strlen(text), &err) < 0) {
        origin->bad = true;
        config_error(load, "%s: %s", setting->variable, err.message);
    }
}

static void apply_environment(struct config_load *load, char *const *environment)
{
    for (size_t i = 0; i < CONFIG_SETTING_COUNT; i++) {
        const struct config_setting *setting = &config_settings[i];
        const char *text =
            setting->variable == NULL ? NULL : lookup(environment, setting->variable);

        /* The secret has a rule of its own: see decide_ekm_secret. */
        if (text == NULL || setting->type == CONFIG_SECRET)
            continue;
        if (text[0] != '\0' || (setting->flags & CONFIG_ENV_EMPTY) != 0)
            set_from_variable(load, i, text);
    }
    for (char *const *entry = environment; *entry != NULL; entry++)
        warn_mistyped(load, *entry);
}

/* ---- rules between settings ---- */

static void decide_log_level(struct config_load *load)
{
    struct config *config = load->config;

    if (load->origins[index_of(offsetof(struct config, log_level))].source ==
            CONFIG_FROM_DEFAULT &&
        (config->development || config->acme.staging))
        config->log_level = LOG_DEBUG;
}

/* What is in force may not be what is meant: the file is only partly understood. */
static bool is_guess(const struct config_load *load, size_t i)
{
    return load->origins[i].bad ||
           (load->unread && load->origins[i].source == CONFIG_FROM_DEFAULT);
}

/* A public CA is never asked for a name that it cannot validate. */
static void check_domain(struct config_load *load)
{
    size_t domain = index_of(offsetof(struct config, domain));
    size_t development = index_of(offsetof(struct config, development));
    struct err err = ERR_INIT;
    char name[NAME_SIZE];

    if (load->config->development || is_guess(load, domain) ||
        is_guess(load, development))
        return;
    if (load->origins[domain].source == CONFIG_FROM_DEFAULT)
        err_set(&err, ERR_CONFIG, "not set");
    else if (hostname_check_public(load->config->domain, &err) == 0)
        return;
    config_error(
        load,
        "%s: %s; set it to the public name of this service, or DEV_MODE=true for "
        "a self-signed certificate",
        name_of(load, domain, name, sizeof name), err.message);
}

/* The directory alone says which CA is asked; the two may agree. */
static void check_directory(struct config_load *load)
{
    const struct config *config = load->config;
    size_t staging = index_of(offsetof(struct config, acme.staging));
    size_t directory = index_of(offsetof(struct config, acme.directory));
    char staging_name[NAME_SIZE];
    char directory_name[NAME_SIZE];

    if (config->acme.staging && config->acme.directory != NULL &&
        strcmp(config->acme.directory, LETSENCRYPT_STAGING_DIRECTORY) != 0)
        config_warn(load,
                    "%s: does not choose the CA, because %s is set; remove one of them",
                    name_of(load, staging, staging_name, sizeof staging_name),
                    name_of(load, directory, directory_name, sizeof directory_name));
}

/* One that is bad has been reported, and what stands in its place says nothing. */
static bool any_bad(const struct config_load *load, size_t a, size_t b)
{
    return load->origins[a].bad || load->origins[b].bad;
}

static void check_pairs(struct config_load *load)
{
    const struct config *config = load->config;
    size_t http = index_of(offsetof(struct config, nginx.http_port));
    size_t https = index_of(offsetof(struct config, nginx.https_port));
    size_t shortest = index_of(offsetof(struct config, acme.retry_min_ms));
    size_t longest = index_of(offsetof(struct config, acme.retry_max_ms));
    char name[NAME_SIZE];

    if (config->nginx.http_port == config->nginx.https_port &&
        !any_bad(load, http, https))
        config_error(load, "%s: %u is also nginx.http_port; they must differ",
                     name_of(load, https, name, sizeof name), config->nginx.https_port);
    if (config->acme.retry_min_ms > config->acme.retry_max_ms &&
        !any_bad(load, shortest, longest))
        config_error(load, "%s: shorter than acme.retry_min",
                     name_of(load, longest, name, sizeof name));
}

static void decide_ekm_secret(struct config_load *load, char *const *environment)
{
    struct config *config = load->config;
    size_t secret = index_of(offsetof(struct config, ekm_secret));
    size_t file = index_of(offsetof(struct config, ekm_secret_file));
    const char *text = lookup(environment, config_settings[secret].variable);
    bool given = text != NULL && text[0] != '\0';
    char name[NAME_SIZE];

    if (!config->development) {
        if (given)
            config_warn(load,
                        "EKM_SHARED_SECRET: ignored outside development: the secret "
                        "is derived by the guest agent; remove the variable");
        if (config->ekm_secret_file != NULL)
            config_warn(load,
                        "%s: ignored outside development: the secret is derived by the "
                        "guest agent; remove the key",
                        name_of(load, file, name, sizeof name));
        config_value_clear(config, &config_settings[file]);
        return;
    }
    if (given) {
        config_value_clear(config, &config_settings[file]);
        set_from_variable(load, secret, text);
    } else if (config->ekm_secret_file == NULL && !load->origins[file].bad) {
        set_from_variable(load, secret, DEVELOPMENT_EKM_SECRET);
        load->origins[secret].source = CONFIG_FROM_DEFAULT;
    }
}

/* ---- */

static void apply_defaults(struct config_load *load)
{
    for (size_t i = 0; i < CONFIG_SETTING_COUNT; i++) {
        const struct config_setting *setting = &config_settings[i];
        struct err err = ERR_INIT;

        if (setting->fallback != NULL &&
            config_value_set(load->config, setting, CONFIG_FROM_DEFAULT,
                             setting->fallback, strlen(setting->fallback), &err) < 0)
            config_error(load, "%s: default: %s", setting->key, err.message);
    }
}

int config_load(struct config *config, struct config_report *report,
                const char *yaml_name, const char *yaml, size_t yaml_len,
                char *const *environment)
{
    struct config_load load = {
        .config = config,
        .report = report,
        .yaml_name = yaml_name,
    };

    *config = (struct config){.development = false};
    *report = (struct config_report){.error_count = 0};
    apply_defaults(&load);
    if (yaml != NULL)
        config_yaml_apply(&load, yaml, yaml_len);
    apply_environment(&load, environment);
    if (config->domain != NULL)
        check_domain(&load);
    check_directory(&load);
    check_pairs(&load);
    decide_log_level(&load);
    decide_ekm_secret(&load, environment);
    return load.failed ? -1 : 0;
}

void config_done(struct config *config)
{
    for (size_t i = 0; i < CONFIG_SETTING_COUNT; i++)
        config_value_clear(config, &config_settings[i]);
}

void config_report_done(struct config_report *report)
{
    for (size_t i = 0; i < report->error_count; i++)
        free(report->errors[i]);
    for (size_t i = 0; i < report->warning_count; i++)
        free(report->warnings[i]);
    free(report->errors);
    free(report->warnings);
    *report = (struct config_report){.error_count = 0};
}

const char *config_directory(const struct config *config)
{
    if (config->acme.directory != NULL)
        return config->acme.directory;
    return config->acme.staging ? LETSENCRYPT_STAGING_DIRECTORY : LETSENCRYPT_DIRECTORY;
}

bool config_directory_is_lets_encrypt(const struct config *config)
{
    const char *directory = config_directory(config);

    return strcmp(directory, LETSENCRYPT_DIRECTORY) == 0 ||
           strcmp(directory, LETSENCRYPT_STAGING_DIRECTORY) == 0;
}
