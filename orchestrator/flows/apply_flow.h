/*
 * apply flow: a chain becomes the one that nginx serves, measured first.
 *
 *     stage → wait for nginx → compose configuration → read event log → measure → promote
 *     → reload nginx → probe ⟲
 *
 * "stage" writes nothing when the pair on disk is already the one to serve, and "measure"
 * emits nothing when the last certificate event already names the leaf: applying the same
 * chain again changes nothing. An agent without EmitEvent (dstack 0.6 and later answers
 * 400, unknown methods 404) does not keep HTTPS away: clients that verify refuse by
 * themselves, and `attested` says so. "probe" makes handshakes with the listening port
 * until it presents the leaf. Any failure ends the flow, and whoever started it tries
 * again; nothing that was done has to be undone for that.
 */
#ifndef CM_FLOWS_APPLY_FLOW_H
#define CM_FLOWS_APPLY_FLOW_H

#include "adapters/dstack.h"
#include "adapters/nginx.h"
#include "adapters/nginx_compose.h"
#include "adapters/store.h"
#include "adapters/tls_probe.h"
#include "domain/chain.h"
#include "domain/measurement.h"
#include "runtime/delay.h"
#include "runtime/seq.h"

#include <openssl/evp.h>
#include <stdbool.h>

/* Borrowed until done. */
struct apply_request {
    uv_loop_t *loop;
    const struct config *config;
    const struct nginx_facts *facts;
    const struct dstack *agent;
    const struct store *store;
    const struct chain *chain;
    EVP_PKEY *tls_key;
    const char *last_emitted; /* leaf of the last event that we emitted, "" for none */
};

struct apply_flow {
    /* Results, valid in done until apply_flow_done. */
    bool attested;                /* the last certificate event names the leaf */
    bool measured;                /* an event was emitted in this run */
    struct nginx_compose compose; /* what nginx has now, after success */

    /* Private. */
    struct apply_request request;
    bool chain_changed;
    bool key_changed;
    struct buf chain_pem;
    struct nginx_wait wait;
    struct nginx_reload reload;
    struct dstack_call call;
    bool already_measured;
    struct err measure_err;
    struct tls_probe probe;
    struct err probe_err; /* why the last probe did not show the leaf */
    uint64_t probe_deadline_ms;
    bool presented;
    struct delay pause;
    struct seq seq;
};

void apply_flow_start(struct apply_flow *flow, const struct apply_request *request,
                      done_fn done, void *owner);
void apply_flow_cancel(struct apply_flow *flow);
void apply_flow_done(struct apply_flow *flow);

#endif
