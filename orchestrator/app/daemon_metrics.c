/* What the daemon counts, and what it measures itself by. */
#include "app/daemon_internal.h"

#include "domain/chain.h"

#include <openssl/crypto.h>
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
    }
}

void daemon_init_metrics(struct daemon *d)
{
    if (!d->goes_on) {
        metrics_set(&d->metrics, METRIC_BUILD_INFO, CERT_MANAGER_VERSION,
                    OpenSSL_version(OPENSSL_VERSION_STRING), 1);
        metrics_set(&d->metrics, METRIC_START_TIME, NULL, NULL, (double)time(NULL));
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

    metrics_add(&d->metrics, METRIC_ISSUES, result, NULL, 1);
}

static void show_served(struct daemon *d)
{
    metrics_forget(&d->metrics, METRIC_CERTIFICATE_NOT_BEFORE);
    metrics_forget(&d->metrics, METRIC_CERTIFICATE_NOT_AFTER);
    metrics_set(&d->metrics, METRIC_HTTPS_UP, NULL, NULL, d->served != NULL);
    metrics_set(&d->metrics, METRIC_ATTESTED, NULL, NULL,
                d->served != NULL && d->attested);
    if (d->served == NULL)
        return;
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

int daemon_metrics_text(struct daemon *d, struct buf *ret, struct err *err)
{
    show_served(d);
    show_preflight(d);
    show_challenges(d);
    for (enum nginx_level level = NGINX_HTTP_ONLY; level <= NGINX_HTTPS; level++)
        metrics_set(&d->metrics, METRIC_NGINX_LEVEL, nginx_level_name(level), NULL,
                    d->site.level == level);
    if (d->served != NULL && !d->config->tls.external_key)
        metrics_set(&d->metrics, METRIC_NEXT_ACTION_TIME, "renew", NULL,
                    (double)renewal_of(&d->plan_facts.renewal, d->plan_facts.not_before,
                                       d->plan_facts.not_after)
                        .at);
    else
        metrics_forget(&d->metrics, METRIC_NEXT_ACTION_TIME);
    return metrics_to_text(&d->metrics, ret, err);
}
