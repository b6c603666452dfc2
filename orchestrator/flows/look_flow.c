#include "flows/look_flow.h"

#include <string.h>

enum { HANDSHAKE_TIMEOUT_MS = 3 * 1000 };

static void on_probed(void *owner, const struct err *err)
{
    struct look_flow *flow = owner;

    if (err == NULL)
        memcpy(flow->presented, flow->probe.leaf_sha256, sizeof flow->presented);
    else
        flow->port_err = *err;
    seq_resume(&flow->seq, NULL);
}

static int begin_port(void *owner, struct err *err)
{
    struct look_flow *flow = owner;
    const struct tls_probe_target target = tls_probe_own_port(flow->config);

    (void)err;
    tls_probe_start(&flow->probe, flow->loop, &target, HANDSHAKE_TIMEOUT_MS, on_probed,
                    flow);
    return SEQ_WAIT;
}

static void abort_port(void *owner)
{
    struct look_flow *flow = owner;

    tls_probe_cancel(&flow->probe);
}

static void on_version(void *owner, const struct err *err)
{
    struct look_flow *flow = owner;

    flow->told_version = err == NULL;
    memcpy(flow->version, flow->agent.version, sizeof flow->version);
    dstack_call_done(&flow->agent);
    seq_resume(&flow->seq, NULL);
}

static int begin_version(void *owner, struct err *err)
{
    struct look_flow *flow = owner;

    (void)err;
    if (!flow->asked_version)
        return SEQ_READY;
    dstack_version(&flow->agent, flow->measure->agent, on_version, flow);
    return SEQ_WAIT;
}

static void abort_version(void *owner)
{
    struct look_flow *flow = owner;

    dstack_cancel(&flow->agent);
}

static void on_last(void *owner, const struct err *err)
{
    struct look_flow *flow = owner;

    flow->shown = err == NULL && flow->call.source == MEASURE_FROM_LOG;
    if (flow->shown)
        memcpy(flow->last, flow->call.last, sizeof flow->last);
    memcpy(flow->app_name, flow->call.app_name, sizeof flow->app_name);
    seq_resume(&flow->seq, NULL);
}

static int begin_last(void *owner, struct err *err)
{
    struct look_flow *flow = owner;

    (void)err;
    measure_last(&flow->call, flow->measure, "", on_last, flow);
    return SEQ_WAIT;
}

static void abort_last(void *owner)
{
    struct look_flow *flow = owner;

    measure_cancel(&flow->call);
}

/* Each wait has a time limit of its own. */
static const struct seq_step steps[] = {
    {"ask the port", begin_port, NULL, abort_port, 0},
    {"ask for version", begin_version, NULL, abort_version, 0},
    /* The last one, so that no event comes about behind it and is not seen before the next look. */
    {"read last event", begin_last, NULL, abort_last, 0},
    {0},
};

void look_flow_start(struct look_flow *flow, uv_loop_t *loop, const struct config *config,
                     struct measure *measure, bool asks_version, done_fn done,
                     void *owner)
{
    *flow = (struct look_flow){.loop = loop,
                               .config = config,
                               .measure = measure,
                               .asked_version = asks_version};
    seq_start(&flow->seq, loop, "look", steps, flow, done, owner);
}

void look_flow_cancel(struct look_flow *flow)
{
    seq_cancel(&flow->seq);
}
