/*
 * pre-flight flow: what can be known of an order's success before the CA is asked. The judgements
 * are in domain/preflight.h.
 *
 *     check machine → resolve domain → wait for nginx → write file → fetch file
 *     → ask around → remove file → judge
 *
 * Every check is made whatever the others find, so that a person sees all that there is to be done;
 * only a domain that was looked up in vain before, and still does not resolve, goes to "judge" at
 * once. "ask around" does at the same time what waits for others: the file by the domain's own
 * addresses, `certbot --version`, and CAA. The flow fails when an order is certain to. It looks the
 * domain up once; when it is run again is the plan's matter.
 */
#ifndef CM_FLOWS_PREFLIGHT_FLOW_H
#define CM_FLOWS_PREFLIGHT_FLOW_H

#include "adapters/acme_directory.h"
#include "adapters/caa_lookup.h"
#include "adapters/certbot_version.h"
#include "adapters/challenge.h"
#include "adapters/nginx.h"
#include "adapters/store.h"
#include "domain/account.h"
#include "domain/authority.h"
#include "domain/config.h"
#include "domain/preflight.h"
#include "runtime/lookup.h"
#include "runtime/seq.h"

enum { PREFLIGHT_ADDRESSES_MAX = 4 };

/* Borrowed until done. */
struct preflight_request {
    uv_loop_t *loop;
    struct http *http;
    const struct config *config;
    const struct authority *authority; /* that is about to be asked */
    const struct store *store;
    const struct account *account;   /* ours there, as far as it is known */
    const struct preflight *before;  /* what is not looked at again stays as it was */
    unsigned resolve_tries;          /* look-ups in vain before this one */
    struct certbot_version *certbot; /* asked when what is remembered does not hold */
};

/* One of the domain's addresses, asked for the file. */
struct preflight_fetch {
    struct preflight_flow *flow;
    const char *address;
    struct challenge_fetch fetch;
};

struct preflight_flow {
    /* Result, valid in done, also after a failure. */
    struct preflight found;

    /* Private. */
    struct preflight_request request;
    struct lookup lookup;
    struct nginx_wait nginx;
    bool nginx_runs;
    struct challenge_probe probe;
    struct challenge_fetch local;
    size_t pending; /* of what "ask around" has begun */
    struct preflight_fetch remote[PREFLIGHT_ADDRESSES_MAX];
    size_t remotes;
    bool asks_certbot;
    bool asks_caa;
    struct caa_lookup caa;
    struct err caa_err; /* ERR_NONE: it has ended well */
    bool asks_directory;
    struct acme_directory directory;
    const char *issuer; /* the CA's name in CAA records, "" for unknown */
    struct seq seq;
    done_fn done;
    void *owner;
};

extern const struct seq_step preflight_steps[]; /* end with one without a name */

/* ERR_SYS as from preflight_result(). */
void preflight_flow_start(struct preflight_flow *flow,
                          const struct preflight_request *request, done_fn done,
                          void *owner);
void preflight_flow_cancel(struct preflight_flow *flow);

#endif
