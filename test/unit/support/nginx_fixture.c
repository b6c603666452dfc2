#include "support/nginx_fixture.h"

#include "support/server.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PATIENCE_MS = 20000 };

char *fixture_text(const char *literal)
{
    union {
        const char *in;
        char *out;
    } writable = {.in = literal};

    return writable.out;
}

void fixture_path(char ret[PATH_SIZE], const char *folder, const char *name)
{
    assert_true(snprintf(ret, PATH_SIZE, "%s/%s", folder, name) < PATH_SIZE);
}

void fixture_write(const char *path, const char *content)
{
    struct err err = ERR_INIT;

    if (fs_replace(path, content, strlen(content), 0600, &err) < 0)
        fail_msg("%s", err.message);
}

bool fixture_file_is(const char *path, const char *content)
{
    struct err err = ERR_INIT;
    BUF_SCOPED found = {0};

    return fs_read(path, NGINX_CONF_MAX_BYTES, &found, &err) == 0 &&
           strcmp(buf_str(&found), content) == 0;
}

void fixture_assert_file(const char *path, const char *content)
{
    if (!fixture_file_is(path, content))
        fail_msg("%s is not \"%s\"", path, content);
}

void fixture_make_folder(const char *path)
{
    assert_int_equal(mkdir(path, 0755), 0);
}

void fixture_init_upstreams(struct nginx_fixture *f)
{
    struct err err = ERR_INIT;

    upstreams_done(&f->upstreams);
    if (upstreams_init(&f->upstreams, &f->config, &err) < 0)
        fail_msg("%s", err.message);
    f->facts.upstreams = &f->upstreams;
}

static void configure(struct nginx_fixture *f)
{
    struct config *config = &f->config;

    config->domain = fixture_text("app.example.test");
    config->domains = (struct config_list){.items = &config->domain, .count = 1};
    config->run_dir = f->run;
    config->tls.dir = f->tls;
    config->nginx.path = fixture_text(NGINX);
    config->nginx.conf = f->conf;
    config->nginx.site_conf = f->site;
    config->nginx.pid_file = f->pid_file;
    config->nginx.templates = fixture_text(TEST_FOLDER "/../nginx_conf");
    config->nginx.stock_templates = fixture_text(TEST_FOLDER "/../nginx_conf");
    config->nginx.webroot = f->folder;
    config->nginx.address = fixture_text("127.0.0.1");
    config->nginx.http_port = (unsigned)server_unused_port();
    do
        config->nginx.https_port = (unsigned)server_unused_port();
    while (config->nginx.https_port == config->nginx.http_port);
    config->nginx.extra_upstreams = fixture_text("");
    config->nginx.extra_locations = fixture_text("");
    config->upstream.port = 8000;
    config->auth.enabled = true;
    config->auth.upstream = fixture_text("auth-service:8081");
    config->attestation.upstream = fixture_text("attestation-service:8080");
    fixture_init_upstreams(f);
}

void fixture_write_conf(const struct nginx_fixture *f, const char *head, const char *http)
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
    fixture_write(f->conf, content);
}

void fixture_write_usual_conf(const struct nginx_fixture *f)
{
    char head[PATH_SIZE + 8];

    snprintf(head, sizeof head, "pid %s;", f->pid_file);
    fixture_write_conf(f, head, "");
}

int nginx_fixture_setup(void **state)
{
    struct nginx_fixture *f = calloc(1, sizeof *f);
    char mime_types[PATH_SIZE];
    void *loop = NULL;

    assert_non_null(f);
    loop_setup(&loop);
    f->loop = loop;
    snprintf(f->folder, sizeof f->folder, "/tmp/test-nginx-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    fixture_path(f->etc, f->folder, "etc");
    fixture_path(f->conf, f->etc, "nginx.conf");
    fixture_path(f->site_folder, f->etc, "conf.d");
    fixture_path(f->site, f->site_folder, "default.conf");
    fixture_path(f->pid_file, f->folder, "nginx.pid");
    fixture_path(f->run, f->folder, "run");
    fixture_path(f->include, f->run, "nginx-http.conf");
    fixture_path(f->mirror, f->run, "nginx-test");
    fixture_path(f->refused, f->run, "refused.conf");
    fixture_path(f->tls, f->folder, "tls");
    fixture_path(f->staged_chain, f->tls, "staged-cert.pem");
    fixture_path(f->staged_key, f->tls, "staged-key.pem");
    fixture_path(f->script, f->folder, "script");
    fixture_path(mime_types, f->etc, "mime.types");
    fixture_make_folder(f->etc);
    fixture_make_folder(f->site_folder);
    fixture_make_folder(f->run);
    fixture_make_folder(f->tls);
    fixture_write(mime_types, "types { text/html html; }\n");
    configure(f);
    f->facts.version = 1022001;
    fixture_write_usual_conf(f);
    *state = f;
    return 0;
}

void fixture_end_child(struct nginx_fixture *f)
{
    if (f->child == 0)
        return;
    kill(f->child, SIGKILL);
    assert_int_equal(waitpid(f->child, NULL, 0), f->child);
    f->child = 0;
}

void fixture_need_nginx(void)
{
    if (access(NGINX, X_OK) < 0)
        skip();
}

void fixture_use_script(struct nginx_fixture *f, const char *body)
{
    char script[1024];

    assert_true((size_t)snprintf(script, sizeof script, "#!/bin/sh\n%s\n", body) <
                sizeof script);
    fixture_write(f->script, script);
    assert_int_equal(chmod(f->script, 0700), 0);
    f->config.nginx.path = f->script;
}

static void run_nginx(const struct nginx_fixture *f, int log)
{
    /* A group of its own, as supervisord gives it; and it does not outlive the test. */
    if (setpgid(0, 0) == 0 && prctl(PR_SET_PDEATHSIG, SIGTERM) == 0 &&
        dup2(log, STDERR_FILENO) >= 0)
        execl(NGINX, NGINX, "-c", f->conf, "-g", "daemon off;", (char *)NULL);
    _exit(127);
}

static unsigned count(const char *text, const char *part)
{
    unsigned found = 0;

    while ((text = strstr(text, part)) != NULL) {
        text += strlen(part);
        found++;
    }
    return found;
}

/* Its lines at the level notice, until the last worker is named. */
static void await_workers(const struct nginx_fixture *f, unsigned workers)
{
    struct pollfd log = {.fd = f->nginx_log, .events = POLLIN};
    char said[16384];
    size_t len = 0;

    said[0] = '\0';
    while (count(said, "start worker process ") < workers) {
        ssize_t got = -1;

        if (poll(&log, 1, PATIENCE_MS) == 1)
            got = read(log.fd, said + len, sizeof said - 1 - len);
        if (got <= 0)
            fail_msg("nginx has not started its workers, but said\n%s", said);
        len += (size_t)got;
        said[len] = '\0';
    }
}

void fixture_start_nginx(struct nginx_fixture *f, unsigned workers)
{
    int log[2];

    assert_int_equal(pipe2(log, O_CLOEXEC), 0);
    f->nginx_log = log[0];
    f->nginx = fork();
    assert_true(f->nginx >= 0);
    if (f->nginx == 0)
        run_nginx(f, log[1]);
    close(log[1]);
    await_workers(f, workers);
    assert_int_equal(nginx_master(&f->config), f->nginx);
}

void fixture_end_nginx(struct nginx_fixture *f)
{
    if (f->nginx == 0)
        return;
    kill(-f->nginx, SIGKILL);
    assert_int_equal(waitpid(f->nginx, NULL, 0), f->nginx);
    f->nginx = 0;
    close(f->nginx_log);
}

int nginx_fixture_teardown(void **state)
{
    struct nginx_fixture *f = *state;
    struct err err = ERR_INIT;
    void *loop = f->loop;

    fixture_end_child(f);
    fixture_end_nginx(f);
    nginx_compose_done(&f->compose);
    assert_int_equal(fs_remove_tree(f->folder, &err), 0);
    upstreams_done(&f->upstreams);
    free(f);
    return loop_teardown(&loop);
}

void fixture_write_pair(const struct nginx_fixture *f, EVP_PKEY *key, EVP_PKEY *certified)
{
    const struct pki_spec spec = {.common_name = "app.example.test",
                                  .names = "DNS:app.example.test"};
    X509 *leaf = pki_certificate(&spec, certified, NULL, certified);
    char *chain_pem = pki_pem(leaf, (X509 *)NULL);
    char *key_pem = pki_key_pem(key);

    fixture_write(f->staged_chain, chain_pem);
    fixture_write(f->staged_key, key_pem);
    free(chain_pem);
    free(key_pem);
    X509_free(leaf);
}

void fixture_write_good_pair(const struct nginx_fixture *f)
{
    EVP_PKEY *key = pki_key();

    fixture_write_pair(f, key, key);
    EVP_PKEY_free(key);
}

int fixture_render(const struct nginx_fixture *f, enum nginx_level level,
                   struct buf *site, struct buf *include, struct err *err)
{
    buf_done(site);
    buf_done(include);
    buf_init(site, NGINX_CONF_MAX_BYTES);
    buf_init(include, NGINX_CONF_MAX_BYTES);
    return nginx_render(&f->config, &f->facts, level, site, include, err);
}

struct buf fixture_literal(const char *content)
{
    union {
        const char *in;
        unsigned char *out;
    } bytes = {.in = content};

    return (struct buf){.data = bytes.out, .len = strlen(content)};
}

void fixture_assert_mode(const char *path, mode_t mode)
{
    struct stat status;

    assert_int_equal(lstat(path, &status), 0);
    assert_int_equal(status.st_mode, mode);
}
