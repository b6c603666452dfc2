/*
 * apply flow: a certificate becomes the one that nginx serves, measured first, and all of it or
 * nothing.
 *
 *     stage → wait for nginx → compose configuration → read last event → write intent → measure
 *     → promote → switch chain → reload nginx → probe ⟲ → commit
 *
 * A verifier compares the leaf of its session with the last certificate event, so from "measure" to
 * the last worker's new chain every client is refused. A renewal has the same key and configuration:
 * then "switch chain" is one rename(2), the workers take it at their next handshake, and "reload
 * nginx" does nothing. Otherwise nginx reloads.
 *
 * Each step does nothing when nothing has to be done; applying what is served already changes
 * nothing and emits nothing. When a step fails after the intent was written, the way back is
 *
 *     note the way back → restore → reload nginx again → probe the former ⟲ → read last event again
 *     → measure the former → forget intent
 *
 * which goes on where it can: whatever cannot be restored, the former leaf is measured again as soon as
 * it is the one that is presented. When not all of it succeeds the owner has `former` applied, until that
 * holds. A process that is killed leaves the intent, from which the next one goes on.
 */
#ifndef CM_FLOWS_APPLY_FLOW_H
#define CM_FLOWS_APPLY_FLOW_H

#include "adapters/live_chain.h"
#include "adapters/measure.h"
#include "adapters/nginx.h"
#include "adapters/nginx_compose.h"
#include "adapters/store.h"
#include "adapters/tls_probe.h"
#include "domain/chain.h"
#include "domain/journal.h"
#include "runtime/delay.h"
#include "runtime/seq.h"

#include <openssl/evp.h>
#include <stdbool.h>

/* What nginx serves with. */
struct serving {
    const struct chain *chain; /* NULL: nothing is served */
    EVP_PKEY *key;
    const struct secret *ekm_secret;
};

/* Borrowed until done. */
struct apply_request {
    uv_loop_t *loop;
    const struct config *config;
    const struct nginx_facts *facts;
    struct measure *measure;
    const struct store *store;
    struct serving wanted;
    struct serving former; /* what the way back leads to; without a chain: HTTP alone */
    const struct buf *full_before; /* as `former` of nginx_compose */
    const char
        *recorded; /* leaf of the last event by our own record of this boot, or "" */
    bool reload;   /* nginx may not have read what is on disk: reload in any case */
    bool may_be_unattested; /* serve it also when the agent makes no events */
    bool patience_is_over;  /* and when the agent only fails to */
};

/* Of what is to be served: where the disk has something else. */
struct apply_stale {
    bool chain;
    bool key;
    bool secret;
};

enum apply_outcome {
    APPLY_SERVED,  /* `wanted` is served */
    APPLY_NOTHING, /* it failed before anything was changed, or was canceled */
    APPLY_BACK,    /* it failed, and `former` is served again */
    APPLY_BROKEN,  /* it failed, and so did a part of the way back: apply `former` */
};

struct apply_flow {
    /* Results, valid in done until apply_flow_done. */
    enum apply_outcome outcome;
    bool attested; /* the last certificate event names the leaf that is served */
    enum measure_source source; /* how that is known */
    struct err why_not;         /* attested: why it is not */
    bool emitted;               /* an event was made in this run */
    char recorded[65]; /* leaf of the last event by our own record, "" when unknown */
    bool
        unread; /* nginx may not have read what is on disk: the next flow has to reload */
    char live_chain[FS_PATH_MAX]; /* file of the workers' chain, "" when that is off */
    struct nginx_compose compose; /* APPLY_SERVED: what nginx has now */

    /* Private. */
    struct apply_request request;
    struct apply_stale stale;
    bool leaf_differs; /* from the one that is served */
    bool key_differs;
    bool configuration_changed;
    bool promoted;
    bool by_reload;
    bool already_measured;
    bool emit_attempted;
    struct buf chain_pem;
    struct buf former_site; /* default.conf and the include as they were */
    struct buf former_include;
    bool had_include;
    struct nginx_wait wait;
    struct nginx_reload reload;
    struct measure_call call;
    struct tls_probe probe;
    struct err probe_err; /* why the last probe did not show the leaf */
    unsigned presented;   /* probes in a row that did */
    uint64_t probe_deadline_ms;
    struct delay pause;
    struct seq seq;
    struct err failure; /* of the way forward */
    struct err setback; /* on the way back: the first thing that did not succeed */
    done_fn done;
    void *owner;
};

/* The steps of both ways; end with one without a name. */
extern const struct seq_step apply_steps[];
extern const struct seq_step apply_back_steps[];

/* `done` gets an error unless the outcome is APPLY_SERVED. */
void apply_flow_start(struct apply_flow *flow, const struct apply_request *request,
                      done_fn done, void *owner);
void apply_flow_cancel(struct apply_flow *flow);
void apply_flow_done(struct apply_flow *flow);

#endif
