#include "flows/site_flow.h"

static int begin_wait(void *owner, struct err *err)
{
    struct site_flow *flow = owner;

    (void)err;
    nginx_wait_start(&flow->wait, flow->request.loop, flow->request.config, seq_resume,
                     &flow->seq);
    return SEQ_WAIT;
}

static void abort_wait(void *owner)
{
    struct site_flow *flow = owner;

    nginx_wait_cancel(&flow->wait);
}

static int begin_compose(void *owner, struct err *err)
{
    struct site_flow *flow = owner;
    const struct nginx_compose_request request = {
        .loop = flow->request.loop,
        .config = flow->request.config,
        .facts = flow->request.facts,
        .live_chain = flow->request.facts->live_chain,
        .chain = flow->request.store->chain,
        .key = flow->request.store->key,
        .former = flow->request.former,
    };

    (void)err;
    nginx_compose_start(&flow->compose, &request, seq_resume, &flow->seq);
    return SEQ_WAIT;
}

static int finish_compose(void *owner, struct err *err)
{
    struct site_flow *flow = owner;
    const struct nginx_files files = {.site = &flow->compose.site,
                                      .include = &flow->compose.include};

    (void)err;
    return !flow->request.reload && nginx_has_files(flow->request.config, &files)
               ? SEQ_END
               : SEQ_NEXT;
}

static void abort_compose(void *owner)
{
    struct site_flow *flow = owner;

    nginx_compose_cancel(&flow->compose);
}

static int begin_install(void *owner, struct err *err)
{
    struct site_flow *flow = owner;
    const struct nginx_files files = {.site = &flow->compose.site,
                                      .include = &flow->compose.include};

    if (nginx_install(flow->request.config, &files, err) < 0)
        return -1;
    flow->changed = true;
    return SEQ_READY;
}

static int begin_reload(void *owner, struct err *err)
{
    struct site_flow *flow = owner;

    (void)err;
    nginx_reload_start(&flow->reload, flow->request.loop, flow->request.config,
                       seq_resume, &flow->seq);
    return SEQ_WAIT;
}

static void abort_reload(void *owner)
{
    struct site_flow *flow = owner;

    nginx_reload_cancel(&flow->reload);
}

/* Each wait has a time limit of its own. */
static const struct seq_step steps[] = {
    {"wait for nginx", begin_wait, NULL, abort_wait, 0},
    {"compose configuration", begin_compose, finish_compose, abort_compose, 0},
    {"install", begin_install, NULL, NULL, 0},
    {"reload nginx", begin_reload, NULL, abort_reload, 0},
    {0},
};

void site_flow_start(struct site_flow *flow, const struct site_request *request,
                     done_fn done, void *owner)
{
    *flow = (struct site_flow){.request = *request};
    seq_start(&flow->seq, request->loop, "nginx", steps, flow, done, owner);
}

void site_flow_cancel(struct site_flow *flow)
{
    seq_cancel(&flow->seq);
}

void site_flow_done(struct site_flow *flow)
{
    nginx_compose_done(&flow->compose);
}
