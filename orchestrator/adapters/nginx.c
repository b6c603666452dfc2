#include "adapters/nginx.h"

#include "base/fs.h"
#include "base/text.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    RESOLV_CONF_MAX_BYTES = 64 * 1024,
    PID_FILE_MAX_BYTES = 64,
    PROC_STAT_MAX_BYTES = 4096
};

int nginx_include_path(const struct config *config, char *ret, struct err *err)
{
    return fs_join(ret, config->run_dir, "nginx-http.conf", err);
}

int nginx_secret_path(const struct config *config, char *ret, struct err *err)
{
    return fs_join(ret, config->run_dir, "ekm.secret", err);
}

static int read_template(const struct config *config, const char *name, struct buf *ret,
                         struct err *err)
{
    char path[FS_PATH_MAX];

    if (fs_join(path, config->nginx.templates, name, err) < 0)
        return -1;
    if (fs_read(path, NGINX_CONF_MAX_BYTES, ret, err) < 0)
        return err_wrap(err, "nginx template");
    return 0;
}

int nginx_render(const struct config *config, const struct nginx_facts *facts,
                 enum nginx_level level, struct buf *ret_site, struct buf *ret_include,
                 struct err *err)
{
    BUF_SCOPED base = {0};
    BUF_SCOPED https = {0};
    struct nginx_templates templates = {0};
    char secret[FS_PATH_MAX];

    if (read_template(config, "base.conf.tmpl", &base, err) < 0)
        return -1;
    templates.base = buf_str(&base);
    if (level == NGINX_HTTPS) {
        if (read_template(config, nginx_conf_https_template(config), &https, err) < 0 ||
            nginx_secret_path(config, secret, err) < 0 ||
            nginx_conf_render_include(secret, ret_include, err) < 0)
            return -1;
        templates.https = buf_str(&https);
    }
    return nginx_conf_render(config, facts, level, &templates, ret_site, err);
}

/*
 * The file that default.conf is. With a read-only root it is a link into /run, which is
 * empty when the container starts: then the link leads to a file that is not there yet.
 */
static int find_site(const struct config *config, char ret[PATH_MAX], struct err *err)
{
    const char *site = config->nginx.site_conf;
    const char *slash = strrchr(site, '/');
    char target[PATH_MAX];
    ssize_t len;
    int folder_len = 0;
    int put;

    if (realpath(site, ret) != NULL)
        return 0;
    len = readlink(site, target, sizeof target - 1);
    if (len < 0) {
        snprintf(ret, PATH_MAX, "%s", site);
        return 0;
    }
    target[len] = '\0';
    if (target[0] != '/' && slash != NULL)
        folder_len = (int)(slash + 1 - site);
    put = snprintf(ret, PATH_MAX, "%.*s%s", folder_len, site, target);
    if (put < 0 || put >= PATH_MAX)
        return err_set(err, ERR_CONFIG, "nginx.site_conf: the path is too long");
    return 0;
}

int nginx_install(const struct config *config, const struct nginx_files *files,
                  struct err *err)
{
    char include[FS_PATH_MAX];
    char site[PATH_MAX];

    if (nginx_include_path(config, include, err) < 0 || find_site(config, site, err) < 0)
        return -1;
    /* The include goes first and leaves last: templates may use what it switches on. */
    if (files->include != NULL &&
        fs_replace(include, files->include->data, files->include->len, 0644, err) < 0)
        return -1;
    if (fs_replace(site, files->site->data, files->site->len, 0644, err) < 0)
        return err_wrap(err, "nginx.site_conf");
    if (files->include == NULL)
        return fs_remove(include, err);
    return 0;
}

bool nginx_configured(const struct config *config)
{
    char target[PATH_MAX];

    /* A link whose file is not there yet counts as missing. */
    return realpath(config->nginx.site_conf, target) != NULL;
}

bool nginx_has_site(const struct config *config, const struct buf *site)
{
    struct err ignored = ERR_INIT;
    BUF_SCOPED live = {0};

    return fs_read(config->nginx.site_conf, NGINX_CONF_MAX_BYTES, &live, &ignored) == 0 &&
           strcmp(buf_str(&live), buf_str(site)) == 0;
}

bool nginx_has_read_site(const struct config *config)
{
    struct stat site;
    struct stat pid_file;

    if (nginx_master(config) == 0)
        return true;
    /* A reload does not write the pid file, so a file that came by one counts as unread. */
    return stat(config->nginx.site_conf, &site) == 0 &&
           stat(config->nginx.pid_file, &pid_file) == 0 &&
           (site.st_mtim.tv_sec < pid_file.st_mtim.tv_sec ||
            (site.st_mtim.tv_sec == pid_file.st_mtim.tv_sec &&
             site.st_mtim.tv_nsec < pid_file.st_mtim.tv_nsec));
}

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

/* Whether a process of that number runs nginx, and its process group. */
static bool is_nginx(const struct config *config, long pid, pid_t *ret_group)
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
    (void)strtol(rest + 3, &end, 10);
    *ret_group = (pid_t)strtol(end, NULL, 10);
    return true;
}

/* The pid file may name a process that is long gone, or another one by now. */
pid_t nginx_master(const struct config *config)
{
    pid_t pid = named_master(config);
    pid_t group;

    return pid != 0 && is_nginx(config, pid, &group) ? pid : 0;
}

int nginx_end_orphans(const struct config *config)
{
    pid_t master = named_master(config);
    const struct dirent *entry;
    int ended = 0;
    DIR *processes;

    if (master == 0 || nginx_master(config) != 0)
        return 0;
    processes = opendir("/proc");
    if (processes == NULL)
        return 0;
    while ((entry = readdir(processes)) != NULL) {
        long pid = strtol(entry->d_name, NULL, 10);
        pid_t group;

        /* supervisord gives every program a group of its own, led by the master. */
        if (pid > 1 && is_nginx(config, pid, &group) && group == master &&
            kill((pid_t)pid, SIGQUIT) == 0)
            ended++;
    }
    closedir(processes);
    return ended;
}

int nginx_reload(const struct config *config, struct err *err)
{
    pid_t master = nginx_master(config);

    if (master == 0)
        return err_set(err, ERR_SYS, "nginx is not running (%s)", config->nginx.pid_file);
    if (kill(master, SIGHUP) < 0)
        return err_sys(err, errno, "cannot signal nginx (pid %d)", (int)master);
    return 0;
}

void nginx_machine_facts(struct nginx_facts *ret)
{
    struct err ignored = ERR_INIT;
    BUF_SCOPED text = {0};
    int probe = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);

    *ret = (struct nginx_facts){.ipv6 = probe >= 0};
    if (probe >= 0)
        close(probe);
    if (fs_read("/etc/resolv.conf", RESOLV_CONF_MAX_BYTES, &text, &ignored) == 0)
        nginx_conf_nameservers(buf_str(&text), ret->nameservers, sizeof ret->nameservers);
}
