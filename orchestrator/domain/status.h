/*
 * status: what the daemon knows about itself, as JSON text for people and programs. Pure.
 *
 * Times are Unix seconds, fingerprints lower-case hex SHA-256. Nothing in it is secret.
 */
#ifndef CM_DOMAIN_STATUS_H
#define CM_DOMAIN_STATUS_H

#include "base/buf.h"
#include "base/err.h"
#include "domain/account.h"
#include "domain/chain.h"
#include "domain/config.h"
#include "domain/fallback.h"
#include "domain/ledger_policy.h"
#include "domain/nginx_conf.h"
#include "domain/plan.h"
#include "domain/preflight.h"
#include "domain/renewal_record.h"

#include <jansson.h>
#include <stdbool.h>

/* Challenges since the start. Those of an order that failed otherwise have no end. */
struct status_challenges {
    unsigned presented;
    unsigned served; /* fetched by ourselves, with the right text */
    unsigned succeeded;
    unsigned failed;
};

/* What is going on now: the step of the flow that is at work. */
struct status_activity {
    char flow[32]; /* "" when nothing is */
    char step[48];
    int64_t since; /* when the step began */
};

/* What the port has presented, asked by a handshake. */
struct status_probe {
    int64_t at;      /* 0: it was not asked yet */
    char sha256[65]; /* "" when it did not answer: `error` says how */
    char error[ERR_MESSAGE_MAX];
};

/* The last certificate event. */
struct status_event {
    int64_t at; /* when that was found out, 0: never */
    char sha256
        [65]; /* the leaf that it names, "" when there is none, or that is not known */
    const char *from; /* "event log" or "own record" */
};

struct status_success {
    const char *what; /* NULL: there was none since the start */
    int64_t at;
};

struct status_failure {
    const char *what; /* NULL: there was none since the start */
    int64_t at;
    enum err_kind kind;
    char reason[ERR_MESSAGE_MAX];
    char hint[PREFLIGHT_TEXT_SIZE]; /* what a person can do, "" for nothing */
    unsigned attempt;               /* in a row */
    int64_t retry_at;
    bool open; /* it has not gone well since */
};

/* What the plan has begun, or waits for. */
struct status_next {
    enum plan_action action; /* PLAN_WAIT: what comes next is somebody else's matter */
    int64_t at;              /* 0: nobody knows */
    bool alarming;
};

struct status_agent {
    const char *endpoint;
    const char *version; /* "" when it does not say */
    const char *name;    /* of the application, as it says */
};

struct status_certbot {
    const char *path;
    const char *version; /* "certbot 5.8.0", "" when it is not known */
    const char *error;   /* why it cannot be run, "" when it can */
};

/* What is in force of what this process forbids itself. */
struct status_hardening {
    bool no_new_privileges;
    bool seccomp;
    int landlock; /* version, 0: no rules */
    bool locked_memory;
    char missing[ERR_MESSAGE_MAX]; /* what is not, and why; "" for nothing */
};

struct status {
    const struct config *config;
    int64_t now; /* Unix seconds */
    int64_t started_at;
    struct status_activity activity;
    const struct status_probe *probe;
    const struct status_event *event;
    const struct status_success *success;
    const struct status_failure *failure;
    struct status_next next_action;
    struct status_agent agent;
    struct status_certbot certbot;
    /* For each CA of the configuration, NULL where nothing is ordered or nobody knows. */
    const struct ledger_permits (*permits)[LEDGER_BUCKETS];
    const struct chain_leaf *leaf;        /* that is served, NULL for none */
    const struct renewal_record *renewal; /* of it; NULL when it is not ours to renew */
    const struct renewal_terms *terms;    /* and when that is */
    bool attested;
    const char *last_event_from;  /* how that is known: "event log" or "own record" */
    const char *why_not_attested; /* "" when it is */
    const char *backend;          /* of measurement: "emit-event", "native", "none" … */
    enum nginx_level level;
    const char *level_reason; /* why it is not the full one, "" when it is */
    const struct upstreams *upstreams;
    const char *account_thumbprint; /* whose challenges nginx answers, "" for nobody's */
    const struct preflight
        *preflight; /* the checks before the last order, or attempt at one */
    struct status_challenges challenges;
    const struct account *accounts; /* one for each CA of the configuration */
    const struct fallback *fallback;
    const struct status_hardening *hardening;
    int64_t order_from; /* Unix seconds, INT64_MAX: not known; see domain/plan.h */
    const char *order_why;
    const char *not_reloaded; /* why the last reload failed, "" when it did not */
    json_t *requests;         /* over the control socket; consumed */
    const char *next;         /* what the daemon is waiting for, and why */
};

enum { STATUS_ATTENTION_MAX = 16 };

/* What a person should look at, the worst first; none of it when all is well. */
struct status_attention {
    char texts[STATUS_ATTENTION_MAX][ERR_MESSAGE_MAX];
    size_t count;
};

void status_attention(const struct status *status, struct status_attention *ret);

/* Appended to `ret`, with a newline at its end. */
int status_to_json(const struct status *status, struct buf *ret, struct err *err);

#endif
