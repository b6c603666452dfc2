/*
 * Each line of the input is a value that is rendered into nginx's configuration, "cors.origins=^a$"; one
 * of "path" begins a route, whose other values are in the lines behind it. What is accepted is rendered
 * with our own templates, and none of it leaves its place: the configuration has the form of one whose
 * values are harmless, and what has to be compared by nginx stands there as it was said.
 *
 * With FUZZ_RENDERED=FOLDER in the environment, what is rendered is written there, one number for each
 * input, for nginx to judge. Folders in it are those of the variable.
 */
#include "domain/config_internal.h"
#include "domain/nginx_conf.h"
#include "domain/upstreams.h"

#include "base/secret.h"
#include "support/fuzz.h"
#include "support/nginx_words.h"

#include <ctype.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEMPLATE_MAX_BYTES = 64 * 1024, PATH_SIZE = 512 };

#define SECRET_FILE "/run/ekm.secret"
#define TEMPLATES TEST_FOLDER "/../nginx_conf/"

static char *const no_environment[] = {NULL};

/* ---- the input as a file ---- */

static bool is_bare(const char *value)
{
    return (value[0] != '\0' && value[strspn(value, "0123456789")] == '\0' &&
            strlen(value) < 12) ||
           strcmp(value, "true") == 0 || strcmp(value, "false") == 0;
}

static json_t *value_of(const char *value)
{
    if (!is_bare(value))
        return json_string(value);
    return isdigit((unsigned char)value[0]) ? json_integer(strtoll(value, NULL, 10))
                                            : json_boolean(value[0] == 't');
}

/* The settings of this name, made when it is not there. */
static json_t *child(json_t *parent, const char *name, json_t *fresh)
{
    json_t *found = json_object_get(parent, name);

    if (found != NULL) {
        json_decref(fresh);
        return found;
    }
    json_object_set_new(parent, name, fresh);
    return json_object_get(parent, name);
}

static bool is_of_route(const char *key)
{
    for (size_t i = 0; i < CONFIG_ROUTE_SETTING_COUNT; i++) {
        if (strcmp(config_route_settings[i].key, key) == 0)
            return true;
    }
    return false;
}

static void add_to_route(json_t *root, const char *key, const char *value)
{
    json_t *routes = child(root, "routes", json_array());

    if (strcmp(key, "path") == 0 || json_array_size(routes) == 0)
        json_array_append_new(routes, json_object());
    json_object_set_new(json_array_get(routes, json_array_size(routes) - 1), key,
                        value_of(value));
}

static void add_line(json_t *root, char *line)
{
    char *value = strchr(line, '=');
    char *name = strchr(line, '.');
    size_t setting;

    if (value == NULL)
        return;
    *value++ = '\0';
    if (is_of_route(line)) {
        add_to_route(root, line, value);
        return;
    }
    /* Fragments are nginx's own language: see the target "templates". */
    if (!config_find_key(line, &setting) ||
        config_settings[setting].type == CONFIG_FRAGMENT)
        return;
    if (name != NULL && name < value) {
        *name++ = '\0';
        root = child(root, line, json_object());
    } else {
        name = line;
    }
    if (config_is_list(&config_settings[setting]))
        json_array_append_new(child(root, name, json_array()), value_of(value));
    else
        json_object_set_new(root, name, value_of(value));
}

/* JSON is YAML. Caller: json's own free. */
static char *yaml_of(char *text)
{
    json_t *root = json_pack("{s:s}", "domain", "app.example.org");
    char *yaml;

    for (char *line; (line = fuzz_next_line(&text)) != NULL;)
        add_line(root, line);
    yaml = json_dumps(root, JSON_COMPACT);
    json_decref(root);
    return yaml;
}

/* ---- rendering ---- */

struct rendered {
    struct buf site;
    struct buf include;
};

static char *read_template(const char *name)
{
    char path[PATH_SIZE];
    char *text = calloc(1, TEMPLATE_MAX_BYTES);
    FILE *file;

    snprintf(path, sizeof path, TEMPLATES "%s", name);
    file = fopen(path, "re");
    FUZZ_REQUIRE_TEXT(file != NULL && text != NULL, path);
    FUZZ_REQUIRE(fread(text, 1, TEMPLATE_MAX_BYTES - 1, file) > 0);
    fclose(file);
    return text;
}

static const struct nginx_templates *templates_of(const struct config *config)
{
    static struct nginx_templates templates[2];
    struct nginx_templates *wanted = &templates[config->development];

    if (wanted->base == NULL)
        *wanted = (struct nginx_templates){
            .base = read_template("base.conf.tmpl"),
            .https = read_template(nginx_conf_https_template(config))};
    return wanted;
}

/* Every backend has an address, so that it does not matter whether its name was one. */
static void give_addresses(struct upstreams *upstreams)
{
    static const upstream_address address[] = {"127.0.0.9"};

    for (size_t i = 0; i < upstreams->count; i++)
        (void)upstream_update(&upstreams->items[i], address, 1);
}

static bool render(const struct config *config, enum nginx_level level,
                   const char *secret_file, struct rendered *ret)
{
    struct upstreams upstreams;
    struct nginx_facts facts = {.ipv6 = true,
                                .version = 1022001,
                                .nameservers = "127.0.0.53 [::1]",
                                .upstreams = &upstreams};
    struct err err = ERR_INIT;
    bool good = upstreams_init(&upstreams, config, &err) == 0;

    buf_init(&ret->site, NGINX_CONF_MAX_BYTES);
    buf_init(&ret->include, NGINX_CONF_MAX_BYTES);
    if (good) {
        give_addresses(&upstreams);
        good = nginx_conf_render(config, &facts, level, templates_of(config), &ret->site,
                                 &err) == 0 &&
               nginx_conf_render_include(secret_file, &facts, &ret->include, &err) == 0;
        upstreams_done(&upstreams);
    }
    if (!good)
        fuzz_require_refusal(&err);
    return good;
}

static void rendered_done(struct rendered *rendered)
{
    buf_done(&rendered->site);
    buf_done(&rendered->include);
}

/* ---- the same with harmless values ---- */

static void replace(char **field, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* What is not set stays so. */
static void replace(char **field, const char *format, ...)
{
    va_list args;
    int len;

    if (*field == NULL)
        return;
    free(*field);
    va_start(args, format);
    len = vasprintf(field, format, args);
    va_end(args);
    FUZZ_REQUIRE(len > 0);
}

static void replace_folders(struct config *config, const char *folder)
{
    replace(&config->nginx.webroot, "%s/webroot", folder);
    replace(&config->tls.dir, "%s/tls", folder);
    replace(&config->run_dir, "%s/run", folder);
}

static void replace_values(struct config *config, const struct upstreams *upstreams)
{
    bool is_ipv6 =
        config->nginx.address != NULL && strchr(config->nginx.address, ':') != NULL;

    replace_folders(config, "/var/lib/app");
    replace(&config->domain, "app.example.test");
    for (size_t i = 0; i < config->domains.count; i++)
        replace(&config->domains.items[i], "n%zu.example.test", i);
    for (size_t i = 0; i < config->cors_origins.count; i++)
        replace(&config->cors_origins.items[i], "origin%zu", i);
    for (size_t i = 0; i < config->nginx.trusted_proxies.count; i++)
        replace(&config->nginx.trusted_proxies.items[i], "10.0.0.%zu", i % 256);
    replace(&config->nginx.address, is_ipv6 ? "::1" : "127.0.0.1");
    replace(&config->nginx.max_body_size, "20m");
    replace(&config->upstream.host, "app");
    replace(&config->auth.upstream, "auth:80");
    replace(&config->attestation.upstream, "attestation:80");
    for (size_t i = 0; i < config->routes.count; i++) {
        struct config_route *route = &config->routes.items[i];

        /* Those of one group still are of one. */
        replace(&route->upstream, "%s:80",
                upstreams_group_of(upstreams, route->upstream));
        replace(&route->path, "/p%zu/", i);
    }
}

static void replace_all(struct config *config)
{
    struct upstreams upstreams;
    struct err err = ERR_INIT;

    FUZZ_REQUIRE(upstreams_init(&upstreams, config, &err) == 0);
    replace_values(config, &upstreams);
    upstreams_done(&upstreams);
}

/* ---- what must hold ---- */

static struct nginx_words words_of(const struct buf *text)
{
    struct nginx_words words;

    FUZZ_REQUIRE_TEXT(nginx_words_read(&words, buf_str(text)), buf_str(text));
    return words;
}

static void require_words(const struct config *config, enum nginx_level level,
                          const struct nginx_words *words)
{
    char path[PATH_SIZE * 4];

    FUZZ_REQUIRE(nginx_words_have(words, "root", config->nginx.webroot, 1));
    for (size_t i = 0; level == NGINX_HTTPS && i < config->cors_origins.count; i++)
        FUZZ_REQUIRE_TEXT(nginx_words_have(words, "if", config->cors_origins.items[i], 0),
                          config->cors_origins.items[i]);
    for (size_t i = 0; level == NGINX_HTTPS && i < config->routes.count; i++)
        FUZZ_REQUIRE_TEXT(nginx_words_have(words, "location",
                                           config->routes.items[i].path,
                                           config->routes.items[i].exact ? 2 : 1),
                          config->routes.items[i].path);
    if (level == NGINX_HTTP_ONLY)
        return;
    snprintf(path, sizeof path, "%s/cert.pem", config->tls.dir);
    FUZZ_REQUIRE(nginx_words_have(words, "ssl_certificate", path, 1));
}

static void require_same_form(const struct buf *text, const struct buf *harmless)
{
    struct nginx_words words = words_of(text);
    struct nginx_words others = words_of(harmless);

    FUZZ_REQUIRE_TEXT(nginx_words_same_form(&words, &others), buf_str(text));
    nginx_words_done(&words);
    nginx_words_done(&others);
}

static void check_level(const struct config *config, const struct config *harmless,
                        enum nginx_level level)
{
    struct rendered rendered;
    struct rendered other;

    if (render(config, level, SECRET_FILE, &rendered)) {
        struct nginx_words words = words_of(&rendered.site);

        FUZZ_REQUIRE(render(harmless, level, SECRET_FILE, &other));
        require_same_form(&rendered.site, &other.site);
        require_same_form(&rendered.include, &other.include);
        require_words(config, level, &words);
        nginx_words_done(&words);
        rendered_done(&other);
    }
    rendered_done(&rendered);
}

static void write_file(const char *folder, unsigned number, const char *suffix,
                       const struct buf *text)
{
    char path[PATH_SIZE];
    FILE *file;

    snprintf(path, sizeof path, "%s/%u.%s", folder, number, suffix);
    file = fopen(path, "we");
    FUZZ_REQUIRE_TEXT(file != NULL, path);
    fwrite(buf_str(text), 1, text->len, file);
    fclose(file);
}

static void keep_for_nginx(struct config *config, const char *folder)
{
    static unsigned count;
    char secret_file[PATH_SIZE];
    struct rendered rendered;

    replace_folders(config, folder);
    snprintf(secret_file, sizeof secret_file, "%s/run/ekm.secret", folder);
    if (render(config, NGINX_HTTPS, secret_file, &rendered)) {
        write_file(folder, ++count, "site", &rendered.site);
        write_file(folder, count, "include", &rendered.include);
    }
    rendered_done(&rendered);
}

/* What is said of those that are refused is for the target "config". */
static bool load(struct config *ret, const struct config_sources *sources)
{
    struct config_report report;
    bool good = config_load(ret, &report, sources) == 0;

    config_report_done(&report);
    if (!good)
        config_done(ret);
    return good;
}

void fuzz_one(const unsigned char *bytes, size_t len)
{
    const char *folder = getenv("FUZZ_RENDERED");
    char *text = fuzz_text(bytes, len);
    char *yaml = yaml_of(text);
    struct config_sources sources = {.yaml_name = "config.yaml",
                                     .yaml = yaml,
                                     .yaml_len = yaml == NULL ? 0 : strlen(yaml),
                                     .environment = no_environment};
    struct config config;
    struct config harmless;

    if (yaml != NULL && load(&config, &sources)) {
        FUZZ_REQUIRE(load(&harmless, &sources));
        replace_all(&harmless);
        for (int level = NGINX_HTTP_ONLY; level <= NGINX_HTTPS; level++)
            check_level(&config, &harmless, (enum nginx_level)level);
        if (folder != NULL)
            keep_for_nginx(&config, folder);
        config_done(&harmless);
        config_done(&config);
        fuzz_note_accepted();
    }
    wipe_free(yaml);
    free(text);
}
