#include "domain/config_show.h"

#include "base/text.h"
#include "domain/config_show_internal.h"

#include <stdio.h>
#include <string.h>

/* ---- values ---- */

/* All of these are NULL without memory, and take NULL for that. */
static json_t *with_item(json_t *array, json_t *item)
{
    if (json_array_append_new(array, item) == 0)
        return array;
    json_decref(array);
    return NULL;
}

static json_t *list_value(const struct config_list *list, size_t first)
{
    json_t *array = json_array();

    for (size_t i = first; i < list->count; i++)
        array = with_item(array, json_string(list->items[i]));
    return array;
}

static json_t *value_of(const void *object, const struct config_setting *setting);

/* One mapping of a list, without what it does not say. */
static json_t *entry_value(const void *entry, const struct config_setting *settings,
                           size_t count)
{
    json_t *mapping = json_object();

    for (size_t i = 0; i < count; i++) {
        json_t *value = value_of(entry, &settings[i]);

        if (json_is_null(value)) {
            json_decref(value);
        } else if (json_object_set_new(mapping, settings[i].key, value) < 0) {
            json_decref(mapping);
            return NULL;
        }
    }
    return mapping;
}

static json_t *routes_value(const struct config_routes *routes)
{
    json_t *array = json_array();

    for (size_t i = 0; i < routes->count; i++)
        array = with_item(array, entry_value(&routes->items[i], config_route_settings,
                                             CONFIG_ROUTE_SETTING_COUNT));
    return array;
}

/* The main one's are settings of their own. */
static json_t *fallback_value(const struct authorities *authorities)
{
    json_t *array = json_array();

    for (size_t i = 1; i < authorities->count; i++)
        array = with_item(array,
                          entry_value(&authorities->items[i], config_authority_settings,
                                      CONFIG_AUTHORITY_SETTING_COUNT));
    return array;
}

static json_t *rate_value(const struct config_rate *rate)
{
    char period[CONFIG_DURATION_SIZE];

    if (rate->count == 0)
        return json_null();
    return json_sprintf("%u/%s", rate->count,
                        config_duration_text(period, rate->period_ms));
}

/* As the file would have it; null: it is unset. */
static json_t *value_of(const void *object, const struct config_setting *setting)
{
    const void *field = (const char *)object + setting->offset;
    char duration[CONFIG_DURATION_SIZE];

    /* Of the names DOMAIN is the first, and a setting of its own. */
    if (config_is_list(setting))
        return list_value(field, setting->type == CONFIG_NAMES ? 1 : 0);
    switch (setting->type) {
    case CONFIG_BOOL:
        return json_boolean(*(const bool *)field);
    case CONFIG_CHOICE:
        return json_string(setting->choices[*(const bool *)field]);
    case CONFIG_LEVEL:
        return json_string(log_level_setting(*(const enum log_level *)field));
    case CONFIG_COUNT:
        return json_integer(*(const unsigned *)field);
    case CONFIG_RATE:
        return rate_value(field);
    case CONFIG_DURATION:
        if (setting->fallback == NULL && *(const unsigned *)field == 0)
            return json_null();
        return json_string(config_duration_text(duration, *(const unsigned *)field));
    case CONFIG_ROUTES:
        return routes_value(field);
    case CONFIG_AUTHORITIES:
        return fallback_value(field);
    default:
        if (*(char *const *)field == NULL)
            return json_null();
        return json_string(*(char *const *)field);
    }
}

json_t *config_show_value(const struct config *config, size_t i)
{
    return value_of(config, &config_settings[i]);
}

bool config_show_is_hidden(const struct config *config, size_t i)
{
    const void *field = (const char *)config + config_settings[i].offset;

    return ((config_settings[i].flags & CONFIG_QUIET) != 0 ||
            config_settings[i].type == CONFIG_SECRET) &&
           *(void *const *)field != NULL;
}

bool config_show_is_said(const struct config *config, size_t i)
{
    return config->origins[i].source != CONFIG_FROM_DEFAULT;
}

/* ---- as JSON ---- */

bool config_says(const struct config *config, const char *key)
{
    for (size_t i = 0; config->origins != NULL && i < CONFIG_SETTING_COUNT; i++) {
        if (config_settings[i].key != NULL && strcmp(config_settings[i].key, key) == 0)
            return config_show_is_said(config, i);
    }
    return false;
}

static json_t *origin_of(const struct config *config, size_t i)
{
    const struct config_origin *origin = &config->origins[i];
    char variable[CONFIG_VARIABLE_SIZE];

    switch (origin->source) {
    case CONFIG_FROM_YAML:
        return json_pack("{s:s, s:I, s:I}", "from", "file", "line",
                         (json_int_t)origin->line, "column", (json_int_t)origin->column);
    case CONFIG_FROM_ENVIRONMENT:
        config_variable_of(&config_settings[i], origin->upper, variable);
        return json_pack("{s:s, s:s}", "from", "variable", "variable", variable);
    case CONFIG_FROM_FLAG:
        return json_pack("{s:s}", "from", "flag");
    default:
        return json_pack("{s:s}", "from", "default");
    }
}

static json_t *with_origin(const struct config *config, size_t i)
{
    bool hidden = config_show_is_hidden(config, i);
    json_t *shown = json_object();
    json_t *value = hidden ? json_true() : config_show_value(config, i);
    json_t *origin = origin_of(config, i);
    bool good = json_object_set_new(shown, hidden ? "hidden" : "value", value) == 0 &&
                json_object_update(shown, origin) == 0;

    json_decref(origin);
    if (good)
        return shown;
    json_decref(shown);
    return NULL;
}

json_t *config_show_json(const struct config *config, bool said_only)
{
    json_t *settings = json_object();
    char file[CONFIG_NAME_SIZE]; /* JSON is UTF-8, and a name may be anything */

    for (size_t i = 0; i < CONFIG_SETTING_COUNT; i++) {
        const char *name = config_settings[i].key != NULL ? config_settings[i].key
                                                          : config_settings[i].variable;

        if (said_only && !config_show_is_said(config, i))
            continue;
        if (json_object_set_new(settings, name, with_origin(config, i)) < 0) {
            json_decref(settings);
            return NULL;
        }
    }
    if (config->file != NULL)
        text_escape(file, sizeof file, config->file, strlen(config->file));
    return json_pack("{s:s?, s:o}", "file", config->file == NULL ? NULL : file,
                     "settings", settings);
}
