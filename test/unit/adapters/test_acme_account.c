#include "adapters/acme_account.h"

#include "adapters/account_memory.h"
#include "base/fs.h"
#include "domain/jose.h"
#include "support/loop.h"
#include "support/pki.h"
#include "support/program.h"
#include "support/server.h"

#include <errno.h>
#include <jansson.h>
#include <openssl/hmac.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define OK_HEAD "HTTP/1.1 200 OK\r\n"
#define FOUND OK_HEAD "Location: https://ca.test/account/7\r\n"
#define CREATED "HTTP/1.1 201 Created\r\nLocation: https://ca.test/account/8\r\n"
#define BAD_REQUEST                                                                      \
    "HTTP/1.1 400 Bad Request\r\nContent-Type: application/problem+json\r\n"
#define PROBLEM(type)                                                                    \
    "{\"type\":\"urn:ietf:params:acme:error:" type "\",\"detail\":\"why\"}"

enum { REQUEST_SIZE = 16 * 1024, ANSWER_SIZE = 96 * 1024, POSTS_MAX = 16 };

/* ---- a CA that answers by script, on the loop of the test ---- */

/* A header without its empty line, to which the CA adds a fresh nonce, and a body. */
struct answer {
    const char *head;
    const char *body;   /* NULL for none */
    bool without_nonce; /* the head has one of its own, or none is wanted */
};

struct ca {
    uv_tcp_t listener;
    char url[64];
    EVP_PKEY *key;           /* what requests must be signed with */
    struct answer directory; /* head NULL: as it should be */
    const char *meta;        /* in that, or NULL */
    struct answer new_nonce;
    const struct answer *posts; /* one after the other; the last one for ever */
    size_t post_count;

    char nonce[512]; /* given last, the one that must come next */
    unsigned nonces;
    unsigned requests;
    unsigned posted;
    json_t *payloads[POSTS_MAX];
    void (*on_request)(void *owner); /* may be NULL */
    void *owner;
};

struct connection {
    uv_tcp_t tcp;
    uv_write_t write;
    struct ca *ca;
    char request[REQUEST_SIZE];
    size_t len;
    char answer[ANSWER_SIZE];
};

static void on_connection_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void end_connection(struct connection *connection)
{
    if (!uv_is_closing((uv_handle_t *)&connection->tcp))
        uv_close((uv_handle_t *)&connection->tcp, on_connection_closed);
}

static void on_answered(uv_write_t *request, int status)
{
    (void)status;
    end_connection(request->data);
}

static unsigned char *unbase64url(const char *text, size_t *ret_len)
{
    size_t len = strlen(text);
    char *padded = calloc(1, len + 4);
    unsigned char *bytes = malloc(len + 4);

    for (size_t i = 0; i < len; i++)
        padded[i] = text[i] == '-' ? '+' : (text[i] == '_' ? '/' : text[i]);
    while (strlen(padded) % 4 != 0)
        padded[strlen(padded)] = '=';
    assert_true(EVP_DecodeBlock(bytes, (unsigned char *)padded, (int)strlen(padded)) >=
                0);
    *ret_len = len * 3 / 4;
    free(padded);
    return bytes;
}

static const char *member(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));

    assert_non_null(text);
    return text;
}

/* A member that is base64url of JSON. */
static json_t *decoded(const json_t *jws, const char *name)
{
    size_t len;
    unsigned char *bytes = unbase64url(member(jws, name), &len);
    json_t *json = json_loadb((char *)bytes, len, JSON_REJECT_DUPLICATES, NULL);

    assert_non_null(json);
    free(bytes);
    return json;
}

/* RFC 7515 §5.2, ES256. */
static void verify_signature(EVP_PKEY *key, const json_t *jws)
{
    size_t len;
    unsigned char *raw = unbase64url(member(jws, "signature"), &len);
    ECDSA_SIG *signature = ECDSA_SIG_new();
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    unsigned char *der = NULL;
    char input[REQUEST_SIZE];
    int der_len;

    assert_int_equal(len, 64);
    assert_int_equal(ECDSA_SIG_set0(signature, BN_bin2bn(raw, 32, NULL),
                                    BN_bin2bn(raw + 32, 32, NULL)),
                     1);
    der_len = i2d_ECDSA_SIG(signature, &der);
    snprintf(input, sizeof input, "%s.%s", member(jws, "protected"),
             member(jws, "payload"));
    assert_int_equal(EVP_DigestVerifyInit(context, NULL, EVP_sha256(), NULL, key), 1);
    assert_int_equal(EVP_DigestVerify(context, der, (size_t)der_len,
                                      (unsigned char *)input, strlen(input)),
                     1);
    OPENSSL_free(der);
    EVP_MD_CTX_free(context);
    ECDSA_SIG_free(signature);
    free(raw);
}

/* RFC 8555 §6.2: what has to be in the protected header of newAccount. */
static void verify_header(const struct ca *ca, const json_t *header)
{
    char url[128];
    struct err err = ERR_INIT;
    json_t *jwk = NULL;

    snprintf(url, sizeof url, "%s/new-account", ca->url);
    assert_string_equal(member(header, "alg"), "ES256");
    assert_string_equal(member(header, "url"), url);
    assert_string_equal(member(header, "nonce"), ca->nonce);
    assert_null(json_object_get(header, "kid"));
    assert_int_equal(jose_public_jwk(ca->key, &jwk, &err), 0);
    assert_true(json_equal(json_object_get(header, "jwk"), jwk));
    json_decref(jwk);
}

static struct answer take_post(struct ca *ca, const char *request)
{
    const char *body = strstr(request, "\r\n\r\n") + 4;
    json_t *jws = json_loads(body, JSON_REJECT_DUPLICATES, NULL);
    json_t *header;
    size_t turn = ca->posted < ca->post_count ? ca->posted : ca->post_count - 1;

    assert_non_null(strstr(request, "\r\nContent-Type: application/jose+json\r\n"));
    assert_non_null(jws);
    assert_int_equal(json_object_size(jws), 3);
    header = decoded(jws, "protected");
    verify_header(ca, header);
    verify_signature(ca->key, jws);
    assert_true(ca->posted < POSTS_MAX);
    ca->payloads[ca->posted++] = decoded(jws, "payload");
    json_decref(header);
    json_decref(jws);
    if (ca->posts[turn].without_nonce)
        ca->nonce[0] = '\0'; /* none may be used any more */
    return ca->posts[turn];
}

static struct answer answer_of(struct ca *ca, const char *request, char *body,
                               size_t body_size)
{
    if (strncmp(request, "GET /directory ", 15) == 0) {
        snprintf(body, body_size,
                 "{\"newNonce\":\"%s/new-nonce\",\"newAccount\":\"%s/new-account\","
                 "\"newOrder\":\"\",\"meta\":%s}",
                 ca->url, ca->url, ca->meta == NULL ? "{}" : ca->meta);
        return ca->directory.head != NULL ? ca->directory
                                          : (struct answer){OK_HEAD, body, true};
    }
    if (strncmp(request, "HEAD /new-nonce ", 16) == 0)
        return ca->new_nonce.head != NULL ? ca->new_nonce
                                          : (struct answer){OK_HEAD, NULL, false};
    assert_true(strncmp(request, "POST /new-account ", 18) == 0);
    return take_post(ca, request);
}

static void answer_request(struct connection *connection)
{
    struct ca *ca = connection->ca;
    char body[1024];
    struct answer answer = answer_of(ca, connection->request, body, sizeof body);
    const char *text = answer.body == NULL ? "" : answer.body;
    char fresh[sizeof ca->nonce + 32] = "";
    uv_buf_t buffer;
    int len;

    ca->requests++;
    if (!answer.without_nonce) {
        snprintf(ca->nonce, sizeof ca->nonce, "no-N_ce%u", ++ca->nonces);
        snprintf(fresh, sizeof fresh, "replay-nonce: %s\r\n", ca->nonce);
    }
    len = snprintf(connection->answer, sizeof connection->answer,
                   "%s%sConnection: close\r\nContent-Length: %zu\r\n\r\n%s", answer.head,
                   fresh, strlen(text), text);
    assert_true(len > 0 && (size_t)len < sizeof connection->answer);
    buffer = uv_buf_init(connection->answer, (unsigned)len);
    connection->write.data = connection;
    assert_int_equal(uv_write(&connection->write, (uv_stream_t *)&connection->tcp,
                              &buffer, 1, on_answered),
                     0);
    if (ca->on_request != NULL)
        ca->on_request(ca->owner);
}

static bool is_complete(const struct connection *connection)
{
    const char *head_end = strstr(connection->request, "\r\n\r\n");
    const char *length = strcasestr(connection->request, "\r\nContent-Length:");
    size_t wanted;

    if (head_end == NULL)
        return false;
    wanted = (size_t)(head_end + 4 - connection->request);
    if (length != NULL && length < head_end)
        wanted += strtoul(length + strlen("\r\nContent-Length:"), NULL, 10);
    return connection->len >= wanted;
}

static void on_room(uv_handle_t *handle, size_t suggested, uv_buf_t *ret_buffer)
{
    struct connection *connection = handle->data;

    (void)suggested;
    assert_true(connection->len < REQUEST_SIZE - 1);
    *ret_buffer = uv_buf_init(connection->request + connection->len,
                              (unsigned)(REQUEST_SIZE - 1 - connection->len));
}

static void on_read(uv_stream_t *stream, ssize_t len, const uv_buf_t *buffer)
{
    struct connection *connection = stream->data;

    (void)buffer;
    if (len < 0) {
        end_connection(connection);
        return;
    }
    connection->len += (size_t)len;
    if (!is_complete(connection))
        return;
    uv_read_stop(stream);
    answer_request(connection);
}

static void on_connection(uv_stream_t *listener, int status)
{
    struct connection *connection = calloc(1, sizeof *connection);

    assert_int_equal(status, 0);
    assert_non_null(connection);
    connection->ca = listener->data;
    connection->tcp.data = connection;
    uv_tcp_init(listener->loop, &connection->tcp);
    assert_int_equal(uv_accept(listener, (uv_stream_t *)&connection->tcp), 0);
    assert_int_equal(uv_read_start((uv_stream_t *)&connection->tcp, on_room, on_read), 0);
}

static void ca_start(struct ca *ca, uv_loop_t *loop, EVP_PKEY *key)
{
    struct sockaddr_in address;
    int len = sizeof address;

    ca->key = key;
    ca->listener.data = ca;
    uv_tcp_init(loop, &ca->listener);
    uv_ip4_addr("127.0.0.1", 0, &address);
    assert_int_equal(uv_tcp_bind(&ca->listener, (const struct sockaddr *)&address, 0), 0);
    assert_int_equal(uv_listen((uv_stream_t *)&ca->listener, 8, on_connection), 0);
    assert_int_equal(uv_tcp_getsockname(&ca->listener, (struct sockaddr *)&address, &len),
                     0);
    snprintf(ca->url, sizeof ca->url, "http://127.0.0.1:%d", ntohs(address.sin_port));
}

static void ca_forget(struct ca *ca)
{
    for (unsigned i = 0; i < ca->posted; i++)
        json_decref(ca->payloads[i]);
    ca->posted = 0;
    ca->requests = 0;
}

/* ---- fixture ---- */

struct fixture {
    uv_loop_t *loop;
    struct http *http;
    EVP_PKEY *key;
    struct ca ca;
    char directory[128];
    char email[64];
    char key_file[64]; /* of the external account binding */
    struct config config;
    struct authority authority;
    struct acme_account_request request;
    struct acme_account account;
    struct ended ended;
    unsigned cancel_at; /* the request that the account is canceled at */
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    struct err err = ERR_INIT;
    void *loop = NULL;

    assert_non_null(f);
    loop_setup(&loop);
    f->loop = loop;
    f->http = http_new(f->loop, &err);
    assert_non_null(f->http);
    f->key = pki_key();
    ca_start(&f->ca, f->loop, f->key);
    snprintf(f->directory, sizeof f->directory, "%s/directory", f->ca.url);
    snprintf(f->key_file, sizeof f->key_file, "/tmp/test_eab.%d", (int)getpid());
    f->config.acme.email = f->email;
    f->authority.directory = f->directory;
    f->request = (struct acme_account_request){
        .http = f->http,
        .loop = f->loop,
        .config = &f->config,
        .authority = &f->authority,
        .key = f->key,
    };
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    void *loop = f->loop;

    ca_forget(&f->ca);
    unlink(f->key_file);
    http_close(f->http, NULL, NULL);
    uv_close((uv_handle_t *)&f->ca.listener, NULL);
    loop_run(f->loop);
    EVP_PKEY_free(f->key);
    free(f);
    pki_assert_queue_empty();
    return loop_teardown(&loop);
}

static void run(struct fixture *f)
{
    ca_forget(&f->ca);
    f->ended = (struct ended){0};
    acme_account_start(&f->account, &f->request, ended_done, &f->ended);
    assert_int_equal(f->ended.times, 0);
    loop_run_until(f->loop, ended_once, &f->ended);
}

/* newAccount is answered with these, the last one for ever. */
static void run_with(struct fixture *f, const struct answer *posts, size_t count)
{
    f->ca.posts = posts;
    f->ca.post_count = count;
    run(f);
}

static void run_with_one(struct fixture *f, const char *head, const char *body)
{
    const struct answer post = {head, body, false};

    run_with(f, &post, 1);
}

static void assert_failed(const struct fixture *f, enum err_kind kind, int code,
                          const char *part)
{
    char head[160];

    snprintf(head, sizeof head, "ACME directory %s: ", f->authority.directory);
    ended_assert_failed(&f->ended, kind, part);
    assert_true(strncmp(f->ended.err.message, head, strlen(head)) == 0);
    assert_int_equal(f->ended.err.code, code);
}

static void assert_payload(const struct fixture *f, unsigned turn, const char *expected)
{
    json_t *json = json_loads(expected, 0, NULL);

    assert_true(turn < f->ca.posted);
    assert_true(json_equal(f->ca.payloads[turn], json));
    json_decref(json);
}

/* ---- found and made ---- */

static const struct answer unknown = {BAD_REQUEST, PROBLEM("accountDoesNotExist"), false};
static const struct answer bad_nonce = {BAD_REQUEST, PROBLEM("badNonce"), false};
static const struct answer found = {FOUND, "{\"status\":\"valid\"}", false};
static const struct answer created = {CREATED, "{\"status\":\"valid\"}", false};

static void an_account_is_found_by_its_key(void **state)
{
    struct fixture *f = *state;

    strcpy(f->email, "ops@example.test");
    run_with(f, &found, 1);
    ended_assert_ok(&f->ended);
    assert_string_equal(f->account.url, "https://ca.test/account/7");
    assert_false(f->account.created);
    assert_int_equal(f->ca.requests, 3);
    assert_int_equal(f->ca.posted, 1);
    assert_payload(f, 0, "{\"onlyReturnExisting\":true}");
}

static void an_account_is_made_when_there_is_none(void **state)
{
    const struct answer posts[] = {unknown, created};
    struct fixture *f = *state;

    strcpy(f->email, "ops@example.test");
    run_with(f, posts, 2);
    ended_assert_ok(&f->ended);
    assert_string_equal(f->account.url, "https://ca.test/account/8");
    assert_true(f->account.created);
    assert_int_equal(f->ca.posted, 2);
    assert_payload(f, 0, "{\"onlyReturnExisting\":true}");
    assert_payload(
        f, 1,
        "{\"termsOfServiceAgreed\":true,\"contact\":[\"mailto:ops@example.test\"]}");
}

static void an_account_needs_no_contact(void **state)
{
    const struct answer posts[] = {unknown, created};
    struct fixture *f = *state;

    run_with(f, posts, 2);
    ended_assert_ok(&f->ended);
    assert_payload(f, 1, "{\"termsOfServiceAgreed\":true}");
}

/* Another replica was faster. */
static void an_account_may_be_there_by_now(void **state)
{
    const struct answer posts[] = {unknown, found};
    struct fixture *f = *state;

    run_with(f, posts, 2);
    ended_assert_ok(&f->ended);
    assert_string_equal(f->account.url, "https://ca.test/account/7");
    assert_false(f->account.created);
}

static void a_contact_that_is_no_text_is_refused(void **state)
{
    const struct answer posts[] = {unknown, created};
    struct fixture *f = *state;

    strcpy(f->email, "\xff@example.test");
    run_with(f, posts, 2);
    assert_failed(f, ERR_CONFIG, 0, "the contact address is not valid UTF-8");
    assert_int_equal(f->ca.posted, 1);
}

/* ---- nonces ---- */

static void a_refused_nonce_is_replaced(void **state)
{
    const struct answer posts[] = {bad_nonce, bad_nonce, bad_nonce, bad_nonce, unknown,
                                   bad_nonce, bad_nonce, bad_nonce, bad_nonce, created};
    struct fixture *f = *state;

    run_with(f, posts, 10);
    ended_assert_ok(&f->ended);
    assert_true(f->account.created);
    assert_int_equal(f->ca.posted, 10);
    assert_payload(f, 4, "{\"onlyReturnExisting\":true}");
    assert_payload(f, 9, "{\"termsOfServiceAgreed\":true}");
}

static void a_ca_that_refuses_every_nonce_is_given_up(void **state)
{
    const struct answer late[] = {unknown, bad_nonce};
    struct fixture *f = *state;

    run_with(f, &bad_nonce, 1);
    assert_failed(f, ERR_PEER, 400, "newAccount: HTTP status 400 (badNonce): why");
    assert_int_equal(f->ca.posted, 9);
    run_with(f, late, 2);
    assert_failed(f, ERR_PEER, 400, "newAccount: HTTP status 400 (badNonce): why");
    assert_int_equal(f->ca.posted, 10);
}

static void a_refusal_without_a_fresh_nonce_is_final(void **state)
{
    static char long_nonce[400];
    struct answer post = {BAD_REQUEST, PROBLEM("badNonce"), true};
    struct fixture *f = *state;

    run_with(f, &post, 1);
    assert_failed(f, ERR_PEER, 400, "badNonce");
    assert_int_equal(f->ca.posted, 1);
    snprintf(long_nonce, sizeof long_nonce, "%sReplay-Nonce: %0260d\r\n", BAD_REQUEST, 1);
    post.head = long_nonce;
    run_with(f, &post, 1);
    assert_failed(f, ERR_PEER, 400, "badNonce");
    assert_int_equal(f->ca.posted, 1);
}

/* An answer may come without a nonce: the CA then refuses ours, and gives one. */
static void an_account_is_made_without_a_nonce_at_hand(void **state)
{
    const struct answer posts[] = {
        {BAD_REQUEST, PROBLEM("accountDoesNotExist"), true}, bad_nonce, created};
    struct fixture *f = *state;

    run_with(f, posts, 3);
    ended_assert_ok(&f->ended);
    assert_true(f->account.created);
    assert_int_equal(f->ca.posted, 3);
}

static void a_nonce_is_anything(void **state)
{
    struct fixture *f = *state;

    f->ca.new_nonce =
        (struct answer){OK_HEAD "Replay-Nonce:  a \"b\\ \xc3\xa9 \r\n", NULL, true};
    snprintf(f->ca.nonce, sizeof f->ca.nonce, "a \"b\\ \xc3\xa9");
    run_with(f, &found, 1);
    ended_assert_ok(&f->ended);
    f->ca.new_nonce = (struct answer){OK_HEAD "Replay-Nonce: \xff\r\n", NULL, true};
    run_with(f, &found, 1);
    assert_failed(f, ERR_PEER, 0, "not UTF-8");
    assert_int_equal(f->ca.posted, 0);
}

static void no_nonce_is_an_error(void **state)
{
    static char head[400];
    struct fixture *f = *state;

    f->ca.new_nonce = (struct answer){OK_HEAD, NULL, true};
    run_with(f, &found, 1);
    assert_failed(f, ERR_PEER, 0, "newNonce: the answer has no usable Replay-Nonce");
    snprintf(head, sizeof head, "%sReplay-Nonce: %0255d\r\n", OK_HEAD, 1);
    f->ca.new_nonce.head = head;
    run_with(f, &found, 1);
    assert_failed(f, ERR_PEER, 0, "newNonce: the answer has no usable Replay-Nonce");
    snprintf(head, sizeof head, "%sReplay-Nonce: %0254d\r\n", OK_HEAD, 1);
    snprintf(f->ca.nonce, sizeof f->ca.nonce, "%0254d", 1);
    run_with(f, &found, 1);
    ended_assert_ok(&f->ended);
    f->ca.new_nonce.head = "HTTP/1.1 503 Service Unavailable\r\n";
    run_with(f, &found, 1);
    assert_failed(f, ERR_PEER, 503,
                  "newNonce: HTTP status 503 (no ACME problem document): no explanation");
    f->ca.new_nonce = (struct answer){"HTTP/1.1 204 No Content\r\n", NULL, false};
    run_with(f, &found, 1);
    ended_assert_ok(&f->ended);
}

/* ---- refusals ---- */

static void a_refusal_is_of_its_kind_and_comes_with_advice(void **state)
{
    static const struct {
        const char *body;
        enum err_kind kind;
        const char *says;
    } problems[] = {
        {PROBLEM("externalAccountRequired"), ERR_CONFIG,
         ": newAccount: this CA needs an external account binding: "
         "set eab_key_id and eab_key_file to what it gave (externalAccountRequired): "
         "why"},
        {PROBLEM("userActionRequired"), ERR_CONFIG,
         ": newAccount: the CA wants its terms of service agreed to in person "
         "(userActionRequired): why"},
        {PROBLEM("agreementRequired"), ERR_CONFIG,
         ": newAccount: the CA wants its terms of service agreed to in person "
         "(agreementRequired): why"},
        {PROBLEM("invalidContact"), ERR_CONFIG,
         ": newAccount: set EMAIL to an address that the CA accepts, or to nothing "
         "(invalidContact): why"},
        {PROBLEM("unsupportedContact"), ERR_CONFIG,
         ": newAccount: set EMAIL to an address that the CA accepts, or to nothing "
         "(unsupportedContact): why"},
        {PROBLEM("unauthorized"), ERR_CONFIG,
         ": newAccount: the account of this key was deactivated at the CA: "
         "LETSENCRYPT_ACCOUNT_VERSION=v2 (or the next) makes a new one (unauthorized): "
         "why"},
        {PROBLEM("rateLimited"), ERR_PEER,
         ": newAccount: HTTP status 403 (rateLimited): why"},
        {PROBLEM("serverInternal"), ERR_PEER,
         ": newAccount: HTTP status 403 (serverInternal): why"},
        {"{\"type\":\"urn:ietf:params:acme:error:malformed\"}", ERR_PEER,
         "(malformed): no explanation"},
        {"{\"type\":\"about:blank\",\"detail\":\"why\"}", ERR_PEER, "(blank): why"},
        {"{\"type\":\"unauthorized\",\"detail\":\"why\"}", ERR_PEER,
         "(no ACME problem document): why"},
        {"{\"type\":7,\"detail\":[]}", ERR_PEER,
         "(no ACME problem document): no explanation"},
        {"[]", ERR_PEER, "(no ACME problem document): no explanation"},
        {"<html>", ERR_PEER, "(no ACME problem document): no explanation"},
        {"", ERR_PEER, "(no ACME problem document): no explanation"},
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof problems / sizeof problems[0]; i++) {
        const struct answer refusal = {"HTTP/1.1 403 Forbidden\r\n", problems[i].body,
                                       false};
        const struct answer late[] = {unknown, refusal};

        run_with(f, &refusal, 1);
        assert_failed(f, problems[i].kind, 403, problems[i].says);
        assert_int_equal(f->ca.posted, 1);
        run_with(f, late, 2);
        assert_failed(f, problems[i].kind, 403, problems[i].says);
        assert_int_equal(f->ca.posted, 2);
        assert_string_equal(f->account.url, "");
    }
}

static void long_words_of_a_ca_are_cut(void **state)
{
    static char body[8192];
    struct fixture *f = *state;

    snprintf(body, sizeof body, "{\"type\":\"urn:%03000d\",\"detail\":\"%03000d\"}", 1,
             1);
    run_with_one(f, BAD_REQUEST, body);
    assert_failed(f, ERR_PEER, 400, "0000");
    assert_true(strlen(f->ended.err.message) < 700);
}

static void other_answers_are_refusals(void **state)
{
    struct fixture *f = *state;
    const struct answer twice[] = {unknown, unknown};

    run_with_one(f, CREATED, "{}"); /* only an existing one was asked for */
    assert_failed(f, ERR_PEER, 201, "newAccount: HTTP status 201");
    run_with_one(f, "HTTP/1.1 302 Found\r\nLocation: https://ca.test/x\r\n", "");
    assert_failed(f, ERR_PEER, 302, "newAccount: HTTP status 302");
    run_with(f, twice, 2);
    assert_failed(f, ERR_PEER, 400, "(accountDoesNotExist): why");
    assert_int_equal(f->ca.posted, 2);
}

static void the_url_of_the_account_must_fit(void **state)
{
    static char head[2048];
    struct fixture *f = *state;

    run_with_one(f, OK_HEAD, "{}");
    assert_failed(f, ERR_PEER, 0, "newAccount: the answer has no usable Location");
    run_with_one(f, OK_HEAD "Location:\r\n", "{}");
    assert_failed(f, ERR_PEER, 0, "newAccount: the answer has no usable Location");
    snprintf(head, sizeof head, "%sLocation: %0*d\r\n", OK_HEAD, ACME_URL_SIZE - 1, 1);
    run_with_one(f, head, "{}");
    assert_failed(f, ERR_PEER, 0, "newAccount: the answer has no usable Location");
    assert_string_equal(f->account.url, "");
    snprintf(head, sizeof head, "%sLocation: %0*d\r\n", OK_HEAD, ACME_URL_SIZE - 2, 1);
    run_with_one(f, head, "{}");
    ended_assert_ok(&f->ended);
    assert_int_equal(strlen(f->account.url), ACME_URL_SIZE - 2);
}

/* ---- external account binding ---- */

/* In base64url as CAs give it. */
#define HMAC_KEY_BYTES "HMAC key of a test CA!"
#define HMAC_KEY_TEXT "SE1BQyBrZXkgb2YgYSB0ZXN0IENBIQ"

static void bind_with(struct fixture *f, const char *key_text)
{
    static char key_id[] = "kid-1";
    struct err err = ERR_INIT;

    assert_int_equal(fs_replace(f->key_file, key_text, strlen(key_text), 0600, &err), 0);
    f->authority.eab_key_id = key_id;
    f->authority.eab_key_file = f->key_file;
}

/* RFC 8555 §7.3.4, from the CA's side. */
static void verify_binding(const struct fixture *f, const json_t *binding)
{
    json_t *header = decoded(binding, "protected");
    json_t *payload = decoded(binding, "payload");
    char url[128];
    char input[REQUEST_SIZE];
    unsigned char code[EVP_MAX_MD_SIZE];
    unsigned code_len = 0;
    struct err err = ERR_INIT;
    json_t *jwk = NULL;
    unsigned char *given;
    size_t given_len;

    snprintf(url, sizeof url, "%s/new-account", f->ca.url);
    assert_int_equal(json_object_size(header), 3);
    assert_string_equal(member(header, "alg"), "HS256");
    assert_string_equal(member(header, "kid"), "kid-1");
    assert_string_equal(member(header, "url"), url);
    assert_int_equal(jose_public_jwk(f->key, &jwk, &err), 0);
    assert_true(json_equal(payload, jwk));
    snprintf(input, sizeof input, "%s.%s", member(binding, "protected"),
             member(binding, "payload"));
    HMAC(EVP_sha256(), HMAC_KEY_BYTES, (int)strlen(HMAC_KEY_BYTES),
         (const unsigned char *)input, strlen(input), code, &code_len);
    given = unbase64url(member(binding, "signature"), &given_len);
    assert_int_equal(given_len, code_len);
    assert_memory_equal(given, code, code_len);
    free(given);
    json_decref(jwk);
    json_decref(header);
    json_decref(payload);
}

static void a_new_account_is_bound_to_that_of_the_operator(void **state)
{
    static const char *const files[] = {HMAC_KEY_TEXT, HMAC_KEY_TEXT "\n",
                                        HMAC_KEY_TEXT "==\r\n"};
    const struct answer posts[] = {unknown, created};
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        bind_with(f, files[i]);
        run_with(f, posts, 2);
        ended_assert_ok(&f->ended);
        assert_payload(f, 0, "{\"onlyReturnExisting\":true}");
        verify_binding(f, json_object_get(f->ca.payloads[1], "externalAccountBinding"));
    }
}

static void an_account_that_is_there_needs_no_hmac_key(void **state)
{
    static char key_id[] = "kid-1";
    static char missing[] = "/nonexistent/key";
    struct fixture *f = *state;

    f->authority.eab_key_id = key_id;
    f->authority.eab_key_file = missing;
    run_with(f, &found, 1);
    ended_assert_ok(&f->ended);
    run_with(f, &unknown, 1);
    assert_failed(f, ERR_CONFIG, ENOENT, "eab_key_file: /nonexistent/key: ");
    assert_int_equal(f->ca.posted, 1);
}

static void a_file_without_an_hmac_key_is_an_error_that_does_not_repeat_it(void **state)
{
    static const char *const files[] = {"",      "\n",  "not base64url!", "ab\ncd", "A",
                                        "QUJD=", "a+b/"};
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        bind_with(f, files[i]);
        run_with(f, &unknown, 1);
        assert_failed(f, ERR_CONFIG, 0, "expected the HMAC key in base64url");
        assert_null(strstr(f->ended.err.message, "not base64url!"));
        assert_int_equal(f->ca.posted, 1);
    }
}

static void a_binding_that_the_ca_refuses_is_no_deactivated_account(void **state)
{
    const struct answer posts[] = {
        unknown, {"HTTP/1.1 403 Forbidden\r\n", PROBLEM("unauthorized"), false}};
    struct fixture *f = *state;

    bind_with(f, HMAC_KEY_TEXT);
    run_with(f, posts, 2);
    assert_failed(f, ERR_CONFIG, 403,
                  "the CA does not accept the external account binding: are eab_key_id "
                  "and eab_key_file what it gave? (unauthorized): why");
    assert_false(f->account.deactivated);
}

/* ---- deactivated ---- */

static void a_deactivated_account_is_told_from_other_refusals(void **state)
{
    struct fixture *f = *state;

    run_with_one(f, FOUND, "{\"status\":\"deactivated\"}");
    assert_failed(f, ERR_CONFIG, 0,
                  "the account https://ca.test/account/7 is deactivated: "
                  "LETSENCRYPT_ACCOUNT_VERSION=v2 (or the next) makes a new one");
    assert_true(f->account.deactivated);
    run_with_one(f, FOUND, "{\"status\":\"revoked\"}");
    assert_failed(f, ERR_CONFIG, 0, "the account https://ca.test/account/7 is revoked");
    assert_true(f->account.deactivated);
    run_with_one(f, "HTTP/1.1 401 Unauthorized\r\n", PROBLEM("unauthorized"));
    assert_true(f->account.deactivated);
    run_with_one(f, "HTTP/1.1 403 Forbidden\r\n", PROBLEM("rateLimited"));
    assert_false(f->account.deactivated);
    run_with_one(f, FOUND, "not JSON");
    ended_assert_ok(&f->ended);
    assert_false(f->account.deactivated);
}

/* ---- what the directory says besides ---- */

static void a_profile_that_the_ca_lacks_is_told(void **state)
{
    static char profile[] = "shortlived";
    static const struct {
        const char *meta;
        bool lacks;
        const char *profiles;
    } examples[] = {
        {"{\"profiles\":{\"classic\":\"x\",\"shortlived\":\"y\"}}", false,
         "classic, shortlived"},
        {"{\"profiles\":{\"classic\":\"x\"}}", true, "classic"},
        {"{\"profiles\":[]}", true, ""},
        {"{}", true, ""},
    };
    struct fixture *f = *state;

    f->request.known_url = "https://ca.test/known";
    for (size_t i = 0; i < sizeof examples / sizeof examples[0]; i++) {
        f->ca.meta = examples[i].meta;
        f->authority.profile = profile;
        run(f);
        ended_assert_ok(&f->ended);
        assert_int_equal(f->ca.requests, 1);
        assert_string_equal(f->account.url, "https://ca.test/known");
        assert_int_equal(f->account.directory.lacks_profile, examples[i].lacks);
        assert_string_equal(f->account.directory.profiles, examples[i].profiles);
        f->authority.profile = NULL;
        run(f);
        assert_false(f->account.directory.lacks_profile);
    }
}

static void the_ca_says_what_it_is_called_in_caa_records(void **state)
{
    static const struct {
        const char *meta;
        const char *identity;
    } examples[] = {
        {"{\"caaIdentities\":[\"ca.example.test\",\"other.test\"]}", "ca.example.test"},
        {"{\"caaIdentities\":[]}", ""},
        {"{\"caaIdentities\":[\"a\\\"; b\"]}", ""},
        {"{\"caaIdentities\":7}", ""},
        {"[]", ""},
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof examples / sizeof examples[0]; i++) {
        f->ca.meta = examples[i].meta;
        run_with(f, &found, 1);
        ended_assert_ok(&f->ended);
        assert_string_equal(f->account.caa_identity, examples[i].identity);
    }
}

/* ---- the directory ---- */

static void expect_directory(struct fixture *f, const char *head, const char *body,
                             int code, const char *says)
{
    f->ca.directory = (struct answer){head, body, true};
    run(f);
    assert_failed(f, ERR_PEER, code, says);
    assert_int_equal(f->ca.requests, 1);
}

static void what_is_no_directory_is_refused(void **state)
{
    static char body[ACME_URL_SIZE + 256];
    struct fixture *f = *state;

    expect_directory(f, OK_HEAD, "<html>", 0,
                     "the answer is not JSON: is this the URL of an ACME directory?");
    expect_directory(f, OK_HEAD, "", 0, "the answer is not JSON");
    expect_directory(f, OK_HEAD, "[]", 0,
                     "the answer has no usable \"newNonce\": is this the URL of an ACME "
                     "directory?");
    expect_directory(f, OK_HEAD, "{}", 0, "the answer has no usable \"newNonce\"");
    expect_directory(f, OK_HEAD, "{\"newNonce\":7}", 0, "no usable \"newNonce\"");
    expect_directory(f, OK_HEAD, "{\"newNonce\":\"x\"}", 0, "no usable \"newAccount\"");
    snprintf(body, sizeof body, "{\"newNonce\":\"x\",\"newAccount\":\"%0*d\"}",
             ACME_URL_SIZE, 1);
    expect_directory(f, OK_HEAD, body, 0, "no usable \"newAccount\"");
    expect_directory(f, "HTTP/1.1 404 Not Found\r\n", "", 404,
                     "directory: HTTP status 404 (no ACME problem document)");
    expect_directory(f, "HTTP/1.1 301 Moved\r\nLocation: https://x.test/\r\n", "", 301,
                     "directory: HTTP status 301");
    expect_directory(f, "HTTP/1.1 503 Busy\r\n", PROBLEM("rateLimited"), 503,
                     "directory: HTTP status 503 (rateLimited): why");
}

static void a_directory_has_a_largest_size(void **state)
{
    static char body[64 * 1024 + 2];

    memset(body, ' ', sizeof body - 1);
    expect_directory(*state, OK_HEAD, body, 0, "the answer is too long");
}

static void a_directory_may_name_nonsense(void **state)
{
    static const char *const urls[] = {"", "not a url", "file:///etc/passwd",
                                       "ftp://127.0.0.1/"};
    struct fixture *f = *state;
    char body[256];

    for (size_t i = 0; i < sizeof urls / sizeof urls[0]; i++) {
        snprintf(body, sizeof body, "{\"newNonce\":\"%s\",\"newAccount\":\"%s\"}",
                 urls[i], urls[i]);
        f->ca.directory = (struct answer){OK_HEAD, body, true};
        run(f);
        assert_failed(f, ERR_CONFIG, 0, "is not an http or https URL");
    }
}

/* ---- out of reach ---- */

static void a_ca_that_is_down_is_out_of_reach(void **state)
{
    struct fixture *f = *state;

    snprintf(f->directory, sizeof f->directory, "http://127.0.0.1:%d/directory",
             server_unused_port());
    run(f);
    assert_failed(f, ERR_NET, ECONNREFUSED, "connection refused");
}

static void a_ca_is_trusted_by_its_bundle(void **state)
{
    static const struct server_script scripts[] = {
        {.path = NULL,
         .answer = "HTTP/1.1 418 Teapot\r\nContent-Length: 0\r\n\r\n",
         .ending = SERVER_CLOSES}};
    struct server_options options = {.scripts = scripts};
    struct fixture *f = *state;
    char bundle[] = "/tmp/test-acme-XXXXXX";
    int fd = mkstemp(bundle);
    FILE *file = fdopen(fd, "we");
    struct server *server;

    assert_non_null(file);
    server_make_certificate(&options.tls_key, &options.tls_certificate);
    assert_int_equal(PEM_write_X509(file, options.tls_certificate), 1);
    fclose(file);
    server = server_start(&options);
    snprintf(f->directory, sizeof f->directory, "%s/directory", server_url(server));
    run(f);
    assert_failed(f, ERR_NET, 0, "the TLS certificate is not trusted");
    f->authority.ca_bundle = bundle;
    run(f);
    assert_failed(f, ERR_PEER, 418, "directory: HTTP status 418");
    unlink(bundle);
    run(f);
    assert_true(f->ended.failed);
    server_stop(server);
    X509_free(options.tls_certificate);
    EVP_PKEY_free(options.tls_key);
}

/* ---- cancel ---- */

static void cancel_at_its_request(void *owner)
{
    struct fixture *f = owner;

    if (f->ca.requests == f->cancel_at) {
        acme_account_cancel(&f->account);
        acme_account_cancel(&f->account);
    }
}

static void it_is_canceled_at_every_step(void **state)
{
    const struct answer posts[] = {unknown, created};
    struct fixture *f = *state;

    f->ca.on_request = cancel_at_its_request;
    f->ca.owner = f;
    for (f->cancel_at = 1; f->cancel_at <= 4; f->cancel_at++) {
        run_with(f, posts, 2);
        assert_failed(f, ERR_CANCELED, 0, "canceled");
        assert_int_equal(f->ca.requests, f->cancel_at);
        acme_account_cancel(&f->account);
        uv_run(f->loop, UV_RUN_NOWAIT);
        assert_int_equal(f->ended.times, 1);
    }
}

static void it_is_canceled_before_it_begins(void **state)
{
    struct fixture *f = *state;

    acme_account_start(&f->account, &f->request, ended_done, &f->ended);
    acme_account_cancel(&f->account);
    loop_run_until(f->loop, ended_once, &f->ended);
    assert_failed(f, ERR_CANCELED, 0, "canceled");
    assert_int_equal(f->ca.requests, 0);
}

/* ---- kept on the volume ---- */

static void an_account_is_kept_and_a_damaged_memory_replaced(void **state)
{
    char folder[] = "/tmp/test-acme-XXXXXX";
    EVP_PKEY *key = pki_key();
    const struct account_owner owner = {
        .directory = "d", .version = "v1", .thumbprint = "t", .seal_key = key};
    const struct account account = {.url = "https://ca.test/7"};
    struct account kept;
    struct config config = {.run_dir = folder, .tls = {.dir = folder}};
    struct store store;
    struct err err = ERR_INIT;

    (void)state;
    assert_non_null(mkdtemp(folder));
    assert_int_equal(store_init(&store, &config, &err), 0);
    account_memory_load(&store, &owner, &kept);
    assert_string_equal(kept.url, "");
    assert_int_equal(account_memory_save(&store, &owner, &account, &err), 0);
    account_memory_load(&store, &owner, &kept);
    assert_string_equal(kept.url, "https://ca.test/7");
    log_open(STDERR_FILENO, LOG_FATAL);
    assert_int_equal(store_write_state(&store, "account.json", "{", &err), 0);
    account_memory_load(&store, &owner, &kept);
    log_open(STDERR_FILENO, LOG_INFO);
    assert_string_equal(kept.url, "");
    assert_int_equal(account_memory_save(&store, &owner, &account, &err), 0);
    account_memory_load(&store, &owner, &kept);
    assert_string_equal(kept.url, "https://ca.test/7");
    assert_int_equal(fs_remove_tree(folder, &err), 0);
    EVP_PKEY_free(key);
}

#define account_test(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        account_test(an_account_is_found_by_its_key),
        account_test(an_account_is_made_when_there_is_none),
        account_test(an_account_needs_no_contact),
        account_test(an_account_may_be_there_by_now),
        account_test(a_contact_that_is_no_text_is_refused),
        account_test(a_refused_nonce_is_replaced),
        account_test(a_ca_that_refuses_every_nonce_is_given_up),
        account_test(a_refusal_without_a_fresh_nonce_is_final),
        account_test(an_account_is_made_without_a_nonce_at_hand),
        account_test(a_nonce_is_anything),
        account_test(no_nonce_is_an_error),
        account_test(a_refusal_is_of_its_kind_and_comes_with_advice),
        account_test(long_words_of_a_ca_are_cut),
        account_test(other_answers_are_refusals),
        account_test(the_url_of_the_account_must_fit),
        account_test(a_new_account_is_bound_to_that_of_the_operator),
        account_test(an_account_that_is_there_needs_no_hmac_key),
        account_test(a_file_without_an_hmac_key_is_an_error_that_does_not_repeat_it),
        account_test(a_binding_that_the_ca_refuses_is_no_deactivated_account),
        account_test(a_deactivated_account_is_told_from_other_refusals),
        account_test(a_profile_that_the_ca_lacks_is_told),
        account_test(the_ca_says_what_it_is_called_in_caa_records),
        account_test(what_is_no_directory_is_refused),
        account_test(a_directory_has_a_largest_size),
        account_test(a_directory_may_name_nonsense),
        account_test(a_ca_that_is_down_is_out_of_reach),
        account_test(a_ca_is_trusted_by_its_bundle),
        account_test(it_is_canceled_at_every_step),
        account_test(it_is_canceled_before_it_begins),
        cmocka_unit_test(an_account_is_kept_and_a_damaged_memory_replaced),
    };

    return cmocka_run_group_tests(tests, program_setup_http, NULL);
}
