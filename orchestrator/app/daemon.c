/* What comes next: the plan, and what makes it be asked. */
#include "app/daemon_internal.h"

#include "base/fs.h"
#include "base/log.h"
#include "base/random.h"
#include "base/text.h"
#include "domain/pace.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* For whoever starts nginx, or writes its files, to finish. */
enum { NGINX_SETTLE_MS = 200 };

/* Somebody who writes them all the time must not make us do the same. */
enum { SECOND_LOOK_MS = 1000 };

uint64_t daemon_uptime_ms(struct daemon *d)
{
    uv_update_time(&d->loop);
    return uv_now(&d->loop);
}

/* ---- failures: logged once, here, with what happens next ---- */

void daemon_retry_later(struct daemon *d, enum plan_activity activity,
                        const struct err *err, uint64_t wait_ms)
{
    int64_t wait_s = (int64_t)(wait_ms + 999) / 1000;
    const struct log_fields fields = {
        .failure = err,
        .attempt = d->failures[activity],
        .next = (int64_t)time(NULL) + wait_s,
        .hint = d->told.failure.hint, /* once it is noted */
    };
    char wait[TEXT_DURATION_SIZE];

    if (err->kind == ERR_CANCELED && d->stopping)
        return;
    daemon_count_failure(d, activity, err->kind);
    d->plan_facts.retry_at_ms[activity] = daemon_uptime_ms(d) + wait_ms;
    daemon_note_failure(d, activity, err, wait_ms);
    text_duration(wait, wait_s);
    daemon_note_renew_failed(d, activity, err, wait);
    log_write_with(LOG_ERROR, &fields, "%s (attempt %u, next in %s)", err->message,
                   d->failures[activity], wait);
    daemon_tell_failure(d, activity, &fields);
}

uint64_t daemon_local_pace(const struct daemon *d, enum plan_activity activity)
{
    return pace_local(d->failures[activity], random_number());
}

/* An activity ended: its row of failures grows or is forgotten. */
void daemon_count(struct daemon *d, enum plan_activity activity, bool failed)
{
    d->failures[activity] = failed ? d->failures[activity] + 1 : 0;
    d->plan_facts.retry_at_ms[activity] = 0;
}
/* Every flow ends here. */
void daemon_flow_ended(struct daemon *d)
{
    d->activity = IDLE;
    daemon_note_step(d, "", "");
    if (d->stopping) {
        daemon_end_if_idle(d);
        return;
    }
    daemon_proceed(d);
    site_kick(&d->site);
}

/* ---- the plan ---- */

/* What is begun says so itself, and a failure has said when the next try is. */
static void log_plan(struct daemon *d, const struct plan *plan)
{
    bool scheduled = plan->action == PLAN_WAIT;

    for (int i = 0; i < PLAN_ACTIVITIES; i++)
        scheduled = scheduled && d->failures[i] == 0;
    if (strcmp(plan->reason, d->last_reason) != 0)
        log_write(plan->alarming ? LOG_WARNING
                  : scheduled    ? LOG_INFO
                                 : LOG_DEBUG,
                  "%s", plan->reason);
    snprintf(d->last_reason, sizeof d->last_reason, "%s", plan->reason);
}

/*
 * Somebody else may have written default.conf while a flow was at work: then the watch has said so
 * when nothing could be done about it. And an nginx that is starting is told soon.
 */
static uint64_t until_awakening(struct daemon *d, uint64_t planned_ms)
{
    bool overwritten = d->served != NULL && !d->site.running &&
                       !d->plan_facts.disturbed && !site_is_intact(&d->site);
    bool untold = d->served == NULL && d->unread;

    planned_ms = daemon_until_look(d, daemon_until_deadline(d, planned_ms));
    return (overwritten || untold) && planned_ms > SECOND_LOOK_MS ? SECOND_LOOK_MS
                                                                  : planned_ms;
}

static struct plan plan_now(struct daemon *d)
{
    daemon_follow_deployment(d);
    return plan_next(&d->plan_facts, (int64_t)time(NULL), daemon_uptime_ms(d));
}

/* Judging the stored pair is the one action that ends within its call. */
static struct plan decide(struct daemon *d)
{
    struct plan plan = plan_now(d);

    while (plan.action == PLAN_EXAMINE) {
        daemon_examine(d);
        plan = plan_now(d);
    }
    return plan;
}

void daemon_proceed(struct daemon *d)
{
    struct plan plan;

    if (daemon_gives_way(d))
        return;
    daemon_ask_ledger(d);
    plan = decide(d);
    /* With a deployment that was all there was to do. */
    if (d->stopping) {
        daemon_end_if_idle(d);
        return;
    }
    if (!daemon_follow_renew(d, &plan))
        plan = decide(d);
    daemon_note_plan(d, &plan);
    log_plan(d, &plan);
    daemon_publish_status(d);
    daemon_tell_level(d);
    daemon_refresh_health_file(d);
    /* Both write nginx's configuration. The end of the site's flow comes back here. */
    if (d->site.running && (plan.action == PLAN_APPLY || plan.action == PLAN_REPAIR ||
                            plan.action == PLAN_REAPPLY))
        return;
    if ((plan.action == PLAN_APPLY || plan.action == PLAN_REAPPLY) &&
        daemon_has_unjudged_pair(d))
        return;
    switch (plan.action) {
    case PLAN_WAIT:
        if (daemon_is_look_due(d))
            daemon_start_look(d);
        else
            timer_set(&d->wake, until_awakening(d, plan.wait_ms));
        break;
    case PLAN_FETCH_KEYS:
        daemon_start_keys(d);
        break;
    case PLAN_ADOPT:
        daemon_start_adopt(d);
        break;
    case PLAN_ISSUE:
        daemon_start_issue(d);
        break;
    case PLAN_APPLY:
        daemon_start_apply(d, CANDIDATE);
        break;
    case PLAN_REPAIR:
        daemon_start_apply(d, REPAIR);
        break;
    case PLAN_REAPPLY:
        daemon_start_apply(d, SERVED);
        break;
    case PLAN_GATHER:
        daemon_start_evidence(d);
        break;
    case PLAN_ASK_RENEWAL_INFO:
        daemon_start_asking(d);
        break;
    case PLAN_EXAMINE:
        assert(false && "handled above");
        break;
    }
}

/*
 * Somebody else may have changed default.conf since: `prestart`, when nginx had to be started while
 * the pair on disk was damaged, or a person. And a new master may have read anything.
 */
static void look_after_nginx(struct daemon *d)
{
    pid_t master;

    if (d->served == NULL || d->site.running || d->plan_facts.disturbed)
        return;
    master = nginx_master(d->config);
    if (!site_is_intact(&d->site))
        log_warning("%s is not the one that was installed; it is put back",
                    d->config->nginx.site_conf);
    else if (master != 0 && master != d->nginx_master)
        log_info("nginx was started again; what it serves is looked at");
    else
        return;
    d->applied = false;
    d->plan_facts.disturbed = true;
}

void daemon_on_wake(void *owner)
{
    struct daemon *d = owner;

    if (d->stopping)
        return;
    daemon_look_after_http_only(d);
    if (d->activity != IDLE)
        return;
    look_after_nginx(d);
    daemon_look_at_folder(d);
    daemon_proceed(d);
}

/* ---- what others do to our files ---- */

/* Our own writing is over when the loop comes to its event. */
static void on_nginx_touched(void *owner, const char *name)
{
    struct daemon *d = owner;

    (void)name;
    if (!d->stopping)
        timer_set(&d->wake, NGINX_SETTLE_MS);
}

static void on_tls_folder_changed(void *owner, const char *name)
{
    struct daemon *d = owner;

    if (strcmp(name, "cert.pem") == 0 || strcmp(name, "key.pem") == 0 || name[0] == '\0')
        daemon_folder_touched(d);
}

/* Without it the look that is taken every minute sees it. */
static void watch_folder(struct daemon *d, struct watch *watch, const char *folder,
                         void (*changed)(void *owner, const char *name))
{
    struct err err = ERR_INIT;

    if (watch_start(watch, &d->loop, folder, changed, d, &err) < 0)
        log_failed(LOG_WARNING, &err, "%s is not watched: %s (looked at every minute)",
                   folder, err.message);
}

void daemon_watch_others(struct daemon *d)
{
    char folder[FS_PATH_MAX];
    struct err err = ERR_INIT;

    if (nginx_site_folder(d->config, folder, &err) == 0)
        watch_folder(d, &d->site_folder, folder, on_nginx_touched);
    snprintf(folder, sizeof folder, "%.*s",
             (int)(strrchr(d->config->nginx.pid_file, '/') - d->config->nginx.pid_file),
             d->config->nginx.pid_file);
    watch_folder(d, &d->pid_folder, folder[0] == '\0' ? "/" : folder, on_nginx_touched);
    watch_folder(d, &d->tls_folder, d->store.folder, on_tls_folder_changed);
}
