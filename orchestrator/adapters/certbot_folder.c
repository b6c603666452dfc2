#include "adapters/certbot_internal.h"

#include "base/log.h"
#include "base/text.h"
#include "domain/chain.h"

#include <errno.h>
#include <linux/magic.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

enum { OUTPUT_MAX_BYTES = 256 * 1024 };

#define RECORD "run.json"

/* ---- places ---- */

int certbot_place(const struct config *config, int place, char *ret, struct err *err)
{
    unsigned char digest[SHA256_DIGEST_LENGTH];
    char tag[17];

    if (place == 0)
        return fs_join(ret, config->run_dir, "certbot", err);
    /* Several instances on one machine differ in run_dir. */
    SHA256((const unsigned char *)config->run_dir, strlen(config->run_dir), digest);
    text_hex(tag, digest, 8);
    snprintf(ret, FS_PATH_MAX, "/dev/shm/cert-manager-%s", tag);
    return 0;
}

int certbot_choose_place(const struct config *config, char *ret, struct err *err)
{
    struct statfs status;
    bool in_memory =
        statfs(config->run_dir, &status) == 0 && status.f_type == TMPFS_MAGIC;

    return certbot_place(config, in_memory ? 0 : 1, ret, err); /* /dev/shm always is */
}

/* ---- the record ---- */

struct certbot_purpose certbot_purpose_of(const struct certbot_request *request)
{
    return (struct certbot_purpose){
        .directory = request->authority->directory,
        .names = &request->config->domains,
        .key = request->key_id,
    };
}

int certbot_save_record(const char *folder, const struct certbot_record *record,
                        const struct certbot_purpose *purpose, struct err *err)
{
    char path[FS_PATH_MAX];
    BUF_SCOPED json = {0};

    buf_init(&json, CERTBOT_RECORD_MAX_BYTES);
    if (fs_join(path, folder, RECORD, err) < 0 ||
        certbot_record_write(record, purpose, &json, err) < 0)
        return -1;
    return fs_replace(path, json.data, json.len, 0600, err);
}

/* Whether nobody but us can have put anything into it. */
static bool is_ours(const struct stat *folder)
{
    return folder->st_uid == geteuid() && (folder->st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

/* What lacks memory or descriptors may be read later, and is what it is. */
static enum certbot_left judge_unread(const struct err *why, struct err *err)
{
    if (why->kind != ERR_SYS || why->code == ENOENT || why->code == ENOTDIR ||
        why->code == ELOOP)
        return CERTBOT_LEFT_JUNK;
    *err = *why;
    err_wrap(err, "cannot look at an earlier run of certbot");
    return CERTBOT_LEFT_UNKNOWN;
}

enum certbot_left certbot_look(const char *folder, const struct certbot_purpose *purpose,
                               struct certbot_record *ret, struct err *err)
{
    struct err unusable = ERR_INIT;
    char path[FS_PATH_MAX];
    BUF_SCOPED json = {0};
    struct stat status;

    *ret = (struct certbot_record){.pid = 0};
    if (!fs_exists(folder))
        return CERTBOT_LEFT_NOTHING;
    if (lstat(folder, &status) < 0) {
        err_sys(&unusable, errno, "%s", folder);
        return judge_unread(&unusable, err);
    }
    if (!S_ISDIR(status.st_mode) || !is_ours(&status))
        return CERTBOT_LEFT_JUNK;
    if (fs_join(path, folder, RECORD, &unusable) < 0 ||
        fs_read_head(path, CERTBOT_RECORD_MAX_BYTES, &json, &unusable) < 0 ||
        certbot_record_read(&json, purpose, ret, &unusable) < 0)
        return judge_unread(&unusable, err);
    return CERTBOT_LEFT_RUN;
}

/* ---- what certbot wrote ---- */

static int read_part(const char *folder, const char *name, size_t max, struct buf *ret,
                     struct err *err)
{
    char path[FS_PATH_MAX];

    buf_init(ret, max);
    return fs_join(path, folder, name, err) < 0 ? -1 : fs_read_head(path, max, ret, err);
}

static bool is_joined(const struct buf *whole, const struct buf *first,
                      const struct buf *second)
{
    return first->len > 0 && whole->len == first->len + second->len &&
           memcmp(whole->data, first->data, first->len) == 0 &&
           (second->len == 0 ||
            memcmp(whole->data + first->len, second->data, second->len) == 0);
}

/*
 * certbot writes cert.pem, chain.pem and fullchain.pem in this order, the last one with the
 * bytes of the other two, and none of them at once: together they say that nothing is missing.
 */
bool certbot_read_complete_chain(const char *folder, struct buf *ret)
{
    struct err ignored = ERR_INIT;
    BUF_SCOPED leaf = {0};
    BUF_SCOPED rest = {0};

    if (read_part(folder, "out/fullchain.pem", CHAIN_PEM_MAX_BYTES, ret, &ignored) == 0 &&
        read_part(folder, "out/cert.pem", CHAIN_PEM_MAX_BYTES, &leaf, &ignored) == 0 &&
        read_part(folder, "out/chain.pem", CHAIN_PEM_MAX_BYTES, &rest, &ignored) == 0 &&
        is_joined(ret, &leaf, &rest))
        return true;
    buf_done(ret);
    return false;
}

static void log_output(const struct buf *output)
{
    const char *line = buf_str(output);

    while (*line != '\0') {
        size_t len = strcspn(line, "\n");

        if (len > 0)
            log_debug("certbot: %.*s", (int)(len < 1000 ? len : 1000), line);
        line += len;
        line += *line == '\n';
    }
}

int certbot_judge(struct certbot *certbot, int exit_status, int term_signal,
                  struct err *err)
{
    struct err ignored = ERR_INIT;
    BUF_SCOPED output = {0};
    BUF_SCOPED errors = {0};
    bool complete = exit_status != 0 &&
                    certbot_read_complete_chain(certbot->folder, &certbot->chain_pem);
    struct certbot_ending ending = {
        .exit_status = complete ? 0 : exit_status,
        .term_signal = complete ? 0 : term_signal,
    };

    (void)read_part(certbot->folder, "stdout", OUTPUT_MAX_BYTES, &output, &ignored);
    (void)read_part(certbot->folder, "stderr", OUTPUT_MAX_BYTES, &errors, &ignored);
    log_output(&output);
    log_output(&errors);
    ending.standard_output = buf_str(&output);
    ending.standard_error = buf_str(&errors);
    certbot_outcome_read(&ending, &certbot->outcome);
    certbot->ran = true;
    if (certbot->outcome.verdict != CERTBOT_ISSUED)
        return certbot_outcome_err(&certbot->outcome, err);
    if (!complete && read_part(certbot->folder, "out/fullchain.pem", CHAIN_PEM_MAX_BYTES,
                               &certbot->chain_pem, err) < 0)
        return err_wrap(err, "certbot succeeded, but its chain cannot be read");
    return 0;
}

int certbot_judge_ended(struct certbot *certbot, struct err *err)
{
    if (certbot_judge(certbot, -1, 0, err) == 0)
        return 0;
    certbot->ran = false;
    *err = certbot->ended_by_us;
    return -1;
}

/* ---- the end ---- */

static void remove_folder(const char *path)
{
    struct err err = ERR_INIT;

    if (path[0] != '\0' && fs_remove_tree(path, &err) < 0)
        log_warning("cannot remove certbot's work folder: %s", err.message);
}

void certbot_finish(struct certbot *certbot, const struct err *err)
{
    struct err too_long = ERR_INIT;
    char config[FS_PATH_MAX] = "";

    /* Told to stop, it may have been through already. */
    if (err != NULL && err->kind == ERR_CANCELED && certbot->folder[0] != '\0')
        (void)certbot_read_complete_chain(certbot->folder, &certbot->chain_pem);
    if (certbot->chain_pem.len == 0)
        certbot_discard(certbot);
    else if (fs_join(config, certbot->folder, "config", &too_long) == 0)
        remove_folder(config);
    certbot->done(certbot->owner, err);
}

void certbot_discard(struct certbot *certbot)
{
    /* What still runs keeps its folder and its record, by which the next order finds it. */
    if (!certbot->process.left_alone)
        remove_folder(certbot->folder);
    certbot->folder[0] = '\0';
    buf_done(&certbot->chain_pem);
}
