#include "domain/upstreams.h"

#include "base/text.h"
#include "domain/host_port.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    FOUND_MAX = 64,
    PORT_MAX = 65535,
    KEEPALIVE_CONNECTIONS = 32,
    /*
     * Below the 5 s after which uvicorn closes an idle connection: a POST that meets the closing is
     * not sent again, and answers 502.
     */
    KEEPALIVE_TIMEOUT_S = 4,
};

static bool is_at(const struct upstream *upstream, const struct host_port *place)
{
    return upstream->port == place->port && strcmp(upstream->host, place->host) == 0;
}

static int add(struct upstreams *upstreams, const struct upstream *upstream,
               struct err *err)
{
    struct upstream *longer =
        realloc(upstreams->items, (upstreams->count + 1) * sizeof *longer);

    if (longer == NULL)
        return err_sys(err, ENOMEM, "cannot keep an upstream");
    upstreams->items = longer;
    longer[upstreams->count++] = *upstream;
    return 0;
}

static void set_place(struct upstream *upstream, const struct host_port *place)
{
    memcpy(upstream->host, place->host, sizeof upstream->host);
    upstream->port = place->port;
    upstream->literal = place->literal;
    if (place->literal) {
        snprintf(upstream->addresses[0], sizeof upstream->addresses[0], "%.*s",
                 INET6_ADDRSTRLEN - 1, place->host);
        upstream->count = 1;
    }
}

static int add_host_port(struct upstreams *upstreams, const char *name, const char *key,
                         const char *host_port, struct err *err)
{
    struct upstream upstream = {.port = 0};
    struct host_port place;

    snprintf(upstream.name, sizeof upstream.name, "%s", name);
    if (host_port_parse(&place, host_port) < 0)
        return err_set(err, ERR_CONFIG,
                       "%s: \"%.100s\" is not a host with a port, expected for example "
                       "service:8080, 10.0.0.2:8080 or [fd00::2]:8080",
                       key, host_port);
    set_place(&upstream, &place);
    return add(upstreams, &upstream, err);
}

static int add_app(struct upstreams *upstreams, const struct config *config,
                   struct err *err)
{
    const char *host = config->upstream.host;
    struct upstream upstream = {.name = UPSTREAM_APP};
    struct host_port place = {.port = config->upstream.port};

    if (host == NULL)
        return 0;
    if (host_port_set_host(&place, host, strlen(host)) < 0)
        return err_set(err, ERR_CONFIG,
                       "upstream.host (UPSTREAM_HOST): \"%.100s\" is not a host name or "
                       "address",
                       host);
    if (place.port < 1 || place.port > PORT_MAX)
        return err_set(
            err, ERR_CONFIG,
            "upstream.port (UPSTREAM_PORT): %u is not a port, expected 1 to %d",
            place.port, PORT_MAX);
    set_place(&upstream, &place);
    return add(upstreams, &upstream, err);
}

/* Routes to the same host and port share a group, and so its connections. */
static int add_route(struct upstreams *upstreams, const char *host_port, struct err *err)
{
    char name[UPSTREAM_NAME_SIZE];

    if (upstreams_group_of(upstreams, host_port) != NULL)
        return 0;
    snprintf(name, sizeof name, "cm_route_%zu", upstreams->count + 1);
    return add_host_port(upstreams, name, "routes", host_port, err);
}

static int add_all(struct upstreams *upstreams, const struct config *config,
                   struct err *err)
{
    if (add_app(upstreams, config, err) < 0 ||
        add_host_port(upstreams, UPSTREAM_ATTESTATION, "attestation.upstream",
                      config->attestation.upstream, err) < 0)
        return -1;
    if (config->auth.enabled && add_host_port(upstreams, UPSTREAM_AUTH, "auth.upstream",
                                              config->auth.upstream, err) < 0)
        return -1;
    for (size_t i = 0; i < config->routes.count; i++) {
        if (add_route(upstreams, config->routes.items[i].upstream, err) < 0)
            return -1;
    }
    return 0;
}

int upstreams_init(struct upstreams *upstreams, const struct config *config,
                   struct err *err)
{
    *upstreams = (struct upstreams){.count = 0};
    if (add_all(upstreams, config, err) == 0)
        return 0;
    upstreams_done(upstreams);
    return -1;
}

void upstreams_done(struct upstreams *upstreams)
{
    free(upstreams->items);
    *upstreams = (struct upstreams){.count = 0};
}

/* ---- addresses ---- */

static int compare(const void *a, const void *b)
{
    return strcmp(a, b);
}

bool upstream_update(struct upstream *upstream, const upstream_address *found,
                     size_t count)
{
    upstream_address sorted[FOUND_MAX];
    upstream_address fresh[UPSTREAM_ADDRESSES_MAX] = {""};
    size_t kept = 0;

    if (count == 0 || upstream->literal)
        return false;
    /* Resolvers turn the order around; only another set is a change. */
    if (count > FOUND_MAX)
        count = FOUND_MAX;
    memcpy(sorted, found, count * sizeof *sorted);
    qsort(sorted, count, sizeof *sorted, compare);
    for (size_t i = 0; i < count && kept < UPSTREAM_ADDRESSES_MAX; i++) {
        if (kept == 0 || strcmp(sorted[i], fresh[kept - 1]) != 0)
            memcpy(fresh[kept++], sorted[i], sizeof sorted[i]);
    }
    if (kept == upstream->count) {
        bool same = true;

        for (size_t i = 0; i < kept; i++)
            same = same && strcmp(fresh[i], upstream->addresses[i]) == 0;
        if (same)
            return false;
    }
    memcpy(upstream->addresses, fresh, sizeof fresh);
    upstream->count = kept;
    return true;
}

void upstreams_recall(struct upstreams *upstreams, const struct upstreams *known)
{
    for (size_t i = 0; i < upstreams->count; i++) {
        for (size_t k = 0; k < known->count; k++) {
            const struct upstream *one = &known->items[k];

            if (strcmp(one->host, upstreams->items[i].host) == 0)
                (void)upstream_update(&upstreams->items[i], one->addresses, one->count);
        }
    }
}

bool upstreams_any_missing(const struct upstreams *upstreams)
{
    for (size_t i = 0; i < upstreams->count; i++) {
        if (upstreams->items[i].count == 0)
            return true;
    }
    return false;
}

const char *upstreams_group_of(const struct upstreams *upstreams, const char *host_port)
{
    struct host_port wanted;

    if (host_port_parse(&wanted, host_port) < 0)
        return NULL;
    for (size_t i = 0; i < upstreams->count; i++) {
        const struct upstream *upstream = &upstreams->items[i];

        if (text_starts_with(upstream->name, "cm_route_") && is_at(upstream, &wanted))
            return upstream->name;
    }
    return NULL;
}

/* ---- text ---- */

int upstream_render(const struct upstream *upstream, struct buf *ret, struct err *err)
{
    if (buf_printf(ret, err, "upstream %s { # %s, port %u\n", upstream->name,
                   upstream->host, upstream->port) < 0)
        return -1;
    for (size_t i = 0; i < upstream->count; i++) {
        bool ipv6 = strchr(upstream->addresses[i], ':') != NULL;

        if (buf_printf(ret, err, "    server %s%s%s:%u;\n", ipv6 ? "[" : "",
                       upstream->addresses[i], ipv6 ? "]" : "", upstream->port) < 0)
            return -1;
    }
    /* A group must name a server; this one is never asked, and the answer is 502. */
    if (upstream->count == 0 &&
        buf_printf(ret, err,
                   "    server 127.0.0.1:%u down; # the name does not resolve\n",
                   upstream->port) < 0)
        return -1;
    return buf_printf(ret, err,
                      "    keepalive %d;\n"
                      "    keepalive_timeout %ds;\n"
                      "}",
                      KEEPALIVE_CONNECTIONS, KEEPALIVE_TIMEOUT_S);
}
