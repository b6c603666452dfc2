#include "adapters/acme_account.h"

#include "base/fs.h"
#include "base/log.h"
#include "base/text.h"
#include "domain/jose.h"
#include "domain/json_text.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

enum {
    ANSWER_MAX_BYTES = 64 * 1024,
    REQUEST_MAX_BYTES = 8 * 1024,
    HMAC_KEY_FILE_MAX_BYTES = 4096,
    CALL_TIMEOUT_MS = 30 * 1000,
    NONCE_REFUSALS_MAX = 8,
};

static const char *const jose_headers[] = {"Content-Type: application/jose+json", NULL};

static void call(struct acme_account *a, const char *method, const char *url)
{
    struct http_request request = {
        .method = method,
        .url = url,
        .ca_bundle = a->request.authority->ca_bundle,
        .proxy = a->request.authority->proxy,
        .no_proxy = a->request.authority->no_proxy,
        .max_body = ANSWER_MAX_BYTES,
        .timeout_ms = CALL_TIMEOUT_MS,
    };

    if (a->body.len > 0) {
        request.body = a->body.data;
        request.body_len = a->body.len;
        request.headers = jose_headers;
    }
    http_call_done(&a->http);
    http_start(&a->http, a->request.http, &request, seq_resume, &a->seq);
}

static void abort_call(void *flow)
{
    struct acme_account *a = flow;

    http_cancel(&a->http);
}

#define NEXT_ACCOUNT "LETSENCRYPT_ACCOUNT_VERSION=v2 (or the next) makes a new one"

/* What a CA wants of a person rather than of us, by ACME error type (RFC 8555 §6.7). */
static const struct {
    const char *type;
    const char *advice;
} for_people[] = {
    {"externalAccountRequired",
     "this CA needs an external account binding: set eab_key_id and eab_key_file to "
     "what it gave"},
    {"userActionRequired", "the CA wants its terms of service agreed to in person"},
    {"agreementRequired", "the CA wants its terms of service agreed to in person"},
    {"invalidContact", "set EMAIL to an address that the CA accepts, or to nothing"},
    {"unsupportedContact", "set EMAIL to an address that the CA accepts, or to nothing"},
    {"unauthorized", "the account of this key was deactivated at the CA: " NEXT_ACCOUNT},
};

/* Of a request that has one: whatever else the CA may have against it. */
static const char *const binding_doubts[] = {"unauthorized", "malformed"};

static const char *advice_for(const struct acme_account *a, const char *type)
{
    for (size_t i = 0; a->bound && i < sizeof binding_doubts / sizeof *binding_doubts;
         i++) {
        if (strcmp(type, binding_doubts[i]) == 0)
            return "the CA does not accept the external account binding: are eab_key_id "
                   "and eab_key_file what it gave?";
    }
    for (size_t i = 0; i < sizeof for_people / sizeof for_people[0]; i++) {
        if (strcmp(type, for_people[i].type) == 0)
            return for_people[i].advice;
    }
    return NULL;
}

/* The answer as a problem document (RFC 7807), turned into an error. */
static int refuse(struct acme_account *a, const char *what, struct err *err)
{
    json_t *root = json_load_whole(buf_str(&a->http.body), a->http.body.len, 0, NULL);
    const char *type = json_string_value(json_object_get(root, "type"));
    const char *detail = json_string_value(json_object_get(root, "detail"));
    const char *name = type == NULL ? NULL : strrchr(type, ':');
    const char *advice;

    advice = name == NULL ? NULL : advice_for(a, name + 1);
    if (advice != NULL)
        err_set_code(err, ERR_CONFIG, a->http.status, "%s: %s (%.60s): %.400s", what,
                     advice, name + 1, detail == NULL ? "no explanation" : detail);
    else
        (void)acme_refused(&a->http, what, err);
    a->deactivated = !a->bound && acme_problem_is(&a->http, "unauthorized");
    json_decref(root);
    return -1;
}

/* ---- directory ---- */

static int begin_directory(void *flow, struct err *err)
{
    struct acme_account *a = flow;
    const struct acme_directory_request request = {
        .http = a->request.http,
        .authority = a->request.authority,
        .timeout_ms = CALL_TIMEOUT_MS,
    };

    (void)err;
    acme_directory_start(&a->directory, &request, seq_resume, &a->seq);
    return SEQ_WAIT;
}

static int finish_directory(void *flow, struct err *err)
{
    struct acme_account *a = flow;

    (void)err;
    memcpy(a->caa_identity, a->directory.caa_identity, sizeof a->caa_identity);
    if (a->request.known_url == NULL)
        return SEQ_NEXT;
    snprintf(a->url, sizeof a->url, "%s", a->request.known_url);
    return SEQ_END;
}

static void abort_directory(void *flow)
{
    struct acme_account *a = flow;

    acme_directory_cancel(&a->directory);
}

/* ---- nonce ---- */

static int begin_nonce(void *flow, struct err *err)
{
    struct acme_account *a = flow;

    (void)err;
    call(a, "HEAD", a->directory.new_nonce);
    return SEQ_WAIT;
}

static int finish_nonce(void *flow, struct err *err)
{
    struct acme_account *a = flow;

    if (a->http.status != 200 && a->http.status != 204)
        return refuse(a, "newNonce", err);
    if (!acme_take_header(&a->http, "Replay-Nonce", a->nonce, sizeof a->nonce))
        return err_set(err, ERR_PEER, "newNonce: the answer has no usable Replay-Nonce");
    return SEQ_NEXT;
}

/* ---- newAccount, first to find it, then to make it ---- */

/* `payload` is consumed; NULL when it cannot be expressed in JSON. */
static int begin_post(struct acme_account *a, json_t *payload, struct err *err)
{
    char *text = json_dump_whole(payload, JSON_COMPACT);
    int failed;

    json_decref(payload);
    if (text == NULL)
        return err_set(err, ERR_CONFIG, "the contact address is not valid UTF-8");
    buf_clear(&a->body);
    failed = jose_sign_request(a->request.key, a->directory.new_account, a->nonce, NULL,
                               text, &a->body, err);
    wipe_free(text);
    if (failed != 0)
        return -1;
    call(a, "POST", a->directory.new_account);
    return SEQ_WAIT;
}

static int begin_find(void *flow, struct err *err)
{
    return begin_post(flow, json_pack("{s:b}", "onlyReturnExisting", 1), err);
}

static int add_binding(const struct acme_account *a, json_t *payload, struct err *err)
{
    const struct authority *authority = a->request.authority;
    SECRET_SCOPED text = NULL;
    SECRET_SCOPED key = NULL;
    json_t *binding = NULL;

    if (fs_read_secret(authority->eab_key_file, HMAC_KEY_FILE_MAX_BYTES, &text, err) <
            0 ||
        jose_read_hmac_key(text, &key, err) < 0) {
        err->kind = ERR_CONFIG;
        return err_wrap(err, "eab_key_file: %s", authority->eab_key_file);
    }
    if (jose_external_binding(a->request.key, authority->eab_key_id, key,
                              a->directory.new_account, &binding, err) < 0)
        return -1;
    return json_object_set_new(payload, "externalAccountBinding", binding) == 0
               ? 0
               : err_sys(err, ENOMEM, "cannot bind the account");
}

static int begin_create(void *flow, struct err *err)
{
    struct acme_account *a = flow;
    const char *email = a->request.config->acme.email;
    json_t *payload = json_pack("{s:b}", "termsOfServiceAgreed", 1);

    a->bound = a->request.authority->eab_key_id != NULL;
    if (a->bound && add_binding(a, payload, err) < 0) {
        json_decref(payload);
        return -1;
    }
    if (email[0] != '\0' &&
        json_object_set_new(payload, "contact", json_pack("[s+]", "mailto:", email)) <
            0) {
        json_decref(payload);
        payload = NULL;
    }
    return begin_post(a, payload, err);
}

/* A refused nonce comes with a fresh one: the same step again (RFC 8555 §6.5). */
static bool take_fresh_nonce(struct acme_account *a)
{
    bool fresh = acme_take_header(&a->http, "Replay-Nonce", a->nonce, sizeof a->nonce);

    return fresh && a->http.status == 400 && acme_problem_is(&a->http, "badNonce") &&
           ++a->nonce_refusals <= NONCE_REFUSALS_MAX;
}

static int take_url(struct acme_account *a, struct err *err)
{
    if (!acme_take_header(&a->http, "Location", a->url, sizeof a->url))
        return err_set(err, ERR_PEER,
                       "newAccount: the answer has no usable Location, expected the URL "
                       "of the account in less than %d bytes",
                       ACME_URL_SIZE);
    return SEQ_END;
}

/* Some CAs find an account that may not be used any more, others refuse (RFC 8555 §7.1.2). */
static int check_status(struct acme_account *a, struct err *err)
{
    json_t *account = json_load_whole(buf_str(&a->http.body), a->http.body.len, 0, NULL);
    const char *status = json_string_value(json_object_get(account, "status"));
    int failed = 0;

    if (status != NULL && strcmp(status, "valid") != 0) {
        a->deactivated = true;
        failed = err_set(err, ERR_CONFIG, "the account %.400s is %.60s: " NEXT_ACCOUNT,
                         a->url, status);
        a->url[0] = '\0';
    }
    json_decref(account);
    return failed;
}

static int take_account(struct acme_account *a, struct err *err)
{
    int next = take_url(a, err);

    return next == SEQ_END && check_status(a, err) < 0 ? -1 : next;
}

static int finish_find(void *flow, struct err *err)
{
    struct acme_account *a = flow;

    if (take_fresh_nonce(a))
        return seq_go_to(&a->seq, "find account");
    if (a->http.status == 200)
        return take_account(a, err);
    a->absent = acme_problem_is(&a->http, "accountDoesNotExist");
    if (a->absent && !a->request.existing_only)
        return SEQ_NEXT;
    return refuse(a, "newAccount", err);
}

static int finish_create(void *flow, struct err *err)
{
    struct acme_account *a = flow;

    if (take_fresh_nonce(a))
        return seq_go_to(&a->seq, "create account");
    if (a->http.status != 201 && a->http.status != 200)
        return refuse(a, "newAccount", err);
    a->created = a->http.status == 201;
    return take_account(a, err);
}

static const struct seq_step steps[] = {
    {"read directory", begin_directory, finish_directory, abort_directory, 0},
    {"get nonce", begin_nonce, finish_nonce, abort_call, 0},
    {"find account", begin_find, finish_find, abort_call, 0},
    {"create account", begin_create, finish_create, abort_call, 0},
    {0},
};

static void on_steps_done(void *owner, const struct err *seq_err)
{
    struct acme_account *a = owner;
    struct err err = ERR_INIT;

    http_call_done(&a->http);
    buf_done(&a->body);
    if (seq_err != NULL) {
        err = *seq_err;
        err_wrap(&err, "ACME directory %s", a->request.authority->directory);
    }
    a->done(a->owner, seq_err != NULL ? &err : NULL);
}

void acme_account_start(struct acme_account *account,
                        const struct acme_account_request *request, done_fn done,
                        void *owner)
{
    *account = (struct acme_account){.request = *request, .done = done, .owner = owner};
    buf_init(&account->body, REQUEST_MAX_BYTES);
    seq_start(&account->seq, request->loop, "ACME account", steps, account, on_steps_done,
              account);
}

void acme_account_cancel(struct acme_account *account)
{
    seq_cancel(&account->seq);
}
