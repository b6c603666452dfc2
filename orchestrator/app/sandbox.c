#include "app/sandbox.h"

#include "adapters/nginx.h"
#include "base/buf.h"
#include "base/fs.h"
#include "base/landlock.h"
#include "base/log.h"
#include "base/seccomp.h"
#include "base/secret.h"
#include "runtime/spawn.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>

/* Sanitizers need calls of their own, and attach to the process at its end. */
#ifdef __SANITIZE_ADDRESS__
#define IS_SANITIZED true
#else
#define IS_SANITIZED false
#endif

static struct status_hardening in_force;

static void add_missing(struct status_hardening *state, const char *what)
{
    size_t used = strlen(state->missing);

    snprintf(state->missing + used, sizeof state->missing - used, "%s%s",
             used == 0 ? "" : "; ", what);
}

/* ---- where the daemon writes ---- */

enum { PLACES_MAX = 8 };

/* What a setting names, with its key. */
struct place {
    const char *key;
    char path[FS_PATH_MAX];
};

struct places {
    size_t count;
    struct place items[PLACES_MAX];
};

static void add_place(struct places *places, const char *key, const char *path)
{
    struct place *place = &places->items[places->count++];

    place->key = key;
    snprintf(place->path, sizeof place->path, "%s", path);
}

static void add_folder_of(struct places *places, const char *key, const char *path)
{
    const char *slash = strrchr(path, '/');
    char folder[FS_PATH_MAX];

    snprintf(folder, sizeof folder, "%.*s", slash == path ? 1 : (int)(slash - path),
             path);
    add_place(places, key, folder);
}

static void find_places(const struct config *config, struct places *ret)
{
    struct err ignored = ERR_INIT;
    char folder[FS_PATH_MAX];

    ret->count = 0;
    add_place(ret, "run_dir", config->run_dir);
    add_place(ret, "tls.dir", config->tls.dir);
    add_place(ret, "nginx.webroot", config->nginx.webroot);
    add_folder_of(ret, "nginx.site_conf", config->nginx.site_conf);
    /* Behind a link. */
    if (nginx_site_folder(config, folder, &ignored) == 0)
        add_place(ret, "nginx.site_conf", folder);
    if (config->health_status_file != NULL)
        add_folder_of(ret, "health.status_file", config->health_status_file);
    if (config->rtmr3.register_file != NULL) {
        add_place(ret, "rtmr3.register", config->rtmr3.register_file);
        add_place(ret, "rtmr3.log_dir", config->rtmr3.log_dir);
    }
}

/* ---- Landlock ---- */

/* Programs, libraries and settings, what is root's, and what is the kernel's. */
static const char *const kept[] = {"app",  "bin",   "boot",  "dev",    "etc",
                                   "lib",  "lib32", "lib64", "libx32", "opt",
                                   "proc", "root",  "sbin",  "sys",    "usr"};

static const char *const devices[] = {"/dev/shm", "/dev/null"};

static bool is_kept(const char *name)
{
    for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++) {
        if (strcmp(name, kept[i]) == 0)
            return true;
    }
    return false;
}

/* Resolved, for sandbox_judge. */
static char *allowed[64];
static size_t allowed_count;

static int allow(const struct landlock *rules, const char *path, struct err *err)
{
    char *resolved = realpath(path, NULL);

    if (resolved != NULL && allowed_count < sizeof allowed / sizeof allowed[0])
        allowed[allowed_count++] = resolved;
    else
        free(resolved);
    return landlock_allow(rules, path, err);
}

/* Everything in "/" that is not kept: settings may name folders there later. */
static int allow_the_rest(const struct landlock *rules, struct err *err)
{
    DIR *root = opendir("/");
    const struct dirent *entry;
    int failed = 0;

    if (root == NULL)
        return err_sys(err, errno, "/");
    while (failed == 0 && (entry = readdir(root)) != NULL) {
        char path[NAME_MAX + 2];

        if (entry->d_name[0] == '.' || entry->d_type != DT_DIR || is_kept(entry->d_name))
            continue;
        snprintf(path, sizeof path, "/%s", entry->d_name);
        failed = allow(rules, path, err);
    }
    closedir(root);
    return failed;
}

/* Those that the daemon would make later, in a folder where it may not any more. */
static void make_folders(const struct config *config)
{
    const char *const folders[] = {config->run_dir, config->tls.dir,
                                   config->nginx.webroot};
    struct err ignored = ERR_INIT;

    for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++) {
        if (!fs_exists(folders[i]))
            (void)fs_make_folder(folders[i], 0755, &ignored);
    }
}

static int allow_all(const struct landlock *rules, const struct config *config,
                     struct err *err)
{
    struct places places;

    if (allow_the_rest(rules, err) < 0)
        return -1;
    for (size_t i = 0; i < sizeof devices / sizeof devices[0]; i++) {
        if (allow(rules, devices[i], err) < 0)
            return -1;
    }
    find_places(config, &places);
    for (size_t i = 0; i < places.count; i++) {
        if (allow(rules, places.items[i].path, err) < 0)
            return -1;
    }
    return 0;
}

static void confine_files(const struct config *config)
{
    struct landlock rules;
    struct err err = ERR_INIT;

    make_folders(config);
    if (landlock_begin(&rules, &err) == 0) {
        if (allow_all(&rules, config, &err) == 0 && landlock_confine(&rules, &err) == 0)
            in_force.landlock = rules.version;
        landlock_drop(&rules);
    }
    if (in_force.landlock == 0)
        add_missing(&in_force, err.message);
}

/* ---- all of it ---- */

static void confine(const struct config *config)
{
    struct err err = ERR_INIT;

    if (spawn_helper_start(&err) < 0) {
        add_missing(&in_force, err.message);
        return;
    }
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) {
        (void)err_sys(&err, errno, "no_new_privs");
        add_missing(&in_force, err.message);
        return;
    }
    in_force.no_new_privileges = true;
    confine_files(config);
    in_force.seccomp = seccomp_confine(&err) == 0;
    if (!in_force.seccomp)
        add_missing(&in_force, err.message);
}

#define UNLOCKED                                                                         \
    "secrets are not in locked memory, and could be swapped out (ulimit -l is too low)"

#define DUMPED                                                                           \
    "core dumps of nginx and certbot go to the program that "                            \
    "/proc/sys/kernel/core_pattern names, since the container's limit of them (ulimit "  \
    "-c) is 0: leave it unset, or set it to 1"

/* setup_forbid_core_dumps() cannot raise a hard limit of 0 without CAP_SYS_RESOURCE. */
static bool is_dumped(void)
{
    enum { PATTERN_MAX = 4096 };
    BUF_SCOPED pattern = {0};
    struct err ignored = ERR_INIT;
    struct rlimit limit;

    return getrlimit(RLIMIT_CORE, &limit) == 0 && limit.rlim_cur != 1 &&
           fs_read("/proc/sys/kernel/core_pattern", PATTERN_MAX, &pattern, &ignored) ==
               0 &&
           buf_str(&pattern)[0] == '|';
}

void sandbox_begin(const struct config *config)
{
    in_force.locked_memory = secret_is_locked();
    if (!in_force.locked_memory)
        add_missing(&in_force, UNLOCKED);
    if (is_dumped())
        add_missing(&in_force, DUMPED);
    if (IS_SANITIZED) {
        add_missing(&in_force, "this is a build with a sanitizer");
        return;
    }
    if (config->sandbox)
        confine(config);
    if (in_force.missing[0] != '\0')
        log_warning("not all of the hardening is in force: %s", in_force.missing);
    if (!config->sandbox)
        add_missing(&in_force, "hardening.sandbox is false");
}

void sandbox_end(void)
{
    spawn_helper_end();
    while (allowed_count > 0)
        free(allowed[--allowed_count]);
}

const struct status_hardening *sandbox_in_force(void)
{
    return &in_force;
}

void sandbox_look(const struct config *config, struct status_hardening *ret)
{
    *ret = (struct status_hardening){
        .no_new_privileges = config->sandbox,
        .seccomp = config->sandbox && seccomp_is_offered(),
        .landlock = config->sandbox ? landlock_version() : 0,
        .locked_memory = secret_is_locked(),
    };
    if (!config->sandbox)
        add_missing(ret, "hardening.sandbox is false");
    if (config->sandbox && !ret->seccomp)
        add_missing(ret, "this kernel has no seccomp filters, or they are not permitted");
    if (config->sandbox && ret->landlock == 0)
        add_missing(ret,
                    "this kernel has no Landlock, or too old a one (5.19 is needed)");
    if (!ret->locked_memory)
        add_missing(ret, UNLOCKED);
    if (is_dumped())
        add_missing(ret, DUMPED);
}

/* ---- settings that come later ---- */

static bool is_below(const char *path, const char *folder)
{
    size_t len = strlen(folder);

    return strncmp(path, folder, len) == 0 && (path[len] == '\0' || path[len] == '/');
}

/* Of the folder that it is in, or will be. */
static bool may_write(const char *path)
{
    char part[FS_PATH_MAX];
    char *resolved;
    bool may = false;

    snprintf(part, sizeof part, "%s", path);
    while ((resolved = realpath(part, NULL)) == NULL) {
        char *slash = strrchr(part, '/');

        if (slash == NULL || slash == part)
            return false;
        *slash = '\0';
    }
    for (size_t i = 0; i < allowed_count && !may; i++)
        may = is_below(resolved, allowed[i]);
    free(resolved);
    return may;
}

void sandbox_judge(const struct config *now, const struct config *next,
                   struct config_report *report)
{
    struct places places;

    if (now->sandbox != next->sandbox)
        config_report_error(report,
                            "hardening.sandbox cannot become %s while the daemon runs; "
                            "start it again",
                            next->sandbox ? "true" : "false");
    if (in_force.landlock == 0)
        return;
    find_places(next, &places);
    for (size_t i = 0; i < places.count; i++) {
        if (!may_write(places.items[i].path))
            config_report_error(report,
                                "%s: the running daemon may not write to %s "
                                "(hardening.sandbox); start it again",
                                places.items[i].key, places.items[i].path);
    }
}
