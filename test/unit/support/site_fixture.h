/*
 * site_fixture: the settings of one site, and what templates become with them. Texts are
 * literals and borrowed; nothing is freed. Everything asserts.
 */
#ifndef TEST_SUPPORT_SITE_FIXTURE_H
#define TEST_SUPPORT_SITE_FIXTURE_H

#include "base/buf.h"
#include "domain/nginx_conf.h"

enum {
    SITE_ORIGINS_MAX = 4,
    SITE_ROUTES_MAX = 8,
    SITE_NETWORKS_MAX = 4,
    SITE_NAMES_MAX = 4
};

struct site_fixture {
    struct config config;
    struct nginx_facts facts;
    char *names[SITE_NAMES_MAX];
    char *origins[SITE_ORIGINS_MAX];
    char *networks[SITE_NETWORKS_MAX];
    struct config_route routes[SITE_ROUTES_MAX];
};

/* A literal where settings want a text that is not const: they never write to it. */
char *site_text(const char *literal);

void site_fixture_init(struct site_fixture *f);
void site_add_name(struct site_fixture *f, const char *name);
void site_add_origin(struct site_fixture *f, const char *regex);
void site_add_network(struct site_fixture *f, const char *network);

/* With the defaults of config_route_settings, to be changed by the caller. */
struct config_route *site_add_route(struct site_fixture *f, const char *path,
                                    const char *upstream);

/* `ret` is initialised here. Of upstreams only literal ones have an address. */
int site_render(const struct site_fixture *f, enum nginx_level level, const char *base,
                const char *https, struct buf *ret, struct err *err);

/* What the https template becomes at the level, or at NGINX_HTTPS. */
void site_expect_at(const struct site_fixture *f, enum nginx_level level,
                    const char *https, const char *expected);
void site_expect(const struct site_fixture *f, const char *https, const char *expected);

/* Whether it becomes a text that has `part` in it. */
void site_expect_part(const struct site_fixture *f, const char *https, const char *part);
void site_expect_no_part(const struct site_fixture *f, const char *https,
                         const char *part);

/* ERR_CONFIG whose message names that, and no text. */
void site_expect_refused(const struct site_fixture *f, const char *named);

#endif
