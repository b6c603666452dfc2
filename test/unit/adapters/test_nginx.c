#include "adapters/nginx.h"

#include "support/loop.h"
#include "support/pki.h"
#include "support/server.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define NGINX "/usr/sbin/nginx"

enum { PATH_SIZE = 256 };

/* A machine's folders in miniature. */
struct fixture {
    uv_loop_t *loop;
    char folder[64];
    char etc[PATH_SIZE]; /* nginx.conf and what it includes by relative names */
    char conf[PATH_SIZE];
    char site_folder[PATH_SIZE];
    char site[PATH_SIZE];
    char pid_file[PATH_SIZE];
    char run[PATH_SIZE];
    char include[PATH_SIZE];
    char mirror[PATH_SIZE];
    char tls[PATH_SIZE];
    char staged_chain[PATH_SIZE];
    char staged_key[PATH_SIZE];
    struct config config;
    struct nginx_facts facts;
    struct upstreams upstreams;
    struct ended ended;
    struct nginx_test test;
    struct nginx_wait wait;
    struct nginx_probe probe;
    pid_t child; /* that calls itself nginx, or 0 */
};

/* Settings are never written to. */
static char *text(const char *literal)
{
    union {
        const char *in;
        char *out;
    } writable = {.in = literal};

    return writable.out;
}

static void path_of(char ret[PATH_SIZE], const char *folder, const char *name)
{
    assert_true(snprintf(ret, PATH_SIZE, "%s/%s", folder, name) < PATH_SIZE);
}

static void write_file(const char *path, const char *content)
{
    struct err err = ERR_INIT;

    if (fs_replace(path, content, strlen(content), 0600, &err) < 0)
        fail_msg("%s", err.message);
}

static bool file_is(const char *path, const char *content)
{
    struct err err = ERR_INIT;
    BUF_SCOPED found = {0};

    return fs_read(path, NGINX_CONF_MAX_BYTES, &found, &err) == 0 &&
           strcmp(buf_str(&found), content) == 0;
}

static void assert_file(const char *path, const char *content)
{
    if (!file_is(path, content))
        fail_msg("%s is not \"%s\"", path, content);
}

static void make_folder(const char *path)
{
    assert_int_equal(mkdir(path, 0755), 0);
}

static void configure(struct fixture *f)
{
    struct config *config = &f->config;
    struct err err = ERR_INIT;

    config->domain = text("app.example.test");
    config->run_dir = f->run;
    config->tls.dir = f->tls;
    config->nginx.path = text(NGINX);
    config->nginx.conf = f->conf;
    config->nginx.site_conf = f->site;
    config->nginx.pid_file = f->pid_file;
    config->nginx.templates = text(TEST_FOLDER "/../nginx_conf");
    config->nginx.webroot = f->folder;
    config->nginx.address = text("127.0.0.1");
    config->nginx.http_port = (unsigned)server_unused_port();
    do
        config->nginx.https_port = (unsigned)server_unused_port();
    while (config->nginx.https_port == config->nginx.http_port);
    config->nginx.extra_upstreams = text("");
    config->nginx.extra_locations = text("");
    config->upstream.port = 8000;
    config->auth.enabled = true;
    config->auth.upstream = text("auth-service:8081");
    config->attestation.upstream = text("attestation-service:8080");
    if (upstreams_init(&f->upstreams, config, &err) < 0)
        fail_msg("%s", err.message);
    f->facts.upstreams = &f->upstreams;
}

/* nginx.conf with its first lines and a text inside the block http. */
static void write_conf(const struct fixture *f, const char *head, const char *http)
{
    char content[4096];

    assert_true((size_t)snprintf(content, sizeof content,
                                 "%s\n"
                                 "error_log stderr notice;\n"
                                 "events { }\n"
                                 "http {\n"
                                 "    include mime.types;\n"
                                 "    access_log off;\n"
                                 "    client_body_temp_path %s/temp;\n"
                                 "    proxy_temp_path %s/temp;\n"
                                 "    fastcgi_temp_path %s/temp;\n"
                                 "    uwsgi_temp_path %s/temp;\n"
                                 "    scgi_temp_path %s/temp;\n"
                                 "    map $host $ekm_channel_binding { default x; }\n"
                                 "    map $host $live_chain_stale { default ''; }\n"
                                 "    include %s/nginx-http.con[f];\n"
                                 "    include conf.d/*.conf;\n"
                                 "    %s\n"
                                 "}\n",
                                 head, f->folder, f->folder, f->folder, f->folder,
                                 f->folder, f->run, http) < sizeof content);
    write_file(f->conf, content);
}

static void write_usual_conf(const struct fixture *f)
{
    char head[PATH_SIZE + 8];

    snprintf(head, sizeof head, "pid %s;", f->pid_file);
    write_conf(f, head, "");
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    char mime_types[PATH_SIZE];
    void *loop = NULL;

    assert_non_null(f);
    loop_setup(&loop);
    f->loop = loop;
    snprintf(f->folder, sizeof f->folder, "/tmp/test-nginx-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    path_of(f->etc, f->folder, "etc");
    path_of(f->conf, f->etc, "nginx.conf");
    path_of(f->site_folder, f->etc, "conf.d");
    path_of(f->site, f->site_folder, "default.conf");
    path_of(f->pid_file, f->folder, "nginx.pid");
    path_of(f->run, f->folder, "run");
    path_of(f->include, f->run, "nginx-http.conf");
    path_of(f->mirror, f->run, "nginx-test");
    path_of(f->tls, f->folder, "tls");
    path_of(f->staged_chain, f->tls, "staged-cert.pem");
    path_of(f->staged_key, f->tls, "staged-key.pem");
    path_of(mime_types, f->etc, "mime.types");
    make_folder(f->etc);
    make_folder(f->site_folder);
    make_folder(f->run);
    make_folder(f->tls);
    write_file(mime_types, "types { text/html html; }\n");
    configure(f);
    f->facts.version = 1022001;
    write_usual_conf(f);
    *state = f;
    return 0;
}

static void end_child(struct fixture *f)
{
    if (f->child == 0)
        return;
    kill(f->child, SIGKILL);
    assert_int_equal(waitpid(f->child, NULL, 0), f->child);
    f->child = 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    struct err err = ERR_INIT;
    void *loop = f->loop;

    end_child(f);
    assert_int_equal(fs_remove_tree(f->folder, &err), 0);
    upstreams_done(&f->upstreams);
    free(f);
    return loop_teardown(&loop);
}

/* ---- the master ---- */

/* A child that bears a name, in the process group of that number (0: one of its own). It
 * exits with the number of the signal when it gets SIGHUP or SIGQUIT. */
static pid_t fork_named(const char *name, pid_t group)
{
    int ready[2];
    char byte;
    pid_t child;

    assert_int_equal(pipe(ready), 0);
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        sigset_t signals;
        int got = 0;

        sigemptyset(&signals);
        sigaddset(&signals, SIGHUP);
        sigaddset(&signals, SIGQUIT);
        sigprocmask(SIG_BLOCK, &signals, NULL);
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && setpgid(0, group) == 0 &&
            prctl(PR_SET_NAME, name) == 0 && write(ready[1], "", 1) == 1)
            sigwait(&signals, &got);
        _exit(got);
    }
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    return child;
}

static void start_child(struct fixture *f, const char *name)
{
    f->child = fork_named(name, 0);
}

/* The number of the signal that one of them has got, or -1 when it was killed. */
static int ended_with(pid_t child)
{
    int status;

    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void write_pid(const struct fixture *f, pid_t pid)
{
    char content[32];

    snprintf(content, sizeof content, "%d\n", (int)pid);
    write_file(f->pid_file, content);
}

static void no_pid_file_is_no_master(void **state)
{
    const struct fixture *f = *state;

    assert_int_equal(nginx_master(&f->config), 0);
    make_folder(f->pid_file);
    assert_int_equal(nginx_master(&f->config), 0);
}

static void a_pid_file_without_a_pid_is_no_master(void **state)
{
    static const char *const contents[] = {
        "",     "\n",           "nginx\n",
        "0\n",  "1\n",          "-1\n",
        "-2\n", "4294967298\n", "99999999999999999999999\n"};
    const struct fixture *f = *state;

    for (size_t i = 0; i < sizeof contents / sizeof contents[0]; i++) {
        write_file(f->pid_file, contents[i]);
        assert_int_equal(nginx_master(&f->config), 0);
    }
}

static void a_pid_of_before_is_no_master(void **state)
{
    struct fixture *f = *state;

    start_child(f, "nginx");
    write_pid(f, f->child);
    assert_int_equal(nginx_master(&f->config), f->child);
    end_child(f);
    assert_int_equal(nginx_master(&f->config), 0);
}

static void a_pid_of_another_program_is_no_master(void **state)
{
    static const char *const names[] = {"nginx2",         "ngin",    "cert-manager", "",
                                        "nginx) S 1 2 (", "(nginx)", "nginx) x"};
    struct fixture *f = *state;

    write_pid(f, getpid());
    assert_int_equal(nginx_master(&f->config), 0);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        start_child(f, names[i]);
        write_pid(f, f->child);
        assert_int_equal(nginx_master(&f->config), 0);
        end_child(f);
    }
}

/* The kernel keeps 15 characters of it. */
static void a_long_program_name_is_known(void **state)
{
    struct fixture *f = *state;

    f->config.nginx.path = text("/opt/a-long-name-of-nginx");
    start_child(f, "a-long-name-of-nginx");
    write_pid(f, f->child);
    assert_int_equal(nginx_master(&f->config), f->child);
    f->config.nginx.path = text("a-long-name-of-another");
    assert_int_equal(nginx_master(&f->config), f->child);
    f->config.nginx.path = text("another");
    assert_int_equal(nginx_master(&f->config), 0);
}

static void a_reload_is_a_hangup_for_the_master(void **state)
{
    struct fixture *f = *state;
    struct err err = ERR_INIT;

    assert_int_equal(nginx_ask_reload(&f->config, &err), -1);
    assert_int_equal(err.kind, ERR_SYS);
    assert_non_null(strstr(err.message, "nginx is not running"));
    assert_non_null(strstr(err.message, f->pid_file));
    start_child(f, "nginx");
    write_pid(f, f->child);
    assert_int_equal(nginx_ask_reload(&f->config, &err), 0);
    assert_int_equal(ended_with(f->child), SIGHUP);
    f->child = 0;
}

/* A master that has ended and was not waited for yet cannot be told anything. */
static void a_dead_process_is_no_master(void **state)
{
    struct fixture *f = *state;
    siginfo_t ended;

    start_child(f, "nginx");
    write_pid(f, f->child);
    kill(f->child, SIGKILL);
    assert_int_equal(waitid(P_PID, (id_t)f->child, &ended, WEXITED | WNOWAIT), 0);
    assert_int_equal(nginx_master(&f->config), 0);
}

/* Workers are in the group of their master, and keep its ports when it is killed. */
static void workers_without_master_are_told_to_quit(void **state)
{
    struct fixture *f = *state;
    pid_t workers[2];
    pid_t stranger;
    pid_t other_group;

    /* A name of its own: whatever goes wrong, no other nginx of this machine is told. */
    f->config.nginx.path = text("/opt/test-of-orphans");
    start_child(f, "test-of-orphans");
    write_pid(f, f->child);
    for (int i = 0; i < 2; i++)
        workers[i] = fork_named("test-of-orphans", f->child);
    stranger = fork_named("other", f->child);
    other_group = fork_named("test-of-orphans", 0);
    assert_int_equal(nginx_end_orphans(&f->config), 0);
    end_child(f);
    assert_int_equal(nginx_end_orphans(&f->config), 2);
    for (int i = 0; i < 2; i++)
        assert_int_equal(ended_with(workers[i]), SIGQUIT);
    assert_int_equal(nginx_end_orphans(&f->config), 0);
    kill(stranger, SIGKILL);
    kill(other_group, SIGKILL);
    assert_int_equal(ended_with(stranger), -1);
    assert_int_equal(ended_with(other_group), -1);
    assert_int_equal(unlink(f->pid_file), 0);
    assert_int_equal(nginx_end_orphans(&f->config), 0);
}

static void set_time(const char *path, time_t seconds)
{
    const struct timespec times[] = {{.tv_sec = seconds}, {.tv_sec = seconds}};

    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
}

static void a_site_that_came_after_the_start_is_unread(void **state)
{
    struct fixture *f = *state;

    assert_true(nginx_has_read_site(&f->config)); /* nginx reads it when it starts */
    start_child(f, "nginx");
    write_pid(f, f->child);
    assert_false(nginx_has_read_site(&f->config));
    write_file(f->site, "");
    set_time(f->pid_file, 1000);
    set_time(f->site, 999);
    assert_true(nginx_has_read_site(&f->config));
    set_time(f->site, 1000);
    assert_false(nginx_has_read_site(&f->config));
    set_time(f->site, 1001);
    assert_false(nginx_has_read_site(&f->config));
    end_child(f);
    assert_true(nginx_has_read_site(&f->config));
}

/* ---- waiting for the master ---- */

static void the_wait_ends_when_a_master_runs(void **state)
{
    struct fixture *f = *state;

    nginx_wait_start(&f->wait, f->loop, &f->config, ended_done, &f->ended);
    assert_int_equal(f->ended.times, 0);
    uv_run(f->loop, UV_RUN_ONCE);
    write_file(f->pid_file, "");
    uv_run(f->loop, UV_RUN_ONCE);
    assert_int_equal(f->ended.times, 0);
    start_child(f, "nginx");
    write_pid(f, f->child);
    loop_run(f->loop);
    ended_assert_ok(&f->ended);
}

static void the_wait_is_canceled(void **state)
{
    struct fixture *f = *state;

    nginx_wait_start(&f->wait, f->loop, &f->config, ended_done, &f->ended);
    uv_run(f->loop, UV_RUN_ONCE);
    nginx_wait_cancel(&f->wait);
    nginx_wait_cancel(&f->wait);
    assert_int_equal(f->ended.times, 0);
    loop_run(f->loop);
    ended_assert_failed(&f->ended, ERR_CANCELED, "canceled");
    nginx_wait_cancel(&f->wait);
    loop_run(f->loop);
    assert_int_equal(f->ended.times, 1);
}

static void the_wait_has_an_end(void **state)
{
    struct fixture *f = *state;

    nginx_wait_start(&f->wait, f->loop, &f->config, ended_done, &f->ended);
    assert_true(f->wait.deadline_ms >= NGINX_WAIT_MS);
    f->wait.deadline_ms = uv_now(f->loop);
    loop_run(f->loop);
    ended_assert_failed(&f->ended, ERR_SYS, "nginx is not running");
    assert_non_null(strstr(f->ended.err.message, f->pid_file));
}

/* ---- the version ---- */

static void need_nginx(void)
{
    if (access(NGINX, X_OK) < 0)
        skip();
}

static void start_probe(struct fixture *f)
{
    f->facts.version = 0;
    f->ended = (struct ended){0};
    nginx_probe_start(&f->probe, f->loop, &f->config, &f->facts, ended_done, &f->ended);
    assert_int_equal(f->ended.times, 0);
}

static void the_version_is_asked_for(void **state)
{
    struct fixture *f = *state;

    need_nginx();
    start_probe(f);
    loop_run(f->loop);
    ended_assert_ok(&f->ended);
    assert_true(f->facts.version >= 1018000);
}

static void another_program_has_no_version(void **state)
{
    struct fixture *f = *state;

    f->config.nginx.path = text("/bin/true");
    start_probe(f);
    loop_run(f->loop);
    ended_assert_ok(&f->ended);
    assert_int_equal(f->facts.version, 0);
    f->config.nginx.path = text("/nowhere/nginx");
    start_probe(f);
    loop_run(f->loop);
    ended_assert_failed(&f->ended, ERR_SYS, "/nowhere/nginx");
    assert_int_equal(f->ended.err.code, ENOENT);
}

static void the_question_for_the_version_is_canceled(void **state)
{
    struct fixture *f = *state;

    f->config.nginx.path = text("/bin/true");
    start_probe(f);
    nginx_probe_cancel(&f->probe);
    nginx_probe_cancel(&f->probe);
    loop_run(f->loop);
    ended_assert_failed(&f->ended, ERR_CANCELED, "");
}

static void the_machine_is_looked_at(void **state)
{
    struct nginx_facts facts;

    (void)state;
    memset(&facts, 'x', sizeof facts);
    nginx_machine_facts(&facts);
    assert_int_equal(facts.version, 0);
    assert_true(strlen(facts.nameservers) < sizeof facts.nameservers);
}

/* ---- render ---- */

static int render(const struct fixture *f, enum nginx_level level, struct buf *site,
                  struct buf *include, struct err *err)
{
    buf_done(site);
    buf_done(include);
    buf_init(site, NGINX_CONF_MAX_BYTES);
    buf_init(include, NGINX_CONF_MAX_BYTES);
    return nginx_render(&f->config, &f->facts, level, site, include, err);
}

static void http_only_needs_the_base_template_only(void **state)
{
    struct fixture *f = *state;
    struct err err = ERR_INIT;
    char path[PATH_SIZE];
    BUF_SCOPED site = {0};
    BUF_SCOPED include = {0};

    if (render(f, NGINX_HTTP_ONLY, &site, &include, &err) < 0)
        fail_msg("%s", err.message);
    assert_non_null(strstr(buf_str(&site), "certificate being provisioned"));
    assert_null(strstr(buf_str(&site), "ssl_certificate"));
    assert_int_equal(include.len, 0);
    f->config.nginx.templates = f->folder;
    path_of(path, f->folder, "base.conf.tmpl");
    write_file(path, "a ${DOMAIN} b\n");
    if (render(f, NGINX_HTTP_ONLY, &site, &include, &err) < 0)
        fail_msg("%s", err.message);
    assert_string_equal(buf_str(&site), "a app.example.test b\n");
}

static void https_has_two_templates_and_an_include(void **state)
{
    struct fixture *f = *state;
    struct err err = ERR_INIT;
    char expected[2 * PATH_SIZE];
    BUF_SCOPED site = {0};
    BUF_SCOPED include = {0};

    if (render(f, NGINX_HTTPS, &site, &include, &err) < 0)
        fail_msg("%s", err.message);
    snprintf(expected, sizeof expected, "ssl_certificate \"%s/cert.pem\";", f->tls);
    assert_non_null(strstr(buf_str(&site), expected));
    assert_non_null(strstr(buf_str(&site), "return 301 https://"));
    assert_null(strstr(buf_str(&site), "/debug/ekm"));
    snprintf(expected, sizeof expected, "ekm_secret_file \"%s/ekm.secret\";\n", f->run);
    assert_ptr_equal(strstr(buf_str(&include), expected), buf_str(&include));
    assert_non_null(strstr(buf_str(&include), "upstream cm_auth {"));
    f->config.development = true;
    if (render(f, NGINX_HTTPS, &site, &include, &err) < 0)
        fail_msg("%s", err.message);
    assert_non_null(strstr(buf_str(&site), "/debug/ekm"));
}

static void expect_no_template(const struct fixture *f, enum nginx_level level,
                               const char *name)
{
    struct err err = ERR_INIT;
    BUF_SCOPED site = {0};
    BUF_SCOPED include = {0};

    assert_int_equal(render(f, level, &site, &include, &err), -1);
    assert_int_equal(err.code, ENOENT);
    assert_true(strncmp(err.message, "nginx template: ", 16) == 0);
    assert_non_null(strstr(err.message, name));
}

static void a_missing_template_is_named(void **state)
{
    struct fixture *f = *state;
    char path[PATH_SIZE];

    f->config.nginx.templates = f->folder;
    expect_no_template(f, NGINX_HTTP_ONLY, "/base.conf.tmpl");
    path_of(path, f->folder, "base.conf.tmpl");
    write_file(path, "");
    expect_no_template(f, NGINX_HTTPS, "/https.conf.tmpl");
    f->config.development = true;
    expect_no_template(f, NGINX_HTTPS, "/https-dev.conf.tmpl");
}

/* ---- install ---- */

static struct buf literal(const char *content)
{
    union {
        const char *in;
        unsigned char *out;
    } bytes = {.in = content};

    return (struct buf){.data = bytes.out, .len = strlen(content)};
}

static int install(const struct fixture *f, const char *site, const char *include,
                   struct err *err)
{
    const struct buf site_text = literal(site);
    const struct buf include_text = literal(include == NULL ? "" : include);
    const struct nginx_files files = {.site = &site_text,
                                      .include = include == NULL ? NULL : &include_text};

    return nginx_install(&f->config, &files, err);
}

static void must_install(const struct fixture *f, const char *site, const char *include)
{
    struct err err = ERR_INIT;

    if (install(f, site, include, &err) < 0)
        fail_msg("%s", err.message);
}

static void assert_mode(const char *path, mode_t mode)
{
    struct stat status;

    assert_int_equal(lstat(path, &status), 0);
    assert_int_equal(status.st_mode, mode);
}

static void the_files_are_installed(void **state)
{
    const struct fixture *f = *state;
    const struct buf site = literal("site 1\n");
    const struct nginx_files files = {.site = &site};

    assert_false(nginx_configured(&f->config));
    assert_false(nginx_has_files(&f->config, &files));
    must_install(f, "site 1\n", NULL);
    assert_true(nginx_configured(&f->config));
    assert_true(nginx_has_files(&f->config, &files));
    assert_file(f->site, "site 1\n");
    assert_false(fs_exists(f->include));
    must_install(f, "site 2\n", "include 2\n");
    assert_false(nginx_has_files(&f->config, &files));
    assert_file(f->site, "site 2\n");
    assert_file(f->include, "include 2\n");
    assert_mode(f->site, S_IFREG | 0644);
    assert_mode(f->include, S_IFREG | 0644);
    must_install(f, "site 3\n", NULL);
    assert_file(f->site, "site 3\n");
    assert_false(fs_exists(f->include));
}

/* The site may use what the include switches on, so it is never there without it. */
static void the_include_comes_first_and_leaves_last(void **state)
{
    struct fixture *f = *state;
    struct err err = ERR_INIT;

    assert_int_equal(rmdir(f->site_folder), 0);
    assert_int_equal(install(f, "site", "include", &err), -1);
    assert_true(strncmp(err.message, "nginx.site_conf: ", 17) == 0);
    assert_non_null(strstr(err.message, f->site));
    assert_file(f->include, "include");
    assert_int_equal(install(f, "site", NULL, &err), -1);
    assert_file(f->include, "include");
    make_folder(f->site_folder);
    make_folder(f->site);
    assert_int_equal(install(f, "site", NULL, &err), -1);
    assert_file(f->include, "include");
    assert_int_equal(rmdir(f->site), 0);
    f->config.run_dir = text("/nowhere");
    assert_int_equal(install(f, "site", "include", &err), -1);
    assert_false(fs_exists(f->site));
}

/* default.conf is a link to `target`, which leads to `path`. */
static void expect_through_link(const struct fixture *f, const char *target,
                                const char *path)
{
    assert_int_equal(symlink(target, f->site), 0);
    assert_int_equal(nginx_configured(&f->config), fs_exists(path));
    must_install(f, "behind\n", NULL);
    assert_mode(f->site, S_IFLNK | 0777);
    assert_mode(path, S_IFREG | 0644);
    assert_file(path, "behind\n");
    assert_true(nginx_configured(&f->config));
    assert_int_equal(unlink(f->site), 0);
}

static void a_link_is_written_through(void **state)
{
    const struct fixture *f = *state;
    char path[PATH_SIZE];

    path_of(path, f->run, "default.conf");
    write_file(path, "before\n");
    expect_through_link(f, path, path);
    write_file(path, "before\n");
    expect_through_link(f, "../../run/default.conf", path);
}

/* As at the first start with a read-only root: /run is empty. */
static void a_link_that_leads_nowhere_yet_is_written_through(void **state)
{
    const struct fixture *f = *state;
    char path[PATH_SIZE];

    path_of(path, f->run, "default.conf");
    expect_through_link(f, path, path);
    assert_int_equal(unlink(path), 0);
    expect_through_link(f, "../../run/default.conf", path);
    path_of(path, f->site_folder, "real.conf");
    expect_through_link(f, "real.conf", path);
}

static void a_link_into_a_missing_folder_is_an_error(void **state)
{
    const struct fixture *f = *state;
    struct err err = ERR_INIT;

    assert_int_equal(symlink("/nowhere/default.conf", f->site), 0);
    assert_int_equal(install(f, "site", NULL, &err), -1);
    assert_non_null(strstr(err.message, "/nowhere/default.conf"));
    assert_mode(f->site, S_IFLNK | 0777);
}

/* ---- nginx -t ---- */

static void write_pair(const struct fixture *f, EVP_PKEY *key, EVP_PKEY *certified)
{
    const struct pki_spec spec = {.common_name = "app.example.test",
                                  .names = "DNS:app.example.test"};
    X509 *leaf = pki_certificate(&spec, certified, NULL, certified);
    char *chain_pem = pki_pem(leaf, (X509 *)NULL);
    char *key_pem = pki_key_pem(key);

    write_file(f->staged_chain, chain_pem);
    write_file(f->staged_key, key_pem);
    free(chain_pem);
    free(key_pem);
    X509_free(leaf);
}

static void write_good_pair(const struct fixture *f)
{
    EVP_PKEY *key = pki_key();

    write_pair(f, key, key);
    EVP_PKEY_free(key);
}

static void start_test(struct fixture *f, const struct nginx_files *files)
{
    const struct nginx_test_request request = {
        .loop = f->loop,
        .config = &f->config,
        .files = *files,
        .chain = f->staged_chain,
        .key = f->staged_key,
        .timeout_ms = NGINX_TEST_MS,
    };

    f->ended = (struct ended){0};
    nginx_test_start(&f->test, &request, ended_done, &f->ended);
    assert_int_equal(f->ended.times, 0);
}

static void test_texts(struct fixture *f, const char *site, const char *include)
{
    const struct buf site_text = literal(site);
    const struct buf include_text = literal(include == NULL ? "" : include);
    const struct nginx_files files = {.site = &site_text,
                                      .include = include == NULL ? NULL : &include_text};

    start_test(f, &files);
    loop_run(f->loop);
    assert_int_equal(f->ended.times, 1);
    assert_false(fs_exists(f->mirror));
}

static void expect_accepted(struct fixture *f, const char *site, const char *include)
{
    test_texts(f, site, include);
    ended_assert_ok(&f->ended);
}

static void expect_refused(struct fixture *f, const char *site, const char *include,
                           const char *why)
{
    test_texts(f, site, include);
    ended_assert_failed(&f->ended, ERR_CONFIG, why);
    assert_non_null(strstr(f->ended.err.message, "nginx refuses the configuration: "));
}

/* All that is live, to see that a test leaves it alone. */
static void assert_untouched(const struct fixture *f)
{
    assert_file(f->site, "live site\n");
    assert_file(f->include, "live include\n");
    assert_file(f->pid_file, "4242\n");
    assert_mode(f->site, S_IFREG | 0600);
}

static void make_live(const struct fixture *f)
{
    write_file(f->site, "live site\n");
    write_file(f->include, "live include\n");
    write_file(f->pid_file, "4242\n");
}

static void the_rendered_configuration_is_accepted(void **state)
{
    struct fixture *f = *state;
    struct err err = ERR_INIT;
    BUF_SCOPED site = {0};
    BUF_SCOPED include = {0};
    struct buf groups;
    struct nginx_files files = {.site = &site, .include = &groups};

    need_nginx();
    make_live(f);
    write_good_pair(f);
    start_probe(f);
    loop_run(f->loop);
    ended_assert_ok(&f->ended);
    if (render(f, NGINX_HTTPS, &site, &include, &err) < 0)
        fail_msg("%s", err.message);
    /* Its first line is for a module of ours, which is not loaded here. */
    groups = literal(strchr(buf_str(&include), '\n'));
    start_test(f, &files);
    loop_run(f->loop);
    ended_assert_ok(&f->ended);
    assert_false(fs_exists(f->mirror));
    assert_untouched(f);
    files.include = NULL;
    if (render(f, NGINX_HTTP_ONLY, &site, &include, &err) < 0)
        fail_msg("%s", err.message);
    start_test(f, &files);
    loop_run(f->loop);
    ended_assert_ok(&f->ended);
}

static void a_bad_site_is_refused_in_the_words_of_nginx(void **state)
{
    struct fixture *f = *state;

    need_nginx();
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
    struct fixture *f = *state;

    need_nginx();
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
    struct fixture *f = *state;
    EVP_PKEY *key = pki_key();
    EVP_PKEY *other = pki_key();
    char site[1024];

    need_nginx();
    snprintf(site, sizeof site,
             "server { listen 127.0.0.1:%u ssl; ssl_certificate %s/cert.pem;\n"
             "ssl_certificate_key \"%s/key.pem\"; }\n",
             f->config.nginx.https_port, f->tls, f->tls);
    expect_refused(f, site, NULL, f->staged_chain);
    write_pair(f, key, key);
    expect_accepted(f, site, NULL);
    write_pair(f, key, other);
    expect_refused(f, site, NULL, "key values mismatch");
    EVP_PKEY_free(key);
    EVP_PKEY_free(other);
}

/* Names that nginx resolves below the folder of nginx.conf. */
static void relative_includes_find_what_they_find_live(void **state)
{
    struct fixture *f = *state;
    char folder[PATH_SIZE];
    char path[PATH_SIZE];

    need_nginx();
    path_of(folder, f->etc, "snippets");
    make_folder(folder);
    path_of(path, folder, "extra");
    write_file(path, "map $host $from_snippet { default x; }\n");
    path_of(path, f->site_folder, "extra.conf");
    write_file(path, "include snippets/extra;\n");
    expect_accepted(f, "server { set $a $from_snippet; }\n", NULL);
    write_file(path, "include snippets/missing;\n");
    expect_refused(f, "\n", NULL, "snippets/missing");
    write_file(path, "no_such_directive on;\n");
    expect_refused(f, "\n", NULL, "/conf.d/extra.conf:1");
}

static void absolute_includes_lead_into_the_mirror(void **state)
{
    struct fixture *f = *state;
    char http[2 * PATH_SIZE];

    need_nginx();
    write_file(f->site, "no_such_directive on;\n"); /* the live one is not looked at */
    expect_accepted(f, "server { }\n", NULL);
    snprintf(http, sizeof http, "include %s/conf.d/default.conf;", f->etc);
    write_conf(f, "", http);
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
    struct fixture *f = *state;
    bool compiled_in = fs_exists("/run/nginx.pid");
    char other[PATH_SIZE];
    char head[4 * PATH_SIZE];

    need_nginx();
    make_live(f);
    path_of(other, f->folder, "other.pid");
    for (size_t i = 0; i < sizeof heads / sizeof heads[0]; i++) {
        const char *paths[] = {f->pid_file, other};

        for (size_t j = 0; j < 2; j++) {
            const char *at = strstr(heads[i], "%s");

            snprintf(head, sizeof head, "%.*s%s%s", at == NULL ? 0 : (int)(at - heads[i]),
                     heads[i], at == NULL ? "" : paths[j], at == NULL ? "" : at + 2);
            write_conf(f, head, "");
            expect_accepted(f, "server { }\n", NULL);
            assert_untouched(f);
            assert_false(fs_exists(other));
            assert_int_equal(fs_exists("/run/nginx.pid"), compiled_in);
        }
    }
}

static void the_main_configuration_may_have_another_name(void **state)
{
    struct fixture *f = *state;

    need_nginx();
    write_file(f->conf, "this is not the configuration\n");
    path_of(f->conf, f->etc, "main.conf");
    write_usual_conf(f);
    expect_accepted(f, "server { }\n", NULL);
    expect_refused(f, "no_such_directive on;\n", NULL, "/refused.conf:1");
    path_of(f->conf, f->etc, "nginx.conf");
    assert_file(f->conf, "this is not the configuration\n");
}

static void a_mirror_of_before_is_in_nobodys_way(void **state)
{
    struct fixture *f = *state;
    char path[PATH_SIZE];

    need_nginx();
    make_folder(f->mirror);
    path_of(path, f->mirror, "conf.d");
    make_folder(path);
    path_of(path, f->mirror, "conf.d/left.conf");
    write_file(path, "no_such_directive on;\n");
    expect_accepted(f, "server { }\n", NULL);
}

static void the_site_must_be_below_the_main_configuration(void **state)
{
    static const char *const sites[] = {"/elsewhere/conf.d/default.conf", "/default.conf",
                                        "default.conf"};
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof sites / sizeof sites[0]; i++) {
        f->config.nginx.site_conf = text(sites[i]);
        test_texts(f, "", NULL);
        ended_assert_failed(&f->ended, ERR_CONFIG, "nginx.site_conf (");
    }
}

static void a_missing_main_configuration_is_named(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(unlink(f->conf), 0);
    test_texts(f, "", NULL);
    ended_assert_failed(&f->ended, ERR_SYS, f->conf);
    assert_int_equal(f->ended.err.code, ENOENT);
}

static void a_missing_program_is_named(void **state)
{
    struct fixture *f = *state;

    f->config.nginx.path = text("/nowhere/nginx");
    test_texts(f, "", NULL);
    ended_assert_failed(&f->ended, ERR_SYS, "/nowhere/nginx");
    assert_int_equal(f->ended.err.code, ENOENT);
}

/* nginx.path is a shell script with this body. */
static void use_script(struct fixture *f, char path[PATH_SIZE], const char *body)
{
    char script[512];

    path_of(path, f->folder, "script");
    snprintf(script, sizeof script, "#!/bin/sh\n%s\n", body);
    write_file(path, script);
    assert_int_equal(chmod(path, 0700), 0);
    f->config.nginx.path = path;
}

static void an_end_without_words_is_told(void **state)
{
    struct fixture *f = *state;
    char path[PATH_SIZE];

    use_script(f, path, "exit 1");
    expect_refused(f, "", NULL, "nginx refuses the configuration: no reason given");
    use_script(f, path, "echo 'nginx: no library' >&2; echo more >&2; exit 127");
    expect_refused(f, "", NULL, "nginx refuses the configuration: nginx: no library");
    use_script(f, path, "kill -9 $$");
    test_texts(f, "", NULL);
    ended_assert_failed(&f->ended, ERR_SYS, "nginx was ended by signal 9");
    use_script(f, path, "printf '\\n\\n' >&2; exit 1");
    expect_refused(f, "", NULL, "nginx refuses the configuration: no reason given");
}

static void the_environment_is_our_own(void **state)
{
    struct fixture *f = *state;
    char path[PATH_SIZE];

    setenv("A_SECRET_OF_OURS", "x", 1);
    use_script(f, path, "env | grep -q A_SECRET_OF_OURS && exit 1; exit 0");
    expect_accepted(f, "", NULL);
    unsetenv("A_SECRET_OF_OURS");
}

static void a_test_is_canceled(void **state)
{
    const struct buf site = literal("");
    const struct nginx_files files = {.site = &site};
    struct fixture *f = *state;
    char path[PATH_SIZE];

    use_script(f, path, "exec sleep 1000");
    start_test(f, &files);
    nginx_test_cancel(&f->test); /* before its first step */
    loop_run(f->loop);
    ended_assert_failed(&f->ended, ERR_CANCELED, "");
    start_test(f, &files);
    while (process_pid(&f->test.process) == 0)
        uv_run(f->loop, UV_RUN_ONCE);
    assert_true(fs_exists(f->mirror));
    nginx_test_cancel(&f->test);
    nginx_test_cancel(&f->test);
    loop_run(f->loop);
    ended_assert_failed(&f->ended, ERR_CANCELED, "nginx -t: canceled");
    assert_false(fs_exists(f->mirror));
}

#define nginx_test_case(function)                                                        \
    cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        nginx_test_case(no_pid_file_is_no_master),
        nginx_test_case(a_pid_file_without_a_pid_is_no_master),
        nginx_test_case(a_pid_of_before_is_no_master),
        nginx_test_case(a_pid_of_another_program_is_no_master),
        nginx_test_case(a_long_program_name_is_known),
        nginx_test_case(a_reload_is_a_hangup_for_the_master),
        nginx_test_case(a_dead_process_is_no_master),
        nginx_test_case(workers_without_master_are_told_to_quit),
        nginx_test_case(a_site_that_came_after_the_start_is_unread),
        nginx_test_case(the_wait_ends_when_a_master_runs),
        nginx_test_case(the_wait_is_canceled),
        nginx_test_case(the_wait_has_an_end),
        nginx_test_case(the_version_is_asked_for),
        nginx_test_case(another_program_has_no_version),
        nginx_test_case(the_question_for_the_version_is_canceled),
        nginx_test_case(the_machine_is_looked_at),
        nginx_test_case(http_only_needs_the_base_template_only),
        nginx_test_case(https_has_two_templates_and_an_include),
        nginx_test_case(a_missing_template_is_named),
        nginx_test_case(the_files_are_installed),
        nginx_test_case(the_include_comes_first_and_leaves_last),
        nginx_test_case(a_link_is_written_through),
        nginx_test_case(a_link_that_leads_nowhere_yet_is_written_through),
        nginx_test_case(a_link_into_a_missing_folder_is_an_error),
        nginx_test_case(the_rendered_configuration_is_accepted),
        nginx_test_case(a_bad_site_is_refused_in_the_words_of_nginx),
        nginx_test_case(the_staged_include_is_tested),
        nginx_test_case(the_staged_pair_is_tested),
        nginx_test_case(relative_includes_find_what_they_find_live),
        nginx_test_case(absolute_includes_lead_into_the_mirror),
        nginx_test_case(no_pid_file_is_touched),
        nginx_test_case(the_main_configuration_may_have_another_name),
        nginx_test_case(a_mirror_of_before_is_in_nobodys_way),
        nginx_test_case(the_site_must_be_below_the_main_configuration),
        nginx_test_case(a_missing_main_configuration_is_named),
        nginx_test_case(a_missing_program_is_named),
        nginx_test_case(an_end_without_words_is_told),
        nginx_test_case(the_environment_is_our_own),
        nginx_test_case(a_test_is_canceled),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
