/*
 * orphan: waits for the end of a process that is not our child, such as one that was started
 * before we were, or ends it.
 *
 * A process is named by its number and the time of its start: the number alone is given away
 * again. What has ended and was not reaped counts as gone. It is looked for a few times a
 * second; each signal goes to its group, right after another look. On cancel, or when the
 * time is over, that is SIGTERM and, after a grace time, SIGKILL. Ownership and order of
 * calls: done.h.
 */
#ifndef CM_RUNTIME_ORPHAN_H
#define CM_RUNTIME_ORPHAN_H

#include "base/err.h"
#include "runtime/done.h"
#include "runtime/timer.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <uv.h>

struct process_name {
    pid_t pid;
    uint64_t started; /* clock ticks since boot: field 22 of proc_pid_stat(5) */
};

/* ERR_SYS when there is none of that number, or it cannot be looked at. */
int process_name_read(pid_t pid, struct process_name *ret, struct err *err);

/* False also when its number belongs to another process by now. */
bool process_name_lives(const struct process_name *name);

/* Time since its start. */
uint64_t process_name_age_ms(const struct process_name *name);

struct orphan_limits {
    unsigned timeout_ms;    /* from its start on, not ours; 0: it is ended at once */
    unsigned term_grace_ms; /* between SIGTERM and SIGKILL */
};

struct orphan {
    /* Private. */
    struct process_name name;
    struct orphan_limits limits;
    struct timer timer;
    int state;
    uint64_t deadline_ms; /* of the state, on the loop's clock */
    pid_t group;          /* that it leads; 0 when it leads none, or was not seen alive */
    unsigned blind;       /* how often it could not be looked at */
    bool running;
    bool canceled;
    bool timed_out;
    bool stuck;
    done_fn done;
    void *owner;
};

/*
 * No error when it ended by itself, also long ago. ERR_TIMEOUT and ERR_CANCELED when it had
 * to be ended, ERR_SYS when that is beyond our power.
 */
void orphan_start(struct orphan *orphan, uv_loop_t *loop, const struct process_name *name,
                  const struct orphan_limits *limits, done_fn done, void *owner);
void orphan_cancel(struct orphan *orphan);

#endif
