/* What the daemon counts, and what it measures itself by. */
#include "app/daemon_internal.h"

#include "domain/chain.h"

#include <dirent.h>
#include <openssl/crypto.h>
#include <string.h>
#include <time.h>

/* "ok", or the kind of failure. */
static const char *result_of(enum err_kind failure)
{
    return failure == ERR_NONE ? "ok" : err_kind_name(failure);
}

static void on_observed(void *owner, const struct observation *observation)
{
    struct daemon *d = owner;
    struct metrics *metrics = &d->metrics;
    const char *result = result_of(observation->failure);

    switch (observation->what) {
    case OBSERVED_STEP_BEGINS:
        if (strcmp(observation->subject, HOOK_SEQUENCE) !=
            0) /* goes on beside all else */
            daemon_note_step(d, observation->subject, observation->detail);
        break;
    case OBSERVED_STEP:
        metrics_observe(metrics, METRIC_STEP_DURATION, observation->subject,
                        observation->detail, observation->seconds);
        if (observation->failure != ERR_NONE)
            metrics_add(metrics, METRIC_STEP_FAILURES, observation->subject,
                        observation->detail, 1);
        break;
    case OBSERVED_AGENT_CALL:
        metrics_add(metrics, METRIC_AGENT_REQUESTS, observation->subject, result, 1);
        /* One that refuses is there. */
        metrics_set(metrics, METRIC_AGENT_UP, NULL, NULL,
                    observation->failure != ERR_NET &&
                        observation->failure != ERR_TIMEOUT);
        break;
    case OBSERVED_RELOAD:
        metrics_add(metrics, METRIC_NGINX_RELOADS, result, NULL, 1);
        break;
    case OBSERVED_CERTBOT:
        metrics_observe(metrics, METRIC_CERTBOT_DURATION, NULL, NULL,
                        observation->seconds);
        break;
    case OBSERVED_HOOK:
        metrics_add(metrics, METRIC_HOOKS, observation->subject, result, 1);
        break;
    }
}

/* A series that is there from the start shows its first increase, too. */
static void begin_counters(struct metrics *metrics)
{
    metrics_add(metrics, METRIC_ISSUES, "ok", NULL, 0);
    metrics_add(metrics, METRIC_RENEWALS, "ok", NULL, 0);
    metrics_add(metrics, METRIC_RENEWALS, "adopted", NULL, 0);
    metrics_add(metrics, METRIC_ADOPTIONS, NULL, NULL, 0);
    metrics_add(metrics, METRIC_NGINX_RELOADS, "ok", NULL, 0);
}

void daemon_init_metrics(struct daemon *d)
{
    if (!d->goes_on) {
        metrics_set(&d->metrics, METRIC_BUILD_INFO, CERT_MANAGER_VERSION,
                    OpenSSL_version(OPENSSL_VERSION_STRING), 1);
        metrics_set(&d->metrics, METRIC_START_TIME, NULL, NULL, (double)time(NULL));
        begin_counters(&d->metrics);
    }
    observer_set(on_observed, d);
}

void daemon_end_metrics(void)
{
    observer_set(NULL, NULL);
}

void daemon_count_issue(struct daemon *d, const struct issue_flow *flow,
                        const struct err *err)
{
    const char *result = err == NULL         ? "ok"
                         : flow->certbot_ran ? certbot_verdict_name(flow->outcome.verdict)
                                             : err_kind_name(err->kind);

    metrics_add(&d->metrics, flow->request.rehearsal ? METRIC_REHEARSALS : METRIC_ISSUES,
                result, NULL, 1);
    if (d->served != NULL && !flow->request.rehearsal)
        metrics_add(&d->metrics, METRIC_RENEWALS, result, NULL, 1);
}

void daemon_count_adoption(struct daemon *d)
{
    metrics_add(&d->metrics, METRIC_ADOPTIONS, NULL, NULL, 1);
    if (d->served != NULL)
        metrics_add(&d->metrics, METRIC_RENEWALS, "adopted", NULL, 1);
}

void daemon_count_failure(struct daemon *d, enum plan_activity activity,
                          enum err_kind kind)
{
    metrics_add(&d->metrics, METRIC_FAILURES, plan_activity_name(activity),
                err_kind_name(kind), 1);
}

static void show_served(struct daemon *d)
{
    metrics_forget(&d->metrics, METRIC_CERTIFICATE_INFO);
    metrics_forget(&d->metrics, METRIC_CERTIFICATE_NOT_BEFORE);
    metrics_forget(&d->metrics, METRIC_CERTIFICATE_NOT_AFTER);
    metrics_set(&d->metrics, METRIC_HTTPS_UP, NULL, NULL, d->served != NULL);
    metrics_set(&d->metrics, METRIC_ATTESTED, NULL, NULL,
                d->served != NULL && d->attested);
    if (d->served == NULL)
        return;
    metrics_set(&d->metrics, METRIC_CERTIFICATE_INFO, chain_leaf(d->served)->sha256,
                chain_leaf(d->served)->issuer_name, 1);
    metrics_set(&d->metrics, METRIC_CERTIFICATE_NOT_BEFORE, NULL, NULL,
                (double)chain_leaf(d->served)->not_before);
    metrics_set(&d->metrics, METRIC_CERTIFICATE_NOT_AFTER, NULL, NULL,
                (double)chain_leaf(d->served)->not_after);
}

static void show_preflight(struct daemon *d)
{
    for (enum preflight_check i = 0; i < PREFLIGHT_CHECKS; i++) {
        enum preflight_verdict verdict = d->preflight.findings[i].verdict;

        if (verdict != PREFLIGHT_UNKNOWN)
            metrics_set(&d->metrics, METRIC_PREFLIGHT, preflight_name(i), NULL,
                        verdict == PREFLIGHT_OK);
    }
}

/* Counted elsewhere, and only growing. */
static void show_challenges(struct daemon *d)
{
    const struct status_challenges *counts = &d->challenges.counts;

    metrics_reach(&d->metrics, METRIC_CHALLENGES, "presented", NULL, counts->presented);
    metrics_reach(&d->metrics, METRIC_CHALLENGES, "served", NULL, counts->served);
    metrics_reach(&d->metrics, METRIC_CHALLENGES, "succeeded", NULL, counts->succeeded);
    metrics_reach(&d->metrics, METRIC_CHALLENGES, "failed", NULL, counts->failed);
}

static void show_limits(struct daemon *d)
{
    struct ledger_permits permits[LEDGER_BUCKETS];

    metrics_set(&d->metrics, METRIC_LEDGER_USABLE, NULL, NULL, !d->ledger_failed);
    metrics_forget(&d->metrics, METRIC_LIMIT);
    metrics_forget(&d->metrics, METRIC_LIMIT_LEFT);
    if (d->plan_facts.order_why == NULL) /* the ledger has not been asked yet */
        return;
    for (size_t i = 0; i < d->config->acme.authorities.count; i++) {
        const char *ca = d->config->acme.authorities.items[i].directory;

        if (!daemon_permits(d, i, permits))
            return;
        for (enum ledger_bucket k = LEDGER_CERTIFICATES; k < LEDGER_BUCKETS; k++) {
            if (permits[k].limit == 0)
                continue;
            metrics_set(&d->metrics, METRIC_LIMIT, ca, ledger_bucket_name(k),
                        permits[k].limit);
            metrics_set(&d->metrics, METRIC_LIMIT_LEFT, ca, ledger_bucket_name(k),
                        permits[k].left);
        }
    }
}

static void set_next(struct daemon *d, const char *action, int64_t at)
{
    metrics_set(&d->metrics, METRIC_NEXT_ACTION_TIME, action, NULL, (double)at);
}

/* What is due by the clock, and what is tried again. */
static void show_next(struct daemon *d)
{
    const struct plan_facts *facts = &d->plan_facts;
    int64_t now = (int64_t)time(NULL);
    uint64_t uptime_ms = daemon_uptime_ms(d);

    metrics_forget(&d->metrics, METRIC_NEXT_ACTION_TIME);
    if (facts->served && !facts->external)
        set_next(d, "renew",
                 renewal_of(&facts->renewal, facts->not_before, facts->not_after).at);
    if (facts->order_from > now && facts->order_from != INT64_MAX)
        set_next(d, "order", facts->order_from);
    if (facts->served && facts->asks && facts->ask_at > 0)
        set_next(d, plan_activity_name(PLAN_ASKING), facts->ask_at);
    for (enum plan_activity i = PLAN_KEYS; i < PLAN_ACTIVITIES; i++) {
        metrics_set(&d->metrics, METRIC_FAILED_IN_ROW, plan_activity_name(i), NULL,
                    d->failures[i]);
        if (facts->retry_at_ms[i] > uptime_ms)
            set_next(d, plan_activity_name(i),
                     now + (int64_t)(facts->retry_at_ms[i] - uptime_ms) / 1000);
    }
}

static void show_level(struct daemon *d)
{
    for (enum nginx_level level = NGINX_HTTP_ONLY; level <= NGINX_HTTPS; level++)
        metrics_set(&d->metrics, METRIC_NGINX_LEVEL, nginx_level_name(level), NULL,
                    d->site.level == level);
}

static double seconds_of(const uv_timeval_t *time)
{
    return (double)time->tv_sec + (double)time->tv_usec / 1e6;
}

/* The names are those that every exporter has; what cannot be found out is left out. */
static void show_process(struct daemon *d)
{
    uv_rusage_t usage;
    size_t resident;
    DIR *folder = opendir("/proc/self/fd");
    double open_fds = -3; /* ".", ".." and the folder itself */

    if (uv_getrusage(&usage) == 0)
        metrics_reach(&d->metrics, METRIC_PROCESS_CPU, NULL, NULL,
                      seconds_of(&usage.ru_utime) + seconds_of(&usage.ru_stime));
    if (uv_resident_set_memory(&resident) == 0)
        metrics_set(&d->metrics, METRIC_PROCESS_MEMORY, NULL, NULL, (double)resident);
    if (folder == NULL)
        return;
    while (readdir(folder) != NULL)
        open_fds++;
    closedir(folder);
    metrics_set(&d->metrics, METRIC_PROCESS_FDS, NULL, NULL, open_fds);
}

int daemon_metrics_text(struct daemon *d, struct buf *ret, struct err *err)
{
    show_served(d);
    show_preflight(d);
    show_challenges(d);
    show_limits(d);
    show_level(d);
    show_next(d);
    show_process(d);
    return metrics_to_text(&d->metrics, ret, err);
}
