#include "adapters/hook.h"
#include "adapters/nginx.h"
#include "adapters/store.h"
#include "app/check.h"
#include "app/sandbox.h"
#include "base/fs.h"
#include "base/text.h"
#include "domain/nginx_conf.h"
#include "domain/preflight.h"
#include "flows/examine.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

/* For the pair, what replaces it, and the ledger. */
enum { ROOM_MIN_BYTES = 1024 * 1024 };

/* The folder, else the nearest above it that is there, into FS_PATH_MAX bytes. */
static void find_there(const char *path, char *ret)
{
    snprintf(ret, FS_PATH_MAX, "%s", path);
    while (access(ret, F_OK) < 0 && errno == ENOENT) {
        char *slash = strrchr(ret, '/');

        if (slash == NULL || slash == ret) {
            snprintf(ret, FS_PATH_MAX, "/");
            return;
        }
        *slash = '\0';
    }
}

/*
 * Whether files can be put there, by asking the kernel: nothing is written. One that is missing is made
 * by whoever needs it. False when it has failed.
 */
static bool check_folder(struct check *check, const char *setting, const char *path)
{
    char there[FS_PATH_MAX];
    struct stat status;
    bool missing;
    int failure;

    find_there(path, there);
    missing = strcmp(there, path) != 0;
    if (stat(there, &status) == 0 && !S_ISDIR(status.st_mode)) {
        verdicts_add(check->verdicts, VERDICT_FAILED, "folders", "%s: %s is no folder",
                     setting, there);
        return false;
    }
    failure = access(there, W_OK | X_OK) == 0 ? 0 : errno;
    if (failure == 0) {
        verdicts_add(check->verdicts, VERDICT_OK, "folders", "%s: %s %s", setting, path,
                     missing ? "is not there yet and can be made" : "is writable");
        return true;
    }
    verdicts_add(check->verdicts, VERDICT_FAILED, "folders",
                 "%s: %s%s cannot be written: %s", setting, path,
                 missing ? " is not there, and the folder above it" : "",
                 strerror(failure));
    if (failure == EROFS)
        verdicts_advise(check->verdicts, "mount a volume or a tmpfs there, writable");
    else if (geteuid() != 0)
        verdicts_advise(check->verdicts, "run this as the user that runs the daemon");
    return false;
}

static void check_room(struct check *check, const char *path)
{
    struct statfs system;
    char there[FS_PATH_MAX];

    find_there(path, there);
    if (statfs(there, &system) < 0 ||
        (uint64_t)system.f_bavail * (uint64_t)system.f_bsize >= ROOM_MIN_BYTES)
        return;
    verdicts_add(check->verdicts, VERDICT_FAILED, "folders",
                 "tls.dir: the disk of %s is full", path);
    verdicts_advise(check->verdicts,
                    "make room: a certificate that cannot be kept is not ordered");
}

static void check_memory(struct check *check)
{
    struct statfs system;
    char there[FS_PATH_MAX];

    find_there(check->config->run_dir, there);
    if (statfs(there, &system) < 0 || system.f_type == TMPFS_MAGIC ||
        system.f_type == RAMFS_MAGIC)
        return;
    verdicts_add(check->verdicts, VERDICT_WARNING, "folders",
                 "run_dir: %s is not on tmpfs, so the EKM secret reaches a disk",
                 check->config->run_dir);
    verdicts_advise(check->verdicts, "mount a tmpfs at %s or /run",
                    check->config->run_dir);
}

/* nginx's workers have a user of their own. */
static void check_way(struct check *check, const char *path)
{
    char part[FS_PATH_MAX];
    struct stat status;

    find_there(path, part);
    while (stat(part, &status) == 0) {
        char *slash = strrchr(part, '/');

        if ((status.st_mode & S_IXOTH) == 0) {
            verdicts_add(
                check->verdicts, VERDICT_WARNING, "folders",
                "nginx.webroot: %s has mode %04o: nginx's workers may not be able "
                "to read challenges below it",
                part, (unsigned)(status.st_mode & 07777));
            verdicts_advise(check->verdicts, "chmod o+x %s", part);
            return;
        }
        if (slash == NULL || slash == part)
            return;
        *slash = '\0';
    }
}

static void check_folders(struct check *check)
{
    const struct config *config = check->config;
    char site_folder[FS_PATH_MAX];
    struct err err = ERR_INIT;

    if (check_folder(check, "tls.dir", config->tls.dir))
        check_room(check, config->tls.dir);
    if (check_folder(check, "run_dir", config->run_dir))
        check_memory(check);
    if (check_folder(check, "nginx.webroot", config->nginx.webroot))
        check_way(check, config->nginx.webroot);
    if (nginx_site_folder(config, site_folder, &err) < 0)
        verdicts_add(check->verdicts, VERDICT_FAILED, "folders", "%s", err.message);
    else
        check_folder(check, "nginx.site_conf", site_folder);
}

/* ---- files that settings name ---- */

static void check_readable(struct check *check, const char *setting, const char *path)
{
    if (path == NULL || access(path, R_OK) == 0)
        return;
    verdicts_add(check->verdicts, VERDICT_FAILED, "files", "%s: %s: %s", setting, path,
                 strerror(errno));
}

/* What is a secret must be nobody else's to read. */
static void check_private(struct check *check, const char *what, const char *path)
{
    struct stat status;

    if (path == NULL || stat(path, &status) < 0 ||
        (status.st_mode & (S_IRWXG | S_IRWXO)) == 0)
        return;
    verdicts_add(check->verdicts, VERDICT_WARNING, "files",
                 "%s: %s has mode %04o: others can read it", what, path,
                 (unsigned)(status.st_mode & 07777));
    verdicts_advise(check->verdicts, "chmod 600 %s", path);
}

bool check_others_can_write(const struct stat *status)
{
    return (status->st_uid != 0 && status->st_uid != geteuid()) ||
           (status->st_mode & S_IWOTH) != 0 ||
           ((status->st_mode & S_IWGRP) != 0 && status->st_gid != 0);
}

/* Who can change it can have root do what it `says`. */
static void check_unchangeable(struct check *check, const char *what, const char *path,
                               const char *says)
{
    struct stat status;

    if (path == NULL || stat(path, &status) < 0 || !check_others_can_write(&status))
        return;
    verdicts_add(check->verdicts, VERDICT_WARNING, "files",
                 "%s: others than root can change %s (user %u, group %u, mode %04o), "
                 "which says what root %s",
                 what, path, (unsigned)status.st_uid, (unsigned)status.st_gid,
                 (unsigned)(status.st_mode & 07777), says);
    verdicts_advise(check->verdicts, "chown root %s; chmod go-w %s", path, path);
}

static void check_what_root_obeys(struct check *check)
{
    const struct config *config = check->config;
    const char *const templates[] = {"base.conf.tmpl", nginx_conf_https_template(config)};
    char path[FS_PATH_MAX];
    struct err ignored = ERR_INIT;

    check_unchangeable(check, "the settings", config->file, "runs");
    check_unchangeable(check, "nginx.conf", config->nginx.conf, "does as nginx's master");
    for (size_t i = 0; i < sizeof templates / sizeof templates[0]; i++) {
        if (fs_join(path, config->nginx.templates, templates[i], &ignored) == 0)
            check_unchangeable(check, "nginx.templates", path, "does as nginx's master");
    }
}

static void check_named_files(struct check *check)
{
    const struct config *config = check->config;
    char key[FS_PATH_MAX];
    char secret[FS_PATH_MAX];
    struct err ignored = ERR_INIT;

    check_readable(check, "acme.trust", config->acme.trust);
    check_readable(check, "ekm.secret_file", config->ekm_secret_file);
    check_readable(check, "rtmr3.register", config->rtmr3.register_file);
    for (size_t i = 0; i < config->acme.authorities.count; i++) {
        const struct authority *authority = &config->acme.authorities.items[i];

        check_readable(check, "ca_bundle", authority->ca_bundle);
        check_private(check, "eab_key_file", authority->eab_key_file);
    }
    check_private(check, "ekm.secret_file", config->ekm_secret_file);
    if (fs_join(key, config->tls.dir, "key.pem", &ignored) == 0)
        check_private(check, "the key", key);
    if (nginx_secret_path(config, secret, &ignored) == 0)
        check_private(check, "the EKM secret", secret);
}

/* ---- what may fail and harms nothing ---- */

static void check_hooks(struct check *check)
{
    for (enum hook_event event = HOOK_ISSUED; event < HOOK_EVENTS; event++) {
        const struct config_list *command = &check->config->hooks.commands[event];
        struct err err = ERR_INIT;

        if (command->count == 0)
            continue;
        if (hook_check(check->config, event, &err) < 0)
            verdicts_add(check->verdicts, VERDICT_WARNING, "hooks", "hooks.on_%s: %s",
                         hook_event_name(event), err.message);
        else
            verdicts_add(check->verdicts, VERDICT_OK, "hooks", "hooks.on_%s: %s",
                         hook_event_name(event), command->items[0]);
    }
}

static void check_health_file(struct check *check)
{
    const char *path = check->config->health_status_file;
    char folder[FS_PATH_MAX];
    struct stat status;

    if (path == NULL)
        return;
    snprintf(folder, sizeof folder, "%.*s", (int)(strrchr(path, '/') - path), path);
    if (stat(folder[0] == '\0' ? "/" : folder, &status) == 0 && S_ISDIR(status.st_mode)) {
        check_folder(check, "health.status_file", folder[0] == '\0' ? "/" : folder);
        return;
    }
    verdicts_add(check->verdicts, VERDICT_FAILED, "folders",
                 "health.status_file: %s is no folder", folder);
    verdicts_advise(check->verdicts, "mount the folder that the guest agent reads there");
}

static void check_hardening(struct check *check)
{
    struct status_hardening offered;

    sandbox_look(check->config, &offered);
    if (offered.missing[0] == '\0')
        verdicts_add(check->verdicts, VERDICT_OK, "hardening",
                     "seccomp, Landlock and locked memory can be had");
    else
        verdicts_add(check->verdicts, VERDICT_WARNING, "hardening", "not all of it: %s",
                     offered.missing);
}

void check_files(struct check *check)
{
    struct preflight_finding clock;

    preflight_judge_clock(&clock, (int64_t)time(NULL));
    verdicts_add(check->verdicts,
                 clock.verdict == PREFLIGHT_OK ? VERDICT_OK : VERDICT_FAILED, "clock",
                 "%s", clock.text);
    if (clock.hint[0] != '\0')
        verdicts_advise(check->verdicts, "%s", clock.hint);
    check_folders(check);
    check_what_root_obeys(check);
    check_named_files(check);
    check_health_file(check);
    check_hooks(check);
    check_hardening(check);
}

/* ---- the pair ---- */

/*
 * What the status says of the leaf that is served must not be hidden here. Some agents show no
 * certificate event at all: then it is the daemon alone that knows.
 */
static void show_event(struct check *check, const struct chain_leaf *leaf)
{
    if (check->measured[0] == '\0' || strcmp(check->measured, leaf->sha256) == 0)
        return;
    verdicts_add(check->verdicts, VERDICT_WARNING, "certificate",
                 "not attested: the last certificate event names leaf %s, not this one",
                 check->measured);
    verdicts_advise(check->verdicts,
                    "a start has it measured before it is served; while the daemon runs, "
                    "cert-manager status says why it is not");
}

static void show_pair(struct check *check, const struct chain *chain)
{
    const struct chain_leaf *leaf = chain_leaf(chain);
    const char *lacking = chain_lacks(chain, &check->config->domains);
    char date[TEXT_TIME_SIZE];

    text_time(date, leaf->not_after);
    if (lacking == NULL) {
        verdicts_add(check->verdicts, VERDICT_OK, "certificate",
                     "issuer \"%s\", valid until %s", leaf->issuer_name, date);
        show_event(check, leaf);
        return;
    }
    verdicts_add(check->verdicts, VERDICT_WARNING, "certificate",
                 "issuer \"%s\", valid until %s, but not for %s", leaf->issuer_name, date,
                 lacking);
    verdicts_advise(check->verdicts, "it is served until one with all names is there");
    show_event(check, leaf);
}

void check_pair(struct check *check, const EVP_PKEY *tls_key)
{
    char reason[STORED_REASON_SIZE] = "";
    struct examined examined = {0};
    struct store store;
    struct err err = ERR_INIT;

    if (store_init(&store, check->config, &err) < 0) {
        verdicts_add(check->verdicts, VERDICT_FAILED, "certificate", "%s", err.message);
    } else if (!fs_exists(store.chain) && !fs_exists(store.key)) {
        verdicts_add(check->verdicts, VERDICT_SKIPPED, "certificate",
                     "none is stored in %s: %s", check->config->tls.dir,
                     check->config->tls.external_key
                         ? "put a pair there, or use cert-manager deploy"
                         : "one will be obtained");
    } else if (tls_key == NULL && !check->config->tls.external_key) {
        verdicts_add(check->verdicts, VERDICT_SKIPPED, "certificate",
                     "not judged, because the TLS key is not known here");
    } else if (examine_replaced(&store, check->config, tls_key, &examined, reason, &err) <
               0) {
        verdicts_add(check->verdicts, VERDICT_WARNING, "certificate", "%s", err.message);
    } else if (examined.chain == NULL) {
        verdicts_add(check->verdicts, VERDICT_WARNING, "certificate", "%s", reason);
        verdicts_advise(check->verdicts, "%s",
                        check->config->tls.external_key ? "replace the pair"
                                                        : "another one will be obtained");
    } else {
        show_pair(check, examined.chain);
    }
    chain_free(examined.chain);
    EVP_PKEY_free(examined.key);
}
