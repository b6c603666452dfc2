/* What programs of the operator are told, and that they are: one after the other, and nothing waits for them. */
#include "app/daemon_internal.h"

#include "base/fs.h"
#include "domain/json_text.h"

#include <stdio.h>
#include <string.h>

enum { AGAIN_MS = 3600 * 1000, RECORD_MAX_BYTES = 4 * 1024 };

#define RECORD "hooks.json"

/* Of these it is known what was told last. */
static const enum hook_event kept[] = {HOOK_APPLIED, HOOK_LEVEL_CHANGED};

static bool has_hook(const struct daemon *d, enum hook_event event)
{
    return d->config->hooks.commands[event].count > 0 && !d->deploys_only;
}

/* ---- what was told last, for the next life ---- */

static void load_record(struct daemon *d)
{
    BUF_SCOPED text = {0};
    struct err err = ERR_INIT;
    char path[FS_PATH_MAX];
    json_t *root = NULL;

    if (fs_join(path, d->config->run_dir, RECORD, &err) == 0 && fs_exists(path) &&
        fs_read(path, RECORD_MAX_BYTES, &text, &err) == 0)
        root = json_load_whole(buf_str(&text), text.len, 0, NULL);
    for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++) {
        const char *subject =
            json_string_value(json_object_get(root, hook_event_name(kept[i])));

        snprintf(d->hooks.told[kept[i]], HOOK_SUBJECT_SIZE, "%s",
                 subject == NULL ? "" : subject);
        memcpy(d->hooks.said[kept[i]], d->hooks.told[kept[i]], HOOK_SUBJECT_SIZE);
    }
    json_decref(root);
}

/* Without it they are told once more. */
static void save_record(const struct daemon *d)
{
    BUF_SCOPED text = {.max = RECORD_MAX_BYTES};
    char path[FS_PATH_MAX];
    struct err err = ERR_INIT;
    json_t *root = json_object();

    for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++)
        json_object_set_new(root, hook_event_name(kept[i]),
                            json_string(d->hooks.told[kept[i]]));
    if (json_to_text(root, 2, "what hooks were told cannot be written as JSON", &text,
                     &err) < 0 ||
        fs_join(path, d->config->run_dir, RECORD, &err) < 0 ||
        fs_replace(path, text.data, text.len, 0600, &err) < 0)
        log_warning("hooks are told the same again after a restart: %s", err.message);
}

/* ---- the queue ---- */

static void drop(struct daemon *d, size_t i)
{
    struct hooks *hooks = &d->hooks;

    hook_environment_done(&hooks->queue[i].environment);
    hooks->count--;
    memmove(&hooks->queue[i], &hooks->queue[i + 1],
            (hooks->count - i) * sizeof hooks->queue[0]);
}

static void run_next(struct daemon *d);

static void on_hook_done(void *owner, const struct err *err)
{
    struct daemon *d = owner;
    struct hooks *hooks = &d->hooks;
    const struct hook_telling *telling = &hooks->queue[0];
    const char *name = hook_event_name(telling->event);
    bool canceled = err != NULL && err->kind == ERR_CANCELED;

    hooks->running = false;
    if (canceled)
        log_warning("hook on_%s is ended, because the daemon stops", name);
    else if (err != NULL)
        log_failed(LOG_WARNING, err,
                   "hook on_%s has failed, and nothing depends on it: %s", name,
                   err->message);
    else
        log_debug("hook on_%s has ended well", name);
    if (!canceled && strcmp(hooks->told[telling->event], telling->subject) != 0) {
        memcpy(hooks->told[telling->event], telling->subject, HOOK_SUBJECT_SIZE);
        save_record(d);
    }
    drop(d, 0);
    if (d->stopping) {
        daemon_end_if_idle(d);
        return;
    }
    /* A reload may have waited for it, and then the next life has the others. */
    (void)daemon_gives_way(d);
    run_next(d);
}

static void run_next(struct daemon *d)
{
    struct hooks *hooks = &d->hooks;

    /* Settings may have changed since it was told. */
    while (!hooks->running && hooks->count > 0 && !has_hook(d, hooks->queue[0].event))
        drop(d, 0);
    if (hooks->running || hooks->count == 0 || d->stopping)
        return;
    hooks->running = true;
    hook_start(&hooks->hook, &d->loop, d->config, hooks->queue[0].event,
               &hooks->queue[0].environment, on_hook_done, d);
}

static void tell(struct daemon *d, const struct hook_news *news, const char *subject)
{
    struct hooks *hooks = &d->hooks;
    struct hook_telling *telling;
    struct err err = ERR_INIT;

    /* A deployment without a daemon: that tells it at its start. */
    if ((d->stopping && !d->reload.lives_on) || d->deploys_only)
        return;
    if (hooks->count == HOOKS_WAITING_MAX) {
        size_t oldest = hooks->running ? 1 : 0;

        log_warning("hook on_%s is left out: %d others wait already",
                    hook_event_name(hooks->queue[oldest].event), HOOKS_WAITING_MAX);
        drop(d, oldest);
    }
    telling = &hooks->queue[hooks->count];
    telling->event = news->event;
    snprintf(telling->subject, sizeof telling->subject, "%s", subject);
    if (hook_environment(news, &telling->environment, &err) < 0) {
        log_warning("%s: on_%s", err.message, hook_event_name(news->event));
        hook_environment_done(&telling->environment);
        return;
    }
    hooks->count++;
    run_next(d);
}

void daemon_init_hooks(struct daemon *d)
{
    load_record(d);
}

void daemon_inherit_hooks(struct daemon *d, struct daemon *former)
{
    d->hooks = former->hooks;
    former->hooks.count = 0;
    run_next(d);
}

void daemon_done_hooks(struct daemon *d)
{
    while (d->hooks.count > 0)
        drop(d, d->hooks.count - 1);
}

bool daemon_stop_hooks(struct daemon *d)
{
    struct hooks *hooks = &d->hooks;

    while (!d->reload.lives_on && hooks->count > (hooks->running ? 1 : 0)) {
        log_warning("hook on_%s is not run, because the daemon stops",
                    hook_event_name(hooks->queue[hooks->count - 1].event));
        drop(d, hooks->count - 1);
    }
    if (hooks->running)
        hook_cancel(&hooks->hook);
    return !hooks->running;
}

/* ---- what is told ---- */

/* Whether it is another one than was said last; then it is said now. */
static bool is_news(struct daemon *d, enum hook_event event, const char *subject)
{
    char *said = d->hooks.said[event];

    if (!has_hook(d, event) || strcmp(said, subject) == 0)
        return false;
    snprintf(said, HOOK_SUBJECT_SIZE, "%s", subject);
    return true;
}

void daemon_tell_issued(struct daemon *d)
{
    const struct hook_news news = {
        .event = HOOK_ISSUED,
        .config = d->config,
        .leaf = chain_leaf(d->candidate),
    };

    if (has_hook(d, HOOK_ISSUED))
        tell(d, &news, "");
}

/* Served unattested first, and attested later, is told twice. */
void daemon_tell_applied(struct daemon *d)
{
    const struct hook_news news = {
        .event = HOOK_APPLIED,
        .config = d->config,
        .leaf = chain_leaf(d->served),
        .attested = d->attested,
    };
    char subject[HOOK_SUBJECT_SIZE];

    snprintf(subject, sizeof subject, "%s%s", news.leaf->sha256,
             d->attested ? "" : " unattested");
    if (is_news(d, HOOK_APPLIED, subject))
        tell(d, &news, subject);
}

/* Until something was applied in this life it is not known what nginx has. */
void daemon_tell_level(struct daemon *d)
{
    const char *level = nginx_level_name(d->site.level);
    char former[HOOK_SUBJECT_SIZE];
    struct hook_news news = {
        .event = HOOK_LEVEL_CHANGED,
        .config = d->config,
        .level = level,
        .former_level = former,
        .reason = d->site.refusal,
    };

    memcpy(former, d->hooks.said[HOOK_LEVEL_CHANGED], sizeof former);
    if (former[0] == '\0') /* what `prestart` has made */
        snprintf(former, sizeof former, "%s", nginx_level_name(NGINX_HTTP_ONLY));
    if (d->applied && is_news(d, HOOK_LEVEL_CHANGED, level) && strcmp(former, level) != 0)
        tell(d, &news, level);
}

void daemon_tell_failure(struct daemon *d, enum plan_activity activity,
                         const struct log_fields *fields)
{
    const struct err *failure = fields->failure;
    const char *step = failure->step == NULL ? "" : failure->step;
    uint64_t now_ms = daemon_uptime_ms(d);
    const struct hook_news news = {
        .event = HOOK_FAILED,
        .config = d->config,
        .failure = failure,
        .attempt = fields->attempt,
        .next = fields->next,
        .hint = fields->hint,
    };

    if (!has_hook(d, HOOK_FAILED))
        return;
    /* One that goes on is told again every hour, and not each time. */
    if (d->hooks.failures[activity].attempt > 0 &&
        d->hooks.failures[activity].attempt < fields->attempt &&
        d->hooks.failures[activity].kind == failure->kind &&
        strcmp(d->hooks.failures[activity].step, step) == 0 &&
        now_ms - d->hooks.failures[activity].at_ms < AGAIN_MS)
        return;
    d->hooks.failures[activity].kind = failure->kind;
    d->hooks.failures[activity].step = step;
    d->hooks.failures[activity].attempt = fields->attempt;
    d->hooks.failures[activity].at_ms = now_ms;
    tell(d, &news, "");
}
