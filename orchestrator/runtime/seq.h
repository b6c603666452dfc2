/*
 * seq: runs a procedure that is written down as a constant table of steps.
 *
 *     begin    starts the step: SEQ_WAIT when an operation was started that will call
 *              seq_resume(), SEQ_READY when there is nothing to wait for, -1 with `err`.
 *              NULL is SEQ_READY
 *     finish   at once after SEQ_READY, or when the wait ended well: SEQ_NEXT, SEQ_END,
 *              seq_go_to("step"), or -1 with `err`. NULL is SEQ_NEXT. The only place where
 *              a procedure branches
 *     abort    hastens the operation that begin started (x_cancel); it still ends through
 *              seq_resume(). NULL only where begin never waits
 *     timeout_ms   when it is over, abort is called, and the sequence fails with
 *              ERR_TIMEOUT that names the step. 0 only where begin never waits, or where
 *              the operation has a time limit of its own
 *
 * The first failure ends the sequence; `done` gets it, wrapped in the name of the step. At level
 * debug the log has two lines for each step: "apply: measure: begins", written before its begin, and
 * when it is over "apply: measure: ended" or "apply: measure: failed". The observer is told the same.
 * All of done.h holds: a sequence is itself such an operation.
 */
#ifndef CM_RUNTIME_SEQ_H
#define CM_RUNTIME_SEQ_H

#include "base/err.h"
#include "runtime/done.h"
#include "runtime/timer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

enum { SEQ_NEXT = 0, SEQ_READY = 0, SEQ_WAIT = 1, SEQ_END = 2 };

struct seq_step {
    const char *name; /* what log, status and metrics show */
    int (*begin)(void *flow, struct err *err);
    int (*finish)(void *flow, struct err *err);
    void (*abort)(void *flow);
    unsigned timeout_ms;
};

struct seq {
    const char *name;
    const struct seq_step *steps; /* ends with a step without name */
    size_t current;
    void *flow;
    done_fn done;
    void *owner;
    struct err err; /* kind ERR_NONE while all is well */
    bool running;
    bool waiting; /* between SEQ_WAIT and seq_resume() */
    bool canceled;
    bool timed_out;
    struct timer timer; /* starts the first step, then guards the waits */
    uint64_t begun_ns;  /* the current step, on uv_hrtime's clock */
};

/* `flow` is handed to the steps, `owner` to `done`. */
void seq_start(struct seq *seq, uv_loop_t *loop, const char *name,
               const struct seq_step *steps, void *flow, done_fn done, void *owner);

/* Ends the wait of the current step; a done_fn, with the sequence as the owner. */
void seq_resume(void *seq, const struct err *err);

void seq_cancel(struct seq *seq);

/*
 * For a step's finish: the named step of the same table comes next. Asserts that there
 * is one.
 */
int seq_go_to(const struct seq *seq, const char *step);

/* Name of the step at work, or NULL when the sequence is not running. */
const char *seq_step_name(const struct seq *seq);

#endif
