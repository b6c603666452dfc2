#include "domain/upstreams.h"

#include "base/text.h"

#include <arpa/inet.h>
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

#define LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGITS "0123456789"

static bool is_address(int family, const char *text)
{
    unsigned char address[sizeof(struct in6_addr)];

    return inet_pton(family, text, address) == 1;
}

/* A name as container networks have them, underscores included, or an IPv4 address. */
static bool is_name(const char *host)
{
    return *host != '\0' && *host != '-' && *host != '.' &&
           host[strspn(host, LETTERS DIGITS "._-")] == '\0';
}

/* The host of `len` bytes: a name, or an address, of IPv6 with or without brackets. */
static int set_host(struct upstream *upstream, const char *host, size_t len)
{
    bool bracketed = len >= 2 && host[0] == '[' && host[len - 1] == ']';
    bool ipv6;

    if (bracketed) {
        host++;
        len -= 2;
    }
    if (len >= sizeof upstream->host)
        return -1;
    memcpy(upstream->host, host, len);
    upstream->host[len] = '\0';
    ipv6 = is_address(AF_INET6, upstream->host);
    if (!ipv6 && (bracketed || !is_name(upstream->host)))
        return -1;
    upstream->literal = ipv6 || is_address(AF_INET, upstream->host);
    if (upstream->literal) {
        snprintf(upstream->addresses[0], sizeof upstream->addresses[0], "%.*s",
                 INET6_ADDRSTRLEN - 1, upstream->host);
        upstream->count = 1;
    }
    return 0;
}

static bool is_same(const struct upstream *upstream, const struct upstream *other)
{
    return upstream->port == other->port && strcmp(upstream->host, other->host) == 0;
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

/* "host:port", "10.0.0.2:80" or "[fd00::2]:80" into host and port. */
static int parse(struct upstream *upstream, const char *host_port)
{
    const char *colon = strrchr(host_port, ':');
    size_t len = colon == NULL ? 0 : (size_t)(colon - host_port);
    unsigned long port;

    if (colon == NULL || colon[1] == '\0' ||
        strspn(colon + 1, DIGITS) != strlen(colon + 1))
        return -1;
    port = strtoul(colon + 1, NULL, 10);
    upstream->port = (unsigned)port;
    /* Without brackets nobody knows where an IPv6 address ends. */
    if (port < 1 || port > PORT_MAX ||
        (host_port[0] != '[' && memchr(host_port, ':', len) != NULL))
        return -1;
    return set_host(upstream, host_port, len);
}

static int add_host_port(struct upstreams *upstreams, const char *name, const char *key,
                         const char *host_port, struct err *err)
{
    struct upstream upstream = {.port = 0};

    snprintf(upstream.name, sizeof upstream.name, "%s", name);
    if (parse(&upstream, host_port) < 0)
        return err_set(err, ERR_CONFIG,
                       "%s: \"%.100s\" is not a host with a port, expected for example "
                       "service:8080, 10.0.0.2:8080 or [fd00::2]:8080",
                       key, host_port);
    return add(upstreams, &upstream, err);
}

static int add_app(struct upstreams *upstreams, const struct config *config,
                   struct err *err)
{
    const char *host = config->upstream.host;
    struct upstream upstream = {.name = UPSTREAM_APP, .port = config->upstream.port};

    if (host == NULL)
        return 0;
    if (set_host(&upstream, host, strlen(host)) < 0)
        return err_set(err, ERR_CONFIG,
                       "upstream.host (UPSTREAM_HOST): \"%.100s\" is not a host name or "
                       "address",
                       host);
    if (upstream.port < 1 || upstream.port > PORT_MAX)
        return err_set(
            err, ERR_CONFIG,
            "upstream.port (UPSTREAM_PORT): %u is not a port, expected 1 to %d",
            upstream.port, PORT_MAX);
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
    struct upstream wanted = {.port = 0};

    if (parse(&wanted, host_port) < 0)
        return NULL;
    for (size_t i = 0; i < upstreams->count; i++) {
        const struct upstream *upstream = &upstreams->items[i];

        if (text_starts_with(upstream->name, "cm_route_") && is_same(upstream, &wanted))
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
