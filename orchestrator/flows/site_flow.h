/*
 * site flow: nginx gets the configuration that it should have now, with the certificate as it is.
 *
 *     wait for nginx → compose configuration → install → reload nginx
 *
 * For changes that have nothing to do with the certificate: an address of a backend, a fragment
 * that can be used now. Ends after "compose configuration" when nothing would change. The apply
 * flow does the same for a new certificate; the two never run at the same time.
 */
#ifndef CM_FLOWS_SITE_FLOW_H
#define CM_FLOWS_SITE_FLOW_H

#include "adapters/nginx.h"
#include "adapters/nginx_compose.h"
#include "adapters/store.h"
#include "runtime/seq.h"

/* Borrowed until done. */
struct site_request {
    uv_loop_t *loop;
    const struct config *config;
    const struct nginx_facts *facts;
    const struct store *store;
    const struct buf *former; /* as of nginx_compose */
    bool
        reload; /* also when the files are the right ones: nginx has not taken them yet */
};

struct site_flow {
    /* Results, valid in done until site_flow_done. */
    struct nginx_compose compose;
    bool changed; /* another configuration was installed */

    /* Private. */
    struct site_request request;
    struct nginx_wait wait;
    struct nginx_reload reload;
    struct seq seq;
};

void site_flow_start(struct site_flow *flow, const struct site_request *request,
                     done_fn done, void *owner);
void site_flow_cancel(struct site_flow *flow);
void site_flow_done(struct site_flow *flow);

#endif
