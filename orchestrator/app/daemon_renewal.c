/* When the served leaf is renewed, and what its CA says about that. */
#include "app/daemon_internal.h"

#include "adapters/renewal_file.h"
#include "base/log.h"
#include "base/random.h"
#include "base/text.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

/* ---- what is known ---- */

static bool may_ask(const struct daemon *d, const struct chain_leaf *leaf)
{
    return d->config->acme.renewal_info && !d->config->development &&
           !d->config->tls.external_key && !leaf->self_signed &&
           leaf->renewal_id[0] != '\0';
}

static void plan_renewal(struct daemon *d)
{
    d->plan_facts.renewal = (struct renewal_terms){
        .before_s = d->config->acme.renew_before_ms / 1000,
        .spread = d->renewal.spread,
        .shared = d->renewal.shared,
    };
    d->plan_facts.asks = may_ask(d, chain_leaf(d->served));
    if (d->plan_facts.asks)
        d->plan_facts.renewal.window = d->renewal.info.window;
    d->plan_facts.ask_at = d->renewal.ask_at;
}

static struct renewal_record new_record(const struct chain_leaf *leaf)
{
    struct renewal_record record = {.spread = random_number()};

    snprintf(record.leaf, sizeof record.leaf, "%s", leaf->sha256);
    return record;
}

static void save(const struct daemon *d)
{
    struct err err = ERR_INIT;

    if (renewal_file_save(&d->store, &d->renewal, &err) < 0)
        log_warning("the time of the renewal is not kept over a restart: %s",
                    err.message);
}

void daemon_expect_renewal(struct daemon *d, const struct chain_leaf *leaf,
                           const struct authority *issuer, bool shared)
{
    const char *directory = issuer == NULL ? "" : issuer->directory;

    d->next_renewal = new_record(leaf);
    d->next_renewal.shared = shared;
    /* One that is too long is not known, and the main CA is asked. */
    if (strlen(directory) < sizeof d->next_renewal.directory)
        snprintf(d->next_renewal.directory, sizeof d->next_renewal.directory, "%s",
                 directory);
}

void daemon_follow_renewal(struct daemon *d)
{
    const struct chain_leaf *leaf = d->served == NULL ? NULL : chain_leaf(d->served);

    if (leaf == NULL || strcmp(d->renewal.leaf, leaf->sha256) == 0)
        return;
    d->plan_facts.retry_at_ms[PLAN_ASKING] = 0;
    if (strcmp(d->next_renewal.leaf, leaf->sha256) == 0) {
        d->renewal = d->next_renewal;
    } else if (renewal_file_load(&d->store, leaf->sha256, &d->renewal)) {
        plan_renewal(d);
        return;
    } else {
        d->renewal = new_record(leaf);
    }
    plan_renewal(d);
    if (d->plan_facts.asks || d->renewal.shared)
        save(d);
}

/* ---- asking ---- */

const struct authority *daemon_issuer_of_served(const struct daemon *d)
{
    const struct authorities *authorities = &d->config->acme.authorities;

    for (size_t i = 0; i < authorities->count; i++) {
        if (strcmp(authorities->items[i].directory, d->renewal.directory) == 0)
            return &authorities->items[i];
    }
    return &authorities->items[0];
}

static void log_window(const struct daemon *d, const struct renewal_info *former)
{
    const struct renewal_info *info = &d->renewal.info;
    const struct plan_facts *facts = &d->plan_facts;
    struct renewal renewal =
        renewal_of(&facts->renewal, facts->not_before, facts->not_after);
    char start[TEXT_TIME_SIZE];
    char end[TEXT_TIME_SIZE];

    if (memcmp(&info->window, &former->window, sizeof info->window) == 0)
        return;
    log_write(renewal.rule == RENEWAL_BY_CA ? LOG_INFO : LOG_WARNING,
              "the CA suggests to renew the certificate between %s and %s%s%s%s",
              text_time(start, info->window.start), text_time(end, info->window.end),
              info->explanation[0] == '\0' ? "" : ", as explained at ", info->explanation,
              renewal.rule == RENEWAL_BY_CA
                  ? ""
                  : ", which is not followed: it must leave time to try again, and not "
                    "be the whole life");
}

/* The first failure of a row is told, and that the CA has no such thing once for each leaf. */
static void log_outcome(const struct daemon *d, const struct renewal_info_flow *flow,
                        const struct renewal_record *former)
{
    char wait[TEXT_DURATION_SIZE];

    if (flow->ask_err.kind != ERR_NONE) {
        text_duration(wait, d->renewal.ask_at - (int64_t)time(NULL));
        log_write(d->renewal.failures == 1 ? LOG_WARNING : LOG_DEBUG,
                  "the CA does not say when to renew (asked again in %s): %s", wait,
                  flow->ask_err.message);
    } else if (!flow->offered) {
        log_write(former->asked_at == 0 ? LOG_INFO : LOG_DEBUG,
                  "the CA gives no renewal information");
    } else {
        log_window(d, &former->info);
    }
}

static void on_asked(void *owner, const struct err *failure)
{
    struct daemon *d = owner;
    struct renewal_info_flow *flow = &d->flow.renewal_info;
    struct renewal_record former = d->renewal;

    if (failure == NULL || failure->kind != ERR_CANCELED) {
        d->renewal = flow->record;
        plan_renewal(d);
        log_outcome(d, flow, &former);
        if (failure != NULL)
            log_warning("what the CA says about renewal is not kept: %s",
                        failure->message);
        /* Whatever the wall clock does. */
        d->plan_facts.retry_at_ms[PLAN_ASKING] =
            daemon_uptime_ms(d) + (uint64_t)RENEWAL_ASK_MIN_S * 1000;
    }
    daemon_flow_ended(d);
}

void daemon_start_asking(struct daemon *d)
{
    const struct renewal_info_flow_request request = {
        .info = {.http = d->http,
                 .loop = &d->loop,
                 .authority = daemon_issuer_of_served(d),
                 .id = chain_leaf(d->served)->renewal_id},
        .store = &d->store,
        .record = &d->renewal,
    };

    d->activity = ASKING;
    renewal_info_flow_start(&d->flow.renewal_info, &request, on_asked, d);
}
