/* What the daemon says about itself: <run_dir>/status.json. */
#include "app/daemon_internal.h"

#include "base/fs.h"
#include "base/log.h"
#include "domain/status.h"

#include <string.h>

enum { STATUS_MAX_BYTES = 256 * 1024 };

int daemon_status_text(const struct daemon *d, struct buf *ret, struct err *err)
{
    const struct status status = {
        .config = d->config,
        .leaf = d->served == NULL ? NULL : chain_leaf(d->served),
        .renewal = d->config->tls.external_key ? NULL : &d->renewal,
        .terms = &d->plan_facts.renewal,
        .attested = d->served != NULL && d->attested,
        .last_event_from = d->source == MEASURE_FROM_LOG ? "event log" : "own record",
        .why_not_attested = d->served == NULL ? "nothing is served" : d->why_not.message,
        .backend = measure_backend_name(d->measure.backend),
        .level = d->site.level,
        .level_reason = d->site.refusal,
        .accounts = d->accounts,
        .fallback = &d->fallback,
        .account_thumbprint = d->facts.account_thumbprint,
        .order_from = d->plan_facts.order_from,
        .order_why = d->plan_facts.order_why,
        .upstreams = &d->site.upstreams.upstreams,
        .preflight = &d->preflight,
        .challenges = d->challenges.counts,
        .requests = daemon_requests_json(d),
        .next = d->last_reason,
    };

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
        (fs_join(path, d->config->run_dir, "status.json", &err) < 0 ||
         fs_replace(path, text.data, text.len, 0644, &err) < 0))
        log_debug("the status cannot be published: %s", err.message);
    buf_done(&d->status);
    d->status = text;
    buf_init(&text, 0);
}
