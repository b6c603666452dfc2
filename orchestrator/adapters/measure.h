/*
 * measure: makes certificate events, by whatever can: the guest agent's EmitEvent, RTMR3 through the
 * kernel where the settings name its file, or nothing. It never pretends: a call says whether the
 * leaf was measured, and why not.
 *
 * Which event is the last one is read from the event log. Where none is shown (simulators, older
 * agents) our own record of this boot has to do, and the call says so. Ownership and order of
 * calls: done.h. One call at a time, ever: emissions that overlap in the agent spoil every later
 * quote of the boot.
 */
#ifndef CM_ADAPTERS_MEASURE_H
#define CM_ADAPTERS_MEASURE_H

#include "adapters/dstack.h"
#include "adapters/rtmr_native.h"
#include "domain/config.h"
#include "runtime/delay.h"

#include <stdbool.h>

enum measure_backend {
    MEASURE_DEVELOPMENT, /* the log says what would be measured */
    MEASURE_EMIT_EVENT,  /* the guest agent */
    MEASURE_NATIVE,      /* RTMR3 through the kernel, dstack's protocol */
    MEASURE_NONE,        /* the agent makes no events: found out by asking */
};

/* Where the last event is known from. */
enum measure_source { MEASURE_FROM_LOG, MEASURE_FROM_RECORD };

struct measure {
    uv_loop_t *loop;
    const struct config *config;
    const struct dstack *agent;
    struct rtmr_native native;
    enum measure_backend backend; /* what the last emission went through */
};

struct measure_call {
    /* Results, valid in done. */
    char last
        [65]; /* measure_last: leaf that the last certificate event names, "" for none */
    enum measure_source source;
    char app_name
        [DSTACK_WORD_SIZE]; /* measure_last: as the agent says, "" if it does not */
    bool measured;          /* measure_emit */
    struct err why_not;     /* when it was not, and cannot be */

    /* Private. */
    struct measure *measure;
    struct dstack_call agent;
    struct delay pause;
    bool asking; /* the agent, else pausing */
    char leaf[65];
    unsigned tries;
    struct err err;
    done_fn done;
    void *owner;
};

/* The backend by the settings. `agent` is borrowed; `state_dir` is our folder on the volume. */
void measure_init(struct measure *measure, uv_loop_t *loop, const struct config *config,
                  const struct dstack *agent, const char *state_dir);

/* Settles a native extension that was cut off. Blocks only for small files. */
int measure_recover(const struct measure *measure, struct err *err);

/* "emit-event", "native", "none", "development". */
const char *measure_backend_name(enum measure_backend backend);

/*
 * `recorded`: the leaf of our own record of this boot, "" for none. An agent that answers but shows
 * no log is no failure; one that does not answer is, and must not be asked to emit either: an
 * earlier event may still be on its way.
 */
void measure_last(struct measure_call *call, struct measure *measure,
                  const char *recorded, done_fn done, void *owner);

/*
 * Emit the event for a leaf. An agent that makes none (400: removed, 404: unknown) is no failure:
 * `measured` is false, and `why_not` says it.
 */
void measure_emit(struct measure_call *call, struct measure *measure, const char *leaf,
                  done_fn done, void *owner);

void measure_cancel(struct measure_call *call);

#endif
