/* The daemon's life: how it begins, goes on with other settings, and ends. */
#include "app/daemon.h"

#include "adapters/journal_file.h"
#include "app/daemon_internal.h"
#include "app/setup.h"
#include "base/fs.h"
#include "base/log.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const int signals[] = {SIGTERM, SIGINT, SIGHUP, 0};

/* ---- the end ---- */

static void close_all(struct daemon *d)
{
    timer_close(&d->wake, NULL);
    timer_close(&d->settle, NULL);
    daemon_close_health_file(d);
    site_close(&d->site);
    watch_close(&d->challenges.watch, &d->loop, NULL, NULL);
    watch_close(&d->site_folder, &d->loop, NULL, NULL);
    watch_close(&d->pid_folder, &d->loop, NULL, NULL);
    watch_close(&d->tls_folder, &d->loop, NULL, NULL);
    timer_close(&d->reload.resume, NULL);
    signals_close(&d->signals);
    spawn_watch_close(&d->helper);
    if (d->reload.lives_on)
        d->control_place = server_hand_over(&d->control);
    server_close(&d->control, NULL, NULL);
    daemon_close_scrape(d);
    http_close(d->http, NULL, NULL);
}

void daemon_end_if_idle(struct daemon *d)
{
    bool idle =
        daemon_stop_reload(d) && daemon_stop_challenges(d) && daemon_stop_hooks(d);

    if (d->activity == IDLE && idle)
        close_all(d);
}

static void cancel_flow(struct daemon *d)
{
    switch (d->activity) {
    case IDLE:
        daemon_end_if_idle(d);
        break;
    case STARTING:
        nginx_probe_cancel(&d->flow.probe);
        break;
    case FETCHING_KEYS:
        keys_flow_cancel(&d->flow.keys);
        break;
    case ADOPTING:
        adopt_flow_cancel(&d->flow.adopt);
        break;
    case CHECKING:
        preflight_flow_cancel(&d->flow.preflight);
        break;
    case ISSUING:
        issue_flow_cancel(&d->flow.issue);
        break;
    case APPLYING:
        apply_flow_cancel(&d->flow.apply);
        break;
    case LOOKING:
        look_flow_cancel(&d->flow.look);
        break;
    case GATHERING:
        evidence_flow_cancel(&d->flow.evidence);
        break;
    case ASKING:
        renewal_info_flow_cancel(&d->flow.renewal_info);
        break;
    }
}

void daemon_stop(struct daemon *d)
{
    d->stopping = true;
    (void)daemon_stop_hooks(d);
    certbot_version_cancel(&d->certbot_version);
    cancel_flow(d);
}

static void on_signal(void *owner, int number)
{
    struct daemon *d = owner;
    struct config_report report;

    if (number == SIGHUP) {
        if (d->deploys_only) /* whose settings are those of its command */
            return;
        if (daemon_ask_reload(d, &report) == 0)
            (void)daemon_gives_way(d);
        config_report_done(&report);
        return;
    }
    d->reload.lives_on = false;
    daemon_withdraw_health_file(d);
    if (d->stopping)
        return;
    log_info("stopping on %s", number == SIGTERM ? "SIGTERM" : "SIGINT");
    daemon_stop(d);
}

/* Without it nothing can be started any more, and it cannot be made anew from here. */
static void on_helper_gone(void *owner)
{
    struct daemon *d = owner;

    d->reload.lives_on = false;
    d->has_failed = true;
    log_fatal(
        "the process that starts programs for cert-manager has ended: ending, to be "
        "started again; nginx goes on with what it has");
    if (!d->stopping)
        daemon_stop(d);
}

/* ---- the start ---- */

static void know_more(struct daemon *d)
{
    if (--d->starting == 0)
        daemon_flow_ended(d);
}

static void on_version_known(void *owner, const struct err *err)
{
    struct daemon *d = owner;

    if (err != NULL && err->kind != ERR_CANCELED)
        log_failed(LOG_ERROR, err,
                   "nginx's version is not known, and taken for an old one: %s",
                   err->message);
    know_more(d);
}

static void on_site_ready(void *owner)
{
    know_more(owner);
}

/*
 * Both write nginx's configuration and make it reload. A pair on the volume that is not the one that is
 * served must not be read by the way: then that is put back first, with the same configuration.
 */
static bool may_site_start(void *owner)
{
    struct daemon *d = owner;

    if (d->activity == APPLYING || d->activity == STARTING || d->stopping ||
        daemon_reload_is_due(d))
        return false;
    if (daemon_has_served_pair(d))
        return true;
    d->plan_facts.disturbed = true;
    timer_set(&d->wake, 0);
    return false;
}

static void on_site_ended(void *owner)
{
    struct daemon *d = owner;

    if (d->activity == IDLE)
        daemon_note_step(d, "", "");
    if (!d->stopping)
        daemon_note_settings_applied(
            d, d->site.failure.kind == ERR_NONE ? NULL : &d->site.failure);
    daemon_publish_status(d);
    if (d->stopping)
        return;
    if (d->activity == IDLE)
        daemon_proceed(d);
    else
        (void)daemon_gives_way(d);
}

static void on_site_failed(void *owner, const struct log_fields *fields)
{
    daemon_tell_failure(owner, PLAN_ACTIVITIES, fields);
}

static const struct site_events site_events = {
    .ready = on_site_ready,
    .may_start = may_site_start,
    .ended = on_site_ended,
    .failed = on_site_failed,
};

/*
 * What an earlier life left: a half-done promotion and extension of RTMR3 are finished, certbot's
 * folder removed when nobody needs it, a missing default.conf made.
 */
static void take_over(struct daemon *d)
{
    struct journal_record record;
    char boot[JOURNAL_BOOT_SIZE];
    struct err err = ERR_INIT;
    bool finished;

    /*
     * What was measured before a reboot is not in the log any more, and with an intent, readable or
     * not, there may be an event that nobody has noted.
     */
    journal_boot_id(boot);
    if (boot[0] != '\0' && !journal_has_intent(&d->store) &&
        journal_load_record(&d->store, &record) && strcmp(record.boot, boot) == 0)
        memcpy(d->last_event, record.event, sizeof d->last_event);
    if (measure_recover(&d->measure, &err) < 0)
        log_failed(LOG_ERROR, &err,
                   "an extension of RTMR3 was cut off, and cannot be settled: %s (tried "
                   "again before the next event)",
                   err.message);

    store_clean_up(&d->store, time(NULL));
    if (store_finish_promotion(&d->store, &finished, &err) < 0)
        log_failed(LOG_ERROR, &err,
                   "cannot finish the promotion of a pair: %s (tried again when it is "
                   "judged)",
                   err.message);
    else if (finished)
        log_info("finished the promotion of a pair that an earlier run had begun");
    store_guard_key(&d->store, d->config->tls.external_key);
    /* What an earlier life has ordered comes first. */
    d->plan_facts.adopts =
        !issue_flow_clean_up(d->config, &d->store) && adopt_is_on(d->config);
    challenge_probe_clean_up(d->config);
    if (d->served == NULL && !nginx_configured(d->config) &&
        daemon_serve_http_only(d, &err) < 0)
        log_failed(LOG_ERROR, &err, "%s (tried again within a minute)", err.message);
}

/* Two of them would undo each other's work, and make events side by side. Held until the process ends. */
static int be_the_only_one(const struct config *config, struct err *err)
{
    char path[FS_PATH_MAX];
    int lock;

    if (fs_make_folder(config->run_dir, 0755, err) < 0 ||
        fs_join(path, config->run_dir, "daemon.lock", err) < 0)
        return -1;
    if (fs_lock_now(path, &lock, err) == 0)
        return 0;
    return err->code == EWOULDBLOCK
               ? err_wrap(err, "another cert-manager runs with this run_dir")
               : -1;
}

/*
 * Whoever comes with other settings has another lock, and would work on what is not its own. A daemon goes
 * on all the same: what it was told to serve has to be.
 */
static int claim_folder(struct daemon *d, struct err *err)
{
    struct err failure = ERR_INIT;

    d->folder_lock = -1;
    if (fs_lock_folder_now(d->store.folder, &d->folder_lock, &failure) == 0 ||
        failure.code != EWOULDBLOCK)
        return 0;
    if (d->deploys_only)
        return err_set(
            err, ERR_CONFIG,
            "another cert-manager, with another run_dir than %s, is at work on %s: "
            "are these its settings?",
            d->config->run_dir, d->store.folder);
    log_warning("another cert-manager, with another run_dir, is at work on %s",
                d->store.folder);
    return 0;
}

static int set_up(struct daemon *d, struct err *err)
{
    if (store_init(&d->store, d->config, err) < 0 || claim_folder(d, err) < 0)
        return -1;
    snprintf(d->last_reason, sizeof d->last_reason, "%s",
             d->goes_on ? "the settings have just been read again"
                        : "the daemon has just started");
    d->http = http_new_loop(&d->loop, err);
    if (d->http == NULL)
        return -1;
    d->agent = (struct dstack){
        .http = d->http,
        .configured = d->config->agent.socket,
        .timeout_ms = d->config->agent.timeout_ms,
    };
    measure_init(&d->measure, &d->loop, d->config, &d->agent, d->store.state);
    d->plan_facts.external = d->config->tls.external_key || d->deploys_only;
    d->fallback.count = d->config->acme.authorities.count;
    timer_init(&d->wake, &d->loop, daemon_on_wake, d);
    timer_init(&d->settle, &d->loop, daemon_on_folder_settled, d);
    if (signals_start(&d->signals, &d->loop, signals, on_signal, d, err) < 0)
        return -1;
    spawn_watch_start(&d->helper, &d->loop, on_helper_gone, d);
    daemon_init_reload(d);
    nginx_machine_facts(d->config, &d->facts);
    if (daemon_init_evidence(d, err) < 0 || daemon_init_ledger(d, err) < 0)
        return -1;
    if (site_init(&d->site, &d->loop, d->config, &d->facts, &d->store, &site_events, d,
                  err) < 0)
        return -1;
    daemon_init_metrics(d);
    daemon_init_hooks(d);
    daemon_init_health_file(d);
    daemon_start_scrape(d);
    if (!d->deploys_only)
        daemon_start_control(d);
    return 0;
}

/* `former` has lived before, with other settings; NULL: this is the first life. */
static void begin(struct daemon *d, struct daemon *former)
{
    take_over(d);
    if (former != NULL)
        daemon_settle_in(d, former);
    daemon_watch_challenges(d);
    daemon_watch_others(d);
    d->activity = STARTING;
    d->starting = 2;
    if (!d->deploys_only)
        daemon_ask_certbot(d);
    site_start(&d->site);
    nginx_probe_start(&d->flow.probe, &d->loop, d->config, &d->facts, on_version_known,
                      d);
}

static void go_on_to_the_end(struct daemon *d)
{
    uv_run(&d->loop, UV_RUN_DEFAULT);
    if (uv_loop_close(&d->loop) != 0)
        log_error("a handle of the event loop was left open");
    daemon_end_metrics();
    if (d->folder_lock >= 0)
        close(d->folder_lock);
}

static void free_daemon(struct daemon *d)
{
    if (d == NULL)
        return;
    site_done(&d->site);
    buf_done(&d->status);
    metrics_done(&d->metrics);
    daemon_done_reload(d);
    daemon_done_hooks(d);
    ledger_file_done(&d->ledger);
    EVP_PKEY_free(d->tls_key);
    secret_free(d->ekm_secret);
    daemon_drop_candidate(d);
    daemon_forget_served(d);
    deployment_done(&d->deploy.waits);
    free(d);
}

/* One life, with one configuration. NULL when it could not begin. */
static struct daemon *live(const struct config *config, const struct command_line *said,
                           struct daemon *former)
{
    struct daemon *d = calloc(1, sizeof *d);
    struct err err = ERR_INIT;

    if (d == NULL) {
        log_fatal("out of memory");
        return NULL;
    }
    d->config = config;
    d->reload.said = said;
    d->told.started_at = (int64_t)time(NULL);
    d->goes_on = former != NULL;
    log_info("cert-manager %s for %s, %s%s", CERT_MANAGER_VERSION, config->domain,
             config->development ? "development mode" : config_directory(config),
             former == NULL ? "" : ", with other settings");
    if (former != NULL)
        daemon_inherit(d, former);
    if (set_up(d, &err) < 0) {
        log_fatal("%s", err.message);
        return NULL;
    }
    begin(d, former);
    go_on_to_the_end(d);
    return d;
}

/* The settings of `d` are those in `former_config` from here on, and `config` has its next ones. */
static void turn_over(struct daemon *d, struct config *config,
                      struct config *former_config)
{
    /* Blocked, until the next life reads it. */
    if (d->reload.comes_late)
        raise(SIGHUP);
    config_done(former_config);
    *former_config = *config;
    *config = d->reload.next;
    d->config = former_config;
    d->reload.next = (struct config){0};
    setup_follow(config);
}

void daemon_hold_hangups(void)
{
    sigset_t hangup;

    sigemptyset(&hangup);
    sigaddset(&hangup, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &hangup, NULL);
}

int daemon_run(struct config *config, const struct command_line *said)
{
    struct config former_config = {0};
    struct daemon *former = NULL;
    struct err err = ERR_INIT;
    bool lives_on = true;
    bool failed;

    if (be_the_only_one(config, &err) < 0) {
        log_fatal("%s", err.message);
        return EXIT_FAILURE;
    }
    while (lives_on) {
        struct daemon *d = live(config, said, former);

        free_daemon(former);
        former = d;
        lives_on = d != NULL && d->reload.lives_on;
        if (lives_on)
            turn_over(d, config, &former_config);
    }
    config_done(&former_config);
    failed = former == NULL || former->has_failed;
    free_daemon(former);
    if (failed)
        return EXIT_FAILURE;
    log_info("stopped");
    return EXIT_SUCCESS;
}

static int judge_end(const struct control_request *request, struct buf *ret,
                     struct err *err)
{
    switch (request->state) {
    case REQUEST_DONE:
        return buf_append_str(ret, request->text, err);
    case REQUEST_FAILED:
        return err_set(err, ERR_PEER, "%s", request->text);
    default:
        return err_set(err, ERR_CANCELED, "stopped before it was served");
    }
}

int daemon_deploy(const struct config *config, struct deployment *deployment,
                  struct buf *ret, struct err *err)
{
    struct daemon *d;
    int failed;

    if (be_the_only_one(config, err) < 0)
        return -1;
    d = calloc(1, sizeof *d);
    if (d == NULL)
        return err_set(err, ERR_SYS, "out of memory");
    d->config = config;
    d->deploys_only = true;
    if (set_up(d, err) < 0) {
        free(d);
        return -1;
    }
    log_info("no daemon is at work: cert-manager %s does it here", CERT_MANAGER_VERSION);
    begin(d, NULL);
    (void)daemon_accept_deployment(d, deployment, err);
    go_on_to_the_end(d);
    failed = judge_end(&d->requests[REQUEST_DEPLOY], ret, err);
    free_daemon(d);
    return failed;
}
