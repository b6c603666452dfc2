#include "adapters/nginx_listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

union place {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

static socklen_t make_place(const char *address, unsigned port, union place *ret)
{
    *ret = (union place){0};
    if (inet_pton(AF_INET, address, &ret->v4.sin_addr) == 1) {
        ret->v4.sin_family = AF_INET;
        ret->v4.sin_port = htons((uint16_t)port);
        return sizeof ret->v4;
    }
    ret->v6.sin6_family = AF_INET6;
    ret->v6.sin6_port = htons((uint16_t)port);
    return inet_pton(AF_INET6, address, &ret->v6.sin6_addr) == 1 ? sizeof ret->v6 : 0;
}

/* 0, or the errno of the bind(2) that nginx would make. */
static int try_to_bind(const char *address, unsigned port)
{
    static const int on = 1;
    union place place;
    socklen_t len = make_place(address, port, &place);
    int failure = 0;
    int fd;

    if (len == 0)
        return EADDRNOTAVAIL;
    fd = socket(place.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return errno;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (place.any.sa_family == AF_INET6)
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    if (bind(fd, &place.any, len) < 0)
        failure = errno;
    close(fd);
    return failure;
}

static int try_address(const char *address, unsigned port, struct err *err)
{
    int failure = try_to_bind(address, port);

    if (failure == EADDRINUSE)
        return err_set(err, ERR_CONFIG,
                       "nginx could not listen on %s, port %u: another program does, or "
                       "nginx itself on other addresses with that port, which takes a "
                       "start of nginx to change",
                       address, port);
    if (failure == EADDRNOTAVAIL)
        return err_set(
            err, ERR_CONFIG,
            "nginx could not listen on %s, port %u: that is no address of this "
            "machine",
            address, port);
    return 0; /* whatever else keeps us from it need not keep nginx from it */
}

static int try_port(const struct config *config, unsigned port, bool ipv6,
                    struct err *err)
{
    const char *address = config->nginx.address;

    if (address != NULL)
        return try_address(address, port, err);
    return try_address("0.0.0.0", port, err) < 0 ||
                   (ipv6 && try_address("::", port, err) < 0)
               ? -1
               : 0;
}

static bool same_address(const char *a, const char *b)
{
    return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

int nginx_try_ports(const struct config *now, const struct config *next, bool ipv6,
                    struct err *err)
{
    const unsigned ports[] = {next->nginx.http_port, next->nginx.https_port};
    bool moved = !same_address(now->nginx.address, next->nginx.address);

    for (size_t i = 0; i < sizeof ports / sizeof ports[0]; i++) {
        bool has = ports[i] == now->nginx.http_port || ports[i] == now->nginx.https_port;

        if ((moved || !has) && try_port(next, ports[i], ipv6, err) < 0)
            return -1;
    }
    return 0;
}
