#include "adapters/nginx.h"

#include "base/fs.h"
#include "domain/keys.h"
#include "domain/nginx_text.h"

#include <errno.h>
#include <grp.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    RESOLV_CONF_MAX_BYTES = 64 * 1024,
    ACCOUNT_LINE_SIZE = KEYS_PATH_SIZE + JOSE_THUMBPRINT_SIZE + 2,
};

int nginx_include_path(const struct config *config, char *ret, struct err *err)
{
    return fs_join(ret, config->run_dir, "nginx-http.conf", err);
}

int nginx_secret_path(const struct config *config, char *ret, struct err *err)
{
    return fs_join(ret, config->run_dir, "ekm.secret", err);
}

int nginx_write_secret(const struct config *config, const struct secret *secret,
                       struct err *err)
{
    char path[FS_PATH_MAX];

    return nginx_secret_path(config, path, err) < 0
               ? -1
               : fs_replace(path, secret->bytes, secret->len, 0600, err);
}

int nginx_refused_path(const struct config *config, char *ret, struct err *err)
{
    return fs_join(ret, config->run_dir, "refused.conf", err);
}

/* The deployment's, or our own. */
static int read_template(const struct config *config, bool stock, const char *name,
                         struct buf *ret, struct err *err)
{
    const char *folder = stock ? config->nginx.stock_templates : config->nginx.templates;
    char path[FS_PATH_MAX];

    if (fs_join(path, folder, name, err) == 0 &&
        fs_read(path, NGINX_CONF_MAX_BYTES, ret, err) == 0)
        return 0;
    return err_wrap(err, stock ? "nginx.stock_templates" : "nginx.templates");
}

static int render_from(const struct config *config, bool stock,
                       const struct nginx_facts *facts, enum nginx_level level,
                       struct buf *ret_site, struct buf *ret_include, struct err *err)
{
    BUF_SCOPED base = {0};
    BUF_SCOPED https = {0};
    struct nginx_templates templates = {0};
    char secret[FS_PATH_MAX];

    if (read_template(config, stock, "base.conf.tmpl", &base, err) < 0)
        return -1;
    templates.base = buf_str(&base);
    if (level != NGINX_HTTP_ONLY) {
        if (read_template(config, stock, nginx_conf_https_template(config), &https, err) <
                0 ||
            nginx_secret_path(config, secret, err) < 0 ||
            nginx_conf_render_include(secret, facts, ret_include, err) < 0)
            return -1;
        templates.https = buf_str(&https);
    }
    return nginx_conf_render(config, facts, level, &templates, ret_site, err);
}

/* Templates of a deployment may be what nginx refuses. */
int nginx_render(const struct config *config, const struct nginx_facts *facts,
                 enum nginx_level level, struct buf *ret_site, struct buf *ret_include,
                 struct err *err)
{
    return render_from(config, level == NGINX_HTTPS_REDUCED, facts, level, ret_site,
                       ret_include, err);
}

int nginx_render_stock_http_only(const struct config *config,
                                 const struct nginx_facts *facts, struct buf *ret_site,
                                 struct err *err)
{
    return render_from(config, true, facts, NGINX_HTTP_ONLY, ret_site, NULL, err);
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

int nginx_site_folder(const struct config *config, char *ret, struct err *err)
{
    char site[PATH_MAX];
    char *slash;

    if (find_site(config, site, err) < 0)
        return -1;
    slash = strrchr(site, '/');
    if (slash == NULL || slash - site >= FS_PATH_MAX)
        return err_set(err, ERR_CONFIG, "nginx.site_conf: the path is too long");
    snprintf(ret, FS_PATH_MAX, "%.*s", (int)(slash - site), site);
    return 0;
}

bool nginx_configured(const struct config *config)
{
    char target[PATH_MAX];

    /* A link whose file is not there yet counts as missing. */
    return realpath(config->nginx.site_conf, target) != NULL;
}

/* A missing file leaves the buffer empty. */
static int read_live(const char *path, struct buf *ret, struct err *err)
{
    struct err failure = ERR_INIT;

    buf_done(ret);
    if (fs_read(path, NGINX_CONF_MAX_BYTES, ret, &failure) == 0 || failure.code == ENOENT)
        return 0;
    *err = failure;
    return -1;
}

int nginx_read_files(const struct config *config, struct buf *ret_site,
                     struct buf *ret_include, bool *ret_include_there, struct err *err)
{
    char include[FS_PATH_MAX];

    if (nginx_include_path(config, include, err) < 0 ||
        read_live(config->nginx.site_conf, ret_site, err) < 0 ||
        read_live(include, ret_include, err) < 0)
        return -1;
    *ret_include_there = fs_exists(include);
    return 0;
}

static bool has_text(const char *path, const struct buf *text)
{
    struct err ignored = ERR_INIT;
    BUF_SCOPED live = {0};

    return fs_read(path, NGINX_CONF_MAX_BYTES, &live, &ignored) == 0 &&
           strcmp(buf_str(&live), buf_str(text)) == 0;
}

bool nginx_has_files(const struct config *config, const struct nginx_files *files)
{
    char include[FS_PATH_MAX];
    struct err ignored = ERR_INIT;

    if (nginx_include_path(config, include, &ignored) < 0 ||
        !has_text(config->nginx.site_conf, files->site))
        return false;
    return files->include == NULL ? !fs_exists(include)
                                  : has_text(include, files->include);
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

/* ---- what nginx is told of the machine, and of the account ---- */

static int account_path(const struct config *config, char *ret, struct err *err)
{
    return fs_join(ret, config->run_dir, "account.thumbprint", err);
}

/* Which key it is of, and its thumbprint: "letsencrypt-account/… <thumbprint>". */
static void account_line(const struct config *config, const char *thumbprint,
                         char ret[ACCOUNT_LINE_SIZE])
{
    char path[KEYS_PATH_SIZE];

    keys_account_path(path, config->domain, config->acme.account_version);
    snprintf(ret, ACCOUNT_LINE_SIZE, "%s %s\n", path, thumbprint);
}

int nginx_keep_account(const struct config *config, const char *thumbprint,
                       struct err *err)
{
    char path[FS_PATH_MAX];
    char line[ACCOUNT_LINE_SIZE];

    account_line(config, thumbprint, line);
    return account_path(config, path, err) < 0
               ? -1
               : fs_replace(path, line, strlen(line), 0644, err);
}

static void recall_account(const struct config *config, struct nginx_facts *facts)
{
    char path[FS_PATH_MAX];
    char expected[ACCOUNT_LINE_SIZE];
    char thumbprint[JOSE_THUMBPRINT_SIZE] = "";
    const char *blank;
    struct err ignored = ERR_INIT;
    BUF_SCOPED line = {0};

    if (!config_answers_challenges(config) || account_path(config, path, &ignored) < 0 ||
        fs_read(path, ACCOUNT_LINE_SIZE, &line, &ignored) < 0)
        return;
    blank = strchr(buf_str(&line), ' ');
    if (blank == NULL)
        return;
    snprintf(thumbprint, sizeof thumbprint, "%s", blank + 1);
    account_line(config, thumbprint, expected);
    if (nginx_conf_is_thumbprint(thumbprint) && strcmp(buf_str(&line), expected) == 0)
        memcpy(facts->account_thumbprint, thumbprint, sizeof thumbprint);
}

int nginx_worker_group(const struct config *config, gid_t *ret, struct err *err)
{
    static const char *const usual[] = {"www-data", "nginx"};
    char name[NGINX_TEXT_WORD_SIZE];
    const struct group *group = NULL;
    BUF_SCOPED conf = {0};

    /* Whoever is not root cannot give workers another user. */
    *ret = getegid();
    if (geteuid() != 0)
        return 0;
    if (fs_read(config->nginx.conf, NGINX_CONF_MAX_BYTES, &conf, err) < 0)
        return err_wrap(err, "nginx.conf");
    if (nginx_text_worker_group(buf_str(&conf), name)) {
        group = getgrnam(name);
        if (group == NULL)
            return err_set(err, ERR_CONFIG, "%s: user: there is no group \"%.100s\"",
                           config->nginx.conf, name);
    }
    for (size_t i = 0; group == NULL && i < sizeof usual / sizeof usual[0]; i++)
        group = getgrnam(usual[i]);
    if (group == NULL)
        return err_set(err, ERR_CONFIG,
                       "%s does not say which user its workers have, and there is no "
                       "group www-data or nginx",
                       config->nginx.conf);
    *ret = group->gr_gid;
    return 0;
}

/* A path that is too long for a socket is none for nginx either. The daemon says so. */
void nginx_find_metrics(const struct config *config, struct nginx_facts *facts)
{
    int len;

    facts->metrics_socket[0] = '\0';
    if (!config->metrics.nginx)
        return;
    len = snprintf(facts->metrics_socket, sizeof facts->metrics_socket, "%s/metrics.sock",
                   config->run_dir);
    if (len < 0 || (size_t)len >= sizeof facts->metrics_socket)
        facts->metrics_socket[0] = '\0';
}

void nginx_machine_facts(const struct config *config, struct nginx_facts *ret)
{
    struct err ignored = ERR_INIT;
    BUF_SCOPED text = {0};
    int probe = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);

    *ret = (struct nginx_facts){.ipv6 = probe >= 0};
    if (probe >= 0)
        close(probe);
    if (fs_read("/etc/resolv.conf", RESOLV_CONF_MAX_BYTES, &text, &ignored) == 0)
        nginx_conf_nameservers(buf_str(&text), ret->nameservers, sizeof ret->nameservers);
    recall_account(config, ret);
    nginx_find_metrics(config, ret);
}
