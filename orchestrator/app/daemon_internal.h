/*
 * daemon_internal: what daemon_life.c (how it begins and ends), daemon.c (what comes next), daemon_keys.c (keys, and the pair in
 * the TLS folder), daemon_preflight.c, daemon_issue.c and daemon_challenges.c (obtaining another one),
 * daemon_ledger.c (whether a CA may be asked for it), daemon_apply.c (what is served), daemon_look.c
 * (whether it still is), daemon_renewal.c (until when), daemon_evidence.c (what proves it), daemon_reload.c
 * (other settings) and daemon_heir.c (what outlives them) share.
 */
#ifndef CM_APP_DAEMON_INTERNAL_H
#define CM_APP_DAEMON_INTERNAL_H

#include "adapters/challenge.h"
#include "adapters/dstack.h"
#include "adapters/hook.h"
#include "adapters/ledger_file.h"
#include "adapters/measure.h"
#include "adapters/nginx.h"
#include "adapters/store.h"
#include "app/daemon_parts.h"
#include "app/site.h"
#include "base/log.h"
#include "domain/account.h"
#include "domain/deployment.h"
#include "domain/fallback.h"
#include "domain/health.h"
#include "domain/journal.h"
#include "domain/metrics.h"
#include "domain/plan.h"
#include "domain/preflight.h"
#include "domain/status.h"
#include "domain/stored.h"
#include "flows/adopt_flow.h"
#include "flows/apply_flow.h"
#include "flows/evidence_flow.h"
#include "flows/issue_flow.h"
#include "flows/keys_flow.h"
#include "flows/look_flow.h"
#include "flows/preflight_flow.h"
#include "flows/renewal_info_flow.h"
#include "runtime/http.h"
#include "runtime/observer.h"
#include "runtime/server.h"
#include "runtime/signals.h"
#include "runtime/spawn.h"
#include "runtime/timer.h"
#include "runtime/watch.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <uv.h>

enum { DAEMON_SETTLE_MS = 2 * 1000 };

/* The one flow that may be at work, besides that of the site. */
enum activity {
    IDLE,
    STARTING,
    FETCHING_KEYS,
    ADOPTING,
    CHECKING,
    ISSUING,
    APPLYING,
    LOOKING,
    GATHERING,
    ASKING,
};

/* What an apply flow is about. */
enum subject { CANDIDATE, SERVED, REPAIR };

struct daemon {
    const struct config *config;
    uv_loop_t loop;
    struct http *http;
    struct dstack agent;
    struct measure measure;
    struct store store;
    struct nginx_facts facts;
    char live_chain[FS_PATH_MAX]; /* that facts name, "" for none */
    struct site site;
    struct timer wake;
    struct timer settle;    /* the TLS folder was touched: judged when that has rested */
    uint64_t touched_at_ms; /* first, since the pair there was judged */
    bool judged;            /* the pair there, as it is */
    uint64_t unfinished_since_ms; /* the pair that is to be examined; 0: it is not */
    int64_t examined_ns; /* when the pair that was judged last had been changed */
    struct challenges challenges;
    struct watch
        site_folder; /* of default.conf, which `prestart` or a person may change */
    struct watch pid_folder;
    struct watch tls_folder;
    struct signals signals;
    struct spawn_watch helper; /* that starts programs */
    bool has_failed;           /* the process has to be started anew */
    struct reload reload;

    /* What is to be served with: derived, or with tls.key: external that of the pair. */
    EVP_PKEY *tls_key;
    struct secret *ekm_secret;
    struct chain *candidate; /* obtained or found on disk, not served yet */

    /* What is served. */
    struct chain *served; /* NULL: HTTP alone */
    EVP_PKEY *served_key;
    struct secret *served_secret;
    bool attested;
    struct err why_not;                 /* attested */
    enum measure_source source;         /* how it is known what the last event names */
    uint64_t unmeasured_since_ms;       /* 0: measuring works */
    char last_event[JOURNAL_LEAF_SIZE]; /* by our own record of this boot, "" for none */
    pid_t nginx_master;                 /* when it was applied last */
    uint64_t look_at_ms;                /* whether that is still so */
    unsigned looks_close;               /* since an event of ours */
    unsigned outdone;                   /* how often by another program's event */
    uint64_t outdone_at_ms;
    char outdone_by[JOURNAL_LEAF_SIZE];
    bool applied;          /* once in this life: nginx has read what is on disk */
    bool unread;           /* HTTP alone was installed when no nginx ran to be told */
    bool looks_for_staged; /* an earlier life may have left one, once another is served */

    struct renewal_record renewal;      /* of the served leaf */
    struct renewal_record next_renewal; /* of one that is to be served */

    char evidence[FS_PATH_MAX];            /* that facts name */
    char evidence_leaf[JOURNAL_LEAF_SIZE]; /* of which evidence is shown, "" for none */

    struct preflight preflight; /* as found last */
    unsigned resolve_tries;     /* in vain, before the next order */
    struct certbot_version certbot_version;

    struct ledger_file ledger;
    char names[LEDGER_NAMES_SIZE]; /* of the certificate, as the ledger has them */
    bool ledger_failed;            /* it was logged that it cannot be used */
    struct {                       /* the order that comes next, when its time has come */
        struct ledger_question question;
        size_t authority; /* of the CAs */
        bool rehearse;    /* it is to be rehearsed first */
    } next;

    struct plan_facts plan_facts;
    unsigned failures[PLAN_ACTIVITIES];       /* in a row */
    struct fallback fallback;                 /* which CA comes next */
    size_t authority;                         /* the one that is asked, or was last */
    struct account accounts[AUTHORITIES_MAX]; /* ours at each, as far as it is known */
    char last_reason[PLAN_REASON_SIZE];       /* logged last */
    char last_refusal[ADOPT_REFUSAL_SIZE];
    struct buf status; /* as it was published last */
    bool unpublished;  /* it was logged that it cannot be */
    struct told told;
    struct metrics metrics;
    struct hooks hooks;
    struct health_file health_file;
    struct server control;
    struct scrape scrape;
    struct server_place control_place; /* of the one that the next life takes over */
    struct control_request requests[REQUEST_KINDS];
    bool
        renew_repeats; /* a forced one failed before: it is tried again even when this one is refused */
    struct {
        struct deployment waits; /* until it is the candidate; without a chain: none */
        char leaf[JOURNAL_LEAF_SIZE]; /* of the last that was accepted */
        uint64_t deadline_ms;         /* for it to be served */
    } deploy;
    int folder_lock;   /* on the TLS folder, -1 without */
    bool deploys_only; /* no daemon is at work: one deployment, and then the end */

    enum activity activity;
    enum subject subject;
    unsigned starting; /* what is not known yet: nginx's version, addresses of backends */
    bool stopping;
    bool goes_on;                   /* the process has lived with other settings before */
    char unfit[STORED_REASON_SIZE]; /* of the plan's facts */
    union {
        struct nginx_probe probe;
        struct keys_flow keys;
        struct adopt_flow adopt;
        struct preflight_flow preflight;
        struct issue_flow issue;
        struct apply_flow apply;
        struct look_flow look;
        struct evidence_flow evidence;
        struct renewal_info_flow renewal_info;
    } flow;
};

/* ---- daemon.c ---- */

uint64_t daemon_uptime_ms(struct daemon *d);

/* A failure is logged, with what happens next. */
void daemon_retry_later(struct daemon *d, enum plan_activity activity,
                        const struct err *err, uint64_t wait_ms);
uint64_t daemon_local_pace(const struct daemon *d, enum plan_activity activity);

/* An activity ended: its row of failures grows or is forgotten. */
void daemon_count(struct daemon *d, enum plan_activity activity, bool failed);

/* Every flow ends here: what comes next is begun. */
void daemon_flow_ended(struct daemon *d);
void daemon_proceed(struct daemon *d);

/* The time has come to look at what others do, and at the plan. */
void daemon_on_wake(void *owner);

/* What others write makes that time come. */
void daemon_watch_others(struct daemon *d);

/* ---- daemon_life.c ---- */

/* The flow at work is cut short: there is to be another life, or none. */
void daemon_stop(struct daemon *d);

/* While stopping: once nothing is at work the handles are closed, and the loop ends. */
void daemon_end_if_idle(struct daemon *d);

/* ---- daemon_status.c ---- */

/* <run_dir>/status.json says what holds now; written only when that has changed. */
void daemon_publish_status(struct daemon *d);

/* What goes on, for the status; see struct told. */
void daemon_note_step(struct daemon *d, const char *flow, const char *step);
void daemon_note_plan(struct daemon *d, const struct plan *plan);

/* The port presented that leaf, "" when it did not answer (`failure`, else NULL). */
void daemon_note_probe(struct daemon *d, const char *sha256, const struct err *failure);
void daemon_note_event(struct daemon *d, const char *sha256, enum measure_source source);
void daemon_note_success(struct daemon *d, enum plan_activity activity);

/* After it was counted; it is tried again in so long. */
void daemon_note_failure(struct daemon *d, enum plan_activity activity,
                         const struct err *err, uint64_t wait_ms);

/* The same as JSON, appended to `ret`. */
int daemon_status_text(const struct daemon *d, struct buf *ret, struct err *err);

/* ---- daemon_health.c ---- */

/* Whether HTTPS serves a certificate that is valid now; never asks anybody. */
void daemon_judge_health(const struct daemon *d, struct health *ret);

/* GET /health: 200 when it does, else 503; see domain/health.h. */
int daemon_answer_health(struct daemon *d, const struct server_request *request,
                         struct server_answer *ret, struct err *err);

/* ---- daemon_metrics.c ---- */

/* From here to daemon_end_metrics all that is observed in the process is counted here. */
void daemon_init_metrics(struct daemon *d);
void daemon_end_metrics(void);
void daemon_count_issue(struct daemon *d, const struct issue_flow *flow,
                        const struct err *err);
void daemon_count_adoption(struct daemon *d);
void daemon_count_failure(struct daemon *d, enum plan_activity activity,
                          enum err_kind kind);
int daemon_metrics_text(struct daemon *d, struct buf *ret, struct err *err);

/* The exposition format of Prometheus. */
#define DAEMON_METRICS_TYPE "text/plain; version=0.0.4; charset=utf-8"

/* ---- daemon_scrape.c ---- */

void daemon_start_scrape(struct daemon *d);
void daemon_close_scrape(struct daemon *d);

/* ---- daemon_hooks.c ---- */

void daemon_init_hooks(struct daemon *d);
void daemon_done_hooks(struct daemon *d);

/* What waits to be told, and what was told last. */
void daemon_inherit_hooks(struct daemon *d, struct daemon *former);

/*
 * Whether nothing is at work any more; else daemon_end_if_idle is called when that is so. What waits is
 * kept for the next life, if there is one.
 */
bool daemon_stop_hooks(struct daemon *d);

/* A certificate was obtained, the candidate; another one is served; nginx may have another level. */
void daemon_tell_issued(struct daemon *d);
void daemon_tell_applied(struct daemon *d);
void daemon_tell_level(struct daemon *d);

/* PLAN_ACTIVITIES: that of the site. */
void daemon_tell_failure(struct daemon *d, enum plan_activity activity,
                         const struct log_fields *fields);

/* ---- daemon_health_file.c ---- */

void daemon_init_health_file(struct daemon *d);
void daemon_close_health_file(struct daemon *d);

/* What is served may have changed. */
void daemon_refresh_health_file(struct daemon *d);

/* The container probably ends, and nobody should be led here for the minute that the file still counts. */
void daemon_withdraw_health_file(struct daemon *d);

/* ---- daemon_control.c ---- */

void daemon_start_control(struct daemon *d);

/* ---- daemon_requests.c ---- */

/*
 * Over the socket: one that waits or runs is what the next of its kind gets, too. The answer is
 * 202 with its id, state and text, and GET /v1/status tells below "requests" what comes of it.
 */
void daemon_request_accept(struct control_request *request);
int daemon_request_answer(const struct control_request *request,
                          struct server_answer *ret, struct err *err);
bool daemon_request_is_open(const struct control_request *request);
void daemon_request_set(struct control_request *request, enum request_state state,
                        const char *format, ...) __attribute__((format(printf, 3, 4)));
json_t *daemon_requests_json(const struct daemon *d);

/* ---- daemon_reload.c ---- */

void daemon_init_reload(struct daemon *d);
void daemon_done_reload(struct daemon *d);

/*
 * The settings are read again, and wait to be lived by; -1 when they cannot be, with all that is wrong
 * with them in the report, which the caller releases in either case. It is logged here.
 */
int daemon_ask_reload(struct daemon *d, struct config_report *report);
int daemon_answer_reload(struct daemon *d, const struct server_request *request,
                         struct server_answer *ret, struct err *err);

/* Whether they have their turn now. */
bool daemon_reload_is_due(struct daemon *d);

/*
 * Whether other settings have their turn, so that nothing else is to begin; what can be done for them
 * now is begun. For whoever is about to begin something, and when something has ended.
 */
bool daemon_gives_way(struct daemon *d);

/* Whether nothing is at work any more. */
bool daemon_stop_reload(struct daemon *d);

/* An apply flow of what is served has ended: nginx has the settings of this life, or has not. */
void daemon_note_settings_applied(struct daemon *d, const struct err *err);

/* ---- daemon_renew.c ---- */

int daemon_answer_renew(struct daemon *d, const struct server_request *request,
                        struct server_answer *ret, struct err *err);

/* What the plan makes of a renewal that was asked for, false: refused, so that another plan holds. */
bool daemon_follow_renew(struct daemon *d, const struct plan *plan);
/* And what came of it. */
void daemon_note_renew_failed(struct daemon *d, enum plan_activity activity,
                              const struct err *err, const char *wait);
void daemon_note_renewed(struct daemon *d);

/* ---- daemon_log.c ---- */

int daemon_answer_log_level(struct daemon *d, const struct server_request *request,
                            struct server_answer *ret, struct err *err);
int daemon_set_log_level(struct daemon *d, const struct server_request *request,
                         struct server_answer *ret, struct err *err);

/* ---- daemon_heir.c ---- */

/* What a life with other settings takes over, from one whose loop has ended; before its set-up. */
void daemon_inherit(struct daemon *d, struct daemon *former);

/* The rest of it, after the set-up. */
void daemon_settle_in(struct daemon *d, struct daemon *former);

/* ---- daemon_deploy.c ---- */

int daemon_answer_deploy(struct daemon *d, const struct server_request *request,
                         struct server_answer *ret, struct err *err);

/*
 * Takes what `deployment` has, which is left empty, and begins with it when its time has come; the request
 * tells what comes of it. -1 when it is refused at once.
 */
int daemon_accept_deployment(struct daemon *d, struct deployment *deployment,
                             struct err *err);

/* Before each plan: what was brought becomes the candidate, and the request follows it. */
void daemon_follow_deployment(struct daemon *d);

/* Whether that has just come live, and its request has not heard of it yet. */
bool daemon_serves_deployment(const struct daemon *d);

/* A wait of `wait_ms` ends no later than the time that a deployment has. */
uint64_t daemon_until_deadline(struct daemon *d, uint64_t wait_ms);

/* One that is not served yet has its turn again in the next life. */
void daemon_inherit_deployment(struct daemon *d, struct daemon *former);

/* The candidate could not be applied; the time of the next try has been set. */
void daemon_note_undeployed(struct daemon *d, const struct err *err);

/* ---- daemon_keys.c ---- */

/* The one that has to be that of a leaf, NULL with tls.key: external. */
const EVP_PKEY *daemon_required_key(const struct daemon *d);

void daemon_start_keys(struct daemon *d);
int daemon_serve_http_only(struct daemon *d, struct err *err);

/*
 * While nothing else is served, whatever else is at work: `prestart` may have written what it could
 * without the account, and nginx may have been started with it.
 */
void daemon_look_after_http_only(struct daemon *d);
void daemon_examine(struct daemon *d);

/* For what its watch did not see. */
void daemon_look_at_folder(struct daemon *d);

/* Somebody is touching the TLS folder. */
void daemon_folder_touched(struct daemon *d);

/* Whether that is what nginx would read now: what is served, if anything is. */
bool daemon_has_served_pair(const struct daemon *d);

/* Whether a pair is there that has not been judged yet: nothing may take its place. It will be. */
bool daemon_has_unjudged_pair(struct daemon *d);

/* What an earlier life obtained, and could not bring live, is tried again. */
void daemon_take_staged(struct daemon *d);

/* The TLS folder has been touched, and rested since. */
void daemon_on_folder_settled(void *owner);

/* ---- daemon_apply.c ---- */

void daemon_start_apply(struct daemon *d, enum subject subject);
void daemon_drop_candidate(struct daemon *d);

/* Before the pair on the volume is replaced, which it may be: it must not cost an order. */
void daemon_keep_candidate(struct daemon *d);
void daemon_forget_served(struct daemon *d);

/* `why_not` says why no event names what is served any more. */
void daemon_lose_attestation(struct daemon *d);

/* ---- daemon_look.c ---- */

bool daemon_is_look_due(struct daemon *d);
/* planned_ms, or what is left until the next look when that is less. */
uint64_t daemon_until_look(struct daemon *d, uint64_t planned_ms);
/* At once, and again soon. */
void daemon_look_closely(struct daemon *d);
void daemon_start_look(struct daemon *d);

/* ---- daemon_issue.c ---- */

void daemon_start_adopt(struct daemon *d);
/* Checks first, except for what needs none: a certbot of an earlier life, and development. */
void daemon_start_issue(struct daemon *d);
void daemon_start_order(struct daemon *d, bool takes_over_only);

/* ---- daemon_preflight.c ---- */

/* Whether it can be run, so that no order has to wait for that. */
void daemon_ask_certbot(struct daemon *d);

/* An order follows when nothing speaks against it. */
void daemon_start_preflight(struct daemon *d);

/* ---- daemon_challenges.c ---- */

void daemon_watch_challenges(struct daemon *d);

/* Whether nothing is at work any more; else daemon_end_if_idle is called when that is so. */
bool daemon_stop_challenges(struct daemon *d);

/* An order begins, and ends. */
void daemon_begin_challenges(struct daemon *d);
void daemon_judge_challenges(struct daemon *d, const struct certbot_outcome *outcome);

/* ---- daemon_renewal.c ---- */

/*
 * Of a leaf that was obtained: which CA issued it (NULL: not known), and whether other machines
 * serve it, too.
 */
void daemon_expect_renewal(struct daemon *d, const struct chain_leaf *leaf,
                           const struct authority *issuer, bool shared);

/* That issued the served leaf, as far as that is known; else the main one. */
const struct authority *daemon_issuer_of_served(const struct daemon *d);

/* What is served may have changed. */
void daemon_follow_renewal(struct daemon *d);
void daemon_start_asking(struct daemon *d);

/* ---- daemon_accounts.c ---- */

void daemon_note_account(struct daemon *d, size_t i, const struct account *account);
void daemon_recall_accounts(struct daemon *d);
/* ---- daemon_ledger.c ---- */

int daemon_init_ledger(struct daemon *d, struct err *err);

/* The plan's facts: whether an order may be made now, and where. */
void daemon_ask_ledger(struct daemon *d);

/*
 * What one of the CAs still allows by its limits. False where nothing is ordered, or the ledger cannot be
 * read: nobody knows then.
 */
bool daemon_permits(const struct daemon *d, size_t authority,
                    struct ledger_permits ret[LEDGER_BUCKETS]);

/* What the flow that has ended came to at the CA, which it has asked, is entered. */
struct ledger_ending {
    enum ledger_outcome outcome;
    unsigned in_a_row;
    uint64_t wait_ms; /* until there may be another try */
};
struct ledger_ending daemon_enter_outcome(struct daemon *d, const struct err *err);

struct pace_limits daemon_pace_limits(const struct config *config,
                                      const struct authority *authority, bool rehearsal);

/* ---- daemon_evidence.c ---- */

/* After nginx_machine_facts: whether there is any. */
int daemon_init_evidence(struct daemon *d, struct err *err);

/* What is served may have changed: evidence of another leaf is withdrawn, and new one due. */
void daemon_follow_evidence(struct daemon *d);
void daemon_start_evidence(struct daemon *d);

#endif
