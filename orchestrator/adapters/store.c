#include "adapters/store.h"

#include "base/log.h"
#include "base/text.h"
#include "domain/chain.h"
#include "domain/keys.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { STATE_MAX_BYTES = 64 * 1024 };

#define INTENT "promotion"
#define SET_ASIDE "set-aside"
#define DAMAGED ".damaged" /* behind the name of what is kept, and not used */

int store_init(struct store *store, const struct config *config, struct err *err)
{
    int len = snprintf(store->folder, sizeof store->folder, "%s", config->tls.dir);

    if (len < 0 || (size_t)len >= sizeof store->folder)
        return err_set(err, ERR_CONFIG, "tls.dir: the path is too long");
    return fs_join(store->chain, store->folder, "cert.pem", err) < 0 ||
                   fs_join(store->key, store->folder, "key.pem", err) < 0 ||
                   fs_join(store->state, store->folder, ".cert-manager", err) < 0 ||
                   fs_join(store->staged_chain, store->state, "staged-cert.pem", err) <
                       0 ||
                   fs_join(store->staged_key, store->state, "staged-key.pem", err) < 0 ||
                   fs_join(store->previous_chain, store->state, "previous-cert.pem",
                           err) < 0 ||
                   fs_join(store->previous_key, store->state, "previous-key.pem", err) <
                       0 ||
                   fs_join(store->intent, store->state, INTENT, err) < 0 ||
                   fs_join(store->lock, config->run_dir, "promotion.lock", err) < 0
               ? -1
               : 0;
}

int store_check_writable(const struct store *store, struct err *err)
{
    /*
     * As large as a pair can be, so that a nearly full disk shows here and not after an
     * order.
     */
    static const char probe[CHAIN_PEM_MAX_BYTES + KEYS_PEM_MAX_BYTES];
    char staged[FS_PATH_MAX];
    char live[FS_PATH_MAX];

    /* The way that a pair goes: the state folder may be a file system of its own. */
    if (fs_make_folder(store->state, 0700, err) < 0 ||
        fs_join(staged, store->state, "write-probe", err) < 0 ||
        fs_join(live, store->folder, ".write-probe", err) < 0 ||
        fs_replace(staged, probe, sizeof probe, 0600, err) < 0 ||
        fs_rename(staged, live, err) < 0 || fs_remove(live, err) < 0)
        return err_wrap(err, "the TLS folder cannot be written");
    return 0;
}

static bool is_kept_aside(const char *name)
{
    return text_ends_with(name, DAMAGED) && strcmp(name, DAMAGED) != 0;
}

/*
 * Only files are ours there, and the folder of pairs. The ledger is left to those who read it: where one was
 * put aside, fewer orders are left than where there was none.
 */
static bool is_strange(int folder_fd, const char *name)
{
    struct stat status;

    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 ||
        strcmp(name, STORE_LEDGER) == 0 || is_kept_aside(name) ||
        fstatat(folder_fd, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
        return false;
    return strcmp(name, SET_ASIDE) == 0 ? !S_ISDIR(status.st_mode)
                                        : !S_ISREG(status.st_mode);
}

/*
 * Whoever can write the volume can put a link, a FIFO, a folder in the place of what we read or write, or
 * make the folder somebody else's, who could go on with that.
 */
static void take_possession(const struct store *store)
{
    int fd = open(store->state, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *folder = fd < 0 ? NULL : fdopendir(fd);
    const struct dirent *entry;
    struct stat status;

    if (folder == NULL) {
        if (fd >= 0)
            close(fd);
        return;
    }
    if (fstat(fd, &status) == 0 && status.st_uid != geteuid() &&
        fchown(fd, geteuid(), getegid()) < 0)
        log_warning("%s belongs to user %u, who can change what is in it: %s",
                    store->state, (unsigned)status.st_uid, strerror(errno));
    while ((entry = readdir(folder)) != NULL) {
        struct err err = ERR_INIT;

        if (!is_strange(fd, entry->d_name))
            continue;
        if (store_set_state_aside(store, entry->d_name, &err) < 0)
            log_warning("%s/%s is no file of ours, and stays in the way: %s",
                        store->state, entry->d_name, err.message);
        else
            log_warning("%s/%s is no file of ours; it is kept as %s" DAMAGED,
                        store->state, entry->d_name, entry->d_name);
    }
    closedir(folder);
}

void store_clean_up(const struct store *store, time_t now)
{
    enum { WRITTEN_BY_NOW_S = 60 };
    struct err err = ERR_INIT;

    take_possession(store);
    if (fs_remove_leftovers(store->state, now - WRITTEN_BY_NOW_S, &err) < 0 ||
        fs_remove_leftovers(store->folder, now - WRITTEN_BY_NOW_S, &err) < 0)
        log_warning("what an earlier run has left half-written stays: %s", err.message);
}

/* Written again and not changed where it is: it may have another name, or be open already. */
void store_guard_key(const struct store *store, bool is_external)
{
    SECRET_SCOPED pem = NULL;
    EVP_PKEY *key = NULL;
    struct err err = ERR_INIT;
    struct stat status;
    int failed = 0;

    if (lstat(store->key, &status) < 0 || !S_ISREG(status.st_mode) ||
        (status.st_uid == geteuid() && (status.st_mode & (S_IRWXG | S_IRWXO)) == 0))
        return;
    /* What is no key is not made ours: it is judged and put aside. */
    if (store_load_key(store, &pem, &err) < 0 || pem == NULL ||
        keys_from_pem(pem, &key, &err) < 0)
        return;
    EVP_PKEY_free(key);
    if (!is_external)
        failed = fs_replace(store->key, pem->bytes, pem->len, 0600, &err);
    log_warning(
        "%s has mode %04o and belongs to user %u, so that others can have the key%s%s",
        store->key, (unsigned)(status.st_mode & 07777), (unsigned)status.st_uid,
        is_external  ? ". Put it there with mode 0600"
        : failed < 0 ? ", and it stays so: "
                     : ". It is ours and 0600 from now on",
        failed < 0 ? err.message : "");
}

/* A missing file leaves an empty buffer. */
static int load_if_there(const char *path, size_t max, struct buf *ret, struct err *err)
{
    struct err failure = ERR_INIT;

    if (fs_read(path, max, ret, &failure) == 0 || failure.code == ENOENT)
        return 0;
    *err = failure;
    return -1;
}

int64_t store_changed_ns(const struct store *store)
{
    int64_t chain_ns = fs_changed_ns(store->chain);
    int64_t key_ns = fs_changed_ns(store->key);

    return chain_ns > key_ns ? chain_ns : key_ns;
}

int store_load_chain(const struct store *store, struct buf *ret, struct err *err)
{
    return load_if_there(store->chain, CHAIN_PEM_MAX_BYTES, ret, err);
}

/* Whoever can write the volume can put a link in the place of our folder: nothing is there then. */
static int has_state(const struct store *store, bool *ret, struct err *err)
{
    struct stat status;

    *ret = false;
    if (lstat(store->state, &status) < 0)
        return errno == ENOENT || errno == ENOTDIR
                   ? 0
                   : err_sys(err, errno, "%s", store->state);
    *ret = S_ISDIR(status.st_mode);
    return 0;
}

static int load_state_chain(const struct store *store, const char *path, struct buf *ret,
                            struct err *err)
{
    bool there;

    buf_init(ret, CHAIN_PEM_MAX_BYTES);
    if (has_state(store, &there, err) < 0)
        return -1;
    return there ? load_if_there(path, CHAIN_PEM_MAX_BYTES, ret, err) : 0;
}

int store_load_staged_chain(const struct store *store, struct buf *ret, struct err *err)
{
    return load_state_chain(store, store->staged_chain, ret, err);
}

int store_load_previous_chain(const struct store *store, struct buf *ret, struct err *err)
{
    return load_state_chain(store, store->previous_chain, ret, err);
}

static int load_key_if_there(const char *path, struct secret **ret, struct err *err)
{
    struct err failure = ERR_INIT;

    *ret = NULL;
    if (fs_read_secret(path, KEYS_PEM_MAX_BYTES, ret, &failure) == 0 ||
        failure.code == ENOENT)
        return 0;
    *err = failure;
    return -1;
}

int store_load_key(const struct store *store, struct secret **ret, struct err *err)
{
    return load_key_if_there(store->key, ret, err);
}

int store_load_staged_key(const struct store *store, struct secret **ret, struct err *err)
{
    bool there;

    *ret = NULL;
    if (has_state(store, &there, err) < 0 ||
        (there && load_key_if_there(store->staged_key, ret, err) < 0))
        return -1;
    return *ret != NULL ? 0 : store_load_key(store, ret, err);
}

static int move_if_there(const char *from, const char *folder, const char *name,
                         struct err *err)
{
    char to[FS_PATH_MAX];

    if (!fs_exists(from))
        return 0;
    if (fs_join(to, folder, name, err) < 0)
        return -1;
    return fs_rename(from, to, err);
}

/* A folder that holds no pair yet, "set-aside/<now>" or, within the same second, a later one. */
static int set_aside_folder(const struct store *store, int64_t now, char *ret,
                            struct err *err)
{
    enum { TRIES = 1000 }; /* what cannot be looked at counts as taken */
    char name[64];
    char chain[FS_PATH_MAX];
    char key[FS_PATH_MAX];
    int tries = 0;

    do {
        if (tries++ == TRIES)
            return err_set(err, ERR_SYS, "%s/%s and those before it are all taken",
                           store->state, name);
        snprintf(name, sizeof name, SET_ASIDE "/%" PRId64, now++);
        if (fs_join(ret, store->state, name, err) < 0 ||
            fs_join(chain, ret, "cert.pem", err) < 0 ||
            fs_join(key, ret, "key.pem", err) < 0)
            return -1;
    } while (fs_exists(chain) || fs_exists(key));
    return fs_make_folder(store->state, 0700, err) < 0 ? -1
                                                       : fs_make_folder(ret, 0700, err);
}

int store_set_aside(const struct store *store, const char *reason, int64_t now,
                    struct err *err)
{
    char folder[FS_PATH_MAX];
    char path[FS_PATH_MAX];
    int failed;
    int lock;

    if (set_aside_folder(store, now, folder, err) < 0 ||
        fs_join(path, folder, "reason", err) < 0 ||
        fs_replace(path, reason, strlen(reason), 0600, err) < 0 ||
        fs_lock(store->lock, &lock, err) < 0)
        return -1;
    failed = move_if_there(store->chain, folder, "cert.pem", err);
    if (failed == 0)
        failed = move_if_there(store->key, folder, "key.pem", err);
    close(lock);
    return failed;
}

/* A pair, or a chain without a key of its own, in the state folder. */
static int put_pair(const char *chain, const char *key, const struct buf *chain_pem,
                    const struct secret *key_pem, struct err *err)
{
    if (fs_replace(chain, chain_pem->data, chain_pem->len, 0644, err) < 0)
        return -1;
    if (key_pem == NULL)
        return fs_remove(key, err);
    return fs_replace(key, key_pem->bytes, key_pem->len, 0600, err);
}

/* A promotion that was cut off would take what is put there now. */
static int prepare_state(const struct store *store, struct err *err)
{
    bool finished;

    return fs_make_folder(store->state, 0700, err) < 0
               ? -1
               : store_finish_promotion(store, &finished, err);
}

int store_stage(const struct store *store, const struct buf *chain_pem,
                const struct secret *key_pem, struct err *err)
{
    return prepare_state(store, err) < 0
               ? -1
               : put_pair(store->staged_chain, store->staged_key, chain_pem, key_pem,
                          err);
}

/* On the way back there may be no room for what is there already. */
static bool has_previous(const struct store *store, const struct buf *chain_pem,
                         const struct secret *key_pem)
{
    SECRET_SCOPED key = NULL;
    BUF_SCOPED chain = {0};
    struct err ignored = ERR_INIT;

    if (fs_read(store->previous_chain, CHAIN_PEM_MAX_BYTES, &chain, &ignored) < 0 ||
        strcmp(buf_str(&chain), buf_str(chain_pem)) != 0)
        return false;
    if (key_pem == NULL)
        return !fs_exists(store->previous_key);
    return fs_read_secret(store->previous_key, KEYS_PEM_MAX_BYTES, &key, &ignored) == 0 &&
           key->len == key_pem->len &&
           CRYPTO_memcmp(key->bytes, key_pem->bytes, key->len) == 0;
}

int store_keep_previous(const struct store *store, const struct buf *chain_pem,
                        const struct secret *key_pem, struct err *err)
{
    if (prepare_state(store, err) < 0)
        return -1;
    return has_previous(store, chain_pem, key_pem)
               ? 0
               : put_pair(store->previous_chain, store->previous_key, chain_pem, key_pem,
                          err);
}

int store_forget_previous(const struct store *store, struct err *err)
{
    return fs_remove(store->previous_key, err) < 0
               ? -1
               : fs_remove(store->previous_chain, err);
}

/* What the intent says when it is the previous pair that becomes the live one. */
#define INTENT_BACK "back"

/* The key first: a crash in between leaves the intent, and the chain follows. */
static int rename_pair(const struct store *store, bool back, struct err *err)
{
    const char *chain = back ? store->previous_chain : store->staged_chain;
    const char *key = back ? store->previous_key : store->staged_key;

    if (fs_exists(key) && fs_rename(key, store->key, err) < 0)
        return -1;
    if (fs_exists(chain) && fs_rename(chain, store->chain, err) < 0)
        return -1;
    return fs_remove(store->intent, err);
}

static int promote(const struct store *store, bool back, struct err *err)
{
    const char *chain = back ? store->previous_chain : store->staged_chain;
    const char *key = back ? store->previous_key : store->staged_key;
    const char *intent = back ? INTENT_BACK : "";
    int failed = 0;
    int lock;

    if (fs_lock(store->lock, &lock, err) < 0)
        return -1;
    if (!fs_exists(chain))
        failed = err_sys(err, ENOENT, "%s", chain);
    else if (fs_exists(key))
        failed = fs_replace(store->intent, intent, strlen(intent), 0600, err);
    if (failed == 0)
        failed = rename_pair(store, back, err);
    close(lock);
    return failed;
}

int store_promote(const struct store *store, struct err *err)
{
    return promote(store, false, err);
}

int store_put_back(const struct store *store, struct err *err)
{
    return promote(store, true, err);
}

/* A chain that was promoted is nowhere else; one that was not is staged still. */
static int stage_live_chain(const struct store *store, struct err *err)
{
    BUF_SCOPED live = {0};
    BUF_SCOPED previous = {0};

    if (fs_exists(store->staged_chain))
        return 0;
    if (store_load_chain(store, &live, err) < 0 ||
        store_load_previous_chain(store, &previous, err) < 0)
        return -1;
    if (live.len == 0 || strcmp(buf_str(&live), buf_str(&previous)) == 0)
        return 0;
    return put_pair(store->staged_chain, store->staged_key, &live, NULL, err);
}

int store_go_back(const struct store *store, struct err *err)
{
    struct err lost = ERR_INIT;
    bool finished;

    if (store_finish_promotion(store, &finished, err) < 0)
        return -1;
    if (stage_live_chain(store, &lost) < 0)
        log_warning("the certificate that is taken back cannot be kept: %s",
                    lost.message);
    return store_put_back(store, err);
}

int store_promote_chain(const struct store *store, struct err *err)
{
    return fs_rename_now(store->staged_chain, store->chain, err);
}

int store_sync(const struct store *store, struct err *err)
{
    return fs_sync_folder(store->folder, err) < 0 ? -1
                                                  : fs_sync_folder(store->state, err);
}

/* Only one that has been read counts: what is staged without an intent was not measured. */
static int read_intent(const struct store *store, bool *ret_there, struct buf *ret,
                       struct err *err)
{
    struct err failure = ERR_INIT;

    if (has_state(store, ret_there, err) < 0)
        return -1;
    if (!*ret_there || fs_read(store->intent, sizeof INTENT_BACK, ret, &failure) == 0)
        return 0;
    *ret_there = false;
    if (failure.code == ENOENT)
        return 0;
    *err = failure;
    return -1;
}

int store_finish_promotion(const struct store *store, bool *ret_finished, struct err *err)
{
    BUF_SCOPED intent = {0};
    bool there = false;
    int failed;
    int lock;

    *ret_finished = false;
    if (fs_lock(store->lock, &lock, err) < 0)
        return -1;
    failed = read_intent(store, &there, &intent, err);
    if (failed != 0 && err->kind == ERR_CONFIG) {
        log_warning("%s is none of ours, and there is no promotion", err->message);
        *err = (struct err)ERR_INIT;
        failed = store_set_state_aside(store, INTENT, err);
        close(lock);
        return failed;
    }
    if (there)
        failed = rename_pair(store, strcmp(buf_str(&intent), INTENT_BACK) == 0, err);
    close(lock);
    *ret_finished = there && failed == 0;
    return failed;
}

int store_read_large_state(const struct store *store, const char *name, size_t max,
                           struct buf *ret, struct err *err)
{
    char path[FS_PATH_MAX];
    bool there;

    buf_init(ret, max);
    if (fs_join(path, store->state, name, err) < 0 || has_state(store, &there, err) < 0)
        return -1;
    return there ? load_if_there(path, max, ret, err) : 0;
}

int store_read_state(const struct store *store, const char *name, struct buf *ret,
                     struct err *err)
{
    return store_read_large_state(store, name, STATE_MAX_BYTES, ret, err);
}

int store_write_state(const struct store *store, const char *name, const char *text,
                      struct err *err)
{
    char path[FS_PATH_MAX];

    if (fs_make_folder(store->state, 0700, err) < 0 ||
        fs_join(path, store->state, name, err) < 0)
        return -1;
    return fs_replace(path, text, strlen(text), 0600, err);
}

int store_remove_state(const struct store *store, const char *name, struct err *err)
{
    char path[FS_PATH_MAX];
    bool there;

    if (fs_join(path, store->state, name, err) < 0 || has_state(store, &there, err) < 0)
        return -1;
    return there ? fs_remove(path, err) : 0;
}

int store_set_state_aside(const struct store *store, const char *name, struct err *err)
{
    char from[FS_PATH_MAX];
    char to[FS_PATH_MAX];
    char aside[NAME_MAX + sizeof DAMAGED];

    snprintf(aside, sizeof aside, "%s" DAMAGED, name);
    if (fs_join(from, store->state, name, err) < 0 ||
        fs_join(to, store->state, aside, err) < 0)
        return -1;
    /* One of before would be in the way of a folder, and a folder in that of anything. */
    if (fs_remove_tree(to, err) < 0)
        return -1;
    return fs_rename(from, to, err);
}
