/*
 * machine: what nginx's configuration depends on besides the settings, found out once, without the
 * daemon: by `cert-manager render` and `cert-manager check`. Nothing that runs is touched or needed.
 */
#ifndef CM_APP_MACHINE_H
#define CM_APP_MACHINE_H

#include "adapters/nginx.h"
#include "adapters/upstream_watch.h"
#include "domain/config.h"

#include <stdbool.h>
#include <uv.h>

enum machine_scope {
    MACHINE_HTTP_ONLY, /* what matters without HTTPS: no backend, no certificate */
    MACHINE_OFFLINE,   /* everything but names of backends, which nobody is asked for */
    MACHINE_ALL,
};

struct machine {
    /* Results, until machine_close. */
    struct nginx_facts facts;
    struct err version_err; /* why nginx's version is not known; ERR_NONE: it is */
    struct err chain_err;   /* why facts.live_chain is NULL, where settings ask for one */

    /* Private. */
    uv_loop_t loop;
    char live_chain[FS_PATH_MAX];
    char evidence[FS_PATH_MAX];
    struct upstream_watch upstreams;
    struct nginx_probe probe;
    unsigned open;
    bool round_over; /* no look-up is in the resolver any more */
};

/*
 * Blocks until everything is known that can be known soon. `config` is borrowed. After a failure,
 * ERR_CONFIG where a setting is the reason, there is nothing to close.
 */
int machine_ask(struct machine *machine, const struct config *config,
                enum machine_scope scope, struct err *err);

/*
 * False when a look-up hangs in the resolver. getaddrinfo(3) cannot be interrupted, and exit(3) waits
 * for libuv's threads: the caller has to end by _exit(2), once all it has to say is written.
 */
bool machine_close(struct machine *machine);

#endif
