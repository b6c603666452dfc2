/* Routes: their defaults, and the rules between them and everything else that answers paths. */
#include "domain/config_internal.h"

#include "base/text.h"
#include "domain/nginx_text.h"

#include <stdlib.h>
#include <string.h>

/* What the templates and the program answer themselves; what ends in "/" is a whole folder. */
static const char *const reserved[] = {
    "/health", "/tdx_quote", "/_auth", "/debug/ekm", "/evidences/", "/cert-manager/",
};

struct config_route *config_route_add(struct config_routes *routes)
{
    struct config_route *longer;
    struct config_route *route;

    longer = realloc(routes->items, (routes->count + 1) * sizeof *longer);
    if (longer == NULL)
        return NULL;
    routes->items = longer;
    route = &longer[routes->count++];
    *route = (struct config_route){.path = NULL};
    for (size_t i = 0; i < CONFIG_ROUTE_SETTING_COUNT; i++) {
        const struct config_setting *setting = &config_route_settings[i];
        struct err ignored = ERR_INIT;

        if (setting->fallback != NULL)
            config_value_set(route, setting, CONFIG_FROM_DEFAULT, setting->fallback,
                             strlen(setting->fallback), &ignored);
    }
    return route;
}

void config_routes_clear(struct config_routes *routes)
{
    for (size_t i = 0; i < routes->count; i++) {
        for (size_t k = 0; k < CONFIG_ROUTE_SETTING_COUNT; k++)
            config_value_clear(&routes->items[i], &config_route_settings[k]);
    }
    free(routes->items);
    *routes = (struct config_routes){.count = 0};
}

/* ---- rules ---- */

static const char *text_of_routes(const struct config_load *load)
{
    size_t routes = config_index_of(offsetof(struct config, routes));

    return load->origins[routes].source == CONFIG_FROM_FLAG ? "--set routes"
                                                            : load->yaml_name;
}

/* An error at the route: "config.yaml:12:5: route /v1/: …". */
#define ROUTE_FORMAT "%s:%zu:%zu: route %s: "
#define ROUTE(load, route)                                                               \
    text_of_routes(load), (route)->line, (route)->column, (route)->path

static void check_reserved(struct config_load *load, const struct config_route *route)
{
    for (size_t i = 0; i < sizeof reserved / sizeof reserved[0]; i++) {
        size_t len = strlen(reserved[i]);
        bool folder = reserved[i][len - 1] == '/';

        if (folder ? text_starts_with(route->path, reserved[i]) ||
                         (strlen(route->path) == len - 1 &&
                          strncmp(route->path, reserved[i], len - 1) == 0)
                   : strcmp(route->path, reserved[i]) == 0)
            config_error(load, ROUTE_FORMAT "%s is reserved; choose another path",
                         ROUTE(load, route), reserved[i]);
    }
}

static void check_duplicate(struct config_load *load, size_t i)
{
    const struct config_routes *routes = &load->config->routes;
    const struct config_route *route = &routes->items[i];

    for (size_t k = 0; k < i; k++) {
        const struct config_route *other = &routes->items[k];

        if (other->path == NULL || other->exact != route->exact ||
            strcmp(other->path, route->path) != 0)
            continue;
        config_error(load, ROUTE_FORMAT "appears twice, first in line %zu",
                     ROUTE(load, route), other->line);
        return;
    }
}

/* A path that both a fragment and a route define. */
static void check_fragment(struct config_load *load, const struct config_route *route)
{
    size_t fragment = config_index_of(offsetof(struct config, nginx.extra_locations));
    struct nginx_text_location location;
    struct nginx_text text;
    char name[CONFIG_NAME_SIZE];

    if (load->config->nginx.extra_locations == NULL)
        return;
    nginx_text_init(&text, load->config->nginx.extra_locations);
    while (nginx_text_next_location(&text, &location)) {
        if (location.exact != route->exact || strcmp(location.path, route->path) != 0)
            continue;
        config_error(load,
                     ROUTE_FORMAT
                     "the location in line %zu of %s has this path, too; "
                     "remove one of them",
                     ROUTE(load, route), location.line,
                     config_name_of(load, fragment, name));
        return;
    }
}

static void check_catch_all(struct config_load *load, const struct config_route *route)
{
    size_t host = config_index_of(offsetof(struct config, upstream.host));
    char name[CONFIG_NAME_SIZE];

    if (load->config->upstream.host == NULL || route->exact ||
        strcmp(route->path, "/") != 0)
        return;
    config_error(load,
                 ROUTE_FORMAT
                 "%s sends every path to an upstream, too; remove one "
                 "of them",
                 ROUTE(load, route), config_name_of(load, host, name));
}

static void check_auth(struct config_load *load, const struct config_route *route)
{
    size_t enabled = config_index_of(offsetof(struct config, auth.enabled));
    char name[CONFIG_NAME_SIZE];

    if (route->auth && !load->config->auth.enabled && !load->origins[enabled].bad)
        config_error(load, ROUTE_FORMAT "auth: true, but %s says false",
                     ROUTE(load, route), config_name_of(load, enabled, name));
}

void config_routes_check(struct config_load *load)
{
    const struct config_routes *routes = &load->config->routes;

    for (size_t i = 0; i < routes->count; i++) {
        const struct config_route *route = &routes->items[i];

        if (route->path == NULL) /* missing or bad: reported already */
            continue;
        check_reserved(load, route);
        check_duplicate(load, i);
        check_fragment(load, route);
        check_catch_all(load, route);
        check_auth(load, route);
    }
}
