#include "domain/upstreams.h"

#include "domain/config_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Texts of settings are never written to, and nothing is freed. */
static char *text(const char *literal)
{
    union {
        const char *in;
        char *out;
    } writable = {.in = literal};

    return writable.out;
}

enum { ROUTES_MAX = 8 };

struct fixture {
    struct config config;
    struct config_route routes[ROUTES_MAX];
    struct upstreams upstreams;
};

static void configure(struct fixture *f)
{
    *f = (struct fixture){.config.upstream.port = 8000};
    f->config.auth.enabled = true;
    f->config.auth.upstream = text("auth-service:8081");
    f->config.attestation.upstream = text("attestation-service:8080");
    f->config.routes.items = f->routes;
}

static void add_route(struct fixture *f, const char *upstream)
{
    assert_true(f->config.routes.count < ROUTES_MAX);
    f->routes[f->config.routes.count++].upstream = text(upstream);
}

static void init(struct fixture *f)
{
    struct err err = ERR_INIT;

    if (upstreams_init(&f->upstreams, &f->config, &err) < 0)
        fail_msg("%s", err.message);
}

static void expect_upstream(const struct fixture *f, size_t i, const char *name,
                            const char *host, unsigned port, bool literal)
{
    const struct upstream *upstream = &f->upstreams.items[i];

    assert_true(i < f->upstreams.count);
    assert_string_equal(upstream->name, name);
    assert_string_equal(upstream->host, host);
    assert_int_equal(upstream->port, port);
    assert_int_equal(upstream->literal, literal);
    assert_int_equal(upstream->count, literal ? 1 : 0);
    if (literal)
        assert_string_equal(upstream->addresses[0], host);
}

/* ---- what the settings name ---- */

static void services_are_always_there(void **state)
{
    struct fixture f;

    (void)state;
    configure(&f);
    init(&f);
    assert_int_equal(f.upstreams.count, 2);
    expect_upstream(&f, 0, "cm_attestation", "attestation-service", 8080, false);
    expect_upstream(&f, 1, "cm_auth", "auth-service", 8081, false);
    assert_true(upstreams_any_missing(&f.upstreams));
    upstreams_done(&f.upstreams);
    assert_int_equal(f.upstreams.count, 0);
    upstreams_done(&f.upstreams);
}

static void auth_is_left_out_when_it_is_off(void **state)
{
    struct fixture f;

    (void)state;
    configure(&f);
    f.config.auth.enabled = false;
    f.config.auth.upstream = text("not used; }");
    init(&f);
    assert_int_equal(f.upstreams.count, 1);
    expect_upstream(&f, 0, "cm_attestation", "attestation-service", 8080, false);
    upstreams_done(&f.upstreams);
}

static void the_catch_all_has_the_name_of_the_contract(void **state)
{
    static const struct {
        const char *setting;
        const char *host;
        bool literal;
    } hosts[] = {
        {"vllm", "vllm", false},        {"my_app.local", "my_app.local", false},
        {"10.0.0.2", "10.0.0.2", true}, {"fd00::2", "fd00::2", true},
        {"[fd00::2]", "fd00::2", true}, {"::1", "::1", true},
        {"127.1", "127.1", false}, /* to the resolver, not to us */
    };

    (void)state;
    for (size_t i = 0; i < sizeof hosts / sizeof hosts[0]; i++) {
        struct fixture f;

        configure(&f);
        f.config.upstream.host = text(hosts[i].setting);
        init(&f);
        assert_int_equal(f.upstreams.count, 3);
        expect_upstream(&f, 0, "app_backend", hosts[i].host, 8000, hosts[i].literal);
        upstreams_done(&f.upstreams);
    }
}

static void routes_to_one_backend_share_a_group(void **state)
{
    struct fixture f;

    (void)state;
    configure(&f);
    add_route(&f, "vllm:8000");
    add_route(&f, "other:8000");
    add_route(&f, "vllm:8000");
    add_route(&f, "vllm:8001");
    add_route(&f, "[fd00::2]:8000");
    add_route(&f, "[fd00::2]:08000");
    init(&f);
    assert_int_equal(f.upstreams.count, 6);
    expect_upstream(&f, 2, "cm_route_3", "vllm", 8000, false);
    expect_upstream(&f, 3, "cm_route_4", "other", 8000, false);
    expect_upstream(&f, 4, "cm_route_5", "vllm", 8001, false);
    expect_upstream(&f, 5, "cm_route_6", "fd00::2", 8000, true);
    assert_string_equal(upstreams_group_of(&f.upstreams, "vllm:8000"), "cm_route_3");
    assert_string_equal(upstreams_group_of(&f.upstreams, "other:8000"), "cm_route_4");
    assert_string_equal(upstreams_group_of(&f.upstreams, "vllm:8001"), "cm_route_5");
    assert_string_equal(upstreams_group_of(&f.upstreams, "[fd00::2]:8000"), "cm_route_6");
    assert_null(upstreams_group_of(&f.upstreams, "vllm:8002"));
    assert_null(upstreams_group_of(&f.upstreams, "nonsense"));
    upstreams_done(&f.upstreams);
}

/* The groups of the services stand in the include, and have other lives than the routes'. */
static void routes_share_nothing_with_the_services(void **state)
{
    struct fixture f;

    (void)state;
    configure(&f);
    f.config.upstream.host = text("attestation-service");
    f.config.upstream.port = 8080;
    add_route(&f, "attestation-service:8080");
    add_route(&f, "auth-service:8081");
    init(&f);
    assert_int_equal(f.upstreams.count, 5);
    assert_string_equal(upstreams_group_of(&f.upstreams, "attestation-service:8080"),
                        "cm_route_4");
    assert_string_equal(upstreams_group_of(&f.upstreams, "auth-service:8081"),
                        "cm_route_5");
    upstreams_done(&f.upstreams);
}

static void names_stay_names_for_many_routes(void **state)
{
    struct fixture f;
    struct config_route routes[CONFIG_ROUTES_MAX] = {{.path = NULL}};
    char hosts[CONFIG_ROUTES_MAX][32];

    (void)state;
    configure(&f);
    f.config.routes = (struct config_routes){.items = routes, .count = CONFIG_ROUTES_MAX};
    for (size_t i = 0; i < CONFIG_ROUTES_MAX; i++) {
        snprintf(hosts[i], sizeof hosts[i], "backend-%zu:80", i);
        routes[i].upstream = hosts[i];
    }
    init(&f);
    assert_int_equal(f.upstreams.count, 2 + CONFIG_ROUTES_MAX);
    for (size_t i = 0; i < CONFIG_ROUTES_MAX; i++) {
        char name[32];

        snprintf(name, sizeof name, "cm_route_%zu", i + 3);
        assert_string_equal(upstreams_group_of(&f.upstreams, hosts[i]), name);
    }
    upstreams_done(&f.upstreams);
}

/* ---- what is none ---- */

static void expect_refused(struct fixture *f, const char *message)
{
    struct err err = ERR_INIT;

    assert_int_equal(upstreams_init(&f->upstreams, &f->config, &err), -1);
    assert_null(f->upstreams.items);
    assert_int_equal(err.kind, ERR_CONFIG);
    assert_string_equal(err.message, message);
}

/* What could leave its place in the configuration, or is not what it seems. */
static void hosts_with_ports_that_are_none(void **state)
{
    static const char *const bad[] = {
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
        "a\":80",
        "a\n:80",
        "-a:80",
        ".a:80",
        "[::1",
        "[::1]",
        "[::1]x:80",
        "[zz]:80",
        "unix:/run/s",
        "a:+80",
        "a: 80",
        "a:80:80",
        "::1",
        "a:80\n",
        "é:80",
        "[]:80",
        "a\\:80",
        "a#:80",
        "[::1]:",
        "http://a:80",
        "[10.0.0.2]:80",
        "fd00::2:80",
        "[fe80::1%eth0]:80",
        "[[::1]]:80",
        "a:99999999999999999999",
        "a:80;",
        "a:-1",
        "a'b:80",
        "{a}:80",
    };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct fixture f;
        char message[512];
        static const char format[] =
            "%s: \"%s\" is not a host with a port, expected for example service:8080, "
            "10.0.0.2:8080 or [fd00::2]:8080";

        configure(&f);
        f.config.attestation.upstream = text(bad[i]);
        snprintf(message, sizeof message, format, "attestation.upstream", bad[i]);
        expect_refused(&f, message);
        configure(&f);
        f.config.auth.upstream = text(bad[i]);
        snprintf(message, sizeof message, format, "auth.upstream", bad[i]);
        expect_refused(&f, message);
        configure(&f);
        add_route(&f, "good:80");
        add_route(&f, bad[i]);
        snprintf(message, sizeof message, format, "routes", bad[i]);
        expect_refused(&f, message);
        assert_null(upstreams_group_of(&f.upstreams, bad[i]));
    }
}

static void hosts_that_are_none(void **state)
{
    static const char *const bad[] = {"",    "a b", "a;",   "a:80", "[::1",      "[]",
                                      "$a",  "-a",  ".a",   "a\n",  "a}",        "[a]",
                                      "a#b", "é",   "a\"b", "a\\",  "[10.0.0.2]"};

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct fixture f;
        char message[256];

        configure(&f);
        f.config.upstream.host = text(bad[i]);
        snprintf(message, sizeof message,
                 "upstream.host (UPSTREAM_HOST): \"%s\" is not a host name or address",
                 bad[i]);
        expect_refused(&f, message);
    }
}

static void ports_that_are_none(void **state)
{
    struct fixture f;

    (void)state;
    configure(&f);
    f.config.upstream.host = text("app");
    f.config.upstream.port = 0;
    expect_refused(&f,
                   "upstream.port (UPSTREAM_PORT): 0 is not a port, expected 1 to 65535");
    f.config.upstream.port = 65536;
    expect_refused(
        &f, "upstream.port (UPSTREAM_PORT): 65536 is not a port, expected 1 to 65535");
}

static void very_long_hosts(void **state)
{
    char host[UPSTREAM_HOST_SIZE + 8];
    struct fixture f;
    struct err err = ERR_INIT;

    (void)state;
    configure(&f);
    memset(host, 'a', sizeof host);
    memcpy(host + UPSTREAM_HOST_SIZE - 1, ":80", 4);
    add_route(&f, host);
    init(&f);
    upstreams_done(&f.upstreams);
    memcpy(host + UPSTREAM_HOST_SIZE - 1, "a:80", 5);
    assert_int_equal(upstreams_init(&f.upstreams, &f.config, &err), -1);
    assert_int_equal(err.kind, ERR_CONFIG);
}

/* Else the start would get through its checks, and the daemon would end. */
static void what_the_settings_accept_is_accepted(void **state)
{
    static const char *const upstreams[] = {
        "a:1",
        "my_app.local:65535",
        "10.0.0.2:80",
        "[::1]:8080",
        "unix:8080",
        "a-b:080",
        "localhost:1",
        "0:1",
        "a.:80",
        "a..b:80",
        "10.0.0:80",
        "_:1",
        "a-:1",
        "UNIX:80",
        "[0000:0000:0000:0000:0000:ffff:255.255.255.255]:80",
    };
    static const char *const hosts[] = {"a", "unix", "[fd00::2]", "fd00::2", "10.0.0.2"};

    (void)state;
    for (size_t i = 0; i < sizeof upstreams / sizeof upstreams[0]; i++) {
        struct fixture f;

        configure(&f);
        assert_true(config_has_form(CONFIG_HOST_PORT, upstreams[i]));
        f.config.auth.upstream = text(upstreams[i]);
        add_route(&f, upstreams[i]);
        init(&f);
        assert_non_null(upstreams_group_of(&f.upstreams, upstreams[i]));
        upstreams_done(&f.upstreams);
    }
    for (size_t i = 0; i < sizeof hosts / sizeof hosts[0]; i++) {
        struct fixture f;

        configure(&f);
        assert_true(config_has_form(CONFIG_HOST, hosts[i]));
        f.config.upstream.host = text(hosts[i]);
        init(&f);
        upstreams_done(&f.upstreams);
    }
}

/* ---- addresses ---- */

static const upstream_address none[1] = {""};

static void expect_addresses(const struct upstream *upstream, const char *expected)
{
    char found[UPSTREAM_ADDRESSES_MAX * (INET6_ADDRSTRLEN + 1)] = "";
    size_t used = 0;

    for (size_t i = 0; i < upstream->count; i++)
        used += (size_t)snprintf(found + used, sizeof found - used, "%s%s",
                                 i == 0 ? "" : " ", upstream->addresses[i]);
    assert_string_equal(found, expected);
}

static void the_order_of_an_answer_is_no_change(void **state)
{
    static const upstream_address forth[] = {"10.0.0.3", "10.0.0.1", "fd00::2"};
    static const upstream_address back[] = {"fd00::2", "10.0.0.1", "10.0.0.3"};
    static const upstream_address other[] = {"fd00::2", "10.0.0.1", "10.0.0.4"};
    struct upstream upstream = {.host = "app", .port = 80};

    (void)state;
    assert_true(upstream_update(&upstream, forth, 3));
    expect_addresses(&upstream, "10.0.0.1 10.0.0.3 fd00::2");
    assert_false(upstream_update(&upstream, forth, 3));
    assert_false(upstream_update(&upstream, back, 3));
    expect_addresses(&upstream, "10.0.0.1 10.0.0.3 fd00::2");
    assert_true(upstream_update(&upstream, other, 3));
    expect_addresses(&upstream, "10.0.0.1 10.0.0.4 fd00::2");
}

static void more_and_fewer_addresses_are_a_change(void **state)
{
    static const upstream_address found[] = {"10.0.0.1", "10.0.0.2"};
    struct upstream upstream = {.host = "app", .port = 80};

    (void)state;
    assert_true(upstream_update(&upstream, found, 1));
    assert_true(upstream_update(&upstream, found, 2));
    expect_addresses(&upstream, "10.0.0.1 10.0.0.2");
    assert_true(upstream_update(&upstream, found, 1));
    expect_addresses(&upstream, "10.0.0.1");
}

static void an_address_counts_once(void **state)
{
    static const upstream_address found[] = {"10.0.0.2", "10.0.0.1", "10.0.0.2",
                                             "10.0.0.1", "10.0.0.1"};
    static const upstream_address once[] = {"10.0.0.1", "10.0.0.2"};
    struct upstream upstream = {.host = "app", .port = 80};

    (void)state;
    assert_true(upstream_update(&upstream, found, 5));
    expect_addresses(&upstream, "10.0.0.1 10.0.0.2");
    assert_false(upstream_update(&upstream, once, 2));
}

static void an_empty_answer_leaves_what_was_there(void **state)
{
    static const upstream_address found[] = {"10.0.0.1"};
    struct upstream upstream = {.host = "app", .port = 80};

    (void)state;
    assert_false(upstream_update(&upstream, none, 0));
    assert_int_equal(upstream.count, 0);
    assert_true(upstream_update(&upstream, found, 1));
    assert_false(upstream_update(&upstream, none, 0));
    expect_addresses(&upstream, "10.0.0.1");
}

/* Of very many the same ones are kept, whatever their order. */
static void too_many_addresses_are_cut_the_same_way(void **state)
{
    enum { FOUND = 100 };
    upstream_address found[FOUND];
    struct upstream upstream = {.host = "app", .port = 80};

    (void)state;
    for (unsigned i = 0; i < FOUND; i++)
        snprintf(found[i], sizeof found[i], "10.0.0.%u", i < 64 ? 163 - i : i);
    assert_true(upstream_update(&upstream, found, 40));
    expect_addresses(&upstream,
                     "10.0.0.124 10.0.0.125 10.0.0.126 10.0.0.127 10.0.0.128 "
                     "10.0.0.129 10.0.0.130 10.0.0.131 10.0.0.132 10.0.0.133 "
                     "10.0.0.134 10.0.0.135 10.0.0.136 10.0.0.137 10.0.0.138 "
                     "10.0.0.139");
    for (unsigned i = 0; i < 20; i++) {
        upstream_address last;

        memcpy(last, found[39 - i], sizeof last);
        memcpy(found[39 - i], found[i], sizeof last);
        memcpy(found[i], last, sizeof last);
    }
    assert_false(upstream_update(&upstream, found, 40));
    /* More than a look-up finds: the rest is not looked at. */
    assert_true(upstream_update(&upstream, found, FOUND));
    assert_int_equal(upstream.count, UPSTREAM_ADDRESSES_MAX);
    assert_string_equal(upstream.addresses[0], "10.0.0.100");
}

static void an_address_is_never_looked_up(void **state)
{
    static const upstream_address found[] = {"10.0.0.9"};
    struct fixture f;

    (void)state;
    configure(&f);
    f.config.attestation.upstream = text("10.0.0.2:80");
    f.config.auth.enabled = false;
    init(&f);
    assert_false(upstreams_any_missing(&f.upstreams));
    assert_false(upstream_update(&f.upstreams.items[0], found, 1));
    assert_false(upstream_update(&f.upstreams.items[0], none, 0));
    expect_addresses(&f.upstreams.items[0], "10.0.0.2");
    upstreams_done(&f.upstreams);
}

static void one_without_addresses_is_missing(void **state)
{
    static const upstream_address found[] = {"10.0.0.9"};
    struct fixture f;

    (void)state;
    configure(&f);
    init(&f);
    assert_true(upstream_update(&f.upstreams.items[0], found, 1));
    assert_true(upstreams_any_missing(&f.upstreams));
    assert_true(upstream_update(&f.upstreams.items[1], found, 1));
    assert_false(upstreams_any_missing(&f.upstreams));
    upstreams_done(&f.upstreams);
}

/* ---- text ---- */

static void expect_text(const struct upstream *upstream, const char *expected)
{
    struct err err = ERR_INIT;
    BUF_SCOPED ret;

    buf_init(&ret, 4096);
    if (upstream_render(upstream, &ret, &err) < 0)
        fail_msg("%s", err.message);
    assert_string_equal(buf_str(&ret), expected);
}

static void a_group_is_its_addresses(void **state)
{
    static const upstream_address found[] = {"fd00::2", "10.0.0.1"};
    struct upstream upstream = {.name = "cm_route_3", .host = "app", .port = 8000};

    (void)state;
    assert_true(upstream_update(&upstream, found, 2));
    expect_text(&upstream,
                "upstream cm_route_3 { # app, port 8000\n"
                "    server 10.0.0.1:8000;\n"
                "    server [fd00::2]:8000;\n"
                "    keepalive 32;\n"
                "    keepalive_timeout 4s;\n"
                "}");
}

static void what_another_set_knows_of_a_host_is_known(void **state)
{
    struct upstream known[] = {{.host = "auth", .port = 1}, {.host = "gone", .port = 2}};
    struct upstream items[] = {{.host = "new", .port = 3}, {.host = "auth", .port = 4}};
    const upstream_address found[] = {"192.0.2.1"};
    const struct upstreams before = {.items = known, .count = 2};
    struct upstreams now = {.items = items, .count = 2};

    (void)state;
    assert_true(upstream_update(&known[0], found, 1));
    upstreams_recall(&now, &before);
    assert_int_equal(items[0].count, 0);
    assert_int_equal(items[1].count, 1);
    assert_string_equal(items[1].addresses[0], "192.0.2.1");
}

static void a_group_without_addresses_is_never_asked(void **state)
{
    const struct upstream upstream = {.name = "cm_auth", .host = "auth", .port = 8081};

    (void)state;
    expect_text(&upstream,
                "upstream cm_auth { # auth, port 8081\n"
                "    server 127.0.0.1:8081 down; # the name does not resolve\n"
                "    keepalive 32;\n"
                "    keepalive_timeout 4s;\n"
                "}");
}

static void a_group_needs_its_room(void **state)
{
    const struct upstream upstream = {.name = "cm_auth", .host = "auth", .port = 8081};

    (void)state;
    for (size_t max = 0; max < 140; max++) {
        struct err err = ERR_INIT;
        BUF_SCOPED ret;

        buf_init(&ret, max);
        if (upstream_render(&upstream, &ret, &err) < 0)
            assert_int_equal(err.kind, ERR_PEER);
        else
            assert_true(max > 100);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(services_are_always_there),
        cmocka_unit_test(auth_is_left_out_when_it_is_off),
        cmocka_unit_test(the_catch_all_has_the_name_of_the_contract),
        cmocka_unit_test(routes_to_one_backend_share_a_group),
        cmocka_unit_test(routes_share_nothing_with_the_services),
        cmocka_unit_test(names_stay_names_for_many_routes),
        cmocka_unit_test(hosts_with_ports_that_are_none),
        cmocka_unit_test(hosts_that_are_none),
        cmocka_unit_test(ports_that_are_none),
        cmocka_unit_test(very_long_hosts),
        cmocka_unit_test(what_the_settings_accept_is_accepted),
        cmocka_unit_test(the_order_of_an_answer_is_no_change),
        cmocka_unit_test(more_and_fewer_addresses_are_a_change),
        cmocka_unit_test(an_address_counts_once),
        cmocka_unit_test(an_empty_answer_leaves_what_was_there),
        cmocka_unit_test(too_many_addresses_are_cut_the_same_way),
        cmocka_unit_test(an_address_is_never_looked_up),
        cmocka_unit_test(one_without_addresses_is_missing),
        cmocka_unit_test(a_group_is_its_addresses),
        cmocka_unit_test(a_group_without_addresses_is_never_asked),
        cmocka_unit_test(what_another_set_knows_of_a_host_is_known),
        cmocka_unit_test(a_group_needs_its_room),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
