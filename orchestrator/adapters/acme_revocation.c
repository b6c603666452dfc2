#include "adapters/acme_revocation.h"

#include "base/secret.h"
#include "base/text.h"
#include "domain/jose.h"
#include "domain/json_text.h"

#include <errno.h>
#include <jansson.h>

enum {
    ANSWER_MAX_BYTES = 64 * 1024,
    REQUEST_MAX_BYTES = 256 * 1024,
    DER_MAX_BYTES = CHAIN_PEM_MAX_BYTES,
    CALL_TIMEOUT_MS = 30 * 1000,
    NONCE_REFUSALS_MAX = 8,
};

static void call(struct acme_revocation *r, const char *method, const char *url)
{
    static const char *const jose_headers[] = {"Content-Type: application/jose+json",
                                               NULL};
    const struct authority *authority = r->request.authority;
    const struct http_request request = {
        .method = method,
        .url = url,
        .headers = r->body.len > 0 ? jose_headers : NULL,
        .body = r->body.len > 0 ? r->body.data : NULL,
        .body_len = r->body.len,
        .ca_bundle = authority->ca_bundle,
        .proxy = authority->proxy,
        .no_proxy = authority->no_proxy,
        .max_body = ANSWER_MAX_BYTES,
        .timeout_ms = CALL_TIMEOUT_MS,
    };

    http_call_done(&r->http);
    http_start(&r->http, r->request.http, &request, seq_resume, &r->seq);
}

static void abort_call(void *flow)
{
    struct acme_revocation *r = flow;

    http_cancel(&r->http);
}

/* ---- account ---- */

static void on_account_done(void *owner, const struct err *err)
{
    struct acme_revocation *r = owner;

    r->by_certificate_key = (r->account.absent || r->account.deactivated) &&
                            r->request.certificate_key != NULL;
    seq_resume(&r->seq, r->by_certificate_key ? NULL : err);
}

static int begin_account(void *flow, struct err *err)
{
    struct acme_revocation *r = flow;
    const struct acme_account_request request = {
        .http = r->request.http,
        .loop = r->request.loop,
        .config = r->request.config,
        .authority = r->request.authority,
        .key = r->request.account_key,
        .existing_only = true,
    };

    (void)err;
    acme_account_start(&r->account, &request, on_account_done, r);
    return SEQ_WAIT;
}

static int finish_account(void *flow, struct err *err)
{
    const struct acme_revocation *r = flow;

    if (r->account.directory.revoke_cert[0] == '\0')
        return err_set(err, ERR_PEER, "the directory has no usable \"revokeCert\"");
    return SEQ_NEXT;
}

static void abort_account(void *flow)
{
    struct acme_revocation *r = flow;

    acme_account_cancel(&r->account);
}

/* ---- nonce ---- */

static int begin_nonce(void *flow, struct err *err)
{
    struct acme_revocation *r = flow;

    (void)err;
    buf_clear(&r->body);
    call(r, "HEAD", r->account.directory.new_nonce);
    return SEQ_WAIT;
}

static int finish_nonce(void *flow, struct err *err)
{
    struct acme_revocation *r = flow;

    if (r->http.status != 200 && r->http.status != 204)
        return acme_refused(&r->http, "newNonce", err);
    if (!acme_take_header(&r->http, "Replay-Nonce", r->nonce, sizeof r->nonce))
        return err_set(err, ERR_PEER, "newNonce: the answer has no usable Replay-Nonce");
    return SEQ_NEXT;
}

/* ---- revocation ---- */

/* JSON text; free with wipe_free. */
static int make_payload(const struct acme_revocation *r, char **ret, struct err *err)
{
    BUF_SCOPED der = {.max = DER_MAX_BYTES};
    char *encoded;
    json_t *payload;

    if (chain_leaf_der(r->request.chain, &der, err) < 0)
        return -1;
    encoded = wipe_malloc(TEXT_BASE64URL_SIZE(der.len));
    if (encoded == NULL)
        return err_sys(err, ENOMEM, "revokeCert");
    text_base64url(encoded, der.data, der.len);
    payload =
        json_pack("{s:s, s:i}", "certificate", encoded, "reason", (int)r->request.reason);
    *ret = json_dump_whole(payload, JSON_COMPACT);
    json_decref(payload);
    wipe_free(encoded);
    return *ret == NULL ? err_sys(err, ENOMEM, "revokeCert") : 0;
}

static int begin_revoke(void *flow, struct err *err)
{
    struct acme_revocation *r = flow;
    const char *url = r->account.directory.revoke_cert;
    char *payload = NULL;
    int failed;

    if (make_payload(r, &payload, err) < 0)
        return -1;
    buf_clear(&r->body);
    failed = r->by_certificate_key
                 ? jose_sign_request(r->request.certificate_key, url, r->nonce, NULL,
                                     payload, &r->body, err)
                 : jose_sign_request(r->request.account_key, url, r->nonce,
                                     r->account.url, payload, &r->body, err);
    wipe_free(payload);
    if (failed != 0)
        return -1;
    call(r, "POST", url);
    return SEQ_WAIT;
}

static int finish_revoke(void *flow, struct err *err)
{
    struct acme_revocation *r = flow;

    if (r->http.status == 200)
        return SEQ_END;
    r->already = acme_problem_is(&r->http, "alreadyRevoked");
    if (r->already)
        return SEQ_END;
    /* RFC 8555 §6.5: it comes with a fresh one. */
    if (acme_problem_is(&r->http, "badNonce") &&
        ++r->nonce_refusals <= NONCE_REFUSALS_MAX)
        return acme_take_header(&r->http, "Replay-Nonce", r->nonce, sizeof r->nonce)
                   ? seq_go_to(&r->seq, "revoke")
                   : seq_go_to(&r->seq, "get nonce");
    if (acme_problem_is(&r->http, "unauthorized") && !r->by_certificate_key &&
        r->request.certificate_key != NULL) {
        r->by_certificate_key = true;
        return seq_go_to(&r->seq, "get nonce");
    }
    return acme_refused(&r->http, "revokeCert", err);
}

static const struct seq_step steps[] = {
    {"find account", begin_account, finish_account, abort_account, 0},
    {"get nonce", begin_nonce, finish_nonce, abort_call, 0},
    {"revoke", begin_revoke, finish_revoke, abort_call, 0},
    {0},
};

static void on_steps_done(void *owner, const struct err *err)
{
    struct acme_revocation *r = owner;

    http_call_done(&r->http);
    buf_done(&r->body);
    r->done(r->owner, err);
}

void acme_revocation_start(struct acme_revocation *revocation,
                           const struct acme_revocation_request *request, done_fn done,
                           void *owner)
{
    *revocation =
        (struct acme_revocation){.request = *request, .done = done, .owner = owner};
    buf_init(&revocation->body, REQUEST_MAX_BYTES);
    seq_start(&revocation->seq, request->loop, "revocation", steps, revocation,
              on_steps_done, revocation);
}
