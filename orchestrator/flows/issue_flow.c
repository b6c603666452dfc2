#include "flows/issue_internal.h"

#include "adapters/account_memory.h"
#include "base/log.h"
#include "base/text.h"
#include "domain/csr.h"
#include "domain/jose.h"
#include "domain/selfsigned.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static int begin_check_disk(void *owner, struct err *err)
{
    struct issue_flow *flow = owner;

    /* What cannot be stored must not be ordered: orders are limited. */
    return store_check_writable(flow->request.store, err) < 0 ? -1 : SEQ_READY;
}

/* ---- the chain: checked, and kept before certbot's folder goes ---- */

static int read_chain(struct issue_flow *flow, struct err *err)
{
    const struct buf *pem = &flow->certbot.chain_pem;
    const struct chain_leaf *leaf;

    chain_free(flow->chain);
    flow->chain = NULL;
    if (chain_parse(pem->data, pem->len, &flow->chain, err) < 0 ||
        chain_check_issued(flow->chain, flow->request.tls_key,
                           &flow->request.config->domains, (int64_t)time(NULL), err) < 0)
        return err_wrap(err, "the chain that the CA issued cannot be used");
    leaf = chain_leaf(flow->chain);
    log_info("certificate obtained: issuer \"%s\", serial %s, %zu certificates",
             leaf->issuer_name, leaf->serial, chain_length(flow->chain));
    return 0;
}

/* Entered before it is staged: from then on nobody looks for its order any more. */
static int keep_chain(struct issue_flow *flow, struct err *err)
{
    BUF_SCOPED pem = {0};

    issue_enter_issued(flow);
    buf_init(&pem, CHAIN_PEM_MAX_BYTES);
    if (chain_to_pem(flow->chain, &pem, err) < 0 ||
        store_stage(flow->request.store, &pem, NULL, err) < 0)
        return err_wrap(err, "the certificate waits in certbot's folder");
    certbot_discard(&flow->certbot);
    return 0;
}

static int begin_check_chain(void *owner, struct err *err)
{
    struct issue_flow *flow = owner;

    if (read_chain(flow, err) == 0)
        return SEQ_READY;
    certbot_discard(&flow->certbot);
    return -1;
}

static int begin_keep_chain(void *owner, struct err *err)
{
    struct issue_flow *flow = owner;

    if (keep_chain(flow, err) == 0)
        return SEQ_READY;
    /* The next try asks nobody, and need not wait for long. */
    flow->asked_ca = false;
    flow->certbot_ran = false;
    return -1;
}

/* ---- a rehearsal ---- */

/* Its chain has served its purpose. */
static int finish_rehearsal(struct issue_flow *flow)
{
    log_info("the rehearsal at %s has succeeded", flow->request.authority->directory);
    certbot_discard(&flow->certbot);
    return SEQ_END;
}

/* ---- a certbot that outlived us ---- */

/* What a CA says of a request that is signed for an account that it does not have. */
static bool is_about_account(const struct certbot_outcome *outcome)
{
    static const char *const doubts[] = {"accountDoesNotExist", "malformed",
                                         "unauthorized"};

    if (outcome->verdict == CERTBOT_CHALLENGE_FAILED)
        return false;
    for (size_t i = 0; i < sizeof doubts / sizeof doubts[0]; i++) {
        if (strcmp(outcome->problem, doubts[i]) == 0)
            return true;
    }
    return false;
}

static void on_take_over_done(void *owner, const struct err *err)
{
    struct issue_flow *flow = owner;

    if (flow->certbot.taken_over != 0)
        flow->request.authority = flow->certbot.authority;
    flow->certbot_ran = flow->certbot.ran;
    flow->order_at = flow->certbot.taken_over;
    flow->asked_ca = flow->certbot_ran || (err != NULL && err->kind == ERR_TIMEOUT);
    flow->outcome = flow->certbot.outcome;
    flow->account_forgotten = flow->certbot_ran && is_about_account(&flow->outcome);
    seq_resume(&flow->seq, flow->account_forgotten ? NULL : err);
}

static int begin_take_over(void *owner, struct err *err)
{
    struct issue_flow *flow = owner;
    const struct certbot_request request = {
        .loop = flow->request.loop,
        .config = flow->request.config,
        .authority = flow->request.rehearsal ? flow->request.authority : NULL,
        .key_id = flow->key_id,
    };

    flow->chosen = flow->request.authority;
    if (keys_id(flow->request.tls_key, flow->key_id, err) < 0)
        return -1;
    certbot_take_over(&flow->certbot, &request, on_take_over_done, flow);
    return SEQ_WAIT;
}

static int finish_take_over(void *owner, struct err *err)
{
    struct issue_flow *flow = owner;
    struct err unusable = ERR_INIT;

    (void)err;
    if (flow->certbot.chain_pem.len > 0 && flow->request.rehearsal)
        return finish_rehearsal(flow);
    if (flow->certbot.chain_pem.len > 0 && read_chain(flow, &unusable) == 0)
        return seq_go_to(&flow->seq, "keep chain");
    if (unusable.kind != ERR_NONE) {
        log_warning("%s", unusable.message);
        issue_enter_issued(flow);
        flow->order_at = 0;
    }
    if (flow->account_forgotten) {
        log_warning("the CA does not accept the remembered account (%s)",
                    flow->outcome.detail);
        issue_withdraw_order(flow);
    }
    certbot_discard(&flow->certbot);
    flow->certbot_ran = false;
    flow->request.authority = flow->chosen;
    if (flow->request.takes_over_only && flow->account_forgotten)
        account_memory_forget(flow->request.store);
    return SEQ_NEXT;
}

static void abort_certbot(void *owner)
{
    struct issue_flow *flow = owner;

    certbot_cancel(&flow->certbot);
}

/* ---- account key ---- */

static int begin_account_key(void *owner, struct err *err)
{
    struct issue_flow *flow = owner;
    char path[KEYS_PATH_SIZE];

    (void)err;
    keys_account_path(path, flow->request.config->domain,
                      flow->request.config->acme.account_version);
    dstack_get_key(&flow->call, flow->request.agent, path, seq_resume, &flow->seq);
    return SEQ_WAIT;
}

static int finish_account_key(void *owner, struct err *err)
{
    struct issue_flow *flow = owner;
    int failed = keys_derive(flow->call.key, &flow->account_key, err);

    dstack_call_done(&flow->call);
    if (failed != 0)
        return err_wrap(err, "ACME account key");
    /* RFC 8555 §11.1: a CA refuses a certificate for the key of an account. */
    if (keys_same(flow->account_key, flow->request.tls_key))
        return err_set(err, ERR_CRYPTO, "account key and TLS key are the same");
    return SEQ_NEXT;
}

static void abort_account_key(void *owner)
{
    struct issue_flow *flow = owner;

    dstack_cancel(&flow->call);
}

/* ---- ACME account ---- */

static int name_owner(const struct issue_flow *flow,
                      char thumbprint[JOSE_THUMBPRINT_SIZE], struct account_owner *ret,
                      struct err *err)
{
    *ret = (struct account_owner){
        .directory = flow->request.authority->directory,
        .version = flow->request.config->acme.account_version,
        .thumbprint = thumbprint,
        .seal_key = flow->request.tls_key,
    };
    return jose_thumbprint(flow->account_key, thumbprint, err);
}

static void on_account_done(void *owner, const struct err *err)
{
    struct issue_flow *flow = owner;

    flow->account.deactivated = flow->account_call.deactivated;
    seq_resume(&flow->seq, err);
}

static int begin_account(void *owner, struct err *err)
{
    struct issue_flow *flow = owner;
    const struct authority *authority = flow->request.authority;
    char thumbprint[JOSE_THUMBPRINT_SIZE];
    struct account_owner account_owner;
    struct acme_account_request request = {
        .http = flow->request.http,
        .loop = flow->request.loop,
        .config = flow->request.config,
        .authority = authority,
        .key = flow->account_key,
    };

    if (name_owner(flow, thumbprint, &account_owner, err) < 0)
        return -1;
    if (flow->account_forgotten)
        flow->account = (struct account){.url = ""};
    else
        account_memory_load(flow->request.store, &account_owner, &flow->account);
    flow->account_remembered = flow->account.url[0] != '\0';
    /* Whether there is such a profile the directory says. */
    flow->account_asked = !flow->account_remembered || authority->profile != NULL;
    if (!flow->account_asked)
        return SEQ_READY;
    if (flow->account_remembered)
        request.known_url = flow->account.url;
    flow->asked_ca = true;
    acme_account_start(&flow->account_call, &request, on_account_done, flow);
    return SEQ_WAIT;
}

/* One that the CA does not have any more is not worth an outage. */
static void choose_profile(struct issue_flow *flow)
{
    const struct acme_directory *directory = &flow->account_call.directory;

    flow->profile = directory->lacks_profile ? NULL : flow->request.authority->profile;
    if (directory->lacks_profile)
        log_warning("%s offers no profile \"%s\"%s%s%s: its default is taken",
                    flow->request.authority->directory, flow->request.authority->profile,
                    directory->profiles[0] == '\0' ? "" : " (but ", directory->profiles,
                    directory->profiles[0] == '\0' ? "" : ")");
}

static int finish_account(void *owner, struct err *err)
{
    struct issue_flow *flow = owner;
    const struct acme_account *call = &flow->account_call;
    char thumbprint[JOSE_THUMBPRINT_SIZE];
    struct account_owner account_owner;

    if (flow->account_asked)
        choose_profile(flow);
    if (!flow->account_remembered) {
        snprintf(flow->account.url, sizeof flow->account.url, "%s", call->url);
        snprintf(flow->account.caa_identity, sizeof flow->account.caa_identity, "%s",
                 call->caa_identity);
    }
    log_info("ACME account %s%s", flow->account.url,
             flow->account_remembered ? ""
             : call->created          ? " (created now)"
                                      : " (found by its key)");
    if (flow->account_remembered)
        return SEQ_NEXT;
    return name_owner(flow, thumbprint, &account_owner, err) < 0
               ? -1
               : account_memory_save(flow->request.store, &account_owner, &flow->account,
                                     err);
}

static void abort_account(void *owner)
{
    struct issue_flow *flow = owner;

    acme_account_cancel(&flow->account_call);
}

/* ---- certbot ---- */

static bool account_is_in_doubt(const struct issue_flow *flow)
{
    return flow->certbot_ran && flow->account_remembered &&
           is_about_account(&flow->outcome);
}

static void on_certbot_done(void *owner, const struct err *err)
{
    struct issue_flow *flow = owner;

    flow->certbot_ran = flow->certbot.ran;
    flow->outcome = flow->certbot.outcome;
    seq_resume(&flow->seq, account_is_in_doubt(flow) ? NULL : err);
}

static int begin_certbot(void *owner, struct err *err)
{
    struct issue_flow *flow = owner;
    const struct config *config = flow->request.config;
    struct certbot_request request = {
        .loop = flow->request.loop,
        .config = config,
        .authority = flow->request.authority,
        .key_id = flow->key_id,
        .account_key = flow->account_key,
        .account_url = flow->account.url,
        .profile = flow->profile,
        .begun = flow->order_at,
    };

    buf_done(&flow->csr);
    buf_init(&flow->csr, CSR_MAX_BYTES);
    if (csr_build(flow->request.tls_key, &config->domains, &flow->csr, err) < 0)
        return -1;
    request.csr_pem = buf_str(&flow->csr);
    flow->asked_ca = true;
    log_info("asking %s for a certificate for %s%s%s", flow->request.authority->directory,
             config->domain, config->domains.count > 1 ? " and others" : "",
             flow->request.rehearsal ? ", as a rehearsal" : "");
    certbot_start(&flow->certbot, &request, on_certbot_done, flow);
    return SEQ_WAIT;
}

static int finish_certbot(void *owner, struct err *err)
{
    struct issue_flow *flow = owner;

    (void)err;
    if (!account_is_in_doubt(flow))
        return flow->request.rehearsal ? finish_rehearsal(flow) : SEQ_NEXT;
    log_warning(
        "the CA does not accept the remembered account %s (%s); asking for it anew",
        flow->account.url, flow->outcome.detail);
    issue_withdraw_order(flow);
    flow->account_forgotten = true;
    return seq_go_to(&flow->seq, "find account");
}

/* Calls of agent, CA and certbot have time limits of their own. */
const struct seq_step issue_steps[] = {
    {"check disk", begin_check_disk, NULL, NULL, 0},
    {"take over an earlier certbot", begin_take_over, finish_take_over, abort_certbot, 0},
    {"ask ledger", issue_begin_ask_ledger, issue_finish_ask_ledger, NULL, 0},
    {"get account key", begin_account_key, finish_account_key, abort_account_key, 0},
    {"find account", begin_account, finish_account, abort_account, 0},
    {"enter order", issue_begin_enter_order, NULL, NULL, 0},
    {"run certbot", begin_certbot, finish_certbot, abort_certbot, 0},
    {"check chain", begin_check_chain, NULL, NULL, 0},
    {"keep chain", begin_keep_chain, NULL, NULL, 0},
    {0},
};

/* ---- development ---- */

static int begin_self_sign(void *owner, struct err *err)
{
    struct issue_flow *flow = owner;
    BUF_SCOPED pem = {0};

    buf_init(&pem, CHAIN_PEM_MAX_BYTES);
    if (selfsigned_build(flow->request.tls_key, &flow->request.config->domains,
                         (int64_t)time(NULL), &pem, err) < 0 ||
        chain_parse(pem.data, pem.len, &flow->chain, err) < 0)
        return -1;
    log_info("self-signed certificate made for %s", flow->request.config->domain);
    return SEQ_READY;
}

const struct seq_step issue_development_steps[] = {
    {"check disk", begin_check_disk, NULL, NULL, 0},
    {"sign certificate", begin_self_sign, NULL, NULL, 0},
    {0},
};

/* Told to stop in the middle of an order, certbot may have been through with it. */
static void keep_what_came_late(struct issue_flow *flow)
{
    struct err err = ERR_INIT;
    bool usable = !flow->request.rehearsal && read_chain(flow, &err) == 0;

    if (!usable)
        certbot_discard(&flow->certbot);
    if (!flow->request.rehearsal && (!usable || keep_chain(flow, &err) < 0))
        log_warning("%s", err.message);
}

static void on_steps_done(void *owner, const struct err *err)
{
    struct issue_flow *flow = owner;

    if (err != NULL && err->kind == ERR_CANCELED && flow->certbot.chain_pem.len > 0)
        keep_what_came_late(flow);
    flow->done(flow->owner, err);
}

void issue_flow_start(struct issue_flow *flow, const struct issue_request *request,
                      done_fn done, void *owner)
{
    *flow = (struct issue_flow){.request = *request, .done = done, .owner = owner};
    seq_start(&flow->seq, request->loop, "issue",
              request->config->development ? issue_development_steps : issue_steps, flow,
              on_steps_done, flow);
}

void issue_flow_cancel(struct issue_flow *flow)
{
    seq_cancel(&flow->seq);
}

void issue_flow_done(struct issue_flow *flow)
{
    dstack_call_done(&flow->call);
    certbot_done(&flow->certbot);
    buf_done(&flow->csr);
    chain_free(flow->chain);
    EVP_PKEY_free(flow->account_key);
    flow->chain = NULL;
    flow->account_key = NULL;
}

/* ---- at the start ---- */

/* The leaf of a chain that is there, else "". */
static void leaf_of(int (*load)(const struct store *, struct buf *, struct err *),
                    const struct store *store, char ret[65])
{
    struct err unusable = ERR_INIT;
    struct chain *chain = NULL;
    BUF_SCOPED pem = {0};

    ret[0] = '\0';
    if (load(store, &pem, &unusable) < 0 || pem.len == 0 ||
        chain_parse(pem.data, pem.len, &chain, &unusable) < 0)
        return;
    snprintf(ret, 65, "%s", chain_leaf(chain)->sha256);
    chain_free(chain);
}

bool issue_flow_clean_up(const struct config *config, const struct store *store)
{
    char live[65];
    char staged[65];
    const char *const leaves[] = {live, staged};

    leaf_of(store_load_chain, store, live);
    leaf_of(store_load_staged_chain, store, staged);
    return certbot_clean_up(config, leaves, 2);
}
