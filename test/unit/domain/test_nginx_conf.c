#include "domain/nginx_conf.h"

#include "base/fs.h"
#include "support/site_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void levels_and_templates(void **state)
{
    struct site_fixture f;
    struct err err = ERR_INIT;
    BUF_SCOPED http;
    BUF_SCOPED https;

    (void)state;
    site_fixture_init(&f);
    assert_int_equal(site_render(&f, NGINX_HTTP_ONLY, "${DOMAIN} ${UNKNOWN} $host\n",
                                 NULL, &http, &err),
                     0);
    assert_string_equal(buf_str(&http), "vllm.example.test ${UNKNOWN} $host\n");
    assert_int_equal(
        site_render(&f, NGINX_HTTPS, "base\n", "https ${DOMAIN}\n", &https, &err), 0);
    assert_string_equal(buf_str(&https), "base\nhttps vllm.example.test\n");

    assert_string_equal(nginx_level_name(NGINX_HTTP_ONLY), "http-only");
    assert_string_equal(nginx_level_name(NGINX_HTTPS_REDUCED), "reduced");
    assert_string_equal(nginx_level_name(NGINX_HTTPS), "full");
    assert_string_equal(nginx_conf_https_template(&f.config), "https.conf.tmpl");
    f.config.development = true;
    assert_string_equal(nginx_conf_https_template(&f.config), "https-dev.conf.tmpl");
}

static void listens(void **state)
{
    struct site_fixture f;

    (void)state;
    site_fixture_init(&f);
    site_expect(&f, "${HTTP_LISTEN}", "listen 80;\n    listen [::]:80;");
    site_expect(&f, "${HTTPS_LISTEN}",
                "listen 443 ssl http2;\n    listen [::]:443 ssl http2;");
    f.facts.ipv6 = false;
    site_expect(&f, "${HTTP_LISTEN}|${HTTPS_LISTEN}", "listen 80;|listen 443 ssl http2;");
    f.facts.version = 0;
    site_expect(&f, "${HTTPS_LISTEN}", "listen 443 ssl http2;");
    f.facts.version = 1025000;
    site_expect(&f, "${HTTPS_LISTEN}", "listen 443 ssl http2;");
    f.facts.version = 1025001;
    site_expect(&f, "${HTTPS_LISTEN}", "listen 443 ssl;\n    http2 on;");
    f.config.nginx.address = site_text("127.0.0.1");
    f.config.nginx.http_port = 8080;
    site_expect(&f, "${HTTP_LISTEN}|${HTTPS_LISTEN}",
                "listen 127.0.0.1:8080;|listen 127.0.0.1:443 ssl;\n    http2 on;");
    f.config.nginx.address = site_text("::1");
    site_expect_refused(&f, "no IPv6");
    f.facts.ipv6 = true;
    site_expect(&f, "${HTTP_LISTEN}", "listen [::1]:8080;");
}

/* Both ports expect the header, and believe only those networks. */
static void listens_behind_a_balancer(void **state)
{
    static const char *const bad[] = {"10.0.0.0/8;", "a b", "localhost", "10.0.0.1 evil",
                                      "10.0.0.1\n",  "$x",  "unix:"};
    struct site_fixture f;

    (void)state;
    site_fixture_init(&f);
    site_add_network(&f, "10.0.0.0/8");
    site_expect(&f, "${HTTP_LISTEN}", "listen 80;\n    listen [::]:80;");
    f.config.nginx.proxy_protocol = true;
    site_add_network(&f, "fd00::/8");
    site_expect(&f, "${HTTP_LISTEN}",
                "listen 80 proxy_protocol;\n"
                "    listen [::]:80 proxy_protocol;\n"
                "    set_real_ip_from 10.0.0.0/8;\n"
                "    set_real_ip_from fd00::/8;\n"
                "    real_ip_header proxy_protocol;");
    f.facts.ipv6 = false;
    site_expect(&f, "${HTTPS_LISTEN}",
                "listen 443 ssl http2 proxy_protocol;\n"
                "    set_real_ip_from 10.0.0.0/8;\n"
                "    set_real_ip_from fd00::/8;\n"
                "    real_ip_header proxy_protocol;");
    f.facts.version = 1025001;
    f.config.nginx.address = site_text("127.0.0.1");
    site_expect(&f, "${HTTPS_LISTEN}",
                "listen 127.0.0.1:443 ssl proxy_protocol;\n"
                "    set_real_ip_from 10.0.0.0/8;\n"
                "    set_real_ip_from fd00::/8;\n"
                "    real_ip_header proxy_protocol;\n"
                "    http2 on;");
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        f.networks[1] = site_text(bad[i]);
        site_expect_refused(&f, "nginx.trusted_proxies: \"");
    }
}

static void port_80(void **state)
{
    static const char provisioning[] = "Service starting, certificate being provisioned";
    struct site_fixture f;
    struct err err = ERR_INIT;
    BUF_SCOPED ret;

    (void)state;
    site_fixture_init(&f);
    site_expect(&f, "${HTTP_FALLBACK}", "return 301 https://$host$request_uri;");
    f.config.nginx.https_port = 8443;
    site_expect(&f, "${HTTP_FALLBACK}", "return 301 https://$host:8443$request_uri;");
    assert_int_equal(
        site_render(&f, NGINX_HTTP_ONLY, "${HTTP_FALLBACK}", NULL, &ret, &err), 0);
    assert_non_null(strstr(buf_str(&ret), provisioning));
    assert_non_null(strstr(buf_str(&ret), "add_header Retry-After 5 always;"));
    assert_non_null(strstr(buf_str(&ret), "return 503 "));
    assert_null(strstr(buf_str(&ret), "301"));
}

static void every_name_is_a_server_name(void **state)
{
    struct site_fixture f;

    (void)state;
    site_fixture_init(&f);
    site_expect(&f, "${SERVER_NAMES}", "vllm.example.test");
    site_add_name(&f, "www.example.test");
    site_add_name(&f, "*.example.org");
    site_expect(&f, "${DOMAIN}: ${SERVER_NAMES};",
                "vllm.example.test: vllm.example.test www.example.test *.example.org;");
    f.names[2] = site_text("*.example.org; evil on");
    site_expect_refused(&f, "domains: ");
}

#define THUMBPRINT "abcdefghijklmnopqrstuvwxyzABCDEFGHIJK-_0123"

static void know_account(struct site_fixture *f, const char *thumbprint)
{
    f->config.acme.stateless = true;
    snprintf(f->facts.account_thumbprint, sizeof f->facts.account_thumbprint, "%s",
             thumbprint);
}

static void challenges_without_files(void **state)
{
    struct site_fixture f;

    (void)state;
    site_fixture_init(&f);
    know_account(&f, THUMBPRINT);
    site_expect(
        &f, "${CHALLENGE_TOKENS}",
        "location ~ \"^/\\.well-known/acme-challenge/([-_A-Za-z0-9]{22,128})\\z\" {\n"
        "            set $cm_acme_token $1;\n"
        "            try_files $uri @cm_acme_answer;\n"
        "        }");
    site_add_name(&f, "www.example.test");
    site_expect(&f, "${CHALLENGE_ANSWERS}",
                "location @cm_acme_answer {\n"
                "        types { }\n"
                "        default_type text/plain;\n"
                "        add_header X-Content-Type-Options nosniff always;\n"
                "        if ($request_method !~ \"^(GET|HEAD)\\z\") {\n"
                "            return 405;\n"
                "        }\n"
                "        if ($host = \"vllm.example.test\") {\n"
                "            return 200 \"$cm_acme_token." THUMBPRINT
                "\";\n"
                "        }\n"
                "        if ($host = \"www.example.test\") {\n"
                "            return 200 \"$cm_acme_token." THUMBPRINT
                "\";\n"
                "        }\n"
                "        return 404;\n"
                "    }");
}

static void challenges_need_files_unless_there_is_an_account(void **state)
{
    static const char both[] = "[${CHALLENGE_TOKENS}${CHALLENGE_ANSWERS}]";
    struct site_fixture f;

    (void)state;
    site_fixture_init(&f);
    know_account(&f, "");
    site_expect(&f, both, "[]");
    know_account(&f, THUMBPRINT);
    f.config.acme.stateless = false;
    site_expect(&f, both, "[]");
    f.config.acme.stateless = true;
    f.config.development = true;
    site_expect(&f, both, "[]");
    f.config.development = false;
    f.config.tls.external_key = true;
    site_expect(&f, both, "[]");
}

static void a_thumbprint_that_is_none_is_refused(void **state)
{
    static const char *const bad[] = {
        "x",
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJK-_012",
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJK-_012\"",
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJK-_012$",
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJK-_012+",
    };
    struct site_fixture f;

    (void)state;
    site_fixture_init(&f);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        know_account(&f, bad[i]);
        site_expect_refused(&f, "is not the thumbprint of an account key");
    }
    assert_true(nginx_conf_is_thumbprint(THUMBPRINT));
    assert_false(nginx_conf_is_thumbprint(THUMBPRINT "x"));
}

static void resolver(void **state)
{
    struct site_fixture f;

    (void)state;
    site_fixture_init(&f);
    site_expect(&f, "[${RESOLVER}]", "[]");
    snprintf(f.facts.nameservers, sizeof f.facts.nameservers, "127.0.0.11 [fd00::53]");
    site_expect(&f, "${RESOLVER}",
                "resolver 127.0.0.11 [fd00::53] valid=10s; resolver_timeout 5s;");
    f.facts.ipv6 = false;
    site_expect(
        &f, "${RESOLVER}",
        "resolver 127.0.0.11 [fd00::53] valid=10s ipv6=off; resolver_timeout 5s;");
    snprintf(f.facts.nameservers, sizeof f.facts.nameservers, "127.0.0.11; evil");
    site_expect_refused(&f, "nameservers");
}

static void max_body_size(void **state)
{
    static const char *const good[] = {"0",   "10737418240", "9223372036854775807", "10k",
                                       "10K", "20m",         "8589934591G"};
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
                                      "8589934592g",
                                      "9223372036854775808"};
    struct site_fixture f;

    (void)state;
    site_fixture_init(&f);
    site_expect(&f, "[${CLIENT_MAX_BODY_SIZE}]", "[]");
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        char expected[64];

        f.config.nginx.max_body_size = site_text(good[i]);
        snprintf(expected, sizeof expected, "client_max_body_size %s;", good[i]);
        site_expect(&f, "${CLIENT_MAX_BODY_SIZE}", expected);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        f.config.nginx.max_body_size = site_text(bad[i]);
        site_expect_refused(&f, "NGINX_MAX_BODY_SIZE");
    }
}

static void refusals(void **state)
{
    struct site_fixture f;

    (void)state;
#define REFUSED(member, value, named)                                                    \
    do {                                                                                 \
        site_fixture_init(&f);                                                           \
        f.config.member = (value);                                                       \
        site_expect_refused(&f, named);                                                  \
    } while (0)
    REFUSED(domain, site_text("a b.test"), "DOMAIN");
    REFUSED(domain, site_text("a.test; evil on"), "DOMAIN");
    REFUSED(domain, site_text(""), "DOMAIN");
    REFUSED(domains.items[0], site_text("a.test; evil on"), "domains");
    REFUSED(nginx.http_port, 0, "nginx.http_port");
    REFUSED(nginx.https_port, 65536, "nginx.https_port");
    REFUSED(nginx.https_port, 80, "nginx.https_port");
    REFUSED(nginx.address, site_text("localhost"), "nginx.address");
    REFUSED(nginx.address, site_text("127.0.0.1:80;"), "nginx.address");
    REFUSED(nginx.address, site_text("::1%eth0"), "nginx.address");
    REFUSED(nginx.webroot, site_text("relative"), "nginx.webroot");
    REFUSED(nginx.webroot, site_text("/a$host"), "nginx.webroot");
    REFUSED(tls.dir, site_text("/a\nb"), "tls.dir");
}

static void paths_are_quoted(void **state)
{
    struct site_fixture f;

    (void)state;
    site_fixture_init(&f);
    f.config.tls.dir = site_text("/a b;{}#\"c\\d'");
    f.config.nginx.webroot = site_text("/w\"w");
    site_expect(&f, "\"${TLS_DIR}/cert.pem\" \"${WEBROOT}\"",
                "\"/a b;{}#\\\"c\\\\d'/cert.pem\" \"/w\\\"w\"");
}

static void too_large(void **state)
{
    struct site_fixture f;
    struct err err = ERR_INIT;
    BUF_SCOPED ret;
    BUF_SCOPED large;

    (void)state;
    site_fixture_init(&f);
    buf_init(&large, (size_t)2 * NGINX_CONF_MAX_BYTES);
    for (size_t i = 0; i <= NGINX_CONF_MAX_BYTES; i += 16)
        assert_int_equal(buf_append_str(&large, "# 0123456789abc\n", &err), 0);
    assert_int_equal(site_render(&f, NGINX_HTTPS, buf_str(&large), "", &ret, &err), -1);
    assert_int_equal(err.kind, ERR_CONFIG);
}

static void include(void **state)
{
    struct site_fixture f;
    struct upstreams upstreams;
    struct nginx_facts facts = {.upstreams = &upstreams, .live_chain = "/run/live.pem"};
    struct err err = ERR_INIT;
    BUF_SCOPED ret;

    (void)state;
    site_fixture_init(&f);
    f.config.attestation.upstream = site_text("10.0.0.2:8080");
    f.config.upstream.host = site_text("10.0.0.3");
    assert_int_equal(upstreams_init(&upstreams, &f.config, &err), 0);
    buf_init(&ret, 4096);
    assert_int_equal(
        nginx_conf_render_include("/run/cert-manager/ekm", &facts, &ret, &err), 0);
    assert_string_equal(buf_str(&ret),
                        "ekm_secret_file \"/run/cert-manager/ekm\";\n"
                        "live_chain \"/run/live.pem\";\n"
                        "\n"
                        "map $http_upgrade $cm_connection {\n"
                        "    default        '';\n"
                        "    ~*^websocket$  upgrade;\n"
                        "}\n"
                        "map $http_upgrade $cm_upgrade {\n"
                        "    default        '';\n"
                        "    ~*^websocket$  websocket;\n"
                        "}\n"
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

/* As a group: in proxy_pass the path would end at its first colon. */
static void include_has_the_socket_of_metrics(void **state)
{
    struct site_fixture f;
    struct upstreams upstreams = {.count = 0};
    struct nginx_facts facts = {.upstreams = &upstreams,
                                .metrics_socket = "/run/a:b/metrics.sock"};
    struct err err = ERR_INIT;
    BUF_SCOPED ret = {.max = 4096};

    (void)state;
    site_fixture_init(&f);
    assert_int_equal(nginx_conf_render_include("/run/ekm", &facts, &ret, &err), 0);
    assert_non_null(strstr(buf_str(&ret),
                           "upstream cm_metrics {\n"
                           "    server \"unix:/run/a:b/metrics.sock\";\n"
                           "}\n"));
    snprintf(facts.metrics_socket, sizeof facts.metrics_socket, "/run/$a");
    assert_int_equal(nginx_conf_render_include("/run/ekm", &facts, &ret, &err), -1);
    assert_int_equal(err.kind, ERR_CONFIG);
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
    struct site_fixture f;
    BUF_SCOPED base = {0};

    (void)state;
    site_fixture_init(&f);
    site_add_origin(&f, "^https://example\\.test$");
    f.config.upstream.host = site_text("vllm");
    read_template("base.conf.tmpl", &base);
    for (unsigned development = 0; development < 2; development++) {
        struct err err = ERR_INIT;
        BUF_SCOPED https = {0};
        BUF_SCOPED ret;
        bool debug;

        f.config.development = development == 1;
        read_template(nginx_conf_https_template(&f.config), &https);
        assert_int_equal(
            site_render(&f, NGINX_HTTPS, buf_str(&base), buf_str(&https), &ret, &err), 0);
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
        cmocka_unit_test(listens_behind_a_balancer),
        cmocka_unit_test(port_80),
        cmocka_unit_test(every_name_is_a_server_name),
        cmocka_unit_test(challenges_without_files),
        cmocka_unit_test(challenges_need_files_unless_there_is_an_account),
        cmocka_unit_test(a_thumbprint_that_is_none_is_refused),
        cmocka_unit_test(resolver),
        cmocka_unit_test(max_body_size),
        cmocka_unit_test(refusals),
        cmocka_unit_test(paths_are_quoted),
        cmocka_unit_test(too_large),
        cmocka_unit_test(include),
        cmocka_unit_test(include_has_the_socket_of_metrics),
        cmocka_unit_test(nameservers),
        cmocka_unit_test(versions),
        cmocka_unit_test(our_templates),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
