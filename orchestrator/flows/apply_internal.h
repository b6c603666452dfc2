/*
 * apply_internal: what apply_flow.c (forward) and apply_back.c (the way back) share, of which
 * apply_nginx.c asks nginx and apply_disk.c looks at the disk.
 */
#ifndef CM_FLOWS_APPLY_INTERNAL_H
#define CM_FLOWS_APPLY_INTERNAL_H

#include "flows/apply_flow.h"

enum {
    APPLY_PROBE_LIMIT_MS = 10 * 1000,
    APPLY_PROBE_INTERVAL_MS = 10,
};

/* Whether enough handshakes in a row have shown the leaf: workers take turns, and so do names. */
bool apply_is_presented(const struct apply_flow *flow);

/* SHA-256 of the leaf, "" for none. */
const char *apply_leaf(const struct serving *serving);

/* What the disk has instead of `serving`, whose chain is `chain_pem` in canonical form. */
int apply_compare_disk(const struct apply_request *request, const struct serving *serving,
                       const struct buf *chain_pem, struct apply_stale *ret,
                       struct err *err);

/* Steps that both ways have; `who` is what the port should present. */
int apply_begin_probe(struct apply_flow *flow, const struct serving *who);
int apply_finish_probe(struct apply_flow *flow, const char *pause_step, struct err *err);
void apply_abort_probe(void *owner);
int apply_begin_pause(void *owner, struct err *err);
void apply_abort_pause(void *owner);
void apply_start_reload(struct apply_flow *flow, done_fn done);
void apply_abort_reload(void *owner);
void apply_abort_measure(void *owner);

/* An emission for `leaf` has ended; a failure is kept in flow->why_not. */
void apply_note_emission(struct apply_flow *flow, const char *leaf,
                         const struct err *err);

#endif
