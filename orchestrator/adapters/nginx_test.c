/* The calls of nginx.h that run nginx. */
#include "adapters/nginx.h"

#include "base/fs.h"
#include "base/log.h"
#include "base/text.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
    OUTPUT_MAX_BYTES = 64 * 1024,
    VERSION_TIMEOUT_MS = 10 * 1000,
    TERM_GRACE_MS = 1000,
    CONF_MAX_BYTES = 1024 * 1024,
};

static const char *const environment[] = {
    "PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", NULL};

/* ---- version ---- */

static void on_version_done(void *owner, const struct err *err)
{
    struct nginx_probe *probe = owner;

    if (err == NULL)
        probe->facts->version =
            nginx_conf_parse_version(buf_str(&probe->process.output[PROCESS_STDERR]));
    process_done(&probe->process);
    probe->done(probe->owner, err);
}

void nginx_probe_start(struct nginx_probe *probe, uv_loop_t *loop,
                       const struct config *config, struct nginx_facts *facts,
                       done_fn done, void *owner)
{
    const char *const argv[] = {config->nginx.path, "-v", NULL};
    const struct process_options options = {
        .argv = argv,
        .environment = environment,
        .max_output = OUTPUT_MAX_BYTES,
        .timeout_ms = VERSION_TIMEOUT_MS,
        .term_grace_ms = TERM_GRACE_MS,
    };

    *probe = (struct nginx_probe){.facts = facts, .done = done, .owner = owner};
    process_start(&probe->process, loop, &options, on_version_done, probe);
}

void nginx_probe_cancel(struct nginx_probe *probe)
{
    process_cancel(&probe->process);
}

/* ---- test in a mirror ---- */

/* The folder part of `path`, without the slash, into FS_PATH_MAX bytes. */
static void folder_of(const char *path, char *ret)
{
    const char *slash = strrchr(path, '/');

    snprintf(ret, FS_PATH_MAX, "%.*s", slash == NULL ? 0 : (int)(slash - path), path);
}

static const char *name_of(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash == NULL ? path : slash + 1;
}

/* `text` with every `from` replaced by `to`, into `ret`, which is initialised here. */
static int replace_text(const char *text, const char *from, const char *to,
                        struct buf *ret, struct err *err)
{
    const char *found;

    buf_init(ret, CONF_MAX_BYTES);
    while ((found = strstr(text, from)) != NULL) {
        if (buf_append(ret, text, (size_t)(found - text), err) < 0 ||
            buf_append_str(ret, to, err) < 0)
            return -1;
        text = found + strlen(from);
    }
    return buf_append_str(ret, text, err);
}

struct replacement {
    const char *from;
    const char *to;
};

/* One replacement after the other, then written to `path`. */
static int write_replaced(const char *path, const char *text,
                          const struct replacement *pairs, size_t count, struct err *err)
{
    struct buf current;
    int failed;

    buf_init(&current, CONF_MAX_BYTES);
    failed = buf_append_str(&current, text, err);
    for (size_t i = 0; failed == 0 && i < count; i++) {
        struct buf next;

        failed = replace_text(buf_str(&current), pairs[i].from, pairs[i].to, &next, err);
        buf_done(&current);
        current = next;
    }
    if (failed == 0)
        failed = fs_replace(path, buf_str(&current), current.len, 0644, err);
    buf_done(&current);
    return failed;
}

/* A folder whose entries are links to those of `source`, without the one called `but`. */
static int link_entries(const char *source, const char *mirror, const char *but,
                        struct err *err)
{
    const struct dirent *entry;
    int failed = 0;
    DIR *folder;

    if (fs_make_folder(mirror, 0700, err) < 0)
        return -1;
    folder = opendir(source);
    if (folder == NULL)
        return err_sys(err, errno, "%s", source);
    while (failed == 0 && (entry = readdir(folder)) != NULL) {
        char from[FS_PATH_MAX];
        char to[FS_PATH_MAX];

        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
            strcmp(entry->d_name, but) == 0)
            continue;
        if (fs_join(from, source, entry->d_name, err) < 0 ||
            fs_join(to, mirror, entry->d_name, err) < 0)
            failed = -1;
        else if (symlink(from, to) < 0)
            failed = err_sys(err, errno, "%s", to);
    }
    closedir(folder);
    return failed;
}

/*
 * The directive "pid …" without its semicolon; NULL, and length 0, when there is none. It
 * starts at the beginning of a line or behind another directive.
 */
static const char *find_pid_directive(const char *text, size_t *ret_len)
{
    bool at_start = true;

    for (; *text != '\0'; text++) {
        if (at_start && text_starts_with(text, "pid") &&
            isspace((unsigned char)text[3])) {
            *ret_len = strcspn(text, ";");
            return text;
        }
        if (*text == '#')
            text += strcspn(text, "\n");
        if (*text == '\0')
            break;
        at_start =
            strchr("\n;{}", *text) != NULL || (at_start && isspace((unsigned char)*text));
    }
    *ret_len = 0;
    return NULL;
}

/* `text` with another pid file: `nginx -t` makes that file. */
static int replace_pid(const char *text, const char *pid, struct buf *ret,
                       struct err *err)
{
    size_t len;
    const char *directive = find_pid_directive(text, &len);

    if (directive == NULL) /* then nginx takes the compiled-in one */
        return buf_printf(ret, err, "pid %s;\n%s", pid, text);
    if (buf_append(ret, text, (size_t)(directive - text), err) < 0)
        return -1;
    return buf_printf(ret, err, "pid %s%s", pid, directive + len);
}

/* nginx.conf, with every path that must not be the live one turned to the mirror. */
static int write_main_conf(const struct nginx_test *test, const char *conf_folder,
                           struct err *err)
{
    const struct config *config = test->request.config;
    const char *run_dir =
        test->request.live_run_dir != NULL ? test->request.live_run_dir : config->run_dir;
    char path[FS_PATH_MAX];
    char pid[FS_PATH_MAX];
    char include[FS_PATH_MAX];
    char mirror_include[FS_PATH_MAX];
    char from[FS_PATH_MAX + 1];
    char to[FS_PATH_MAX + 1];
    BUF_SCOPED text = {0};
    BUF_SCOPED whole = {0};

    /* Without its last letter: nginx.conf may name the include as a pattern, "….con[f]". */
    if (fs_join(include, run_dir, "nginx-http.con", err) < 0 ||
        fs_join(mirror_include, test->mirror, "nginx-http.con", err) < 0 ||
        fs_join(path, test->mirror, "nginx.conf", err) < 0 ||
        fs_join(pid, test->mirror, "nginx.pid", err) < 0 ||
        fs_read(config->nginx.conf, CONF_MAX_BYTES, &text, err) < 0)
        return -1;
    buf_init(&whole, CONF_MAX_BYTES);
    if (replace_pid(buf_str(&text), pid, &whole, err) < 0)
        return -1;
    snprintf(from, sizeof from, "%s/", conf_folder);
    snprintf(to, sizeof to, "%s/", test->mirror);
    return write_replaced(
        path, buf_str(&whole),
        (const struct replacement[]){{include, mirror_include}, {from, to}}, 2, err);
}

/* default.conf, naming the staged pair. */
static int write_site_conf(const struct nginx_test *test, const char *site_folder,
                           struct err *err)
{
    char path[FS_PATH_MAX];
    char chain[FS_PATH_MAX];
    char key[FS_PATH_MAX];

    if (fs_join(path, site_folder, name_of(test->request.config->nginx.site_conf), err) <
            0 ||
        fs_join(chain, test->request.config->tls.dir, "cert.pem", err) < 0 ||
        fs_join(key, test->request.config->tls.dir, "key.pem", err) < 0)
        return -1;
    return write_replaced(path, buf_str(test->request.files.site),
                          (const struct replacement[]){{chain, test->request.chain},
                                                       {key, test->request.key}},
                          2, err);
}

/*
 * The mirror: nginx's configuration folder, entry by entry a link, except nginx.conf, the
 * folder of default.conf, and default.conf itself. Relative includes find in it what they
 * find live.
 */
static int begin_mirror(void *flow, struct err *err)
{
    struct nginx_test *test = flow;
    char *site_folder = test->site_folder;
    char conf_folder[FS_PATH_MAX];
    char site_parent[FS_PATH_MAX];
    char mirror_site[FS_PATH_MAX];
    char include[FS_PATH_MAX];

    folder_of(test->request.config->nginx.conf, conf_folder);
    folder_of(test->request.config->nginx.site_conf, site_folder);
    folder_of(site_folder, site_parent);
    if (strcmp(conf_folder, site_parent) != 0)
        return err_set(err, ERR_CONFIG,
                       "nginx.site_conf (%s) must be in a folder directly below that of "
                       "nginx.conf (%s)",
                       test->request.config->nginx.site_conf,
                       test->request.config->nginx.conf);
    if (fs_join(test->mirror, test->request.config->run_dir, "nginx-test", err) < 0 ||
        fs_join(mirror_site, test->mirror, name_of(site_folder), err) < 0 ||
        fs_join(include, test->mirror, "nginx-http.conf", err) < 0 ||
        fs_remove_tree(test->mirror, err) < 0 ||
        link_entries(conf_folder, test->mirror, name_of(site_folder), err) < 0 ||
        link_entries(site_folder, mirror_site,
                     name_of(test->request.config->nginx.site_conf), err) < 0)
        return -1;
    if (test->request.files.include != NULL &&
        fs_replace(include, test->request.files.include->data,
                   test->request.files.include->len, 0600, err) < 0)
        return -1;
    if (write_main_conf(test, conf_folder, err) < 0)
        return -1;
    return write_site_conf(test, mirror_site, err) < 0 ? -1 : SEQ_READY;
}

static int begin_test(void *flow, struct err *err)
{
    struct nginx_test *test = flow;
    char conf[FS_PATH_MAX];
    const char *const argv[] = {
        test->request.config->nginx.path, "-t", "-q", "-c", conf, NULL};
    const struct process_options options = {
        .argv = argv,
        .environment = environment,
        .max_output = OUTPUT_MAX_BYTES,
        .timeout_ms = test->request.timeout_ms,
        .term_grace_ms = TERM_GRACE_MS,
    };

    if (fs_join(conf, test->mirror, "nginx.conf", err) < 0)
        return -1;
    process_start(&test->process, test->request.loop, &options, seq_resume, &test->seq);
    return SEQ_WAIT;
}

/* The line of nginx's output that says why, without its "nginx: ". */
static void complaint(const char *output, char *ret, size_t size)
{
    const char *line = strstr(output, "[emerg] ");
    size_t number;

    if (line == NULL)
        line = output;
    else
        line += strlen("[emerg] ");
    /* "7910#7910: " differs from run to run and tells nobody anything. */
    number = strspn(line, "0123456789#");
    if (number > 0 && text_starts_with(line + number, ": "))
        line += number + 2;
    snprintf(ret, size, "%.*s", (int)strcspn(line, "\n"), line);
    if (ret[0] == '\0')
        snprintf(ret, size, "no reason given");
}

/*
 * What was refused is kept, and named in place of its copy in the mirror, which is gone in a moment:
 * nginx gives the number of the line.
 */
static int refuse(const struct nginx_test *test, const char *why, struct err *err)
{
    char mirrored[FS_PATH_MAX];
    char refused[FS_PATH_MAX];
    BUF_SCOPED text = {0};
    struct err ignored = ERR_INIT;

    if (snprintf(mirrored, sizeof mirrored, "%s/%s/%s", test->mirror,
                 name_of(test->site_folder),
                 name_of(test->request.config->nginx.site_conf)) < (int)sizeof mirrored &&
        nginx_refused_path(test->request.config, refused, &ignored) == 0 &&
        fs_replace(refused, test->request.files.site->data, test->request.files.site->len,
                   0600, &ignored) == 0 &&
        replace_text(why, mirrored, refused, &text, &ignored) == 0)
        why = buf_str(&text);
    return err_set(err, ERR_CONFIG, "nginx refuses the configuration: %s", why);
}

static int finish_test(void *flow, struct err *err)
{
    struct nginx_test *test = flow;
    char why[512];

    if (test->process.exit_status == 0)
        return SEQ_END;
    if (test->process.term_signal != 0)
        return err_set(err, ERR_SYS,
                       "nginx was ended by signal %d while it tested the "
                       "configuration",
                       test->process.term_signal);
    complaint(buf_str(&test->process.output[PROCESS_STDERR]), why, sizeof why);
    return refuse(test, why, err);
}

static void abort_test(void *flow)
{
    struct nginx_test *test = flow;

    process_cancel(&test->process);
}

static const struct seq_step steps[] = {
    {"mirror", begin_mirror, NULL, NULL, 0},
    {"nginx -t", begin_test, finish_test, abort_test, 0},
    {0},
};

static void on_steps_done(void *owner, const struct err *err)
{
    struct nginx_test *test = owner;
    struct err ignored = ERR_INIT;

    process_done(&test->process);
    if (fs_remove_tree(test->mirror, &ignored) < 0)
        log_debug("nginx test: %s", ignored.message);
    test->done(test->owner, err);
}

void nginx_test_start(struct nginx_test *test, const struct nginx_test_request *request,
                      done_fn done, void *owner)
{
    *test = (struct nginx_test){.request = *request, .done = done, .owner = owner};
    seq_start(&test->seq, request->loop, "nginx test", steps, test, on_steps_done, test);
}

void nginx_test_cancel(struct nginx_test *test)
{
    seq_cancel(&test->seq);
}
