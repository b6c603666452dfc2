#include "domain/status.h"

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
    return json_pack("{s:s, s:s, s:s, s:I, s:I}", "sha256", leaf->sha256, "issuer",
                     leaf->issuer_name, "serial", leaf->serial, "not_before",
                     (json_int_t)leaf->not_before, "not_after",
                     (json_int_t)leaf->not_after);
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
    return json_pack("{s:I, s:s, s:o, s:s, s:o, s:o}", "at", (json_int_t)renewal.at,
                     "rule", rules[renewal.rule], "window", window, "explanation",
                     record->info.explanation, "asked_at", time_or_null(record->asked_at),
                     "ask_at", time_or_null(record->ask_at));
}

static json_t *measurement_of(const struct status *status)
{
    return json_pack("{s:s, s:s, s:b, s:s, s:s}", "backend", status->backend, "policy",
                     status->config->measurement_required ? "required" : "best-effort",
                     "attested", status->attested, "known_from", status->last_event_from,
                     "reason", status->why_not_attested);
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

static json_t *text_or_null(const char *text)
{
    return text[0] == '\0' ? json_null() : json_string(text);
}

static json_t *authorities_of(const struct status *status)
{
    const struct authorities *authorities = &status->config->acme.authorities;
    json_t *list = json_array();

    for (size_t i = 0; i < authorities->count; i++) {
        const struct account *account = &status->accounts[i];
        char record[ACCOUNT_CAA_SIZE];

        account_caa_record(account, status->config->domain, record);
        json_array_append_new(list, json_pack("{s:s, s:o, s:s, s:o, s:i}", "directory",
                                              authorities->items[i].directory, "account",
                                              text_or_null(account->url), "account_state",
                                              account_state(account), "caa",
                                              text_or_null(record), "failures",
                                              (int)status->fallback->items[i].failures));
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
        json_array_append_new(
            list, json_pack("{s:s, s:s, s:s, s:s}", "name",
                            preflight_name((enum preflight_check)i), "verdict",
                            preflight_verdict_name(finding->verdict), "text",
                            finding->text, "hint", finding->hint));
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

    return json_pack("{s:o, s:s}", "from",
                     is_known ? json_integer((json_int_t)status->order_from)
                              : json_null(),
                     "reason", status->order_why == NULL ? "" : status->order_why);
}

int status_to_json(const struct status *status, struct buf *ret, struct err *err)
{
    json_t *nginx = json_pack(
        "{s:s, s:s, s:s, s:o}", "configuration", nginx_level_name(status->level),
        "reason", status->level_reason, "answers_challenges_of",
        status->account_thumbprint, "upstreams", upstreams_of(status->upstreams));
    json_t *root = json_pack(
        "{s:s, s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:s}", "version",
        CERT_MANAGER_VERSION, "mode", mode_of(status->config), "domain",
        status->config->domain, "domains", texts_of(&status->config->domains),
        "certificate", certificate_of(status->leaf), "renewal", renewal_of_leaf(status),
        "measurement", measurement_of(status), "nginx", nginx, "authorities",
        authorities_of(status), "orders", orders_of(status), "next", status->next);

    json_object_set_new(root, "preflight", preflight_of(status->preflight));
    json_object_set_new(root, "challenges", challenges_of(&status->challenges));
    json_object_set_new(root, "requests", status->requests);
    return json_to_text(root, 2, "the status cannot be written as JSON", ret, err);
}
