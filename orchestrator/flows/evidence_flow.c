#include "flows/evidence_flow.h"

#include <string.h>

enum { TEXT_MAX_BYTES = 8 * 1024 };

static void abort_call(void *owner)
{
    struct evidence_flow *flow = owner;

    dstack_cancel(&flow->call);
}

/* ---- account key ---- */

static int begin_account_key(void *owner, struct err *err)
{
    struct evidence_flow *flow = owner;
    const struct config *config = flow->request.config;
    char path[KEYS_PATH_SIZE];

    /* Copied here and not in the start, which cannot fail. Nothing ran in between. */
    buf_init(&flow->chain_pem, CHAIN_PEM_MAX_BYTES);
    if (chain_to_pem(flow->request.chain, &flow->chain_pem, err) < 0)
        return -1;
    if (config->tls.external_key)
        return SEQ_READY;
    keys_account_path(path, config->domain, config->acme.account_version);
    dstack_get_key(&flow->call, flow->request.agent, path, seq_resume, &flow->seq);
    return SEQ_WAIT;
}

static int finish_account_key(void *owner, struct err *err)
{
    struct evidence_flow *flow = owner;
    int failed;

    if (flow->request.config->tls.external_key)
        return seq_go_to(&flow->seq, "write files");
    failed = keys_derive(flow->call.key, &flow->account_key, err);
    dstack_call_done(&flow->call);
    return failed < 0 || jose_thumbprint(flow->account_key, flow->thumbprint, err) < 0
               ? err_wrap(err, "ACME account key")
               : SEQ_NEXT;
}

/* ---- ACME account ---- */

static void on_account_done(void *owner, const struct err *err)
{
    struct evidence_flow *flow = owner;

    if (err != NULL)
        flow->account_err = *err;
    /* Without an account there still is evidence. */
    seq_resume(&flow->seq, NULL);
}

static int begin_account(void *owner, struct err *err)
{
    struct evidence_flow *flow = owner;
    const struct config *config = flow->request.config;
    const struct acme_account_request request = {
        .http = flow->request.http,
        .loop = flow->request.loop,
        .config = config,
        .authority = flow->request.authority,
        .key = flow->account_key,
        .existing_only = true,
    };

    (void)err;
    acme_account_start(&flow->account, &request, on_account_done, flow);
    return SEQ_WAIT;
}

static void abort_account(void *owner)
{
    struct evidence_flow *flow = owner;

    acme_account_cancel(&flow->account);
}

/* ---- files ---- */

static int write_text(const struct evidence_flow *flow, const char *name,
                      const struct buf *text, struct err *err)
{
    return evidence_folder_write(flow->folder, name, text->data, text->len, err);
}

static int begin_write(void *owner, struct err *err)
{
    struct evidence_flow *flow = owner;
    const struct config *config = flow->request.config;
    bool ours = !config->tls.external_key;
    const struct evidence_account account = {
        .directory = ours ? flow->request.authority->directory : NULL,
        .url = flow->account.url[0] == '\0' ? NULL : flow->account.url,
        .thumbprint = ours ? flow->thumbprint : NULL,
    };
    BUF_SCOPED account_json = {.max = TEXT_MAX_BYTES};
    BUF_SCOPED sums = {.max = TEXT_MAX_BYTES};

    if (evidence_account_json(&account, &account_json, err) < 0 ||
        evidence_sums(&flow->chain_pem, &account_json, &sums, err) < 0 ||
        evidence_report_data(&sums, flow->report_data, err) < 0 ||
        evidence_folder_prepare(config, flow->folder, err) < 0 ||
        write_text(flow, EVIDENCE_CHAIN, &flow->chain_pem, err) < 0 ||
        write_text(flow, EVIDENCE_ACCOUNT, &account_json, err) < 0)
        return -1;
    return write_text(flow, EVIDENCE_SUMS, &sums, err) < 0 ? -1 : SEQ_READY;
}

/* ---- quote ---- */

static int begin_quote(void *owner, struct err *err)
{
    struct evidence_flow *flow = owner;

    (void)err;
    dstack_get_quote(&flow->call, flow->request.agent, flow->report_data, seq_resume,
                     &flow->seq);
    return SEQ_WAIT;
}

static int finish_quote(void *owner, struct err *err)
{
    struct evidence_flow *flow = owner;
    const char *quote = flow->call.quote;
    int failed =
        evidence_folder_write(flow->folder, EVIDENCE_QUOTE, quote, strlen(quote), err);

    dstack_call_done(&flow->call);
    return failed < 0 ? -1 : SEQ_NEXT;
}

static int begin_publish(void *owner, struct err *err)
{
    struct evidence_flow *flow = owner;

    return evidence_folder_publish(flow->request.config, flow->folder, err) < 0
               ? -1
               : SEQ_READY;
}

/* Calls of agent and CA have time limits of their own. */
static const struct seq_step steps[] = {
    {"get account key", begin_account_key, finish_account_key, abort_call, 0},
    {"find account", begin_account, NULL, abort_account, 0},
    {"write files", begin_write, NULL, NULL, 0},
    {"get quote", begin_quote, finish_quote, abort_call, 0},
    {"publish", begin_publish, NULL, NULL, 0},
    {0},
};

void evidence_flow_start(struct evidence_flow *flow,
                         const struct evidence_request *request, done_fn done,
                         void *owner)
{
    *flow = (struct evidence_flow){.request = *request};
    seq_start(&flow->seq, request->loop, "evidence", steps, flow, done, owner);
}

void evidence_flow_cancel(struct evidence_flow *flow)
{
    seq_cancel(&flow->seq);
}

void evidence_flow_done(struct evidence_flow *flow)
{
    dstack_call_done(&flow->call);
    buf_done(&flow->chain_pem);
    EVP_PKEY_free(flow->account_key);
    flow->account_key = NULL;
}
