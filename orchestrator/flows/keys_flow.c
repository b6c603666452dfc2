#include "flows/keys_flow.h"

#include "base/fs.h"
#include "base/log.h"
#include "base/text.h"

#include <errno.h>
#include <string.h>

static void abort_call(void *owner)
{
    struct keys_flow *flow = owner;

    dstack_cancel(&flow->call);
}

/* ---- TLS key ---- */

static int begin_tls_key(void *owner, struct err *err)
{
    struct keys_flow *flow = owner;

    (void)err;
    if (flow->config->tls.external_key)
        return SEQ_READY;
    if (flow->config->development) {
        log_warning(
            "development mode: the private key is fixed and public; never serve "
            "anything real with it");
        return SEQ_READY;
    }
    keys_tls_path(flow->path, flow->config->domain, false);
    dstack_get_key(&flow->call, flow->agent, flow->path, seq_resume, &flow->seq);
    return SEQ_WAIT;
}

static int finish_tls_key(void *owner, struct err *err)
{
    struct keys_flow *flow = owner;
    struct secret *fixed = NULL;
    int failed;

    if (flow->config->tls.external_key)
        return SEQ_NEXT;
    if (flow->config->development) {
        fixed = keys_development_material();
        if (fixed == NULL)
            return err_sys(err, ENOMEM, "no secure memory left");
    }
    failed = keys_derive(fixed != NULL ? fixed : flow->call.key, &flow->tls_key, err);
    secret_free(fixed);
    if (failed != 0)
        return err_wrap(err, "key for path %s", flow->path);
    if (!flow->config->development)
        log_debug("derived the TLS key for path %s", flow->path);
    dstack_call_done(&flow->call);
    return SEQ_NEXT;
}

/* ---- EKM secret ---- */

static int begin_ekm_secret(void *owner, struct err *err)
{
    struct keys_flow *flow = owner;

    (void)err;
    if (flow->config->development)
        return SEQ_READY;
    dstack_get_key(&flow->call, flow->agent, KEYS_EKM_PATH, seq_resume, &flow->seq);
    return SEQ_WAIT;
}

enum { EKM_SECRET_FILE_MAX_BYTES = 4096 };

/*
 * The development secret: from the environment, or from a file without its last line
 * end.
 */
static int read_given_secret(const struct config *config, struct secret **ret,
                             struct err *err)
{
    SECRET_SCOPED text = NULL;
    size_t len;

    if (config->ekm_secret_file == NULL) {
        *ret = secret_copy(config->ekm_secret->bytes, config->ekm_secret->len);
        return *ret == NULL ? err_sys(err, ENOMEM, "no secure memory left") : 0;
    }
    if (fs_read_secret(config->ekm_secret_file, EKM_SECRET_FILE_MAX_BYTES, &text, err) <
        0)
        return err_wrap(err, "ekm.secret_file");
    len = text->len;
    if (len > 0 && text->bytes[len - 1] == '\n')
        len--;
    if (len == 0)
        return err_set(err, ERR_CONFIG, "ekm.secret_file: %s is empty",
                       config->ekm_secret_file);
    *ret = secret_copy(text->bytes, len);
    return *ret == NULL ? err_sys(err, ENOMEM, "no secure memory left") : 0;
}

/* In production the HMAC key is the hex text of the derived bytes. */
static int finish_ekm_secret(void *owner, struct err *err)
{
    struct keys_flow *flow = owner;

    if (flow->config->development)
        return read_given_secret(flow->config, &flow->ekm_secret, err);
    flow->ekm_secret = secret_new(2 * (size_t)DSTACK_KEY_BYTES);
    if (flow->ekm_secret == NULL)
        return err_sys(err, ENOMEM, "no secure memory left");
    text_hex((char *)flow->ekm_secret->bytes, flow->call.key->bytes, DSTACK_KEY_BYTES);
    dstack_call_done(&flow->call);
    return SEQ_NEXT;
}

/* ---- ACME account ---- */

static void on_account_key(void *owner, const struct err *err)
{
    struct keys_flow *flow = owner;

    if (err != NULL)
        flow->account_err = *err;
    seq_resume(&flow->seq, NULL);
}

static int begin_account(void *owner, struct err *err)
{
    struct keys_flow *flow = owner;

    (void)err;
    if (!config_answers_challenges(flow->config))
        return SEQ_READY;
    keys_account_path(flow->path, flow->config->domain,
                      flow->config->acme.account_version);
    dstack_get_key(&flow->call, flow->agent, flow->path, on_account_key, flow);
    return SEQ_WAIT;
}

static int finish_account(void *owner, struct err *err)
{
    struct keys_flow *flow = owner;
    EVP_PKEY *key = NULL;

    (void)err;
    if (flow->call.key != NULL &&
        keys_derive(flow->call.key, &key, &flow->account_err) == 0)
        (void)jose_thumbprint(key, flow->account_thumbprint, &flow->account_err);
    EVP_PKEY_free(key);
    dstack_call_done(&flow->call);
    if (flow->account_err.kind != ERR_NONE)
        err_wrap(&flow->account_err, "ACME account key");
    return SEQ_NEXT;
}

/* Calls have a time limit of their own: agent.timeout. */
const struct seq_step keys_steps[] = {
    {"get TLS key", begin_tls_key, finish_tls_key, abort_call, 0},
    {"get EKM secret", begin_ekm_secret, finish_ekm_secret, abort_call, 0},
    {"learn account", begin_account, finish_account, abort_call, 0},
    {0},
};

void keys_flow_start(struct keys_flow *flow, uv_loop_t *loop, const struct config *config,
                     const struct dstack *agent, done_fn done, void *owner)
{
    *flow = (struct keys_flow){.config = config, .agent = agent};
    seq_start(&flow->seq, loop, "keys", keys_steps, flow, done, owner);
}

void keys_flow_cancel(struct keys_flow *flow)
{
    seq_cancel(&flow->seq);
}

void keys_flow_done(struct keys_flow *flow)
{
    dstack_call_done(&flow->call);
    secret_free(flow->ekm_secret);
    EVP_PKEY_free(flow->tls_key);
    flow->ekm_secret = NULL;
    flow->tls_key = NULL;
}
