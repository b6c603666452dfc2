#include "domain/nginx_conf.h"

#include "base/fs.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* The settings of one test; texts are literals, nothing is freed. */
struct fixture {
    struct config config;
    struct nginx_facts facts;
    char *origins[4];
};

static char *text(const char *literal)
{
    union {
        const char *in;
        char *out;
    } writable = {.in = literal};

    return writable.out;
}

static struct fixture fixture(void)
{
    struct fixture f = {0};

    f.config.domain = text("vllm.example.test");
    f.config.tls.dir = text("/etc/nginx/ssl");
    f.config.nginx.webroot = text("/acme-challenge");
    f.config.nginx.http_port = 80;
    f.config.nginx.https_port = 443;
    f.config.nginx.extra_upstreams = text("");
    f.config.nginx.extra_locations = text("");
    f.config.upstream.port = 8000;
    f.config.auth.enabled = true;
    f.config.auth.upstream = text("auth-service:8081");
    f.config.attestation.upstream = text("attestation-service:8080");
    f.facts.ipv6 = true;
    f.facts.version = 1022001;
    return f;
}

static void add_origin(struct fixture *f, const char *regex)
{
    f->origins[f->config.cors_origins.count++] = text(regex);
    f->config.cors_origins.items = f->origins;
}

static int render(const struct fixture *f, enum nginx_level level, const char *base,
                  const char *https, struct buf *ret, struct err *err)
{
    const struct nginx_templates templates = {.base = base, .https = https};
    struct nginx_facts facts = f->facts;
    struct upstreams upstreams;
    int result;

    buf_init(ret, NGINX_CONF_MAX_BYTES);
    result = upstreams_init(&upstreams, &f->config, err);
    facts.upstreams = &upstreams;
    if (result == 0)
        result = nginx_conf_render(&f->config, &facts, level, &templates, ret, err);
    upstreams_done(&upstreams);
    return result;
}

/* What the https template `https` becomes. */
static void expect(const struct fixture *f, const char *https, const char *expected)
{
    struct err err = ERR_INIT;
    BUF_SCOPED ret;

    if (render(f, NGINX_HTTPS, "", https, &ret, &err) < 0)
        fail_msg("%s", err.message);
    assert_string_equal(buf_str(&ret), expected);
}

static void expect_refused(const struct fixture *f, const char *named)
{
    struct err err = ERR_INIT;
    BUF_SCOPED ret;

    assert_int_equal(render(f, NGINX_HTTPS, "", "", &ret, &err), -1);
    assert_int_equal(err.kind, ERR_CONFIG);
    assert_ptr_equal(strstr(err.message, "nginx configuration: "), err.message);
    assert_non_null(strstr(err.message, named));
    assert_int_equal(ret.len, 0);
}

static void levels_and_templates(void **state)
{
    struct fixture f = fixture();
    struct err err = ERR_INIT;
    BUF_SCOPED http;
    BUF_SCOPED https;

    (void)state;
    assert_int_equal(
        render(&f, NGINX_HTTP_ONLY, "${DOMAIN} ${UNKNOWN} $host\n", NULL, &http, &err),
        0);
    assert_string_equal(buf_str(&http), "vllm.example.test ${UNKNOWN} $host\n");
    assert_int_equal(render(&f, NGINX_HTTPS, "base\n", "https ${DOMAIN}\n", &https, &err),
                     0);
    assert_string_equal(buf_str(&https), "base\nhttps vllm.example.test\n");

    assert_string_equal(nginx_conf_https_template(&f.config), "https.conf.tmpl");
    f.config.development = true;
    assert_string_equal(nginx_conf_https_template(&f.config), "https-dev.conf.tmpl");
}

static void listens(void **state)
{
    struct fixture f = fixture();

    (void)state;
    expect(&f, "${HTTP_LISTEN}", "listen 80;\n    listen [::]:80;");
    expect(&f, "${HTTPS_LISTEN}",
           "listen 443 ssl http2;\n    listen [::]:443 ssl http2;");
    f.facts.ipv6 = false;
    expect(&f, "${HTTP_LISTEN}|${HTTPS_LISTEN}", "listen 80;|listen 443 ssl http2;");
    f.facts.version = 0;
    expect(&f, "${HTTPS_LISTEN}", "listen 443 ssl http2;");
    f.facts.version = 1025000;
    expect(&f, "${HTTPS_LISTEN}", "listen 443 ssl http2;");
    f.facts.version = 1025001;
    expect(&f, "${HTTPS_LISTEN}", "listen 443 ssl;\n    http2 on;");
    f.config.nginx.address = text("127.0.0.1");
    f.config.nginx.http_port = 8080;
    expect(&f, "${HTTP_LISTEN}|${HTTPS_LISTEN}",
           "listen 127.0.0.1:8080;|listen 127.0.0.1:443 ssl;\n    http2 on;");
    f.config.nginx.address = text("::1");
    expect_refused(&f, "no IPv6");
    f.facts.ipv6 = true;
    expect(&f, "${HTTP_LISTEN}", "listen [::1]:8080;");
}

static void port_80(void **state)
{
    static const char provisioning[] = "Service starting, certificate being provisioned";
    struct fixture f = fixture();
    struct err err = ERR_INIT;
    BUF_SCOPED ret;

    (void)state;
    expect(&f, "${HTTP_FALLBACK}", "return 301 https://$host$request_uri;");
    f.config.nginx.https_port = 8443;
    expect(&f, "${HTTP_FALLBACK}", "return 301 https://$host:8443$request_uri;");
    assert_int_equal(render(&f, NGINX_HTTP_ONLY, "${HTTP_FALLBACK}", NULL, &ret, &err),
                     0);
    assert_non_null(strstr(buf_str(&ret), provisioning));
    assert_non_null(strstr(buf_str(&ret), "add_header Retry-After 5 always;"));
    assert_non_null(strstr(buf_str(&ret), "return 503 "));
    assert_null(strstr(buf_str(&ret), "301"));
}

static void resolver(void **state)
{
    struct fixture f = fixture();

    (void)state;
    expect(&f, "[${RESOLVER}]", "[]");
    snprintf(f.facts.nameservers, sizeof f.facts.nameservers, "127.0.0.11 [fd00::53]");
    expect(&f, "${RESOLVER}",
           "resolver 127.0.0.11 [fd00::53] valid=10s; resolver_timeout 5s;");
    f.facts.ipv6 = false;
    expect(&f, "${RESOLVER}",
           "resolver 127.0.0.11 [fd00::53] valid=10s ipv6=off; resolver_timeout 5s;");
    snprintf(f.facts.nameservers, sizeof f.facts.nameservers, "127.0.0.11; evil");
    expect_refused(&f, "nameservers");
}

static void max_body_size(void **state)
{
    static const char *const good[] = {"0",   "10737418240", "999999999999999999", "10k",
                                       "10K", "20m",         "999999999G"};
    static const char *const bad[] = {"",
                                      "m",
                                      "10mb",
                                      "10 m",
                                      "-1",
                                      "1.5m",
                                      "10m;",
                                      "0x1",
                                      "10t",
                                      " 1",
                                      "10m\n",
                                      "9999999999g",
                                      "9999999999999999999"};
    struct fixture f = fixture();

    (void)state;
    expect(&f, "[${CLIENT_MAX_BODY_SIZE}]", "[]");
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        char expected[64];

        f.config.nginx.max_body_size = text(good[i]);
        snprintf(expected, sizeof expected, "client_max_body_size %s;", good[i]);
        expect(&f, "${CLIENT_MAX_BODY_SIZE}", expected);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        f.config.nginx.max_body_size = text(bad[i]);
        expect_refused(&f, "NGINX_MAX_BODY_SIZE");
    }
}

static void cors_block(void **state)
{
    struct fixture f = fixture();

    (void)state;
    expect(&f, "${CORS_BLOCK}", "set $cors_origin \"\";");
    add_origin(&f, "^https?://([^.]+\\.)*vercel\\.app(:[0-9]{1,5})?$");
    expect(&f, "${CORS_BLOCK}",
           "set $cors_origin \"\";\n"
           "    if ($http_origin ~ "
           "\"^https?://([^.]+\\\\.)*vercel\\\\.app(:[0-9]{1,5})?$\") {\n"
           "        set $cors_origin $http_origin;\n"
           "    }");
    /* Every way out of the quotes: a quote, an escaped quote, a backslash at the end. */
    add_origin(&f, "\") { } evil \\\" ' ; # ${DOMAIN} \\");
    expect(&f, "${CORS_BLOCK}",
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
    struct fixture f = fixture();
    char longest[1024 + 2];

    (void)state;
    add_origin(&f, "a\nb");
    expect_refused(&f, "CORS_ORIGINS");
    f.origins[0] = text("");
    expect_refused(&f, "entry 1");
    memset(longest, 'a', sizeof longest);
    longest[sizeof longest - 1] = '\0';
    f.origins[0] = longest;
    expect_refused(&f, "entry 1");
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
    struct fixture f = fixture();
    struct err err = ERR_INIT;
    BUF_SCOPED ret;
    BUF_SCOPED fragment;

    (void)state;
    expect(&f, "[${CORS_HEADERS}]", "[]");
    f.config.nginx.extra_locations =
        text("location /a { ${CORS_HEADERS} ${OTHER} $host; }");
    expect(&f, "${EXTRA_LOCATIONS}", "location /a {  ${OTHER} $host; }");
    add_origin(&f, "x");
    assert_int_equal(render(&f, NGINX_HTTPS, "", "${CORS_HEADERS}", &ret, &err), 0);
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++)
        assert_non_null(strstr(buf_str(&ret), lines[i]));
    assert_int_equal(render(&f, NGINX_HTTPS, "", "${EXTRA_LOCATIONS}", &fragment, &err),
                     0);
    assert_non_null(strstr(buf_str(&fragment), buf_str(&ret)));
    assert_null(strstr(buf_str(&fragment), "CORS_HEADERS"));
}

static void auth_location(void **state)
{
    struct fixture f = fixture();
    struct err err = ERR_INIT;
    BUF_SCOPED ret;

    (void)state;
    assert_int_equal(render(&f, NGINX_HTTPS, "", "${AUTH_LOCATION}", &ret, &err), 0);
    assert_non_null(strstr(buf_str(&ret), "internal;"));
    assert_non_null(strstr(buf_str(&ret), "proxy_pass http://cm_auth/auth;"));
    assert_non_null(strstr(buf_str(&ret), "proxy_set_header Host auth-service:8081;"));
    assert_non_null(strstr(buf_str(&ret), "proxy_pass_request_body off;"));
    assert_non_null(
        strstr(buf_str(&ret), "proxy_set_header X-Original-URI $request_uri;"));
    f.config.auth.enabled = false;
    f.config.auth.upstream = text("not used; }");
    expect(&f, "${AUTH_LOCATION}",
           "location = /_auth {\n"
           "        internal;\n"
           "        return 403;\n"
           "    }");
}

static void catch_all(void **state)
{
    struct fixture f = fixture();
    struct err err = ERR_INIT;
    BUF_SCOPED ret;

    (void)state;
    expect(&f, "[${EXTRA_UPSTREAMS}${EXTRA_LOCATIONS}]", "[]");
    f.config.nginx.extra_upstreams = text("upstream x { server y; }");
    expect(&f, "${EXTRA_UPSTREAMS}", "upstream x { server y; }");
    f.config.upstream.host = text("vllm");
    expect(&f, "${EXTRA_UPSTREAMS}",
           "upstream x { server y; }\n\n"
           "upstream app_backend { # vllm, port 8000\n"
           "    server 127.0.0.1:8000 down; # the name does not resolve\n"
           "    keepalive 32;\n    keepalive_timeout 4s;\n}");
    f.config.nginx.extra_upstreams = text("");
    f.config.upstream.host = text("fd00::2");
    expect(&f, "${EXTRA_UPSTREAMS}",
           "upstream app_backend { # fd00::2, port 8000\n"
           "    server [fd00::2]:8000;\n    keepalive 32;\n    keepalive_timeout 4s;\n}");
    f.config.upstream.host = text("[fd00::2]");
    expect(&f, "${EXTRA_UPSTREAMS}",
           "upstream app_backend { # fd00::2, port 8000\n"
           "    server [fd00::2]:8000;\n    keepalive 32;\n    keepalive_timeout 4s;\n}");

    f.config.nginx.extra_locations = text("location /a { }");
    assert_int_equal(render(&f, NGINX_HTTPS, "", "${EXTRA_LOCATIONS}", &ret, &err), 0);
    assert_ptr_equal(strstr(buf_str(&ret), "location /a { }\n\n    location \"/\" {"),
                     buf_str(&ret));
    assert_non_null(strstr(buf_str(&ret), "proxy_pass http://app_backend;"));
    assert_non_null(strstr(buf_str(&ret), "Connection $connection_upgrade;"));
    assert_non_null(strstr(buf_str(&ret), "X-TLS-EKM-Channel-Binding \"\";"));
}

/* A name that does not resolve must not stop nginx from answering challenges. */
static void no_upstreams_without_https(void **state)
{
    struct fixture f = fixture();
    struct err err = ERR_INIT;
    BUF_SCOPED ret;

    (void)state;
    f.config.nginx.extra_upstreams = text("upstream x { server missing; }");
    f.config.upstream.host = text("missing");
    assert_int_equal(
        render(&f, NGINX_HTTP_ONLY, "[${EXTRA_UPSTREAMS}]", NULL, &ret, &err), 0);
    assert_string_equal(buf_str(&ret), "[]");
}

static void refusals(void **state)
{
    struct fixture f;

    (void)state;
#define REFUSED(member, value, named)                                                    \
    do {                                                                                 \
        f = fixture();                                                                   \
        f.config.member = (value);                                                       \
        expect_refused(&f, named);                                                       \
    } while (0)
    REFUSED(domain, text("a b.test"), "DOMAIN");
    REFUSED(domain, text("a.test; evil on"), "DOMAIN");
    REFUSED(domain, text(""), "DOMAIN");
    REFUSED(nginx.http_port, 0, "nginx.http_port");
    REFUSED(nginx.https_port, 65536, "nginx.https_port");
    REFUSED(nginx.https_port, 80, "nginx.https_port");
    REFUSED(nginx.address, text("localhost"), "nginx.address");
    REFUSED(nginx.address, text("127.0.0.1:80;"), "nginx.address");
    REFUSED(nginx.address, text("::1%eth0"), "nginx.address");
    REFUSED(nginx.webroot, text("relative"), "nginx.webroot");
    REFUSED(nginx.webroot, text("/a$host"), "nginx.webroot");
    REFUSED(tls.dir, text("/a\nb"), "tls.dir");
}

static void paths_are_quoted(void **state)
{
    struct fixture f = fixture();

    (void)state;
    f.config.tls.dir = text("/a b;{}#\"c\\d'");
    f.config.nginx.webroot = text("/w\"w");
    expect(&f, "\"${TLS_DIR}/cert.pem\" \"${WEBROOT}\"",
           "\"/a b;{}#\\\"c\\\\d'/cert.pem\" \"/w\\\"w\"");
}

static void too_large(void **state)
{
    struct fixture f = fixture();
    struct err err = ERR_INIT;
    BUF_SCOPED ret;
    BUF_SCOPED large;

    (void)state;
    buf_init(&large, (size_t)2 * NGINX_CONF_MAX_BYTES);
    for (size_t i = 0; i <= NGINX_CONF_MAX_BYTES; i += 16)
        assert_int_equal(buf_append_str(&large, "# 0123456789abc\n", &err), 0);
    assert_int_equal(render(&f, NGINX_HTTPS, buf_str(&large), "", &ret, &err), -1);
    assert_int_equal(err.kind, ERR_CONFIG);
}

static void include(void **state)
{
    struct fixture f = fixture();
    struct upstreams upstreams;
    struct nginx_facts facts = {.upstreams = &upstreams, .live_chain = "/run/live.pem"};
    struct err err = ERR_INIT;
    BUF_SCOPED ret;

    (void)state;
    f.config.attestation.upstream = text("10.0.0.2:8080");
    f.config.upstream.host = text("10.0.0.3");
    assert_int_equal(upstreams_init(&upstreams, &f.config, &err), 0);
    buf_init(&ret, 4096);
    assert_int_equal(
        nginx_conf_render_include("/run/cert-manager/ekm", &facts, &ret, &err), 0);
    assert_string_equal(buf_str(&ret),
                        "ekm_secret_file \"/run/cert-manager/ekm\";\n"
                        "live_chain \"/run/live.pem\";\n"
                        "\n"
                        "upstream cm_attestation { # 10.0.0.2, port 8080\n"
                        "    server 10.0.0.2:8080;\n"
                        "    keepalive 32;\n"
                        "    keepalive_timeout 4s;\n"
                        "}\n"
                        "\n"
                        "upstream cm_auth { # auth-service, port 8081\n"
                        "    server 127.0.0.1:8081 down; # the name does not resolve\n"
                        "    keepalive 32;\n"
                        "    keepalive_timeout 4s;\n"
                        "}\n");
    assert_int_equal(nginx_conf_render_include("/a$b", &facts, &ret, &err), -1);
    assert_int_equal(err.kind, ERR_CONFIG);
    upstreams_done(&upstreams);
}

static void nameservers(void **state)
{
    char ret[512];
    char small[sizeof "127.0.0.1"];

    (void)state;
#define NAMESERVERS(conf, expected)                                                      \
    do {                                                                                 \
        nginx_conf_nameservers(conf, ret, sizeof ret);                                   \
        assert_string_equal(ret, expected);                                              \
    } while (0)
    NAMESERVERS("", "");
    NAMESERVERS("nameserver 127.0.0.11\noptions ndots:0\n", "127.0.0.11");
    NAMESERVERS(
        "# nameserver 1.1.1.1\n;nameserver 1.1.1.1\nsearch x\n\tnameserver\t10.0.0.1 # x",
        "10.0.0.1");
    NAMESERVERS("nameserver fd00::53\r\nnameserver 10.0.0.1\n", "[fd00::53] 10.0.0.1");
    NAMESERVERS(
        "nameserver fe80::1%eth0\nnameserver\nnameserver \nnameservers 1.1.1.1\n"
        "nameserver 1.1.1\nnameserver 1.1.1.1;evil\nnameserver127.0.0.1\n",
        "1.1.1.1");
    NAMESERVERS(
        "nameserver 1.1.1.1\nnameserver 1.1.1.2\nnameserver 1.1.1.3\nnameserver 1.1.1.4",
        "1.1.1.1 1.1.1.2 1.1.1.3");
    NAMESERVERS(
        "nameserver "
        "0000000000000000000000000000000000000000000000000000000000000000001",
        "");
    /* What does not fit is left out whole. */
    nginx_conf_nameservers("nameserver 127.0.0.1\nnameserver 1.1.1.1", small,
                           sizeof small);
    assert_string_equal(small, "127.0.0.1");
    nginx_conf_nameservers("nameserver 127.0.0.12", small, sizeof small);
    assert_string_equal(small, "");
    nginx_conf_nameservers("nameserver 127.0.0.1", small, 0);
}

static void versions(void **state)
{
    (void)state;
    assert_int_equal(nginx_conf_parse_version("nginx version: nginx/1.22.1\n"), 1022001);
    assert_int_equal(
        nginx_conf_parse_version("nginx version: nginx/1.29.8 (Debian)\nbuilt"), 1029008);
    assert_int_equal(nginx_conf_parse_version("warning\nnginx version: nginx/1.18.0"),
                     1018000);
    assert_int_equal(nginx_conf_parse_version("nginx version: openresty/1.21.4.1"), 0);
    assert_int_equal(nginx_conf_parse_version("nginx version: nginx/1.22"), 0);
    assert_int_equal(nginx_conf_parse_version("nginx version: nginx/"), 0);
    assert_int_equal(nginx_conf_parse_version("nginx version: nginx/x.1.2"), 0);
    assert_int_equal(nginx_conf_parse_version("nginx version: nginx/1.99999999999.1"), 0);
    assert_int_equal(nginx_conf_parse_version(""), 0);
}

static void read_template(const char *name, struct buf *ret)
{
    char path[FS_PATH_MAX];
    struct err err = ERR_INIT;

    if (fs_join(path, TEST_FOLDER "/../nginx_conf", name, &err) < 0 ||
        fs_read(path, NGINX_CONF_MAX_BYTES, ret, &err) < 0)
        fail_msg("%s", err.message);
}

/* The shipped templates name nothing that is not replaced, and keep what nginx reads. */
static void our_templates(void **state)
{
    struct fixture f = fixture();
    BUF_SCOPED base = {0};

    (void)state;
    add_origin(&f, "^https://example\\.test$");
    f.config.upstream.host = text("vllm");
    read_template("base.conf.tmpl", &base);
    for (unsigned development = 0; development < 2; development++) {
        struct err err = ERR_INIT;
        BUF_SCOPED https = {0};
        BUF_SCOPED ret;
        bool debug;

        f.config.development = development == 1;
        read_template(nginx_conf_https_template(&f.config), &https);
        assert_int_equal(
            render(&f, NGINX_HTTPS, buf_str(&base), buf_str(&https), &ret, &err), 0);
        assert_null(strstr(buf_str(&ret), "${"));
        assert_non_null(strstr(buf_str(&ret), "map $http_upgrade $connection_upgrade {"));
        assert_non_null(strstr(buf_str(&ret), "ssl_protocols TLSv1.3;"));
        assert_non_null(
            strstr(buf_str(&ret), "X-TLS-EKM-Channel-Binding $ekm_channel_binding;"));
        debug = strstr(buf_str(&ret), "location = /debug/ekm {") != NULL;
        assert_int_equal(debug, f.config.development);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(levels_and_templates),
        cmocka_unit_test(listens),
        cmocka_unit_test(port_80),
        cmocka_unit_test(resolver),
        cmocka_unit_test(max_body_size),
        cmocka_unit_test(cors_block),
        cmocka_unit_test(cors_refusals),
        cmocka_unit_test(cors_headers),
        cmocka_unit_test(auth_location),
        cmocka_unit_test(catch_all),
        cmocka_unit_test(no_upstreams_without_https),
        cmocka_unit_test(refusals),
        cmocka_unit_test(paths_are_quoted),
        cmocka_unit_test(too_large),
        cmocka_unit_test(include),
        cmocka_unit_test(nameservers),
        cmocka_unit_test(versions),
        cmocka_unit_test(our_templates),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
