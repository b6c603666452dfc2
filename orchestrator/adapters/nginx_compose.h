/*
 * nginx_compose: the best configuration that nginx takes: all of it, else the full one of before,
 * else without the application.
 *
 *     render all → test → (nginx refuses) → render the former → test → render reduced → test
 *
 * A fragment of the deployment, a template of its own or the name of a backend may be what nginx
 * refuses. That must not cost the service its TLS, health and attestation; and a template that was
 * spoilt after the start not even the application, whose addresses then stay as they are. Ownership and order of calls: done.h.
 */
#ifndef CM_ADAPTERS_NGINX_COMPOSE_H
#define CM_ADAPTERS_NGINX_COMPOSE_H

#include "adapters/nginx.h"
#include "base/buf.h"
#include "domain/nginx_conf.h"
#include "runtime/seq.h"

/* Borrowed until done. */
struct nginx_compose_request {
    uv_loop_t *loop;
    const struct config *config;
    const struct nginx_facts *facts;
    const char *live_chain; /* in place of that of the facts */
    const char *chain;      /* paths of the pair that the configuration is tested with */
    const char *key;
    const struct buf *former; /* full default.conf that nginx has taken before, or NULL */
};

struct nginx_compose {
    /* Results, valid in done until nginx_compose_done. */
    enum nginx_level level;
    struct buf site;
    struct buf include;
    struct err refusal; /* why it is not everything; ERR_NONE when it is */
    struct buf refused; /* the default.conf that was refused */
    bool unresolved;    /* the reason is a name that does not resolve: try again soon */
    bool kept;          /* `site` is the former one */

    /* Private. */
    struct nginx_compose_request request;
    struct nginx_test test;
    struct seq seq;
};

/* ERR_CONFIG with nginx's own line when it refuses the reduced configuration, too. */
void nginx_compose_start(struct nginx_compose *compose,
                         const struct nginx_compose_request *request, done_fn done,
                         void *owner);
void nginx_compose_cancel(struct nginx_compose *compose);
void nginx_compose_done(struct nginx_compose *compose);

#endif
