/*
 * upstream_watch: keeps the addresses of the upstreams as the system's resolver has them, by looking
 * every name up again and again: often while one does not resolve, else now and then.
 *
 * `looked_up` is called for each answer, `round_over` when all of a round are there, with whether
 * any address changed; `ready` once, when the first round is over or `first_round_ms` have passed: a
 * resolver that hangs holds nothing up. Nothing runs when no upstream has a name.
 */
#ifndef CM_ADAPTERS_UPSTREAM_WATCH_H
#define CM_ADAPTERS_UPSTREAM_WATCH_H

#include "domain/upstreams.h"
#include "runtime/lookup.h"
#include "runtime/timer.h"

enum {
    UPSTREAM_WATCH_FIRST_ROUND_MS = 500, /* where HTTPS waits for it */
    UPSTREAM_WATCH_MISSING_MS = 2 * 1000,
    UPSTREAM_WATCH_CALM_MS = 10 * 1000,
};

struct upstream_watch_events {
    /* `err` is NULL when the name resolved. */
    void (*looked_up)(void *owner, const struct upstream *upstream, bool changed,
                      const struct err *err);
    void (*round_over)(void *owner, bool changed);
    void (*ready)(void *owner);
};

struct upstream_watch_name;

struct upstream_watch {
    struct upstreams upstreams;

    /* Private. */
    uv_loop_t *loop;
    struct upstream_watch_name *names; /* at the index of their upstream */
    const struct upstream_watch_events *events;
    void *owner;
    struct timer timer;
    struct timer first;
    size_t pending; /* look-ups of this round */
    bool changed;
    bool is_ready;
    bool closing;
};

/* ERR_CONFIG for what is no backend; nothing is kept then. */
int upstream_watch_init(struct upstream_watch *watch, uv_loop_t *loop,
                        const struct config *config,
                        const struct upstream_watch_events *events, void *owner,
                        struct err *err);

/* The first round, and for how long `ready` waits for it. No event comes before this returns. */
void upstream_watch_start(struct upstream_watch *watch, unsigned first_round_ms);

/*
 * Ends what runs; no event comes any more, also when an event calls this. The memory may go when
 * the loop has ended.
 */
void upstream_watch_close(struct upstream_watch *watch);
void upstream_watch_done(struct upstream_watch *watch);

#endif
