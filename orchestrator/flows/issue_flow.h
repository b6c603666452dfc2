/*
 * issue flow: a new chain for our key, from the ACME CA through certbot, or self-signed
 * in development.
 *
 *     check disk → take over an earlier certbot → ask ledger → get account key → find account
 *     → enter order → run certbot → check chain → keep chain
 *
 * "check disk" comes first: without it an order is a lost certificate, and CAs limit them. What
 * else can be known before comes before (flows/preflight_flow.h), but what an earlier certbot has
 * obtained needs none of that: it can be taken over alone. "find account" is skipped while the
 * account URL of an earlier run is remembered; when the CA does not accept that account, the URL is
 * forgotten and found anew, once.
 *
 * Wherever we are killed, there is at most one order: a certbot of an earlier life is waited
 * for, and what it obtained goes to "keep chain" at once. "keep chain" stages it in the TLS
 * folder, where the start rules find it; until then it stays in certbot's folder, which the
 * next flow takes over.
 *
 * "ask ledger" is behind the take-over, because an order that is accounted for only now counts, too:
 * when it leaves no room for another one the flow is at its end, which is no failure. "enter order"
 * is what the limits are kept by: the order is on disk before certbot is started. How it ended is
 * the caller's to enter.
 *
 * A rehearsal is the same at another CA, whose chain is thrown away.
 */
#ifndef CM_FLOWS_ISSUE_FLOW_H
#define CM_FLOWS_ISSUE_FLOW_H

#include "adapters/acme_account.h"
#include "adapters/certbot.h"
#include "adapters/dstack.h"
#include "adapters/ledger_file.h"
#include "adapters/store.h"
#include "domain/account.h"
#include "domain/chain.h"
#include "domain/keys.h"
#include "domain/ledger_policy.h"
#include "domain/pace.h"
#include "runtime/seq.h"

/* Borrowed until done. */
struct issue_request {
    uv_loop_t *loop;
    struct http *http;
    const struct config *config;
    /* That the order goes to; in the end that of an order of another life, taken over. */
    const struct authority *authority;
    const struct dstack *agent;
    const struct store *store;
    EVP_PKEY *tls_key;
    bool takes_over_only; /* end, without a chain, where the CA would have to be asked */
    bool rehearsal;       /* its chain is thrown away */
    /* Not in development. */
    struct ledger_file *ledger;
    const struct ledger_question *question;
    struct pace_limits pace;
};

struct issue_flow {
    /* Results, valid in done until issue_flow_done. */
    /*
     * On success; taken over (set to NULL) by the caller. request.authority is then the one that
     * issued it: an earlier certbot may have asked another than we would have. NULL: nothing was
     * there to be taken over.
     */
    struct chain *chain;
    struct certbot_outcome outcome; /* when certbot_ran */
    bool certbot_ran;
    bool asked_ca;          /* the CA was talked to: it counts what it is asked */
    bool held;              /* the ledger left no room for an order */
    int64_t order_at;       /* of its order, as the ledger names it; 0: there is none */
    struct account account; /* at the CA, zeroed when it has not come to that */

    /* Private. */
    struct issue_request request;
    const struct authority *chosen; /* while a run for another one is taken over */
    struct dstack_call call;
    char key_id[KEYS_ID_SIZE];
    EVP_PKEY *account_key;
    bool account_remembered; /* the URL is from an earlier run */
    bool account_asked;      /* about that, the CA was */
    bool account_forgotten;
    struct acme_account account_call;
    const char *profile; /* that the order names, or NULL */
    struct buf csr;
    struct certbot certbot;
    struct seq seq;
    done_fn done;
    void *owner;
};

/* The steps, also those of development; end with one without a name. */
extern const struct seq_step issue_steps[];
extern const struct seq_step issue_development_steps[];

/* What the ledger knows its order by. */
struct ledger_subject issue_flow_subject(const struct issue_flow *flow);

void issue_flow_start(struct issue_flow *flow, const struct issue_request *request,
                      done_fn done, void *owner);
void issue_flow_cancel(struct issue_flow *flow);
void issue_flow_done(struct issue_flow *flow);

/*
 * At the start: remove what an earlier life left and the next flow would have no use for. Whether it has
 * left something that is of use.
 */
bool issue_flow_clean_up(const struct config *config, const struct store *store);

#endif
