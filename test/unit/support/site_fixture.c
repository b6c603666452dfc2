#include "support/site_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

char *site_text(const char *literal)
{
    union {
        const char *in;
        char *out;
    } writable = {.in = literal};

    return writable.out;
}

void site_fixture_init(struct site_fixture *f)
{
    *f = (struct site_fixture){.facts = {.ipv6 = true, .version = 1022001}};
    f->config.domain = site_text("vllm.example.test");
    f->config.domains.items = f->names;
    site_add_name(f, f->config.domain);
    f->config.tls.dir = site_text("/etc/nginx/ssl");
    f->config.nginx.webroot = site_text("/acme-challenge");
    f->config.nginx.http_port = 80;
    f->config.nginx.https_port = 443;
    f->config.nginx.extra_upstreams = site_text("");
    f->config.nginx.extra_locations = site_text("");
    f->config.upstream.port = 8000;
    f->config.auth.enabled = true;
    f->config.auth.upstream = site_text("auth-service:8081");
    f->config.attestation.upstream = site_text("attestation-service:8080");
    f->config.cors_origins.items = f->origins;
    f->config.nginx.trusted_proxies.items = f->networks;
    f->config.routes.items = f->routes;
}

void site_add_name(struct site_fixture *f, const char *name)
{
    assert_true(f->config.domains.count < SITE_NAMES_MAX);
    f->names[f->config.domains.count++] = site_text(name);
}

void site_add_origin(struct site_fixture *f, const char *regex)
{
    assert_true(f->config.cors_origins.count < SITE_ORIGINS_MAX);
    f->origins[f->config.cors_origins.count++] = site_text(regex);
}

void site_add_network(struct site_fixture *f, const char *network)
{
    assert_true(f->config.nginx.trusted_proxies.count < SITE_NETWORKS_MAX);
    f->networks[f->config.nginx.trusted_proxies.count++] = site_text(network);
}

struct config_route *site_add_route(struct site_fixture *f, const char *path,
                                    const char *upstream)
{
    struct config_route *route = &f->routes[f->config.routes.count++];

    assert_true(f->config.routes.count <= SITE_ROUTES_MAX);
    *route = (struct config_route){
        .path = site_text(path),
        .upstream = site_text(upstream),
        .cors = true,
        .websocket = true,
        .timeout_ms = 3600 * 1000,
    };
    return route;
}

int site_render(const struct site_fixture *f, enum nginx_level level, const char *base,
                const char *https, struct buf *ret, struct err *err)
{
    const struct nginx_templates templates = {.base = base, .https = https};
    struct nginx_facts facts = f->facts;
    struct upstreams upstreams;
    int result;

    buf_init(ret, NGINX_CONF_MAX_BYTES);
    if (upstreams_init(&upstreams, &f->config, err) < 0)
        return -1;
    facts.upstreams = &upstreams;
    result = nginx_conf_render(&f->config, &facts, level, &templates, ret, err);
    upstreams_done(&upstreams);
    return result;
}

static void must_render(const struct site_fixture *f, enum nginx_level level,
                        const char *https, struct buf *ret)
{
    struct err err = ERR_INIT;

    if (site_render(f, level, "", https, ret, &err) < 0)
        fail_msg("%s", err.message);
}

void site_expect_at(const struct site_fixture *f, enum nginx_level level,
                    const char *https, const char *expected)
{
    BUF_SCOPED ret;

    must_render(f, level, https, &ret);
    assert_string_equal(buf_str(&ret), expected);
}

void site_expect(const struct site_fixture *f, const char *https, const char *expected)
{
    site_expect_at(f, NGINX_HTTPS, https, expected);
}

void site_expect_part(const struct site_fixture *f, const char *https, const char *part)
{
    BUF_SCOPED ret;

    must_render(f, NGINX_HTTPS, https, &ret);
    if (strstr(buf_str(&ret), part) == NULL)
        fail_msg("\"%s\" is not in\n%s", part, buf_str(&ret));
}

void site_expect_no_part(const struct site_fixture *f, const char *https,
                         const char *part)
{
    BUF_SCOPED ret;

    must_render(f, NGINX_HTTPS, https, &ret);
    if (strstr(buf_str(&ret), part) != NULL)
        fail_msg("\"%s\" is in\n%s", part, buf_str(&ret));
}

void site_expect_refused(const struct site_fixture *f, const char *named)
{
    struct err err = ERR_INIT;
    BUF_SCOPED ret;

    assert_int_equal(site_render(f, NGINX_HTTPS, "", "", &ret, &err), -1);
    assert_int_equal(err.kind, ERR_CONFIG);
    assert_ptr_equal(strstr(err.message, "nginx configuration: "), err.message);
    if (strstr(err.message, named) == NULL)
        fail_msg("\"%s\" is not in \"%s\"", named, err.message);
    assert_int_equal(ret.len, 0);
}
