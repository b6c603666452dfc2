/*
 * metrics: counters, gauges and sums of durations, and their text in the exposition format of
 * Prometheus, version 0.0.4. Pure.
 *
 * One table in metrics.c names each family, what kind it is, what it means and its labels.
 * A series comes into being when it is touched first; there is a limit to their number, so
 * that a label's values, which may come from outside, cannot grow without end. What is not UTF-8
 * in them is replaced: Prometheus would refuse all of the text.
 */
#ifndef CM_DOMAIN_METRICS_H
#define CM_DOMAIN_METRICS_H

#include "base/buf.h"
#include "base/err.h"

#include <stddef.h>

enum metric {
    METRIC_BUILD_INFO,             /* version, openssl */
    METRIC_START_TIME,             /* Unix seconds */
    METRIC_CERTIFICATE_INFO,       /* sha256 and issuer of the served one */
    METRIC_CERTIFICATE_NOT_BEFORE, /* Unix seconds */
    METRIC_CERTIFICATE_NOT_AFTER,  /* Unix seconds */
    METRIC_HTTPS_UP,
    METRIC_ATTESTED,
    METRIC_ISSUES,        /* by result: "ok" or kind of failure */
    METRIC_REHEARSALS,    /* by result */
    METRIC_ADOPTIONS,     /* of what others serve */
    METRIC_RENEWALS,      /* by result: "ok", "adopted" or kind of failure */
    METRIC_FAILURES,      /* by activity and kind */
    METRIC_FAILED_IN_ROW, /* by activity, 0 when it went well last */
    METRIC_LEDGER_USABLE,
    METRIC_LIMIT,          /* by CA and limit */
    METRIC_LIMIT_LEFT,     /* the same */
    METRIC_CHALLENGES,     /* by result */
    METRIC_NGINX_RELOADS,  /* by result */
    METRIC_NGINX_LEVEL,    /* by level, one of them 1 */
    METRIC_AGENT_REQUESTS, /* by method and result */
    METRIC_AGENT_UP,
    METRIC_CERTBOT_DURATION,
    METRIC_NEXT_ACTION_TIME, /* Unix seconds, by action */
    METRIC_PREFLIGHT,        /* by check, 1 when it is well */
    METRIC_STEP_DURATION,    /* by flow and step */
    METRIC_STEP_FAILURES,    /* by flow and step */
    METRIC_PROCESS_CPU,      /* seconds */
    METRIC_PROCESS_MEMORY,   /* bytes */
    METRIC_PROCESS_FDS,
    METRIC_HOOKS, /* by event and result */
    METRIC_COUNT,
};

enum { METRIC_LABELS = 2, METRIC_LABEL_SIZE = 128, METRIC_SERIES_MAX = 512 };

struct metric_series {
    enum metric metric;
    char labels[METRIC_LABELS]
               [METRIC_LABEL_SIZE]; /* values; "" where there is no label */
    double value;                   /* of a summary: the sum */
    unsigned long long count;       /* of a summary */
};

struct metrics {
    struct metric_series *series;
    size_t count;
    size_t capacity;
};

/* Accepts a zeroed struct, which is also how one begins. */
void metrics_done(struct metrics *metrics);

/*
 * Labels in the order of the table; NULL where the family has none. Without memory, or beyond
 * METRIC_SERIES_MAX, a new series is left out.
 */
void metrics_set(struct metrics *metrics, enum metric metric, const char *first,
                 const char *second, double value);
void metrics_add(struct metrics *metrics, enum metric metric, const char *first,
                 const char *second, double by);

/* A counter that somebody else counts: it is there by now. */
void metrics_reach(struct metrics *metrics, enum metric metric, const char *first,
                   const char *second, double value);

/* A summary: its sum grows by `seconds`, its count by one. */
void metrics_observe(struct metrics *metrics, enum metric metric, const char *first,
                     const char *second, double seconds);

/* Every series of the family goes: what they said does not hold any more. */
void metrics_forget(struct metrics *metrics, enum metric metric);

/* "cert_manager_https_up" */
const char *metrics_name(enum metric metric);

/* Its i-th label, NULL behind the last one. */
const char *metrics_label(enum metric metric, size_t i);

/* Appended to `ret`: HELP, TYPE and the series of each family that has any. */
int metrics_to_text(const struct metrics *metrics, struct buf *ret, struct err *err);

#endif
