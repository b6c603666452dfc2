#include "adapters/measure.h"

#include "base/log.h"
#include "domain/measurement.h"

#include <stdio.h>
#include <string.h>

enum { BUSY_PAUSE_MS = 20, BUSY_TRIES = 500 };

void measure_init(struct measure *measure, uv_loop_t *loop, const struct config *config,
                  const struct dstack *agent, const char *state_dir)
{
    *measure = (struct measure){
        .loop = loop,
        .config = config,
        .agent = agent,
        .native =
            {
                .register_file = config->rtmr3.register_file,
                .log_dir = config->rtmr3.log_dir,
                .state_dir = state_dir,
            },
        .backend = config->development                   ? MEASURE_DEVELOPMENT
                   : config->rtmr3.register_file != NULL ? MEASURE_NATIVE
                                                         : MEASURE_EMIT_EVENT,
    };
}

int measure_recover(const struct measure *measure, struct err *err)
{
    static const char *const said[] = {
        [RTMR_NOT_EXTENDED] = "it had not happened",
        [RTMR_WAS_COMPLETE] = "it was complete",
        [RTMR_LINE_COMPLETED] = "the log lacked its line, which is written now",
    };
    enum rtmr_recovery outcome;

    if (measure->backend != MEASURE_NATIVE)
        return 0;
    if (rtmr_native_recover(&measure->native, &outcome, err) < 0)
        return -1;
    if (outcome != RTMR_NOTHING && outcome != RTMR_OTHER_BOOT)
        log_warning("an extension of RTMR3 was cut off: %s", said[outcome]);
    return 0;
}

const char *measure_backend_name(enum measure_backend backend)
{
    static const char *const names[] = {
        [MEASURE_DEVELOPMENT] = "development",
        [MEASURE_EMIT_EVENT] = "emit-event",
        [MEASURE_NATIVE] = "native",
        [MEASURE_NONE] = "none",
    };

    return names[backend];
}

/* ---- how a call ends ---- */

static void end(struct measure_call *call, const struct err *err)
{
    done_fn done = call->done;

    call->asking = false;
    done(call->owner, err);
}

static void on_pause_done(void *owner, const struct err *err);

/* What is known already still arrives in a later round of the loop. */
static void pause_for(struct measure_call *call, unsigned ms)
{
    delay_start(&call->pause, call->measure->loop, ms, on_pause_done, call);
}

static void start(struct measure_call *call, struct measure *measure, done_fn done,
                  void *owner)
{
    *call = (struct measure_call){.measure = measure, .done = done, .owner = owner};
}

/* ---- natively: tried again while another emitter holds the lock ---- */

static int try_native(struct measure_call *call, struct err *err)
{
    const struct rtmr_native *native = &call->measure->native;
    bool found = false;

    if (call->leaf[0] == '\0') {
        if (rtmr_native_last_event(native, call->last, &found, err) < 0)
            return -1;
        if (!found)
            call->last[0] = '\0';
        return 0;
    }
    if (rtmr_native_emit(native, MEASUREMENT_EVENT, call->leaf, strlen(call->leaf), err) <
        0)
        return -1;
    call->measured = true;
    return 0;
}

static void on_pause_done(void *owner, const struct err *canceled)
{
    struct measure_call *call = owner;
    struct err err = ERR_INIT;

    if (canceled != NULL || call->measure->backend != MEASURE_NATIVE) {
        end(call, canceled);
        return;
    }
    if (try_native(call, &err) == 0) {
        end(call, NULL);
        return;
    }
    if (rtmr_native_is_busy(&err) && ++call->tries < BUSY_TRIES)
        pause_for(call, BUSY_PAUSE_MS);
    else
        end(call, &err);
}

/* ---- the last event ---- */

static void on_info_done(void *owner, const struct err *err)
{
    struct measure_call *call = owner;
    bool answered = err == NULL || err->kind == ERR_PEER;
    const struct err failure = err_copy(err);
    struct err unreadable = ERR_INIT;
    char last[65] = "";
    bool found = false;

    if (err == NULL &&
        measurement_last_event(call->agent.tcb_info, last, &found, &unreadable) == 0) {
        call->source = MEASURE_FROM_LOG;
        snprintf(call->last, sizeof call->last, "%s", found ? last : "");
    } else if (answered) {
        log_debug("our own record stands in for the event log: %s",
                  err == NULL ? unreadable.message : err->message);
    }
    memcpy(call->app_name, call->agent.app_name, sizeof call->app_name);
    dstack_call_done(&call->agent);
    end(call, answered ? NULL : &failure);
}

void measure_last(struct measure_call *call, struct measure *measure,
                  const char *recorded, done_fn done, void *owner)
{
    start(call, measure, done, owner);
    call->source = MEASURE_FROM_RECORD;
    snprintf(call->last, sizeof call->last, "%s", recorded);
    if (measure->backend == MEASURE_DEVELOPMENT || measure->backend == MEASURE_NATIVE) {
        if (measure->backend == MEASURE_NATIVE)
            call->source = MEASURE_FROM_LOG;
        pause_for(call, 0);
        return;
    }
    call->asking = true;
    dstack_info(&call->agent, measure->agent, on_info_done, call);
}

/* ---- an event ---- */

static void on_event_done(void *owner, const struct err *err)
{
    struct measure_call *call = owner;
    const struct err failure = err_copy(err);
    bool unsupported =
        err != NULL && err->kind == ERR_PEER && (err->code == 400 || err->code == 404);

    call->measured = err == NULL;
    if (unsupported)
        call->why_not = failure;
    if (err == NULL || unsupported)
        call->measure->backend = unsupported ? MEASURE_NONE : MEASURE_EMIT_EVENT;
    dstack_call_done(&call->agent);
    end(call, err == NULL || unsupported ? NULL : &failure);
}

void measure_emit(struct measure_call *call, struct measure *measure, const char *leaf,
                  done_fn done, void *owner)
{
    char payload[MEASUREMENT_PAYLOAD_SIZE];

    start(call, measure, done, owner);
    snprintf(call->leaf, sizeof call->leaf, "%s", leaf);
    if (measure->backend == MEASURE_DEVELOPMENT) {
        log_info("%s: %s", MEASUREMENT_EVENT, leaf);
        err_set(&call->why_not, ERR_CONFIG, "development mode");
        pause_for(call, 0);
    } else if (measure->backend == MEASURE_NATIVE) {
        pause_for(call, 0);
    } else {
        call->asking = true;
        measurement_payload(payload, leaf);
        dstack_emit_event(&call->agent, measure->agent, MEASUREMENT_EVENT, payload,
                          on_event_done, call);
    }
}

void measure_cancel(struct measure_call *call)
{
    if (call->asking)
        dstack_cancel(&call->agent);
    else
        delay_cancel(&call->pause);
}
