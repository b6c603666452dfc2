#include "adapters/nginx_compose.h"

#include "support/nginx_fixture.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* The real nginx, which does not have our modules here. */
#define NGINX_WITHOUT_MODULES                                                            \
    "sed -i '/^ekm_secret_file /d; /^live_chain /d' \"${4%/*}/nginx-http.conf\"\n"       \
    "exec " NGINX " \"$@\""

static void use_nginx(struct nginx_fixture *f)
{
    fixture_need_nginx();
    fixture_write_good_pair(f);
    fixture_use_script(f, NGINX_WITHOUT_MODULES);
}

static void start(struct nginx_fixture *f)
{
    const struct nginx_compose_request request = {
        .loop = f->loop,
        .config = &f->config,
        .facts = &f->facts,
        .chain = f->staged_chain,
        .key = f->staged_key,
    };

    nginx_compose_done(&f->compose);
    f->ended = (struct ended){0};
    nginx_compose_start(&f->compose, &request, ended_done, &f->ended);
    assert_int_equal(f->ended.times, 0);
}

static void run(struct nginx_fixture *f)
{
    start(f);
    loop_run(f->loop);
    assert_int_equal(f->ended.times, 1);
    assert_false(fs_exists(f->mirror));
}

/* The results are what the level renders to. */
static void assert_level(const struct nginx_fixture *f, enum nginx_level level)
{
    struct err err = ERR_INIT;
    BUF_SCOPED site = {0};
    BUF_SCOPED include = {0};

    assert_string_equal(nginx_level_name(f->compose.level), nginx_level_name(level));
    if (fixture_render(f, level, &site, &include, &err) < 0)
        fail_msg("%s", err.message);
    assert_string_equal(buf_str(&f->compose.site), buf_str(&site));
    assert_string_equal(buf_str(&f->compose.include), buf_str(&include));
}

static void expect_full(struct nginx_fixture *f)
{
    run(f);
    ended_assert_ok(&f->ended);
    if (f->compose.refusal.kind != ERR_NONE)
        fail_msg("%s", f->compose.refusal.message);
    assert_level(f, NGINX_HTTPS);
    assert_int_equal(f->compose.refused.len, 0);
    assert_false(f->compose.unresolved);
    assert_false(fs_exists(f->refused));
}

static void expect_reduced(struct nginx_fixture *f, const char *why, bool unresolved)
{
    run(f);
    ended_assert_ok(&f->ended);
    if (strstr(f->compose.refusal.message, why) == NULL)
        fail_msg("\"%s\" is not in \"%s\"", why, f->compose.refusal.message);
    assert_int_equal(f->compose.refusal.kind, ERR_CONFIG);
    assert_level(f, NGINX_HTTPS_REDUCED);
    assert_int_equal(f->compose.unresolved, unresolved);
    fixture_assert_file(f->refused, buf_str(&f->compose.refused));
}

/* Routes stand in an array of the caller's. */
static struct config_route *add_route(struct nginx_fixture *f, const char *path,
                                      const char *upstream)
{
    struct config_routes *routes = &f->config.routes;
    struct config_route *route = &routes->items[routes->count++];

    *route = (struct config_route){
        .path = fixture_text(path),
        .upstream = fixture_text(upstream),
        .cors = true,
        .websocket = true,
        .timeout_ms = 1000,
    };
    return route;
}

/* ---- all of it ---- */

static void what_nginx_takes_is_all_of_it(void **state)
{
    struct nginx_fixture *f = *state;

    use_nginx(f);
    expect_full(f);
    f->config.auth.enabled = false;
    f->config.development = true;
    fixture_init_upstreams(f);
    expect_full(f);
}

/* Every setting that changes the text, with values that could leave their place in it. */
static void nginx_takes_every_setting(void **state)
{
    char *networks[] = {fixture_text("10.0.0.0/8"), fixture_text("fd00::/8"),
                        fixture_text("0.0.0.0/0"), fixture_text("::ffff:10.0.0.0/104")};
    char *origins[] = {fixture_text("^https?://([^.]+\\.)*example\\.org(:[0-9]{1,5})?$"),
                       fixture_text("a\"b\\\\c;{}#$x ${y}'")};
    struct nginx_fixture *f = *state;
    struct config *config = &f->config;
    struct config_route routes[5];
    struct config_route *route;

    use_nginx(f);
    config->nginx.trusted_proxies = (struct config_list){.items = networks, .count = 4};
    config->nginx.proxy_protocol = true;
    config->nginx.hsts_days = 3650;
    config->nginx.max_body_size = fixture_text("20m");
    config->cors_origins = (struct config_list){.items = origins, .count = 2};
    config->nginx.extra_upstreams = fixture_text("upstream mine { server 10.0.0.9; }");
    config->nginx.extra_locations =
        fixture_text("location /mine { ${CORS_HEADERS} proxy_pass http://mine; }");
    config->upstream.host = fixture_text("[fd00::2]");
    config->routes.items = routes;
    add_route(f, "/~!&'()*+,=:@-._", "10.0.0.1:1");
    add_route(f, "/~!&'()*+,=:@-._", "10.0.0.1:1")->exact = true;
    add_route(f, "/", "[fd00::2]:8000")->exact = true;
    route = add_route(f, "/v1/", "does-not-resolve:65535");
    route->auth = true;
    route->ekm = true;
    route = add_route(f, "/quiet", "10.0.0.1:1");
    route->cors = false;
    route->websocket = false;
    route->buffering = true;
    route->timeout_ms = 24 * 3600 * 1000;
    fixture_init_upstreams(f);
    snprintf(f->facts.nameservers, sizeof f->facts.nameservers, "127.0.0.11 [fd00::53]");
    expect_full(f);
    config->development = true;
    expect_full(f);
    /* And what is left of them without the application. */
    config->nginx.extra_locations = fixture_text("no_such_directive on;");
    expect_reduced(f, "unknown directive \"no_such_directive\"", false);
    config->cors_origins.count = 0;
    expect_reduced(f, "unknown directive \"no_such_directive\"", false);
}

/* ---- without the application ---- */

/* The line that the message names, in the text that it names. */
static void assert_line_has(const struct nginx_fixture *f, const char *message,
                            const char *part)
{
    char named[PATH_SIZE + 8];
    const char *at;
    unsigned long line;
    struct err err = ERR_INIT;
    BUF_SCOPED text = {0};
    const char *begin;

    snprintf(named, sizeof named, " in %s:", f->refused);
    at = strstr(message, named);
    assert_non_null(at);
    line = strtoul(at + strlen(named), NULL, 10);
    assert_int_equal(fs_read(f->refused, NGINX_CONF_MAX_BYTES, &text, &err), 0);
    begin = buf_str(&text);
    for (unsigned long i = 1; i < line && begin != NULL; i++)
        begin = strchr(begin, '\n') == NULL ? NULL : strchr(begin, '\n') + 1;
    assert_non_null(begin);
    assert_non_null(memmem(begin, strcspn(begin, "\n"), part, strlen(part)));
}

static void a_fragment_that_is_refused_costs_the_application(void **state)
{
    struct nginx_fixture *f = *state;

    use_nginx(f);
    f->config.upstream.host = fixture_text("10.0.0.1");
    f->config.nginx.extra_locations =
        fixture_text("location /a { }\nlocation /b { no_such_directive on; }\n");
    fixture_init_upstreams(f);
    run(f);
    ended_assert_ok(&f->ended);
    assert_level(f, NGINX_HTTPS_REDUCED);
    assert_int_equal(f->compose.refusal.kind, ERR_CONFIG);
    assert_line_has(f, f->compose.refusal.message,
                    "location /b { no_such_directive on; }");
    assert_null(strstr(f->compose.refusal.message, f->mirror));
    assert_non_null(strstr(buf_str(&f->compose.refused), "no_such_directive"));
    assert_non_null(strstr(buf_str(&f->compose.refused), "upstream app_backend {"));
    assert_null(strstr(buf_str(&f->compose.site), "no_such_directive"));
    assert_null(strstr(buf_str(&f->compose.site), "app_backend"));
    fixture_assert_file(f->refused, buf_str(&f->compose.refused));
    fixture_assert_mode(f->refused, S_IFREG | 0600);
}

static void a_name_of_a_fragment_that_does_not_resolve_is_told_apart(void **state)
{
    struct nginx_fixture *f = *state;

    use_nginx(f);
    f->config.nginx.extra_locations =
        fixture_text("location /a { proxy_pass http://no..such.invalid; }");
    expect_reduced(f, "host not found in upstream \"no..such.invalid\"", true);
    f->config.nginx.extra_locations = fixture_text("");
    f->config.nginx.extra_upstreams =
        fixture_text("upstream a { server no..such.invalid:80; }");
    expect_reduced(f, "host not found in upstream \"no..such.invalid:80\"", true);
    f->config.nginx.extra_upstreams = fixture_text("upstream cm_auth { server a; }");
    expect_reduced(f, "duplicate upstream \"cm_auth\"", false);
}

/* A path that a fragment has twice is nginx's to see: no setting is wrong by itself. */
static void a_path_that_is_there_twice_is_refused(void **state)
{
    struct nginx_fixture *f = *state;

    use_nginx(f);
    f->config.nginx.extra_locations =
        fixture_text("location = /tdx_quote { return 204; }");
    expect_reduced(f, "duplicate location \"/tdx_quote\"", false);
}

static void what_was_refused_is_forgotten_when_nginx_takes_it(void **state)
{
    struct nginx_fixture *f = *state;

    use_nginx(f);
    f->config.nginx.extra_locations = fixture_text("no_such_directive on;");
    expect_reduced(f, "no_such_directive", false);
    assert_true(fs_exists(f->refused));
    f->config.nginx.extra_locations = fixture_text("");
    expect_full(f);
    assert_false(fs_exists(f->refused));
}

/* ---- templates of the deployment ---- */

static void use_templates(struct nginx_fixture *f, char folder[PATH_SIZE])
{
    fixture_path(folder, f->folder, "templates");
    fixture_make_folder(folder);
    f->config.nginx.templates = folder;
}

static void write_template(const char *folder, const char *name, const char *content)
{
    char path[PATH_SIZE];

    fixture_path(path, folder, name);
    fixture_write(path, content);
}

static void a_template_that_is_refused_gives_way_to_ours(void **state)
{
    struct nginx_fixture *f = *state;
    char folder[PATH_SIZE];

    use_nginx(f);
    use_templates(f, folder);
    write_template(folder, "base.conf.tmpl", "# mine\n");
    write_template(folder, "https.conf.tmpl", "server { no_such_directive on; }\n");
    expect_reduced(f, "unknown directive \"no_such_directive\"", false);
    write_template(folder, "https.conf.tmpl", "server { set $x ${DOMAIN}; }\n");
    expect_full(f);
}

static void a_template_that_is_missing_gives_way_to_ours(void **state)
{
    struct nginx_fixture *f = *state;
    char folder[PATH_SIZE];

    use_nginx(f);
    use_templates(f, folder);
    write_template(folder, "base.conf.tmpl", "# mine\n");
    run(f);
    ended_assert_ok(&f->ended);
    assert_level(f, NGINX_HTTPS_REDUCED);
    assert_non_null(strstr(f->compose.refusal.message, "/templates/https.conf.tmpl"));
    assert_false(f->compose.unresolved);
    /* There is no text that anybody refused. */
    assert_int_equal(f->compose.refused.len, 0);
    assert_false(fs_exists(f->refused));
}

static void without_our_templates_there_is_no_way_down(void **state)
{
    struct nginx_fixture *f = *state;
    char folder[PATH_SIZE];

    use_nginx(f);
    use_templates(f, folder);
    f->config.nginx.stock_templates = fixture_text("/nowhere");
    run(f);
    ended_assert_failed(&f->ended, ERR_SYS, "/nowhere/base.conf.tmpl");
    assert_int_equal(f->ended.err.code, ENOENT);
}

/* ---- not for the application's sake ---- */

static void what_is_refused_without_the_application_is_an_error(void **state)
{
    struct nginx_fixture *f = *state;

    use_nginx(f);
    write_template(f->site_folder, "other.conf", "no_such_directive on;\n");
    run(f);
    ended_assert_failed(&f->ended, ERR_CONFIG,
                        "nginx refuses the configuration: unknown directive "
                        "\"no_such_directive\"");
    assert_non_null(strstr(f->ended.err.message, "/conf.d/other.conf:1"));
    assert_int_equal(f->compose.refusal.kind, ERR_CONFIG);
}

static void a_pair_that_does_not_fit_is_an_error(void **state)
{
    struct nginx_fixture *f = *state;
    EVP_PKEY *key = pki_key();
    EVP_PKEY *other = pki_key();

    use_nginx(f);
    fixture_write_pair(f, key, other);
    run(f);
    ended_assert_failed(&f->ended, ERR_CONFIG, "key values mismatch");
    EVP_PKEY_free(key);
    EVP_PKEY_free(other);
}

/* Nobody has refused anything then. */
static void a_test_that_cannot_be_run_is_no_refusal(void **state)
{
    struct nginx_fixture *f = *state;

    f->config.nginx.path = fixture_text("/nowhere/nginx");
    run(f);
    ended_assert_failed(&f->ended, ERR_SYS, "/nowhere/nginx");
    assert_int_equal(f->compose.refusal.kind, ERR_NONE);
    fixture_use_script(f, "kill -9 $$");
    run(f);
    ended_assert_failed(&f->ended, ERR_SYS, "nginx was ended by signal 9");
    assert_int_equal(f->compose.refusal.kind, ERR_NONE);
}

/* ---- cancel ---- */

struct moment {
    struct nginx_compose *compose;
    enum nginx_level level;
};

static bool is_at_work(void *moment)
{
    const struct moment *m = moment;

    return m->compose->level == m->level && process_pid(&m->compose->test.process) != 0;
}

static void wait_for_the_child(struct nginx_fixture *f, enum nginx_level level)
{
    struct moment moment = {&f->compose, level};

    loop_run_until(f->loop, is_at_work, &moment);
}

static void expect_canceled(struct nginx_fixture *f)
{
    nginx_compose_cancel(&f->compose);
    nginx_compose_cancel(&f->compose);
    assert_int_equal(f->ended.times, 0);
    loop_run(f->loop);
    ended_assert_failed(&f->ended, ERR_CANCELED, "canceled");
    assert_false(fs_exists(f->mirror));
    nginx_compose_cancel(&f->compose);
}

static void it_is_canceled_at_every_step(void **state)
{
    struct nginx_fixture *f = *state;

    fixture_use_script(f, "exec sleep 1000");
    start(f);
    expect_canceled(f);
    start(f);
    wait_for_the_child(f, NGINX_HTTPS);
    assert_int_equal(f->compose.refusal.kind, ERR_NONE);
    expect_canceled(f);
    fixture_use_script(f,
                       "grep -q app_backend \"${4%/*}/conf.d/default.conf\" && exit 1\n"
                       "exec sleep 1000");
    f->config.upstream.host = fixture_text("10.0.0.1");
    fixture_init_upstreams(f);
    start(f);
    wait_for_the_child(f, NGINX_HTTPS_REDUCED);
    assert_int_equal(f->compose.refusal.kind, ERR_CONFIG);
    expect_canceled(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        nginx_fixture_test(what_nginx_takes_is_all_of_it),
        nginx_fixture_test(nginx_takes_every_setting),
        nginx_fixture_test(a_fragment_that_is_refused_costs_the_application),
        nginx_fixture_test(a_name_of_a_fragment_that_does_not_resolve_is_told_apart),
        nginx_fixture_test(a_path_that_is_there_twice_is_refused),
        nginx_fixture_test(what_was_refused_is_forgotten_when_nginx_takes_it),
        nginx_fixture_test(a_template_that_is_refused_gives_way_to_ours),
        nginx_fixture_test(a_template_that_is_missing_gives_way_to_ours),
        nginx_fixture_test(without_our_templates_there_is_no_way_down),
        nginx_fixture_test(what_is_refused_without_the_application_is_an_error),
        nginx_fixture_test(a_pair_that_does_not_fit_is_an_error),
        nginx_fixture_test(a_test_that_cannot_be_run_is_no_refusal),
        nginx_fixture_test(it_is_canceled_at_every_step),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
