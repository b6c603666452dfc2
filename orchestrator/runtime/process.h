/*
 * process: one child, in a session and process group of its own, with bounded output.
 *
 * The child gets exactly the given environment, /dev/null as standard input, and no
 * descriptor of ours but its output pipes. Its output is read to the end whatever its
 * amount (a child whose pipe is closed or full changes its behaviour), kept up to a
 * maximum, and handed on line by line. On cancel or when the time is over the whole group
 * gets SIGTERM and, after a grace time, SIGKILL. A descendant that keeps the pipes open
 * after the child has ended is killed too. The child is always reaped, unless it
 * cannot be ended: after 5 s it is left alone. Ownership and order of calls: done.h.
 *
 * A child that writes to files instead of pipes goes on when we are killed. Whoever starts
 * it so can have it held until its name (runtime/orphan.h) is written down: the child then
 * never runs unknown, whenever we are killed.
 */
#ifndef CM_RUNTIME_PROCESS_H
#define CM_RUNTIME_PROCESS_H

#include "base/buf.h"
#include "base/err.h"
#include "runtime/done.h"
#include "runtime/timer.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <uv.h>

enum process_stream { PROCESS_STDOUT, PROCESS_STDERR, PROCESS_STREAMS };

/* Borrowed until process_start returns, `on_line`'s owner until done. */
struct process_options {
    const char *const *argv; /* argv[0] is the path of the program; ends with NULL */
    const char *const *environment;
    const char *folder; /* working folder, NULL for ours */
    bool change_user;   /* drop to uid and gid, without supplementary groups */
    uid_t uid;
    gid_t gid;
    size_t max_output; /* bytes kept per stream; what comes after is read and dropped */
    /*
     * Both or none: files that are made for the output, which the caller then reads. Nothing is
     * kept or handed on here, and every descendant in the group is killed after the child.
     */
    const char *output_files[PROCESS_STREAMS];
    bool held; /* does nothing before process_release; should we die first, it ends */
    unsigned timeout_ms;    /* 0: none */
    unsigned term_grace_ms; /* between SIGTERM and SIGKILL */
    /* A line without its end, cut at 1000 bytes; may be NULL. */
    void (*on_line)(void *owner, enum process_stream stream, const char *line);
    void *line_owner;
};

struct process {
    /*
     * Results, valid in done: err is NULL when the child ran and ended by itself, even
     * badly.
     */
    int exit_status; /* -1 when it did not exit */
    int term_signal; /* 0 when it was not ended by a signal */
    bool lost;       /* it has ended, and how is not known: ERR_SYS */
    bool left_alone; /* it could not be ended, and may still run */
    struct buf output[PROCESS_STREAMS];
    bool output_cut[PROCESS_STREAMS];

    /* Private. */
    struct process_io *io;
};

/*
 * ERR_SYS when it cannot be started or somebody else in this process has taken its end (the message
 * names the program), ERR_TIMEOUT, ERR_CANCELED. After done, process_done frees the kept output.
 */
void process_start(struct process *process, uv_loop_t *loop,
                   const struct process_options *options, done_fn done, void *owner);
void process_release(struct process *process);
void process_cancel(struct process *process);
void process_done(struct process *process);

/* 0 while it is not running. */
pid_t process_pid(const struct process *process);

#endif
