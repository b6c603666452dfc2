#include "support/nginx_fixture.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- nginx -t ---- */

static void start_limited_test(struct nginx_fixture *f, const struct nginx_files *files,
                               unsigned timeout_ms)
{
    const struct nginx_test_request request = {
        .loop = f->loop,
        .config = &f->config,
        .files = *files,
        .chain = f->staged_chain,
        .key = f->staged_key,
        .timeout_ms = timeout_ms,
    };

    f->ended = (struct ended){0};
    nginx_test_start(&f->test, &request, ended_done, &f->ended);
    assert_int_equal(f->ended.times, 0);
}

static void start_test(struct nginx_fixture *f, const struct nginx_files *files)
{
    start_limited_test(f, files, NGINX_TEST_MS);
}

static void test_texts(struct nginx_fixture *f, const char *site, const char *include)
{
    const struct buf site_text = fixture_literal(site);
    const struct buf include_text = fixture_literal(include == NULL ? "" : include);
    const struct nginx_files files = {.site = &site_text,
                                      .include = include == NULL ? NULL : &include_text};

    start_test(f, &files);
    loop_run(f->loop);
    assert_int_equal(f->ended.times, 1);
    assert_false(fs_exists(f->mirror));
}

static void expect_accepted(struct nginx_fixture *f, const char *site,
                            const char *include)
{
    test_texts(f, site, include);
    ended_assert_ok(&f->ended);
}

static void expect_refused(struct nginx_fixture *f, const char *site, const char *include,
                           const char *why)
{
    test_texts(f, site, include);
    ended_assert_failed(&f->ended, ERR_CONFIG, why);
    assert_non_null(strstr(f->ended.err.message, "nginx refuses the configuration: "));
}

/* All that is live, to see that a test leaves it alone. */
static void assert_untouched(const struct nginx_fixture *f)
{
    fixture_assert_file(f->site, "live site\n");
    fixture_assert_file(f->include, "live include\n");
    fixture_assert_file(f->pid_file, "4242\n");
    fixture_assert_mode(f->site, S_IFREG | 0600);
}

static void make_live(const struct nginx_fixture *f)
{
    fixture_write(f->site, "live site\n");
    fixture_write(f->include, "live include\n");
    fixture_write(f->pid_file, "4242\n");
}

static void the_rendered_configuration_is_accepted(void **state)
{
    struct nginx_fixture *f = *state;
    struct err err = ERR_INIT;
    BUF_SCOPED site = {0};
    BUF_SCOPED include = {0};
    struct buf groups;
    struct nginx_files files = {.site = &site, .include = &groups};

    fixture_need_nginx();
    make_live(f);
    fixture_write_good_pair(f);
    nginx_probe_start(&f->probe, f->loop, &f->config, &f->facts, ended_done, &f->ended);
    loop_run(f->loop);
    ended_assert_ok(&f->ended);
    if (fixture_render(f, NGINX_HTTPS, &site, &include, &err) < 0)
        fail_msg("%s", err.message);
    /* Its first line is for a module of ours, which is not loaded here. */
    groups = fixture_literal(strchr(buf_str(&include), '\n'));
    start_test(f, &files);
    loop_run(f->loop);
    ended_assert_ok(&f->ended);
    assert_false(fs_exists(f->mirror));
    assert_untouched(f);
    files.include = NULL;
    if (fixture_render(f, NGINX_HTTP_ONLY, &site, &include, &err) < 0)
        fail_msg("%s", err.message);
    start_test(f, &files);
    loop_run(f->loop);
    ended_assert_ok(&f->ended);
}

static void a_bad_site_is_refused_in_the_words_of_nginx(void **state)
{
    struct nginx_fixture *f = *state;

    fixture_need_nginx();
    make_live(f);
    expect_refused(f, "server { no_such_directive on; }\n", NULL,
                   "unknown directive \"no_such_directive\" in ");
    assert_non_null(strstr(f->ended.err.message, "configuration: unknown directive "));
    assert_non_null(strstr(f->ended.err.message, "/refused.conf:1"));
    assert_null(strchr(f->ended.err.message, '\n'));
    expect_refused(f, "server {\n", NULL, "unexpected end of file");
    assert_untouched(f);
}

static void the_staged_include_is_tested(void **state)
{
    struct nginx_fixture *f = *state;

    fixture_need_nginx();
    make_live(f);
    expect_accepted(f, "server { set $a $from_include; }\n",
                    "map $host $from_include { default x; }\n");
    expect_refused(f, "\n", "no_such_directive on;\n",
                   "unknown directive \"no_such_directive\"");
    expect_refused(f, "server { set $a $from_include; }\n", NULL,
                   "unknown \"from_include\" variable");
    assert_untouched(f);
}

static void the_staged_pair_is_tested(void **state)
{
    struct nginx_fixture *f = *state;
    EVP_PKEY *key = pki_key();
    EVP_PKEY *other = pki_key();
    char site[1024];

    fixture_need_nginx();
    snprintf(site, sizeof site,
             "server { listen 127.0.0.1:%u ssl; ssl_certificate %s/cert.pem;\n"
             "ssl_certificate_key \"%s/key.pem\"; }\n",
             f->config.nginx.https_port, f->tls, f->tls);
    expect_refused(f, site, NULL, f->staged_chain);
    fixture_write_pair(f, key, key);
    expect_accepted(f, site, NULL);
    fixture_write_pair(f, key, other);
    expect_refused(f, site, NULL, "key values mismatch");
    EVP_PKEY_free(key);
    EVP_PKEY_free(other);
}

/* Names that nginx resolves below the folder of nginx.conf. */
static void relative_includes_find_what_they_find_live(void **state)
{
    struct nginx_fixture *f = *state;
    char folder[PATH_SIZE];
    char path[PATH_SIZE];

    fixture_need_nginx();
    fixture_path(folder, f->etc, "snippets");
    fixture_make_folder(folder);
    fixture_path(path, folder, "extra");
    fixture_write(path, "map $host $from_snippet { default x; }\n");
    fixture_path(path, f->site_folder, "extra.conf");
    fixture_write(path, "include snippets/extra;\n");
    expect_accepted(f, "server { set $a $from_snippet; }\n", NULL);
    fixture_write(path, "include snippets/missing;\n");
    expect_refused(f, "\n", NULL, "snippets/missing");
    fixture_write(path, "no_such_directive on;\n");
    expect_refused(f, "\n", NULL, "/conf.d/extra.conf:1");
}

static void absolute_includes_lead_into_the_mirror(void **state)
{
    struct nginx_fixture *f = *state;
    char http[2 * PATH_SIZE];

    fixture_need_nginx();
    fixture_write(f->site, "no_such_directive on;\n"); /* the live one is not looked at */
    expect_accepted(f, "server { }\n", NULL);
    snprintf(http, sizeof http, "include %s/conf.d/default.conf;", f->etc);
    fixture_write_conf(f, "", http);
    expect_accepted(f, "server { }\n", NULL);
}

/* Else `nginx -t` would make or empty the pid file of the live nginx. */
static void no_pid_file_is_touched(void **state)
{
    static const char *const heads[] = {
        "pid %s;",
        "pid\t%s ;",
        "user root; pid %s;",
        "worker_processes 1;\n  pid\n    %s;",
        "env A; # pid /nowhere/else;\npid %s; # pid %s;",
        "# pid %s;",
        "#pid %s;",
        "env pid; # %s",
        "",
    };
    struct nginx_fixture *f = *state;
    bool compiled_in = fs_exists("/run/nginx.pid");
    char other[PATH_SIZE];
    char head[4 * PATH_SIZE];

    fixture_need_nginx();
    make_live(f);
    fixture_path(other, f->folder, "other.pid");
    for (size_t i = 0; i < sizeof heads / sizeof heads[0]; i++) {
        const char *paths[] = {f->pid_file, other};

        for (size_t j = 0; j < 2; j++) {
            const char *at = strstr(heads[i], "%s");

            snprintf(head, sizeof head, "%.*s%s%s", at == NULL ? 0 : (int)(at - heads[i]),
                     heads[i], at == NULL ? "" : paths[j], at == NULL ? "" : at + 2);
            fixture_write_conf(f, head, "");
            expect_accepted(f, "server { }\n", NULL);
            assert_untouched(f);
            assert_false(fs_exists(other));
            assert_int_equal(fs_exists("/run/nginx.pid"), compiled_in);
        }
    }
}

static void the_main_configuration_may_have_another_name(void **state)
{
    struct nginx_fixture *f = *state;

    fixture_need_nginx();
    fixture_write(f->conf, "this is not the configuration\n");
    fixture_path(f->conf, f->etc, "main.conf");
    fixture_write_usual_conf(f);
    expect_accepted(f, "server { }\n", NULL);
    expect_refused(f, "no_such_directive on;\n", NULL, "/refused.conf:1");
    fixture_path(f->conf, f->etc, "nginx.conf");
    fixture_assert_file(f->conf, "this is not the configuration\n");
}

static void a_mirror_of_before_is_in_nobodys_way(void **state)
{
    struct nginx_fixture *f = *state;
    char path[PATH_SIZE];

    fixture_need_nginx();
    fixture_make_folder(f->mirror);
    fixture_path(path, f->mirror, "conf.d");
    fixture_make_folder(path);
    fixture_path(path, f->mirror, "conf.d/left.conf");
    fixture_write(path, "no_such_directive on;\n");
    expect_accepted(f, "server { }\n", NULL);
}

static void the_site_must_be_below_the_main_configuration(void **state)
{
    static const char *const sites[] = {"/elsewhere/conf.d/default.conf", "/default.conf",
                                        "default.conf"};
    struct nginx_fixture *f = *state;

    for (size_t i = 0; i < sizeof sites / sizeof sites[0]; i++) {
        f->config.nginx.site_conf = fixture_text(sites[i]);
        test_texts(f, "", NULL);
        ended_assert_failed(&f->ended, ERR_CONFIG, "nginx.site_conf (");
    }
}

static void a_missing_main_configuration_is_named(void **state)
{
    struct nginx_fixture *f = *state;

    assert_int_equal(unlink(f->conf), 0);
    test_texts(f, "", NULL);
    ended_assert_failed(&f->ended, ERR_SYS, f->conf);
    assert_int_equal(f->ended.err.code, ENOENT);
}

static void a_missing_program_is_named(void **state)
{
    struct nginx_fixture *f = *state;

    f->config.nginx.path = fixture_text("/nowhere/nginx");
    test_texts(f, "", NULL);
    ended_assert_failed(&f->ended, ERR_SYS, "/nowhere/nginx");
    assert_int_equal(f->ended.err.code, ENOENT);
}

static void an_end_without_words_is_told(void **state)
{
    struct nginx_fixture *f = *state;

    fixture_use_script(f, "exit 1");
    expect_refused(f, "", NULL, "nginx refuses the configuration: no reason given");
    fixture_use_script(f, "echo 'nginx: no library' >&2; echo more >&2; exit 127");
    expect_refused(f, "", NULL, "nginx refuses the configuration: nginx: no library");
    fixture_use_script(f, "kill -9 $$");
    test_texts(f, "", NULL);
    ended_assert_failed(&f->ended, ERR_SYS, "nginx was ended by signal 9");
    fixture_use_script(f, "printf '\\n\\n' >&2; exit 1");
    expect_refused(f, "", NULL, "nginx refuses the configuration: no reason given");
}

static void the_environment_is_our_own(void **state)
{
    struct nginx_fixture *f = *state;

    setenv("A_SECRET_OF_OURS", "x", 1);
    fixture_use_script(f, "env | grep -q A_SECRET_OF_OURS && exit 1; exit 0");
    expect_accepted(f, "", NULL);
    unsetenv("A_SECRET_OF_OURS");
}

/* As when it looks names up, and the resolver hangs. */
static void a_test_has_an_end(void **state)
{
    const struct buf site = fixture_literal("");
    const struct nginx_files files = {.site = &site};
    struct nginx_fixture *f = *state;

    fixture_use_script(f, "exec sleep 1000");
    start_limited_test(f, &files, 50);
    loop_run(f->loop);
    ended_assert_failed(&f->ended, ERR_TIMEOUT, "nginx -t");
    assert_false(fs_exists(f->mirror));
    assert_false(fs_exists(f->refused));
}

static bool is_at_work(void *fixture)
{
    return process_pid(&((struct nginx_fixture *)fixture)->test.process) != 0;
}

static void a_test_is_canceled(void **state)
{
    const struct buf site = fixture_literal("");
    const struct nginx_files files = {.site = &site};
    struct nginx_fixture *f = *state;

    fixture_use_script(f, "exec sleep 1000");
    start_test(f, &files);
    nginx_test_cancel(&f->test); /* before its first step */
    loop_run(f->loop);
    ended_assert_failed(&f->ended, ERR_CANCELED, "");
    start_test(f, &files);
    loop_run_until(f->loop, is_at_work, f);
    assert_true(fs_exists(f->mirror));
    nginx_test_cancel(&f->test);
    nginx_test_cancel(&f->test);
    loop_run(f->loop);
    ended_assert_failed(&f->ended, ERR_CANCELED, "nginx -t: canceled");
    assert_false(fs_exists(f->mirror));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        nginx_fixture_test(the_rendered_configuration_is_accepted),
        nginx_fixture_test(a_bad_site_is_refused_in_the_words_of_nginx),
        nginx_fixture_test(the_staged_include_is_tested),
        nginx_fixture_test(the_staged_pair_is_tested),
        nginx_fixture_test(relative_includes_find_what_they_find_live),
        nginx_fixture_test(absolute_includes_lead_into_the_mirror),
        nginx_fixture_test(no_pid_file_is_touched),
        nginx_fixture_test(the_main_configuration_may_have_another_name),
        nginx_fixture_test(a_mirror_of_before_is_in_nobodys_way),
        nginx_fixture_test(the_site_must_be_below_the_main_configuration),
        nginx_fixture_test(a_missing_main_configuration_is_named),
        nginx_fixture_test(a_missing_program_is_named),
        nginx_fixture_test(an_end_without_words_is_told),
        nginx_fixture_test(the_environment_is_our_own),
        nginx_fixture_test(a_test_has_an_end),
        nginx_fixture_test(a_test_is_canceled),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
