/*
 * The control socket, <run_dir>/control.sock: what holds now, and what is to be done, for people and
 * programs of this machine. Only root can connect to it.
 */
#include "app/daemon_internal.h"

#include "base/log.h"
#include "domain/json_text.h"

#include <string.h>

enum { CONNECTIONS_MAX = 16, BODY_MAX_BYTES = 256 * 1024, TIMEOUT_MS = 5000 };

static int answer_status(struct daemon *d, const struct server_request *request,
                         struct server_answer *ret, struct err *err)
{
    (void)request;
    ret->type = "application/json";
    return daemon_status_text(d, &ret->body, err);
}

static int answer_metrics(struct daemon *d, const struct server_request *request,
                          struct server_answer *ret, struct err *err)
{
    (void)request;
    ret->type = DAEMON_METRICS_TYPE;
    return daemon_metrics_text(d, &ret->body, err);
}

/*
 * A handler fills body and type, and sets another status than 200 where that is right. When it fails,
 * the client gets the error: where the request is to blame (ERR_CONFIG) with the status that is the
 * error's code, or 400, else with 500. control_ask_json() makes the same error of it again.
 */
static const struct {
    const char *method;
    const char *path;
    int (*answer)(struct daemon *d, const struct server_request *request,
                  struct server_answer *ret, struct err *err);
} routes[] = {
    {"GET", "/v1/status", answer_status},
    {"GET", "/metrics", answer_metrics},
    {"GET", "/health", daemon_answer_health},
    {"POST", "/v1/renew", daemon_answer_renew},
    {"POST", "/v1/reload", daemon_answer_reload},
    {"GET", "/v1/log-level", daemon_answer_log_level},
    {"POST", "/v1/log-level", daemon_set_log_level},
    {"POST", "/v1/deploy", daemon_answer_deploy},
};

static void refuse(struct server_answer *ret, int status, const char *message)
{
    struct err ignored = ERR_INIT;

    ret->status = status;
    ret->type = "application/json";
    buf_clear(&ret->body);
    (void)json_to_text(json_pack("{s:o}", "error", json_of_text(message)), 0, "",
                       &ret->body, &ignored);
}

static int status_of(const struct err *err)
{
    if (err->kind != ERR_CONFIG)
        return 500;
    return err->code >= 400 && err->code < 500 ? err->code : 400;
}

static void answer(void *owner, const struct server_request *request,
                   struct server_answer *ret)
{
    const char *method = strcmp(request->method, "HEAD") == 0 ? "GET" : request->method;
    struct err err = ERR_INIT;
    bool known = false;

    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++) {
        if (strcmp(request->path, routes[i].path) != 0)
            continue;
        known = true;
        if (strcmp(method, routes[i].method) != 0)
            continue;
        ret->status = 200;
        if (routes[i].answer(owner, request, ret, &err) < 0)
            refuse(ret, status_of(&err), err.message);
        return;
    }
    refuse(ret, known ? 405 : 404, known ? "not by this method" : "no such resource");
}

static int listen_or_take_over(struct daemon *d, const struct server_options *options,
                               struct err *err)
{
    char path[FS_PATH_MAX];

    if (d->control_place.is_there)
        return server_take_over(&d->control, &d->loop, &d->control_place, options, err);
    return fs_join(path, d->config->run_dir, "control.sock", err) < 0
               ? -1
               : server_start_unix(&d->control, &d->loop, path, 0600, (gid_t)-1, options,
                                   err);
}

void daemon_start_control(struct daemon *d)
{
    const struct server_options options = {
        .connections = CONNECTIONS_MAX,
        .body_max = BODY_MAX_BYTES,
        .timeout_ms = TIMEOUT_MS,
        .answer = answer,
        .owner = d,
    };
    struct err err = ERR_INIT;

    /* Certificates do not wait for it. */
    if (listen_or_take_over(d, &options, &err) < 0)
        log_error("status and metrics cannot be asked for: %s", err.message);
}
