#include "app/inquiry.h"

#include "domain/keys.h"

#include <errno.h>

/* ---- its life ---- */

int inquiry_open(struct inquiry *inquiry, const struct config *config, struct err *err)
{
    *inquiry = (struct inquiry){.config = config};
    inquiry->http = http_new_loop(&inquiry->loop, err);
    if (inquiry->http == NULL)
        return -1;
    inquiry->agent = (struct dstack){
        .http = inquiry->http,
        .configured = config->agent.socket,
        .timeout_ms = config->agent.timeout_ms,
    };
    return 0;
}

void inquiry_close(struct inquiry *inquiry)
{
    http_close(inquiry->http, NULL, NULL);
    uv_run(&inquiry->loop, UV_RUN_DEFAULT);
    uv_loop_close(&inquiry->loop);
}

/* ---- operations ---- */

void inquiry_note(void *owner, const struct err *err)
{
    struct inquiry_end *end = owner;

    end->over = true;
    if (err != NULL)
        end->err = *err;
}

int inquiry_wait(struct inquiry *inquiry, const struct inquiry_end *end, struct err *err)
{
    while (!end->over)
        uv_run(&inquiry->loop, UV_RUN_ONCE);
    if (end->err.kind == ERR_NONE)
        return 0;
    *err = end->err;
    return -1;
}

/* ---- keys ---- */

static int derive(struct inquiry *inquiry, const char *path, EVP_PKEY **ret,
                  struct err *err)
{
    struct dstack_call call = {0};
    struct inquiry_end end = {0};
    int failed;

    dstack_get_key(&call, &inquiry->agent, path, inquiry_note, &end);
    failed = inquiry_wait(inquiry, &end, err);
    if (failed == 0 && keys_derive(call.key, ret, err) < 0)
        failed = err_wrap(err, "key for path %s", path);
    dstack_call_done(&call);
    return failed;
}

static int fixed_key(EVP_PKEY **ret, struct err *err)
{
    SECRET_SCOPED fixed = keys_development_material();

    return fixed == NULL ? err_sys(err, ENOMEM, "no secure memory left")
                         : keys_derive(fixed, ret, err);
}

int inquiry_tls_key(struct inquiry *inquiry, EVP_PKEY **ret, struct err *err)
{
    char path[KEYS_PATH_SIZE];

    if (inquiry->config->development)
        return fixed_key(ret, err);
    keys_tls_path(path, inquiry->config->domain, false);
    return derive(inquiry, path, ret, err);
}

int inquiry_account_key(struct inquiry *inquiry, EVP_PKEY **ret, struct err *err)
{
    char path[KEYS_PATH_SIZE];

    keys_account_path(path, inquiry->config->domain,
                      inquiry->config->acme.account_version);
    return derive(inquiry, path, ret, err);
}

int inquiry_needs_account(const struct config *config, const char *what, struct err *err)
{
    if (config->development)
        return err_set(err, ERR_CONFIG,
                       "in development (DEV_MODE) there is no %s: certificates are "
                       "self-signed",
                       what);
    if (config->tls.external_key)
        return err_set(
            err, ERR_CONFIG,
            "with tls.key: external there is no %s: whoever puts the pair there "
            "has it",
            what);
    return 0;
}
