#include "app/control_client.h"

#include "base/fs.h"
#include "base/text.h"
#include "domain/json_text.h"
#include "runtime/http.h"

#include <errno.h>
#include <string.h>
#include <uv.h>

enum {
    ANSWER_MAX_BYTES = 1024 * 1024,
    TIMEOUT_MS = 10 * 1000,
    REST_MS = 200,
    NANOSECONDS = 1000 * 1000 * 1000, /* of a second */
};

struct asking {
    uv_loop_t loop;
    struct http *http;
    struct http_call call;
    struct err err;
};

static void on_answered(void *owner, const struct err *err)
{
    struct asking *asking = owner;

    if (err != NULL)
        asking->err = *err;
    http_close(asking->http, NULL, NULL);
}

/* Behind the request and the socket, which was named already. */
static const char *reason_in(const char *message, const char *path)
{
    const char *named = strstr(message, path);

    if (named == NULL || strncmp(named + strlen(path), ": ", 2) != 0)
        return message;
    return named + strlen(path) + 2;
}

/* Whoever asks wants to know what to do, more than that a connect failed. */
static int explain(const char *path, const struct err *failure, struct err *err)
{
    *err = *failure;
    if (failure->kind == ERR_TIMEOUT)
        return err_set(
            err, ERR_TIMEOUT,
            "the daemon at %s does not answer: %s; is it stopped, or the machine "
            "short of time?",
            path, reason_in(failure->message, path));
    if (failure->kind != ERR_NET)
        return -1;
    if (failure->code == EACCES || failure->code == EPERM)
        return err_set_code(err, ERR_NET, failure->code,
                            "%s: only root may ask the daemon", path);
    return err_set_code(err, ERR_NET, failure->code,
                        "no daemon answers at %s: %s; is `cert-manager run` at work, "
                        "with this run_dir?",
                        path, reason_in(failure->message, path));
}

static int ask(const char *path, const struct control_question *question,
               struct asking *asking, struct err *err)
{
    static const char *const headers[] = {"Content-Type: application/json", NULL};
    char url[128];
    struct http_request request = {
        .method = question->method,
        .url = url,
        .unix_socket = path,
        .headers = question->body != NULL ? headers : NULL,
        .body = question->body,
        .body_len = question->body_len,
        .max_body = ANSWER_MAX_BYTES,
        .timeout_ms = question->timeout_ms != 0 ? question->timeout_ms : TIMEOUT_MS,
    };

    snprintf(url, sizeof url, "http://localhost%s", question->path);
    asking->http = http_new_loop(&asking->loop, err);
    if (asking->http == NULL)
        return -1;
    http_start(&asking->call, asking->http, &request, on_answered, asking);
    uv_run(&asking->loop, UV_RUN_DEFAULT);
    uv_loop_close(&asking->loop);
    return asking->err.kind == ERR_NONE ? 0 : explain(path, &asking->err, err);
}

static int ask_once(const struct config *config, const struct control_question *question,
                    struct control_answer *ret, struct err *err)
{
    struct asking asking = {.err = ERR_INIT};
    char path[FS_PATH_MAX];

    if (fs_join(path, config->run_dir, "control.sock", err) < 0)
        return -1;
    if (ask(path, question, &asking, err) < 0) {
        http_call_done(&asking.call);
        return -1;
    }
    *ret = (struct control_answer){
        .status = asking.call.status,
        .body = asking.call.body,
    };
    asking.call.body = (struct buf){0};
    http_call_done(&asking.call);
    return 0;
}

int control_ask(const struct config *config, const struct control_question *question,
                struct control_answer *ret, struct err *err)
{
    struct err failure = ERR_INIT;

    if (ask_once(config, question, ret, &failure) == 0)
        return 0;
    /*
     * A daemon that takes other settings ends the connections that it has, and answers the next one.
     * Nothing that is asked for twice is done twice.
     */
    if (failure.kind == ERR_PEER && failure.code == 0)
        return ask_once(config, question, ret, err);
    *err = failure;
    return -1;
}

void control_answer_done(struct control_answer *answer)
{
    buf_done(&answer->body);
}

/* What the daemon said of what it does not do; "errors" are told in one line. */
static int refused(const struct control_answer *answer, const json_t *root,
                   struct err *err)
{
    const char *said = json_string_value(json_object_get(root, "error"));
    enum err_kind kind =
        answer->status >= 400 && answer->status < 500 ? ERR_CONFIG : ERR_PEER;

    if (said == NULL)
        said = json_string_value(json_array_get(json_object_get(root, "errors"), 0));
    if (said != NULL)
        return err_set_code(err, kind, answer->status, "%s", said);
    return err_set_code(err, kind, answer->status, "the daemon answered with status %d",
                        answer->status);
}

int control_ask_json(const struct config *config, const struct control_question *question,
                     json_t **ret, struct err *err)
{
    struct control_answer answer;
    json_error_t where;
    json_t *root;
    int failed = 0;

    if (control_ask(config, question, &answer, err) < 0)
        return -1;
    root = json_load_whole(buf_str(&answer.body), answer.body.len, 0, &where);
    if (answer.status < 200 || answer.status > 299)
        failed = refused(&answer, root, err);
    else if (!json_is_object(root))
        failed = err_set(err, ERR_PEER, "the daemon's answer to %s is no JSON object",
                         question->path);
    control_answer_done(&answer);
    if (failed == 0)
        *ret = root;
    else
        json_decref(root);
    return failed;
}

const char *control_text(const json_t *object, const char *member)
{
    const char *text = json_string_value(json_object_get(object, member));

    return text == NULL ? "" : text;
}

int64_t control_now(void)
{
    return (int64_t)(uv_hrtime() / NANOSECONDS);
}

void control_rest(void)
{
    uv_sleep(REST_MS);
}
