/* What resolv.conf and `nginx -v` say: the facts of nginx_conf.h. */
#include "domain/nginx_conf.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAMESERVERS_MAX = 3 }; /* as many as the C library asks */

#define DIGITS "0123456789"

/* `line` up to its newline: the address of a nameserver line into `ret`, or false. */
static bool nameserver_of(const char *line, char ret[INET6_ADDRSTRLEN])
{
    static const char keyword[] = "nameserver";
    unsigned char address[sizeof(struct in6_addr)];
    size_t len;

    line += strspn(line, " \t");
    if (strncmp(line, keyword, sizeof keyword - 1) != 0)
        return false;
    line += sizeof keyword - 1;
    if (strspn(line, " \t") == 0)
        return false;
    line += strspn(line, " \t");
    len = strcspn(line, " \t\r\n#;");
    if (len >= INET6_ADDRSTRLEN)
        return false;
    memcpy(ret, line, len);
    ret[len] = '\0';
    /* Not fe80::1%eth0: nginx cannot name an interface. */
    return inet_pton(AF_INET, ret, address) == 1 ||
           inet_pton(AF_INET6, ret, address) == 1;
}

void nginx_conf_nameservers(const char *resolv_conf, char *ret, size_t size)
{
    size_t used = 0;
    unsigned found = 0;

    if (size == 0)
        return;
    *ret = '\0';
    for (const char *line = resolv_conf; line != NULL && found < NAMESERVERS_MAX;) {
        char address[INET6_ADDRSTRLEN];
        char item[INET6_ADDRSTRLEN + 3];

        if (nameserver_of(line, address)) {
            const char *space = used == 0 ? "" : " ";
            bool ipv6 = strchr(address, ':') != NULL;
            int len =
                snprintf(item, sizeof item, ipv6 ? "%s[%s]" : "%s%s", space, address);

            if (len < 0 || used + (size_t)len >= size)
                return;
            memcpy(ret + used, item, (size_t)len + 1);
            used += (size_t)len;
            found++;
        }
        line = strchr(line, '\n');
        if (line != NULL)
            line++;
    }
}

unsigned nginx_conf_parse_version(const char *output)
{
    static const char prefix[] = "nginx version: nginx/";
    const char *at = strstr(output, prefix);
    unsigned version = 0;

    if (at == NULL)
        return 0;
    at += sizeof prefix - 1;
    for (unsigned part = 0; part < 3; part++) {
        size_t digits = strspn(at, DIGITS);

        if (digits < 1 || digits > 3 || (part < 2 && at[digits] != '.'))
            return 0;
        version = version * 1000 + (unsigned)strtoul(at, NULL, 10);
        at += digits + 1;
    }
    return version;
}
