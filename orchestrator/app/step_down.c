#include "app/step_down.h"

#include "adapters/evidence_folder.h"
#include "adapters/nginx.h"
#include "base/fs.h"
#include "base/log.h"
#include "domain/upstreams.h"

#include <errno.h>
#include <stdlib.h>
#include <uv.h>

/*
 * Long enough for nginx to read its files, and for a resolver that answers; nothing is served
 * meanwhile.
 */
enum { TEST_MS = 5 * 1000 };

struct outcome {
    struct err err;
};

static void on_done(void *owner, const struct err *err)
{
    struct outcome *outcome = owner;

    if (err != NULL)
        outcome->err = *err;
}

/* What `nginx -t` says of the files, with the pair as it is. */
static int test_files(uv_loop_t *loop, const struct config *config,
                      const struct store *store, const struct nginx_files *files,
                      struct err *err)
{
    const struct nginx_test_request request = {
        .loop = loop,
        .config = config,
        .files = *files,
        .chain = store->chain,
        .key = store->key,
        .timeout_ms = TEST_MS,
    };
    struct nginx_test *test = malloc(sizeof *test);
    struct outcome outcome = {.err = ERR_INIT};

    if (test == NULL)
        return err_sys(err, ENOMEM, "nginx -t");
    nginx_test_start(test, &request, on_done, &outcome);
    uv_run(loop, UV_RUN_DEFAULT);
    free(test);
    if (outcome.err.kind == ERR_NONE)
        return 0;
    *err = outcome.err;
    return -1;
}

static int render_reduced(uv_loop_t *loop, const struct config *config,
                          struct buf *ret_site, struct err *err)
{
    struct nginx_probe probe;
    struct nginx_facts facts;
    struct upstreams upstreams;
    struct outcome outcome = {.err = ERR_INIT};
    char evidence[FS_PATH_MAX];
    BUF_SCOPED include = {0};
    int result;

    nginx_machine_facts(config, &facts);
    buf_init(ret_site, NGINX_CONF_MAX_BYTES);
    if (evidence_folder_for_nginx(config, evidence, &facts, err) < 0)
        return -1;
    nginx_probe_start(&probe, loop, config, &facts, on_done, &outcome);
    uv_run(loop, UV_RUN_DEFAULT);
    buf_init(&include, NGINX_CONF_MAX_BYTES);
    result = upstreams_init(&upstreams, config, err);
    facts.upstreams = &upstreams;
    if (result == 0)
        result =
            nginx_render(config, &facts, NGINX_HTTPS_REDUCED, ret_site, &include, err);
    upstreams_done(&upstreams);
    return result;
}

/*
 * nginx took its configuration once, but a name in it may not resolve any more, and then nginx would
 * not start. The include stays: it has the addresses that were found last.
 */
static void step_down(uv_loop_t *loop, const struct config *config,
                      const struct store *store)
{
    char path[FS_PATH_MAX];
    struct err refusal = ERR_INIT;
    struct err err = ERR_INIT;
    BUF_SCOPED site = {0};
    BUF_SCOPED include = {0};
    BUF_SCOPED reduced = {0};
    struct nginx_files files = {.site = &site, .include = &include};

    if (nginx_include_path(config, path, &err) < 0 ||
        fs_read(path, NGINX_CONF_MAX_BYTES, &include, &err) < 0 ||
        fs_read(config->nginx.site_conf, NGINX_CONF_MAX_BYTES, &site, &err) < 0 ||
        test_files(loop, config, store, &files, &refusal) == 0)
        return;
    files.site = &reduced;
    if (render_reduced(loop, config, &reduced, &err) < 0 ||
        test_files(loop, config, store, &files, &err) < 0) {
        log_error("prestart: %s; no other configuration can be used: %s", refusal.message,
                  err.message);
        return;
    }
    log_error(
        "prestart: nginx starts without the application, whose paths answer 503 until "
        "cert-manager has put the configuration right: %s",
        refusal.message);
    if (nginx_install(config, &files, &err) < 0)
        log_error("prestart: %s", err.message);
}

/* Without HTTPS only a template of the deployment can be what nginx refuses. */
static void step_down_http_only(uv_loop_t *loop, const struct config *config,
                                const struct store *store)
{
    struct nginx_facts facts;
    struct err refusal = ERR_INIT;
    struct err err = ERR_INIT;
    BUF_SCOPED site = {0};
    BUF_SCOPED stock = {0};
    struct nginx_files files = {.site = &stock};

    nginx_machine_facts(config, &facts);
    buf_init(&stock, NGINX_CONF_MAX_BYTES);
    if (nginx_render_stock_http_only(config, &facts, &stock, &err) < 0 ||
        nginx_has_files(config, &files) ||
        fs_read(config->nginx.site_conf, NGINX_CONF_MAX_BYTES, &site, &err) < 0)
        return;
    files.site = &site;
    if (test_files(loop, config, store, &files, &refusal) == 0)
        return;
    log_error("prestart: port 80 is served by our own template: %s", refusal.message);
    files.site = &stock;
    if (nginx_install(config, &files, &err) < 0)
        log_error("prestart: %s", err.message);
}

void step_down_if_refused(const struct config *config, const struct store *store)
{
    char include[FS_PATH_MAX];
    struct err err = ERR_INIT;
    uv_loop_t loop;

    if (nginx_include_path(config, include, &err) < 0)
        return;
    if (uv_loop_init(&loop) != 0) {
        log_error("prestart: cannot create an event loop");
        return;
    }
    if (fs_exists(include))
        step_down(&loop, config, store);
    else
        step_down_http_only(&loop, config, store);
    uv_loop_close(&loop);
}
