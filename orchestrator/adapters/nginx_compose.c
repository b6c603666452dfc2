#include "adapters/nginx_compose.h"

#include <string.h>

static int render(struct nginx_compose *compose, enum nginx_level level, struct err *err)
{
    struct nginx_facts facts = *compose->request.facts;

    facts.live_chain = compose->request.live_chain;
    compose->level = level;
    buf_clear(&compose->site);
    buf_clear(&compose->include);
    return nginx_render(compose->request.config, &facts, level, &compose->site,
                        &compose->include, err);
}

/* ---- everything ---- */

/* A template that is missing or cannot be rendered is as good as refused. */
static int begin_render_all(void *flow, struct err *err)
{
    struct nginx_compose *compose = flow;

    (void)err;
    (void)render(compose, NGINX_HTTPS, &compose->refusal);
    return SEQ_READY;
}

static int start_test(struct nginx_compose *compose, done_fn done, void *owner)
{
    const struct nginx_compose_request *request = &compose->request;
    const struct nginx_test_request test = {
        .loop = request->loop,
        .config = request->config,
        .files = {.site = &compose->site, .include = &compose->include},
        .chain = request->chain,
        .key = request->key,
        .timeout_ms = NGINX_TEST_MS,
    };

    nginx_test_start(&compose->test, &test, done, owner);
    return SEQ_WAIT;
}

static void on_test_done(void *owner, const struct err *err)
{
    struct nginx_compose *compose = owner;
    bool refused = err != NULL && (err->kind == ERR_CONFIG || err->kind == ERR_TIMEOUT);

    if (refused)
        compose->refusal = *err;
    seq_resume(&compose->seq, refused ? NULL : err);
}

static int begin_test_all(void *flow, struct err *err)
{
    struct nginx_compose *compose = flow;

    (void)err;
    if (compose->refusal.kind != ERR_NONE)
        return SEQ_READY;
    return start_test(compose, on_test_done, compose);
}

static int finish_test_all(void *flow, struct err *err)
{
    struct nginx_compose *compose = flow;
    char path[FS_PATH_MAX];
    struct err ignored = ERR_INIT;
    struct buf refused;

    (void)err;
    if (compose->refusal.kind == ERR_NONE) {
        if (nginx_refused_path(compose->request.config, path, &ignored) == 0)
            (void)fs_remove(path, &ignored);
        return SEQ_END;
    }
    /* nginx looks names up while it reads; a test that takes too long waits for a resolver. */
    compose->unresolved =
        compose->refusal.kind == ERR_TIMEOUT ||
        strstr(compose->refusal.message, "host not found in upstream") != NULL;
    refused = compose->refused;
    compose->refused = compose->site;
    compose->site = refused;
    return SEQ_NEXT;
}

static void abort_test(void *flow)
{
    struct nginx_compose *compose = flow;

    nginx_test_cancel(&compose->test);
}

/* ---- what was full before ---- */

static bool has_former(const struct nginx_compose *compose)
{
    const struct buf *former = compose->request.former;

    /* A name that does not resolve stands in the former one, too. */
    return former != NULL && former->len > 0 && !compose->unresolved &&
           strcmp(buf_str(former), buf_str(&compose->refused)) != 0;
}

/* The include has nothing of the templates, and is the same at every level. */
static int begin_render_former(void *flow, struct err *err)
{
    struct nginx_compose *compose = flow;

    if (!has_former(compose))
        return SEQ_READY;
    if (render(compose, NGINX_HTTPS_REDUCED, err) < 0)
        return -1;
    compose->level = NGINX_HTTPS;
    buf_clear(&compose->site);
    return buf_append(&compose->site, compose->request.former->data,
                      compose->request.former->len, err) < 0
               ? -1
               : SEQ_READY;
}

static void on_former_tested(void *owner, const struct err *err)
{
    struct nginx_compose *compose = owner;

    compose->kept = err == NULL;
    seq_resume(&compose->seq, err != NULL && err->kind == ERR_CANCELED ? err : NULL);
}

static int begin_test_former(void *flow, struct err *err)
{
    struct nginx_compose *compose = flow;

    (void)err;
    return has_former(compose) ? start_test(compose, on_former_tested, compose)
                               : SEQ_READY;
}

static int finish_test_former(void *flow, struct err *err)
{
    const struct nginx_compose *compose = flow;

    (void)err;
    return compose->kept ? SEQ_END : SEQ_NEXT;
}

/* ---- without the application ---- */

static int begin_render_reduced(void *flow, struct err *err)
{
    return render(flow, NGINX_HTTPS_REDUCED, err) < 0 ? -1 : SEQ_READY;
}

static int begin_test_reduced(void *flow, struct err *err)
{
    struct nginx_compose *compose = flow;

    (void)err;
    return start_test(compose, seq_resume, &compose->seq);
}

/* nginx -t has a time limit of its own. */
static const struct seq_step steps[] = {
    {"render everything", begin_render_all, NULL, NULL, 0},
    {"test everything", begin_test_all, finish_test_all, abort_test, 0},
    {"render the former", begin_render_former, NULL, NULL, 0},
    {"test the former", begin_test_former, finish_test_former, abort_test, 0},
    {"render without the application", begin_render_reduced, NULL, NULL, 0},
    {"test without the application", begin_test_reduced, NULL, abort_test, 0},
    {0},
};

void nginx_compose_start(struct nginx_compose *compose,
                         const struct nginx_compose_request *request, done_fn done,
                         void *owner)
{
    *compose = (struct nginx_compose){.request = *request};
    buf_init(&compose->site, NGINX_CONF_MAX_BYTES);
    buf_init(&compose->include, NGINX_CONF_MAX_BYTES);
    buf_init(&compose->refused, NGINX_CONF_MAX_BYTES);
    seq_start(&compose->seq, request->loop, "configuration", steps, compose, done, owner);
}

void nginx_compose_cancel(struct nginx_compose *compose)
{
    seq_cancel(&compose->seq);
}

void nginx_compose_done(struct nginx_compose *compose)
{
    buf_done(&compose->site);
    buf_done(&compose->include);
    buf_done(&compose->refused);
}
