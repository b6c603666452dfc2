/* The routes of the file: their values, and the rules between them and the other settings. */
#include "domain/config_internal.h"

#include "support/settings.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define PATH_EXPECTED                                                                    \
    "expected a decoded path that begins with /, at most 1024 letters, digits and "      \
    "/._~!&'()*+,=:@-, without // and /../"
#define BOOL_EXPECTED "expected true or false"
#define TIMEOUT_EXPECTED                                                                 \
    "expected a whole number with a unit (d, h, m, s or ms) from 1s to 1d"
#define ROUTES_EXPECTED "expected a sequence of mappings with path and upstream"

/* One route in two lines; the first is where it stands, in column 5. */
#define ROUTE(path) "  - path: " path "\n    upstream: app:8000\n"

struct example {
    const char *file;
    const char *message;
};

static void expect_all(const struct example *examples, size_t count)
{
    for (size_t i = 0; i < count; i++)
        settings_expect_error(examples[i].file, NULL, examples[i].message);
}

#define EXPECT_ALL(examples) expect_all(examples, sizeof(examples) / sizeof(examples)[0])

/* ---- values ---- */

static void a_route_has_defaults(void **state)
{
    struct settings loaded;
    const struct config_route *route;

    (void)state;
    settings_load_good(&loaded, "routes:\n  - path: /v1/\n    upstream: vllm:8000\n",
                       NULL);
    assert_int_equal(loaded.config.routes.count, 1);
    route = loaded.config.routes.items;
    assert_string_equal(route->path, "/v1/");
    assert_string_equal(route->upstream, "vllm:8000");
    assert_false(route->exact);
    assert_false(route->auth);
    assert_true(route->cors);
    assert_true(route->websocket);
    assert_false(route->ekm);
    assert_false(route->buffering);
    assert_int_equal(route->timeout_ms, 3600 * 1000);
    assert_int_equal(route->line, 2);
    assert_int_equal(route->column, 5);
    settings_done(&loaded);
}

static void every_key_of_a_route_is_read(void **state)
{
    struct settings loaded;
    const struct config_route *route;

    (void)state;
    settings_load_good(
        &loaded,
        "# two\nroutes:\n"
        "  - path: /\n    upstream: a:1\n"
        "  - timeout: 1500ms\n    buffering: true\n    ekm: true\n"
        "    websocket: false\n    cors: false\n    auth: true\n"
        "    upstream: \"[fd00::2]:65535\"\n    match: exact\n    path: /metrics\n",
        NULL);
    assert_int_equal(loaded.config.routes.count, 2);
    assert_string_equal(loaded.config.routes.items[0].path, "/");
    route = &loaded.config.routes.items[1];
    assert_string_equal(route->path, "/metrics");
    assert_string_equal(route->upstream, "[fd00::2]:65535");
    assert_true(route->exact);
    assert_true(route->auth);
    assert_false(route->cors);
    assert_false(route->websocket);
    assert_true(route->ekm);
    assert_true(route->buffering);
    assert_int_equal(route->timeout_ms, 1500);
    assert_int_equal(route->line, 5);
    assert_int_equal(route->column, 5);
    settings_done(&loaded);
}

static void a_file_may_have_no_routes(void **state)
{
    struct settings loaded;

    (void)state;
    settings_load_good(&loaded, "routes: []\n", NULL);
    assert_int_equal(loaded.config.routes.count, 0);
    assert_null(loaded.config.routes.items);
    settings_done(&loaded);
    settings_load_good(&loaded, "domain: example.org\n", NULL);
    assert_int_equal(loaded.config.routes.count, 0);
    settings_done(&loaded);
}

/* `value` as a double-quoted text of YAML; `message` is NULL when it is a good one. */
static void expect_text(const char *key, const char *value, const char *message)
{
    bool path = strcmp(key, "path") == 0;
    char file[8192];

    assert_true((size_t)snprintf(
                    file, sizeof file, "routes:\n  - %s: \"%s\"\n    %s\n", key, value,
                    path ? "upstream: app:8000" : "path: /app/") < sizeof file);
    if (message == NULL)
        settings_expect_good(file, NULL);
    else
        settings_expect_error(file, NULL, message);
}

static void good_paths(void **state)
{
    static const char *const paths[] = {
        "/",
        "/a",
        "/a/",
        "/a.b",
        "/v1/chat/completions",
        "/a/.b",
        "/a/..b",
        "/a..",
        "/a/b.",
        "/.../",
        "/~!&'()*+,=:@-._",
        "/health/",
        "/healthz",
        "/=",
        "/_auth/",
        "/.well-known/acme-test",
        "/A",
    };

    (void)state;
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++)
        expect_text("path", paths[i], NULL);
}

/* Among them every way out of nginx's quotes, and what nginx would never compare. */
static void bad_paths(void **state)
{
    static const struct {
        const char *in_yaml;
        const char *found;
    } paths[] = {
        {"", "\"\""},
        {"a", "\"a\""},
        {"a/", "\"a/\""},
        {"= /a", "\"= /a\""},
        {"~ ^/a", "\"~ ^/a\""},
        {"@a", "\"@a\""},
        {"http://a/", "\"http://a/\""},
        {"/a b", "\"/a b\""},
        {"/a\\\"", "\"/a\"\""},
        {"/a\\\" { } location /b", "\"/a\" { } location /b\""},
        {"/a\\\\", "\"/a\\\""},
        {"/a;", "\"/a;\""},
        {"/a{", "\"/a{\""},
        {"/a}", "\"/a}\""},
        {"/a#", "\"/a#\""},
        {"/$host", "\"/$host\""},
        {"/${DOMAIN}", "\"/${DOMAIN}\""},
        {"/a%20b", "\"/a%20b\""},
        {"/a?b", "\"/a?b\""},
        {"/a<", "\"/a<\""},
        {"/a|b", "\"/a|b\""},
        {"/[a]", "\"/[a]\""},
        {"/a`", "\"/a`\""},
        {"/^~/", "\"/^~/\""},
        {"//", "\"//\""},
        {"/a//b", "\"/a//b\""},
        {"/a/../b", "\"/a/../b\""},
        {"/..", "\"/..\""},
        {"/a/..", "\"/a/..\""},
        {"/.", "\"/.\""},
        {"/a/./b", "\"/a/./b\""},
        {"/a/.", "\"/a/.\""},
        {"/\xc3\xa9", "\"/\xc3\xa9\""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        char message[512];

        snprintf(message, sizeof message,
                 "config.yaml:2:11: path: found %s, " PATH_EXPECTED, paths[i].found);
        expect_text("path", paths[i].in_yaml, message);
    }
    expect_text("path", "/a\\nb",
                "config.yaml:2:11: path: byte 3: control character 0x0a");
    expect_text("path", "/a\\tb",
                "config.yaml:2:11: path: byte 3: control character 0x09");
    expect_text("path", "/a\\0",
                "config.yaml:2:11: path: byte 3: control character 0x00");
    expect_text("path", "/a\\x7f",
                "config.yaml:2:11: path: byte 3: control character 0x7f");
}

static void paths_have_a_limit(void **state)
{
    char path[1024 + 2];
    char message[512];

    (void)state;
    memset(path, 'a', sizeof path);
    path[0] = '/';
    path[1024] = '\0';
    expect_text("path", path, NULL);
    path[1024] = 'a';
    path[1025] = '\0';
    snprintf(message, sizeof message,
             "config.yaml:2:11: path: found \"%.119s…\", " PATH_EXPECTED, path);
    expect_text("path", path, message);
}

static void good_upstreams(void **state)
{
    static const char *const upstreams[] = {
        "a:1", "my_app.local:65535", "10.0.0.2:80", "[::1]:8080", "a-b:080", "A:80",
        "0:1",
    };

    (void)state;
    for (size_t i = 0; i < sizeof upstreams / sizeof upstreams[0]; i++)
        expect_text("upstream", upstreams[i], NULL);
}

static void bad_upstreams(void **state)
{
    static const char *const upstreams[] = {
        "",
        "a",
        ":80",
        "a:",
        "a:0",
        "a:65536",
        "a:80/x",
        "a b:80",
        "a;b:80",
        "a}:80",
        "$host:80",
        "-a:80",
        ".a:80",
        "[::1",
        "[::1]",
        "[::1]x:80",
        "[zz]:80",
        "a:+80",
        "a: 80",
        "a:80:80",
        "::1:80",
        "\xc3\xa9:80",
        "[]:80",
        "a#:80",
        "[::1]:",
        "http://a:80",
        "unix:/run/s",
        "[10.0.0.2]:80",
        "[fe80::1%eth0]:80",
        "a:99999999999999999999",
        "a,b:80",
        "a:8x",
    };
    char host[256 + 4];
    char message[512];

    (void)state;
    for (size_t i = 0; i < sizeof upstreams / sizeof upstreams[0]; i++) {
        snprintf(message, sizeof message,
                 "config.yaml:2:15: upstream: found \"%s\", expected host:port",
                 upstreams[i]);
        expect_text("upstream", upstreams[i], message);
    }
    expect_text("upstream", "a\\\":80",
                "config.yaml:2:15: upstream: found \"a\":80\", expected host:port");
    expect_text("upstream", "a\\\\:80",
                "config.yaml:2:15: upstream: found \"a\\:80\", expected host:port");
    expect_text("upstream", "a\\n:80",
                "config.yaml:2:15: upstream: byte 2: control character 0x0a");
    memset(host, 'a', sizeof host);
    memcpy(host + 253, ":1", 3);
    expect_text("upstream", host, NULL);
    memcpy(host + 253, "a:1", 4);
    snprintf(message, sizeof message,
             "config.yaml:2:15: upstream: found \"%.119s…\", expected host:port", host);
    expect_text("upstream", host, message);
}

static void other_values_of_the_wrong_form(void **state)
{
    static const struct {
        const char *line;
        const char *message;
    } lines[] = {
        {"auth: yes", "auth: found \"yes\", " BOOL_EXPECTED},
        {"auth: \"true\"", "auth: found a text in quotes, " BOOL_EXPECTED},
        {"auth:", "auth: found nothing, " BOOL_EXPECTED},
        {"auth: [true]", "auth: found a sequence, " BOOL_EXPECTED},
        {"cors: {a: b}", "cors: found a mapping, " BOOL_EXPECTED},
        {"websocket: 1", "websocket: found \"1\", " BOOL_EXPECTED},
        {"ekm: True", "ekm: found \"True\", " BOOL_EXPECTED},
        {"buffering: off", "buffering: found \"off\", " BOOL_EXPECTED},
        {"match: regex", "match: found \"regex\", expected prefix or exact"},
        {"match: Exact",
         "match: found \"Exact\", expected prefix or exact (did you mean \"exact\"?)"},
        {"timeout: \" 1s\"",
         "timeout: found \" 1s\", " TIMEOUT_EXPECTED "; remove the blank before it"},
        {"timeout: \"'1s'\"",
         "timeout: found \"'1s'\", " TIMEOUT_EXPECTED
         "; remove the quotes, which are part of it (docker's --env-file keeps them)"},
        {"match: =", "match: found \"=\", expected prefix or exact"},
        {"timeout: 60", "timeout: found \"60\", " TIMEOUT_EXPECTED},
        {"timeout: 0s", "timeout: found \"0s\", " TIMEOUT_EXPECTED},
        {"timeout: 999ms", "timeout: found \"999ms\", " TIMEOUT_EXPECTED},
        {"timeout: 25h", "timeout: found \"25h\", " TIMEOUT_EXPECTED},
        {"timeout: -1s", "timeout: found \"-1s\", " TIMEOUT_EXPECTED},
        {"timeout: 1s; evil", "timeout: found \"1s; evil\", " TIMEOUT_EXPECTED},
    };

    (void)state;
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        char file[256];
        char message[512];
        const char *colon = strchr(lines[i].line, ':');
        size_t value = (size_t)(colon - lines[i].line) + 1;

        /* "nothing" is where the value would begin. */
        value += strspn(lines[i].line + value, " ");
        snprintf(file, sizeof file, "routes:\n" ROUTE("/a") "    %s\n", lines[i].line);
        snprintf(message, sizeof message, "config.yaml:4:%zu: %s", value + 5,
                 lines[i].message);
        settings_expect_error(file, NULL, message);
    }
}

/* ---- keys ---- */

static void unknown_keys_are_named(void **state)
{
    static const struct example examples[] = {
        {"routes:\n" ROUTE("/a") "    pth: /b\n",
         "config.yaml:4:5: unknown key \"pth\" of a route (did you mean \"path\"?)"},
        {"routes:\n" ROUTE("/a") "    upstraem: /b\n",
         "config.yaml:4:5: unknown key \"upstraem\" of a route (did you mean "
         "\"upstream\"?)"},
        {"routes:\n" ROUTE("/a") "    Auth: true\n",
         "config.yaml:4:5: unknown key \"Auth\" of a route (did you mean \"auth\"?)"},
        {"routes:\n" ROUTE("/a") "    web_socket: true\n",
         "config.yaml:4:5: unknown key \"web_socket\" of a route (did you mean "
         "\"websocket\"?)"},
        /* What is short is near to everything. */
        {"routes:\n" ROUTE("/a") "    port: 80\n",
         "config.yaml:4:5: unknown key \"port\" of a route"},
        {"routes:\n" ROUTE("/a") "    host: a\n",
         "config.yaml:4:5: unknown key \"host\" of a route"},
        {"routes:\n" ROUTE("/a") "    nginx.path: a\n",
         "config.yaml:4:5: unknown key \"nginx.path\" of a route"},
        {"routes:\n" ROUTE("/a") "    \"auth\\0\": true\n",
         "config.yaml:4:5: unknown key \"auth\\x00\" of a route (did you mean "
         "\"auth\"?)"},
        {"routes:\n" ROUTE("/a") "    ? \"a\\nb\"\n    : 1\n",
         "config.yaml:4:7: unknown key \"a\\x0ab\" of a route"},
        {"routes:\n" ROUTE("/a") "    [auth]: true\n",
         "config.yaml:4:5: found a sequence as a key, expected a name"},
        {"routes:\n" ROUTE("/a") "    ? {auth: true}\n    : 1\n",
         "config.yaml:4:7: found a mapping as a key, expected a name"},
        {"route:\n" ROUTE("/a"),
         "config.yaml:1:1: unknown key \"route\" (did you mean \"routes\"?)"},
    };

    (void)state;
    EXPECT_ALL(examples);
}

static void a_key_may_stand_once(void **state)
{
    static const struct example examples[] = {
        {"routes:\n" ROUTE("/a") "    path: /b\n",
         "config.yaml:4:5: key \"path\" appears twice in this route"},
        {"routes:\n  - auth: false\n    path: /a\n    auth: false\n    upstream: a:1\n",
         "config.yaml:4:5: key \"auth\" appears twice in this route"},
        {"routes:\n" ROUTE("/a") "routes:\n" ROUTE("/b"),
         "config.yaml:4:1: key \"routes\" appears twice, first in line 2"},
    };

    (void)state;
    EXPECT_ALL(examples);
}

static void path_and_upstream_must_be_there(void **state)
{
    static const struct example examples[] = {
        {"routes:\n  - upstream: a:1\n", "config.yaml:2:5: this route has no \"path\""},
        {"routes:\n  - path: /a\n", "config.yaml:2:5: this route has no \"upstream\""},
        {"routes:\n  - path:\n    upstream: a:1\n",
         "config.yaml:2:10: path: found nothing, " PATH_EXPECTED},
        {"routes:\n  - path: /a\n    upstream: ~\n",
         "config.yaml:3:15: upstream: found nothing, expected host:port"},
    };
    static const char *const both[] = {"config.yaml:2:5: this route has no \"path\"",
                                       "config.yaml:2:5: this route has no \"upstream\"",
                                       NULL};

    (void)state;
    EXPECT_ALL(examples);
    settings_expect_errors("routes:\n  - {}\n", NULL, both);
}

static void routes_are_a_sequence_of_mappings(void **state)
{
    static const struct example examples[] = {
        {"routes:\n", "config.yaml:1:8: routes: found nothing, " ROUTES_EXPECTED},
        {"routes: ~\n", "config.yaml:1:9: routes: found nothing, " ROUTES_EXPECTED},
        {"routes: /a\n", "config.yaml:1:9: routes: found a text, " ROUTES_EXPECTED},
        {"routes:\n  /a: app:8000\n",
         "config.yaml:2:3: routes: found a mapping, " ROUTES_EXPECTED},
        {"routes: [/a]\n",
         "config.yaml:1:10: found a text, expected a mapping with path and upstream"},
        {"routes:\n  -\n",
         "config.yaml:2:4: found nothing, expected a mapping with path and upstream"},
        {"routes: [[]]\n",
         "config.yaml:1:10: found a sequence, expected a mapping with path and upstream"},
        {"routes: [{path: {a: b}, upstream: \"a:1\"}]\n",
         "config.yaml:1:17: path: found a mapping, " PATH_EXPECTED},
    };

    (void)state;
    EXPECT_ALL(examples);
}

/* ---- rules ---- */

static void reserved_paths(void **state)
{
    static const struct {
        const char *path;
        const char *reserved; /* NULL: it is not */
    } paths[] = {
        {"/health", "/health"},
        {"/health/", NULL},
        {"/healthz", NULL},
        {"/heal", NULL},
        {"/Health", NULL},
        {"/tdx_quote", "/tdx_quote"},
        {"/tdx_quote/x", NULL},
        {"/_auth", "/_auth"},
        {"/_auth/", NULL},
        {"/debug/ekm", "/debug/ekm"},
        {"/debug/", NULL},
        {"/debug", NULL},
        {"/evidences", "/evidences/"},
        {"/evidences/", "/evidences/"},
        {"/evidences/quote", "/evidences/"},
        {"/evidences2", NULL},
        {"/evidence", NULL},
        {"/cert-manager", "/cert-manager/"},
        {"/cert-manager/", "/cert-manager/"},
        {"/cert-manager/status", "/cert-manager/"},
        {"/cert-managers/", NULL},
        {"/", NULL},
    };
    static const char *const matches[] = {"exact", "prefix"};

    (void)state;
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        for (size_t k = 0; k < 2; k++) {
            char file[256];
            char message[256];

            snprintf(file, sizeof file,
                     "routes:\n  - path: %s\n    upstream: a:1\n    match: %s\n",
                     paths[i].path, matches[k]);
            if (paths[i].reserved == NULL) {
                settings_expect_good(file, NULL);
                continue;
            }
            snprintf(message, sizeof message,
                     "config.yaml:2:5: route %s: %s is reserved; choose another path",
                     paths[i].path, paths[i].reserved);
            settings_expect_error(file, NULL, message);
        }
    }
}

static void a_path_has_one_route(void **state)
{
    static const struct example examples[] = {
        {"routes:\n" ROUTE("/a") ROUTE("/b") ROUTE("/a"),
         "config.yaml:6:5: route /a: appears twice, first in line 2"},
        {"routes:\n" ROUTE("/a") "    match: exact\n" ROUTE("/a") "    match: exact\n",
         "config.yaml:5:5: route /a: appears twice, first in line 2"},
    };
    static const char *const thrice[] = {
        "config.yaml:4:5: route /a: appears twice, first in line 2",
        "config.yaml:6:5: route /a: appears twice, first in line 2", NULL};

    (void)state;
    EXPECT_ALL(examples);
    settings_expect_errors("routes:\n" ROUTE("/a") ROUTE("/a") ROUTE("/a"), NULL, thrice);
    /* Of different kinds, or another path to nginx. */
    settings_expect_good("routes:\n" ROUTE("/a") ROUTE("/a") "    match: exact\n", NULL);
    settings_expect_good("routes:\n" ROUTE("/a") ROUTE("/a/") ROUTE("/A"), NULL);
}

static void a_path_of_a_fragment_is_no_route(void **state)
{
    static const char file[] = "routes:\n" ROUTE("/a") ROUTE("/v1/");
    static const char exact[] = "routes:\n" ROUTE("/a") "    match: exact\n";

    (void)state;
    settings_expect_error(
        file, "EXTRA_LOCATIONS=location /b { }\nlocation ^~ \"/v1/\" { }",
        "config.yaml:4:5: route /v1/: the location in line 2 of EXTRA_LOCATIONS "
        "has this path, too; remove one of them");
    settings_expect_error(
        exact, "EXTRA_LOCATIONS=location =/a { }",
        "config.yaml:2:5: route /a: the location in line 1 of EXTRA_LOCATIONS "
        "has this path, too; remove one of them");
    settings_expect_error(
        "nginx:\n  extra_locations: |\n    # first\n    location /a { }\n"
        "routes:\n" ROUTE("/a"),
        NULL,
        "config.yaml:6:5: route /a: the location in line 2 of config.yaml:2:20: "
        "nginx.extra_locations has this path, too; remove one of them");
    /* The variable is in force, and the text of the file is not. */
    settings_expect_good(
        "nginx:\n  extra_locations: \"location /a { }\"\nroutes:\n" ROUTE("/a"),
        "EXTRA_LOCATIONS=location /b { }");
    settings_expect_good(file, "EXTRA_LOCATIONS=location = /a { } location ~ ^/v1/ { }");
    settings_expect_good(
        file, "EXTRA_LOCATIONS=location /b { location /a { } } # location /a { }");
    settings_expect_good(exact, "EXTRA_LOCATIONS=location /a { }");
}

static void the_catch_all_is_one(void **state)
{
    (void)state;
    settings_expect_error(
        "routes:\n" ROUTE("/"), "UPSTREAM_HOST=app",
        "config.yaml:2:5: route /: UPSTREAM_HOST sends every path to an "
        "upstream, too; remove one of them");
    settings_expect_error(
        "upstream:\n  host: app\nroutes:\n" ROUTE("/"), NULL,
        "config.yaml:4:5: route /: config.yaml:2:9: upstream.host sends every "
        "path to an upstream, too; remove one of them");
    settings_expect_good("routes:\n" ROUTE("/") "    match: exact\n",
                         "UPSTREAM_HOST=app");
    settings_expect_good("routes:\n" ROUTE("/a"), "UPSTREAM_HOST=app");
    settings_expect_good("routes:\n" ROUTE("/"), "UPSTREAM_HOST=");
}

static void auth_needs_the_service(void **state)
{
    static const char file[] = "routes:\n" ROUTE("/a") ROUTE("/b") "    auth: true\n";
    static const char *const with_a_bad_value[] = {
        "config.yaml:2:12: auth.enabled: found \"no\", expected true or false", NULL};

    (void)state;
    settings_expect_good(file, NULL);
    settings_expect_good(file, "AUTH_ENABLED=true");
    settings_expect_error(
        file, "AUTH_ENABLED=false",
        "config.yaml:4:5: route /b: auth: true, but AUTH_ENABLED says false");
    settings_expect_error(
        "auth:\n  enabled: false\nroutes:\n" ROUTE("/b") "    auth: true\n", NULL,
        "config.yaml:4:5: route /b: auth: true, but config.yaml:2:12: "
        "auth.enabled says false");
    settings_expect_good("routes:\n" ROUTE("/a") "    auth: false\n",
                         "AUTH_ENABLED=false");
    settings_expect_errors(
        "auth:\n  enabled: no\nroutes:\n" ROUTE("/b") "    auth: true\n", NULL,
        with_a_bad_value);
}

static void all_errors_of_all_routes_are_reported(void **state)
{
    static const char *const messages[] = {
        "config.yaml:2:11: path: found \"a\", " PATH_EXPECTED,
        "config.yaml:5:15: upstream: found \"b\", expected host:port",
        "config.yaml:6:5: unknown key \"x\" of a route",
        "config.yaml:8:5: this route has no \"path\"",
        "config.yaml:4:5: route /health: /health is reserved; choose another path",
        "config.yaml:10:5: route /health: /health is reserved; choose another path",
        "config.yaml:10:5: route /health: appears twice, first in line 4",
        NULL,
    };

    (void)state;
    settings_expect_errors("routes:\n" ROUTE("a") "  - path: /health\n    upstream: b\n    x: y\n"
                  "    auth: false\n"
                  "  - auth: true\n    upstream: a:1\n" ROUTE("/health"),
                  NULL, messages);
}

/* ---- limits ---- */

static void write_routes(char *ret, size_t size, unsigned count)
{
    size_t used = (size_t)snprintf(ret, size, "routes:\n");

    for (unsigned i = 0; i < count; i++)
        used += (size_t)snprintf(ret + used, size - used,
                                 "  - path: /%u\n    upstream: app:8000\n", i);
    assert_true(used < size);
}

static void the_number_of_routes_has_a_limit(void **state)
{
    char file[64 * 400];
    struct settings loaded;

    (void)state;
    write_routes(file, sizeof file, CONFIG_ROUTES_MAX);
    settings_load_good(&loaded, file, NULL);
    assert_int_equal(loaded.config.routes.count, 200);
    assert_string_equal(loaded.config.routes.items[199].path, "/199");
    settings_done(&loaded);
    write_routes(file, sizeof file, CONFIG_ROUTES_MAX + 1);
    settings_expect_error(file, NULL, "config.yaml:402:5: more than 200 routes");
    write_routes(file, sizeof file, 2 * CONFIG_ROUTES_MAX);
    settings_expect_error(file, NULL, "config.yaml:402:5: more than 200 routes");
}

static void the_number_of_errors_has_a_limit(void **state)
{
    char file[64 * 200] = "routes:\n";
    size_t used = strlen(file);
    struct settings loaded;

    (void)state;
    for (unsigned i = 0; i < 150; i++)
        used += (size_t)snprintf(file + used, sizeof file - used, "  - path: /%u\n", i);
    settings_load(&loaded, file, NULL);
    assert_int_equal(loaded.result, -1);
    assert_int_equal(loaded.report.error_count, 50);
    assert_string_equal(loaded.report.errors[49], "further lines are left out");
    settings_done(&loaded);
}

/* Cut anywhere, the file is an error or another file, and all memory is given back. */
static void damaged_files(void **state)
{
    static const char whole[] =
        "nginx:\n  extra_locations: \"location /x { }\"\nroutes:\n"
        "  - {path: /a, upstream: \"app:1\", match: exact, timeout: 2s, auth: true}\n"
        "  - path: \"/b\"\n    upstream: \"[fd00::2]:80\"\n    cors: false\n" ROUTE("/a");

    (void)state;
    settings_expect_good(whole, NULL);
    for (size_t len = 0; len < sizeof whole - 1; len++) {
        for (int damage = 0; damage < 3; damage++) {
            static const char bytes[] = {'\0', '[', '\n'};
            char file[sizeof whole];
            struct settings loaded;

            memcpy(file, whole, sizeof whole);
            file[len] = bytes[damage];
            settings_load(&loaded, file, NULL);
            settings_done(&loaded);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_route_has_defaults),
        cmocka_unit_test(every_key_of_a_route_is_read),
        cmocka_unit_test(a_file_may_have_no_routes),
        cmocka_unit_test(good_paths),
        cmocka_unit_test(bad_paths),
        cmocka_unit_test(paths_have_a_limit),
        cmocka_unit_test(good_upstreams),
        cmocka_unit_test(bad_upstreams),
        cmocka_unit_test(other_values_of_the_wrong_form),
        cmocka_unit_test(unknown_keys_are_named),
        cmocka_unit_test(a_key_may_stand_once),
        cmocka_unit_test(path_and_upstream_must_be_there),
        cmocka_unit_test(routes_are_a_sequence_of_mappings),
        cmocka_unit_test(reserved_paths),
        cmocka_unit_test(a_path_has_one_route),
        cmocka_unit_test(a_path_of_a_fragment_is_no_route),
        cmocka_unit_test(the_catch_all_is_one),
        cmocka_unit_test(auth_needs_the_service),
        cmocka_unit_test(all_errors_of_all_routes_are_reported),
        cmocka_unit_test(the_number_of_routes_has_a_limit),
        cmocka_unit_test(the_number_of_errors_has_a_limit),
        cmocka_unit_test(damaged_files),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
