/* What the daemon says about itself: <run_dir>/status.json, and the same over the control socket. */
#include "app/daemon_internal.h"

#include "app/sandbox.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/text.h"
#include "domain/hint.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

enum { STATUS_MAX_BYTES = 256 * 1024 };

/* ---- what goes on ---- */

/* Sequences have others below them; what people want to know is the step of the flow itself. */
static bool is_at_work(const struct daemon *d, const char *flow)
{
    static const char *const flows[] = {
        [IDLE] = "nginx", /* the site's own, when no other one is at work */
        [STARTING] = "nginx",      [FETCHING_KEYS] = "keys", [ADOPTING] = "adopt",
        [CHECKING] = "pre-flight", [ISSUING] = "issue",      [APPLYING] = "apply",
        [LOOKING] = "look",        [GATHERING] = "evidence", [ASKING] = "renewal info",
    };

    return strcmp(flow, flows[d->activity]) == 0 ||
           (d->activity == APPLYING && strcmp(flow, "way back") == 0);
}

void daemon_note_step(struct daemon *d, const char *flow, const char *step)
{
    struct status_activity *activity = &d->told.activity;

    if (flow[0] != '\0' && !is_at_work(d, flow))
        return;
    snprintf(activity->flow, sizeof activity->flow, "%s", flow);
    snprintf(activity->step, sizeof activity->step, "%s", step);
    activity->since = (int64_t)time(NULL);
}

void daemon_note_plan(struct daemon *d, const struct plan *plan)
{
    d->told.next = (struct status_next){
        .action = plan->next,
        .alarming = plan->alarming,
    };
    if (plan->next_in_ms != UINT64_MAX)
        d->told.next.at = (int64_t)time(NULL) + (int64_t)(plan->next_in_ms / 1000);
}

void daemon_note_probe(struct daemon *d, const char *sha256, const struct err *failure)
{
    struct status_probe *probe = &d->told.probe;

    probe->at = (int64_t)time(NULL);
    snprintf(probe->sha256, sizeof probe->sha256, "%s", sha256);
    probe->error[0] = '\0';
    if (failure != NULL)
        text_escape(probe->error, sizeof probe->error, failure->message,
                    strlen(failure->message));
}

static const char *source_name(enum measure_source source)
{
    return source == MEASURE_FROM_LOG ? "event log" : "own record";
}

void daemon_note_event(struct daemon *d, const char *sha256, enum measure_source source)
{
    struct status_event *event = &d->told.event;

    event->at = (int64_t)time(NULL);
    event->from = source_name(source);
    snprintf(event->sha256, sizeof event->sha256, "%s", sha256);
}

void daemon_note_success(struct daemon *d, enum plan_activity activity)
{
    d->told.success = (struct status_success){
        .what = plan_activity_name(activity),
        .at = (int64_t)time(NULL),
    };
}

/* The checks before an order have hints of their own, and certbot says more than a kind. */
static const char *hint_for(const struct daemon *d, enum plan_activity activity,
                            enum err_kind kind)
{
    if (activity == PLAN_ISSUING && d->activity == ISSUING && d->flow.issue.certbot_ran)
        return hint_of_order(d->flow.issue.outcome.verdict);
    for (int i = 0; activity == PLAN_PREFLIGHT && i < PREFLIGHT_CHECKS; i++) {
        if (d->preflight.findings[i].verdict == PREFLIGHT_FAILED)
            return d->preflight.findings[i].hint;
    }
    return hint_of(activity, kind);
}

void daemon_note_failure(struct daemon *d, enum plan_activity activity,
                         const struct err *err, uint64_t wait_ms)
{
    struct status_failure *failure = &d->told.failure;

    *failure = (struct status_failure){
        .what = plan_activity_name(activity),
        .at = (int64_t)time(NULL),
        .kind = err->kind,
        .attempt = d->failures[activity],
    };
    failure->retry_at = failure->at + (int64_t)(wait_ms + 999) / 1000;
    /* Others' words are in it, and JSON is UTF-8. */
    text_escape(failure->reason, sizeof failure->reason, err->message,
                strlen(err->message));
    snprintf(failure->hint, sizeof failure->hint, "%s", hint_for(d, activity, err->kind));
    d->told.failed = activity;
}

/* ---- as JSON ---- */

static struct status_agent agent_of(const struct daemon *d)
{
    if (d->config->development)
        return (struct status_agent){.endpoint = NULL};
    return (struct status_agent){
        .endpoint = dstack_endpoint(&d->agent),
        .version = d->told.agent_version,
        .name = d->told.app_name,
    };
}

static struct status_certbot certbot_of(const struct daemon *d)
{
    const struct preflight_finding *finding = &d->preflight.findings[PREFLIGHT_CERTBOT];

    if (d->config->development || d->config->tls.external_key)
        return (struct status_certbot){.path = NULL};
    return (struct status_certbot){
        .path = d->config->certbot.path,
        .version = finding->verdict == PREFLIGHT_OK ? d->certbot_version.text : "",
        .error = finding->verdict == PREFLIGHT_FAILED ? finding->text : "",
    };
}

int daemon_status_text(const struct daemon *d, struct buf *ret, struct err *err)
{
    struct ledger_permits permits[AUTHORITIES_MAX][LEDGER_BUCKETS];
    struct status_failure failure = d->told.failure;
    const struct control_request *reload = &d->requests[REQUEST_RELOAD];
    struct status status = {
        .config = d->config,
        .now = (int64_t)time(NULL),
        .started_at = d->told.started_at,
        .activity = d->told.activity,
        .probe = &d->told.probe,
        .event = &d->told.event,
        .success = &d->told.success,
        .failure = &failure,
        .next_action = d->told.next,
        .agent = agent_of(d),
        .certbot = certbot_of(d),
        .permits = permits,
        .leaf = d->served == NULL ? NULL : chain_leaf(d->served),
        .renewal = d->config->tls.external_key ? NULL : &d->renewal,
        .terms = &d->plan_facts.renewal,
        .attested = d->served != NULL && d->attested,
        .last_event_from = source_name(d->source),
        .why_not_attested = d->served == NULL ? "nothing is served" : d->why_not.message,
        .backend = measure_backend_name(d->measure.backend),
        .level = d->site.level,
        .level_reason = d->site.refusal,
        .accounts = d->accounts,
        .fallback = &d->fallback,
        .account_thumbprint = d->facts.account_thumbprint,
        .hardening = sandbox_in_force(),
        .order_from = d->plan_facts.order_from,
        .order_why = d->plan_facts.order_why,
        .upstreams = &d->site.upstreams.upstreams,
        .preflight = &d->preflight,
        .challenges = d->challenges.counts,
        .not_reloaded = reload->state == REQUEST_FAILED ? reload->text : "",
        .requests = daemon_requests_json(d),
        .next = d->last_reason,
    };

    failure.open = failure.what != NULL && d->failures[d->told.failed] > 0;
    for (size_t i = 0; i < d->config->acme.authorities.count; i++) {
        if (!daemon_permits(d, i, permits[i]))
            status.permits = NULL;
    }
    return status_to_json(&status, ret, err);
}

void daemon_publish_status(struct daemon *d)
{
    BUF_SCOPED text = {.max = STATUS_MAX_BYTES};
    char path[FS_PATH_MAX];
    struct err err = ERR_INIT;

    if (daemon_status_text(d, &text, &err) == 0 &&
        strcmp(buf_str(&text), buf_str(&d->status)) == 0)
        return;
    if (err.kind == ERR_NONE &&
        fs_join(path, d->config->run_dir, "status.json", &err) == 0)
        (void)fs_replace_now(path, text.data, text.len, 0644, &err);
    /* Told once: it changes all the time. */
    if (err.kind != ERR_NONE && !d->unpublished)
        log_failed(LOG_WARNING, &err,
                   "the status cannot be published: %s (tried again when it changes)",
                   err.message);
    d->unpublished = err.kind != ERR_NONE;
    buf_done(&d->status);
    d->status = text;
    buf_init(&text, 0);
}
