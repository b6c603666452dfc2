/*
 * look flow: which leaf does the port present, and which one does the last certificate event name?
 *
 *     ask the port → ask for version → read last event
 *
 * And which release is the agent, now and then. It changes nothing. What cannot be found out is left open: a port that is too busy for a handshake,
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
    char presented[65];  /* hex SHA-256 of the leaf; "" when it is not known */
    bool shown;          /* the event log was: `last` is known */
    char last[65];       /* "" when there is no event that names a leaf */
    struct err port_err; /* why it is not known what the port presents */
    bool asked_version;  /* the agent was, and has answered: */
    bool told_version;
    char version[DSTACK_WORD_SIZE];  /* "" when it does not say */
    char app_name[DSTACK_WORD_SIZE]; /* of the application, as the agent says */

    /* Private. */
    uv_loop_t *loop;
    const struct config *config;
    struct measure *measure;
    struct tls_probe probe;
    struct measure_call call;
    struct dstack_call agent;
    struct seq seq;
};

/* Borrowed until done, which gets an error only when the flow was canceled. */
void look_flow_start(struct look_flow *flow, uv_loop_t *loop, const struct config *config,
                     struct measure *measure, bool asks_version, done_fn done,
                     void *owner);
void look_flow_cancel(struct look_flow *flow);

#endif
