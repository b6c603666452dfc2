/*
 * nginx_listen: whether nginx could open the ports of other settings. `nginx -t` does not say: it takes a
 * port that is taken for nginx's own. And nginx, which opens new ports before it closes the old ones,
 * cannot go from all addresses to one of them, or back, with the same port.
 */
#ifndef CM_ADAPTERS_NGINX_LISTEN_H
#define CM_ADAPTERS_NGINX_LISTEN_H

#include "base/err.h"
#include "domain/config.h"

#include <stdbool.h>

/*
 * Those of `next` that `now`, with which nginx runs, has not. ERR_CONFIG names the first that is taken, or
 * is of no address of this machine. Nobody can connect meanwhile.
 */
int nginx_try_ports(const struct config *now, const struct config *next, bool ipv6,
                    struct err *err);

#endif
