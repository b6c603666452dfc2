/*
 *     start ─► WAITING ─ time-out, cancel ─► STOPPING ─ grace over ─► KILLED ─ in vain ─┐
 *                 │ gone                        │ gone                  │ gone          │
 *                 └───────────► CLOSING ◄───────┴───────────────────────┴───────────────┘
 *
 * CLOSING ends in done. STOPPING has sent SIGTERM to the group and KILLED has sent SIGKILL.
 */
#include "runtime/orphan.h"

#include "base/buf.h"
#include "base/fs.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    STAT_MAX_BYTES = 4096,
    POLL_MS = 50,
    BLIND_MAX = 100,     /* looks */
    KILL_WAIT_MS = 5000, /* SIGKILL needs no time, unless it was not allowed */
};

enum state { WAITING, STOPPING, KILLED, CLOSING };

/* ---- names of processes ------------------------------------------------------------ */

struct status {
    char state;
    pid_t group;
    uint64_t started;
};

/*
 * "pid (name) state parent group …": only the last ")" is certain to end the name. The field
 * of that number, from 3 on, or NULL.
 */
static const char *find_field(const char *text, int number)
{
    const char *field = strrchr(text, ')');

    for (int i = 3; i <= number && field != NULL; i++) {
        field = strchr(field, ' ');
        field = field == NULL ? NULL : field + 1;
    }
    return field;
}

static int parse_status(const char *text, struct status *ret)
{
    const char *state = find_field(text, 3);
    const char *group = find_field(text, 5);
    const char *started = find_field(text, 22);

    if (state == NULL || group == NULL || started == NULL)
        return -1;
    ret->state = state[0];
    ret->group = (pid_t)strtol(group, NULL, 10);
    ret->started = strtoull(started, NULL, 10);
    return 0;
}

static int read_status(pid_t pid, struct status *ret, struct err *err)
{
    BUF_SCOPED text = {0};
    char path[64];

    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    if (fs_read(path, STAT_MAX_BYTES, &text, err) < 0)
        return -1;
    if (parse_status(buf_str(&text), ret) < 0)
        return err_set(err, ERR_SYS, "%s: not of the known form", path);
    return 0;
}

int process_name_read(pid_t pid, struct process_name *ret, struct err *err)
{
    struct status status;

    if (read_status(pid, &status, err) < 0)
        return -1;
    *ret = (struct process_name){.pid = pid, .started = status.started};
    return 0;
}

/* False when it has ended. What cannot be looked at now, for want of descriptors say, lives. */
static bool find(const struct process_name *name, struct status *ret)
{
    struct err err = ERR_INIT;

    *ret = (struct status){.state = '?'};
    if (name->pid <= 1)
        return false;
    if (read_status(name->pid, ret, &err) < 0)
        return err.code != ENOENT && err.code != ESRCH;
    return ret->started == name->started && ret->state != 'Z' && ret->state != 'X';
}

bool process_name_lives(const struct process_name *name)
{
    struct status status;

    return find(name, &status);
}

uint64_t process_name_age_ms(const struct process_name *name)
{
    long per_second = sysconf(_SC_CLK_TCK);
    struct timespec now = {0};
    uint64_t started_ms;
    uint64_t now_ms;

    clock_gettime(CLOCK_BOOTTIME, &now);
    now_ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
    started_ms = name->started / (uint64_t)per_second * 1000 +
                 name->started % (uint64_t)per_second * 1000 / (uint64_t)per_second;
    return now_ms > started_ms ? now_ms - started_ms : 0;
}

/* ---- the end ----------------------------------------------------------------------- */

static void on_closed(void *owner)
{
    struct orphan *orphan = owner;
    struct err err = ERR_INIT;

    if (orphan->canceled)
        err_set(&err, ERR_CANCELED, "process %d: canceled", orphan->name.pid);
    else if (orphan->stuck)
        err_set(&err, ERR_SYS, "process %d: cannot be ended", orphan->name.pid);
    else if (orphan->timed_out)
        err_set(&err, ERR_TIMEOUT, "process %d: not finished within %u ms",
                orphan->name.pid, orphan->limits.timeout_ms);
    orphan->running = false;
    orphan->done(orphan->owner, err.kind == ERR_NONE ? NULL : &err);
}

static void close_it(struct orphan *orphan)
{
    orphan->state = CLOSING;
    timer_close(&orphan->timer, on_closed);
}

/*
 * What is left of its group goes with it. Not when it had ended before we looked: the number
 * may be that of another group by now.
 */
static void on_gone(struct orphan *orphan)
{
    if (orphan->group > 1)
        kill(-orphan->group, SIGKILL);
    close_it(orphan);
}

/* ---- waiting ----------------------------------------------------------------------- */

static void wait_for(struct orphan *orphan, enum state state, uint64_t limit_ms)
{
    orphan->state = (int)state;
    orphan->deadline_ms = uv_now(orphan->timer.handle.loop) + limit_ms;
    timer_set(&orphan->timer, limit_ms < POLL_MS ? limit_ms : POLL_MS);
}

static void send_signal(const struct orphan *orphan, int number)
{
    kill(orphan->group > 1 ? -orphan->group : orphan->name.pid, number);
}

static void on_deadline(struct orphan *orphan)
{
    switch ((enum state)orphan->state) {
    case WAITING:
        orphan->timed_out = !orphan->canceled;
        send_signal(orphan, SIGTERM);
        wait_for(orphan, STOPPING, orphan->limits.term_grace_ms);
        return;
    case STOPPING:
        send_signal(orphan, SIGKILL);
        wait_for(orphan, KILLED, KILL_WAIT_MS);
        return;
    case KILLED:
        orphan->stuck = true;
        close_it(orphan);
        return;
    case CLOSING:
        return;
    }
}

static void on_timer(void *owner)
{
    struct orphan *orphan = owner;
    uint64_t now = uv_now(orphan->timer.handle.loop);
    uint64_t left = orphan->deadline_ms > now ? orphan->deadline_ms - now : 0;
    struct status status;

    if (!find(&orphan->name, &status)) {
        on_gone(orphan);
        return;
    }
    /* Without it only its first process would be told. It is shown again soon, or never. */
    if (status.state == '?' && orphan->blind++ < BLIND_MAX) {
        timer_set(&orphan->timer, POLL_MS);
        return;
    }
    /* A group that it does not lead is not its own: then a signal is for it alone. */
    orphan->group = status.group == orphan->name.pid ? status.group : 0;
    if (left == 0)
        on_deadline(orphan);
    else
        timer_set(&orphan->timer, left < POLL_MS ? left : POLL_MS);
}

void orphan_start(struct orphan *orphan, uv_loop_t *loop, const struct process_name *name,
                  const struct orphan_limits *limits, done_fn done, void *owner)
{
    uint64_t age_ms = process_name_age_ms(name);

    *orphan = (struct orphan){
        .name = *name, .limits = *limits, .running = true, .done = done, .owner = owner};
    timer_init(&orphan->timer, loop, on_timer, orphan);
    wait_for(orphan, WAITING,
             age_ms < limits->timeout_ms ? limits->timeout_ms - age_ms : 0);
    timer_set(&orphan->timer, 0); /* it may have ended long ago */
}

void orphan_cancel(struct orphan *orphan)
{
    if (!orphan->running || orphan->canceled)
        return;
    orphan->canceled = true;
    if (orphan->state == WAITING) {
        orphan->deadline_ms = 0;
        timer_set(&orphan->timer, 0);
    }
}
