/*
 * upstreams: the backends that the settings name as host and port, and the addresses that these
 * names have now. Pure: whoever looks names up hands in what was found.
 *
 * nginx looks a name up once, when it loads its configuration, and does not load it when one does
 * not resolve. So it is never given a name: each backend becomes a group of literal addresses, which
 * also keeps connections alive, and a group without any answers 502.
 */
#ifndef CM_DOMAIN_UPSTREAMS_H
#define CM_DOMAIN_UPSTREAMS_H

#include "base/buf.h"
#include "base/err.h"
#include "domain/config.h"
#include "domain/host_port.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>

enum {
    UPSTREAM_ADDRESSES_MAX = 16,
    UPSTREAM_NAME_SIZE = 32,
    UPSTREAM_HOST_SIZE = HOST_PORT_HOST_SIZE
};

/* Names of groups: the contract's, and those that templates use. */
#define UPSTREAM_APP "app_backend"
#define UPSTREAM_AUTH "cm_auth"
#define UPSTREAM_ATTESTATION "cm_attestation"
#define UPSTREAM_METRICS "cm_metrics"

typedef char upstream_address[INET6_ADDRSTRLEN];

struct upstream {
    char name[UPSTREAM_NAME_SIZE]; /* of the group in nginx's configuration */
    char host[UPSTREAM_HOST_SIZE]; /* an IPv6 address without brackets */
    unsigned port;
    bool literal; /* the host is an address, and never looked up */
    upstream_address addresses[UPSTREAM_ADDRESSES_MAX]; /* in order, each once */
    size_t count;
};

struct upstreams {
    struct upstream *items;
    size_t count;
};

/*
 * Every backend that the settings name, each host and port of routes once; only those that are
 * addresses have any yet. ERR_CONFIG for what is no host and port; nothing is kept then.
 */
int upstreams_init(struct upstreams *upstreams, const struct config *config,
                   struct err *err);
void upstreams_done(struct upstreams *upstreams);

/*
 * What a look-up of the host found, in any order. None at all leaves the upstream as it is: what
 * answered a moment ago is a better guess than nothing. Whether the addresses changed.
 */
bool upstream_update(struct upstream *upstream, const upstream_address *found,
                     size_t count);

/* What another set knows of the same hosts. */
void upstreams_recall(struct upstreams *upstreams, const struct upstreams *known);

/* Whether an upstream has no address, so that its paths answer 502. */
bool upstreams_any_missing(const struct upstreams *upstreams);

/* Group that a route's `upstream` belongs to. Borrowed. */
const char *upstreams_group_of(const struct upstreams *upstreams, const char *host_port);

/* The `upstream` block of one group, without a newline at its end. */
int upstream_render(const struct upstream *upstream, struct buf *ret, struct err *err);

#endif
