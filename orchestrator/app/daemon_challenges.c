/*
 * Challenge files while certbot runs: each is seen, fetched once as the CA does, and gone in the end.
 * What comes of it is only told and counted; the CA alone decides.
 */
#include "app/daemon_internal.h"

#include "adapters/certbot.h"
#include "base/log.h"
#include "base/text.h"

#include <stdio.h>
#include <string.h>

/* ---- fetched once ---- */

static void fetch_next(struct daemon *d);

static void on_fetched(void *owner, const struct err *err)
{
    struct daemon *d = owner;
    struct challenges *c = &d->challenges;
    const struct http_call *call = &c->fetch.call;

    c->fetching = false;
    if (err != NULL && err->kind != ERR_CANCELED)
        log_warning("the answer to challenge %s is not served: %s", c->name,
                    err->message);
    else if (err == NULL && (call->status != 200 ||
                             strcmp(buf_str(&call->body), buf_str(&c->text)) != 0))
        log_warning("the answer to challenge %s is not served: HTTP status %d%s", c->name,
                    call->status, call->status == 200 ? ", with another text" : "");
    else if (err == NULL)
        c->counts.served++;
    http_call_done(&c->fetch.call);
    buf_done(&c->text);
    if (d->stopping)
        daemon_end_if_idle(d);
    else
        fetch_next(d);
}

static void fetch_next(struct daemon *d)
{
    struct challenges *c = &d->challenges;

    for (size_t i = 0; i < c->seen_count && !c->fetching; i++) {
        struct challenge_seen *seen = &c->seen[i];

        if (seen->fetched || seen->gone)
            continue;
        seen->fetched = true;
        memcpy(c->name, seen->name, sizeof c->name);
        challenge_read(d->config, c->name, &c->text);
        c->fetching = true;
        challenge_fetch_start(&c->fetch, d->http, d->config, NULL, c->name, on_fetched,
                              d);
    }
}

/* ---- seen, and gone ---- */

static struct challenge_seen *find(struct challenges *c, const char *name)
{
    for (size_t i = 0; i < c->seen_count; i++) {
        if (strcmp(c->seen[i].name, name) == 0)
            return &c->seen[i];
    }
    return NULL;
}

/* certbot makes the file first and writes it then: it is there when it has its text. */
static bool has_text(const struct daemon *d, const char *name)
{
    BUF_SCOPED text = {0};
    size_t len = strlen(name);

    challenge_read(d->config, name, &text);
    return text.len > len + 1 && strncmp(buf_str(&text), name, len) == 0 &&
           buf_str(&text)[len] == '.';
}

static void on_changed(void *owner, const char *name)
{
    struct daemon *d = owner;
    struct challenges *c = &d->challenges;
    struct challenge_seen *seen = find(c, name);
    bool there;

    log_debug("challenge file %s came or went", name);
    if (d->activity != ISSUING || d->stopping || !challenge_is_token(name))
        return;
    there = has_text(d, name);
    if (seen != NULL && !there && !seen->gone) {
        seen->gone = true;
        log_debug("the answer to challenge %s is gone", name);
    }
    if (seen != NULL || !there)
        return;
    log_info("certbot presents the answer to challenge %s", name);
    c->counts.presented++;
    c->presented++;
    if (c->seen_count == CHALLENGES_SEEN_MAX)
        return;
    seen = &c->seen[c->seen_count++];
    *seen = (struct challenge_seen){.fetched = false};
    snprintf(seen->name, sizeof seen->name, "%s", name);
    fetch_next(d);
}

/* ---- an order begins and ends ---- */

void daemon_begin_challenges(struct daemon *d)
{
    d->challenges.seen_count = 0;
    d->challenges.presented = 0;
}

void daemon_judge_challenges(struct daemon *d, const struct certbot_outcome *outcome)
{
    struct challenges *c = &d->challenges;

    if (outcome->verdict == CERTBOT_CHALLENGE_FAILED)
        c->counts.failed += c->presented;
    if (outcome->verdict != CERTBOT_ISSUED)
        return;
    c->counts.succeeded += c->presented;
    if (c->presented == 0)
        log_info("no challenge was presented: the CA has validated the domain before");
}

/* ---- its life ---- */

void daemon_watch_challenges(struct daemon *d)
{
    char folder[FS_PATH_MAX];
    struct err err = ERR_INIT;

    if (certbot_make_challenge_folder(d->config, &err) < 0 ||
        certbot_challenge_folder(d->config, folder, &err) < 0 ||
        watch_start(&d->challenges.watch, &d->loop, folder, on_changed, d, &err) < 0)
        log_failed(LOG_WARNING, &err,
                   "challenge files are not watched: %s (orders are made all the same)",
                   err.message);
}

bool daemon_stop_challenges(struct daemon *d)
{
    if (d->challenges.fetching)
        challenge_fetch_cancel(&d->challenges.fetch);
    return !d->challenges.fetching;
}
