#include "domain/nginx_conf.h"

#include "support/site_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* ---- CORS and authentication ---- */

static void cors_block(void **state)
{
    struct site_fixture f;

    (void)state;
    site_fixture_init(&f);
    site_expect(&f, "${CORS_BLOCK}", "set $cors_origin \"\";");
    site_add_origin(&f, "^https?://([^.]+\\.)*vercel\\.app(:[0-9]{1,5})?$");
    site_expect(&f, "${CORS_BLOCK}",
                "set $cors_origin \"\";\n"
                "    if ($http_origin ~ "
                "\"^https?://([^.]+\\\\.)*vercel\\\\.app(:[0-9]{1,5})?$\") {\n"
                "        set $cors_origin $http_origin;\n"
                "    }");
    /* Every way out of the quotes: a quote, an escaped quote, a backslash at the end. */
    site_add_origin(&f, "\") { } evil \\\" ' ; # ${DOMAIN} \\");
    site_expect(
        &f, "${CORS_BLOCK}",
        "set $cors_origin \"\";\n"
        "    if ($http_origin ~ "
        "\"^https?://([^.]+\\\\.)*vercel\\\\.app(:[0-9]{1,5})?$\") {\n"
        "        set $cors_origin $http_origin;\n"
        "    }\n"
        "    if ($http_origin ~ \"\\\") { } evil \\\\\\\" ' ; # ${DOMAIN} \\\\\") {\n"
        "        set $cors_origin $http_origin;\n"
        "    }");
}

static void cors_refusals(void **state)
{
    struct site_fixture f;
    char longest[1024 + 2];

    (void)state;
    site_fixture_init(&f);
    site_add_origin(&f, "a\nb");
    site_expect_refused(&f, "CORS_ORIGINS");
    f.origins[0] = site_text("");
    site_expect_refused(&f, "entry 1");
    memset(longest, 'a', sizeof longest);
    longest[sizeof longest - 1] = '\0';
    f.origins[0] = longest;
    site_expect_refused(&f, "entry 1");
}

static void cors_headers(void **state)
{
    static const char *const lines[] = {
        "if ($request_method = OPTIONS) {",
        "return 204;",
        "add_header Vary Origin always;",
        "add_header Access-Control-Allow-Origin $cors_origin always;",
        "add_header Access-Control-Allow-Methods 'GET, POST, OPTIONS' always;",
        "add_header Access-Control-Max-Age 1728000 always;",
        "add_header Access-Control-Expose-Headers 'Content-Length,Content-Range' always;",
        ("add_header Access-Control-Allow-Headers 'DNT,User-Agent,X-Requested-With,"
         "If-Modified-Since,Cache-Control,Content-Type,Range' always;"),
    };
    struct site_fixture f;
    struct err err = ERR_INIT;
    BUF_SCOPED ret;
    BUF_SCOPED fragment;

    (void)state;
    site_fixture_init(&f);
    site_expect(&f, "[${CORS_HEADERS}]", "[]");
    f.config.nginx.extra_locations =
        site_text("location /a { ${CORS_HEADERS} ${OTHER} $host; }");
    site_expect(&f, "${EXTRA_LOCATIONS}", "location /a {  ${OTHER} $host; }");
    site_add_origin(&f, "x");
    assert_int_equal(site_render(&f, NGINX_HTTPS, "", "${CORS_HEADERS}", &ret, &err), 0);
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++)
        assert_non_null(strstr(buf_str(&ret), lines[i]));
    assert_int_equal(
        site_render(&f, NGINX_HTTPS, "", "${EXTRA_LOCATIONS}", &fragment, &err), 0);
    assert_non_null(strstr(buf_str(&fragment), buf_str(&ret)));
    assert_null(strstr(buf_str(&fragment), "CORS_HEADERS"));
}

static void auth_location(void **state)
{
    struct site_fixture f;
    struct err err = ERR_INIT;
    BUF_SCOPED ret;

    (void)state;
    site_fixture_init(&f);
    assert_int_equal(site_render(&f, NGINX_HTTPS, "", "${AUTH_LOCATION}", &ret, &err), 0);
    assert_non_null(strstr(buf_str(&ret), "internal;"));
    assert_non_null(strstr(buf_str(&ret), "proxy_pass http://cm_auth/auth;"));
    assert_non_null(strstr(buf_str(&ret), "proxy_set_header Host auth-service:8081;"));
    assert_non_null(strstr(buf_str(&ret), "proxy_pass_request_body off;"));
    assert_non_null(
        strstr(buf_str(&ret), "proxy_set_header X-Original-URI $request_uri;"));
    f.config.auth.enabled = false;
    f.config.auth.upstream = site_text("not used; }");
    site_expect(&f, "${AUTH_LOCATION}",
                "location = /_auth {\n"
                "        internal;\n"
                "        return 403;\n"
                "    }");
}

static void catch_all(void **state)
{
    struct site_fixture f;
    struct err err = ERR_INIT;
    BUF_SCOPED ret;

    (void)state;
    site_fixture_init(&f);
    site_expect(&f, "[${EXTRA_UPSTREAMS}${EXTRA_LOCATIONS}]", "[]");
    f.config.nginx.extra_upstreams = site_text("upstream x { server y; }");
    site_expect(&f, "${EXTRA_UPSTREAMS}", "upstream x { server y; }");
    f.config.upstream.host = site_text("vllm");
    site_expect(&f, "${EXTRA_UPSTREAMS}",
                "upstream x { server y; }\n\n"
                "upstream app_backend { # vllm, port 8000\n"
                "    server 127.0.0.1:8000 down; # the name does not resolve\n"
                "    keepalive 32;\n    keepalive_timeout 4s;\n}");
    f.config.nginx.extra_upstreams = site_text("");
    f.config.upstream.host = site_text("fd00::2");
    site_expect(
        &f, "${EXTRA_UPSTREAMS}",
        "upstream app_backend { # fd00::2, port 8000\n"
        "    server [fd00::2]:8000;\n    keepalive 32;\n    keepalive_timeout 4s;\n}");
    f.config.upstream.host = site_text("[fd00::2]");
    site_expect(
        &f, "${EXTRA_UPSTREAMS}",
        "upstream app_backend { # fd00::2, port 8000\n"
        "    server [fd00::2]:8000;\n    keepalive 32;\n    keepalive_timeout 4s;\n}");

    f.config.nginx.extra_locations = site_text("location /a { }");
    assert_int_equal(site_render(&f, NGINX_HTTPS, "", "${EXTRA_LOCATIONS}", &ret, &err),
                     0);
    assert_ptr_equal(strstr(buf_str(&ret), "location /a { }\n\n    location \"/\" {"),
                     buf_str(&ret));
    assert_non_null(strstr(buf_str(&ret), "proxy_pass http://app_backend;"));
    assert_non_null(strstr(buf_str(&ret), "Connection $cm_connection;"));
    assert_non_null(strstr(buf_str(&ret), "X-TLS-EKM-Channel-Binding \"\";"));
}

/* A name that does not resolve must not stop nginx from answering challenges. */
static void no_upstreams_without_https(void **state)
{
    struct site_fixture f;
    struct err err = ERR_INIT;
    BUF_SCOPED ret;

    (void)state;
    site_fixture_init(&f);
    f.config.nginx.extra_upstreams = site_text("upstream x { server missing; }");
    f.config.upstream.host = site_text("missing");
    assert_int_equal(
        site_render(&f, NGINX_HTTP_ONLY, "[${EXTRA_UPSTREAMS}]", NULL, &ret, &err), 0);
    assert_string_equal(buf_str(&ret), "[]");
}

/* ---- routes ---- */

static void a_route_is_a_location(void **state)
{
    struct site_fixture f;

    (void)state;
    site_fixture_init(&f);
    site_add_route(&f, "/v1/", "vllm:8000");
    site_expect(&f, "${EXTRA_LOCATIONS}",
                "location \"/v1/\" {\n"
                "        proxy_set_header Upgrade $cm_upgrade;\n"
                "        proxy_set_header Connection $cm_connection;\n"
                "        proxy_set_header Host $host;\n"
                "        proxy_set_header X-Real-IP $remote_addr;\n"
                "        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n"
                "        proxy_set_header X-Forwarded-Proto $scheme;\n"
                "        proxy_set_header X-TLS-EKM-Channel-Binding \"\";\n"
                "        proxy_pass http://cm_route_3;\n"
                "        proxy_http_version 1.1;\n"
                "        proxy_buffering off;\n"
                "        proxy_read_timeout 3600000ms;\n"
                "        proxy_send_timeout 3600000ms;\n"
                "    }");
    site_expect(&f, "${EXTRA_UPSTREAMS}",
                "upstream cm_route_3 { # vllm, port 8000\n"
                "    server 127.0.0.1:8000 down; # the name does not resolve\n"
                "    keepalive 32;\n"
                "    keepalive_timeout 4s;\n"
                "}");
}

static void every_setting_of_a_route_is_in_its_location(void **state)
{
    struct site_fixture f;
    struct config_route *route;

    (void)state;
    site_fixture_init(&f);
    route = site_add_route(&f, "/metrics", "10.0.0.2:9000");
    route->exact = true;
    route->auth = true;
    route->websocket = false;
    route->ekm = true;
    route->buffering = true;
    route->timeout_ms = 1500;
    site_expect(&f, "${EXTRA_LOCATIONS}",
                "location = \"/metrics\" {\n"
                "        auth_request /_auth;\n"
                "        proxy_set_header Connection \"\";\n"
                "        proxy_set_header Host $host;\n"
                "        proxy_set_header X-Real-IP $remote_addr;\n"
                "        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n"
                "        proxy_set_header X-Forwarded-Proto $scheme;\n"
                "        proxy_set_header X-TLS-EKM-Channel-Binding "
                "$ekm_channel_binding;\n"
                "        proxy_pass http://cm_route_3;\n"
                "        proxy_http_version 1.1;\n"
                "        proxy_buffering on;\n"
                "        proxy_read_timeout 1500ms;\n"
                "        proxy_send_timeout 1500ms;\n"
                "    }");
}

static void a_route_has_cors_where_there_are_origins(void **state)
{
    struct site_fixture f;
    struct config_route *route;

    (void)state;
    site_fixture_init(&f);
    route = site_add_route(&f, "/v1/", "vllm:8000");
    route->auth = true;
    site_expect_no_part(&f, "${EXTRA_LOCATIONS}", "Access-Control");
    site_add_origin(&f, "^https://app$");
    /* Before the question to the auth service, which has no answer for a preflight. */
    site_expect_part(&f, "${EXTRA_LOCATIONS}",
                     "location \"/v1/\" {\n"
                     "        if ($request_method = OPTIONS) {\n");
    site_expect_part(&f, "${EXTRA_LOCATIONS}",
                     "'Content-Length,Content-Range' always;\n"
                     "        auth_request /_auth;\n");
    route->cors = false;
    site_expect_no_part(&f, "${EXTRA_LOCATIONS}", "Access-Control");
    site_expect_part(&f, "${EXTRA_LOCATIONS}",
                     "location \"/v1/\" {\n        auth_request /_auth;\n");
}

static void fragments_routes_and_the_catch_all_stand_together(void **state)
{
    struct site_fixture f;

    (void)state;
    site_fixture_init(&f);
    f.config.nginx.extra_locations = site_text("location /a { ${CORS_HEADERS} }");
    f.config.nginx.extra_upstreams = site_text("upstream a { server b; }");
    f.config.upstream.host = site_text("10.0.0.1");
    site_add_route(&f, "/b", "10.0.0.2:80");
    site_add_route(&f, "/c", "10.0.0.3:80");
    site_add_route(&f, "/d", "10.0.0.2:80");
    site_expect_part(&f, "${EXTRA_LOCATIONS}",
                     "location /a {  }\n\n    location \"/b\" {");
    site_expect_part(&f, "${EXTRA_LOCATIONS}", "    }\n\n    location \"/c\" {");
    site_expect_part(&f, "${EXTRA_LOCATIONS}", "    }\n\n    location \"/d\" {");
    site_expect_part(&f, "${EXTRA_LOCATIONS}", "    }\n\n    location \"/\" {");
    /* Each group once, and those of the services are in the include. */
    site_expect(&f, "${EXTRA_UPSTREAMS}",
                "upstream a { server b; }\n\n"
                "upstream app_backend { # 10.0.0.1, port 8000\n"
                "    server 10.0.0.1:8000;\n"
                "    keepalive 32;\n    keepalive_timeout 4s;\n}\n\n"
                "upstream cm_route_4 { # 10.0.0.2, port 80\n"
                "    server 10.0.0.2:80;\n"
                "    keepalive 32;\n    keepalive_timeout 4s;\n}\n\n"
                "upstream cm_route_5 { # 10.0.0.3, port 80\n"
                "    server 10.0.0.3:80;\n"
                "    keepalive 32;\n    keepalive_timeout 4s;\n}");
}

/* A short fragment can ask for a very long text. */
static void a_fragment_does_not_grow_without_bound(void **state)
{
    static const char placeholder[] = "${CORS_HEADERS}";
    enum { TIMES = 2000, LEN = sizeof placeholder - 1 };
    char fragment[TIMES * LEN + 1];
    struct site_fixture f;

    (void)state;
    for (size_t i = 0; i < TIMES; i++)
        memcpy(fragment + i * LEN, placeholder, LEN);
    fragment[TIMES * LEN] = '\0';
    site_fixture_init(&f);
    f.config.nginx.extra_locations = fragment;
    site_expect(&f, "[${EXTRA_LOCATIONS}]", "[]");
    site_add_origin(&f, "^https://app$");
    site_expect_refused(&f, "${EXTRA_LOCATIONS}: more than 1048576 bytes");
}

/* What came past the settings cannot leave its quotes, either. */
static void paths_cannot_leave_their_quotes(void **state)
{
    static const char *const bad[] = {"", "v1", "@a", "= /a", "/a\n}", "/a\x7f", "/\x01"};
    struct site_fixture f;

    (void)state;
    site_fixture_init(&f);
    site_add_route(&f, "/a\" { } evil \\", "vllm:8000");
    site_expect_part(&f, "${EXTRA_LOCATIONS}", "location \"/a\\\" { } evil \\\\\" {\n");
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        f.routes[0].path = site_text(bad[i]);
        site_expect_refused(&f, "routes: \"");
    }
}

/* ---- levels ---- */

static void a_reduced_site_answers_503_for_the_application(void **state)
{
    struct site_fixture f;

    (void)state;
    site_fixture_init(&f);
    f.config.nginx.extra_upstreams = site_text("upstream x { no such directive; }");
    f.config.nginx.extra_locations = site_text("location /a { no such directive; }");
    f.config.upstream.host = site_text("app");
    site_add_route(&f, "/b", "10.0.0.2:80");
    site_expect_at(&f, NGINX_HTTPS_REDUCED, "[${EXTRA_UPSTREAMS}]", "[]");
    site_expect_at(
        &f, NGINX_HTTPS_REDUCED, "${EXTRA_LOCATIONS}",
        "location / {\n"
        "        types { }\n"
        "        default_type text/plain;\n"
        "        add_header X-Content-Type-Options nosniff always;\n"
        "        add_header Retry-After 5 always;\n"
        "        return 503 \"The service behind this address is not available: its "
        "part of the configuration cannot be used. The operator finds the reason in the "
        "log of cert-manager.\\n\";\n"
        "    }");
}

/* A browser sees the 503, and not an error of CORS. */
static void a_reduced_site_has_its_headers(void **state)
{
    struct site_fixture f;
    struct err err = ERR_INIT;
    BUF_SCOPED cors;
    BUF_SCOPED site;
    char expected[4096];

    (void)state;
    site_fixture_init(&f);
    f.config.nginx.hsts_days = 1;
    assert_int_equal(
        site_render(&f, NGINX_HTTPS_REDUCED, "", "${EXTRA_LOCATIONS}", &site, &err), 0);
    assert_ptr_equal(strstr(buf_str(&site),
                            "location / {\n"
                            "        add_header Strict-Transport-Security max-age=86400 "
                            "always;\n"
                            "        types { }\n"),
                     buf_str(&site));
    buf_done(&site);
    site_add_origin(&f, "^https://app$");
    assert_int_equal(
        site_render(&f, NGINX_HTTPS_REDUCED, "", "${CORS_HEADERS}", &cors, &err), 0);
    assert_int_equal(
        site_render(&f, NGINX_HTTPS_REDUCED, "", "${EXTRA_LOCATIONS}", &site, &err), 0);
    snprintf(expected, sizeof expected, "location / {\n        %s\n        types { }\n",
             buf_str(&cors));
    assert_ptr_equal(strstr(buf_str(&site), expected), buf_str(&site));
}

/* The services of every template stay what they are. */
static void a_reduced_site_keeps_its_services(void **state)
{
    struct site_fixture f;

    (void)state;
    site_fixture_init(&f);
    site_expect_at(&f, NGINX_HTTPS_REDUCED, "${ATTESTATION_UPSTREAM}", "cm_attestation");
    f.config.auth.enabled = false;
    site_expect_at(&f, NGINX_HTTPS_REDUCED, "${AUTH_LOCATION}",
                   "location = /_auth {\n"
                   "        internal;\n"
                   "        return 403;\n"
                   "    }");
}

static void nothing_of_the_application_is_in_http(void **state)
{
    struct site_fixture f;
    struct err err = ERR_INIT;
    BUF_SCOPED ret;

    (void)state;
    site_fixture_init(&f);
    f.config.nginx.extra_locations = site_text("location /a { }");
    f.config.upstream.host = site_text("app");
    site_add_route(&f, "/b", "10.0.0.2:80");
    assert_int_equal(site_render(&f, NGINX_HTTP_ONLY,
                                 "[${EXTRA_UPSTREAMS}${EXTRA_LOCATIONS}]", NULL, &ret,
                                 &err),
                     0);
    assert_string_equal(buf_str(&ret), "[]");
}

/* ---- HSTS ---- */

static void hsts_is_sent_for_as_long_as_asked_for(void **state)
{
    struct site_fixture f;

    (void)state;
    site_fixture_init(&f);
    site_expect(&f, "[${HSTS}]", "[]");
    f.config.nginx.hsts_days = 1;
    site_expect(&f, "${HSTS}",
                "add_header Strict-Transport-Security max-age=86400 always;");
    f.config.nginx.hsts_days = 3650;
    site_expect(&f, "${HSTS}",
                "add_header Strict-Transport-Security max-age=315360000 always;");
}

/* A location with add_header of its own inherits none: preflight and request have it. */
static void hsts_goes_with_cors(void **state)
{
    struct site_fixture f;
    struct err err = ERR_INIT;
    unsigned found = 0;
    BUF_SCOPED ret;

    (void)state;
    site_fixture_init(&f);
    f.config.nginx.hsts_days = 2;
    site_expect(&f, "[${CORS_HEADERS}]", "[]");
    site_add_origin(&f, "^https://app$");
    assert_int_equal(site_render(&f, NGINX_HTTPS, "", "${CORS_HEADERS}", &ret, &err), 0);
    for (const char *at = buf_str(&ret); (at = strstr(at, "max-age=172800")) != NULL;
         at++)
        found++;
    assert_int_equal(found, 2);
}

static void hsts_goes_with_evidence(void **state)
{
    struct site_fixture f;
    struct err err = ERR_INIT;
    BUF_SCOPED ret;

    (void)state;
    site_fixture_init(&f);
    f.facts.evidence = "/run/evidence";
    assert_int_equal(site_render(&f, NGINX_HTTPS, "", "${EXTRA_LOCATIONS}", &ret, &err),
                     0);
    assert_non_null(strstr(buf_str(&ret), "Cache-Control no-cache always;\n    }"));
    buf_done(&ret);
    f.config.nginx.hsts_days = 2;
    assert_int_equal(site_render(&f, NGINX_HTTPS, "", "${EXTRA_LOCATIONS}", &ret, &err),
                     0);
    assert_non_null(strstr(buf_str(&ret),
                           "Cache-Control no-cache always;\n"
                           "        add_header Strict-Transport-Security "
                           "max-age=172800 always;\n    }"));
}

/* Wherever there is HTTPS, and in a place that every template has. */
static void metrics_are_shown_where_they_are_wanted(void **state)
{
    static const char location[] = "location = /cert-manager/metrics {\n";
    struct site_fixture f;
    struct err err = ERR_INIT;

    (void)state;
    site_fixture_init(&f);
    for (enum nginx_level level = NGINX_HTTP_ONLY; level <= NGINX_HTTPS; level++) {
        for (int wanted = 0; wanted < 2; wanted++) {
            BUF_SCOPED ret;

            snprintf(f.facts.metrics_socket, sizeof f.facts.metrics_socket, "%s",
                     wanted ? "/run/metrics.sock" : "");
            assert_int_equal(site_render(&f, level, "${EXTRA_LOCATIONS}",
                                         "${EXTRA_LOCATIONS}", &ret, &err),
                             0);
            assert_int_equal(strstr(buf_str(&ret), location) != NULL,
                             wanted && level != NGINX_HTTP_ONLY);
            assert_int_equal(strstr(buf_str(&ret), "auth_request /_auth;") != NULL,
                             wanted && level != NGINX_HTTP_ONLY);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cors_block),
        cmocka_unit_test(cors_refusals),
        cmocka_unit_test(cors_headers),
        cmocka_unit_test(auth_location),
        cmocka_unit_test(catch_all),
        cmocka_unit_test(no_upstreams_without_https),
        cmocka_unit_test(a_route_is_a_location),
        cmocka_unit_test(every_setting_of_a_route_is_in_its_location),
        cmocka_unit_test(a_route_has_cors_where_there_are_origins),
        cmocka_unit_test(fragments_routes_and_the_catch_all_stand_together),
        cmocka_unit_test(a_fragment_does_not_grow_without_bound),
        cmocka_unit_test(paths_cannot_leave_their_quotes),
        cmocka_unit_test(a_reduced_site_answers_503_for_the_application),
        cmocka_unit_test(a_reduced_site_has_its_headers),
        cmocka_unit_test(a_reduced_site_keeps_its_services),
        cmocka_unit_test(nothing_of_the_application_is_in_http),
        cmocka_unit_test(hsts_is_sent_for_as_long_as_asked_for),
        cmocka_unit_test(hsts_goes_with_cors),
        cmocka_unit_test(hsts_goes_with_evidence),
        cmocka_unit_test(metrics_are_shown_where_they_are_wanted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
