/*
 * health.status_file, for dstack's guest agent: two lines, "healthy" or "unhealthy" and when that was
 * written. It counts for 60 s, and is to be written at least twice in that time. With it dstack's gateway
 * decides which instances of an application are asked.
 */
#include "app/daemon_internal.h"

#include "base/fs.h"
#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum {
    PERIOD_MS = 20 * 1000,
    /*
     * What an earlier life wrote counts meanwhile: nginx serves while the daemon is started again, and
     * must not be taken out of the rotation for that.
     */
    START_MS = 30 * 1000,
};

/*
 * Whether the application is reached by HTTPS here. With the reduced configuration it is not, although
 * the certificate is served; and nobody tells us at once of an nginx that has ended.
 */
static bool is_healthy(const struct daemon *d)
{
    struct health health;

    daemon_judge_health(d, &health);
    return health.healthy && d->site.level == NGINX_HTTPS && nginx_master(d->config) != 0;
}

/* Logged when it begins and when it ends: without it the instance is not asked. */
static void note(struct daemon *d, const struct err *failure)
{
    const char *hint = "";

    if (failure->kind == ERR_NONE && d->health_file.failing)
        log_info("%s can be written again", d->config->health_status_file);
    if (failure->kind != ERR_NONE && !d->health_file.failing) {
        if (failure->code == EBUSY)
            hint = "; mount its folder and not the file";
        log_failed(LOG_ERROR, failure,
                   "health.status_file: %s%s (tried again every %d s)", failure->message,
                   hint, PERIOD_MS / 1000);
    }
    d->health_file.failing = failure->kind != ERR_NONE;
}

static void write_file(struct daemon *d, bool healthy)
{
    struct health_file *file = &d->health_file;
    struct err err = ERR_INIT;
    char text[64];

    snprintf(text, sizeof text, "%s\n%" PRId64 "\n", healthy ? "healthy" : "unhealthy",
             (int64_t)time(NULL));
    (void)fs_replace_now(d->config->health_status_file, text, strlen(text), 0644, &err);
    note(d, &err);
    file->written = err.kind == ERR_NONE;
    file->healthy = healthy;
    file->written_ms = daemon_uptime_ms(d);
}

void daemon_refresh_health_file(struct daemon *d)
{
    struct health_file *file = &d->health_file;
    bool healthy;

    if (d->config->health_status_file == NULL || d->stopping || d->deploys_only)
        return;
    healthy = is_healthy(d);
    if (d->served == NULL && !file->written &&
        daemon_uptime_ms(d) - file->begun_ms < START_MS)
        return;
    if (!file->written || file->healthy != healthy ||
        daemon_uptime_ms(d) - file->written_ms >= PERIOD_MS)
        write_file(d, healthy);
}

void daemon_withdraw_health_file(struct daemon *d)
{
    if (d->config->health_status_file != NULL && !d->deploys_only)
        write_file(d, false);
}

static void on_timer(void *owner)
{
    struct daemon *d = owner;

    daemon_refresh_health_file(d);
    timer_set(&d->health_file.timer, PERIOD_MS);
}

void daemon_init_health_file(struct daemon *d)
{
    timer_init(&d->health_file.timer, &d->loop, on_timer, d);
    d->health_file.begun_ms = daemon_uptime_ms(d);
    if (d->config->health_status_file != NULL)
        timer_set(&d->health_file.timer, PERIOD_MS);
}

void daemon_close_health_file(struct daemon *d)
{
    timer_close(&d->health_file.timer, NULL);
}
