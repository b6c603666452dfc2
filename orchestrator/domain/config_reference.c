#include "domain/config_reference.h"

#include "domain/config_internal.h"

#include <stdio.h>
#include <string.h>

enum { REFERENCE_MAX_BYTES = 256 * 1024 };

/* Text of mdoc(7): a backslash, and a dot or a quote at the front, mean something there. */
static int add_text(struct buf *out, const char *text, struct err *err)
{
    if ((text[0] == '.' || text[0] == '\'') && buf_append_str(out, "\\&", err) < 0)
        return -1;
    while (*text != '\0') {
        size_t len = strcspn(text, "\\");

        if (buf_append(out, text, len, err) < 0)
            return -1;
        text += len;
        if (*text == '\0')
            break;
        if (buf_append_str(out, "\\e", err) < 0)
            return -1;
        text++;
    }
    return 0;
}

static int add_default(struct buf *out, const struct config_setting *setting,
                       struct err *err)
{
    if ((setting->flags & CONFIG_REQUIRED) != 0)
        return buf_append_str(out, "; it has to be there", err);
    if (setting->fallback == NULL || setting->fallback[0] == '\0')
        return buf_append_str(out, "; none by default", err);
    return buf_printf(out, err, ";\ndefault\n.Ql %s ", setting->fallback);
}

/* What a variable says in a form of its own. */
static const char *form_of_variable(const struct config_setting *setting)
{
    if ((setting->flags & CONFIG_ENV_SECONDS) != 0)
        return " , in seconds without a unit";
    return setting->type == CONFIG_LIST ? " , as a JSON array" : " ";
}

static int add_variable(struct buf *out, const struct config_setting *setting,
                        struct err *err)
{
    char upper[CONFIG_VARIABLE_SIZE];

    if (buf_printf(out, err, ";\nvariable\n.Ev %s", setting->variable) < 0)
        return -1;
    if ((setting->flags & CONFIG_ENV_UPPER) != 0 &&
        buf_printf(out, err, "\nor\n.Ev %s", config_variable_of(setting, true, upper)) <
            0)
        return -1;
    return buf_append_str(out, form_of_variable(setting), err);
}

/* What it is for, what it may be, what it is by default, and the variable that says the same. */
static int add_setting(struct buf *out, const struct config_setting *setting,
                       struct err *err)
{
    char expected[CONFIG_EXPECTED_SIZE];

    /* What every path may be is said once, by the manual. */
    if (setting->type == CONFIG_PATH)
        snprintf(expected, sizeof expected, "an absolute path");
    else
        config_expected(expected, setting, CONFIG_FROM_YAML);
    if (buf_printf(out, err, ".It Ic %s\n", setting->key) < 0 ||
        add_text(out, setting->meaning, err) < 0 ||
        buf_append_str(out, ".\nValue: ", err) < 0 || add_text(out, expected, err) < 0 ||
        add_default(out, setting, err) < 0)
        return -1;
    if (setting->variable != NULL && add_variable(out, setting, err) < 0)
        return -1;
    return buf_append_str(out, ".\n", err);
}

static int add_entry_settings(struct buf *out, const struct config_setting *settings,
                              size_t count, struct err *err)
{
    if (buf_append_str(out, "Each entry has these keys:\n.Bl -tag -width Ds\n", err) < 0)
        return -1;
    for (size_t i = 0; i < count; i++) {
        if (add_setting(out, &settings[i], err) < 0)
            return -1;
    }
    return buf_append_str(out, ".El\n", err);
}

static int add_whole_setting(struct buf *out, const struct config_setting *setting,
                             struct err *err)
{
    if (add_setting(out, setting, err) < 0)
        return -1;
    if (setting->type == CONFIG_ROUTES)
        return add_entry_settings(out, config_route_settings, CONFIG_ROUTE_SETTING_COUNT,
                                  err);
    if (setting->type == CONFIG_AUTHORITIES)
        return add_entry_settings(out, config_authority_settings,
                                  CONFIG_AUTHORITY_SETTING_COUNT, err);
    return 0;
}

static int add_section(struct buf *out, size_t first, struct err *err)
{
    const struct config_setting *settings = config_settings;
    int len = (int)config_section_len(first);

    if (len == 0 && buf_append_str(out, ".Ss Outside of sections\n", err) < 0)
        return -1;
    if (len > 0 &&
        buf_printf(out, err, ".Ss Section %.*s\n", len, settings[first].key) < 0)
        return -1;
    if (buf_append_str(out, ".Bl -tag -width Ds\n", err) < 0)
        return -1;
    for (size_t i = first; i < CONFIG_SETTING_COUNT; i++) {
        if (settings[i].key != NULL && config_same_section(i, first) &&
            add_whole_setting(out, &settings[i], err) < 0)
            return -1;
    }
    return buf_append_str(out, ".El\n", err);
}

/* Secrets are no text for a file that others may read. */
static int add_variables(struct buf *out, struct err *err)
{
    if (buf_append_str(out, ".Ss Only in the environment\n.Bl -tag -width Ds\n", err) < 0)
        return -1;
    for (size_t i = 0; i < CONFIG_SETTING_COUNT; i++) {
        const struct config_setting *setting = &config_settings[i];

        if (setting->key == NULL &&
            (buf_printf(out, err, ".It Ev %s\n", setting->variable) < 0 ||
             add_text(out, setting->meaning, err) < 0 ||
             buf_append_str(out, ".\n", err) < 0))
            return -1;
    }
    return buf_append_str(out, ".El\n", err);
}

int config_reference(struct buf *ret, struct err *err)
{
    buf_init(ret, REFERENCE_MAX_BYTES);
    for (size_t i = 0; i < CONFIG_SETTING_COUNT; i++) {
        if (config_begins_section(i) && add_section(ret, i, err) < 0)
            return -1;
    }
    return add_variables(ret, err);
}

int config_reference_keys(struct buf *ret, struct err *err)
{
    buf_init(ret, REFERENCE_MAX_BYTES);
    for (size_t i = 0; i < CONFIG_SETTING_COUNT; i++) {
        const char *key = config_settings[i].key;

        if (key != NULL && buf_printf(ret, err, "%s%s", ret->len > 0 ? " " : "", key) < 0)
            return -1;
    }
    return 0;
}
