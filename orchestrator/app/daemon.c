#include "app/daemon.h"

#include "adapters/certbot.h"
#include "adapters/dstack.h"
#include "adapters/nginx.h"
#include "adapters/store.h"
#include "app/site.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/random.h"
#include "base/text.h"
#include "domain/pace.h"
#include "domain/plan.h"
#include "flows/apply_flow.h"
#include "flows/examine.h"
#include "flows/issue_flow.h"
#include "flows/keys_flow.h"
#include "runtime/http.h"
#include "runtime/timer.h"
#include "runtime/watch.h"

#include <assert.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { SIGNALS = 2 };
static const int stop_signals[SIGNALS] = {SIGTERM, SIGINT};

/* The one flow that may be at work. */
enum activity { IDLE, STARTING, FETCHING_KEYS, ISSUING, APPLYING };

struct daemon {
    const struct config *config;
    uv_loop_t loop;
    struct http *http;
    struct dstack agent;
    struct store store;
    struct nginx_facts facts;
    struct site site;
    struct timer wake;
    struct watch challenges;
    struct watch
        site_folder; /* of default.conf, which `prestart` or a person may change */
    uv_signal_t signals[SIGNALS];

    EVP_PKEY *tls_key;
    struct chain *candidate; /* obtained or found on disk, not served yet */
    struct chain *served;    /* applied last: what is put back when the files are lost */
    char last_emitted[65];   /* leaf of the last event of this process, "" for none */
    struct plan_facts plan_facts;
    unsigned failures[PLAN_ACTIVITIES]; /* in a row */
    char last_reason[PLAN_REASON_SIZE]; /* logged last */

    enum activity activity;
    unsigned starting; /* what is not known yet: nginx's version, addresses of backends */
    bool stopping;
    union {
        struct nginx_probe probe;
        struct keys_flow keys;
        struct issue_flow issue;
        struct apply_flow apply;
    } flow;
};

static void proceed(struct daemon *d);

static uint64_t uptime_ms(struct daemon *d)
{
    uv_update_time(&d->loop);
    return uv_now(&d->loop);
}

/* ---- failures: logged once, here, with what happens next ---- */

static void retry_later(struct daemon *d, enum plan_activity activity,
                        const struct err *err, uint64_t wait_ms)
{
    char wait[TEXT_DURATION_SIZE];

    if (err->kind == ERR_CANCELED && d->stopping)
        return;
    d->plan_facts.retry_at_ms[activity] = uptime_ms(d) + wait_ms;
    text_duration(wait, (int64_t)(wait_ms + 999) / 1000);
    log_error("%s (attempt %u, next in %s)", err->message, d->failures[activity], wait);
}

static uint64_t local_pace(const struct daemon *d, enum plan_activity activity)
{
    return pace_local(d->failures[activity], random_number());
}

static uint64_t issue_pace(const struct daemon *d, const struct issue_flow *flow,
                           const struct err *err)
{
    const struct config *config = d->config;
    const struct pace_limits limits = {
        .min_ms = config->acme.retry_min_ms,
        .max_ms = config->acme.retry_max_ms,
        .counts_challenges = config_directory_is_lets_encrypt(config),
    };
    const struct pace_failure failure = {
        .kind = err->kind,
        .asked_ca = flow->asked_ca,
        .outcome = flow->certbot_ran ? &flow->outcome : NULL,
        .in_a_row = d->failures[PLAN_ISSUING],
    };

    return pace_issue(&failure, &limits, (int64_t)time(NULL), random_number());
}

/* An activity ended: its row of failures grows or is forgotten. */
static void count(struct daemon *d, enum plan_activity activity, bool failed)
{
    d->failures[activity] = failed ? d->failures[activity] + 1 : 0;
    d->plan_facts.retry_at_ms[activity] = 0;
}

/* ---- the end ---- */

static void close_all(struct daemon *d)
{
    timer_close(&d->wake, NULL);
    site_close(&d->site);
    watch_close(&d->challenges, &d->loop, NULL, NULL);
    watch_close(&d->site_folder, &d->loop, NULL, NULL);
    for (int i = 0; i < SIGNALS; i++)
        uv_close((uv_handle_t *)&d->signals[i], NULL);
    http_close(d->http, NULL, NULL);
}

static void cancel_flow(struct daemon *d)
{
    switch (d->activity) {
    case IDLE:
        close_all(d);
        break;
    case STARTING:
        nginx_probe_cancel(&d->flow.probe);
        break;
    case FETCHING_KEYS:
        keys_flow_cancel(&d->flow.keys);
        break;
    case ISSUING:
        issue_flow_cancel(&d->flow.issue);
        break;
    case APPLYING:
        apply_flow_cancel(&d->flow.apply);
        break;
    }
}

static void on_stop_signal(uv_signal_t *handle, int number)
{
    struct daemon *d = handle->data;

    if (d->stopping)
        return;
    log_info("stopping on %s", number == SIGTERM ? "SIGTERM" : "SIGINT");
    d->stopping = true;
    cancel_flow(d);
}

/* Every flow ends here. */
static void flow_ended(struct daemon *d)
{
    d->activity = IDLE;
    if (d->stopping) {
        close_all(d);
        return;
    }
    proceed(d);
    site_kick(&d->site);
}

/* ---- keys ---- */

static void on_keys_done(void *owner, const struct err *err)
{
    struct daemon *d = owner;

    count(d, PLAN_KEYS, err != NULL);
    if (err != NULL) {
        retry_later(d, PLAN_KEYS, err,
                    pace_doubling(PACE_LOCAL_MIN_MS, d->config->agent.retry_max_ms,
                                  d->failures[PLAN_KEYS], random_number()));
    } else {
        d->tls_key = d->flow.keys.tls_key;
        d->flow.keys.tls_key = NULL;
        d->plan_facts.keys = true;
    }
    keys_flow_done(&d->flow.keys);
    flow_ended(d);
}

/* ---- the stored pair ---- */

/* Port 80 answers, HTTPS is off. Port 80 must not depend on anything else that may be broken. */
static int serve_http_only(struct daemon *d, struct err *err)
{
    BUF_SCOPED site = {0};
    BUF_SCOPED include = {0};
    const struct nginx_files files = {.site = &site};

    buf_init(&site, NGINX_CONF_MAX_BYTES);
    if (nginx_render(d->config, &d->facts, NGINX_HTTP_ONLY, &site, &include, err) < 0)
        return err_wrap(err, "port 80 is not served");
    site_took_http_only(&d->site);
    if (nginx_has_files(d->config, &files) && nginx_has_read_site(d->config))
        return 0;
    if (nginx_install(d->config, &files, err) < 0)
        return err_wrap(err, "port 80 is not served");
    /* A server that is still starting reads what was just written. */
    return nginx_master(d->config) == 0 ? 0 : nginx_ask_reload(d->config, err);
}

/*
 * Somebody else may have changed default.conf since: `prestart`, when nginx had to be started
 * while the pair on disk was damaged, or a person. What was served is then applied again.
 */
static void look_after_site(struct daemon *d)
{
    if (!d->plan_facts.served || d->plan_facts.candidate || d->site.running ||
        site_is_intact(&d->site))
        return;
    log_warning(
        "%s is not the one that was installed; the served certificate is put back",
        d->config->nginx.site_conf);
    d->candidate = d->served;
    d->served = NULL;
    d->plan_facts.candidate = true;
    d->plan_facts.served = false;
}

static void examine(struct daemon *d)
{
    struct err err = ERR_INIT;
    int failed = examine_stored(&d->store, d->config, d->tls_key, &d->candidate, &err);

    if (failed == 0 && d->candidate == NULL)
        failed = serve_http_only(d, &err);
    count(d, PLAN_EXAMINING, failed != 0);
    if (failed != 0)
        retry_later(d, PLAN_EXAMINING, &err, local_pace(d, PLAN_EXAMINING));
    d->plan_facts.examined = failed == 0;
    d->plan_facts.candidate = d->candidate != NULL;
}

/* ---- issue ---- */

static void rest_after_issue(struct daemon *d, const struct chain_leaf *leaf)
{
    char date[TEXT_TIME_SIZE];

    d->plan_facts.retry_at_ms[PLAN_ISSUING] =
        uptime_ms(d) + plan_rest_after_issue_ms(leaf->not_before, leaf->not_after);
    if (plan_renew_at(leaf->not_before, leaf->not_after) <= (int64_t)time(NULL))
        log_warning(
            "the new certificate is due for renewal already, valid until %s: is this "
            "machine's clock right?",
            text_time(date, leaf->not_after));
}

static void on_issue_done(void *owner, const struct err *err)
{
    struct daemon *d = owner;

    count(d, PLAN_ISSUING, err != NULL);
    if (err != NULL) {
        retry_later(d, PLAN_ISSUING, err, issue_pace(d, &d->flow.issue, err));
    } else {
        chain_free(d->candidate);
        d->candidate = d->flow.issue.chain;
        d->flow.issue.chain = NULL;
        d->plan_facts.candidate = true;
        d->plan_facts.retry_at_ms[PLAN_APPLYING] = 0;
        rest_after_issue(d, chain_leaf(d->candidate));
    }
    issue_flow_done(&d->flow.issue);
    flow_ended(d);
}

/* ---- apply ---- */

static void drop_candidate(struct daemon *d)
{
    d->plan_facts.candidate = false;
    chain_free(d->candidate);
    d->candidate = NULL;
}

static void record_served(struct daemon *d)
{
    const struct chain_leaf *leaf = chain_leaf(d->candidate);
    char date[TEXT_TIME_SIZE];

    log_info("HTTPS serves %s: issuer \"%s\", valid until %s, %s", d->config->domain,
             leaf->issuer_name, text_time(date, leaf->not_after),
             d->config->development   ? "development"
             : d->flow.apply.attested ? "attested"
                                      : "NOT attested");
    d->plan_facts.served = true;
    d->plan_facts.not_before = leaf->not_before;
    d->plan_facts.not_after = leaf->not_after;
    chain_free(d->served);
    d->served = d->candidate;
    d->candidate = NULL;
    d->plan_facts.candidate = false;
}

static void on_apply_done(void *owner, const struct err *err)
{
    struct daemon *d = owner;

    count(d, PLAN_APPLYING, err != NULL);
    if (d->flow.apply.measured)
        memcpy(d->last_emitted, chain_leaf(d->candidate)->sha256, sizeof d->last_emitted);
    if (err != NULL)
        retry_later(d, PLAN_APPLYING, err, local_pace(d, PLAN_APPLYING));
    else {
        site_took(&d->site, &d->flow.apply.compose);
        record_served(d);
    }
    if (err != NULL && chain_leaf(d->candidate)->not_after <= (int64_t)time(NULL))
        drop_candidate(d);
    apply_flow_done(&d->flow.apply);
    flow_ended(d);
}

/* ---- the plan ---- */

static void start_issue(struct daemon *d)
{
    const struct issue_request request = {
        .loop = &d->loop,
        .http = d->http,
        .config = d->config,
        .agent = &d->agent,
        .store = &d->store,
        .tls_key = d->tls_key,
    };

    d->activity = ISSUING;
    issue_flow_start(&d->flow.issue, &request, on_issue_done, d);
}

static void start_apply(struct daemon *d)
{
    const struct apply_request request = {
        .loop = &d->loop,
        .config = d->config,
        .facts = &d->facts,
        .agent = &d->agent,
        .store = &d->store,
        .chain = d->candidate,
        .tls_key = d->tls_key,
        .last_emitted = d->last_emitted,
    };

    d->activity = APPLYING;
    apply_flow_start(&d->flow.apply, &request, on_apply_done, d);
}

/* What is begun says so itself, and a failure has said when the next try is. */
static void log_plan(struct daemon *d, const struct plan *plan)
{
    bool scheduled = plan->action == PLAN_WAIT;

    for (int i = 0; i < PLAN_ACTIVITIES; i++)
        scheduled = scheduled && d->failures[i] == 0;
    if (strcmp(plan->reason, d->last_reason) != 0)
        log_write(scheduled ? LOG_INFO : LOG_DEBUG, "%s", plan->reason);
    snprintf(d->last_reason, sizeof d->last_reason, "%s", plan->reason);
}

static void proceed(struct daemon *d)
{
    struct plan plan = plan_next(&d->plan_facts, (int64_t)time(NULL), uptime_ms(d));

    /* Judging the stored pair is the one action that ends within its call. */
    while (plan.action == PLAN_EXAMINE) {
        examine(d);
        plan = plan_next(&d->plan_facts, (int64_t)time(NULL), uptime_ms(d));
    }
    log_plan(d, &plan);
    switch (plan.action) {
    case PLAN_WAIT:
        timer_set(&d->wake, plan.wait_ms);
        break;
    case PLAN_FETCH_KEYS:
        d->activity = FETCHING_KEYS;
        keys_flow_start(&d->flow.keys, &d->loop, d->config, &d->agent, on_keys_done, d);
        break;
    case PLAN_ISSUE:
        start_issue(d);
        break;
    case PLAN_APPLY:
        if (!d->site.running) /* its end comes back here */
            start_apply(d);
        break;
    case PLAN_EXAMINE:
        assert(false && "handled above");
        break;
    }
}

static void on_wake(void *owner)
{
    struct daemon *d = owner;

    if (d->activity != IDLE || d->stopping)
        return;
    look_after_site(d);
    proceed(d);
}

/* ---- the start ---- */

static void on_challenge_changed(void *owner, const char *name)
{
    (void)owner;
    log_debug("challenge file %s came or went", name);
}

static void watch_challenges(struct daemon *d)
{
    char folder[FS_PATH_MAX];
    struct err err = ERR_INIT;

    if (certbot_make_challenge_folder(d->config, &err) < 0 ||
        certbot_challenge_folder(d->config, folder, &err) < 0 ||
        watch_start(&d->challenges, &d->loop, folder, on_challenge_changed, d, &err) < 0)
        log_warning("challenge files are not watched: %s", err.message);
}

static void on_site_folder_changed(void *owner, const char *name)
{
    struct daemon *d = owner;

    (void)name;
    if (!site_is_intact(&d->site))
        timer_set(&d->wake, 0);
}

/* Otherwise the look that is taken every minute sees it. */
static void watch_site(struct daemon *d)
{
    char folder[FS_PATH_MAX];
    struct err err = ERR_INIT;

    if (nginx_site_folder(d->config, folder, &err) < 0 ||
        watch_start(&d->site_folder, &d->loop, folder, on_site_folder_changed, d, &err) <
            0)
        log_warning("nginx's configuration is not watched: %s", err.message);
}

static void know_more(struct daemon *d)
{
    if (--d->starting == 0)
        flow_ended(d);
}

static void on_version_known(void *owner, const struct err *err)
{
    struct daemon *d = owner;

    if (err != NULL && err->kind != ERR_CANCELED)
        log_error("nginx's version is not known: %s", err->message);
    know_more(d);
}

static void on_site_ready(void *owner)
{
    know_more(owner);
}

/* Both write nginx's configuration and make it reload. */
static bool may_site_start(void *owner)
{
    const struct daemon *d = owner;

    return d->activity != APPLYING && !d->stopping;
}

static void on_site_ended(void *owner)
{
    struct daemon *d = owner;

    if (d->activity == IDLE && !d->stopping)
        proceed(d);
}

static const struct site_events site_events = {
    .ready = on_site_ready,
    .may_start = may_site_start,
    .ended = on_site_ended,
};

/*
 * What an earlier life left: a half-done promotion is finished, a missing default.conf
 * is made.
 */
static void take_over(struct daemon *d)
{
    struct err err = ERR_INIT;
    bool finished;

    if (store_finish_promotion(&d->store, &finished, &err) < 0)
        log_error("cannot finish the promotion of a pair: %s", err.message);
    else if (finished)
        log_info("finished the promotion of a pair that an earlier run had begun");
    if (!nginx_configured(d->config) && serve_http_only(d, &err) < 0)
        log_error("%s", err.message);
}

static int set_up(struct daemon *d, struct err *err)
{
    if (fs_make_folder(d->config->run_dir, 0755, err) < 0 ||
        store_init(&d->store, d->config, err) < 0 || http_setup(err) < 0)
        return -1;
    if (uv_loop_init(&d->loop) != 0)
        return err_set(err, ERR_SYS, "cannot create the event loop");
    d->http = http_new(&d->loop, err);
    if (d->http == NULL) {
        uv_loop_close(&d->loop);
        return -1;
    }
    d->agent = (struct dstack){
        .http = d->http,
        .configured = d->config->agent.socket,
        .timeout_ms = d->config->agent.timeout_ms,
    };
    timer_init(&d->wake, &d->loop, on_wake, d);
    for (int i = 0; i < SIGNALS; i++) {
        uv_signal_init(&d->loop, &d->signals[i]);
        d->signals[i].data = d;
        uv_signal_start(&d->signals[i], on_stop_signal, stop_signals[i]);
    }
    nginx_machine_facts(&d->facts);
    return site_init(&d->site, &d->loop, d->config, &d->facts, &d->store, &site_events, d,
                     err);
}

int daemon_run(const struct config *config)
{
    struct daemon *d = calloc(1, sizeof *d);
    struct err err = ERR_INIT;

    if (d == NULL) {
        log_fatal("out of memory");
        return EXIT_FAILURE;
    }
    d->config = config;
    log_info("cert-manager %s for %s, %s", CERT_MANAGER_VERSION, config->domain,
             config->development ? "development mode" : config_directory(config));
    if (set_up(d, &err) < 0) {
        log_fatal("%s", err.message);
        free(d);
        return EXIT_FAILURE;
    }
    take_over(d);
    watch_challenges(d);
    watch_site(d);
    d->activity = STARTING;
    d->starting = 2;
    site_start(&d->site);
    nginx_probe_start(&d->flow.probe, &d->loop, config, &d->facts, on_version_known, d);
    uv_run(&d->loop, UV_RUN_DEFAULT);
    if (uv_loop_close(&d->loop) != 0)
        log_error("a handle of the event loop was left open");
    site_done(&d->site);
    EVP_PKEY_free(d->tls_key);
    chain_free(d->candidate);
    chain_free(d->served);
    free(d);
    log_info("stopped");
    return EXIT_SUCCESS;
}
