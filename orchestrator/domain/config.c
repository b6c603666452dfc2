#include "domain/config.h"

#include "base/guess.h"
#include "domain/config_internal.h"
#include "domain/host_port.h"
#include "domain/json_text.h"

#include <assert.h>
#include <ctype.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { REPORT_LINES_MAX = 50 };

#define DEVELOPMENT_EKM_SECRET "dev-mode-ekm-placeholder-not-for-production"

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

/* The one line that is left when there is no memory for another. */
static char no_memory[] =
    "not enough memory for the settings, or for what is wrong with them";
static char *no_memory_lines[] = {no_memory};

static void add_error(struct config_report *report, const char *format, va_list args)
    __attribute__((format(printf, 2, 0)));
static void add_error(struct config_report *report, const char *format, va_list args)
{
    if (report->errors == no_memory_lines ||
        add_line(&report->errors, &report->error_count, format, args) ||
        report->error_count > 0)
        return;
    report->errors = no_memory_lines;
    report->error_count = 1;
    report->passing = true;
}

void config_error(struct config_load *load, const char *format, ...)
{
    va_list args;

    load->failed = true;
    va_start(args, format);
    add_error(load->report, format, args);
    va_end(args);
}

void config_error_of(struct config_load *load, const struct err *err, const char *format,
                     ...)
{
    va_list args;

    load->failed = true;
    if (err->kind == ERR_SYS)
        load->report->passing = true;
    va_start(args, format);
    add_error(load->report, format, args);
    va_end(args);
}

void config_lacks_memory(struct config_load *load, const char *of)
{
    load->report->passing = true;
    config_error(load, "%s: not enough memory", of);
}

void config_report_error(struct config_report *report, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    add_error(report, format, args);
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

size_t config_index_of(size_t offset)
{
    for (size_t i = 0; i < CONFIG_SETTING_COUNT; i++) {
        if (config_settings[i].offset == offset)
            return i;
    }
    assert(false && "a field without a setting");
    return 0;
}

const char *config_name_of(const struct config_load *load, size_t i,
                           char ret[CONFIG_NAME_SIZE])
{
    const struct config_setting *setting = &config_settings[i];
    const struct config_origin *origin = &load->origins[i];

    if (origin->source == CONFIG_FROM_YAML)
        snprintf(ret, CONFIG_NAME_SIZE, "%s:%zu:%zu: %s", load->yaml_name, origin->line,
                 origin->column, setting->key);
    else if (origin->source == CONFIG_FROM_FLAG)
        snprintf(ret, CONFIG_NAME_SIZE, "--set %s", setting->key);
    else if (setting->variable != NULL)
        config_variable_of(setting, origin->upper, ret);
    else
        snprintf(ret, CONFIG_NAME_SIZE, "%s", setting->key);
    return ret;
}

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

const char *config_variable_of(const struct config_setting *setting, bool upper,
                               char ret[CONFIG_VARIABLE_SIZE])
{
    snprintf(ret, CONFIG_VARIABLE_SIZE, "%s", setting->variable);
    for (char *letter = ret; upper && *letter != '\0'; letter++)
        *letter = (char)toupper((unsigned char)*letter);
    return ret;
}

/* Of one with CONFIG_ENV_UPPER, the lower-case name first, as curl and certbot do. */
static const char *lookup_setting(char *const *environment,
                                  const struct config_setting *setting, bool *ret_upper)
{
    const char *text = lookup(environment, setting->variable);
    char name[CONFIG_VARIABLE_SIZE];

    *ret_upper = text == NULL && (setting->flags & CONFIG_ENV_UPPER) != 0;
    return *ret_upper ? lookup(environment, config_variable_of(setting, true, name))
                      : text;
}

/* Stands beside https_proxy wherever that is set, and says nothing to us. */
static bool is_for_others(const char *name)
{
    return strcasecmp(name, "http_proxy") == 0;
}

static bool is_known(const char *name)
{
    for (size_t i = 0; i < CONFIG_SETTING_COUNT; i++) {
        const char *variable = config_settings[i].variable;

        if (variable != NULL && (strcmp(variable, name) == 0 ||
                                 ((config_settings[i].flags & CONFIG_ENV_UPPER) != 0 &&
                                  strcasecmp(variable, name) == 0)))
            return true;
    }
    return is_for_others(name) || strcmp(name, CONFIG_FILE_VARIABLE) == 0;
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
        distance = guess_distance(name, variable);
        /* Two letters of five are half a word: too little to go by. */
        if (distance > 1 && strlen(variable) < SURE)
            continue;
        if (distance < least) {
            least = distance;
            nearest = variable;
        }
    }
    if (guess_distance(name, CONFIG_FILE_VARIABLE) < least)
        nearest = CONFIG_FILE_VARIABLE;
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
    unsigned long refusals = wipe_refusals();
    json_error_t where;
    json_t *array = json_load_whole(text, strlen(text), 0, &where);
    json_t *item;
    size_t k;

    config_value_clear(load->config, setting);
    if (array == NULL && wipe_refusals() != refusals) {
        config_lacks_memory(load, setting->variable);
        return;
    }
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
            config_error_of(load, &err, "%s: item %zu: %s", setting->variable, k + 1,
                            err.message);
        }
    }
    json_decref(array);
}

static void set_from_variable(struct config_load *load, size_t i, const char *text)
{
    const struct config_setting *setting = &config_settings[i];
    struct config_origin *origin = &load->origins[i];
    struct err err = ERR_INIT;
    char name[CONFIG_VARIABLE_SIZE];

    config_variable_of(setting, origin->upper, name);
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

        config_warn(load, "%s: %s is neither true nor false, taken as false", name,
                    config_quoted(quoted, text, strlen(text)));
        text = "false";
    }
    if (config_value_set(load->config, setting, CONFIG_FROM_ENVIRONMENT, text,
                         strlen(text), &err) < 0) {
        origin->bad = true;
        config_error_of(load, &err, "%s: %s", name, err.message);
    }
}

static void apply_environment(struct config_load *load, char *const *environment)
{
    for (size_t i = 0; i < CONFIG_SETTING_COUNT; i++) {
        const struct config_setting *setting = &config_settings[i];
        bool upper = false;
        const char *text = setting->variable == NULL
                               ? NULL
                               : lookup_setting(environment, setting, &upper);

        /* The secret has a rule of its own: see decide_ekm_secret. */
        if (text == NULL || setting->type == CONFIG_SECRET)
            continue;
        if (text[0] == '\0' && (setting->flags & CONFIG_ENV_EMPTY) == 0)
            continue;
        load->origins[i].upper = upper;
        set_from_variable(load, i, text);
    }
    for (char *const *entry = environment; *entry != NULL; entry++)
        warn_mistyped(load, *entry);
}

/* ---- rules between settings ---- */

static void decide_log_level(struct config_load *load)
{
    struct config *config = load->config;

    if (load->origins[config_index_of(offsetof(struct config, log_level))].source ==
            CONFIG_FROM_DEFAULT &&
        (config->development || config->acme.staging))
        config->log_level = LOG_DEBUG;
}

/* The directory alone says which CA is asked; the two may agree. */
static void check_directory(struct config_load *load)
{
    const struct config *config = load->config;
    size_t staging = config_index_of(offsetof(struct config, acme.staging));
    size_t directory =
        config_index_of(offsetof(struct config, acme.authorities.items[0].directory));
    char staging_name[CONFIG_NAME_SIZE];
    char directory_name[CONFIG_NAME_SIZE];

    if (config->acme.staging && !authority_is_staging(&config->acme.authorities.items[0]))
        config_warn(load,
                    "%s: does not choose the CA, because %s is set; remove one of them",
                    config_name_of(load, staging, staging_name),
                    config_name_of(load, directory, directory_name));
}

/* One that is bad has been reported, and what stands in its place says nothing. */
static bool any_bad(const struct config_load *load, size_t a, size_t b)
{
    return load->origins[a].bad || load->origins[b].bad;
}

static void check_pairs(struct config_load *load)
{
    const struct config *config = load->config;
    size_t http = config_index_of(offsetof(struct config, nginx.http_port));
    size_t https = config_index_of(offsetof(struct config, nginx.https_port));
    size_t shortest = config_index_of(offsetof(struct config, acme.retry_min_ms));
    size_t longest = config_index_of(offsetof(struct config, acme.retry_max_ms));
    char name[CONFIG_NAME_SIZE];

    if (config->nginx.http_port == config->nginx.https_port &&
        !any_bad(load, http, https))
        config_error(load, "%s: %u is also nginx.http_port; they must differ",
                     config_name_of(load, https, name), config->nginx.https_port);
    if (config->acme.retry_min_ms > config->acme.retry_max_ms &&
        !any_bad(load, shortest, longest))
        config_error(load, "%s: shorter than acme.retry_min",
                     config_name_of(load, longest, name));
}

/* Whoever trusts nobody learns nothing from the header, and without it nobody is asked. */
static void check_proxies(struct config_load *load)
{
    const struct config *config = load->config;
    size_t protocol = config_index_of(offsetof(struct config, nginx.proxy_protocol));
    size_t trusted = config_index_of(offsetof(struct config, nginx.trusted_proxies));
    char name[CONFIG_NAME_SIZE];

    if (any_bad(load, protocol, trusted))
        return;
    if (config->nginx.proxy_protocol && config->nginx.trusted_proxies.count == 0)
        config_error(load,
                     "%s: true, but nginx.trusted_proxies is empty; list the networks of "
                     "the balancer there, such as 10.0.0.0/8",
                     config_name_of(load, protocol, name));
    else if (!config->nginx.proxy_protocol && config->nginx.trusted_proxies.count > 0)
        config_warn(load, "%s: no effect without nginx.proxy_protocol: true",
                    config_name_of(load, trusted, name));
}

/* nginx would find its port taken, and not start. */
static void check_metrics(struct config_load *load)
{
    const struct config *config = load->config;
    size_t listen = config_index_of(offsetof(struct config, metrics.listen));
    size_t nginx = config_index_of(offsetof(struct config, metrics.nginx));
    size_t auth = config_index_of(offsetof(struct config, auth.enabled));
    struct host_port place;
    char name[CONFIG_NAME_SIZE];
    char other[CONFIG_NAME_SIZE];

    if (config->metrics.listen != NULL &&
        host_port_parse(&place, config->metrics.listen) == 0 &&
        (place.port == config->nginx.http_port || place.port == config->nginx.https_port))
        config_error(load, "%s: port %u is nginx's; choose another one",
                     config_name_of(load, listen, name), place.port);
    if (config->metrics.nginx && !config->auth.enabled && !any_bad(load, nginx, auth))
        config_warn(load,
                    "%s: true, but %s says false: /cert-manager/metrics answers 403 to "
                    "everybody",
                    config_name_of(load, nginx, name), config_name_of(load, auth, other));
}

static void decide_ekm_secret(struct config_load *load, char *const *environment)
{
    struct config *config = load->config;
    size_t secret = config_index_of(offsetof(struct config, ekm_secret));
    size_t file = config_index_of(offsetof(struct config, ekm_secret_file));
    const char *text = lookup(environment, config_settings[secret].variable);
    bool given = text != NULL && text[0] != '\0' &&
                 (load->origins[file].source != CONFIG_FROM_FLAG || !config->development);
    char name[CONFIG_NAME_SIZE];

    if (!config->development) {
        if (given)
            config_warn(load,
                        "EKM_SHARED_SECRET: ignored outside development: the secret "
                        "is derived by the guest agent; remove the variable");
        if (config->ekm_secret_file != NULL)
            config_warn(load,
                        "%s: ignored outside development: the secret is derived by the "
                        "guest agent; remove the key",
                        config_name_of(load, file, name));
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
            config_error_of(load, &err, "%s: default: %s", setting->key, err.message);
    }
}

static int keep_origins(struct config_load *load)
{
    struct config *config = load->config;

    config->origins = calloc(CONFIG_SETTING_COUNT, sizeof *config->origins);
    if (load->yaml_name != NULL)
        config->file = strdup(load->yaml_name);
    load->origins = config->origins;
    if (config->origins != NULL && (load->yaml_name == NULL || config->file != NULL))
        return 0;
    config_lacks_memory(load, "settings");
    return -1;
}

int config_load(struct config *config, struct config_report *report,
                const struct config_sources *sources)
{
    struct config_load load = {
        .config = config,
        .report = report,
        .yaml_name = sources->yaml_name,
    };

    *config = (struct config){.development = false};
    *report = (struct config_report){.error_count = 0};
    if (keep_origins(&load) < 0)
        return -1;
    apply_defaults(&load);
    if (sources->yaml != NULL)
        config_yaml_apply(&load, sources->yaml, sources->yaml_len);
    apply_environment(&load, sources->environment);
    config_flags_apply(&load, sources->flags);
    config_domains_check(&load);
    config_authorities_check(&load);
    check_directory(&load);
    check_pairs(&load);
    check_proxies(&load);
    check_metrics(&load);
    config_routes_check(&load);
    decide_log_level(&load);
    decide_ekm_secret(&load, sources->environment);
    return load.failed ? -1 : 0;
}

void config_done(struct config *config)
{
    for (size_t i = 0; i < CONFIG_SETTING_COUNT; i++)
        config_value_clear(config, &config_settings[i]);
    free(config->origins);
    free(config->file);
    config->origins = NULL;
    config->file = NULL;
}

void config_report_done(struct config_report *report)
{
    if (report->errors == no_memory_lines)
        *report = (struct config_report){.warnings = report->warnings,
                                         .warning_count = report->warning_count};
    for (size_t i = 0; i < report->error_count; i++)
        free(report->errors[i]);
    for (size_t i = 0; i < report->warning_count; i++)
        free(report->warnings[i]);
    free(report->errors);
    free(report->warnings);
    *report = (struct config_report){.error_count = 0};
}

bool config_answers_challenges(const struct config *config)
{
    return config->acme.stateless && !config->development && !config->tls.external_key;
}

const char *config_directory(const struct config *config)
{
    return config->acme.authorities.items[0].directory;
}

const struct authority *config_rehearsal(const struct config *config)
{
    const struct authority *rehearsal = &config->acme.rehearsal;

    return config->acme.rehearse && rehearsal->directory != NULL ? rehearsal : NULL;
}
