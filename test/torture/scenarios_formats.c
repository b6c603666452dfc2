/* What is written down for later, for others, and for people; and what comes from them. */
#include "scenario.h"

#include "base/secret.h"
#include "domain/certbot_record.h"
#include "domain/deployment.h"
#include "domain/event_log.h"
#include "domain/event_verdict.h"
#include "domain/journal.h"
#include "domain/json_text.h"
#include "domain/keys.h"
#include "domain/ledger.h"
#include "domain/metrics.h"
#include "domain/renewal_record.h"
#include "domain/runtime_log.h"
#include "domain/status.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NOW = 1795459747 };

#define LEAF_16 "0123456789abcdef"
#define LEAF LEAF_16 LEAF_16 LEAF_16 LEAF_16
#define OTHER_16 "fedcba9876543210"
#define OTHER_LEAF OTHER_16 OTHER_16 OTHER_16 OTHER_16

/* ---- what we write down ---- */

static int journal(struct scene *scene)
{
    const struct journal_intent intent = {JOURNAL_BACK, LEAF, OTHER_LEAF};
    const struct journal_record record = {LEAF, OTHER_LEAF,
                                          "11111111-2222-3333-4444-555555555555"};
    struct journal_intent intent_read;
    struct journal_record record_read;
    BUF_SCOPED text;

    buf_init(&text, 4096);
    if (journal_intent_write(&intent, &text, &scene->err) < 0 ||
        journal_intent_read(buf_str(&text), &intent_read, &scene->err) < 0)
        return -1;
    scene_add(scene, journal_wanted(&intent_read));
    buf_clear(&text);
    if (journal_record_write(&record, &text, &scene->err) < 0 ||
        journal_record_read(buf_str(&text), &record_read, &scene->err) < 0)
        return -1;
    scene_add(scene, record_read.event);
    return 0;
}

static int renewal_record(struct scene *scene)
{
    const struct renewal_record record = {
        .leaf = LEAF, .directory = "https://ca.example/dir", .spread = 7, .ask_at = NOW};
    struct renewal_record found;
    BUF_SCOPED text;

    buf_init(&text, 4096);
    if (renewal_record_write(&record, &text, &scene->err) < 0 ||
        renewal_record_read(buf_str(&text), &found, &scene->err) < 0)
        return -1;
    scene_add(scene, buf_str(&text));
    return 0;
}

static int certbot_record(struct scene *scene)
{
    char *names[] = {scene->folder};
    const struct config_list list = {names, 1};
    const struct certbot_purpose purpose = {"https://ca.example/dir", &list,
                                            "0123456789abcdef"};
    const struct certbot_record record = {.pid = 7, .started = 8, .begun = NOW};
    struct certbot_record found;
    BUF_SCOPED text;

    buf_init(&text, CERTBOT_RECORD_MAX_BYTES);
    if (certbot_record_write(&record, &purpose, &text, &scene->err) < 0 ||
        certbot_record_read(&text, &purpose, &found, &scene->err) < 0)
        return -1;
    scene_add(scene, found.ours ? "ours" : "not ours");
    return 0;
}

static int enter(struct ledger *ledger, const char *names, struct err *err)
{
    const struct ledger_subject subject = {"https://ca.example/dir", names, "v1"};
    const struct ledger_entry result = {.outcome = LEDGER_DOUBTFUL, .wait_s = 60};
    int64_t at;

    if (ledger_begin(ledger, &subject, NOW, &at, err) < 0)
        return -1;
    return ledger_end(ledger, &subject, at, &result, NOW + 5, err);
}

static int ledger(struct scene *scene)
{
    struct ledger made = {0}, found = {0};
    BUF_SCOPED text;
    int result;

    buf_init(&text, LEDGER_MAX_BYTES);
    result = enter(&made, "a.example.test", &scene->err) < 0 ||
                     enter(&made, "b.example.test", &scene->err) < 0 ||
                     ledger_write(&made, &text, &scene->err) < 0 ||
                     ledger_read(&text, &found, &scene->err) < 0
                 ? -1
                 : 0;
    if (result == 0)
        scene_add(scene, buf_str(&text));
    if (result == 0 && found.count != made.count)
        scene_add(scene, "some are lost");
    ledger_done(&made);
    ledger_done(&found);
    return result;
}

/* ---- what others ask for ---- */

static int metrics(struct scene *scene)
{
    struct metrics metrics = {0};
    BUF_SCOPED text;
    int result;

    buf_init(&text, 1024 * 1024);
    metrics_set(&metrics, METRIC_HTTPS_UP, NULL, NULL, 1);
    metrics_add(&metrics, METRIC_FAILURES, "issue", "peer", 1);
    metrics_observe(&metrics, METRIC_STEP_DURATION, "apply", "measure", 0.25);
    result = metrics_to_text(&metrics, &text, &scene->err);
    metrics_done(&metrics);
    return result;
}

static int status(struct scene *scene)
{
    static char domain[] = "app.example.test", directory[] = "https://ca.example/dir";
    static struct config config = {.domain = domain, .acme.authorities.count = 1};
    static struct account accounts[AUTHORITIES_MAX] = {
        {.url = "https://ca.example/acct/1"}};
    static struct fallback fallback;
    static struct preflight preflight;
    static const struct status_hardening hardening = {.missing = "seccomp: not here"};
    static struct ledger_permits permits[AUTHORITIES_MAX][LEDGER_BUCKETS];
    static struct renewal_record renewal;
    static struct renewal_terms terms;
    static struct upstreams upstreams;
    const struct chain_leaf leaf = {
        .sha256 = "aa", .not_before = NOW, .not_after = NOW + 1000};
    const struct status_probe probe = {.at = NOW, .sha256 = "aa"};
    const struct status_event event = {.at = NOW, .sha256 = "aa", .from = "event log"};
    const struct status_success success = {.what = "apply", .at = NOW};
    const struct status_failure failure = {
        .what = "issue", .kind = ERR_PEER, .reason = "\xff no"};
    struct status told = {
        .config = &config,
        .now = NOW,
        .started_at = NOW,
        .probe = &probe,
        .event = &event,
        .success = &success,
        .failure = &failure,
        .agent = {"/run/dstack.sock", "0.5.7", "app"},
        .certbot = {"/usr/bin/certbot", "certbot 5.8.0", ""},
        .permits = permits,
        .leaf = &leaf,
        .renewal = &renewal,
        .terms = &terms,
        .attested = true,
        .last_event_from = "event log",
        .why_not_attested = "",
        .backend = "emit-event",
        .level = NGINX_HTTPS,
        .level_reason = "",
        .upstreams = &upstreams,
        .account_thumbprint = "",
        .preflight = &preflight,
        .hardening = &hardening,
        .accounts = accounts,
        .fallback = &fallback,
        .order_why = "",
        .not_reloaded = "",
        .next = "nothing",
    };
    BUF_SCOPED text;

    config.acme.authorities.items[0].directory = directory;
    buf_init(&text, 256 * 1024);
    told.requests = json_object();
    if (status_to_json(&told, &text, &scene->err) < 0)
        return -1;
    scene_add(scene, buf_str(&text));
    return 0;
}

static int json_text(struct scene *scene)
{
    json_t *root = json_object();
    BUF_SCOPED text;

    buf_init(&text, 4096);
    if (root != NULL &&
        json_object_set_new(root, "text", json_of_text("\xff and more")) < 0) {
        json_decref(root);
        root = NULL;
    }
    if (json_to_text(root, 2, "the text cannot be made", &text, &scene->err) < 0)
        return -1;
    scene_add(scene, buf_str(&text));
    return 0;
}

/* ---- what comes from others ---- */

static int deploy(struct scene *scene)
{
    struct deployment deployment = {0}, again = {0};
    SECRET_SCOPED pem = NULL;
    BUF_SCOPED text;
    int result = keys_to_pem(scene_key(), &pem, &scene->err);

    buf_init(&text, 256 * 1024);
    if (result == 0)
        result = deployment_parse(&deployment, scene_chain(), strlen(scene_chain()), pem,
                                  &scene->err);
    if (result == 0)
        result = deployment_to_json(&deployment, &text, &scene->err);
    if (result == 0)
        result = deployment_from_json(&again, buf_str(&text), text.len, &scene->err);
    if (result == 0)
        scene_add(scene, chain_leaf(again.chain)->sha256);
    deployment_done(&deployment);
    deployment_done(&again);
    return result;
}

static int runtime_log(struct scene *scene)
{
    const struct event_content content = {"New TLS Certificate", 19, "0123", 4};
    const struct event_question question = {.leaf_sha256 = "30313233"};
    struct event_verdict *verdict = calloc(1, sizeof *verdict);
    struct event_log *log = NULL;
    char text[96];
    BUF_SCOPED lines = {0};
    int result = verdict == NULL ? err_sys(&scene->err, 12, "verdict") : 0;

    if (result == 0)
        result = runtime_log_line(&lines, EVENT_VERSION_2, &content, &scene->err);
    if (result == 0)
        result = runtime_log_parse(buf_str(&lines), lines.len, &log, &scene->err);
    if (result == 0)
        result = event_verdict(verdict, log, &question, &scene->err);
    if (result == 0) {
        snprintf(text, sizeof text, "%zu entries, %zu faults, %02x", verdict->entries,
                 verdict->fault_count, verdict->rtmr3[0]);
        scene_add(scene, text);
    }
    event_log_free(log);
    free(verdict);
    return result;
}

static int event_log(struct scene *scene)
{
    static const char text[] =
        "{\"rtmr3\": \"\", \"event_log\": \"[{\\\"imr\\\":3,\\\"event_type\\\":134217729,"
        "\\\"digest\\\":\\\"00\\\",\\\"event\\\":\\\"app-id\\\",\\\"event_payload\\\":"
        "\\\"61\\\"},"
        "{\\\"imr\\\":0}]\"}";
    struct event_log *log = NULL;
    struct event last;
    char line[64];

    if (event_log_parse(text, sizeof text - 1, &log, &scene->err) < 0)
        return -1;
    snprintf(line, sizeof line, "%zu, %d", event_log_length(log),
             event_log_last(log, "app-id", &last));
    scene_add(scene, line);
    event_log_free(log);
    return 0;
}

static int renewal_info(struct scene *scene)
{
    struct renewal_info info;
    char line[64];

    if (renewal_info_read(
            "{\"suggestedWindow\": {\"start\": \"2026-11-23T18:49:07Z\", "
            "\"end\": \"2026-11-24T18:49:07Z\"}, \"explanationURL\": \"https://a/b\"}",
            &info, &scene->err) < 0)
        return -1;
    snprintf(line, sizeof line, "%lld", (long long)info.window.start);
    scene_add(scene, line);
    return 0;
}

const struct scenario scenarios_of_formats[] = {
    {"the journal is written and read", NULL, journal, NULL, NULL, false},
    {"the record of a renewal is written and read", NULL, renewal_record, NULL, NULL,
     false},
    {"the record of a run of certbot is written and read", NULL, certbot_record, NULL,
     NULL, false},
    {"a ledger is written and read", NULL, ledger, NULL, NULL, false},
    {"metrics are told", NULL, metrics, NULL, NULL, false},
    {"the status is told", NULL, status, NULL, NULL, false},
    {"a text becomes JSON", NULL, json_text, NULL, NULL, false},
    {"a certificate is deployed", NULL, deploy, NULL, NULL, false},
    {"a runtime log is judged", NULL, runtime_log, NULL, NULL, false},
    {"an event log is read", NULL, event_log, NULL, NULL, false},
    {"renewal information is read", NULL, renewal_info, NULL, NULL, false},
    {0},
};
