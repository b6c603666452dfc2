/*
 * The way back of the apply flow: the former certificate is served and measured again, or, when there
 * was none, nginx answers HTTP alone.
 */
#include "flows/apply_internal.h"

#include "adapters/journal_file.h"
#include "base/fs.h"
#include "base/log.h"
#include "domain/keys.h"

#include <stdio.h>
#include <string.h>

static bool has_former(const struct apply_flow *flow)
{
    return flow->request.former.chain != NULL;
}

/*
 * Whatever cannot be done, what clients find in the log has to name the leaf that they are shown: so
 * the way goes on to the probe, and the owner hears of it in the end.
 */
static int go_on_after(struct apply_flow *flow, const char *step, const struct err *err)
{
    if (flow->setback.kind == ERR_NONE) {
        flow->setback = *err;
        err_wrap(&flow->setback, "%s", step);
    }
    return SEQ_READY;
}

/* From now on a process that starts wants the former certificate. */
static int begin_note(void *owner, struct err *err)
{
    struct apply_flow *flow = owner;
    struct journal_intent intent = {.way = JOURNAL_BACK};

    if (!has_former(flow))
        return SEQ_READY;
    snprintf(intent.leaf, sizeof intent.leaf, "%s", apply_leaf(&flow->request.wanted));
    snprintf(intent.previous, sizeof intent.previous, "%s",
             apply_leaf(&flow->request.former));
    if (journal_save_intent(flow->request.store, &intent, err) < 0)
        return go_on_after(flow, "note the way back", err);
    return SEQ_READY;
}

/* ---- restore ---- */

/* A promotion may have been cut off anywhere. */
static int restore_pair(struct apply_flow *flow, const struct buf *chain_pem,
                        struct err *err)
{
    const struct apply_request *request = &flow->request;
    SECRET_SCOPED key_pem = NULL;

    if (apply_compare_disk(request, &request->former, chain_pem, &flow->stale, err) < 0)
        return -1;
    if (flow->stale.secret &&
        nginx_write_secret(request->config, request->former.ekm_secret, err) < 0)
        return -1;
    if (!flow->stale.chain && !flow->stale.key)
        return 0;
    if (flow->stale.key && keys_to_pem(request->former.key, &key_pem, err) < 0)
        return -1;
    return store_keep_previous(request->store, chain_pem, key_pem, err) < 0
               ? -1
               : store_go_back(request->store, err);
}

static int restore_live_chain(struct apply_flow *flow, const struct buf *chain_pem,
                              struct err *err)
{
    char path[FS_PATH_MAX];

    if (!flow->request.config->nginx.live_chain)
        return 0;
    if (live_chain_path(flow->request.config, flow->request.former.key, path, err) < 0)
        return -1;
    if (live_chain_is(path, chain_pem))
        return 0;
    return live_chain_stage(path, chain_pem, err) < 0 ? -1 : live_chain_switch(path, err);
}

static int restore_configuration(struct apply_flow *flow, struct err *err)
{
    const struct nginx_files files = {
        .site = &flow->former_site,
        .include = flow->had_include ? &flow->former_include : NULL,
    };

    if (flow->former_site.len == 0 || nginx_has_files(flow->request.config, &files))
        return 0;
    flow->unread = true;
    return nginx_install(flow->request.config, &files, err);
}

static int restore_http_only(struct apply_flow *flow, struct err *err)
{
    BUF_SCOPED site = {.max = NGINX_CONF_MAX_BYTES};
    BUF_SCOPED include = {0};
    const struct nginx_files files = {.site = &site};

    if (nginx_render(flow->request.config, flow->request.facts, NGINX_HTTP_ONLY, &site,
                     &include, err) < 0)
        return -1;
    return nginx_install(flow->request.config, &files, err);
}

/*
 * A volume that cannot be written must not keep the workers from their chain, nor the configuration
 * from naming it: an nginx that starts beside another key has HTTPS off then (see `prestart`).
 */
static int restore_former(struct apply_flow *flow, struct err *err)
{
    BUF_SCOPED chain_pem = {.max = CHAIN_PEM_MAX_BYTES};
    struct err live = ERR_INIT;
    struct err configuration = ERR_INIT;

    if (chain_to_pem(flow->request.former.chain, &chain_pem, err) < 0)
        return -1;
    (void)restore_pair(flow, &chain_pem, err);
    (void)restore_live_chain(flow, &chain_pem, &live);
    (void)restore_configuration(flow, &configuration);
    if (err->kind == ERR_NONE)
        *err = live.kind != ERR_NONE ? live : configuration;
    return err->kind == ERR_NONE ? 0 : -1;
}

static int begin_restore(void *owner, struct err *err)
{
    struct apply_flow *flow = owner;

    if (!flow->promoted)
        return SEQ_READY;
    if ((has_former(flow) ? restore_former(flow, err) : restore_http_only(flow, err)) < 0)
        return go_on_after(flow, "restore", err);
    return SEQ_READY;
}

/* ---- nginx ---- */

static void on_reloaded(void *owner, const struct err *err)
{
    struct apply_flow *flow = owner;

    if (err != NULL)
        (void)go_on_after(flow, "reload nginx again", err);
    flow->unread = err != NULL;
    seq_resume(&flow->seq, NULL);
}

static int begin_reload(void *owner, struct err *err)
{
    struct apply_flow *flow = owner;
    struct err ignored = ERR_INIT;

    (void)err;
    if (flow->unread && has_former(flow)) {
        apply_start_reload(flow, on_reloaded);
        return SEQ_WAIT;
    }
    /* HTTP alone is what nginx has, or will start with: it refused what came after. */
    if (flow->promoted && !has_former(flow) &&
        nginx_ask_reload(flow->request.config, &ignored) < 0)
        log_debug("%s", ignored.message);
    return SEQ_READY;
}

static int finish_reload(void *owner, struct err *err)
{
    struct apply_flow *flow = owner;

    (void)err;
    flow->probe_deadline_ms = uv_now(flow->request.loop) + APPLY_PROBE_LIMIT_MS;
    return has_former(flow) ? SEQ_NEXT : seq_go_to(&flow->seq, "forget intent");
}

static int begin_probe(void *owner, struct err *err)
{
    struct apply_flow *flow = owner;

    (void)err;
    return apply_begin_probe(flow, &flow->request.former);
}

static int finish_probe(void *owner, struct err *err)
{
    struct apply_flow *flow = owner;

    if (apply_is_presented(flow))
        return seq_go_to(&flow->seq, "read last event again");
    if (flow->presented > 0)
        return seq_go_to(&flow->seq, "probe the former");
    return apply_finish_probe(flow, "wait before the next probe", err);
}

static int finish_pause(void *owner, struct err *err)
{
    struct apply_flow *flow = owner;

    (void)err;
    return seq_go_to(&flow->seq, "probe the former");
}

/* ---- measure ---- */

static int begin_last(void *owner, struct err *err)
{
    struct apply_flow *flow = owner;

    (void)err;
    measure_last(&flow->call, flow->request.measure, flow->recorded, seq_resume,
                 &flow->seq);
    return SEQ_WAIT;
}

static int finish_last(void *owner, struct err *err)
{
    struct apply_flow *flow = owner;

    (void)err;
    flow->source = flow->call.source;
    flow->already_measured =
        strcmp(flow->call.last, apply_leaf(&flow->request.former)) == 0;
    flow->attested = flow->already_measured;
    return SEQ_NEXT;
}

/* An agent that makes no events has not made the other one either. */
static void on_measured(void *owner, const struct err *err)
{
    struct apply_flow *flow = owner;

    apply_note_emission(flow, apply_leaf(&flow->request.former), err);
    flow->attested = err == NULL && flow->call.measured;
    seq_resume(&flow->seq, err);
}

static int begin_measure(void *owner, struct err *err)
{
    struct apply_flow *flow = owner;

    (void)err;
    if (flow->already_measured)
        return SEQ_READY;
    measure_emit(&flow->call, flow->request.measure, apply_leaf(&flow->request.former),
                 on_measured, flow);
    return SEQ_WAIT;
}

static int begin_forget(void *owner, struct err *err)
{
    struct apply_flow *flow = owner;

    if (flow->setback.kind != ERR_NONE)
        return SEQ_READY;
    return journal_forget_intent(flow->request.store, err) < 0 ||
                   store_forget_previous(flow->request.store, err) < 0
               ? -1
               : SEQ_READY;
}

/* Each wait has a time limit of its own. */
const struct seq_step apply_back_steps[] = {
    {"note the way back", begin_note, NULL, NULL, 0},
    {"restore", begin_restore, NULL, NULL, 0},
    {"reload nginx again", begin_reload, finish_reload, apply_abort_reload, 0},
    {"probe the former", begin_probe, finish_probe, apply_abort_probe, 0},
    {"wait before the next probe", apply_begin_pause, finish_pause, apply_abort_pause, 0},
    {"read last event again", begin_last, finish_last, apply_abort_measure, 0},
    {"measure the former", begin_measure, NULL, apply_abort_measure, 0},
    {"forget intent", begin_forget, NULL, NULL, 0},
    {0},
};
