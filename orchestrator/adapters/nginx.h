/*
 * nginx: the server that we configure but do not own: supervisord starts it.
 *
 * A configuration is tested before it goes live, in a mirror of nginx's own configuration
 * folder: `nginx -t` on the live one would touch the pid file, and could not be shown
 * staged files. It also binds ports, so it is only run while nginx is up and holds them.
 * Reloading is SIGHUP to the master that the pid file names; nginx is never restarted.
 */
#ifndef CM_ADAPTERS_NGINX_H
#define CM_ADAPTERS_NGINX_H

#include "base/buf.h"
#include "base/fs.h"
#include "base/secret.h"
#include "domain/config.h"
#include "domain/nginx_conf.h"
#include "runtime/process.h"
#include "runtime/seq.h"
#include "runtime/timer.h"

#include <sys/types.h>

/* What we put live: default.conf, and the include for our modules (NULL: none). */
struct nginx_files {
    const struct buf *site;
    const struct buf *include;
};

/* Files below run_dir, into FS_PATH_MAX bytes: the include, the secret that it names, and the
 * default.conf that nginx refused last. */
int nginx_include_path(const struct config *config, char *ret, struct err *err);
int nginx_secret_path(const struct config *config, char *ret, struct err *err);
int nginx_refused_path(const struct config *config, char *ret, struct err *err);

/*
 * Render default.conf and, with HTTPS, the include, from the templates on disk: the deployment's,
 * and at NGINX_HTTPS_REDUCED our own.
 */
int nginx_render(const struct config *config, const struct nginx_facts *facts,
                 enum nginx_level level, struct buf *ret_site, struct buf *ret_include,
                 struct err *err);

/* NGINX_HTTP_ONLY, for when the deployment's template is missing, or nginx refuses it. */
int nginx_render_stock_http_only(const struct config *config,
                                 const struct nginx_facts *facts, struct buf *ret_site,
                                 struct err *err);

/*
 * Put the files live, each atomically (a default.conf that is a link is written
 * through).
 */
int nginx_install(const struct config *config, const struct nginx_files *files,
                  struct err *err);

/* The folder that default.conf is in, its links followed, into FS_PATH_MAX bytes. */
int nginx_site_folder(const struct config *config, char *ret, struct err *err);

bool nginx_configured(const struct config *config); /* default.conf exists */

/*
 * The files that are live, into initialised buffers; empty when default.conf is missing.
 * *ret_include_there is false when there is no include.
 */
int nginx_read_files(const struct config *config, struct buf *ret_site,
                     struct buf *ret_include, bool *ret_include_there, struct err *err);

/* Write the EKM secret where the include says. nginx takes it with the next reload. */
int nginx_write_secret(const struct config *config, const struct secret *secret,
                       struct err *err);

/* Whether the files are live already. */
bool nginx_has_files(const struct config *config, const struct nginx_files *files);

/* Whether nginx was started after default.conf was written, or is not running. */
bool nginx_has_read_site(const struct config *config);

/* The running master, or 0: no pid file, an empty one, or a pid that is not nginx. */
pid_t nginx_master(const struct config *config);

/*
 * Workers whose master was killed keep its ports, and no new nginx can bind them. Those of the
 * master that the pid file names are told to quit, which closes their listening sockets at
 * once. Returns how many. For whoever is about to start nginx.
 */
int nginx_end_orphans(const struct config *config);

/* SIGHUP to the master. ERR_SYS when there is none. */
int nginx_ask_reload(const struct config *config, struct err *err);

/*
 * IPv6, the name servers, and the ACME account that was kept last; fast. The version comes from
 * struct nginx_probe.
 */
void nginx_machine_facts(const struct config *config, struct nginx_facts *ret);

/* The socket that metrics are shown from, which is one of the facts. */
void nginx_find_metrics(const struct config *config, struct nginx_facts *facts);

/*
 * The group that nginx's workers have: that of `user` in its configuration, else of the user that
 * packages of nginx give them. ERR_CONFIG when there is none.
 */
int nginx_worker_group(const struct config *config, gid_t *ret, struct err *err);

/*
 * The thumbprint of the account key, below run_dir, for whoever renders without asking the agent:
 * `prestart` and `render`. Nothing about it is secret. Of another account it is not taken.
 */
int nginx_keep_account(const struct config *config, const char *thumbprint,
                       struct err *err);

/* ---- `nginx -v`: the version, into facts ---- */
struct nginx_probe {
    struct process process;
    struct nginx_facts *facts;
    done_fn done;
    void *owner;
};
void nginx_probe_start(struct nginx_probe *probe, uv_loop_t *loop,
                       const struct config *config, struct nginx_facts *facts,
                       done_fn done, void *owner);
void nginx_probe_cancel(struct nginx_probe *probe);

/* ---- wait until a master runs; ERR_SYS when there is none in NGINX_WAIT_MS ---- */
enum { NGINX_WAIT_MS = 30 * 1000 };
struct nginx_wait {
    struct timer timer;
    uv_loop_t *loop;
    const struct config *config;
    uint64_t deadline_ms; /* on the loop's clock */
    bool running;
    bool canceled;
    struct err err;
    done_fn done;
    void *owner;
};
void nginx_wait_start(struct nginx_wait *wait, uv_loop_t *loop,
                      const struct config *config, done_fn done, void *owner);
void nginx_wait_cancel(struct nginx_wait *wait);

/*
 * ---- SIGHUP, and wait until only workers with what it read accept connections ----
 * A master that is not there, or ends, is waited for. ERR_SYS when none came in NGINX_RELOAD_MS;
 * ERR_CONFIG when no such workers came in that time: nginx refuses in its own log.
 */
enum { NGINX_RELOAD_MS = 10 * 1000, NGINX_WORKERS_MAX = 512 };
struct nginx_reload {
    struct timer timer;
    uv_loop_t *loop;
    const struct config *config;
    pid_t master;
    pid_t workers[NGINX_WORKERS_MAX]; /* of before */
    size_t known;
    uint64_t deadline_ms; /* on the loop's clock */
    bool running;
    bool canceled;
    struct err err;
    done_fn done;
    void *owner;
};
void nginx_reload_start(struct nginx_reload *reload, uv_loop_t *loop,
                        const struct config *config, done_fn done, void *owner);
void nginx_reload_cancel(struct nginx_reload *reload);

/* ---- `nginx -t` on files that are not live yet ---- */
enum { NGINX_TEST_MS = 30 * 1000 };

/* Borrowed until done. */
struct nginx_test_request {
    uv_loop_t *loop;
    const struct config *config;
    /*
     * The folder that nginx.conf includes nginx-http.conf from, when run_dir of `config` is another
     * one, which stands in for it; or NULL.
     */
    const char *live_run_dir;
    struct nginx_files files;
    const char *chain; /* paths of the pair that stands in for cert.pem and key.pem */
    const char *key;
    unsigned timeout_ms; /* nginx looks names up while it reads */
};

struct nginx_test {
    struct process process;
    struct seq seq;
    struct nginx_test_request request;
    char mirror[FS_PATH_MAX];
    char site_folder[FS_PATH_MAX];
    done_fn done;
    void *owner;
};

/*
 * ERR_CONFIG with nginx's own first complaint when it refuses, and the text is kept; ERR_TIMEOUT.
 */
void nginx_test_start(struct nginx_test *test, const struct nginx_test_request *request,
                      done_fn done, void *owner);
void nginx_test_cancel(struct nginx_test *test);

#endif
