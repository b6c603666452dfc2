/* The calls of nginx.h about the processes of nginx: which they are, and what they have taken. */
#include "adapters/nginx.h"

#include "base/fs.h"
#include "base/text.h"
#include "runtime/observer.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    PID_FILE_MAX_BYTES = 64,
    PROC_STAT_MAX_BYTES = 4096,
    TITLE_MAX_BYTES = 64 * 1024,
    WAIT_INTERVAL_MS = 50,
    RELOAD_INTERVAL_MS = 5,
};

/* The number in the pid file, or 0: none, or empty, as it is while nginx starts. */
static pid_t named_master(const struct config *config)
{
    struct err ignored = ERR_INIT;
    BUF_SCOPED text = {0};
    long pid;

    if (fs_read(config->nginx.pid_file, PID_FILE_MAX_BYTES, &text, &ignored) < 0)
        return 0;
    pid = strtol(buf_str(&text), NULL, 10);
    return pid > 1 && pid <= INT_MAX ? (pid_t)pid : 0;
}

struct relatives {
    pid_t parent;
    pid_t group;
};

/* Whether a process of that number runs nginx. */
static bool is_nginx(const struct config *config, long pid, struct relatives *ret)
{
    struct err ignored = ERR_INIT;
    BUF_SCOPED stat = {0};
    const char *program = strrchr(config->nginx.path, '/');
    const char *name;
    const char *rest;
    char *end;
    char path[64];
    char expected[20];

    /* proc(5): "pid (name) S ppid pgrp …"; the kernel keeps 15 characters of the name. */
    snprintf(expected, sizeof expected, "(%.15s)",
             program == NULL ? config->nginx.path : program + 1);
    snprintf(path, sizeof path, "/proc/%ld/stat", pid);
    if (fs_read(path, PROC_STAT_MAX_BYTES, &stat, &ignored) < 0)
        return false;
    name = strchr(buf_str(&stat), '(');
    rest = strrchr(buf_str(&stat), ')');
    if (name == NULL || rest == NULL || !text_starts_with(name, expected) ||
        name + strlen(expected) != rest + 1 || !text_starts_with(rest, ") ") ||
        rest[2] == '\0' || rest[2] == 'Z')
        return false;
    ret->parent = (pid_t)strtol(rest + 3, &end, 10);
    ret->group = (pid_t)strtol(end, NULL, 10);
    return true;
}

/* The pid file may name a process that is long gone, or another one by now. */
pid_t nginx_master(const struct config *config)
{
    pid_t pid = named_master(config);
    struct relatives ignored;

    return pid != 0 && is_nginx(config, pid, &ignored) ? pid : 0;
}

/* Calls `visit` for each process that runs nginx. */
static void for_each_nginx(const struct config *config,
                           void (*visit)(pid_t pid, const struct relatives *relatives,
                                         void *owner),
                           void *owner)
{
    DIR *processes = opendir("/proc");
    const struct dirent *entry;

    if (processes == NULL)
        return;
    while ((entry = readdir(processes)) != NULL) {
        long pid = strtol(entry->d_name, NULL, 10);
        struct relatives relatives;

        if (pid > 1 && is_nginx(config, pid, &relatives))
            visit((pid_t)pid, &relatives, owner);
    }
    closedir(processes);
}

/* ---- workers that lost their master ---- */

struct orphans {
    pid_t master;
    int ended;
};

/* supervisord gives every program a group of its own, led by the master. */
static void end_orphan(pid_t pid, const struct relatives *relatives, void *owner)
{
    struct orphans *orphans = owner;

    if (relatives->group == orphans->master && kill(pid, SIGQUIT) == 0)
        orphans->ended++;
}

int nginx_end_orphans(const struct config *config)
{
    struct orphans orphans = {.master = named_master(config)};

    if (orphans.master != 0 && nginx_master(config) == 0)
        for_each_nginx(config, end_orphan, &orphans);
    return orphans.ended;
}

int nginx_ask_reload(const struct config *config, struct err *err)
{
    pid_t master = nginx_master(config);

    if (master == 0)
        return err_set(err, ERR_SYS, "nginx is not running (%s)", config->nginx.pid_file);
    if (kill(master, SIGHUP) < 0)
        return err_sys(err, errno, "cannot signal nginx (pid %d)", (int)master);
    return 0;
}

/* ---- wait for a master ---- */

static void on_wait_closed(void *owner)
{
    struct nginx_wait *wait = owner;
    const struct err err = wait->err; /* done may free or restart the wait */

    wait->running = false;
    wait->done(wait->owner, err.kind == ERR_NONE ? NULL : &err);
}

static void on_wait_fired(void *owner)
{
    struct nginx_wait *wait = owner;

    if (wait->canceled)
        err_set(&wait->err, ERR_CANCELED, "canceled");
    else if (nginx_master(wait->config) == 0 && uv_now(wait->loop) < wait->deadline_ms) {
        timer_set(&wait->timer, WAIT_INTERVAL_MS);
        return;
    } else if (nginx_master(wait->config) == 0)
        err_set(
            &wait->err, ERR_SYS,
            "nginx is not running: for %d s %s has not named a running nginx; its own "
            "lines in the log say why",
            NGINX_WAIT_MS / 1000, wait->config->nginx.pid_file);
    timer_close(&wait->timer, on_wait_closed);
}

void nginx_wait_start(struct nginx_wait *wait, uv_loop_t *loop,
                      const struct config *config, done_fn done, void *owner)
{
    *wait = (struct nginx_wait){
        .loop = loop,
        .config = config,
        .deadline_ms = uv_now(loop) + NGINX_WAIT_MS,
        .running = true,
        .done = done,
        .owner = owner,
    };
    timer_init(&wait->timer, loop, on_wait_fired, wait);
    timer_set(&wait->timer, 0);
}

void nginx_wait_cancel(struct nginx_wait *wait)
{
    if (!wait->running || wait->canceled)
        return;
    wait->canceled = true;
    if (!uv_is_closing((uv_handle_t *)&wait->timer.handle))
        timer_set(&wait->timer, 0);
}

/* ---- a reload, until it is seen ---- */

struct search {
    struct nginx_reload *reload;
    bool recording;     /* else comparing */
    bool found;         /* a worker that was not recorded, and accepts */
    bool old_accepting; /* one that was recorded, and may */
};

/* nginx says in its title what a process is, and whether it still accepts connections. */
static bool is_titled(const struct buf *title, const char *begin)
{
    return text_starts_with(buf_str(title), begin) &&
           strstr(buf_str(title), "shutting down") == NULL;
}

static void look_at_child(pid_t pid, const struct relatives *relatives, void *owner)
{
    struct search *search = owner;
    struct nginx_reload *reload = search->reload;
    struct err ignored = ERR_INIT;
    BUF_SCOPED title = {0};
    bool known = false;
    bool worker;
    bool may_accept;
    char path[64];

    snprintf(path, sizeof path, "/proc/%d/cmdline", (int)pid);
    if (relatives->parent != reload->master ||
        fs_read(path, TITLE_MAX_BYTES, &title, &ignored) < 0)
        return;
    worker = is_titled(&title, "nginx: worker process");
    /* Until it has a title of its own, a worker bears that of the master. */
    may_accept = worker || is_titled(&title, "nginx: master process");
    for (size_t i = 0; i < reload->known; i++)
        known = known || reload->workers[i] == pid;
    if (search->recording && may_accept && reload->known < NGINX_WORKERS_MAX)
        reload->workers[reload->known++] = pid;
    search->found = search->found || (worker && !known);
    search->old_accepting = search->old_accepting || (may_accept && known);
}

static void on_reload_closed(void *owner)
{
    struct nginx_reload *reload = owner;
    const struct err err = reload->err; /* done may free or restart the reload */

    reload->running = false;
    observer_tell(&(struct observation){
        .what = OBSERVED_RELOAD, .subject = "", .detail = "", .failure = err.kind});
    reload->done(reload->owner, err.kind == ERR_NONE ? NULL : &err);
}

/* Without a master nobody is asked yet: supervisord may be about to start one. */
static void ask(struct nginx_reload *reload, bool needs_workers)
{
    struct search search = {.reload = reload, .recording = true};
    struct err gone = ERR_INIT;

    reload->known = 0;
    reload->master = nginx_master(reload->config);
    if (reload->master == 0)
        return;
    for_each_nginx(reload->config, look_at_child, &search);
    if ((needs_workers && reload->known == 0) ||
        nginx_ask_reload(reload->config, &gone) < 0)
        reload->master = 0;
}

/*
 * The new configuration is in force when the master has started workers with it and those of before
 * accept no more, or when another master runs than was asked: it has read what is on disk. One that
 * comes where none was may have read it a moment before, so it is asked, once it has workers that can
 * be told from those to come.
 */
static bool is_in_force(struct nginx_reload *reload)
{
    struct search search = {.reload = reload};
    pid_t master = nginx_master(reload->config);

    if (reload->master == 0) {
        ask(reload, true);
        return false;
    }
    if (master != reload->master)
        return master != 0;
    for_each_nginx(reload->config, look_at_child, &search);
    return search.found && !search.old_accepting;
}

static void on_reload_fired(void *owner)
{
    struct nginx_reload *reload = owner;

    if (reload->canceled)
        err_set(&reload->err, ERR_CANCELED, "canceled");
    if (reload->err.kind == ERR_NONE && !is_in_force(reload)) {
        if (uv_now(reload->loop) < reload->deadline_ms) {
            timer_set(&reload->timer, RELOAD_INTERVAL_MS);
            return;
        }
        if (nginx_master(reload->config) == 0)
            err_set(
                &reload->err, ERR_SYS,
                "nginx is to reload, and is not running (%s); its own lines in the log "
                "say why",
                reload->config->nginx.pid_file);
        else
            err_set(&reload->err, ERR_CONFIG,
                    "nginx was asked to reload, but did not within %d s; its own lines "
                    "in the log say why",
                    NGINX_RELOAD_MS / 1000);
    }
    timer_close(&reload->timer, on_reload_closed);
}

void nginx_reload_start(struct nginx_reload *reload, uv_loop_t *loop,
                        const struct config *config, done_fn done, void *owner)
{
    *reload = (struct nginx_reload){
        .loop = loop,
        .config = config,
        .deadline_ms = uv_now(loop) + NGINX_RELOAD_MS,
        .running = true,
        .done = done,
        .owner = owner,
    };
    ask(reload, false);
    timer_init(&reload->timer, loop, on_reload_fired, reload);
    timer_set(&reload->timer, 0);
}

void nginx_reload_cancel(struct nginx_reload *reload)
{
    if (!reload->running || reload->canceled)
        return;
    reload->canceled = true;
    if (!uv_is_closing((uv_handle_t *)&reload->timer.handle))
        timer_set(&reload->timer, 0);
}
