#include "flows/adopt_flow.h"

#include "adapters/trust.h"
#include "base/log.h"
#include "base/text.h"

#include <openssl/x509.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

bool adopt_is_on(const struct config *config)
{
    /* No system trusts the roots of staging. FORCE_RM_CERT_FILES asks for a new certificate. */
    bool has_roots = config->acme.trust != NULL ||
                     !authority_is_staging(&config->acme.authorities.items[0]);

    return config->acme.adopt && !config->development && !config->tls.external_key &&
           !config->tls.force_rm && has_roots;
}

static int begin_read_roots(void *owner, struct err *err)
{
    struct adopt_flow *flow = owner;

    if (trust_load(flow->request.config->acme.trust, &flow->roots, err) < 0)
        return err_wrap(err, "what others serve cannot be verified");
    return SEQ_READY;
}

/* ---- who serves what ---- */

static struct adopt_rules rules_of(const struct adopt_flow *flow)
{
    const struct config *config = flow->request.config;

    return (struct adopt_rules){
        .stored = {.domains = &config->domains,
                   .production = !config->acme.staging,
                   .derived = flow->request.tls_key},
        .terms = {.before_s = config->acme.renew_before_ms / 1000},
        .roots = flow->roots,
        .served = flow->request.served,
    };
}

static void log_adopted(const char *where, const struct chain_leaf *leaf)
{
    char date[TEXT_TIME_SIZE];

    log_info(
        "%s serves a certificate of our key, which is adopted instead of an order: "
        "issuer \"%s\", serial %s, valid until %s",
        where, leaf->issuer_name, leaf->serial, text_time(date, leaf->not_after));
}

static bool judge(void *owner, const char *where, const struct buf *chain_pem)
{
    struct adopt_flow *flow = owner;
    const struct adopt_rules rules = rules_of(flow);
    char reason[ADOPT_REASON_SIZE];
    struct err err = ERR_INIT;
    struct chain *chain = NULL;
    enum adopt_verdict verdict;

    if (chain_parse(chain_pem->data, chain_pem->len, &chain, &err) < 0) {
        log_debug("%s: %s", where, err.message);
        return false;
    }
    verdict = adopt_judge(chain, &rules, (int64_t)time(NULL), reason);
    if (verdict == ADOPT_TAKE) {
        log_adopted(where, chain_leaf(chain));
        flow->chain = chain;
        return true;
    }
    if (verdict == ADOPT_REFUSE) {
        snprintf(flow->refusal, sizeof flow->refusal, "%s: %s", where, reason);
        log_debug("not adopted: %s", flow->refusal);
    }
    chain_free(chain);
    return false;
}

/* As clients do, by way of whatever stands in front; that speaks the PROXY protocol for them. */
static void name_domain(const struct config *config, struct chain_search_place *ret)
{
    *ret = (struct chain_search_place){.at.port = config->nginx.https_port};
    snprintf(ret->at.host, sizeof ret->at.host, "%s", config->domain);
}

/* Without a balancer, so that a peer with settings like ours expects the header from us. */
static bool name_peer(const struct config *config, const char *peer,
                      struct chain_search_place *ret)
{
    *ret = (struct chain_search_place){.proxy_protocol = config->nginx.proxy_protocol};
    return host_port_parse(&ret->at, peer) == 0;
}

static void on_search_done(void *owner, const struct err *err)
{
    struct adopt_flow *flow = owner;

    seq_resume(&flow->seq, err);
}

static int begin_look_around(void *owner, struct err *err)
{
    enum { PLACES_MAX = 1 + 64 };
    struct adopt_flow *flow = owner;
    const struct config *config = flow->request.config;
    struct chain_search_place places[PLACES_MAX];
    struct chain_search_request request = {
        .loop = flow->request.loop,
        .places = places,
        .place_count = 1,
        .server_name = config->domain,
        .timeout_ms = ADOPT_LIMIT_MS,
        .is_it = judge,
    };

    (void)err;
    name_domain(config, &places[0]);
    for (size_t i = 0; i < config->acme.peers.count && request.place_count < PLACES_MAX;
         i++) {
        if (name_peer(config, config->acme.peers.items[i], &places[request.place_count]))
            request.place_count++;
    }
    chain_search_start(&flow->search, &request, on_search_done, flow);
    return SEQ_WAIT;
}

static int finish_look_around(void *owner, struct err *err)
{
    struct adopt_flow *flow = owner;

    (void)err;
    return flow->chain == NULL ? SEQ_END : SEQ_NEXT;
}

static void abort_look_around(void *owner)
{
    struct adopt_flow *flow = owner;

    chain_search_cancel(&flow->search);
}

static int begin_keep_chain(void *owner, struct err *err)
{
    struct adopt_flow *flow = owner;
    BUF_SCOPED pem = {0};

    buf_init(&pem, CHAIN_PEM_MAX_BYTES);
    return chain_to_pem(flow->chain, &pem, err) < 0
               ? -1
               : store_stage(flow->request.store, &pem, NULL, err);
}

/* The search has a time limit of its own. */
const struct seq_step adopt_steps[] = {
    {"read roots", begin_read_roots, NULL, NULL, 0},
    {"look around", begin_look_around, finish_look_around, abort_look_around, 0},
    {"keep chain", begin_keep_chain, NULL, NULL, 0},
    {0},
};

void adopt_flow_start(struct adopt_flow *flow, const struct adopt_request *request,
                      done_fn done, void *owner)
{
    *flow = (struct adopt_flow){.request = *request};
    seq_start(&flow->seq, request->loop, "adopt", adopt_steps, flow, done, owner);
}

void adopt_flow_cancel(struct adopt_flow *flow)
{
    seq_cancel(&flow->seq);
}

void adopt_flow_done(struct adopt_flow *flow)
{
    X509_STORE_free(flow->roots);
    chain_free(flow->chain);
    flow->roots = NULL;
    flow->chain = NULL;
}
