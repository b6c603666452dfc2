#include "flows/apply_flow.h"

#include "base/log.h"
#include "domain/keys.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

enum {
    PROBE_LIMIT_MS = 10 * 1000, /* for nginx to present the leaf after a reload */
    PROBE_INTERVAL_MS = 10,
    HANDSHAKE_TIMEOUT_MS = 3 * 1000,
};

/* ---- stage ---- */

/*
 * Whether key.pem holds the key to serve. A file that cannot be read as a key is
 * replaced.
 */
static int compare_key(struct apply_flow *flow, struct err *err)
{
    SECRET_SCOPED pem = NULL;
    struct err unusable = ERR_INIT;
    EVP_PKEY *stored = NULL;

    flow->key_changed = true;
    if (store_load_key(flow->request.store, &pem, &unusable) < 0)
        return unusable.kind == ERR_SYS ? (*err = unusable, -1) : 0;
    if (pem == NULL || keys_from_pem(pem, &stored, &unusable) < 0)
        return 0;
    flow->key_changed = !keys_same(stored, flow->request.tls_key);
    EVP_PKEY_free(stored);
    return 0;
}

/*
 * Compared in canonical form: another writer's line breaks are no reason to write
 * again.
 */
static int compare_chain(struct apply_flow *flow, struct err *err)
{
    BUF_SCOPED file = {0};
    BUF_SCOPED canonical = {0};
    struct err unusable = ERR_INIT;
    struct chain *stored = NULL;

    flow->chain_changed = true;
    if (store_load_chain(flow->request.store, &file, &unusable) < 0)
        return unusable.kind == ERR_SYS ? (*err = unusable, -1) : 0;
    buf_init(&canonical, CHAIN_PEM_MAX_BYTES);
    if (chain_parse(file.data, file.len, &stored, &unusable) == 0 &&
        chain_to_pem(stored, &canonical, &unusable) == 0)
        flow->chain_changed = strcmp(buf_str(&canonical), buf_str(&flow->chain_pem)) != 0;
    chain_free(stored);
    return 0;
}

static int begin_stage(void *owner, struct err *err)
{
    struct apply_flow *flow = owner;
    SECRET_SCOPED key_pem = NULL;

    if (chain_leaf(flow->request.chain)->not_after <= (int64_t)time(NULL))
        return err_set(err, ERR_CRYPTO, "the certificate has expired meanwhile");
    if (chain_to_pem(flow->request.chain, &flow->chain_pem, err) < 0 ||
        compare_chain(flow, err) < 0 || compare_key(flow, err) < 0)
        return -1;
    if (!flow->chain_changed && !flow->key_changed)
        return SEQ_READY;
    if (flow->key_changed && keys_to_pem(flow->request.tls_key, &key_pem, err) < 0)
        return -1;
    return store_stage(flow->request.store, &flow->chain_pem, key_pem, err) < 0
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
    const struct nginx_compose_request request = {
        .loop = flow->request.loop,
        .config = flow->request.config,
        .facts = flow->request.facts,
        .chain =
            flow->chain_changed || flow->key_changed ? store->staged_chain : store->chain,
        .key = flow->key_changed ? store->staged_key : store->key,
    };

    (void)err;
    nginx_compose_start(&flow->compose, &request, seq_resume, &flow->seq);
    return SEQ_WAIT;
}

static void abort_compose(void *owner)
{
    struct apply_flow *flow = owner;

    nginx_compose_cancel(&flow->compose);
}

/* ---- measure ---- */

/*
 * An agent that answers but shows no log (simulators) leaves us with our own memory. One that
 * does not answer is not asked to emit either: an earlier event may still be on its way.
 */
static void on_info_done(void *owner, const struct err *err)
{
    struct apply_flow *flow = owner;
    const char *leaf = chain_leaf(flow->request.chain)->sha256;
    bool answered = err == NULL || err->kind == ERR_PEER;
    struct err unreadable = ERR_INIT;
    char last[65] = "";
    bool found = false;

    snprintf(last, sizeof last, "%s", flow->request.last_emitted);
    if (err == NULL &&
        measurement_last_event(flow->call.tcb_info, last, &found, &unreadable) < 0) {
        log_debug("event log: %s", unreadable.message);
        snprintf(last, sizeof last, "%s", flow->request.last_emitted);
    } else if (err == NULL && !found) {
        last[0] = '\0';
    }
    flow->already_measured = strcmp(last, leaf) == 0;
    dstack_call_done(&flow->call);
    seq_resume(&flow->seq, answered ? NULL : err);
}

static int begin_event_log(void *owner, struct err *err)
{
    struct apply_flow *flow = owner;

    (void)err;
    if (flow->request.config->development)
        return SEQ_READY;
    dstack_info(&flow->call, flow->request.agent, on_info_done, flow);
    return SEQ_WAIT;
}

static void on_event_done(void *owner, const struct err *err)
{
    struct apply_flow *flow = owner;
    bool unsupported =
        err != NULL && err->kind == ERR_PEER && (err->code == 400 || err->code == 404);

    if (err != NULL)
        flow->measure_err = *err;
    flow->measured = err == NULL;
    flow->attested = err == NULL;
    dstack_call_done(&flow->call);
    seq_resume(&flow->seq, unsupported ? NULL : err);
}

static int begin_measure(void *owner, struct err *err)
{
    struct apply_flow *flow = owner;
    const char *leaf = chain_leaf(flow->request.chain)->sha256;
    char payload[MEASUREMENT_PAYLOAD_SIZE];

    (void)err;
    if (flow->request.config->development) {
        log_info("%s: %s", MEASUREMENT_EVENT, leaf);
        return SEQ_READY;
    }
    if (flow->already_measured) {
        log_info("the last certificate event already names leaf %s", leaf);
        flow->attested = true;
        return SEQ_READY;
    }
    measurement_payload(payload, leaf);
    dstack_emit_event(&flow->call, flow->request.agent, MEASUREMENT_EVENT, payload,
                      on_event_done, flow);
    return SEQ_WAIT;
}

static int finish_measure(void *owner, struct err *err)
{
    struct apply_flow *flow = owner;

    (void)err;
    if (flow->measured)
        log_info("certificate event emitted for leaf %s",
                 chain_leaf(flow->request.chain)->sha256);
    else if (flow->measure_err.kind != ERR_NONE)
        log_error(
            "NOT ATTESTED: this agent cannot measure certificates, clients that verify "
            "will refuse: %s",
            flow->measure_err.message);
    return SEQ_NEXT;
}

static void abort_call(void *owner)
{
    struct apply_flow *flow = owner;

    dstack_cancel(&flow->call);
}

/* ---- live ---- */

static int begin_promote(void *owner, struct err *err)
{
    struct apply_flow *flow = owner;
    const struct nginx_files files = {.site = &flow->compose.site,
                                      .include = &flow->compose.include};

    if ((flow->chain_changed || flow->key_changed) &&
        store_promote(flow->request.store, err) < 0)
        return -1;
    return nginx_install(flow->request.config, &files, err) < 0 ? -1 : SEQ_READY;
}

static int begin_reload(void *owner, struct err *err)
{
    struct apply_flow *flow = owner;

    (void)err;
    nginx_reload_start(&flow->reload, flow->request.loop, flow->request.config,
                       seq_resume, &flow->seq);
    return SEQ_WAIT;
}

static int finish_reload(void *owner, struct err *err)
{
    struct apply_flow *flow = owner;

    (void)err;
    flow->probe_deadline_ms = uv_now(flow->request.loop) + PROBE_LIMIT_MS;
    return SEQ_NEXT;
}

static void abort_reload(void *owner)
{
    struct apply_flow *flow = owner;

    nginx_reload_cancel(&flow->reload);
}

/* ---- is it really served: a reload only asks nginx, which may refuse in its log ---- */

static void on_probe_done(void *owner, const struct err *err)
{
    struct apply_flow *flow = owner;
    const char *leaf = chain_leaf(flow->request.chain)->sha256;

    flow->presented = err == NULL && strcmp(flow->probe.leaf_sha256, leaf) == 0;
    if (err != NULL)
        flow->probe_err = *err;
    else
        err_set(&flow->probe_err, ERR_PEER, "%s: another leaf is presented, %s",
                flow->probe.where, flow->probe.leaf_sha256);
    /* Until the time is over a refusal is an answer: old workers may be at the port. */
    seq_resume(&flow->seq, NULL);
}

static int begin_probe(void *owner, struct err *err)
{
    struct apply_flow *flow = owner;
    const struct config *config = flow->request.config;
    const struct tls_probe_target target = {
        .address = config->nginx.address == NULL ? "127.0.0.1" : config->nginx.address,
        .port = config->nginx.https_port,
        .server_name = config->domain,
        .proxy_protocol = config->nginx.proxy_protocol,
    };

    (void)err;
    tls_probe_start(&flow->probe, flow->request.loop, &target, HANDSHAKE_TIMEOUT_MS,
                    on_probe_done, flow);
    return SEQ_WAIT;
}

static int finish_probe(void *owner, struct err *err)
{
    struct apply_flow *flow = owner;

    if (flow->presented)
        return SEQ_END;
    if (uv_now(flow->request.loop) < flow->probe_deadline_ms)
        return SEQ_NEXT;
    *err = flow->probe_err;
    return err_wrap(err,
                    "nginx was reloaded, but does not serve the new certificate (its "
                    "own lines in the log say why)");
}

static void abort_probe(void *owner)
{
    struct apply_flow *flow = owner;

    tls_probe_cancel(&flow->probe);
}

static int begin_pause(void *owner, struct err *err)
{
    struct apply_flow *flow = owner;

    (void)err;
    delay_start(&flow->pause, flow->request.loop, PROBE_INTERVAL_MS, seq_resume,
                &flow->seq);
    return SEQ_WAIT;
}

static int finish_pause(void *owner, struct err *err)
{
    struct apply_flow *flow = owner;

    (void)err;
    return seq_go_to(&flow->seq, "probe");
}

static void abort_pause(void *owner)
{
    struct apply_flow *flow = owner;

    delay_cancel(&flow->pause);
}

/* Each wait has a time limit of its own. */
static const struct seq_step steps[] = {
    {"stage", begin_stage, NULL, NULL, 0},
    {"wait for nginx", begin_wait, NULL, abort_wait, 0},
    {"compose configuration", begin_compose, NULL, abort_compose, 0},
    {"read event log", begin_event_log, NULL, abort_call, 0},
    {"measure", begin_measure, finish_measure, abort_call, 0},
    {"promote", begin_promote, NULL, NULL, 0},
    {"reload nginx", begin_reload, finish_reload, abort_reload, 0},
    {"probe", begin_probe, finish_probe, abort_probe, 0},
    {"wait before the next probe", begin_pause, finish_pause, abort_pause, 0},
    {0},
};

void apply_flow_start(struct apply_flow *flow, const struct apply_request *request,
                      done_fn done, void *owner)
{
    *flow = (struct apply_flow){.request = *request};
    buf_init(&flow->chain_pem, CHAIN_PEM_MAX_BYTES);
    seq_start(&flow->seq, request->loop, "apply", steps, flow, done, owner);
}

void apply_flow_cancel(struct apply_flow *flow)
{
    seq_cancel(&flow->seq);
}

void apply_flow_done(struct apply_flow *flow)
{
    dstack_call_done(&flow->call);
    buf_done(&flow->chain_pem);
    nginx_compose_done(&flow->compose);
}
