/*
 * site: keeps nginx's configuration as it should be while HTTPS is up: follows the addresses of
 * backends, climbs back to the full configuration, and knows which one is in force and why.
 *
 * A new certificate brings its configuration along (the apply flow), and says so with site_took().
 * Between two of those this runs the site flow, whenever something changed and `may_start` allows.
 */
#ifndef CM_APP_SITE_H
#define CM_APP_SITE_H

#include "adapters/nginx_compose.h"
#include "adapters/store.h"
#include "adapters/upstream_watch.h"
#include "base/buf.h"
#include "base/log.h"
#include "domain/config.h"
#include "flows/site_flow.h"
#include "runtime/timer.h"

#include <stdbool.h>
#include <stdint.h>

struct site_events {
    void (*ready)(void *owner); /* the backends have been looked up, once */
    bool (*may_start)(
        void *owner);           /* whether nginx's configuration is nobody else's now */
    void (*ended)(void *owner); /* a flow of this is over: others may start */
    void (*failed)(void *owner, const struct log_fields *fields); /* as it was logged */
};

struct site {
    /* What is in force; for log and status. */
    enum nginx_level level;
    char refusal[ERR_MESSAGE_MAX]; /* why it is not the full one, "" when it is */
    struct upstream_watch upstreams;
    struct err failure; /* of the last flow; ERR_NONE when there was none */

    /* Private. */
    uv_loop_t *loop;
    const struct config *config;
    const struct nginx_facts *facts;
    const struct store *store;
    const struct site_events *events;
    void *owner;
    struct buf installed; /* default.conf, as it was installed last */
    struct buf include;   /* and the include */
    struct buf refused;   /* the full one, as nginx refused it */
    bool unresolved;
    bool due;        /* something changed since the last flow began */
    bool unreloaded; /* the files are there, but nginx has not taken them */
    bool running;
    struct site_flow flow;
    unsigned failures; /* in a row */
    bool changed;      /* addresses, since the last flow began */
    unsigned follows;  /* flows that began because of that, one soon after the other */
    uint64_t followed_at_ms; /* the last of them, on the loop's clock */
    uint64_t not_before_ms;  /* of the next flow */
    struct timer timer;
};

/* `facts` get the upstreams. ERR_CONFIG for settings that are no backends. */
int site_init(struct site *site, uv_loop_t *loop, const struct config *config,
              struct nginx_facts *facts, const struct store *store,
              const struct site_events *events, void *owner, struct err *err);
void site_start(struct site *site);

/*
 * Between the two: what another one has installed, and nginx has taken. A flow finds out what the settings
 * make of it as soon as the backends are known.
 */
void site_inherit(struct site *site, const struct site *former);

/* After site_init: ends what runs; the memory may go (site_done) when the loop has ended. */
void site_close(struct site *site);
void site_done(struct site *site);

/* Another flow has installed this, and nginx has taken it. */
void site_took(struct site *site, const struct nginx_compose *compose);
void site_took_http_only(struct site *site);

/* The full default.conf that nginx has taken, or NULL. Borrowed until the next site_took. */
const struct buf *site_former(const struct site *site);

/* What the configuration is made of has changed: the next flow follows. */
void site_note_change(struct site *site);

/* Whether default.conf is still the one that was installed. */
bool site_is_intact(const struct site *site);

/* Starts what is due, if it may. */
void site_kick(struct site *site);

/* A line for each upstream that has no address. */
void site_log_missing(const struct upstreams *upstreams);

#endif
