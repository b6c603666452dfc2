#include "adapters/certbot_internal.h"

#include "adapters/challenge.h"
#include "base/log.h"
#include "domain/jose.h"
#include "domain/json_text.h"
#include "runtime/observer.h"

#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* certbot requires the file; the values mean nothing to the CA. */
#define ACCOUNT_META                                                                     \
    "{\"creation_dt\":\"1970-01-01T00:00:00Z\",\"creation_host\":\"localhost\"}"

int certbot_challenge_folder(const struct config *config, char *ret, struct err *err)
{
    return fs_join(ret, config->nginx.webroot, ".well-known/acme-challenge", err);
}

/* The user that certbot runs as; false when it has to be ourselves. */
static bool find_user(const struct config *config, uid_t *ret_uid, gid_t *ret_gid)
{
    const struct passwd *user = geteuid() == 0 ? getpwnam(config->certbot.user) : NULL;

    if (user == NULL)
        return false;
    *ret_uid = user->pw_uid;
    *ret_gid = user->pw_gid;
    return true;
}

int certbot_make_challenge_folder(const struct config *config, struct err *err)
{
    char folder[FS_PATH_MAX];
    bool other_user;
    uid_t uid;
    gid_t gid;

    other_user = find_user(config, &uid, &gid);
    if (fs_join(folder, config->nginx.webroot, ".well-known", err) < 0 ||
        fs_make_folder(folder, 0755, err) < 0 ||
        certbot_challenge_folder(config, folder, err) < 0 ||
        fs_make_folder(folder, other_user ? 0775 : 0755, err) < 0)
        return -1;
    if (other_user && lchown(folder, (uid_t)-1, gid) < 0)
        return err_sys(err, errno, "%s: cannot give it to group %u", folder,
                       (unsigned)gid);
    return 0;
}

/*
 * Whether the file holds that text or, when certbot's user owns it, only the beginning: what
 * certbot was writing when it was killed.
 */
static bool is_challenge_of(const struct certbot *c, const char *path, const char *text)
{
    uid_t uid = c->change_user ? c->uid : geteuid();
    struct err unreadable = ERR_INIT;
    BUF_SCOPED content = {0};
    struct stat status;

    if (fs_read(path, strlen(text), &content, &unreadable) < 0 ||
        strncmp(buf_str(&content), text, content.len) != 0)
        return false;
    return content.len == strlen(text) ||
           (lstat(path, &status) == 0 && status.st_uid == uid);
}

/*
 * Challenge files of a run that was killed: certbot fails on one that exists. Only files
 * that answer for our account are ours ("<token>.<thumbprint>", RFC 8555 §8.1); what
 * others put into the webroot stays.
 */
static int remove_stale_challenges(const struct certbot *c, struct err *err)
{
    char folder_path[FS_PATH_MAX];
    char thumbprint[JOSE_THUMBPRINT_SIZE];
    const struct dirent *entry;
    DIR *folder;

    if (jose_thumbprint(c->request.account_key, thumbprint, err) < 0 ||
        certbot_challenge_folder(c->request.config, folder_path, err) < 0)
        return -1;
    folder = opendir(folder_path);
    if (folder == NULL)
        return err_sys(err, errno, "%s", folder_path);
    while ((entry = readdir(folder)) != NULL) {
        char path[FS_PATH_MAX];
        char expected[NAME_MAX + 1 + JOSE_THUMBPRINT_SIZE];
        struct err too_long = ERR_INIT;

        if (!challenge_is_token(entry->d_name))
            continue;
        snprintf(expected, sizeof expected, "%s.%s", entry->d_name, thumbprint);
        if (fs_join(path, folder_path, entry->d_name, &too_long) == 0 &&
            is_challenge_of(c, path, expected) && unlink(path) == 0)
            log_info("removed a challenge file of an earlier run: %s", path);
    }
    closedir(folder);
    return 0;
}

static int make_own_folder(const struct certbot *c, const char *name, struct err *err)
{
    char path[FS_PATH_MAX];

    if (fs_join(path, c->folder, name, err) < 0 || fs_make_folder(path, 0700, err) < 0)
        return -1;
    if (c->change_user && lchown(path, c->uid, c->gid) < 0)
        return err_sys(err, errno, "%s: cannot give it to certbot's user", path);
    return 0;
}

static int write_own_file(const struct certbot *c, const char *folder, const char *name,
                          const void *data, size_t len, struct err *err)
{
    char path[FS_PATH_MAX];

    if (fs_join(path, folder, name, err) < 0 ||
        fs_replace(path, data, len, 0400, err) < 0)
        return -1;
    if (c->change_user && lchown(path, c->uid, c->gid) < 0)
        return err_sys(err, errno, "%s: cannot give it to certbot's user", path);
    return 0;
}

/*
 * Where certbot looks for the account of a directory:
 * "accounts/<host[:port]><path>/<id>", the URL's text as it is, without query.
 */
static int account_folder(const struct certbot *c, char *ret, struct err *err)
{
    const char *url = c->request.authority->directory;
    const char *rest = strstr(url, "://");
    char name[FS_PATH_MAX];
    int len;

    rest = rest == NULL ? url : rest + 3;
    len = snprintf(name, sizeof name, "config/accounts/%.*s/%s", (int)strcspn(rest, "?#"),
                   rest, CERTBOT_ACCOUNT_ID);
    if (len < 0 || (size_t)len >= sizeof name || strstr(name, "..") != NULL)
        return err_set(err, ERR_CONFIG,
                       "acme.directory: \"%s\" has no place in certbot's "
                       "account store",
                       url);
    return fs_join(ret, c->folder, name, err);
}

/* Every folder between "config" and the account belongs to certbot's user. */
static int make_account_folder(const struct certbot *c, const char *folder,
                               struct err *err)
{
    char part[FS_PATH_MAX];
    size_t base = strlen(c->folder) + 1;

    for (size_t i = base;; i++) {
        if (folder[i] != '/' && folder[i] != '\0')
            continue;
        memcpy(part, folder + base, i - base);
        part[i - base] = '\0';
        if (make_own_folder(c, part, err) < 0)
            return -1;
        if (folder[i] == '\0')
            return 0;
    }
}

static int seed_account(const struct certbot *c, struct err *err)
{
    static const char meta[] = ACCOUNT_META;
    SECRET_SCOPED key = NULL;
    char folder[FS_PATH_MAX];
    json_t *regr;
    char *regr_text;
    int failed;

    if (account_folder(c, folder, err) < 0 || make_account_folder(c, folder, err) < 0 ||
        jose_private_jwk(c->request.account_key, &key, err) < 0)
        return -1;
    regr = json_pack("{s:{}, s:s}", "body", "uri", c->request.account_url);
    regr_text = json_dump_whole(regr, JSON_COMPACT);
    json_decref(regr);
    if (regr_text == NULL)
        return err_set(err, ERR_PEER, "the account URL is not valid UTF-8");
    failed = write_own_file(c, folder, "regr.json", regr_text, strlen(regr_text), err);
    wipe_free(regr_text);
    if (failed != 0)
        return -1;
    if (write_own_file(c, folder, "meta.json", meta, strlen(meta), err) < 0)
        return -1;
    return write_own_file(c, folder, "private_key.json", key->bytes, key->len, err);
}

/*
 * It stays ours, so that nobody else can put a record or a folder into it: certbot's user may
 * only pass through.
 */
static int open_to_group(const struct certbot *c, struct err *err)
{
    if (lchown(c->folder, (uid_t)-1, c->gid) < 0)
        return err_sys(err, errno, "%s: cannot give it to group %u", c->folder,
                       (unsigned)c->gid);
    return fs_make_folder(c->folder, 0710, err);
}

static int begin_prepare(void *flow, struct err *err)
{
    struct certbot *c = flow;
    static const char *const folders[] = {"config", "work", "logs", "out", "tmp"};

    c->change_user = find_user(c->request.config, &c->uid, &c->gid);
    if (!c->change_user && geteuid() == 0)
        log_warning("certbot runs as root: there is no user \"%s\" (certbot.user)",
                    c->request.config->certbot.user);
    if (certbot_choose_place(c->request.config, c->folder, err) < 0 ||
        fs_remove_tree(c->folder, err) < 0)
        return -1;
    /*
     * In a world-writable /dev/shm the folder must be ours from its first moment, and nobody
     * else's until it is filled: whoever owned it could turn what we make in it elsewhere.
     */
    if (mkdir(c->folder, 0700) < 0)
        return err_sys(err, errno, "%s: cannot create folder", c->folder);
    for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++) {
        if (make_own_folder(c, folders[i], err) < 0)
            return -1;
    }
    if (write_own_file(c, c->folder, "request.csr", c->request.csr_pem,
                       strlen(c->request.csr_pem), err) < 0 ||
        certbot_make_challenge_folder(c->request.config, err) < 0 ||
        remove_stale_challenges(c, err) < 0 || seed_account(c, err) < 0)
        return -1;
    return c->change_user && open_to_group(c, err) < 0 ? -1 : SEQ_READY;
}

/* Only now may it do something: had we been killed before, it would have ended. */
static int record_and_release(struct certbot *c, struct err *err)
{
    const struct certbot_purpose purpose = certbot_purpose_of(&c->request);
    struct certbot_record record = {.begun = c->request.begun};
    struct err unnamed = ERR_INIT;
    struct process_name name;

    if (process_name_read(process_pid(&c->process), &name, &unnamed) < 0) {
        log_warning("should this process be killed, certbot would be forgotten: %s",
                    unnamed.message);
    } else {
        record.pid = name.pid;
        record.started = name.started;
        if (certbot_save_record(c->folder, &record, &purpose, err) < 0)
            return -1;
    }
    process_release(&c->process);
    return 0;
}

static void on_process_done(void *owner, const struct err *err)
{
    struct certbot *c = owner;

    if (c->ended_by_us.kind == ERR_NONE && err != NULL && err->kind == ERR_TIMEOUT)
        c->ended_by_us = *err;
    observer_tell(
        &(struct observation){.what = OBSERVED_CERTBOT,
                              .subject = "",
                              .detail = "",
                              .failure = err == NULL ? ERR_NONE : err->kind,
                              .seconds = (double)(uv_hrtime() - c->begun_ns) / 1e9});
    /* Without its end there are still its output and its files. */
    seq_resume(&c->seq, c->ended_by_us.kind == ERR_NONE && !c->process.lost ? err : NULL);
}

static int begin_run(void *flow, struct err *err)
{
    struct certbot *c = flow;
    struct certbot_command command;
    struct process_options options = {
        .argv = command.argv,
        .environment = command.environment,
        .folder = c->folder,
        .change_user = c->change_user,
        .uid = c->uid,
        .gid = c->gid,
        .output_files = {command.output, command.errors},
        .held = true,
        .timeout_ms = c->request.config->certbot.timeout_ms,
        .term_grace_ms = CERTBOT_TERM_GRACE_MS,
    };

    if (certbot_fill_command(&command, c->folder, &c->request, err) < 0)
        return -1;
    c->begun_ns = uv_hrtime();
    process_start(&c->process, c->request.loop, &options, on_process_done, c);
    if (process_pid(&c->process) != 0 && record_and_release(c, &c->ended_by_us) < 0)
        process_cancel(&c->process);
    return SEQ_WAIT;
}

static int finish_run(void *flow, struct err *err)
{
    struct certbot *c = flow;

    if (c->ended_by_us.kind == ERR_NONE)
        return certbot_judge(c, c->process.exit_status, c->process.term_signal, err);
    return certbot_judge_ended(c, err);
}

static void abort_run(void *flow)
{
    struct certbot *c = flow;

    process_cancel(&c->process);
}

/* The process has its own time limit: certbot.timeout. */
static const struct seq_step steps[] = {
    {"prepare folders", begin_prepare, NULL, NULL, 0},
    {"certbot", begin_run, finish_run, abort_run, 0},
    {0},
};

static void on_steps_done(void *owner, const struct err *err)
{
    struct certbot *c = owner;

    process_done(&c->process);
    certbot_finish(c, err);
}

void certbot_start(struct certbot *certbot, const struct certbot_request *request,
                   done_fn done, void *owner)
{
    *certbot = (struct certbot){.request = *request, .done = done, .owner = owner};
    seq_start(&certbot->seq, request->loop, "certbot", steps, certbot, on_steps_done,
              certbot);
}

void certbot_cancel(struct certbot *certbot)
{
    seq_cancel(&certbot->seq);
}

void certbot_done(struct certbot *certbot)
{
    buf_done(&certbot->chain_pem);
}
