#include "adapters/upstream_watch.h"

#include <errno.h>
#include <stdlib.h>

struct upstream_watch_name {
    struct upstream_watch *watch;
    struct upstream *upstream;
    struct lookup lookup;
};

/* Any event may close the watch, and is then the last. */
static void become_ready(struct upstream_watch *watch)
{
    if (watch->is_ready || watch->closing)
        return;
    watch->is_ready = true;
    timer_stop(&watch->first);
    watch->events->ready(watch->owner);
}

static bool any_name(const struct upstream_watch *watch)
{
    for (size_t i = 0; i < watch->upstreams.count; i++) {
        if (!watch->upstreams.items[i].literal)
            return true;
    }
    return false;
}

static void end_round(struct upstream_watch *watch)
{
    if (any_name(watch))
        timer_set(&watch->timer, upstreams_any_missing(&watch->upstreams)
                                     ? UPSTREAM_WATCH_MISSING_MS
                                     : UPSTREAM_WATCH_CALM_MS);
    watch->events->round_over(watch->owner, watch->changed);
    become_ready(watch);
}

static void on_lookup_done(void *owner, const struct err *err)
{
    struct upstream_watch_name *name = owner;
    struct upstream_watch *watch = name->watch;
    bool changed;

    watch->pending--;
    if (watch->closing)
        return;
    changed = err == NULL &&
              upstream_update(name->upstream, name->lookup.addresses, name->lookup.count);
    watch->changed = watch->changed || changed;
    watch->events->looked_up(watch->owner, name->upstream, changed, err);
    if (watch->pending == 0 && !watch->closing)
        end_round(watch);
}

static void start_round(void *owner)
{
    struct upstream_watch *watch = owner;

    watch->changed = false;
    for (size_t i = 0; i < watch->upstreams.count; i++) {
        struct upstream_watch_name *name = &watch->names[i];

        if (name->upstream->literal)
            continue;
        watch->pending++;
        lookup_start(&name->lookup, watch->loop, name->upstream->host, on_lookup_done,
                     name);
    }
    if (watch->pending == 0)
        end_round(watch);
}

static void on_first_round_late(void *owner)
{
    become_ready(owner);
}

int upstream_watch_init(struct upstream_watch *watch, uv_loop_t *loop,
                        const struct config *config,
                        const struct upstream_watch_events *events, void *owner,
                        struct err *err)
{
    *watch = (struct upstream_watch){.loop = loop, .events = events, .owner = owner};
    if (upstreams_init(&watch->upstreams, config, err) < 0)
        return -1;
    watch->names = calloc(watch->upstreams.count, sizeof *watch->names);
    if (watch->names == NULL) {
        upstreams_done(&watch->upstreams);
        return err_sys(err, ENOMEM, "cannot keep the upstreams");
    }
    for (size_t i = 0; i < watch->upstreams.count; i++) {
        watch->names[i].watch = watch;
        watch->names[i].upstream = &watch->upstreams.items[i];
    }
    timer_init(&watch->timer, loop, start_round, watch);
    timer_init(&watch->first, loop, on_first_round_late, watch);
    return 0;
}

void upstream_watch_start(struct upstream_watch *watch, unsigned first_round_ms)
{
    timer_set(&watch->timer, 0);
    timer_set(&watch->first, first_round_ms);
}

void upstream_watch_close(struct upstream_watch *watch)
{
    watch->closing = true;
    timer_close(&watch->timer, NULL);
    timer_close(&watch->first, NULL);
    for (size_t i = 0; i < watch->upstreams.count; i++)
        lookup_cancel(&watch->names[i].lookup);
}

void upstream_watch_done(struct upstream_watch *watch)
{
    free(watch->names);
    upstreams_done(&watch->upstreams);
}
