#include "app/site.h"

#include "base/fs.h"
#include "base/log.h"
#include "base/random.h"
#include "base/text.h"
#include "domain/pace.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

enum {
    /* For a name that may resolve by now, and for templates that may be others. */
    REDUCED_RETRY_MS = 5 * 1000,
    /*
     * Every reload leaves workers behind until their streams have ended. A name whose addresses
     * change with every look-up must not pile them up.
     */
    CHANGES_MIN_MS = 5 * 1000,
    CHANGES_MAX_MS = 5 * 60 * 1000,
    CHANGES_FORGET_MS = 60 * 60 * 1000,
};

static uint64_t uptime_ms(struct site *site)
{
    uv_update_time(site->loop);
    return uv_now(site->loop);
}

/* ---- which configuration is in force ---- */

static void log_level_change(const struct site *site, const struct nginx_compose *compose)
{
    bool worse = compose->refusal.kind != ERR_NONE &&
                 (site->level != compose->level ||
                  strcmp(site->refusal, compose->refusal.message) != 0);

    if (compose->refusal.kind == ERR_NONE && site->refusal[0] != '\0')
        log_info("nginx has the full configuration again");
    if (worse && compose->kept)
        log_error(
            "nginx keeps its former configuration, because it refuses the new one: "
            "%s (tried again when settings or templates change)",
            compose->refusal.message);
    else if (worse)
        log_error(
            "nginx has a reduced configuration: HTTPS serves /health and /tdx_quote, "
            "every other path answers 503, because of: %s (the full one is tried again "
            "%s)",
            compose->refusal.message,
            compose->unresolved ? "every 5 s" : "when settings or templates change");
}

static void replace_text(struct buf *text, const struct buf *by)
{
    struct err ignored = ERR_INIT;

    buf_clear(text);
    (void)buf_append(text, by->data, by->len, &ignored);
}

void site_took(struct site *site, const struct nginx_compose *compose)
{
    log_level_change(site, compose);
    site->level = compose->level;
    snprintf(site->refusal, sizeof site->refusal, "%s", compose->refusal.message);
    site->unresolved = compose->unresolved;
    replace_text(&site->installed, &compose->site);
    replace_text(&site->include, &compose->include);
    replace_text(&site->refused, &compose->refused);
    if (site->refusal[0] != '\0')
        timer_set(&site->timer, REDUCED_RETRY_MS);
}

const struct buf *site_former(const struct site *site)
{
    return site->level == NGINX_HTTPS ? &site->installed : NULL;
}

void site_took_http_only(struct site *site)
{
    site->level = NGINX_HTTP_ONLY;
    site->refusal[0] = '\0';
    timer_stop(&site->timer);
}

void site_note_change(struct site *site)
{
    site->due = true;
}

bool site_is_intact(const struct site *site)
{
    const struct nginx_files files = {.site = &site->installed,
                                      .include = &site->include};

    return nginx_has_files(site->config, &files);
}

/* Whether what nginx refused would be another text by now. */
static bool is_refused_text_old(const struct site *site)
{
    struct err err = ERR_INIT;
    BUF_SCOPED text = {0};
    BUF_SCOPED include = {0};

    buf_init(&text, NGINX_CONF_MAX_BYTES);
    buf_init(&include, NGINX_CONF_MAX_BYTES);
    if (nginx_render(site->config, site->facts, NGINX_HTTPS, &text, &include, &err) < 0)
        return strcmp(err.message, site->refusal) != 0;
    return strcmp(buf_str(&text), buf_str(&site->refused)) != 0;
}

/* ---- the flow ---- */

static void on_flow_done(void *owner, const struct err *err)
{
    struct site *site = owner;
    char wait[TEXT_DURATION_SIZE];

    site->running = false;
    if (err == NULL) {
        site->failures = 0;
        site->unreloaded = false;
        site_took(site, &site->flow.compose);
        site->failure = (struct err)ERR_INIT;
    } else if (err->kind != ERR_CANCELED) {
        uint64_t wait_ms = pace_local(++site->failures, random_number());
        int64_t wait_s = (int64_t)(wait_ms + 999) / 1000;
        const struct log_fields fields = {
            .failure = err,
            .attempt = site->failures,
            .next = (int64_t)time(NULL) + wait_s,
        };

        site->failure = *err;
        site->unreloaded = site->unreloaded || site->flow.changed;
        site->due = true;
        site->not_before_ms = uptime_ms(site) + wait_ms;
        log_write_with(LOG_ERROR, &fields, "%s (attempt %u, next in %s)", err->message,
                       site->failures, text_duration(wait, wait_s));
        site->events->failed(site->owner, &fields);
    }
    site_flow_done(&site->flow);
    site->events->ended(site->owner);
    site_kick(site);
}

void site_kick(struct site *site)
{
    const struct site_request request = {
        .loop = site->loop,
        .config = site->config,
        .facts = site->facts,
        .store = site->store,
        .former = site_former(site),
        .reload = site->unreloaded,
    };
    uint64_t now_ms = uptime_ms(site);

    if (!site->due || site->running || site->level == NGINX_HTTP_ONLY ||
        uv_is_closing((uv_handle_t *)&site->timer.handle))
        return;
    if (now_ms < site->not_before_ms) {
        timer_set(&site->timer, site->not_before_ms - now_ms);
        return;
    }
    if (!site->events->may_start(site->owner))
        return;
    if (site->changed) {
        site->follows++;
        site->followed_at_ms = now_ms;
    }
    site->changed = false;
    site->due = false;
    site->running = true;
    site_flow_start(&site->flow, &request, on_flow_done, site);
}

static void on_timer(void *owner)
{
    struct site *site = owner;

    if (site->refusal[0] != '\0' && !site->due) {
        if (site->unresolved || is_refused_text_old(site))
            site->due = true;
        else
            timer_set(&site->timer, REDUCED_RETRY_MS);
    }
    site_kick(site);
}

/* ---- addresses of backends ---- */

static void on_looked_up(void *owner, const struct upstream *upstream, bool changed,
                         const struct err *err)
{
    (void)owner;
    if (changed)
        log_info("upstream %s, port %u: %s%s", upstream->host, upstream->port,
                 upstream->addresses[0], upstream->count > 1 ? " and others" : "");
    else if (err != NULL && upstream->count > 0)
        log_debug("upstream %s: %s; its last addresses are kept", upstream->host,
                  err->message);
    else if (err != NULL)
        log_debug("upstream %s, port %u: %s", upstream->host, upstream->port,
                  err->message);
}

void site_log_missing(const struct upstreams *upstreams)
{
    for (size_t i = 0; i < upstreams->count; i++) {
        const struct upstream *upstream = &upstreams->items[i];

        if (upstream->count == 0)
            log_warning(
                "upstream %s, port %u: the name does not resolve; its paths answer "
                "502 until it does",
                upstream->host, upstream->port);
    }
}

static void on_round_over(void *owner, bool changed)
{
    struct site *site = owner;
    uint64_t now_ms = uptime_ms(site);

    if (!changed)
        return;
    if (now_ms - site->followed_at_ms > CHANGES_FORGET_MS)
        site->follows = 0;
    /* Since it was followed last: a name that never stops changing is followed, too. */
    site->not_before_ms =
        site->follows == 0
            ? 0
            : site->followed_at_ms +
                  pace_doubling(CHANGES_MIN_MS, CHANGES_MAX_MS, site->follows, 0);
    site->changed = true;
    site->due = true;
    site_kick(site);
}

static void on_ready(void *owner)
{
    struct site *site = owner;

    /* Said once: every two seconds would fill the log. */
    site_log_missing(&site->upstreams.upstreams);
    site->changed = false;
    /* Nothing is installed yet that could be out of date, unless by somebody with other settings. */
    site->due = site->level != NGINX_HTTP_ONLY;
    site->events->ready(site->owner);
}

static const struct upstream_watch_events watch_events = {
    .looked_up = on_looked_up,
    .round_over = on_round_over,
    .ready = on_ready,
};

/* ---- its life ---- */

int site_init(struct site *site, uv_loop_t *loop, const struct config *config,
              struct nginx_facts *facts, const struct store *store,
              const struct site_events *events, void *owner, struct err *err)
{
    *site = (struct site){
        .loop = loop,
        .config = config,
        .facts = facts,
        .store = store,
        .events = events,
        .owner = owner,
    };
    buf_init(&site->installed, NGINX_CONF_MAX_BYTES);
    buf_init(&site->include, NGINX_CONF_MAX_BYTES);
    buf_init(&site->refused, NGINX_CONF_MAX_BYTES);
    if (upstream_watch_init(&site->upstreams, loop, config, &watch_events, site, err) < 0)
        return -1;
    facts->upstreams = &site->upstreams.upstreams;
    timer_init(&site->timer, loop, on_timer, site);
    return 0;
}

void site_start(struct site *site)
{
    upstream_watch_start(&site->upstreams, UPSTREAM_WATCH_FIRST_ROUND_MS);
}

void site_inherit(struct site *site, const struct site *former)
{
    site->level = former->level;
    snprintf(site->refusal, sizeof site->refusal, "%s", former->refusal);
    site->unresolved = former->unresolved;
    site->follows = former->follows;
    site->followed_at_ms = former->followed_at_ms;
    site->not_before_ms = former->not_before_ms;
    replace_text(&site->installed, &former->installed);
    replace_text(&site->include, &former->include);
    replace_text(&site->refused, &former->refused);
    if (site->refusal[0] != '\0')
        timer_set(&site->timer, REDUCED_RETRY_MS);
}

void site_close(struct site *site)
{
    timer_close(&site->timer, NULL);
    upstream_watch_close(&site->upstreams);
    if (site->running)
        site_flow_cancel(&site->flow);
}

void site_done(struct site *site)
{
    upstream_watch_done(&site->upstreams);
    buf_done(&site->installed);
    buf_done(&site->include);
    buf_done(&site->refused);
}
