#include "support/nginx_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- the version ---- */

static void start_probe(struct nginx_fixture *f)
{
    f->facts.version = 0;
    f->ended = (struct ended){0};
    nginx_probe_start(&f->probe, f->loop, &f->config, &f->facts, ended_done, &f->ended);
    assert_int_equal(f->ended.times, 0);
}

static void the_version_is_asked_for(void **state)
{
    struct nginx_fixture *f = *state;

    fixture_need_nginx();
    start_probe(f);
    loop_run(f->loop);
    ended_assert_ok(&f->ended);
    assert_true(f->facts.version >= 1018000);
}

static void another_program_has_no_version(void **state)
{
    struct nginx_fixture *f = *state;

    f->config.nginx.path = fixture_text("/bin/true");
    start_probe(f);
    loop_run(f->loop);
    ended_assert_ok(&f->ended);
    assert_int_equal(f->facts.version, 0);
    f->config.nginx.path = fixture_text("/nowhere/nginx");
    start_probe(f);
    loop_run(f->loop);
    ended_assert_failed(&f->ended, ERR_SYS, "/nowhere/nginx");
    assert_int_equal(f->ended.err.code, ENOENT);
}

static void the_question_for_the_version_is_canceled(void **state)
{
    struct nginx_fixture *f = *state;

    f->config.nginx.path = fixture_text("/bin/true");
    start_probe(f);
    nginx_probe_cancel(&f->probe);
    nginx_probe_cancel(&f->probe);
    loop_run(f->loop);
    ended_assert_failed(&f->ended, ERR_CANCELED, "");
}

static void the_machine_is_looked_at(void **state)
{
    const struct nginx_fixture *f = *state;
    struct nginx_facts facts;

    memset(&facts, 'x', sizeof facts);
    nginx_machine_facts(&f->config, &facts);
    assert_int_equal(facts.version, 0);
    assert_true(strlen(facts.nameservers) < sizeof facts.nameservers);
    assert_string_equal(facts.account_thumbprint, "");
}

#define THUMBPRINT "abcdefghijklmnopqrstuvwxyzABCDEFGHIJK-_0123"

static void expect_account(const struct nginx_fixture *f, const char *thumbprint)
{
    struct nginx_facts facts;

    nginx_machine_facts(&f->config, &facts);
    assert_string_equal(facts.account_thumbprint, thumbprint);
}

static void the_account_is_known_as_long_as_it_is_the_same(void **state)
{
    struct nginx_fixture *f = *state;
    struct err err = ERR_INIT;

    f->config.acme.stateless = true;
    f->config.acme.account_version = fixture_text("v1");
    assert_int_equal(nginx_keep_account(&f->config, THUMBPRINT, &err), 0);
    expect_account(f, THUMBPRINT);
    f->config.acme.account_version = fixture_text("v2");
    expect_account(f, "");
    f->config.acme.account_version = fixture_text("v1");
    f->config.domain = fixture_text("other.example.test");
    expect_account(f, "");
    f->config.domain = fixture_text("app.example.test");
    expect_account(f, THUMBPRINT);
    f->config.acme.stateless = false;
    expect_account(f, "");
}

static void an_account_that_was_damaged_is_not_taken(void **state)
{
    static const char path_of_key[] = "letsencrypt-account/app.example.test/v1";
    static const char *const ends[] = {"",
                                       " ",
                                       " x\n",
                                       " " THUMBPRINT,
                                       "\n",
                                       " " THUMBPRINT "x\n",
                                       " " THUMBPRINT "\n\n",
                                       " " THUMBPRINT " \n",
                                       " abcdefghijklmnopqrstuvwxyzABCDEFGHIJK-_012\"\n"};
    struct nginx_fixture *f = *state;
    char path[PATH_SIZE];
    char text[256];

    f->config.acme.stateless = true;
    f->config.acme.account_version = fixture_text("v1");
    fixture_path(path, f->run, "account.thumbprint");
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        snprintf(text, sizeof text, "%s%s", path_of_key, ends[i]);
        fixture_write(path, text);
        expect_account(f, "");
    }
    snprintf(text, sizeof text, "%s %s\n", path_of_key, THUMBPRINT);
    fixture_write(path, text);
    expect_account(f, THUMBPRINT);
}

/* ---- render ---- */

static void http_only_needs_the_base_template_only(void **state)
{
    struct nginx_fixture *f = *state;
    struct err err = ERR_INIT;
    char path[PATH_SIZE];
    BUF_SCOPED site = {0};
    BUF_SCOPED include = {0};

    if (fixture_render(f, NGINX_HTTP_ONLY, &site, &include, &err) < 0)
        fail_msg("%s", err.message);
    assert_non_null(strstr(buf_str(&site), "certificate being provisioned"));
    assert_null(strstr(buf_str(&site), "ssl_certificate"));
    assert_int_equal(include.len, 0);
    f->config.nginx.templates = f->folder;
    fixture_path(path, f->folder, "base.conf.tmpl");
    fixture_write(path, "a ${DOMAIN} b\n");
    if (fixture_render(f, NGINX_HTTP_ONLY, &site, &include, &err) < 0)
        fail_msg("%s", err.message);
    assert_string_equal(buf_str(&site), "a app.example.test b\n");
}

static void https_has_two_templates_and_an_include(void **state)
{
    struct nginx_fixture *f = *state;
    struct err err = ERR_INIT;
    char expected[2 * PATH_SIZE];
    BUF_SCOPED site = {0};
    BUF_SCOPED include = {0};

    if (fixture_render(f, NGINX_HTTPS, &site, &include, &err) < 0)
        fail_msg("%s", err.message);
    snprintf(expected, sizeof expected, "ssl_certificate \"%s/cert.pem\";", f->tls);
    assert_non_null(strstr(buf_str(&site), expected));
    assert_non_null(strstr(buf_str(&site), "return 301 https://"));
    assert_null(strstr(buf_str(&site), "/debug/ekm"));
    snprintf(expected, sizeof expected, "ekm_secret_file \"%s/ekm.secret\";\n", f->run);
    assert_ptr_equal(strstr(buf_str(&include), expected), buf_str(&include));
    assert_non_null(strstr(buf_str(&include), "upstream cm_auth {"));
    f->config.development = true;
    if (fixture_render(f, NGINX_HTTPS, &site, &include, &err) < 0)
        fail_msg("%s", err.message);
    assert_non_null(strstr(buf_str(&site), "/debug/ekm"));
}

static void expect_no_template(const struct nginx_fixture *f, enum nginx_level level,
                               const char *name)
{
    struct err err = ERR_INIT;
    BUF_SCOPED site = {0};
    BUF_SCOPED include = {0};

    assert_int_equal(fixture_render(f, level, &site, &include, &err), -1);
    assert_int_equal(err.code, ENOENT);
    assert_true(strncmp(err.message, "nginx.templates: ", 17) == 0);
    assert_non_null(strstr(err.message, name));
}

static void a_missing_template_is_named(void **state)
{
    struct nginx_fixture *f = *state;
    char path[PATH_SIZE];

    f->config.nginx.templates = f->folder;
    expect_no_template(f, NGINX_HTTP_ONLY, "/base.conf.tmpl");
    fixture_path(path, f->folder, "base.conf.tmpl");
    fixture_write(path, "");
    expect_no_template(f, NGINX_HTTPS, "/https.conf.tmpl");
    f->config.development = true;
    expect_no_template(f, NGINX_HTTPS, "/https-dev.conf.tmpl");
}

/* ---- install ---- */

static int install(const struct nginx_fixture *f, const char *site, const char *include,
                   struct err *err)
{
    const struct buf site_text = fixture_literal(site);
    const struct buf include_text = fixture_literal(include == NULL ? "" : include);
    const struct nginx_files files = {.site = &site_text,
                                      .include = include == NULL ? NULL : &include_text};

    return nginx_install(&f->config, &files, err);
}

static void must_install(const struct nginx_fixture *f, const char *site,
                         const char *include)
{
    struct err err = ERR_INIT;

    if (install(f, site, include, &err) < 0)
        fail_msg("%s", err.message);
}

static void the_files_are_installed(void **state)
{
    const struct nginx_fixture *f = *state;
    const struct buf site = fixture_literal("site 1\n");
    const struct nginx_files files = {.site = &site};

    assert_false(nginx_configured(&f->config));
    assert_false(nginx_has_files(&f->config, &files));
    must_install(f, "site 1\n", NULL);
    assert_true(nginx_configured(&f->config));
    assert_true(nginx_has_files(&f->config, &files));
    fixture_assert_file(f->site, "site 1\n");
    assert_false(fs_exists(f->include));
    must_install(f, "site 2\n", "include 2\n");
    assert_false(nginx_has_files(&f->config, &files));
    fixture_assert_file(f->site, "site 2\n");
    fixture_assert_file(f->include, "include 2\n");
    fixture_assert_mode(f->site, S_IFREG | 0644);
    fixture_assert_mode(f->include, S_IFREG | 0644);
    must_install(f, "site 3\n", NULL);
    fixture_assert_file(f->site, "site 3\n");
    assert_false(fs_exists(f->include));
}

/* The site may use what the include switches on, so it is never there without it. */
static void the_include_comes_first_and_leaves_last(void **state)
{
    struct nginx_fixture *f = *state;
    struct err err = ERR_INIT;

    assert_int_equal(rmdir(f->site_folder), 0);
    assert_int_equal(install(f, "site", "include", &err), -1);
    assert_true(strncmp(err.message, "nginx.site_conf: ", 17) == 0);
    assert_non_null(strstr(err.message, f->site));
    fixture_assert_file(f->include, "include");
    assert_int_equal(install(f, "site", NULL, &err), -1);
    fixture_assert_file(f->include, "include");
    fixture_make_folder(f->site_folder);
    fixture_make_folder(f->site);
    assert_int_equal(install(f, "site", NULL, &err), -1);
    fixture_assert_file(f->include, "include");
    assert_int_equal(rmdir(f->site), 0);
    f->config.run_dir = fixture_text("/nowhere");
    assert_int_equal(install(f, "site", "include", &err), -1);
    assert_false(fs_exists(f->site));
}

/* default.conf is a link to `target`, which leads to `path`. */
static void expect_through_link(const struct nginx_fixture *f, const char *target,
                                const char *path)
{
    assert_int_equal(symlink(target, f->site), 0);
    assert_int_equal(nginx_configured(&f->config), fs_exists(path));
    must_install(f, "behind\n", NULL);
    fixture_assert_mode(f->site, S_IFLNK | 0777);
    fixture_assert_mode(path, S_IFREG | 0644);
    fixture_assert_file(path, "behind\n");
    assert_true(nginx_configured(&f->config));
    assert_int_equal(unlink(f->site), 0);
}

static void a_link_is_written_through(void **state)
{
    const struct nginx_fixture *f = *state;
    char path[PATH_SIZE];

    fixture_path(path, f->run, "default.conf");
    fixture_write(path, "before\n");
    expect_through_link(f, path, path);
    fixture_write(path, "before\n");
    expect_through_link(f, "../../run/default.conf", path);
}

/* As at the first start with a read-only root: /run is empty. */
static void a_link_that_leads_nowhere_yet_is_written_through(void **state)
{
    const struct nginx_fixture *f = *state;
    char path[PATH_SIZE];

    fixture_path(path, f->run, "default.conf");
    expect_through_link(f, path, path);
    assert_int_equal(unlink(path), 0);
    expect_through_link(f, "../../run/default.conf", path);
    fixture_path(path, f->site_folder, "real.conf");
    expect_through_link(f, "real.conf", path);
}

static void a_link_into_a_missing_folder_is_an_error(void **state)
{
    const struct nginx_fixture *f = *state;
    struct err err = ERR_INIT;

    assert_int_equal(symlink("/nowhere/default.conf", f->site), 0);
    assert_int_equal(install(f, "site", NULL, &err), -1);
    assert_non_null(strstr(err.message, "/nowhere/default.conf"));
    fixture_assert_mode(f->site, S_IFLNK | 0777);
}

/* ---- whom workers are ---- */

static int find_group(const struct nginx_fixture *f, const char *conf, gid_t *ret,
                      struct err *err)
{
    fixture_write(f->conf, conf);
    return nginx_worker_group(&f->config, ret, err);
}

static void the_group_of_workers_is_that_of_nginx_conf(void **state)
{
    const struct nginx_fixture *f = *state;
    const struct group *usual;
    struct err err = ERR_INIT;
    gid_t group;

    if (geteuid() != 0)
        skip();
    assert_int_equal(find_group(f, "user nobody daemon;\n", &group, &err), 0);
    assert_int_equal(group, getgrnam("daemon")->gr_gid);
    usual = getgrnam("www-data");
    if (usual != NULL) {
        assert_int_equal(find_group(f, "worker_processes 1;\n", &group, &err), 0);
        assert_int_equal(group, usual->gr_gid);
    }
}

static void a_group_of_workers_that_is_not_there_is_named(void **state)
{
    const struct nginx_fixture *f = *state;
    struct err err = ERR_INIT;
    gid_t group;

    if (geteuid() != 0)
        skip();
    assert_int_equal(find_group(f, "user nobody no-such-group;\n", &group, &err), -1);
    assert_int_equal(err.kind, ERR_CONFIG);
    assert_non_null(strstr(err.message, f->conf));
    assert_non_null(strstr(err.message, "there is no group \"no-such-group\""));
    assert_int_equal(unlink(f->conf), 0);
    assert_int_equal(nginx_worker_group(&f->config, &group, &err), -1);
    assert_int_equal(err.code, ENOENT);
    assert_non_null(strstr(err.message, "nginx.conf"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        nginx_fixture_test(the_version_is_asked_for),
        nginx_fixture_test(another_program_has_no_version),
        nginx_fixture_test(the_question_for_the_version_is_canceled),
        nginx_fixture_test(the_machine_is_looked_at),
        nginx_fixture_test(the_account_is_known_as_long_as_it_is_the_same),
        nginx_fixture_test(an_account_that_was_damaged_is_not_taken),
        nginx_fixture_test(http_only_needs_the_base_template_only),
        nginx_fixture_test(https_has_two_templates_and_an_include),
        nginx_fixture_test(a_missing_template_is_named),
        nginx_fixture_test(the_files_are_installed),
        nginx_fixture_test(the_include_comes_first_and_leaves_last),
        nginx_fixture_test(a_link_is_written_through),
        nginx_fixture_test(a_link_that_leads_nowhere_yet_is_written_through),
        nginx_fixture_test(a_link_into_a_missing_folder_is_an_error),
        nginx_fixture_test(the_group_of_workers_is_that_of_nginx_conf),
        nginx_fixture_test(a_group_of_workers_that_is_not_there_is_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
