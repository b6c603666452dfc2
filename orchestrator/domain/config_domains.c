/* The names of the certificate: DOMAIN first, and the rules for all of them. */
#include "domain/config_internal.h"

#include "domain/hostname.h"

#include <stdlib.h>
#include <string.h>

/* What is in force may not be what is meant: the file is only partly understood. */
static bool is_guess(const struct config_load *load, size_t i)
{
    return load->origins[i].bad ||
           (load->unread && load->origins[i].source == CONFIG_FROM_DEFAULT);
}

/* Nobody is asked for a certificate, or it is not known whether somebody is. */
static bool is_self_made(const struct config_load *load)
{
    return load->config->development ||
           is_guess(load, config_index_of(offsetof(struct config, development)));
}

/* A public CA is never asked for a name that it cannot validate. */
static void check_domain(struct config_load *load)
{
    size_t domain = config_index_of(offsetof(struct config, domain));
    struct err err = ERR_INIT;
    char name[CONFIG_NAME_SIZE];

    if (is_self_made(load) || is_guess(load, domain))
        return;
    if (load->origins[domain].source == CONFIG_FROM_DEFAULT)
        err_set(&err, ERR_CONFIG, "not set");
    else if (hostname_check_public(load->config->domain, &err) == 0)
        return;
    config_error(
        load,
        "%s: %s; set it to the public name of this service, or DEV_MODE=true for "
        "a self-signed certificate",
        config_name_of(load, domain, name), err.message);
}

/* ---- the others ---- */

static bool contains(const struct config_list *names, const char *name)
{
    for (size_t i = 0; i < names->count; i++) {
        if (strcmp(names->items[i], name) == 0)
            return true;
    }
    return false;
}

/* DOMAIN goes first. It may stand among the others, too; any other name is named twice by mistake. */
static void put_together(struct config_load *load, size_t domains)
{
    struct config *config = load->config;
    struct config_list given = config->domains;
    struct config_list all = {.items = calloc(given.count + 1, sizeof *all.items)};
    char *first = strdup(config->domain);
    char name[CONFIG_NAME_SIZE];

    if (all.items == NULL || first == NULL) {
        config_lacks_memory(load, "domains");
        free(all.items);
        free(first);
        return;
    }
    all.items[all.count++] = first;
    for (size_t i = 0; i < given.count; i++) {
        if (!contains(&all, given.items[i])) {
            all.items[all.count++] = given.items[i];
            continue;
        }
        if (strcmp(given.items[i], first) != 0)
            config_warn(load, "%s: \"%s\" is there twice, and taken once",
                        config_name_of(load, domains, name), given.items[i]);
        free(given.items[i]);
    }
    free(given.items);
    config->domains = all;
}

/*
 * Certificates of somebody else may have any name. A wildcard is refused in development as well:
 * there it would show nothing but that production will refuse it.
 */
static void check_name(struct config_load *load, size_t domains, const char *name)
{
    struct err err = ERR_INIT;
    char key[CONFIG_NAME_SIZE];

    if (hostname_is_wildcard(name))
        config_error(load,
                     "%s: \"%s\" is a wildcard, which HTTP-01 challenges cannot prove; "
                     "list the names one by one, or bring a certificate of your own with "
                     "tls.key: external",
                     config_name_of(load, domains, key), name);
    else if (!is_self_made(load) && hostname_check_public(name, &err) < 0)
        config_error(load, "%s: %s", config_name_of(load, domains, key), err.message);
}

static void check_others(struct config_load *load, size_t domains)
{
    const struct config *config = load->config;
    size_t key = config_index_of(offsetof(struct config, tls.external_key));
    char name[CONFIG_NAME_SIZE];

    if (load->origins[domains].bad)
        return;
    if (config->domains.count > CONFIG_DOMAINS_MAX)
        config_error(load, "%s: %zu names together with DOMAIN, at most %d are allowed",
                     config_name_of(load, domains, name), config->domains.count,
                     CONFIG_DOMAINS_MAX);
    for (size_t i = 1; i < config->domains.count; i++) {
        if (!config->tls.external_key && !is_guess(load, key))
            check_name(load, domains, config->domains.items[i]);
    }
}

void config_domains_check(struct config_load *load)
{
    size_t domains = config_index_of(offsetof(struct config, domains));

    if (load->config->domain == NULL) /* without memory, which has been reported */
        return;
    check_domain(load);
    put_together(load, domains);
    check_others(load, domains);
}
