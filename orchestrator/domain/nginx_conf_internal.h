/*
 * nginx_conf_internal: what nginx_conf.c (the files, and what every site has), nginx_conf_app.c
 * (the application's part) and nginx_conf_challenges.c (those of the CA) share.
 */
#ifndef CM_DOMAIN_NGINX_CONF_INTERNAL_H
#define CM_DOMAIN_NGINX_CONF_INTERNAL_H

#include "domain/nginx_conf.h"
#include "domain/upstreams.h"

enum { NGINX_RETRY_AFTER_SECONDS = 5 };

/* What the writers of placeholders are given. */
struct site {
    const struct config *config;
    const struct nginx_facts *facts;
    enum nginx_level level;
};

/* ---- nginx_conf.c ---- */

bool nginx_has_control(const char *text);

/* The text as it stands between double quotes: nginx undoes \" and \\ there. */
int nginx_append_quoted(struct buf *ret, const char *text, struct err *err);

int nginx_write_hsts(const struct site *site, struct buf *ret, struct err *err);

/* ---- nginx_conf_challenges.c: the values of placeholders ---- */

int nginx_write_challenge_tokens(const struct site *site, struct buf *ret,
                                 struct err *err);
int nginx_write_challenge_answers(const struct site *site, struct buf *ret,
                                  struct err *err);

/* ---- nginx_conf_app.c: the values of placeholders ---- */

int nginx_write_cors_block(const struct site *site, struct buf *ret, struct err *err);
int nginx_write_cors_headers(const struct site *site, struct buf *ret, struct err *err);
int nginx_write_auth_location(const struct site *site, struct buf *ret, struct err *err);
int nginx_write_extra_upstreams(const struct site *site, struct buf *ret,
                                struct err *err);
int nginx_write_extra_locations(const struct site *site, struct buf *ret,
                                struct err *err);

/* Whether its group stands in the include: our own templates use it at every level. */
bool nginx_is_service(const struct upstream *upstream);

#endif
