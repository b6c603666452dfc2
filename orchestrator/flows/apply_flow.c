#include "flows/apply_internal.h"

#include "adapters/journal_file.h"
#include "base/fs.h"
#include "base/log.h"
#include "domain/keys.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

/* For the workers to present a chain that they take by themselves. */
enum { SWITCH_LIMIT_MS = 1000 };

/* ---- stage ---- */

/* What is served already stays served, also when it has expired. */
static int check_pair(const struct apply_flow *flow, struct err *err)
{
    const struct serving *wanted = &flow->request.wanted;

    if (!chain_has_key(wanted->chain, wanted->key))
        return err_set(err, ERR_CRYPTO, "the certificate is for another key");
    if (flow->leaf_differs && chain_leaf(wanted->chain)->not_after <= (int64_t)time(NULL))
        return err_set(err, ERR_CRYPTO, "the certificate has expired meanwhile");
    return 0;
}

static int stage_pair(struct apply_flow *flow, struct err *err)
{
    const struct store *store = flow->request.store;
    SECRET_SCOPED key_pem = NULL;

    if (!flow->stale.chain && !flow->stale.key)
        return 0;
    if (flow->stale.key && keys_to_pem(flow->request.wanted.key, &key_pem, err) < 0)
        return -1;
    /* What another certificate has staged waits for its own turn. */
    return flow->leaf_differs
               ? store_stage(store, &flow->chain_pem, key_pem, err)
               : store_keep_previous(store, &flow->chain_pem, key_pem, err);
}

/* What the way back needs, when it leads to another certificate. */
static int keep_former(struct apply_flow *flow, struct err *err)
{
    const struct serving *former = &flow->request.former;
    SECRET_SCOPED key_pem = NULL;
    BUF_SCOPED chain_pem = {0};

    if (former->chain == NULL || !flow->leaf_differs)
        return 0;
    buf_init(&chain_pem, CHAIN_PEM_MAX_BYTES);
    if (chain_to_pem(former->chain, &chain_pem, err) < 0 ||
        (flow->key_differs && keys_to_pem(former->key, &key_pem, err) < 0))
        return -1;
    return store_keep_previous(flow->request.store, &chain_pem, key_pem, err);
}

/*
 * Somebody may have emptied it. nginx -t, and nginx when it starts, read the secret from there: the one
 * that is in force, as long as the new one is not.
 */
static int check_run_folder(const struct apply_request *request, struct err *err)
{
    const struct secret *secret = request->former.chain != NULL
                                      ? request->former.ekm_secret
                                      : request->wanted.ekm_secret;
    char path[FS_PATH_MAX];

    if (fs_make_folder(request->config->run_dir, 0755, err) < 0 ||
        nginx_secret_path(request->config, path, err) < 0)
        return -1;
    return fs_exists(path) ? 0 : nginx_write_secret(request->config, secret, err);
}

static int begin_stage(void *owner, struct err *err)
{
    struct apply_flow *flow = owner;
    const struct apply_request *request = &flow->request;
    const struct serving *former = &request->former;

    flow->leaf_differs = strcmp(apply_leaf(&request->wanted), apply_leaf(former)) != 0;
    flow->key_differs =
        former->chain == NULL || !keys_same(former->key, request->wanted.key);
    if (check_pair(flow, err) < 0 || check_run_folder(request, err) < 0 ||
        chain_to_pem(request->wanted.chain, &flow->chain_pem, err) < 0 ||
        apply_compare_disk(request, &request->wanted, &flow->chain_pem, &flow->stale,
                           err) < 0 ||
        stage_pair(flow, err) < 0 || keep_former(flow, err) < 0)
        return -1;
    if (!request->config->nginx.live_chain)
        return SEQ_READY;
    return live_chain_path(request->config, request->wanted.key, flow->live_chain, err) <
                       0 ||
                   live_chain_stage(flow->live_chain, &flow->chain_pem, err) < 0
               ? -1
               : SEQ_READY;
}

/* ---- nginx runs, and takes the configuration with the staged pair ---- */

static int begin_wait(void *owner, struct err *err)
{
    struct apply_flow *flow = owner;

    (void)err;
    nginx_wait_start(&flow->wait, flow->request.loop, flow->request.config, seq_resume,
                     &flow->seq);
    return SEQ_WAIT;
}

static void abort_wait(void *owner)
{
    struct apply_flow *flow = owner;

    nginx_wait_cancel(&flow->wait);
}

static int begin_compose(void *owner, struct err *err)
{
    struct apply_flow *flow = owner;
    const struct store *store = flow->request.store;
    const char *chain = flow->leaf_differs ? store->staged_chain : store->previous_chain;
    const char *key = flow->leaf_differs ? store->staged_key : store->previous_key;
    const struct nginx_compose_request request = {
        .loop = flow->request.loop,
        .config = flow->request.config,
        .facts = flow->request.facts,
        .live_chain = flow->live_chain[0] == '\0' ? NULL : flow->live_chain,
        .chain = flow->stale.chain || flow->stale.key ? chain : store->chain,
        .key = flow->stale.key ? key : store->key,
        .former = flow->request.full_before,
    };

    (void)err;
    nginx_compose_start(&flow->compose, &request, seq_resume, &flow->seq);
    return SEQ_WAIT;
}

static int finish_compose(void *owner, struct err *err)
{
    struct apply_flow *flow = owner;
    const struct nginx_files files = {.site = &flow->compose.site,
                                      .include = &flow->compose.include};

    flow->configuration_changed = !nginx_has_files(flow->request.config, &files);
    flow->by_reload = flow->configuration_changed || flow->stale.key ||
                      flow->key_differs || flow->stale.secret || flow->unread ||
                      (flow->leaf_differs && flow->live_chain[0] == '\0');
    return nginx_read_files(flow->request.config, &flow->former_site,
                            &flow->former_include, &flow->had_include, err);
}

static void abort_compose(void *owner)
{
    struct apply_flow *flow = owner;

    nginx_compose_cancel(&flow->compose);
}

/* ---- measure ---- */

/* Whether a leaf may be served that was not measured is the owner's decision. */
static void go_on_unattested(struct apply_flow *flow, const struct err *err,
                             bool unsupported)
{
    bool goes_on = err != NULL && err->kind != ERR_CANCELED &&
                   flow->request.may_be_unattested &&
                   (unsupported || flow->request.patience_is_over);

    if (err != NULL)
        flow->why_not = *err;
    seq_resume(&flow->seq, goes_on ? NULL : err);
}

static void on_last_done(void *owner, const struct err *err)
{
    struct apply_flow *flow = owner;

    flow->source = flow->call.source;
    flow->already_measured =
        err == NULL && strcmp(flow->call.last, apply_leaf(&flow->request.wanted)) == 0;
    go_on_unattested(flow, err, false);
}

static int begin_last(void *owner, struct err *err)
{
    struct apply_flow *flow = owner;

    (void)err;
    measure_last(&flow->call, flow->request.measure, flow->recorded, on_last_done, flow);
    return SEQ_WAIT;
}

/*
 * Not when whoever starts next would do the same without it: what the disk has is applied anyway, and
 * a volume that cannot be written must not keep it from being served.
 */
static int begin_intent(void *owner, struct err *err)
{
    struct apply_flow *flow = owner;
    struct journal_intent intent = {.way = JOURNAL_FORWARD};
    struct err ignored = ERR_INIT;

    if (!flow->stale.chain && !flow->stale.key &&
        (flow->request.former.chain == NULL || !flow->leaf_differs)) {
        /* But the record is about to be wrong, and would be believed. */
        if (!flow->already_measured && flow->why_not.kind == ERR_NONE)
            (void)journal_forget_record(flow->request.store, &ignored);
        return SEQ_READY;
    }
    snprintf(intent.leaf, sizeof intent.leaf, "%s", apply_leaf(&flow->request.wanted));
    snprintf(intent.previous, sizeof intent.previous, "%s",
             apply_leaf(&flow->request.former));
    return journal_save_intent(flow->request.store, &intent, err) < 0 ? -1 : SEQ_READY;
}

void apply_note_emission(struct apply_flow *flow, const char *leaf, const struct err *err)
{
    if (err == NULL && flow->call.measured) {
        flow->emitted = true;
        snprintf(flow->recorded, sizeof flow->recorded, "%s", leaf);
        flow->why_not = (struct err)ERR_INIT;
        flow->source = MEASURE_FROM_RECORD;
        log_info("certificate event emitted for leaf %s", leaf);
    } else if (err == NULL) {
        flow->why_not = flow->call.why_not;
    } else {
        flow->why_not = *err;
        flow->recorded[0] = '\0'; /* it may have come about, or may yet */
    }
}

static void on_measured(void *owner, const struct err *err)
{
    struct apply_flow *flow = owner;
    struct err refused = ERR_INIT;
    bool unsupported = err == NULL && !flow->call.measured;

    apply_note_emission(flow, apply_leaf(&flow->request.wanted), err);
    flow->attested = err == NULL && flow->call.measured;
    /* An agent that makes no events: the same decision as for one that fails. */
    if (unsupported) {
        refused = flow->call.why_not;
        err = &refused;
    }
    go_on_unattested(flow, err, unsupported);
}

static int begin_measure(void *owner, struct err *err)
{
    struct apply_flow *flow = owner;

    (void)err;
    if (flow->already_measured) {
        log_info("the last certificate event already names leaf %s",
                 apply_leaf(&flow->request.wanted));
        flow->attested = true;
        return SEQ_READY;
    }
    /* The agent could not even be asked for its log. */
    if (flow->why_not.kind != ERR_NONE)
        return SEQ_READY;
    flow->emit_attempted = true;
    measure_emit(&flow->call, flow->request.measure, apply_leaf(&flow->request.wanted),
                 on_measured, flow);
    return SEQ_WAIT;
}

void apply_abort_measure(void *owner)
{
    struct apply_flow *flow = owner;

    measure_cancel(&flow->call);
}

/* ---- live ---- */

static int promote_pair(const struct apply_flow *flow, struct err *err)
{
    const struct store *store = flow->request.store;

    if (!flow->stale.chain && !flow->stale.key)
        return 0;
    if (!flow->leaf_differs)
        return store_put_back(store, err);
    return flow->stale.key ? store_promote(store, err) : store_promote_chain(store, err);
}

/*
 * From here on every moment counts: what need not be durable before it is served becomes so in
 * "commit". A power cut in between is what the intent is for.
 */
static int begin_promote(void *owner, struct err *err)
{
    struct apply_flow *flow = owner;
    const struct apply_request *request = &flow->request;
    const struct nginx_files files = {.site = &flow->compose.site,
                                      .include = &flow->compose.include};

    /* Where nothing was served before, what is left as it was needs no way back. */
    flow->promoted = request->former.chain != NULL || flow->stale.chain ||
                     flow->stale.key || flow->stale.secret || flow->configuration_changed;
    flow->unread = flow->by_reload;
    if (promote_pair(flow, err) < 0)
        return -1;
    if (flow->stale.secret &&
        nginx_write_secret(request->config, request->wanted.ekm_secret, err) < 0)
        return -1;
    if (flow->configuration_changed && nginx_install(request->config, &files, err) < 0)
        return -1;
    return SEQ_READY;
}

static int begin_switch(void *owner, struct err *err)
{
    struct apply_flow *flow = owner;

    flow->probe_deadline_ms = uv_now(flow->request.loop) + SWITCH_LIMIT_MS;
    /* The same chain in another file would be a change to the workers, which ends connections. */
    if (flow->live_chain[0] == '\0' || live_chain_is(flow->live_chain, &flow->chain_pem))
        return SEQ_READY;
    if (live_chain_switch(flow->live_chain, err) < 0)
        return -1;
    flow->promoted = true;
    return SEQ_READY;
}

static void on_reloaded(void *owner, const struct err *err)
{
    struct apply_flow *flow = owner;

    flow->unread = err != NULL;
    flow->probe_deadline_ms = uv_now(flow->request.loop) + APPLY_PROBE_LIMIT_MS;
    seq_resume(&flow->seq, err);
}

static int begin_reload(void *owner, struct err *err)
{
    struct apply_flow *flow = owner;

    (void)err;
    if (!flow->by_reload)
        return SEQ_READY;
    apply_start_reload(flow, on_reloaded);
    return SEQ_WAIT;
}

/* ---- is it really served: neither a rename nor a reload says so ---- */

static int begin_probe(void *owner, struct err *err)
{
    struct apply_flow *flow = owner;

    (void)err;
    return apply_begin_probe(flow, &flow->request.wanted);
}

/*
 * Workers that have not taken the chain by themselves, for whatever reason, get it by a reload.
 */
static int finish_probe(void *owner, struct err *err)
{
    struct apply_flow *flow = owner;

    if (apply_is_presented(flow))
        return seq_go_to(&flow->seq, "commit");
    if (flow->presented > 0)
        return seq_go_to(&flow->seq, "probe");
    if (!flow->by_reload && uv_now(flow->request.loop) >= flow->probe_deadline_ms) {
        log_warning("nginx has not taken the new chain by itself, so it is reloaded: %s",
                    flow->probe_err.message);
        flow->by_reload = true;
        return seq_go_to(&flow->seq, "reload nginx");
    }
    return apply_finish_probe(flow, "wait before the next probe", err);
}

static int finish_pause(void *owner, struct err *err)
{
    struct apply_flow *flow = owner;

    (void)err;
    return seq_go_to(&flow->seq, "probe");
}

/* ---- commit ---- */

static int write_record(struct apply_flow *flow, struct err *err)
{
    const char *leaf = apply_leaf(&flow->request.wanted);
    struct journal_record record = {.leaf = ""};
    struct journal_record stored;

    snprintf(record.leaf, sizeof record.leaf, "%s", leaf);
    snprintf(record.event, sizeof record.event, "%s",
             flow->attested ? leaf : flow->recorded);
    journal_boot_id(record.boot);
    if (journal_load_record(flow->request.store, &stored) &&
        strcmp(stored.leaf, record.leaf) == 0 &&
        strcmp(stored.event, record.event) == 0 && strcmp(stored.boot, record.boot) == 0)
        return 0;
    return journal_save_record(flow->request.store, &record, err);
}

/*
 * It is served: a disk that is full now costs the record and not the certificate. The intent that
 * may stay says what is true.
 */
static int begin_commit(void *owner, struct err *err)
{
    struct apply_flow *flow = owner;
    const struct store *store = flow->request.store;
    struct err failure = ERR_INIT;

    (void)err;
    if ((flow->stale.chain && store_sync(store, &failure) < 0) ||
        write_record(flow, &failure) < 0 || journal_forget_intent(store, &failure) < 0 ||
        store_forget_previous(store, &failure) < 0)
        log_warning("the certificate is served, but this cannot be noted: %s",
                    failure.message);
    return SEQ_READY;
}

/* Each wait has a time limit of its own. */
const struct seq_step apply_steps[] = {
    {"stage", begin_stage, NULL, NULL, 0},
    {"wait for nginx", begin_wait, NULL, abort_wait, 0},
    {"compose configuration", begin_compose, finish_compose, abort_compose, 0},
    {"read last event", begin_last, NULL, apply_abort_measure, 0},
    {"write intent", begin_intent, NULL, NULL, 0},
    {"measure", begin_measure, NULL, apply_abort_measure, 0},
    {"promote", begin_promote, NULL, NULL, 0},
    {"switch chain", begin_switch, NULL, NULL, 0},
    {"reload nginx", begin_reload, NULL, apply_abort_reload, 0},
    {"probe", begin_probe, finish_probe, apply_abort_probe, 0},
    {"wait before the next probe", apply_begin_pause, finish_pause, apply_abort_pause, 0},
    {"commit", begin_commit, NULL, NULL, 0},
    {0},
};

/* ---- both ways ---- */

static void on_back_done(void *owner, const struct err *err)
{
    struct apply_flow *flow = owner;
    struct err failure = flow->failure;

    /* What came first is the cause of what came later. */
    if (flow->setback.kind != ERR_NONE)
        err = &flow->setback;
    flow->outcome = err == NULL ? APPLY_BACK : APPLY_BROKEN;
    if (err != NULL)
        err_set(&failure, failure.kind, "%s; the way back failed, too: %s",
                flow->failure.message, err->message);
    else if (flow->request.former.chain != NULL)
        err_set(&failure, failure.kind, "%s; the former certificate is served again",
                flow->failure.message);
    flow->done(flow->owner, &failure);
}

static void start_back(struct apply_flow *flow)
{
    flow->attested = false;
    flow->presented = 0;
    /* What nginx was told to read, or has read, is taken back. */
    flow->unread = flow->unread || (flow->promoted && flow->by_reload);
    seq_start(&flow->seq, flow->request.loop, "way back", apply_back_steps, flow,
              on_back_done, flow);
}

static void on_forward_done(void *owner, const struct err *err)
{
    struct apply_flow *flow = owner;

    flow->outcome = err == NULL ? APPLY_SERVED : APPLY_NOTHING;
    /* A process that ends leaves the intent to the next one, which goes on from there. */
    if (err == NULL || err->kind == ERR_CANCELED || !flow->leaf_differs ||
        (!flow->emit_attempted && !flow->promoted)) {
        flow->done(flow->owner, err);
        return;
    }
    flow->failure = *err;
    start_back(flow);
}

void apply_flow_start(struct apply_flow *flow, const struct apply_request *request,
                      done_fn done, void *owner)
{
    *flow = (struct apply_flow){
        .request = *request,
        .unread = request->reload,
        .done = done,
        .owner = owner,
    };
    snprintf(flow->recorded, sizeof flow->recorded, "%s", request->recorded);
    buf_init(&flow->chain_pem, CHAIN_PEM_MAX_BYTES);
    buf_init(&flow->former_site, NGINX_CONF_MAX_BYTES);
    buf_init(&flow->former_include, NGINX_CONF_MAX_BYTES);
    seq_start(&flow->seq, request->loop, "apply", apply_steps, flow, on_forward_done,
              flow);
}

void apply_flow_cancel(struct apply_flow *flow)
{
    seq_cancel(&flow->seq);
}

void apply_flow_done(struct apply_flow *flow)
{
    buf_done(&flow->chain_pem);
    buf_done(&flow->former_site);
    buf_done(&flow->former_include);
    nginx_compose_done(&flow->compose);
}
