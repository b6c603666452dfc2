/* The CAs: their defaults, and the rules between them and the other settings. */
#include "base/text.h"
#include "domain/config_internal.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOOPBACK "localhost,127.0.0.0/8,::1"

struct authority *config_authority_add(struct authorities *authorities)
{
    struct authority *authority;

    if (authorities->count == 0)
        authorities->count = 1; /* the main one, whose settings stand by themselves */
    if (authorities->count == AUTHORITIES_MAX)
        return NULL;
    authority = &authorities->items[authorities->count++];
    *authority = (struct authority){.directory = NULL};
    return authority;
}

void config_authorities_clear(struct authorities *authorities)
{
    for (size_t i = 1; i < authorities->count; i++) {
        for (size_t k = 0; k < CONFIG_AUTHORITY_SETTING_COUNT; k++)
            config_value_clear(&authorities->items[i], &config_authority_settings[k]);
    }
    authorities->count = 0;
}

/* ---- rules ---- */

static const char *text_of_fallback(const struct config_load *load)
{
    size_t fallback = config_index_of(offsetof(struct config, acme.authorities));

    return load->origins[fallback].source == CONFIG_FROM_FLAG ? "--set acme.fallback"
                                                              : load->yaml_name;
}

/* How a person would name one: "config.yaml:12:5: CA https://…", or the setting's name. */
static const char *name_of(const struct config_load *load,
                           const struct authority *authority, size_t setting_offset,
                           char ret[CONFIG_NAME_SIZE])
{
    if (authority->line == 0)
        return config_name_of(load, config_index_of(setting_offset), ret);
    snprintf(ret, CONFIG_NAME_SIZE, "%s:%zu:%zu: this CA", text_of_fallback(load),
             authority->line, authority->column);
    return ret;
}

static void check_binding(struct config_load *load, const struct authority *authority)
{
    bool has_key = authority->eab_key_file != NULL;
    size_t offset = has_key
                        ? offsetof(struct config, acme.authorities.items[0].eab_key_file)
                        : offsetof(struct config, acme.authorities.items[0].eab_key_id);
    size_t id =
        config_index_of(offsetof(struct config, acme.authorities.items[0].eab_key_id));
    size_t file =
        config_index_of(offsetof(struct config, acme.authorities.items[0].eab_key_file));
    char name[CONFIG_NAME_SIZE];

    if (has_key == (authority->eab_key_id != NULL))
        return;
    if (authority->line == 0 && (load->origins[id].bad || load->origins[file].bad))
        return;
    config_error(
        load, "%s: an external account binding has %s, but no %s; the CA gives both",
        name_of(load, authority, offset, name), has_key ? "eab_key_file" : "eab_key_id",
        has_key ? "eab_key_id" : "eab_key_file");
}

static void check_other(struct config_load *load, size_t i)
{
    const struct authorities *authorities = &load->config->acme.authorities;
    const struct authority *authority = &authorities->items[i];
    char name[CONFIG_NAME_SIZE];

    name_of(load, authority, 0, name);
    for (size_t k = 0; k < i; k++) {
        if (authorities->items[k].directory != NULL &&
            strcmp(authorities->items[k].directory, authority->directory) == 0) {
            config_error(load, "%s: its directory is %s, too; name each CA once", name,
                         k == 0 ? "that of the main CA" : "in an earlier entry");
            return;
        }
    }
    if (authority_is_staging(authority) && !load->config->acme.staging)
        config_error(load, "%s: nobody trusts what the staging directory issues", name);
}

static void decide_directory(struct config_load *load)
{
    struct authority *main_one = &load->config->acme.authorities.items[0];

    if (main_one->directory != NULL)
        return;
    main_one->directory =
        strdup(load->config->acme.staging ? AUTHORITY_STAGING : AUTHORITY_PRODUCTION);
    if (main_one->directory == NULL)
        config_lacks_memory(load, "acme.directory");
}

/* Loopback is this machine's, which no proxy can reach. */
static int add_loopback(struct config *config)
{
    const char *given = config->acme.no_proxy;
    char *text = NULL;

    /* As when settings that were shown by `config` are loaded again. */
    if (given != NULL && text_ends_with(given, LOOPBACK))
        return 0;
    if (asprintf(&text, "%s%s" LOOPBACK, given == NULL ? "" : given,
                 given == NULL ? "" : ",") < 0)
        return -1;
    free(config->acme.no_proxy);
    config->acme.no_proxy = text;
    return 0;
}

static void decide_proxy(struct config_load *load)
{
    struct config *config = load->config;

    if (config->acme.proxy == NULL)
        return;
    if (add_loopback(config) < 0) {
        config_lacks_memory(load, "acme.no_proxy");
        return;
    }
    for (size_t i = 0; i < AUTHORITIES_MAX; i++) {
        config->acme.authorities.items[i].proxy = config->acme.proxy;
        config->acme.authorities.items[i].no_proxy = config->acme.no_proxy;
    }
}

/* It is reached, and its connection verified, like that of the main one. */
static void decide_rehearsal(struct config_load *load)
{
    const struct authority *main_one = &load->config->acme.authorities.items[0];
    struct authority *rehearsal = &load->config->acme.rehearsal;

    if (rehearsal->directory == NULL && main_one->directory != NULL &&
        strcmp(main_one->directory, AUTHORITY_PRODUCTION) == 0) {
        rehearsal->directory = strdup(AUTHORITY_STAGING);
        if (rehearsal->directory == NULL)
            config_lacks_memory(load, "acme.rehearsal_directory");
    }
    rehearsal->ca_bundle = main_one->ca_bundle;
    rehearsal->proxy = main_one->proxy;
    rehearsal->no_proxy = main_one->no_proxy;
}

static void check_rehearsal(struct config_load *load)
{
    const struct config *config = load->config;
    size_t i = config_index_of(offsetof(struct config, acme.rehearsal.directory));
    char name[CONFIG_NAME_SIZE];

    if (config->acme.rehearsal.directory == NULL)
        return;
    for (size_t k = 0; k < config->acme.authorities.count; k++) {
        const char *directory = config->acme.authorities.items[k].directory;

        if (directory != NULL && strcmp(directory, config->acme.rehearsal.directory) == 0)
            config_error(load,
                         "%s: certificates are ordered there, too; a rehearsal has "
                         "to cost nothing",
                         config_name_of(load, i, name));
    }
}

void config_authorities_check(struct config_load *load)
{
    struct authorities *authorities = &load->config->acme.authorities;

    if (authorities->count == 0)
        authorities->count = 1;
    decide_directory(load);
    decide_proxy(load);
    decide_rehearsal(load);
    check_rehearsal(load);
    for (size_t i = 0; i < authorities->count; i++) {
        if (authorities->items[i].directory == NULL) /* bad: reported already */
            continue;
        check_binding(load, &authorities->items[i]);
        if (i > 0)
            check_other(load, i);
    }
}
