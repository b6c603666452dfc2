/*
 * fs: files, read with a limit and written so that a power cut leaves the old content or
 * the new one, never half of either (write, fsync, rename, fsync of the folder).
 *
 * Every function names the path in its error. Descriptors are close-on-exec.
 */
#ifndef CM_BASE_FS_H
#define CM_BASE_FS_H

#include "base/buf.h"
#include "base/err.h"
#include "base/secret.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#define FS_PATH_MAX 4096

/* "<folder>/<name>" into `ret` (FS_PATH_MAX bytes); ERR_CONFIG when it does not fit. */
int fs_join(char *ret, const char *folder, const char *name, struct err *err);

/* Of any type; a dangling link counts, and so does what cannot be looked at. */
bool fs_exists(const char *path);

/*
 * When what is there, or the link, was written, renamed or given another mode last (st_ctim, which nobody
 * can set): ns since the epoch, 0 when nothing is there.
 */
int64_t fs_changed_ns(const char *path);

/*
 * The whole of a regular file of at most `max` bytes; links are followed, FIFOs and
 * devices refused without waiting. `ret` is initialised here; err->code is the errno
 * (ENOENT when the file is missing).
 */
int fs_read(const char *path, size_t max, struct buf *ret, struct err *err);

/*
 * For files that somebody else writes: what comes after `max` bytes is left out, and a link
 * in the place of the file is refused.
 */
int fs_read_head(const char *path, size_t max, struct buf *ret, struct err *err);
int fs_read_secret(const char *path, size_t max, struct secret **ret, struct err *err);

/* Replace or create `path` durably. The mode is exact, whatever the umask. */
int fs_replace(const char *path, const void *data, size_t len, mode_t mode,
               struct err *err);

/* The same without a word about power cuts: for what is written anew all the time. */
int fs_replace_now(const char *path, const void *data, size_t len, mode_t mode,
                   struct err *err);

/* A symbolic link with this target in place of whatever file or link is at `path`, durably. */
int fs_replace_link(const char *path, const char *target, struct err *err);

/* Durable rename within one file system. */
int fs_rename(const char *from, const char *to, struct err *err);

/* The same before it is durable: for what must be visible at once; fs_sync_folder follows. */
int fs_rename_now(const char *from, const char *to, struct err *err);

/* Durable removal; a missing file is no error. */
int fs_remove(const char *path, struct err *err);

/*
 * Create the folder, and missing parents with mode 0755; an existing folder keeps its
 * owner and gets exactly `mode`. Something else at the path is an error.
 */
int fs_make_folder(const char *path, mode_t mode, struct err *err);

/* Remove a folder and all below it, following no link, or whatever else is at the path; a
 * missing one is no error. */
int fs_remove_tree(const char *path, struct err *err);

/*
 * What a kill inside fs_replace has left in the folder, and was written before `before` (so that
 * nobody is at it any more), is removed: it may have a key in it. No folder: nothing to do.
 */
int fs_remove_leftovers(const char *path, time_t before, struct err *err);

/* fsync of a folder, after changes to its entries. */
int fs_sync_folder(const char *path, struct err *err);

/*
 * Wait for the exclusive lock on `path` (flock(2); created 0600). Released by close(2) of
 * the returned descriptor.
 */
int fs_lock(const char *path, int *ret_fd, struct err *err);

/* The same without waiting: ERR_SYS with EWOULDBLOCK as its code when somebody else has it. */
int fs_lock_now(const char *path, int *ret_fd, struct err *err);

/* The same of a folder, in which nothing has to be made for that. */
int fs_lock_folder_now(const char *path, int *ret_fd, struct err *err);

#endif
