#include "adapters/dstack.h"

#include "base/fs.h"
#include "base/text.h"
#include "domain/json_text.h"
#include "runtime/observer.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

/* Info carries the whole event log and, for some agents, certificates. */
enum { ANSWER_MAX_BYTES = 4 * 1024 * 1024, EMIT_PATIENCE = 10 };

static const char *const well_known_sockets[] = {
    "/var/run/dstack.sock",
    "/run/dstack.sock",
    "/var/run/dstack/dstack.sock",
    "/run/dstack/dstack.sock",
};

static const char *const json_headers[] = {"Content-Type: application/json", NULL};

const char *dstack_endpoint(const struct dstack *agent)
{
    if (agent->configured != NULL)
        return agent->configured;
    for (size_t i = 0; i < sizeof well_known_sockets / sizeof well_known_sockets[0];
         i++) {
        if (fs_exists(well_known_sockets[i]))
            return well_known_sockets[i];
    }
    return well_known_sockets[0]; /* so that the error names it */
}

/* An empty body, an empty object, or the null of an empty message: all others are not the agent's. */
static int read_emitted(struct dstack_call *call, const char *body, struct err *err)
{
    json_t *root;
    bool is_taken;

    (void)call;
    if (body[0] == '\0')
        return 0;
    root = json_load_whole(body, strlen(body), JSON_DECODE_ANY, NULL);
    if (root == NULL)
        return err_set(err, ERR_PEER, "the answer is not JSON");
    is_taken = json_is_object(root) || json_is_null(root);
    json_decref(root);
    return is_taken ? 0 : err_set(err, ERR_PEER, "the answer is JSON, but not an object");
}

/* The string member `name` of the JSON object `body`; the caller releases *ret_root. */
static int string_member(const char *body, const char *name, json_t **ret_root,
                         const char **ret_text, struct err *err)
{
    json_error_t where;
    json_t *root = json_load_whole(body, strlen(body), JSON_REJECT_DUPLICATES, &where);
    const json_t *member;

    if (root == NULL)
        return err_set(err, ERR_PEER, "the answer is not JSON (line %d, column %d)",
                       where.line, where.column);
    member = json_object_get(root, name);
    if (!json_is_object(root))
        err_set(err, ERR_PEER, "the answer is JSON, but not an object");
    else if (member == NULL)
        err_set(err, ERR_PEER, "the answer has no member \"%s\"", name);
    else if (!json_is_string(member))
        err_set(err, ERR_PEER, "member \"%s\" of the answer is not a string", name);
    else {
        *ret_root = root;
        *ret_text = json_string_value(member);
        return 0;
    }
    json_decref(root);
    return -1;
}

int dstack_read_key(struct dstack_call *call, const char *body, struct err *err)
{
    struct secret *key;
    const char *hex = "";
    json_t *root = NULL;
    int failed = 0;

    if (string_member(body, "key", &root, &hex, err) < 0)
        return -1;
    key = secret_new(DSTACK_KEY_BYTES);
    if (key == NULL)
        failed = err_sys(err, ENOMEM, "no secure memory left");
    else if (strlen(hex) != 2 * (size_t)DSTACK_KEY_BYTES)
        failed = err_set(err, ERR_PEER, "member \"key\" has %zu characters instead of %d",
                         strlen(hex), 2 * DSTACK_KEY_BYTES);
    else if (text_unhex(key->bytes, key->len, hex) < 0)
        failed = err_set(err, ERR_PEER, "member \"key\" is not hexadecimal");
    json_decref(root);
    if (failed != 0) {
        secret_free(key);
        return -1;
    }
    call->key = key;
    return 0;
}

/* For people: cut, and without control characters. */
static void keep_word(char ret[DSTACK_WORD_SIZE], const json_t *text)
{
    if (json_is_string(text))
        text_escape(ret, DSTACK_WORD_SIZE, json_string_value(text),
                    json_string_length(text));
}

static int read_version(struct dstack_call *call, const char *body, struct err *err)
{
    const char *text = "";
    json_t *root = NULL;

    if (string_member(body, "version", &root, &text, err) < 0)
        return -1;
    keep_word(call->version, json_object_get(root, "version"));
    json_decref(root);
    return 0;
}

int dstack_read_info(struct dstack_call *call, const char *body, struct err *err)
{
    const char *text = "";
    json_t *root = NULL;

    if (string_member(body, "tcb_info", &root, &text, err) < 0)
        return -1;
    call->tcb_info = wipe_strdup(text);
    keep_word(call->app_name, json_object_get(root, "app_name"));
    json_decref(root);
    return call->tcb_info == NULL ? err_sys(err, ENOMEM, "cannot keep the answer") : 0;
}

/* Kept as it came: whoever verifies it reads the members that his agent's version has. */
int dstack_read_quote(struct dstack_call *call, const char *body, struct err *err)
{
    const char *quote = "";
    json_t *root = NULL;
    int failed;

    if (string_member(body, "quote", &root, &quote, err) < 0)
        return -1;
    failed = quote[0] == '\0' ? err_set(err, ERR_PEER, "member \"quote\" is empty") : 0;
    json_decref(root);
    if (failed != 0)
        return -1;
    call->quote = wipe_strdup(body);
    return call->quote == NULL ? err_sys(err, ENOMEM, "cannot keep the answer") : 0;
}

/*
 * The agent's own words about a refusal, cut short: member "error", or a plain text. Any
 * other JSON, whole or not, is not shown: it might hold a key.
 */
static void refusal_text(const struct http_call *http, char *ret, size_t size)
{
    const char *body = buf_str(&http->body);
    json_t *root = json_load_whole(body, strlen(body), JSON_DECODE_ANY, NULL);
    const char *text = json_string_value(json_object_get(root, "error"));

    if (text == NULL && root == NULL && strchr(body, '{') == NULL)
        text = body;
    snprintf(ret, size, "%.200s",
             text == NULL || text[0] == '\0' ? "no explanation" : text);
    json_decref(root);
}

static int read_answer(struct dstack_call *call, struct err *err)
{
    char words[256];

    if (call->http.status == 404 && call->read == read_version)
        return 0;
    if (call->http.status != 200) {
        refusal_text(&call->http, words, sizeof words);
        return err_set_code(err, ERR_PEER, call->http.status, "HTTP status %d: %s",
                            call->http.status, words);
    }
    return call->read(call, buf_str(&call->http.body), err);
}

static void on_http_done(void *owner, const struct err *http_err)
{
    struct dstack_call *call = owner;
    struct err err = ERR_INIT;
    int failed = 0;

    if (http_err == NULL) {
        failed = read_answer(call, &err);
    } else {
        err = *http_err;
        failed = -1;
        if (err.kind == ERR_NET && err.code == ENOENT)
            err_set_code(&err, err.kind, err.code,
                         "%s; is the agent's socket mounted into the container?",
                         err.message);
    }
    http_call_done(&call->http);
    wipe_free(call->body);
    call->body = NULL;
    if (failed != 0)
        err_wrap(&err, "guest agent %s: %s", call->endpoint, call->method);
    observer_tell(&(struct observation){.what = OBSERVED_AGENT_CALL,
                                        .subject = call->method,
                                        .detail = "",
                                        .failure = err.kind});
    call->done(call->owner, failed != 0 ? &err : NULL);
}

/* `arguments` is consumed. */
static void start(struct dstack_call *call, const struct dstack *agent,
                  const char *method, json_t *arguments,
                  int (*read)(struct dstack_call *, const char *, struct err *),
                  done_fn done, void *owner)
{
    const char *socket = dstack_endpoint(agent);
    bool over_tcp = text_starts_with(socket, "http://");
    size_t base;
    struct http_request request = {
        .method = "POST",
        .url = call->url,
        .unix_socket = over_tcp ? NULL : call->endpoint,
        .headers = json_headers,
        .max_body = ANSWER_MAX_BYTES,
        .timeout_ms = agent->timeout_ms * (read == read_emitted ? EMIT_PATIENCE : 1),
    };

    *call = (struct dstack_call){
        .method = method, .read = read, .done = done, .owner = owner};
    snprintf(call->endpoint, sizeof call->endpoint, "%s", socket);
    snprintf(call->url, sizeof call->url, "%.400s",
             over_tcp ? socket : "http://localhost");
    for (base = strlen(call->url); call->url[base - 1] == '/'; base--)
        ;
    snprintf(call->url + base, sizeof call->url - base, "/%s", method);
    call->body = json_dump_whole(arguments, JSON_COMPACT);
    json_decref(arguments);
    /*
     * A missing body (no memory, text that is not UTF-8) is refused by the agent, with
     * a message.
     */
    request.body = call->body != NULL ? call->body : "";
    request.body_len = strlen(request.body);
    http_start(&call->http, agent->http, &request, on_http_done, call);
}

void dstack_get_key(struct dstack_call *call, const struct dstack *agent,
                    const char *path, done_fn done, void *owner)
{
    start(call, agent, "GetKey", json_pack("{s:s, s:s}", "path", path, "purpose", ""),
          dstack_read_key, done, owner);
}

void dstack_emit_event(struct dstack_call *call, const struct dstack *agent,
                       const char *event, const char *payload_hex, done_fn done,
                       void *owner)
{
    start(call, agent, "EmitEvent",
          json_pack("{s:s, s:s}", "event", event, "payload", payload_hex), read_emitted,
          done, owner);
}

void dstack_get_quote(struct dstack_call *call, const struct dstack *agent,
                      const char *report_data_hex, done_fn done, void *owner)
{
    start(call, agent, "GetQuote", json_pack("{s:s}", "report_data", report_data_hex),
          dstack_read_quote, done, owner);
}

void dstack_info(struct dstack_call *call, const struct dstack *agent, done_fn done,
                 void *owner)
{
    start(call, agent, "Info", json_object(), dstack_read_info, done, owner);
}

void dstack_version(struct dstack_call *call, const struct dstack *agent, done_fn done,
                    void *owner)
{
    start(call, agent, "Version", json_object(), read_version, done, owner);
}

void dstack_cancel(struct dstack_call *call)
{
    http_cancel(&call->http);
}

void dstack_call_done(struct dstack_call *call)
{
    secret_free(call->key);
    wipe_free(call->tcb_info);
    wipe_free(call->quote);
    call->key = NULL;
    call->tcb_info = NULL;
    call->quote = NULL;
}
