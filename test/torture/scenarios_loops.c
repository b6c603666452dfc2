/* What waits: done comes once, with an error where there was one, and the loop closes. */
#include "scenario.h"

#include "runtime/http.h"
#include "runtime/process.h"
#include "runtime/server.h"
#include "trial.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct waiting {
    struct scene *scene;
    unsigned times;
    bool failed;
};

static void on_done(void *owner, const struct err *err)
{
    struct waiting *waiting = owner;

    waiting->times++;
    waiting->failed = err != NULL;
    if (err != NULL)
        waiting->scene->err = *err;
}

/* An operation that ended some other way than once leaves no doubt about it. */
static int end(struct waiting *waiting, uv_loop_t *loop)
{
    int left = uv_loop_close(loop);

    if (waiting->times != 1 || left != 0) {
        fprintf(stderr, "done was called %u times, the loop %s\n", waiting->times,
                left == 0 ? "is closed" : "does not close");
        abort();
    }
    return waiting->failed ? -1 : 0;
}

/* ---- a child ---- */

static int run_child(struct scene *scene)
{
    static const char *const argv[] = {"/bin/echo", "some", "words", NULL};
    static const char *const environment[] = {"PATH=/usr/bin:/bin", NULL};
    const struct process_options options = {.argv = argv,
                                            .environment = environment,
                                            .max_output = 1024,
                                            .timeout_ms = 10000,
                                            .term_grace_ms = 100};
    struct waiting waiting = {.scene = scene};
    struct process process = {0};
    uv_loop_t loop;
    int result;

    if (uv_loop_init(&loop) != 0)
        return err_sys(&scene->err, ENOMEM, "loop");
    process_start(&process, &loop, &options, on_done, &waiting);
    uv_run(&loop, UV_RUN_DEFAULT);
    result = end(&waiting, &loop);
    if (result == 0 && process.exit_status != 0)
        result = err_set(&scene->err, ERR_PEER, "exit status %d", process.exit_status);
    if (result == 0 && process.output_cut[PROCESS_STDOUT])
        result = err_set(&scene->err, ERR_SYS, "its output is cut");
    if (result == 0)
        scene_add(scene, buf_str(&process.output[PROCESS_STDOUT]));
    process_done(&process);
    return result;
}

/* ---- a request to our own server ---- */

struct talk {
    struct waiting waiting;
    struct http *http;
    struct http_call call;
    struct server server;
    bool is_ended;
};

static void answer(void *owner, const struct server_request *request,
                   struct server_answer *ret)
{
    struct err err = ERR_INIT;

    (void)owner;
    if (buf_printf(&ret->body, &err, "%s %s %zu", request->method, request->path,
                   request->body_len) == 0)
        ret->status = 200;
}

static void on_talked(void *owner, const struct err *err)
{
    struct talk *talk = owner;

    on_done(&talk->waiting, err);
    http_close(talk->http, NULL, NULL);
    server_close(&talk->server, NULL, NULL);
}

static int ask_server(struct scene *scene)
{
    static const struct server_options options = {
        .connections = 3, .body_max = 4096, .timeout_ms = 2000, .answer = answer};
    struct talk talk = {.waiting = {.scene = scene}};
    const char *path = scene_path(scene, "socket");
    uv_loop_t loop;
    int result;

    /* Not http_new_loop(): a uv_loop_init() that fails leaves descriptors, and here it is the test's. */
    if (http_setup(&scene->err) < 0)
        return -1;
    if (uv_loop_init(&loop) != 0)
        return err_sys(&scene->err, ENOMEM, "loop");
    talk.http = http_new(&loop, &scene->err);
    if (talk.http == NULL) {
        uv_loop_close(&loop);
        return -1;
    }
    if (server_start_unix(&talk.server, &loop, path, 0600, (gid_t)-1, &options,
                          &scene->err) < 0)
        on_talked(&talk, &(struct err){.kind = scene->err.kind, .message = "the server"});
    else
        http_start(&talk.call, talk.http,
                   &(struct http_request){.method = "POST",
                                          .url = "http://localhost/v1/renew",
                                          .unix_socket = path,
                                          .body = "{}",
                                          .body_len = 2,
                                          .max_body = 1024,
                                          .timeout_ms = 3000},
                   on_talked, &talk);
    uv_run(&loop, UV_RUN_DEFAULT);
    result = end(&talk.waiting, &loop);
    if (result == 0 && talk.call.status != 200)
        result = err_set(&scene->err, ERR_PEER, "status %d", talk.call.status);
    if (result == 0)
        scene_add(scene, buf_str(&talk.call.body));
    http_call_done(&talk.call);
    return result;
}

/* What libuv and libcurl keep for as long as the process lives. */
static void run_before(struct scene *scene)
{
    if (run_child(scene) < 0)
        fprintf(stderr, "%s\n", scene->err.message);
    buf_clear(&scene->result);
}

static void ask_before(struct scene *scene)
{
    if (ask_server(scene) < 0)
        fprintf(stderr, "%s\n", scene->err.message);
    buf_clear(&scene->result);
}

const struct scenario scenarios_of_loops[] = {
    {"a child is run", run_before, run_child, NULL, NULL, false},
    {"a request is answered", ask_before, ask_server, NULL, NULL, false},
    {0},
};
