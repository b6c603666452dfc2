/* What is said with --set on the command line. */
#include "domain/config_internal.h"

#include <stdio.h>
#include <string.h>

static void report_unknown(struct config_load *load, const char *key)
{
    char quoted[CONFIG_QUOTED_SIZE];
    char meant[CONFIG_KEY_SIZE];
    size_t section;

    config_quoted(quoted, key, strlen(key));
    if (config_find_section(key, &section))
        config_error(load, "--set: %s is a section; name a setting in it, such as %s",
                     quoted, config_settings[section].key);
    else if (config_suggest_key(key, meant))
        config_error(load, "--set: unknown key %s (did you mean \"%s\"?)", quoted, meant);
    else
        config_error(load, "--set: unknown key %s", quoted);
}

static bool has_yaml_value(const struct config_setting *setting)
{
    return config_is_list(setting) || setting->type == CONFIG_ROUTES ||
           setting->type == CONFIG_AUTHORITIES;
}

static bool set_text(struct config_load *load, const struct config_setting *setting,
                     const char *text)
{
    struct err err = ERR_INIT;

    if (config_value_set(load->config, setting, CONFIG_FROM_FLAG, text, strlen(text),
                         &err) == 0)
        return true;
    config_error_of(load, &err, "--set %s: %s", setting->key, err.message);
    return false;
}

/* What only others than a person at a terminal would write is YAML; everything else is taken as it is. */
static void apply(struct config_load *load, const char *key, const char *text)
{
    struct config_origin *origin;
    size_t i;

    if (!config_find_key(key, &i)) {
        report_unknown(load, key);
        return;
    }
    origin = &load->origins[i];
    origin->source = CONFIG_FROM_FLAG;
    if (has_yaml_value(&config_settings[i]))
        origin->bad = !config_yaml_set(load, i, text, strlen(text));
    else
        origin->bad = !set_text(load, &config_settings[i], text);
}

void config_flags_apply(struct config_load *load, const char *const *flags)
{
    for (; flags != NULL && *flags != NULL; flags++) {
        const char *equals = strchr(*flags, '=');
        size_t len = equals == NULL ? strlen(*flags) : (size_t)(equals - *flags);
        char key[CONFIG_KEY_SIZE];
        char quoted[CONFIG_QUOTED_SIZE];

        if (equals == NULL || len == 0)
            config_error(load,
                         "--set: found %s, expected KEY=VALUE such as log.level=debug",
                         config_quoted(quoted, *flags, strlen(*flags)));
        else if (len >= sizeof key)
            config_error(load, "--set: unknown key %s",
                         config_quoted(quoted, *flags, len));
        else {
            snprintf(key, sizeof key, "%.*s", (int)len, *flags);
            apply(load, key, equals + 1);
        }
    }
}
