#include "domain/status.h"

#include "base/secret.h"
#include "domain/json_text.h"

static const char *mode_of(const struct config *config)
{
    if (config->development)
        return "development";
    return config->acme.staging ? "staging" : "production";
}

static json_t *texts_of(const struct config_list *texts)
{
    json_t *list = json_array();

    for (size_t i = 0; i < texts->count; i++)
        json_array_append_new(list, json_string(texts->items[i]));
    return list;
}

static json_t *certificate_of(const struct chain_leaf *leaf)
{
    if (leaf == NULL)
        return json_null();
    return json_pack("{s:s, s:o, s:s, s:I, s:I}", "sha256", leaf->sha256, "issuer",
                     json_of_text(leaf->issuer_name), "serial", leaf->serial,
                     "not_before", (json_int_t)leaf->not_before, "not_after",
                     (json_int_t)leaf->not_after);
}

static json_t *text_or_null(const char *text)
{
    return text[0] == '\0' ? json_null() : json_of_text(text);
}

static json_t *time_or_null(int64_t when)
{
    return when == 0 ? json_null() : json_integer((json_int_t)when);
}

static json_t *renewal_of_leaf(const struct status *status)
{
    static const char *const rules[] = {
        [RENEWAL_BY_LIFETIME] = "lifetime",
        [RENEWAL_BY_SETTING] = "acme.renew_before",
        [RENEWAL_BY_CA] = "renewal information",
    };
    const struct renewal_record *record = status->renewal;
    struct renewal renewal;
    json_t *window = json_null();

    if (status->leaf == NULL || record == NULL)
        return json_null();
    renewal =
        renewal_of(status->terms, status->leaf->not_before, status->leaf->not_after);
    if (renewal_window_is_sound(&record->info.window))
        window = json_pack("{s:I, s:I}", "start", (json_int_t)record->info.window.start,
                           "end", (json_int_t)record->info.window.end);
    return json_pack("{s:I, s:s, s:o, s:o, s:o, s:o}", "at", (json_int_t)renewal.at,
                     "rule", rules[renewal.rule], "window", window, "explanation",
                     json_of_text(record->info.explanation), "asked_at",
                     time_or_null(record->asked_at), "ask_at",
                     time_or_null(record->ask_at));
}

/* What the port has presented, and what the last event names: to be compared with the certificate. */
static json_t *probe_of(const struct status_probe *probe)
{
    return json_pack("{s:o, s:o, s:o}", "sha256", text_or_null(probe->sha256),
                     "probed_at", time_or_null(probe->at), "error",
                     text_or_null(probe->error));
}

static json_t *event_of(const struct status_event *event)
{
    return json_pack("{s:o, s:o, s:o}", "sha256", text_or_null(event->sha256), "from",
                     event->at == 0 ? json_null() : json_string(event->from), "at",
                     time_or_null(event->at));
}

static json_t *measurement_of(const struct status *status)
{
    return json_pack("{s:s, s:s, s:b, s:s, s:o}", "backend", status->backend, "policy",
                     status->config->measurement_required ? "required" : "best-effort",
                     "attested", status->attested, "known_from", status->last_event_from,
                     "reason", json_of_text(status->why_not_attested));
}

static json_t *upstreams_of(const struct upstreams *upstreams)
{
    json_t *list = json_array();

    for (size_t i = 0; i < upstreams->count; i++) {
        const struct upstream *upstream = &upstreams->items[i];
        json_t *addresses = json_array();

        for (size_t k = 0; k < upstream->count; k++)
            json_array_append_new(addresses, json_string(upstream->addresses[k]));
        json_array_append_new(list,
                              json_pack("{s:s, s:s, s:i, s:o}", "name", upstream->name,
                                        "host", upstream->host, "port",
                                        (int)upstream->port, "addresses", addresses));
    }
    return list;
}

static const char *account_state(const struct account *account)
{
    if (account->deactivated)
        return "deactivated: set LETSENCRYPT_ACCOUNT_VERSION to a value that was never "
               "used, such as v2, for a new one";
    return account->url[0] == '\0' ? "not known yet" : "valid";
}

/* Those that the CA has; null when nobody knows what is left. */
static json_t *limits_of(const struct status *status, size_t authority)
{
    json_t *limits;

    if (status->permits == NULL)
        return json_null();
    limits = json_object();
    for (unsigned k = 0; k < LEDGER_BUCKETS; k++) {
        const struct ledger_permits *permits = &status->permits[authority][k];

        if (permits->limit > 0)
            json_object_set_new(limits, ledger_bucket_name((enum ledger_bucket)k),
                                json_pack("{s:I, s:I, s:o}", "limit",
                                          (json_int_t)permits->limit, "left",
                                          (json_int_t)permits->left, "next_at",
                                          time_or_null(permits->next_at)));
    }
    return limits;
}

static json_t *authorities_of(const struct status *status)
{
    const struct authorities *authorities = &status->config->acme.authorities;
    json_t *list = json_array();

    for (size_t i = 0; i < authorities->count; i++) {
        const struct account *account = &status->accounts[i];
        char record[ACCOUNT_CAA_SIZE];

        account_caa_record(account, status->config->domain, record);
        json_array_append_new(
            list, json_pack("{s:s, s:o, s:s, s:o, s:i, s:o}", "directory",
                            authorities->items[i].directory, "account",
                            text_or_null(account->url), "account_state",
                            account_state(account), "caa", text_or_null(record),
                            "failures", (int)status->fallback->items[i].failures,
                            "limits", limits_of(status, i)));
    }
    return list;
}

/* Checks that have not been made yet are left out. */
static json_t *preflight_of(const struct preflight *preflight)
{
    json_t *list = json_array();

    for (int i = 0; i < PREFLIGHT_CHECKS; i++) {
        const struct preflight_finding *finding = &preflight->findings[i];

        if (finding->text[0] == '\0')
            continue;
        json_array_append_new(list, json_pack("{s:s, s:s, s:o, s:o}", "name",
                                              preflight_name((enum preflight_check)i),
                                              "verdict",
                                              preflight_verdict_name(finding->verdict),
                                              "text", json_of_text(finding->text), "hint",
                                              json_of_text(finding->hint)));
    }
    return list;
}

static json_t *challenges_of(const struct status_challenges *counts)
{
    return json_pack("{s:I, s:I, s:I, s:I}", "presented", (json_int_t)counts->presented,
                     "served", (json_int_t)counts->served, "succeeded",
                     (json_int_t)counts->succeeded, "failed", (json_int_t)counts->failed);
}

/* From when on the ledger lets a CA be asked, and why not before. */
static json_t *orders_of(const struct status *status)
{
    bool is_known = status->order_from != INT64_MAX;

    return json_pack(
        "{s:o, s:o}", "from",
        is_known ? json_integer((json_int_t)status->order_from) : json_null(), "reason",
        json_of_text(status->order_why == NULL ? "" : status->order_why));
}

static json_t *activity_of(const struct status_activity *activity)
{
    if (activity->flow[0] == '\0')
        return json_null();
    return json_pack("{s:s, s:s, s:I}", "flow", activity->flow, "step", activity->step,
                     "since", (json_int_t)activity->since);
}

static json_t *next_of(const struct status *status)
{
    return json_pack(
        "{s:s, s:o, s:o}", "action", plan_action_name(status->next_action.action), "at",
        time_or_null(status->next_action.at), "why", json_of_text(status->next));
}

static json_t *success_of(const struct status_success *success)
{
    if (success->what == NULL)
        return json_null();
    return json_pack("{s:s, s:I}", "activity", success->what, "at",
                     (json_int_t)success->at);
}

static json_t *failure_of(const struct status_failure *failure)
{
    if (failure->what == NULL)
        return json_null();
    return json_pack("{s:s, s:I, s:s, s:o, s:o, s:I, s:o, s:b}", "activity",
                     failure->what, "at", (json_int_t)failure->at, "kind",
                     err_kind_name(failure->kind), "reason",
                     json_of_text(failure->reason), "hint", text_or_null(failure->hint),
                     "attempt", (json_int_t)failure->attempt, "retry_at",
                     failure->open ? time_or_null(failure->retry_at) : json_null(),
                     "open", failure->open);
}

static json_t *attention_of(const struct status *status)
{
    struct status_attention attention;
    json_t *list = json_array();

    status_attention(status, &attention);
    for (size_t i = 0; i < attention.count; i++)
        json_array_append_new(list, json_string(attention.texts[i]));
    return list;
}

/* What it works with. */
static void add_parts(json_t *root, const struct status *status)
{
    const struct status_agent *agent = &status->agent;
    const struct status_certbot *certbot = &status->certbot;

    json_object_set_new(root, "agent",
                        agent->endpoint == NULL
                            ? json_null()
                            : json_pack("{s:s, s:o, s:o}", "endpoint", agent->endpoint,
                                        "version", text_or_null(agent->version),
                                        "app_name", text_or_null(agent->name)));
    json_object_set_new(root, "certbot",
                        certbot->path == NULL
                            ? json_null()
                            : json_pack("{s:s, s:o, s:o}", "path", certbot->path,
                                        "version", text_or_null(certbot->version),
                                        "error", text_or_null(certbot->error)));
}

static json_t *hardening_of(const struct status_hardening *hardening)
{
    return json_pack(
        "{s:b, s:b, s:o, s:b, s:o}", "no_new_privileges", hardening->no_new_privileges,
        "seccomp", hardening->seccomp, "landlock",
        hardening->landlock == 0 ? json_null() : json_integer(hardening->landlock),
        "locked_memory", hardening->locked_memory, "missing",
        text_or_null(hardening->missing));
}

int status_to_json(const struct status *status, struct buf *ret, struct err *err)
{
    unsigned long refusals = wipe_refusals();
    json_t *nginx = json_pack(
        "{s:s, s:o, s:s, s:o}", "configuration", nginx_level_name(status->level),
        "reason", json_of_text(status->level_reason), "answers_challenges_of",
        status->account_thumbprint, "upstreams", upstreams_of(status->upstreams));
    json_t *root =
        json_pack("{s:s, s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "version",
                  CERT_MANAGER_VERSION, "mode", mode_of(status->config), "domain",
                  status->config->domain, "domains", texts_of(&status->config->domains),
                  "certificate", certificate_of(status->leaf), "renewal",
                  renewal_of_leaf(status), "measurement", measurement_of(status), "nginx",
                  nginx, "authorities", authorities_of(status), "orders",
                  orders_of(status), "next", json_of_text(status->next));

    json_object_set_new(root, "attention", attention_of(status));
    json_object_set_new(root, "started_at", json_integer((json_int_t)status->started_at));
    json_object_set_new(root, "served", probe_of(status->probe));
    json_object_set_new(root, "last_event", event_of(status->event));
    json_object_set_new(root, "activity", activity_of(&status->activity));
    json_object_set_new(root, "next_action", next_of(status));
    json_object_set_new(root, "last_success", success_of(status->success));
    json_object_set_new(root, "last_failure", failure_of(status->failure));
    add_parts(root, status);
    json_object_set_new(root, "preflight", preflight_of(status->preflight));
    json_object_set_new(root, "challenges", challenges_of(&status->challenges));
    json_object_set_new(root, "hardening", hardening_of(status->hardening));
    json_object_set_new(root, "requests", status->requests);
    /* One that lacks members would be taken for one that has them unset. */
    if (wipe_refusals() != refusals || status->requests == NULL) {
        json_decref(root);
        root = NULL;
    }
    return json_to_text(root, 2, "the status cannot be written as JSON", ret, err);
}
