/*
 * hook: one run of a program of the operator (hooks.on_…).
 *
 * There is no shell. The program gets the environment that it is given and nothing of ours, a process
 * group of its own, hooks.timeout, and ends with everything that it has started. What it writes is
 * logged line by line, a bounded number of them. When we are root it runs as hooks.user; as root only
 * when nobody else could have changed the program. Ownership and order of calls: done.h.
 */
#ifndef CM_ADAPTERS_HOOK_H
#define CM_ADAPTERS_HOOK_H

#include "domain/config.h"
#include "domain/hook_event.h"
#include "runtime/done.h"
#include "runtime/process.h"
#include "runtime/seq.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <uv.h>

#define HOOK_SEQUENCE "hook" /* its name */

struct hook {
    /* Private. */
    const struct config *config;
    uv_loop_t *loop;
    enum hook_event event;
    const struct hook_environment *environment;
    bool change_user;
    uid_t uid;
    gid_t gid;
    struct seq seq;
    struct process process;
    unsigned lines;
    uint64_t begun_ns;
    done_fn done;
    void *owner;
};

/* Whether it could be started, as far as that can be seen; the configuration has a command for the event. */
int hook_check(const struct config *config, enum hook_event event, struct err *err);

/*
 * The configuration has a command for the event. `config` and `environment` are borrowed until done,
 * which gets ERR_PEER when the program did not end with exit code 0.
 */
void hook_start(struct hook *hook, uv_loop_t *loop, const struct config *config,
                enum hook_event event, const struct hook_environment *environment,
                done_fn done, void *owner);
void hook_cancel(struct hook *hook);

#endif
