/*
 * nginx_conf_app: the part of the configuration that is the application's: CORS, authentication,
 * backends and who answers which path.
 *
 * A value of several lines is indented for the place where our templates have it; its first line
 * has the indentation of the placeholder.
 */
#include "domain/nginx_conf_internal.h"

#include "base/text.h"
#include "domain/template.h"

#include <string.h>

/* A word that does not fit 4096 bytes is refused by nginx. */
enum { REGEX_MAX_BYTES = 1024, CATCH_ALL_TIMEOUT_MS = 3600 * 1000, HSTS_MAX_BYTES = 256 };

/* ---- CORS ---- */

/*
 * Always sets $cors_origin: fragments may name it. The regular expression cannot leave
 * its quotes; dollar signs and braces mean nothing to nginx there, because the operand of
 * `~` is not searched for variables.
 */
int nginx_write_cors_block(const struct site *site, struct buf *ret, struct err *err)
{
    const struct config_list *origins = &site->config->cors_origins;

    if (buf_append_str(ret, "set $cors_origin \"\";", err) < 0)
        return -1;
    for (size_t i = 0; i < origins->count; i++) {
        const char *regex = origins->items[i];

        if (*regex == '\0' || strlen(regex) > REGEX_MAX_BYTES || nginx_has_control(regex))
            return err_set(
                err, ERR_CONFIG,
                "cors.origins (CORS_ORIGINS): entry %zu is not usable, expected a "
                "regular expression of 1 to %d bytes without control characters",
                i + 1, REGEX_MAX_BYTES);
        if (buf_append_str(ret, "\n    if ($http_origin ~ \"", err) < 0 ||
            nginx_append_quoted(ret, regex, err) < 0 ||
            buf_append_str(ret,
                           "\") {\n"
                           "        set $cors_origin $http_origin;\n"
                           "    }",
                           err) < 0)
            return -1;
    }
    return 0;
}

/*
 * nginx leaves out a header whose value is empty. An upstream's own Allow-Origin is
 * dropped: two of them make browsers refuse the answer, and the configured origins
 * decide.
 */
int nginx_write_cors_headers(const struct site *site, struct buf *ret, struct err *err)
{
    static const char methods[] = "'GET, POST, OPTIONS'";
    static const char headers[] =
        "'DNT,User-Agent,X-Requested-With,If-Modified-Since,"
        "Cache-Control,Content-Type,Range'";

    BUF_SCOPED hsts = {.max = HSTS_MAX_BYTES};

    if (site->config->cors_origins.count == 0)
        return 0;
    /* It is not inherited by a location with add_header of its own. */
    if (nginx_write_hsts(site, &hsts, err) < 0)
        return -1;
    return buf_printf(
        ret, err,
        "if ($request_method = OPTIONS) {\n"
        "            add_header Vary Origin always;\n"
        "            add_header Access-Control-Allow-Origin $cors_origin always;\n"
        "            add_header Access-Control-Allow-Methods %s always;\n"
        "            add_header Access-Control-Allow-Headers %s always;\n"
        "            add_header Access-Control-Max-Age 1728000 always;%s%s\n"
        "            return 204;\n"
        "        }\n"
        "        proxy_hide_header Access-Control-Allow-Origin;\n"
        "        add_header Vary Origin always;\n"
        "        add_header Access-Control-Allow-Origin $cors_origin always;\n"
        "        add_header Access-Control-Allow-Methods %s always;\n"
        "        add_header Access-Control-Allow-Headers %s always;\n"
        "        add_header Access-Control-Expose-Headers 'Content-Length,Content-Range' "
        "always;%s%s",
        methods, headers, hsts.len > 0 ? "\n            " : "", buf_str(&hsts), methods,
        headers, hsts.len > 0 ? "\n        " : "", buf_str(&hsts));
}

/* ---- authentication ---- */

int nginx_write_auth_location(const struct site *site, struct buf *ret, struct err *err)
{
    if (!site->config->auth.enabled)
        return buf_append_str(ret,
                              "location = /_auth {\n"
                              "        internal;\n"
                              "        return 403;\n"
                              "    }",
                              err);
    return buf_printf(ret, err,
                      "location = /_auth {\n"
                      "        internal;\n"
                      "        proxy_pass http://" UPSTREAM_AUTH
                      "/auth;\n"
                      "        proxy_http_version 1.1;\n"
                      "        proxy_pass_request_body off;\n"
                      "        proxy_set_header Content-Length \"\";\n"
                      "        proxy_set_header Connection \"\";\n"
                      "        proxy_set_header Host %s;\n"
                      "        proxy_set_header X-Original-URI $request_uri;\n"
                      "        proxy_set_header X-TLS-EKM-Channel-Binding \"\";\n"
                      "    }",
                      site->config->auth.upstream);
}

/* ---- backends ---- */

bool nginx_is_service(const struct upstream *upstream)
{
    return strcmp(upstream->name, UPSTREAM_AUTH) == 0 ||
           strcmp(upstream->name, UPSTREAM_ATTESTATION) == 0;
}

/*
 * Only the full configuration has any: the others must not depend on what the application needs.
 * The services of the include are everywhere, whatever template is mounted.
 */
int nginx_write_extra_upstreams(const struct site *site, struct buf *ret, struct err *err)
{
    const struct upstreams *upstreams = site->facts->upstreams;
    const char *fragment = site->config->nginx.extra_upstreams;
    bool first = *fragment == '\0';

    if (site->level != NGINX_HTTPS)
        return 0;
    if (buf_append_str(ret, fragment, err) < 0)
        return -1;
    for (size_t i = 0; i < upstreams->count; i++) {
        if (nginx_is_service(&upstreams->items[i]))
            continue;
        if (buf_append_str(ret, first ? "" : "\n\n", err) < 0 ||
            upstream_render(&upstreams->items[i], ret, err) < 0)
            return -1;
        first = false;
    }
    return 0;
}

/* ---- paths ---- */

/* The path cannot leave its quotes, and nginx knows no variables there. */
static int write_location(const struct site *site, const struct config_route *route,
                          const char *group, struct buf *ret, struct err *err)
{
    if (*route->path != '/' || nginx_has_control(route->path))
        return err_set(err, ERR_CONFIG, "routes: \"%.100s\" is not a path", route->path);
    if (buf_printf(ret, err, "location %s\"", route->exact ? "= " : "") < 0 ||
        nginx_append_quoted(ret, route->path, err) < 0 ||
        buf_append_str(ret, "\" {\n        ", err) < 0)
        return -1;
    if (route->cors && site->config->cors_origins.count > 0 &&
        (nginx_write_cors_headers(site, ret, err) < 0 ||
         buf_append_str(ret, "\n        ", err) < 0))
        return -1;
    if (route->auth && buf_append_str(ret, "auth_request /_auth;\n        ", err) < 0)
        return -1;
    if (route->websocket &&
        buf_append_str(ret, "proxy_set_header Upgrade $cm_upgrade;\n        ", err) < 0)
        return -1;
    return buf_printf(
        ret, err,
        "proxy_set_header Connection %s;\n"
        "        proxy_set_header Host $host;\n"
        "        proxy_set_header X-Real-IP $remote_addr;\n"
        "        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n"
        "        proxy_set_header X-Forwarded-Proto $scheme;\n"
        "        proxy_set_header X-TLS-EKM-Channel-Binding %s;\n"
        "        proxy_pass http://%s;\n"
        "        proxy_http_version 1.1;\n"
        "        proxy_buffering %s;\n"
        "        proxy_read_timeout %ums;\n"
        "        proxy_send_timeout %ums;\n"
        "    }",
        route->websocket ? "$cm_connection" : "\"\"",
        route->ekm ? "$ekm_channel_binding" : "\"\"", group,
        route->buffering ? "on" : "off", route->timeout_ms, route->timeout_ms);
}

/* UPSTREAM_HOST: what a route of path "/" with nothing but defaults is. */
static int write_catch_all(const struct site *site, struct buf *ret, struct err *err)
{
    char path[] = "/";
    const struct config_route route = {
        .path = path,
        .cors = true,
        .websocket = true,
        .timeout_ms = CATCH_ALL_TIMEOUT_MS,
    };

    return write_location(site, &route, UPSTREAM_APP, ret, err);
}

/* For whoever verifies offline; at every level with HTTPS. */
static int write_evidence(const struct site *site, struct buf *ret, struct err *err)
{
    const char *folder = site->facts->evidence;
    BUF_SCOPED hsts = {.max = HSTS_MAX_BYTES};

    if (folder == NULL)
        return 0;
    if (nginx_write_hsts(site, &hsts, err) < 0 ||
        buf_append_str(ret, "location ^~ /evidences/ {\n        alias \"", err) < 0 ||
        nginx_append_quoted(ret, folder, err) < 0)
        return -1;
    return buf_printf(ret, err,
                      "/\";\n"
                      "        types { application/json json; }\n"
                      "        default_type text/plain;\n"
                      "        add_header X-Content-Type-Options nosniff always;\n"
                      "        add_header Cache-Control no-cache always;\n"
                      "%s%s%s"
                      "    }\n\n    ",
                      hsts.len == 0 ? "" : "        ", buf_str(&hsts),
                      hsts.len == 0 ? "" : "\n");
}

/*
 * Our own metrics, at every level with HTTPS: one that is reduced is when they are needed. The client
 * is asked for what a route with `auth` asks it for, and nothing of its request reaches the daemon.
 */
static int write_metrics(const struct site *site, struct buf *ret, struct err *err)
{
    if (site->facts->metrics_socket[0] == '\0')
        return 0;
    return buf_append_str(ret,
                          "location = /cert-manager/metrics {\n"
                          "        if ($request_method !~ \"^(GET|HEAD)\\z\") {\n"
                          "            return 405;\n"
                          "        }\n"
                          "        auth_request /_auth;\n"
                          "        rewrite ^ /metrics? break;\n"
                          "        proxy_pass http://" UPSTREAM_METRICS
                          ";\n"
                          "        proxy_http_version 1.1;\n"
                          "        proxy_pass_request_headers off;\n"
                          "        proxy_pass_request_body off;\n"
                          "        proxy_set_header Content-Length \"\";\n"
                          "        proxy_set_header Connection \"\";\n"
                          "        proxy_set_header Host localhost;\n"
                          "        proxy_connect_timeout 5s;\n"
                          "        proxy_read_timeout 10s;\n"
                          "    }\n\n    ",
                          err);
}

/* Every path of the application, when its configuration is one that nginx refuses. */
static int write_unavailable(const struct site *site, struct buf *ret, struct err *err)
{
    BUF_SCOPED headers = {.max = NGINX_CONF_MAX_BYTES};
    bool cors = site->config->cors_origins.count > 0;

    /* Those of CORS hold HSTS, too. */
    if ((cors ? nginx_write_cors_headers(site, &headers, err)
              : nginx_write_hsts(site, &headers, err)) < 0)
        return -1;
    return buf_printf(ret, err,
                      "location / {\n"
                      "        %s%stypes { }\n"
                      "        default_type text/plain;\n"
                      "        add_header X-Content-Type-Options nosniff always;\n"
                      "        add_header Retry-After %d always;\n"
                      "        return 503 \"The service behind this address is not "
                      "available: its part of the configuration cannot be used. The "
                      "operator finds the reason in the log of cert-manager.\\n\";\n"
                      "    }",
                      buf_str(&headers), headers.len > 0 ? "\n        " : "",
                      NGINX_RETRY_AFTER_SECONDS);
}

static int write_fragment(const struct site *site, struct buf *ret, struct err *err)
{
    BUF_SCOPED cors = {.max = NGINX_CONF_MAX_BYTES};
    struct template_value value = {.name = "CORS_HEADERS"};

    if (nginx_write_cors_headers(site, &cors, err) < 0)
        return -1;
    value.value = buf_str(&cors);
    return template_render(site->config->nginx.extra_locations, &value, 1, ret, err);
}

int nginx_write_extra_locations(const struct site *site, struct buf *ret, struct err *err)
{
    const struct config_routes *routes = &site->config->routes;
    bool first = *site->config->nginx.extra_locations == '\0';

    if (site->level == NGINX_HTTP_ONLY)
        return 0;
    if (write_evidence(site, ret, err) < 0 || write_metrics(site, ret, err) < 0)
        return -1;
    if (site->level == NGINX_HTTPS_REDUCED)
        return write_unavailable(site, ret, err);
    if (write_fragment(site, ret, err) < 0)
        return -1;
    for (size_t i = 0; i < routes->count; i++) {
        const struct config_route *route = &routes->items[i];
        const char *group = upstreams_group_of(site->facts->upstreams, route->upstream);

        if (buf_append_str(ret, first ? "" : "\n\n    ", err) < 0 ||
            write_location(site, route, group, ret, err) < 0)
            return -1;
        first = false;
    }
    if (site->config->upstream.host == NULL)
        return 0;
    if (buf_append_str(ret, first ? "" : "\n\n    ", err) < 0)
        return -1;
    return write_catch_all(site, ret, err);
}
