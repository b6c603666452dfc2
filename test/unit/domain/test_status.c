/* What is said of how things stand, and what somebody should look at. */
#include "domain/status.h"

#include "base/secret.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define NOW INT64_C(1795459747) /* 2026-11-23 18:49:07 UTC */
#define DAY INT64_C(86400)
#define LEAF "aa11"

/* Everything that a status borrows. */
struct scene {
    struct config config;
    char domain[32];
    char directory[64];
    struct chain_leaf leaf;
    struct renewal_record renewal;
    struct renewal_terms terms;
    struct upstreams upstreams;
    struct preflight preflight;
    struct account accounts[AUTHORITIES_MAX];
    struct fallback fallback;
    struct status_hardening hardening;
    struct status_probe probe;
    struct status_event event;
    struct status_success success;
    struct status_failure failure;
    struct ledger_permits permits[AUTHORITIES_MAX][LEDGER_BUCKETS];
    struct status status;
};

/* A leaf of 90 days, 10 days old, that is served, attested and not due. */
static struct scene *all_is_well(void)
{
    struct scene *s = calloc(1, sizeof *s);

    assert_non_null(s);
    strcpy(s->domain, "app.example.org");
    strcpy(s->directory, AUTHORITY_PRODUCTION);
    s->config.domain = s->domain;
    s->config.acme.authorities.count = 1;
    s->config.acme.authorities.items[0].directory = s->directory;
    strcpy(s->leaf.sha256, LEAF);
    s->leaf.not_before = NOW - 10 * DAY;
    s->leaf.not_after = NOW + 80 * DAY;
    s->probe = (struct status_probe){.at = NOW - 5, .sha256 = LEAF};
    s->event = (struct status_event){.at = NOW - 4, .sha256 = LEAF, .from = "event log"};
    s->permits[0][LEDGER_CERTIFICATES] =
        (struct ledger_permits){.limit = 5, .left = 3, .next_at = NOW + DAY};
    s->status = (struct status){
        .config = &s->config,
        .now = NOW,
        .started_at = NOW - DAY,
        .probe = &s->probe,
        .event = &s->event,
        .success = &s->success,
        .failure = &s->failure,
        .next_action = {.action = PLAN_ISSUE, .at = NOW + 50 * DAY},
        .agent = {.endpoint = "/run/dstack.sock", .version = "0.5.7", .name = ""},
        .certbot = {.path = "/usr/bin/certbot", .version = "certbot 5.8.0", .error = ""},
        .permits = s->permits,
        .leaf = &s->leaf,
        .renewal = &s->renewal,
        .terms = &s->terms,
        .attested = true,
        .last_event_from = "event log",
        .why_not_attested = "",
        .backend = "emit-event",
        .level = NGINX_HTTPS,
        .level_reason = "",
        .upstreams = &s->upstreams,
        .account_thumbprint = "",
        .preflight = &s->preflight,
        .hardening = &s->hardening,
        .accounts = s->accounts,
        .fallback = &s->fallback,
        .order_why = "",
        .not_reloaded = "",
        .next = "the next renewal is due",
    };
    return s;
}

/* Frees it. */
static json_t *told(struct scene *s)
{
    BUF_SCOPED text = {.max = 256 * 1024};
    struct err err = ERR_INIT;
    json_t *root;

    s->status.requests = json_object();
    assert_int_equal(status_to_json(&s->status, &text, &err), 0);
    root = json_loadb(buf_str(&text), text.len, 0, NULL);
    assert_non_null(root);
    free(s);
    return root;
}

/* The only thing that somebody should look at. Frees the scene. */
static void expect_attention(struct scene *s, const char *says)
{
    struct status_attention attention;

    status_attention(&s->status, &attention);
    free(s);
    assert_int_equal(attention.count, 1);
    if (strstr(attention.texts[0], says) == NULL)
        fail_msg("says \"%s\", not \"%s\"", attention.texts[0], says);
}

static json_int_t number(const json_t *root, const char *object, const char *name)
{
    return json_integer_value(json_object_get(json_object_get(root, object), name));
}

static const char *word(const json_t *root, const char *object, const char *name)
{
    return json_string_value(json_object_get(json_object_get(root, object), name));
}

/* ---- what is said ---- */

/* Of nginx, certbot, the agent; and an error's text is cut to its size, maybe within a character. */
static void what_is_no_utf8_is_told_escaped(void **state)
{
    struct scene *s = all_is_well();
    json_t *root;

    (void)state;
    s->status.level_reason = "unknown directive \"f\xfcr\"";
    s->status.why_not_attested = "the agent says \xe2\x80";
    s->status.next = "\xff";
    s->status.order_why = "\xff";
    s->status.certbot.error = "\xff";
    snprintf(s->leaf.issuer_name, sizeof s->leaf.issuer_name, "\xff");
    snprintf(s->accounts[0].url, sizeof s->accounts[0].url, "https://ca/\xc3");
    s->failure =
        (struct status_failure){.what = "issue", .reason = "\xff", .hint = "\xff"};
    s->preflight.findings[PREFLIGHT_DNS] =
        (struct preflight_finding){.text = "\xff", .hint = "\xff"};
    root = told(s);
    assert_string_equal(word(root, "nginx", "reason"), "unknown directive \"f\\xfcr\"");
    assert_string_equal(word(root, "measurement", "reason"), "the agent says \\xe2\\x80");
    assert_string_equal(word(root, "orders", "reason"), "\\xff");
    assert_string_equal(word(root, "certbot", "error"), "\\xff");
    assert_string_equal(word(root, "certificate", "issuer"), "\\xff");
    assert_string_equal(word(root, "last_failure", "reason"), "\\xff");
    assert_string_equal(word(root, "last_failure", "hint"), "\\xff");
    assert_string_equal(word(root, "next_action", "why"), "\\xff");
    assert_int_equal(json_array_size(json_object_get(root, "preflight")), 1);
    assert_int_equal(json_array_size(json_object_get(root, "authorities")), 1);
    json_decref(root);
}

static void every_part_is_told(void **state)
{
    struct scene *s = all_is_well();
    const json_t *authority;
    json_t *root;

    (void)state;
    s->status.activity = (struct status_activity){
        .flow = "issue", .step = "run certbot", .since = NOW - 3};
    s->success = (struct status_success){.what = "apply", .at = NOW - DAY};
    s->failure = (struct status_failure){.what = "issue",
                                         .at = NOW - 2 * DAY,
                                         .kind = ERR_NET,
                                         .reason = "no route",
                                         .hint = "look at the network",
                                         .attempt = 2,
                                         .retry_at = NOW - 2 * DAY + 60};
    root = told(s);
    assert_int_equal(json_array_size(json_object_get(root, "attention")), 0);
    assert_int_equal(number(root, "served", "probed_at"), NOW - 5);
    assert_string_equal(word(root, "served", "sha256"), LEAF);
    assert_string_equal(word(root, "last_event", "from"), "event log");
    assert_string_equal(word(root, "activity", "step"), "run certbot");
    assert_int_equal(number(root, "activity", "since"), NOW - 3);
    assert_string_equal(word(root, "next_action", "action"), "issue");
    assert_int_equal(number(root, "next_action", "at"), NOW + 50 * DAY);
    assert_string_equal(word(root, "last_success", "activity"), "apply");
    assert_string_equal(word(root, "last_failure", "kind"), "net");
    assert_string_equal(word(root, "last_failure", "hint"), "look at the network");
    /* It has gone well since. */
    assert_true(
        json_is_null(json_object_get(json_object_get(root, "last_failure"), "retry_at")));
    assert_string_equal(word(root, "agent", "version"), "0.5.7");
    assert_string_equal(word(root, "certbot", "version"), "certbot 5.8.0");
    authority = json_array_get(json_object_get(root, "authorities"), 0);
    assert_int_equal(number(json_object_get(authority, "limits"), "certificates", "left"),
                     3);
    assert_null(json_object_get(json_object_get(authority, "limits"), "orders"));
    json_decref(root);
}

static void what_is_not_known_is_null(void **state)
{
    static const char *const names[] = {"activity", "last_success", "last_failure",
                                        "agent",    "certbot",      "certificate"};
    struct scene *s = all_is_well();
    json_t *root;

    (void)state;
    s->probe = (struct status_probe){.at = 0};
    s->event = (struct status_event){.at = 0};
    s->status.leaf = NULL;
    s->status.agent.endpoint = NULL;
    s->status.certbot.path = NULL;
    s->status.permits = NULL;
    s->status.next_action.at = 0;
    root = told(s);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        assert_true(json_is_null(json_object_get(root, names[i])));
    assert_true(
        json_is_null(json_object_get(json_object_get(root, "served"), "probed_at")));
    assert_true(
        json_is_null(json_object_get(json_object_get(root, "last_event"), "from")));
    assert_true(
        json_is_null(json_object_get(json_object_get(root, "next_action"), "at")));
    json_decref(root);
}

/* ---- what somebody should look at ---- */

static void nothing_is_to_be_looked_at_when_all_is_well(void **state)
{
    struct scene *s = all_is_well();
    struct status_attention attention;

    (void)state;
    status_attention(&s->status, &attention);
    assert_int_equal(attention.count, 0);
    /* Nor in development, where nothing is attested. */
    s->config.development = true;
    s->status.attested = false;
    status_attention(&s->status, &attention);
    assert_int_equal(attention.count, 0);
    free(s);
}

static void each_trouble_is_named(void **state)
{
    struct scene *s = all_is_well();

    (void)state;
    s->status.leaf = NULL;
    s->status.next = "the keys are not at hand yet";
    expect_attention(s, "HTTPS is not served: the keys are not at hand yet");

    s = all_is_well();
    s->leaf.not_after = NOW;
    expect_attention(s, "the certificate has expired, on 2026-11-23 18:49:07 UTC");

    s = all_is_well();
    s->leaf.not_after = NOW + DAY;
    expect_attention(s, "the certificate expires soon");

    s = all_is_well();
    s->leaf.not_before = NOW + DAY;
    expect_attention(s, "clock right?");

    s = all_is_well();
    s->leaf.not_before = NOW - 65 * DAY;
    s->leaf.not_after = NOW + 25 * DAY;
    expect_attention(s, "the renewal has been due since");

    s = all_is_well();
    strcpy(s->probe.sha256, "bb22");
    expect_attention(s, "HTTPS presents leaf bb22");

    s = all_is_well();
    s->probe = (struct status_probe){.at = NOW, .error = "connection refused"};
    expect_attention(s, "HTTPS does not answer: connection refused");

    s = all_is_well();
    s->status.attested = false;
    s->status.why_not_attested = "the agent hangs";
    expect_attention(s, "NOT ATTESTED, clients that verify refuse: the agent hangs");

    s = all_is_well();
    s->status.level = NGINX_HTTPS_REDUCED;
    s->status.level_reason = "host not found";
    expect_attention(s, "nginx has the reduced configuration: host not found");

    s = all_is_well();
    s->failure = (struct status_failure){
        .what = "evidence", .reason = "no quote \xff\n", .open = true};
    expect_attention(s, "evidence failed: no quote \\xff\\x0a");

    s = all_is_well();
    s->status.order_from = INT64_MAX;
    s->status.order_why = "the ledger cannot be read";
    expect_attention(s, "the ledger cannot be read");

    s = all_is_well();
    s->accounts[0].deactivated = true;
    expect_attention(s, "is deactivated: set LETSENCRYPT_ACCOUNT_VERSION");

    s = all_is_well();
    s->status.certbot.error = "no such file";
    expect_attention(s, "certbot cannot be run: no such file");
}

static void renewal_has_a_day_before_anybody_is_called(void **state)
{
    struct scene *s = all_is_well();
    struct status_attention attention;

    (void)state;
    s->leaf.not_before = NOW - 60 * DAY - DAY;
    s->leaf.not_after = s->leaf.not_before + 90 * DAY;
    status_attention(&s->status, &attention);
    assert_int_equal(attention.count, 0);
    s->status.now++;
    status_attention(&s->status, &attention);
    assert_int_equal(attention.count, 1);
    /* What is somebody else's matter is not overdue. */
    s->status.renewal = NULL;
    status_attention(&s->status, &attention);
    assert_int_equal(attention.count, 0);
    free(s);
}

static void a_backend_that_was_named_and_is_not_found(void **state)
{
    static struct upstream upstreams[] = {
        {.name = UPSTREAM_AUTH, .host = "auth-service", .port = 8081},
        {.name = UPSTREAM_APP, .host = "vllm", .port = 8000},
    };
    struct scene *s = all_is_well();

    (void)state;
    s->upstreams = (struct upstreams){.items = upstreams, .count = 2};
    expect_attention(
        s, "upstream vllm, port 8000: the name does not resolve; its paths answer 502");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_part_is_told),
        cmocka_unit_test(what_is_no_utf8_is_told_escaped),
        cmocka_unit_test(what_is_not_known_is_null),
        cmocka_unit_test(a_backend_that_was_named_and_is_not_found),
        cmocka_unit_test(nothing_is_to_be_looked_at_when_all_is_well),
        cmocka_unit_test(each_trouble_is_named),
        cmocka_unit_test(renewal_has_a_day_before_anybody_is_called),
    };

    json_set_alloc_funcs(wipe_malloc, wipe_free);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
