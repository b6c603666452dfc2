#include "runtime/seq.h"

#include "base/log.h"
#include "runtime/observer.h"

#include <assert.h>
#include <string.h>

/* What seq_go_to returns is this and the index of the step. */
enum { GO_TO = 16 };

#define BEGINS "begins"

static const struct seq_step *current_step(const struct seq *seq)
{
    return &seq->steps[seq->current];
}

static size_t count_steps(const struct seq *seq)
{
    size_t count = 0;

    while (seq->steps[count].name != NULL)
        count++;
    return count;
}

/* What the step says is of this place. Returns the former one. */
static struct log_place enter(const struct seq *seq)
{
    return log_set_place((struct log_place){seq->name, current_step(seq)->name});
}

/* For the log, and for the observer. */
static void tell(struct seq *seq, const char *word, enum err_kind failure)
{
    uint64_t now_ns = uv_hrtime();
    bool begins = strcmp(word, BEGINS) == 0;
    struct observation observation = {
        .what = begins ? OBSERVED_STEP_BEGINS : OBSERVED_STEP,
        .subject = seq->name,
        .detail = current_step(seq)->name,
        .failure = failure,
    };
    struct log_place former;

    former = enter(seq);
    log_debug("%s: %s: %s", seq->name, current_step(seq)->name, word);
    log_set_place(former);
    if (begins)
        seq->begun_ns = now_ns;
    observation.seconds = (double)(now_ns - seq->begun_ns) / 1e9;
    observer_tell(&observation);
}

/* Here the sequence ends: whatever else happened, one that was canceled says so. */
static void on_closed(void *owner)
{
    struct seq *seq = owner;
    const char *step = seq_step_name(seq);
    struct err err;

    if (seq->canceled && step != NULL)
        err_set(&seq->err, ERR_CANCELED, "%s: canceled", step);
    else if (seq->canceled)
        err_set(&seq->err, ERR_CANCELED, "canceled after the last step");
    if (seq->err.kind == ERR_NONE)
        log_debug("%s: finished", seq->name);
    seq->running = false;
    err = seq->err; /* done may free or restart the sequence */
    seq->done(seq->owner, err.kind == ERR_NONE ? NULL : &err);
}

static void end(struct seq *seq)
{
    timer_close(&seq->timer, on_closed);
}

static void fail(struct seq *seq, const struct err *err)
{
    assert(err->kind != ERR_NONE);
    tell(seq, "failed", err->kind);
    seq->err = *err;
    err_wrap(&seq->err, "%s", current_step(seq)->name);
    seq->err.flow = seq->name;
    seq->err.step = current_step(seq)->name;
    end(seq);
}

/*
 * The operation of the current step still ends through seq_resume(). Comes last in its
 * callers.
 */
static void abort_wait(struct seq *seq)
{
    current_step(seq)->abort(seq->flow);
}

static void wait_for_step(struct seq *seq)
{
    const struct seq_step *step = current_step(seq);

    assert(step->abort != NULL);
    seq->waiting = true;
    if (step->timeout_ms > 0)
        timer_set(&seq->timer, step->timeout_ms);
    if (seq->canceled) /* by its own begin */
        abort_wait(seq);
}

/* Moves on as a step's finish said; false when the sequence has ended. */
static bool move_on(struct seq *seq, int verdict)
{
    tell(seq, "ended", ERR_NONE);
    if (verdict == SEQ_END) {
        end(seq);
        return false;
    }
    if (verdict == SEQ_NEXT)
        seq->current++;
    else {
        assert(verdict >= GO_TO && (size_t)(verdict - GO_TO) < count_steps(seq));
        seq->current = (size_t)(verdict - GO_TO);
    }
    return true;
}

/* Returns what seq_step.finish returns; on -1 the sequence has been ended. */
static int finish_step(struct seq *seq)
{
    const struct seq_step *step = current_step(seq);
    struct err err = ERR_INIT;
    struct log_place former;
    int verdict;

    if (step->finish == NULL)
        return SEQ_NEXT;
    former = enter(seq);
    verdict = step->finish(seq->flow, &err);
    log_set_place(former);
    if (verdict < 0)
        fail(seq, &err);
    return verdict;
}

/* From the current step on until one waits or the end is reached. */
static void run(struct seq *seq)
{
    for (;;) {
        const struct seq_step *step = current_step(seq);
        struct err err = ERR_INIT;
        struct log_place former;
        int verdict;

        if (step->name == NULL || seq->canceled) {
            end(seq);
            return;
        }
        tell(seq, BEGINS, ERR_NONE);
        if (step->begin != NULL) {
            former = enter(seq);
            verdict = step->begin(seq->flow, &err);
            log_set_place(former);
            if (verdict == SEQ_WAIT) {
                wait_for_step(seq);
                return;
            }
            assert(verdict == SEQ_READY || verdict == -1);
            if (verdict < 0) {
                fail(seq, &err);
                return;
            }
        }
        if (seq->canceled) { /* by its own begin */
            end(seq);
            return;
        }
        verdict = finish_step(seq);
        if (verdict < 0 || !move_on(seq, verdict))
            return;
    }
}

static void on_timer(void *owner)
{
    struct seq *seq = owner;

    if (!seq->waiting) { /* the start */
        run(seq);
        return;
    }
    seq->timed_out = true;
    if (!seq->canceled)
        abort_wait(seq);
}

void seq_start(struct seq *seq, uv_loop_t *loop, const char *name,
               const struct seq_step *steps, void *flow, done_fn done, void *owner)
{
    memset(seq, 0, sizeof *seq);
    seq->name = name;
    seq->steps = steps;
    seq->flow = flow;
    seq->done = done;
    seq->owner = owner;
    seq->running = true;
    timer_init(&seq->timer, loop, on_timer, seq);
    timer_set(&seq->timer, 0);
}

void seq_resume(void *owner, const struct err *err)
{
    struct seq *seq = owner;
    int verdict;

    assert(seq->running && seq->waiting);
    seq->waiting = false;
    timer_stop(&seq->timer);
    if (seq->canceled) {
        end(seq);
    } else if (seq->timed_out) {
        struct err late = ERR_INIT;

        err_set(&late, ERR_TIMEOUT, "not finished within %u ms",
                current_step(seq)->timeout_ms);
        fail(seq, &late);
    } else if (err != NULL) {
        fail(seq, err);
    } else {
        verdict = finish_step(seq);
        if (verdict >= 0 && move_on(seq, verdict))
            run(seq);
    }
}

void seq_cancel(struct seq *seq)
{
    if (!seq->running || seq->canceled)
        return;
    seq->canceled = true;
    if (seq->waiting && !seq->timed_out)
        abort_wait(seq);
}

int seq_go_to(const struct seq *seq, const char *step)
{
    for (size_t i = 0; seq->steps[i].name != NULL; i++)
        if (strcmp(seq->steps[i].name, step) == 0)
            return GO_TO + (int)i;
    assert(false && "the sequence has a step of that name");
    return -1;
}

const char *seq_step_name(const struct seq *seq)
{
    return seq->running ? current_step(seq)->name : NULL;
}
