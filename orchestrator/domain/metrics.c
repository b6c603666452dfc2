#include "domain/metrics.h"

#include "base/text.h"

#include <assert.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum kind { GAUGE, COUNTER, SUMMARY };

struct family {
    const char *name;
    enum kind kind;
    const char *help;
    const char *labels[METRIC_LABELS];
};

static const struct family families[METRIC_COUNT] = {
    [METRIC_BUILD_INFO] = {"cert_manager_build_info",
                           GAUGE,
                           "What this program was built from.",
                           {"version", "openssl"}},
    [METRIC_START_TIME] = {"cert_manager_start_time_seconds",
                           GAUGE,
                           "When the daemon started, in Unix time.",
                           {NULL}},
    [METRIC_CERTIFICATE_INFO] = {"cert_manager_certificate_info",
                                 GAUGE,
                                 "The served certificate.",
                                 {"sha256", "issuer"}},
    [METRIC_CERTIFICATE_NOT_BEFORE] =
        {"cert_manager_certificate_not_before_timestamp_seconds",
         GAUGE,
         "Begin of the served certificate, in Unix time.",
         {NULL}},
    [METRIC_CERTIFICATE_NOT_AFTER] =
        {"cert_manager_certificate_not_after_timestamp_seconds",
         GAUGE,
         "End of the served certificate, in Unix time.",
         {NULL}},
    [METRIC_HTTPS_UP] = {"cert_manager_https_up",
                         GAUGE,
                         "Whether nginx serves HTTPS with a certificate that was seen.",
                         {NULL}},
    [METRIC_ATTESTED] =
        {"cert_manager_attested",
         GAUGE,
         "Whether the last certificate event names the served certificate.",
         {NULL}},
    [METRIC_ISSUES] = {"cert_manager_issues_total",
                       COUNTER,
                       "Orders of certificates, by what became of them.",
                       {"result"}},
    [METRIC_REHEARSALS] =
        {"cert_manager_rehearsals_total",
         COUNTER,
         "Orders at a CA whose certificates are thrown away, by what became of them.",
         {"result"}},
    [METRIC_ADOPTIONS] = {"cert_manager_adoptions_total",
                          COUNTER,
                          "Certificates that were taken from others instead of ordered.",
                          {NULL}},
    [METRIC_RENEWALS] =
        {"cert_manager_renewals_total",
         COUNTER,
         "Orders and adoptions while a certificate was served, by what became of them.",
         {"result"}},
    [METRIC_FAILURES] = {"cert_manager_failures_total",
                         COUNTER,
                         "Failures of what the daemon does, by kind.",
                         {"activity", "kind"}},
    [METRIC_FAILED_IN_ROW] = {"cert_manager_consecutive_failures",
                              GAUGE,
                              "Failures in a row of what the daemon does.",
                              {"activity"}},
    [METRIC_LEDGER_USABLE] = {"cert_manager_ledger_usable",
                              GAUGE,
                              "Whether the ledger of orders can be read and written: "
                              "without it nothing is ordered.",
                              {NULL}},
    [METRIC_LIMIT] = {"cert_manager_limit_permits",
                      GAUGE,
                      "How much a CA allows.",
                      {"ca", "limit"}},
    [METRIC_LIMIT_LEFT] = {"cert_manager_limit_permits_left",
                           GAUGE,
                           "How much of it may still be asked for now.",
                           {"ca", "limit"}},
    [METRIC_CHALLENGES] = {"cert_manager_challenges_total",
                           COUNTER,
                           "HTTP-01 challenges, by what was seen of them.",
                           {"result"}},
    [METRIC_NGINX_RELOADS] = {"cert_manager_nginx_reloads_total",
                              COUNTER,
                              "Reloads of nginx, by result.",
                              {"result"}},
    [METRIC_NGINX_LEVEL] = {"cert_manager_nginx_configuration_level",
                            GAUGE,
                            "Which configuration nginx has: 1 for the one in force.",
                            {"level"}},
    [METRIC_AGENT_REQUESTS] = {"cert_manager_agent_requests_total",
                               COUNTER,
                               "Calls of the guest agent, by result.",
                               {"method", "result"}},
    [METRIC_AGENT_UP] = {"cert_manager_agent_up",
                         GAUGE,
                         "Whether the guest agent answered when it was asked last.",
                         {NULL}},
    [METRIC_CERTBOT_DURATION] = {"cert_manager_certbot_duration_seconds",
                                 SUMMARY,
                                 "How long certbot ran.",
                                 {NULL}},
    [METRIC_NEXT_ACTION_TIME] = {"cert_manager_next_action_timestamp_seconds",
                                 GAUGE,
                                 "When what comes next is due, in Unix time.",
                                 {"action"}},
    [METRIC_PREFLIGHT] = {"cert_manager_preflight_ok",
                          GAUGE,
                          "Checks before an order: 1 when all is well.",
                          {"check"}},
    [METRIC_STEP_DURATION] = {"cert_manager_step_duration_seconds",
                              SUMMARY,
                              "How long the steps of the flows took.",
                              {"flow", "step"}},
    [METRIC_STEP_FAILURES] = {"cert_manager_step_failures_total",
                              COUNTER,
                              "Steps of the flows that failed.",
                              {"flow", "step"}},
    [METRIC_PROCESS_CPU] = {"process_cpu_seconds_total",
                            COUNTER,
                            "CPU time of the daemon, in user and kernel mode.",
                            {NULL}},
    [METRIC_PROCESS_MEMORY] = {"process_resident_memory_bytes",
                               GAUGE,
                               "Memory of the daemon that is in RAM.",
                               {NULL}},
    [METRIC_PROCESS_FDS] = {"process_open_fds",
                            GAUGE,
                            "Open file descriptors of the daemon.",
                            {NULL}},
    [METRIC_HOOKS] =
        {"cert_manager_hook_runs_total",
         COUNTER,
         "Runs of the operator's programs, by what they were told and result.",
         {"event", "result"}},
};

/* ---- series ---- */

static bool is_series(const struct metric_series *series, enum metric metric,
                      char labels[METRIC_LABELS][METRIC_LABEL_SIZE])
{
    return series->metric == metric && strcmp(series->labels[0], labels[0]) == 0 &&
           strcmp(series->labels[1], labels[1]) == 0;
}

static struct metric_series *append(struct metrics *metrics)
{
    struct metric_series *grown;
    size_t capacity = metrics->capacity == 0 ? 32 : 2 * metrics->capacity;

    if (metrics->count == METRIC_SERIES_MAX)
        return NULL;
    if (metrics->count == metrics->capacity) {
        grown = realloc(metrics->series, capacity * sizeof *grown);
        if (grown == NULL)
            return NULL;
        metrics->series = grown;
        metrics->capacity = capacity;
    }
    return &metrics->series[metrics->count++];
}

/* NULL when there is no room. */
static struct metric_series *find(struct metrics *metrics, enum metric metric,
                                  const char *first, const char *second)
{
    const struct family *family = &families[metric];
    char labels[METRIC_LABELS][METRIC_LABEL_SIZE] = {{0}};
    struct metric_series *series;

    assert((first != NULL) == (family->labels[0] != NULL));
    assert((second != NULL) == (family->labels[1] != NULL));
    snprintf(labels[0], sizeof labels[0], "%s", first != NULL ? first : "");
    snprintf(labels[1], sizeof labels[1], "%s", second != NULL ? second : "");
    for (size_t i = 0; i < metrics->count; i++) {
        if (is_series(&metrics->series[i], metric, labels))
            return &metrics->series[i];
    }
    series = append(metrics);
    if (series != NULL) {
        *series = (struct metric_series){.metric = metric};
        memcpy(series->labels, labels, sizeof labels);
    }
    return series;
}

void metrics_set(struct metrics *metrics, enum metric metric, const char *first,
                 const char *second, double value)
{
    struct metric_series *series = find(metrics, metric, first, second);

    assert(families[metric].kind == GAUGE);
    if (series != NULL)
        series->value = value;
}

void metrics_add(struct metrics *metrics, enum metric metric, const char *first,
                 const char *second, double by)
{
    struct metric_series *series = find(metrics, metric, first, second);

    assert(families[metric].kind == COUNTER && by >= 0);
    if (series != NULL)
        series->value += by;
}

void metrics_reach(struct metrics *metrics, enum metric metric, const char *first,
                   const char *second, double value)
{
    struct metric_series *series = find(metrics, metric, first, second);

    assert(families[metric].kind == COUNTER);
    if (series != NULL && value > series->value)
        series->value = value;
}

void metrics_observe(struct metrics *metrics, enum metric metric, const char *first,
                     const char *second, double seconds)
{
    struct metric_series *series = find(metrics, metric, first, second);

    assert(families[metric].kind == SUMMARY);
    if (series == NULL)
        return;
    series->value += seconds;
    series->count++;
}

void metrics_forget(struct metrics *metrics, enum metric metric)
{
    size_t kept = 0;

    for (size_t i = 0; i < metrics->count; i++) {
        if (metrics->series[i].metric != metric)
            metrics->series[kept++] = metrics->series[i];
    }
    metrics->count = kept;
}

void metrics_done(struct metrics *metrics)
{
    free(metrics->series);
    *metrics = (struct metrics){.series = NULL};
}

/* ---- text ---- */

const char *metrics_name(enum metric metric)
{
    return families[metric].name;
}

const char *metrics_label(enum metric metric, size_t i)
{
    return i < METRIC_LABELS ? families[metric].labels[i] : NULL;
}

static int write_label(struct buf *ret, char before, const char *name, const char *value,
                       struct err *err)
{
    if (buf_printf(ret, err, "%c%s=\"", before, name) < 0)
        return -1;
    for (size_t left = strlen(value), size; left > 0; value += size, left -= size) {
        unsigned code;
        const char *escaped = *value == '\\'   ? "\\\\"
                              : *value == '"'  ? "\\\""
                              : *value == '\n' ? "\\n"
                                               : NULL;

        size = text_character(value, left, &code);
        if (size == 0) {
            size = 1;
            escaped = "?";
        }
        if ((escaped != NULL ? buf_append_str(ret, escaped, err)
                             : buf_append(ret, value, size, err)) < 0)
            return -1;
    }
    return buf_append_str(ret, "\"", err);
}

static int write_sample(struct buf *ret, const struct metric_series *series,
                        const char *suffix, double value, struct err *err)
{
    const struct family *family = &families[series->metric];
    /* Whole numbers as such: Unix times would lose their last digits to %g. */
    bool is_whole = value == floor(value) && fabs(value) < 1e15;

    if (buf_printf(ret, err, "%s%s", family->name, suffix) < 0)
        return -1;
    for (size_t i = 0; i < METRIC_LABELS && family->labels[i] != NULL; i++) {
        if (write_label(ret, i == 0 ? '{' : ',', family->labels[i], series->labels[i],
                        err) < 0)
            return -1;
    }
    return buf_printf(ret, err, is_whole ? "%s %.0f\n" : "%s %.9g\n",
                      family->labels[0] != NULL ? "}" : "", value);
}

static int write_series(struct buf *ret, const struct metric_series *series,
                        struct err *err)
{
    if (families[series->metric].kind != SUMMARY)
        return write_sample(ret, series, "", series->value, err);
    return write_sample(ret, series, "_sum", series->value, err) < 0
               ? -1
               : write_sample(ret, series, "_count", (double)series->count, err);
}

static int write_family(struct buf *ret, const struct metrics *metrics,
                        enum metric metric, struct err *err)
{
    static const char *const kinds[] = {
        [GAUGE] = "gauge", [COUNTER] = "counter", [SUMMARY] = "summary"};
    const struct family *family = &families[metric];
    bool is_first = true;

    for (size_t i = 0; i < metrics->count; i++) {
        if (metrics->series[i].metric != metric)
            continue;
        if (is_first &&
            buf_printf(ret, err,
                       "# HELP %s %s\n"
                       "# TYPE %s %s\n",
                       family->name, family->help, family->name, kinds[family->kind]) < 0)
            return -1;
        is_first = false;
        if (write_series(ret, &metrics->series[i], err) < 0)
            return -1;
    }
    return 0;
}

int metrics_to_text(const struct metrics *metrics, struct buf *ret, struct err *err)
{
    for (int metric = 0; metric < METRIC_COUNT; metric++) {
        if (write_family(ret, metrics, (enum metric)metric, err) < 0)
            return -1;
    }
    return 0;
}
