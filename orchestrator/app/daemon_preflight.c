/* The checks before an order: what they found, and when they are made again. */
#include "app/daemon_internal.h"

#include "base/log.h"

#include <stdio.h>

/* Each finding is told when it changes. */
static void tell(enum preflight_check check, const struct preflight_finding *before,
                 const struct preflight_finding *now)
{
    const char *name = preflight_name(check);
    const char *separator = now->hint[0] == '\0' ? "" : "; ";
    const struct log_fields fields = {.hint = now->hint};

    if (preflight_same(before, now))
        return;
    switch (now->verdict) {
    case PREFLIGHT_FAILED:
        log_write_with(LOG_ERROR, &fields, "pre-flight check failed, %s: %s%s%s", name,
                       now->text, separator, now->hint);
        break;
    case PREFLIGHT_ADVICE:
        log_write_with(LOG_WARNING, &fields, "pre-flight check, %s: %s%s%s", name,
                       now->text, separator, now->hint);
        break;
    case PREFLIGHT_UNKNOWN:
        log_write_with(separator[0] == '\0' ? LOG_DEBUG : LOG_INFO, &fields,
                       "pre-flight check undecided, %s: %s%s%s", name, now->text,
                       separator, now->hint);
        break;
    case PREFLIGHT_OK:
        log_write(before->verdict > PREFLIGHT_OK ? LOG_INFO : LOG_DEBUG,
                  "pre-flight check passed, %s: %s", name, now->text);
        break;
    }
}

static void note_findings(struct daemon *d, const struct preflight *found)
{
    for (int i = 0; i < PREFLIGHT_CHECKS; i++)
        tell((enum preflight_check)i, &d->preflight.findings[i], &found->findings[i]);
    d->preflight = *found;
    if (found->findings[PREFLIGHT_DNS].verdict == PREFLIGHT_FAILED)
        d->resolve_tries++;
}

static uint64_t pace(const struct daemon *d)
{
    return preflight_waits_for_dns(&d->preflight) ? d->config->acme.resolve_wait_ms
                                                  : daemon_local_pace(d, PLAN_PREFLIGHT);
}

static void on_preflight_done(void *owner, const struct err *err)
{
    struct daemon *d = owner;
    bool canceled = err != NULL && err->kind == ERR_CANCELED;
    struct err why = ERR_INIT;

    if (!canceled)
        note_findings(d, &d->flow.preflight.found);
    daemon_count(d, PLAN_PREFLIGHT, err != NULL);
    if (err == NULL) {
        /* The next order waits for the domain anew. */
        d->resolve_tries = 0;
        if (daemon_reload_is_due(d))
            daemon_flow_ended(d);
        else
            daemon_start_order(d, false);
        return;
    }
    /* In the words of the checks, without the step that judged them. */
    if (canceled || preflight_result(&d->preflight, &why) == 0)
        why = *err;
    daemon_retry_later(d, PLAN_PREFLIGHT, &why, pace(d));
    daemon_flow_ended(d);
}

static void on_certbot_answered(void *owner, const struct err *err)
{
    struct daemon *d = owner;
    struct preflight_finding *finding = &d->preflight.findings[PREFLIGHT_CERTBOT];
    const struct preflight_finding before = *finding;

    if (err != NULL && err->kind == ERR_CANCELED)
        return;
    preflight_judge_certbot(finding, err, d->config->certbot.path,
                            d->certbot_version.text);
    tell(PREFLIGHT_CERTBOT, &before, finding);
}

void daemon_ask_certbot(struct daemon *d)
{
    if (!d->config->development && !d->config->tls.external_key)
        certbot_version_start(&d->certbot_version, &d->loop, d->config,
                              on_certbot_answered, d);
}

void daemon_start_preflight(struct daemon *d)
{
    size_t authority = d->next.authority;
    const struct preflight_request request = {
        .loop = &d->loop,
        .http = d->http,
        .config = d->config,
        .authority = &d->config->acme.authorities.items[authority],
        .store = &d->store,
        .account = &d->accounts[authority],
        .before = &d->preflight,
        .resolve_tries = d->resolve_tries,
        .certbot = &d->certbot_version,
    };

    d->activity = CHECKING;
    preflight_flow_start(&d->flow.preflight, &request, on_preflight_done, d);
}
