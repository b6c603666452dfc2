/*
 * Other settings in the same process: SIGHUP, or POST /v1/reload.
 *
 * They are read and judged whole, the configuration that nginx would get included, and nothing changes
 * when something is wrong with them. Then the flow at work comes to its end, the loop is left, and
 * daemon_run() begins anew with them: everything follows from them as it does after a start, and nothing
 * has to know how to become something else. What nginx serves goes on through all of it.
 */
#include "app/daemon_internal.h"

#include "adapters/evidence_folder.h"
#include "adapters/nginx_listen.h"
#include "app/sandbox.h"
#include "app/setup.h"
#include "base/log.h"
#include "base/text.h"
#include "domain/json_text.h"

#include <stdio.h>
#include <string.h>

/* Every life may cost nginx a reload, which leaves workers behind until their streams have ended. */
enum { REST_MS = 1000 };

/* ---- read ---- */

/* Where others look for us, and we for nginx: prestart, nginx.conf and supervisord know these, too. */
static void refuse_other_places(const struct config *now, const struct config *next,
                                struct config_report *report)
{
    const struct {
        const char *key;
        const char *now;
        const char *next;
    } places[] = {
        {"run_dir", now->run_dir, next->run_dir},
        {"nginx.conf", now->nginx.conf, next->nginx.conf},
        {"nginx.site_conf", now->nginx.site_conf, next->nginx.site_conf},
        {"nginx.pid_file", now->nginx.pid_file, next->nginx.pid_file},
    };

    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        if (strcmp(places[i].now, places[i].next) != 0)
            config_report_error(report,
                                "%s: %s cannot become %s while the container runs; start "
                                "it again",
                                places[i].key, places[i].now, places[i].next);
    }
    if (now->file != NULL && next->file == NULL)
        config_report_error(report, "settings file %s: it was read before, and is gone",
                            now->file);
}

static int read_next(struct daemon *d, struct config *ret, struct config_report *report)
{
    if (setup_read(ret, report, d->reload.said) == 0) {
        refuse_other_places(d->config, ret, report);
        sandbox_judge(d->config, ret, report);
    }
    return report->error_count == 0 ? 0 : -1;
}

static void forget_next(struct reload *r)
{
    config_done(&r->next);
    r->next = (struct config){0};
    r->wanted = false;
    r->judged = false;
}

static void log_report(const struct config_report *report)
{
    for (size_t i = 0; i < report->warning_count; i++)
        log_warning("%s", report->warnings[i]);
    for (size_t i = 0; i < report->error_count; i++)
        log_error("not reloaded: %s", report->errors[i]);
}

/* One that is at work goes on, and says itself what comes of it. */
static void note_refused(struct daemon *d, const struct config_report *report)
{
    struct control_request *request = &d->requests[REQUEST_RELOAD];
    char more[40] = "";

    if (daemon_request_is_open(request) || report->error_count == 0)
        return;
    if (report->error_count > 1)
        snprintf(more, sizeof more, " (and %zu more)", report->error_count - 1);
    daemon_request_accept(request);
    daemon_request_set(request, REQUEST_FAILED, "%s%s", report->errors[0], more);
    daemon_publish_status(d);
}

int daemon_ask_reload(struct daemon *d, struct config_report *report)
{
    struct reload *r = &d->reload;
    struct config next;

    if (read_next(d, &next, report) < 0) {
        config_done(&next);
        log_report(report);
        note_refused(d, report);
        return -1;
    }
    log_report(report);
    daemon_request_accept(&d->requests[REQUEST_RELOAD]);
    if (d->stopping) { /* for settings that were judged before these */
        config_done(&next);
        r->comes_late = true;
        return 0;
    }
    log_info("the settings have been read again");
    r->replaced = r->judging;
    if (r->replaced)
        nginx_test_cancel(&r->test);
    forget_next(r);
    r->next = next;
    r->wanted = true;
    daemon_publish_status(d);
    return 0;
}

/* ---- judged by nginx ---- */

static void give_up(struct daemon *d, const struct err *err)
{
    log_error("not reloaded: %s", err->message);
    daemon_request_set(&d->requests[REQUEST_RELOAD], REQUEST_FAILED, "%s", err->message);
    forget_next(&d->reload);
    if (d->activity == IDLE)
        daemon_proceed(d);
}

static void on_judged(void *owner, const struct err *err)
{
    struct daemon *d = owner;
    struct reload *r = &d->reload;
    bool replaced = r->replaced;

    r->judging = false;
    r->replaced = false;
    upstreams_done(&r->upstreams);
    buf_done(&r->site);
    buf_done(&r->include);
    if (d->stopping) {
        daemon_end_if_idle(d);
        return;
    }
    /* What keeps nginx from the full configuration already is no worse with them. */
    if (!replaced && err != NULL && strcmp(err->message, d->site.refusal) != 0) {
        give_up(d, err);
        return;
    }
    r->judged = !replaced;
    (void)daemon_gives_way(d);
}

/* As the next life would have them. */
static int find_facts(struct daemon *d, struct err *err)
{
    struct reload *r = &d->reload;
    struct store store;

    r->facts = d->facts;
    r->facts.upstreams = &r->upstreams;
    if (!r->next.nginx.live_chain)
        r->facts.live_chain = NULL;
    nginx_find_metrics(&r->next, &r->facts);
    upstreams_recall(&r->upstreams, &d->site.upstreams.upstreams);
    return store_init(&store, &r->next, err) < 0 ||
                   evidence_folder_for_nginx(&r->next, r->evidence, &r->facts, err) < 0
               ? -1
               : 0;
}

/* With the pair that is there: another one brings its own test along. */
static int start_judging(struct daemon *d, struct err *err)
{
    struct reload *r = &d->reload;
    enum nginx_level level = d->served != NULL ? NGINX_HTTPS : NGINX_HTTP_ONLY;
    const struct nginx_test_request test = {
        .loop = &d->loop,
        .config = &r->next,
        .files = {.site = &r->site, .include = level == NGINX_HTTPS ? &r->include : NULL},
        .chain = d->store.chain,
        .key = d->store.key,
        .timeout_ms = NGINX_TEST_MS,
    };

    buf_init(&r->site, NGINX_CONF_MAX_BYTES);
    buf_init(&r->include, NGINX_CONF_MAX_BYTES);
    if (upstreams_init(&r->upstreams, &r->next, err) < 0 || find_facts(d, err) < 0 ||
        nginx_render(&r->next, &r->facts, level, &r->site, &r->include, err) < 0)
        return -1;
    /* It binds ports, which it could not give back to an nginx that starts. */
    if (nginx_master(&r->next) == 0)
        return 0;
    if (nginx_try_ports(d->config, &r->next, d->facts.ipv6, err) < 0)
        return -1;
    r->judging = true;
    nginx_test_start(&r->test, &test, on_judged, d);
    return 0;
}

static void judge(struct daemon *d)
{
    struct err err = ERR_INIT;

    daemon_request_set(&d->requests[REQUEST_RELOAD], REQUEST_RUNNING,
                       "nginx is asked whether it would take the configuration");
    if (start_judging(d, &err) < 0)
        on_judged(d, &err);
    else if (!d->reload.judging)
        on_judged(d, NULL);
}

/* ---- lived by ---- */

/* What would be lost, or would have to be done again, when it was cut short. */
static const char *worth_waiting_for(const struct daemon *d)
{
    if (d->site.running)
        return "nginx to take its configuration";
    switch (d->activity) {
    case STARTING:
        return "the start";
    case ISSUING:
        return d->flow.issue.order_at != 0 || d->config->development
                   ? "the order that is at work"
                   : NULL;
    case APPLYING:
        return "the certificate that is being applied";
    default:
        return NULL;
    }
}

static void wait_for(struct daemon *d, const char *what)
{
    daemon_request_set(&d->requests[REQUEST_RELOAD], REQUEST_WAITING, "waits for %s",
                       what);
    daemon_publish_status(d);
}

bool daemon_reload_is_due(struct daemon *d)
{
    return d->reload.wanted && daemon_uptime_ms(d) >= d->reload.not_before_ms;
}

bool daemon_gives_way(struct daemon *d)
{
    struct reload *r = &d->reload;
    const char *first = worth_waiting_for(d);

    if (d->stopping || !r->wanted)
        return false;
    if (!daemon_reload_is_due(d)) {
        timer_set(&r->resume, r->not_before_ms - daemon_uptime_ms(d));
        return false;
    }
    if (r->judging)
        return true;
    /* The mirror that nginx tests in is taken while it is to take another configuration. */
    if (!r->judged &&
        (d->activity == STARTING || d->activity == APPLYING || d->site.running)) {
        wait_for(d, first);
    } else if (!r->judged) {
        judge(d);
    } else if (first != NULL) {
        wait_for(d, first);
    } else if (d->hooks.running) {
        wait_for(d, "the hook that is at work");
        return false; /* nothing else waits for one */
    } else {
        r->lives_on = true;
        daemon_stop(d);
    }
    return true;
}

static void on_resume(void *owner)
{
    struct daemon *d = owner;

    if (!d->stopping)
        (void)daemon_gives_way(d);
}

bool daemon_stop_reload(struct daemon *d)
{
    if (d->reload.judging)
        nginx_test_cancel(&d->reload.test);
    return !d->reload.judging;
}

/* ---- its life ---- */

void daemon_init_reload(struct daemon *d)
{
    timer_init(&d->reload.resume, &d->loop, on_resume, d);
    d->reload.not_before_ms = daemon_uptime_ms(d) + REST_MS;
}

void daemon_done_reload(struct daemon *d)
{
    forget_next(&d->reload);
}

void daemon_note_settings_applied(struct daemon *d, const struct err *err)
{
    struct control_request *request = &d->requests[REQUEST_RELOAD];
    const char *refusal = d->site.refusal;

    if (!d->reload.unsettled)
        return;
    d->reload.unsettled = false;
    if (d->reload.wanted) /* the next ones have to say */
        return;
    if (err != NULL)
        daemon_request_set(request, REQUEST_FAILED,
                           "the new settings are in force, but nginx does not have them "
                           "yet: %s",
                           err->message);
    else
        daemon_request_set(
            request, REQUEST_DONE, "the new settings are in force%s%s",
            refusal[0] == '\0' ? "" : ", but not all of nginx's: ", refusal);
    log_info("%s", request->text);
}

/* ---- over the socket ---- */

static json_t *errors_of(const struct config_report *report)
{
    json_t *list = json_array();

    for (size_t i = 0; i < report->error_count; i++) {
        char line[2 * ERR_MESSAGE_MAX];

        text_escape(line, sizeof line, report->errors[i], strlen(report->errors[i]));
        json_array_append_new(list, json_string(line));
    }
    return list;
}

int daemon_answer_reload(struct daemon *d, const struct server_request *request,
                         struct server_answer *ret, struct err *err)
{
    struct config_report report;
    int failed = 0;

    (void)request;
    if (daemon_ask_reload(d, &report) < 0) {
        ret->status = 422;
        failed = json_to_text(json_pack("{s:o}", "errors", errors_of(&report)), 0,
                              "the errors cannot be written as JSON", &ret->body, err);
    } else {
        if (!d->stopping) /* once this is answered: the socket goes with this life */
            timer_set(&d->reload.resume, 0);
        failed = daemon_request_answer(&d->requests[REQUEST_RELOAD], ret, err);
    }
    config_report_done(&report);
    return failed;
}
