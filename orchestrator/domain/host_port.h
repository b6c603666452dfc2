/*
 * host_port: "host:port" of a setting, taken apart. Pure.
 */
#ifndef CM_DOMAIN_HOST_PORT_H
#define CM_DOMAIN_HOST_PORT_H

#include <stdbool.h>
#include <stddef.h>

enum { HOST_PORT_HOST_SIZE = 256 };

struct host_port {
    char host[HOST_PORT_HOST_SIZE]; /* an IPv6 address without brackets */
    unsigned port;
    bool literal; /* the host is an address, and never looked up */
};

/*
 * "host:port", "10.0.0.2:80" or "[fd00::2]:80"; names as container networks have them, underscores
 * included. -1 when it is none of them.
 */
int host_port_parse(struct host_port *ret, const char *text);

/* Only the host, of `len` bytes; the brackets of an IPv6 address may be missing. */
int host_port_set_host(struct host_port *ret, const char *host, size_t len);

#endif
