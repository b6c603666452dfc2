/*
 * spawn: a program becomes a child of ours.
 *
 * Between fork and exec nothing of ours runs but what stands in spawn.c. The call returns once the program
 * has begun, which takes a few milliseconds; whoever called waits for the child's end by SIGCHLD and
 * waitpid(2).
 *
 * What this process has forbidden itself for good (no_new_privs, seccomp, Landlock) children inherit, and
 * they cannot live with it: certbot and hooks write where they are told to, and hooks may be anything. So a
 * helper is forked before that, and from then on does it for us: its children are ours all the same
 * (CLONE_PARENT), as if it did not exist. It has no secret, no descriptor but its socket, and ends with us.
 * Whoever can write to that socket can start anything, so the helper guards against our mistakes, not
 * against somebody else's code in this process.
 */
#ifndef CM_RUNTIME_SPAWN_H
#define CM_RUNTIME_SPAWN_H

#include "base/err.h"

#include <stdbool.h>
#include <sys/types.h>
#include <uv.h>

enum { SPAWN_FDS = 3 };

struct spawn_plan {
    const char *const *argv; /* argv[0] is the path of the program; ends with NULL */
    const char *const *environment;
    const char *folder; /* NULL: ours */
    bool change_user;   /* to uid and gid, without supplementary groups */
    uid_t uid;
    gid_t gid;
    int fds[SPAWN_FDS]; /* borrowed; -1: /dev/null */
};

/* 0, or the errno of what has failed. Session and group are the child's own. */
int spawn(const struct spawn_plan *plan, pid_t *ret_pid);

/* The same in this process, or in the helper: `flags` for clone(2). */
int spawn_here(const struct spawn_plan *plan, int flags, pid_t *ret_pid);

/* ---- the helper ---- */

/* Before there are threads and secrets. */
int spawn_helper_start(struct err *err);

/* It ends, and is waited for. Nothing without one. */
void spawn_helper_end(void);
bool spawn_helper_runs(void);

struct spawn_watch {
    uv_poll_t poll;
    void (*gone)(void *owner);
    void *owner;
    bool open;
};

/* `gone` when the helper has ended: from then on nothing can be started. Nothing without a helper. */
void spawn_watch_start(struct spawn_watch *watch, uv_loop_t *loop,
                       void (*gone)(void *owner), void *owner);
void spawn_watch_close(struct spawn_watch *watch);

#endif
