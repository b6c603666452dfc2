/*
 * nginx_conf: nginx's configuration as text, from settings and templates. Pure.
 *
 * No value of a setting can leave its place in the text, except the fragments, which are text.
 *
 * default.conf is the base template and, when HTTPS is up, the https template behind it (in
 * development https-dev). Directives of our modules stand in a separate include at http level,
 * so that templates mounted by deployments need none of them.
 */
#ifndef CM_DOMAIN_NGINX_CONF_H
#define CM_DOMAIN_NGINX_CONF_H

#include "base/buf.h"
#include "base/err.h"
#include "domain/config.h"
#include "domain/jose.h"
#include "domain/upstreams.h"

#include <stdbool.h>
#include <stddef.h>

enum {
    NGINX_CONF_MAX_BYTES = 1024 * 1024,
    NGINX_SOCKET_SIZE = 108, /* of a path, as in struct sockaddr_un */
};

enum nginx_level {
    NGINX_HTTP_ONLY,     /* challenges; every other path answers 503 */
    NGINX_HTTPS_REDUCED, /* and HTTPS, without the application: its paths answer 503 */
    NGINX_HTTPS,         /* everything */
};

/* What the machine says, so that the text fits it. */
struct nginx_facts {
    bool ipv6; /* the kernel has it: without it `listen [::]` is fatal to nginx */
    unsigned
        version; /* as in nginx's headers: 1022001 for 1.22.1; 0 unknown (treated as old) */
    char nameservers
        [512]; /* for `resolver`: addresses of /etc/resolv.conf, IPv6 in brackets, "" when none */
    const struct upstreams *upstreams; /* NULL: none is known, only at NGINX_HTTP_ONLY */
    const char *evidence;              /* folder that /evidences/ shows, NULL for none */
    char metrics_socket[NGINX_SOCKET_SIZE];        /* "" where metrics are not shown */
    char account_thumbprint[JOSE_THUMBPRINT_SIZE]; /* of the ACME account, "" unknown */
    const char
        *live_chain; /* file that workers take a renewed chain from, NULL for none */
};

/* What the templates folder holds for this mode. */
struct nginx_templates {
    const char *base;
    const char *https; /* the one of the mode; unused at NGINX_HTTP_ONLY */
};

/* "http-only", "reduced" or "full", for log and status. */
const char *nginx_level_name(enum nginx_level level);

/* File name of the https template for the mode. */
const char *nginx_conf_https_template(const struct config *config);

/* default.conf, appended to `ret`. ERR_CONFIG where a value has no place in a configuration. */
int nginx_conf_render(const struct config *config, const struct nginx_facts *facts,
                      enum nginx_level level, const struct nginx_templates *templates,
                      struct buf *ret, struct err *err);

/*
 * The include at http level when there is HTTPS: `ekm_secret_file` with the path, `live_chain`,
 * the variables of routes, and the groups of the services that our templates name and of our
 * metrics. At NGINX_HTTP_ONLY the file is absent.
 */
int nginx_conf_render_include(const char *ekm_secret_file,
                              const struct nginx_facts *facts, struct buf *ret,
                              struct err *err);

/* Whether it is a thumbprint in form. */
bool nginx_conf_is_thumbprint(const char *text);

/* The nameservers of a resolv.conf(5) text in the form of nginx_facts. */
void nginx_conf_nameservers(const char *resolv_conf, char *ret, size_t size);

/* "nginx version: nginx/1.22.1" to 1022001; 0 when it is something else. */
unsigned nginx_conf_parse_version(const char *output);

#endif
