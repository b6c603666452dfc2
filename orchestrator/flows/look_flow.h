/*
 * look flow: which leaf does the port present, and which one does the last certificate event name?
 *
 *     ask the port → read last event
 *
 * It changes nothing. What cannot be found out is left open: a port that is too busy for a handshake,
 * and an agent that does not answer or shows no log, are no news about what is served.
 */
#ifndef CM_FLOWS_LOOK_FLOW_H
#define CM_FLOWS_LOOK_FLOW_H

#include "adapters/measure.h"
#include "adapters/tls_probe.h"
#include "domain/config.h"
#include "runtime/seq.h"

#include <stdbool.h>

struct look_flow {
    /* Results, valid in done. */
    char presented[65]; /* hex SHA-256 of the leaf; "" when it is not known */
    bool shown;         /* the event log was: `last` is known */
    char last[65];      /* "" when there is no event that names a leaf */

    /* Private. */
    uv_loop_t *loop;
    const struct config *config;
    struct measure *measure;
    struct tls_probe probe;
    struct measure_call call;
    struct seq seq;
};

/* Borrowed until done, which gets an error only when the flow was canceled. */
void look_flow_start(struct look_flow *flow, uv_loop_t *loop, const struct config *config,
                     struct measure *measure, done_fn done, void *owner);
void look_flow_cancel(struct look_flow *flow);

#endif
