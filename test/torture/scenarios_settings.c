/* Settings and what is made of them. */
#include "scenario.h"

#include "domain/config.h"
#include "domain/config_show.h"
#include "domain/nginx_conf.h"
#include "domain/upstreams.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILE_TEXT                                                                        \
    "domain: app.example.test\n"                                                         \
    "domains: [www.example.test, api.example.test]\n"                                    \
    "acme:\n"                                                                            \
    "  email: somebody@example.test\n"                                                   \
    "  directory: https://ca.example/dir\n"                                              \
    "  profile: tlsserver\n"                                                             \
    "  peers: ['10.0.0.1:443', '10.0.0.2:443']\n"                                        \
    "  limit_failures: 5/1h\n"                                                           \
    "  fallback:\n"                                                                      \
    "    - directory: https://other.example/dir\n"                                       \
    "      eab_key_id: kid-1\n"                                                          \
    "      eab_key_file: /run/secrets/eab\n"                                             \
    "nginx:\n"                                                                           \
    "  max_body_size: 20MB\n"                                                            \
    "  trusted_proxies: [10.0.0.0/8]\n"                                                  \
    "  proxy_protocol: true\n"                                                           \
    "  extra_locations: |\n"                                                             \
    "    location /x { return 204; }\n"                                                  \
    "cors: {origins: ['^https://a\\.example$']}\n"                                       \
    "hooks: {on_applied: [/bin/true, 'an argument']}\n"                                  \
    "routes:\n"                                                                          \
    "  - {path: /v1/, upstream: 'vllm:8000', auth: true, cors: true, timeout: 10m}\n"    \
    "  - {path: /ws, match: exact, upstream: '10.0.0.9:80', websocket: true}\n"

static char level[] = "LOG_LEVEL=debug", upstream[] = "UPSTREAM_HOST=app",
            secret[] = "EKM_SHARED_SECRET=not so secret",
            origins[] = "CORS_ORIGINS=[\"^x$\"]", development[] = "DEV_MODE=true",
            proxy[] = "https_proxy=http://10.0.0.7:3128";

struct loaded {
    struct config config;
    struct config_report report;
};

static int load(struct loaded *loaded, const char *text, char *const *environment,
                struct err *err)
{
    static const char *const flags[] = {"log.format=json", "acme.retry_min=5s", NULL};
    const struct config_sources sources = {.yaml_name = "config.yaml",
                                           .yaml = text,
                                           .yaml_len = strlen(text),
                                           .environment = environment,
                                           .flags = flags};
    int result = config_load(&loaded->config, &loaded->report, &sources);

    if (result < 0 && loaded->report.error_count > 0)
        err_set(err, ERR_CONFIG, "%s", loaded->report.errors[0]);
    return result;
}

static void unload(struct loaded *loaded)
{
    config_done(&loaded->config);
    config_report_done(&loaded->report);
}

static void add_report(struct scene *scene, const struct config_report *report)
{
    for (size_t i = 0; i < report->warning_count; i++)
        scene_add(scene, report->warnings[i]);
    for (size_t i = 0; i < report->error_count; i++)
        scene_add(scene, report->errors[i]);
}

static int load_settings(struct scene *scene)
{
    char *const environment[] = {level, upstream, origins, proxy, NULL};
    struct loaded loaded;
    BUF_SCOPED shown;
    int result = load(&loaded, FILE_TEXT, environment, &scene->err);

    buf_init(&shown, CONFIG_SHOW_MAX_BYTES);
    if (result == 0) {
        add_report(scene, &loaded.report);
        result = config_show_yaml(&loaded.config, false, &shown, &scene->err);
        scene_add(scene, buf_str(&shown));
    }
    unload(&loaded);
    return result;
}

static int load_development(struct scene *scene)
{
    char *const environment[] = {development, secret, NULL};
    struct loaded loaded;
    int result = load(&loaded, "domain: app.example.test\n", environment, &scene->err);

    if (result == 0)
        scene_add(scene, (const char *)loaded.config.ekm_secret->bytes);
    unload(&loaded);
    return result;
}

/* Each error is told: one of them must not be taken for all. */
static int load_bad_settings(struct scene *scene)
{
    char *const environment[] = {level, NULL};
    struct loaded loaded;
    int result =
        load(&loaded, "domian: x\nacme: {staging: maybe}\nnginx: {http_port: 99999}\n",
             environment, &scene->err);

    unload(&loaded);
    return result;
}

static int show_json(struct scene *scene)
{
    char *const environment[] = {level, NULL};
    struct loaded loaded;
    json_t *shown = NULL;
    char *text = NULL;
    int result = load(&loaded, FILE_TEXT, environment, &scene->err);

    if (result == 0) {
        shown = config_show_json(&loaded.config, false);
        text = shown == NULL ? NULL : json_dumps(shown, JSON_SORT_KEYS);
        if (text == NULL)
            result = err_sys(&scene->err, 12, "the settings cannot be shown");
        scene_add(scene, text);
    }
    wipe_free(text);
    json_decref(shown);
    unload(&loaded);
    return result;
}

/* ---- nginx's configuration ---- */

static void load_for_nginx(struct scene *scene)
{
    char *const environment[] = {level, upstream, NULL};
    struct loaded *loaded = calloc(1, sizeof *loaded);

    if (load(loaded, FILE_TEXT, environment, &scene->err) < 0)
        fprintf(stderr, "%s\n", scene->err.message);
    scene->own = loaded;
}

static void free_loaded(struct scene *scene)
{
    unload(scene->own);
    free(scene->own);
}

static int render(struct scene *scene)
{
    static const struct nginx_templates templates = {
        .base = "${EXTRA_UPSTREAMS}server { listen 80; server_name ${DOMAIN}; }\n",
        .https =
            "server { ${CORS_BLOCK} ${AUTH_LOCATION} ${EXTRA_LOCATIONS} "
            "${CLIENT_MAX_BODY_SIZE} ${CORS_HEADERS} }\n"};
    const struct loaded *loaded = scene->own;
    struct nginx_facts facts = {.ipv6 = true,
                                .version = 1022001,
                                .nameservers = "10.0.0.1",
                                .live_chain = "/run/live.pem"};
    struct upstreams upstreams = {0};
    BUF_SCOPED text;
    int result;

    buf_init(&text, NGINX_CONF_MAX_BYTES);
    result = upstreams_init(&upstreams, &loaded->config, &scene->err);
    facts.upstreams = &upstreams;
    if (result == 0)
        result = nginx_conf_render(&loaded->config, &facts, NGINX_HTTPS, &templates,
                                   &text, &scene->err);
    if (result == 0)
        result = nginx_conf_render_include("/run/ekm.secret", &facts, &text, &scene->err);
    if (result == 0)
        scene_add(scene, buf_str(&text));
    upstreams_done(&upstreams);
    return result;
}

const struct scenario scenarios_of_settings[] = {
    {"settings are read and shown", NULL, load_settings, NULL, NULL, false},
    {"settings of development are read", NULL, load_development, NULL, NULL, false},
    {"bad settings are refused", NULL, load_bad_settings, NULL, NULL, true},
    {"settings are shown as JSON", NULL, show_json, NULL, NULL, false},
    {"nginx's configuration is made", load_for_nginx, render, NULL, free_loaded, false},
    {0},
};
