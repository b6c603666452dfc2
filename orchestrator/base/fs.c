#include "base/fs.h"

#include "base/text.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

int fs_join(char *ret, const char *folder, const char *name, struct err *err)
{
    int len = snprintf(ret, FS_PATH_MAX, "%s/%s", folder, name);

    if (len < 0 || len >= FS_PATH_MAX)
        return err_set(err, ERR_CONFIG, "path is longer than %d bytes: %.80s…/%s",
                       FS_PATH_MAX, folder, name);
    return 0;
}

bool fs_exists(const char *path)
{
    struct stat status;

    return lstat(path, &status) == 0 || (errno != ENOENT && errno != ENOTDIR);
}

int64_t fs_changed_ns(const char *path)
{
    struct stat status;

    return lstat(path, &status) < 0
               ? 0
               : status.st_ctim.tv_sec * INT64_C(1000000000) + status.st_ctim.tv_nsec;
}

static int open_regular(const char *path, int flags, size_t max, size_t *ret_size,
                        struct err *err)
{
    struct stat status;
    /* O_NONBLOCK: opening a FIFO that somebody put there must not hang the daemon. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | flags);

    if (fd < 0 && errno == ENXIO) /* a socket */
        return err_set(err, ERR_CONFIG, "%s: not a regular file", path);
    if (fd < 0)
        return err_sys(err, errno, "%s", path);
    if (fstat(fd, &status) < 0)
        err_sys(err, errno, "%s", path);
    else if (S_ISDIR(status.st_mode))
        err_set(err, ERR_CONFIG, "%s: a folder, expected a regular file", path);
    else if (!S_ISREG(status.st_mode))
        err_set(err, ERR_CONFIG, "%s: not a regular file", path);
    else if (status.st_size < 0 || (size_t)status.st_size > max)
        err_set(err, ERR_CONFIG, "%s: larger than the %zu bytes allowed", path, max);
    else {
        *ret_size = (size_t)status.st_size;
        return fd;
    }
    close(fd);
    return -1;
}

static ssize_t read_some(int fd, void *bytes, size_t len)
{
    ssize_t got;

    do
        got = read(fd, bytes, len);
    while (got < 0 && errno == EINTR);
    return got;
}

/* The rest of `fd`, which is closed. */
static int read_all(int fd, const char *path, bool cut, struct buf *ret, struct err *err)
{
    unsigned char chunk[8192];
    ssize_t got = 0;
    int failed = 0;

    while (failed == 0 && (got = read_some(fd, chunk, sizeof chunk)) > 0) {
        size_t room = ret->max - ret->len;
        size_t len = cut && (size_t)got > room ? room : (size_t)got;

        if (buf_append(ret, chunk, len, err) < 0)
            failed = err_wrap(err, "%s", path);
        if (len < (size_t)got)
            break;
    }
    if (got < 0)
        failed = err_sys(err, errno, "%s", path);
    close(fd);
    OPENSSL_cleanse(chunk, sizeof chunk);
    if (failed != 0)
        buf_done(ret);
    return failed;
}

int fs_read(const char *path, size_t max, struct buf *ret, struct err *err)
{
    size_t size = 0;
    int fd;

    buf_init(ret, max);
    fd = open_regular(path, 0, max, &size, err);
    return fd < 0 ? -1 : read_all(fd, path, false, ret, err);
}

int fs_read_head(const char *path, size_t max, struct buf *ret, struct err *err)
{
    size_t size = 0;
    int fd;

    buf_init(ret, max);
    fd = open_regular(path, O_NOFOLLOW, SIZE_MAX, &size, err);
    return fd < 0 ? -1 : read_all(fd, path, true, ret, err);
}

int fs_read_secret(const char *path, size_t max, struct secret **ret, struct err *err)
{
    struct secret *secret;
    unsigned char more = 0;
    bool complete = false;
    size_t size = 0;
    size_t used = 0;
    ssize_t got = 0;
    int fd = open_regular(path, 0, max, &size, err);

    if (fd < 0)
        return -1;
    secret = secret_new(size);
    if (secret == NULL) {
        close(fd);
        return err_sys(err, ENOMEM, "%s: no secure memory left", path);
    }
    while (used < size && (got = read_some(fd, secret->bytes + used, size - used)) > 0)
        used += (size_t)got;
    if (got < 0)
        err_sys(err, errno, "%s", path);
    else if (used != size || read_some(fd, &more, 1) != 0)
        err_set(err, ERR_SYS, "%s: changed while it was read", path);
    else
        complete = true;
    close(fd);
    OPENSSL_cleanse(&more, sizeof more);
    if (!complete) {
        secret_free(secret);
        return -1;
    }
    *ret = secret;
    return 0;
}

static int write_all(int fd, const unsigned char *bytes, size_t len)
{
    while (len > 0) {
        ssize_t put = write(fd, bytes, len);

        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return -1;
        bytes += put;
        len -= (size_t)put;
    }
    return 0;
}

/* The folder that holds `path`, into `ret` of FS_PATH_MAX bytes. */
static int parent_of(char *ret, const char *path, struct err *err)
{
    const char *slash = strrchr(path, '/');
    size_t len = slash == NULL ? 0 : (size_t)(slash - path);

    if (len >= FS_PATH_MAX)
        return err_set(err, ERR_CONFIG, "path is longer than %d bytes: %.80s…",
                       FS_PATH_MAX, path);
    if (slash == NULL)
        memcpy(ret, ".", 2);
    else if (len == 0)
        memcpy(ret, "/", 2);
    else {
        memcpy(ret, path, len);
        ret[len] = '\0';
    }
    return 0;
}

int fs_sync_folder(const char *path, struct err *err)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return err_sys(err, errno, "%s", path);
    /*
     * Some file systems cannot sync a folder and say EINVAL; there is nothing more to
     * do.
     */
    if (fsync(fd) < 0 && errno != EINVAL) {
        err_sys(err, errno, "%s: fsync", path);
        close(fd);
        return -1;
    }
    close(fd);
    return 0;
}

static int sync_parent(const char *path, struct err *err)
{
    char folder[FS_PATH_MAX];

    if (parent_of(folder, path, err) < 0)
        return -1;
    return fs_sync_folder(folder, err);
}

/* Between a file's name and what mkostemp(3) adds, for fs_remove_leftovers to know it by. */
#define NEW_MARK ".new-"

static int replace(const char *path, const void *data, size_t len, mode_t mode,
                   bool durable, struct err *err)
{
    char temporary[FS_PATH_MAX];
    const char *doing = "create";
    int saved;
    int fd;
    int put;

    put = snprintf(temporary, sizeof temporary, "%s" NEW_MARK "XXXXXX", path);
    if (put < 0 || put >= FS_PATH_MAX)
        return err_set(err, ERR_CONFIG, "path is longer than %d bytes: %.80s…",
                       FS_PATH_MAX, path);
    fd = mkostemp(temporary, O_CLOEXEC);
    if (fd < 0)
        return err_sys(err, errno, "%s: cannot %s", path, doing);
    doing = "set the mode of";
    if (fchmod(fd, mode) < 0)
        goto failed;
    doing = "write";
    if (write_all(fd, data, len) < 0)
        goto failed;
    doing = "sync";
    if (durable && fsync(fd) < 0)
        goto failed;
    doing = "rename";
    if (rename(temporary, path) < 0)
        goto failed;
    close(fd);
    return durable ? sync_parent(path, err) : 0;

failed:
    saved = errno;
    close(fd);
    unlink(temporary);
    return err_sys(err, saved, "%s: cannot %s", path, doing);
}

int fs_replace(const char *path, const void *data, size_t len, mode_t mode,
               struct err *err)
{
    return replace(path, data, len, mode, true, err);
}

int fs_replace_now(const char *path, const void *data, size_t len, mode_t mode,
                   struct err *err)
{
    return replace(path, data, len, mode, false, err);
}

int fs_replace_link(const char *path, const char *target, struct err *err)
{
    char temporary[FS_PATH_MAX];
    int len = snprintf(temporary, sizeof temporary, "%s.new", path);

    if (len < 0 || len >= FS_PATH_MAX)
        return err_set(err, ERR_CONFIG, "path is longer than %d bytes: %.80s…",
                       FS_PATH_MAX, path);
    /* One that a crash has left. */
    if (unlink(temporary) < 0 && errno != ENOENT)
        return err_sys(err, errno, "%s: cannot remove", temporary);
    if (symlink(target, temporary) < 0)
        return err_sys(err, errno, "%s: cannot create", temporary);
    if (fs_rename_now(temporary, path, err) < 0) {
        unlink(temporary);
        return -1;
    }
    return sync_parent(path, err);
}

int fs_rename_now(const char *from, const char *to, struct err *err)
{
    if (rename(from, to) < 0)
        return err_sys(err, errno, "%s: cannot rename to %s", from, to);
    return 0;
}

int fs_rename(const char *from, const char *to, struct err *err)
{
    if (fs_rename_now(from, to, err) < 0)
        return -1;
    if (sync_parent(to, err) < 0)
        return -1;
    return sync_parent(from, err);
}

int fs_remove(const char *path, struct err *err)
{
    if (unlink(path) < 0) {
        if (errno == ENOENT)
            return 0;
        return err_sys(err, errno, "%s: cannot remove", path);
    }
    return sync_parent(path, err);
}

static int make_parents(const char *path, struct err *err)
{
    char part[FS_PATH_MAX];

    if (strlen(path) >= sizeof part)
        return err_set(err, ERR_CONFIG, "path is longer than %d bytes: %.80s…",
                       FS_PATH_MAX, path);
    for (size_t i = 1; path[i] != '\0'; i++) {
        if (path[i] != '/')
            continue;
        memcpy(part, path, i);
        part[i] = '\0';
        if (mkdir(part, 0777) == 0)
            (void)chmod(part, 0755); /* whatever the umask: others must pass through */
        else if (errno != EEXIST)
            return err_sys(err, errno, "%s: cannot create folder", part);
    }
    return 0;
}

int fs_make_folder(const char *path, mode_t mode, struct err *err)
{
    struct stat status;
    int failed = 0;
    int fd;

    if (make_parents(path, err) < 0)
        return -1;
    if (mkdir(path, mode) < 0 && errno != EEXIST)
        return err_sys(err, errno, "%s: cannot create folder", path);
    /* A link that somebody put there must not have us change the mode of what it names. */
    fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && (errno == ENOTDIR || errno == ELOOP))
        return err_set(err, ERR_CONFIG, "%s: is not a folder", path);
    if (fd < 0)
        return err_sys(err, errno, "%s", path);
    if (fstat(fd, &status) < 0)
        failed = err_sys(err, errno, "%s", path);
    else if ((status.st_mode & 07777) != mode && fchmod(fd, mode) < 0)
        failed = err_sys(err, errno, "%s: cannot set mode %04o", path, (unsigned)mode);
    close(fd);
    return failed;
}

/*
 * Depth is bounded: what we remove is our own, and a hostile tree must not exhaust the
 * stack.
 */
enum { TREE_DEPTH_MAX = 32 };

static int remove_entries(int folder_fd, const char *path, int depth, struct err *err)
{
    struct dirent *entry;
    int failed = 0;
    DIR *folder;

    if (depth > TREE_DEPTH_MAX) {
        close(folder_fd);
        return err_set(err, ERR_SYS, "%s: more than %d folders deep", path,
                       TREE_DEPTH_MAX);
    }
    folder = fdopendir(folder_fd);
    if (folder == NULL) {
        err_sys(err, errno, "%s", path);
        close(folder_fd);
        return -1;
    }
    while (failed == 0 && (entry = readdir(folder)) != NULL) {
        const char *name = entry->d_name;
        int child;

        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
            continue;
        if (unlinkat(folder_fd, name, 0) == 0 || errno == ENOENT)
            continue;
        if (errno != EISDIR && errno != EPERM) {
            failed = err_sys(err, errno, "%s/%s: cannot remove", path, name);
            continue;
        }
        child = openat(folder_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (child < 0)
            failed = err_sys(err, errno, "%s/%s: cannot remove", path, name);
        else if (remove_entries(child, path, depth + 1, err) < 0)
            failed = -1;
        else if (unlinkat(folder_fd, name, AT_REMOVEDIR) < 0)
            failed = err_sys(err, errno, "%s/%s: cannot remove", path, name);
    }
    closedir(folder);
    return failed;
}

int fs_remove_tree(const char *path, struct err *err)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0 && (errno == ENOTDIR || errno == ELOOP))
        return fs_remove(path, err);
    if (fd < 0)
        return errno == ENOENT ? 0 : err_sys(err, errno, "%s: cannot remove", path);
    if (remove_entries(fd, path, 0, err) < 0)
        return -1;
    if (rmdir(path) < 0)
        return err_sys(err, errno, "%s: cannot remove", path);
    return 0;
}

static bool is_leftover(int folder_fd, const char *name, time_t before)
{
    static const size_t tail = sizeof NEW_MARK - 1 + 6;
    size_t len = strlen(name);
    struct stat status;

    return len > tail && text_starts_with(name + len - tail, NEW_MARK) &&
           fstatat(folder_fd, name, &status, AT_SYMLINK_NOFOLLOW) == 0 &&
           S_ISREG(status.st_mode) && status.st_mtime < before;
}

int fs_remove_leftovers(const char *path, time_t before, struct err *err)
{
    DIR *folder = opendir(path);
    int fd = folder == NULL ? -1 : dirfd(folder);
    struct dirent *entry;
    int failed = 0;

    if (folder == NULL)
        return errno == ENOENT ? 0 : err_sys(err, errno, "%s", path);
    while (fd >= 0 && failed == 0 && (entry = readdir(folder)) != NULL) {
        if (is_leftover(fd, entry->d_name, before) &&
            unlinkat(fd, entry->d_name, 0) < 0 && errno != ENOENT)
            failed = err_sys(err, errno, "%s/%s: cannot remove", path, entry->d_name);
    }
    closedir(folder);
    return failed;
}

static int take_lock(const char *path, int flags, int operation, int *ret_fd,
                     struct err *err)
{
    int fd = open(path, flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0600);

    if (fd < 0)
        return err_sys(err, errno, "%s: cannot open lock", path);
    while (flock(fd, operation) < 0) {
        if (errno == EINTR)
            continue;
        err_sys(err, errno, "%s: cannot lock", path);
        close(fd);
        return -1;
    }
    *ret_fd = fd;
    return 0;
}

int fs_lock(const char *path, int *ret_fd, struct err *err)
{
    return take_lock(path, O_RDWR | O_CREAT | O_NOFOLLOW, LOCK_EX, ret_fd, err);
}

int fs_lock_now(const char *path, int *ret_fd, struct err *err)
{
    return take_lock(path, O_RDWR | O_CREAT | O_NOFOLLOW, LOCK_EX | LOCK_NB, ret_fd, err);
}

int fs_lock_folder_now(const char *path, int *ret_fd, struct err *err)
{
    return take_lock(path, O_RDONLY | O_DIRECTORY, LOCK_EX | LOCK_NB, ret_fd, err);
}
