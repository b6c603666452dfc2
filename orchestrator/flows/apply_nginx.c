/* What both ways of the apply flow ask of nginx: a reload, and which leaf it presents. */
#include "flows/apply_internal.h"

#include "domain/hostname.h"

#include <string.h>

enum { HANDSHAKE_TIMEOUT_MS = 3 * 1000, HANDSHAKES_MIN = 3 };

const char *apply_leaf(const struct serving *serving)
{
    return serving->chain == NULL ? "" : chain_leaf(serving->chain)->sha256;
}

/* ---- reload ---- */

void apply_start_reload(struct apply_flow *flow, done_fn done)
{
    nginx_reload_start(&flow->reload, flow->request.loop, flow->request.config, done,
                       flow);
}

void apply_abort_reload(void *owner)
{
    struct apply_flow *flow = owner;

    nginx_reload_cancel(&flow->reload);
}

/* ---- probe ---- */

bool apply_is_presented(const struct apply_flow *flow)
{
    const struct config_list *names = &flow->request.config->domains;

    return flow->presented >= HANDSHAKES_MIN && flow->presented >= names->count;
}

/* A template of the deployment may have a server of its own for one of the names. */
static const char *next_name(const struct apply_flow *flow)
{
    const struct config_list *names = &flow->request.config->domains;
    const char *name = names->items[flow->presented % names->count];

    return hostname_is_wildcard(name) ? names->items[0] : name;
}

static void on_probe_done(struct apply_flow *flow, const char *leaf,
                          const struct err *err)
{
    bool shown = err == NULL && strcmp(flow->probe.leaf_sha256, leaf) == 0;

    flow->presented = shown ? flow->presented + 1 : 0;
    if (err != NULL)
        flow->probe_err = *err;
    else if (!shown)
        err_set(&flow->probe_err, ERR_PEER, "%s: another leaf is presented for %s, %s",
                flow->probe.where, flow->probe.server_name, flow->probe.leaf_sha256);
    /* Until the time is over a refusal is an answer: old workers may be at the port. */
    seq_resume(&flow->seq, NULL);
}

static void on_wanted_probed(void *owner, const struct err *err)
{
    struct apply_flow *flow = owner;

    on_probe_done(flow, apply_leaf(&flow->request.wanted), err);
}

static void on_former_probed(void *owner, const struct err *err)
{
    struct apply_flow *flow = owner;

    on_probe_done(flow, apply_leaf(&flow->request.former), err);
}

int apply_begin_probe(struct apply_flow *flow, const struct serving *who)
{
    struct tls_probe_target target = tls_probe_own_port(flow->request.config);

    target.server_name = next_name(flow);
    tls_probe_start(&flow->probe, flow->request.loop, &target, HANDSHAKE_TIMEOUT_MS,
                    who == &flow->request.wanted ? on_wanted_probed : on_former_probed,
                    flow);
    return SEQ_WAIT;
}

int apply_finish_probe(struct apply_flow *flow, const char *pause_step, struct err *err)
{
    if (uv_now(flow->request.loop) < flow->probe_deadline_ms)
        return seq_go_to(&flow->seq, pause_step);
    *err = flow->probe_err;
    return err_wrap(err,
                    "nginx does not serve the certificate that it should (its own lines "
                    "in the log say why)");
}

void apply_abort_probe(void *owner)
{
    struct apply_flow *flow = owner;

    tls_probe_cancel(&flow->probe);
}

int apply_begin_pause(void *owner, struct err *err)
{
    struct apply_flow *flow = owner;

    (void)err;
    delay_start(&flow->pause, flow->request.loop, APPLY_PROBE_INTERVAL_MS, seq_resume,
                &flow->seq);
    return SEQ_WAIT;
}

void apply_abort_pause(void *owner)
{
    struct apply_flow *flow = owner;

    delay_cancel(&flow->pause);
}
