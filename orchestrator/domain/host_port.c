#include "domain/host_port.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

enum { PORT_MAX = 65535 };

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

int host_port_set_host(struct host_port *ret, const char *host, size_t len)
{
    bool bracketed = len >= 2 && host[0] == '[' && host[len - 1] == ']';
    bool ipv6;

    if (bracketed) {
        host++;
        len -= 2;
    }
    if (len >= sizeof ret->host)
        return -1;
    memcpy(ret->host, host, len);
    ret->host[len] = '\0';
    ipv6 = is_address(AF_INET6, ret->host);
    if (!ipv6 && (bracketed || !is_name(ret->host)))
        return -1;
    ret->literal = ipv6 || is_address(AF_INET, ret->host);
    return 0;
}

int host_port_parse(struct host_port *ret, const char *text)
{
    const char *colon = strrchr(text, ':');
    size_t len = colon == NULL ? 0 : (size_t)(colon - text);
    unsigned long port;

    if (colon == NULL || colon[1] == '\0' ||
        strspn(colon + 1, DIGITS) != strlen(colon + 1))
        return -1;
    port = strtoul(colon + 1, NULL, 10);
    ret->port = (unsigned)port;
    /* Without brackets nobody knows where an IPv6 address ends. */
    if (port < 1 || port > PORT_MAX || (text[0] != '[' && memchr(text, ':', len) != NULL))
        return -1;
    return host_port_set_host(ret, text, len);
}
