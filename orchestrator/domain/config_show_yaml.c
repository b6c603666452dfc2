/* The settings in force as a file, which has its comments, and libyaml's emitter none. */
#include "domain/config_show_internal.h"

#include "base/text.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

struct page {
    const struct config *config;
    struct buf *out;
    struct err *err;
    size_t line_start; /* where the current line begins in `out` */
    bool failed;
};

static void put(struct page *page, const char *text)
{
    page->failed = page->failed || buf_append_str(page->out, text, page->err) < 0;
}

static void put_indent(struct page *page, size_t columns)
{
    for (size_t i = 0; i < columns; i++)
        put(page, " ");
}

/* A character that a double-quoted text cannot have as it is, or that no reader sees. */
static bool needs_escape(unsigned code)
{
    return text_is_control(code) || code == 0x2028 || code == 0x2029 || code == 0xfeff ||
           code == 0xfffe || code == 0xffff;
}

static bool is_seen(const char *text)
{
    size_t left = strlen(text);
    size_t size;

    for (; left > 0; text += size, left -= size) {
        unsigned code = 0;

        size = text_character(text, left, &code);
        if (size == 0 || needs_escape(code))
            return false;
    }
    return true;
}

/* In single quotes, in which a backslash is a letter like others, or in double ones. */
static void put_quoted(struct page *page, const char *text)
{
    size_t left = strlen(text);
    size_t size;

    if (strpbrk(text, "\\\"") != NULL && strchr(text, '\'') == NULL && is_seen(text)) {
        put(page, "'");
        put(page, text);
        put(page, "'");
        return;
    }
    put(page, "\"");
    for (; left > 0; text += size, left -= size) {
        char piece[16];
        unsigned code = 0;

        size = text_character(text, left, &code);
        if (size == 0) /* was refused when it was loaded */
            size = 1;
        if (code == '"' || code == '\\')
            snprintf(piece, sizeof piece, "\\%c", (int)code);
        else if (code == '\n' || code == '\r' || code == '\t')
            snprintf(piece, sizeof piece, "\\%c",
                     code == '\n'   ? 'n'
                     : code == '\r' ? 'r'
                                    : 't');
        else if (needs_escape(code))
            snprintf(piece, sizeof piece, "\\u%04x", code);
        else
            snprintf(piece, sizeof piece, "%.*s", (int)size, text);
        put(page, piece);
    }
    put(page, "\"");
}

/* Whether each reader of YAML takes it for this text without quotes, and for nothing else. */
static bool is_plain(const char *text)
{
    static const char *const words[] = {"true", "false", "null", "yes", "no",
                                        "on",   "off",   "y",    "n"};

    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strcasecmp(text, words[i]) == 0)
            return false;
    }
    if (!isalnum((unsigned char)text[0]) && text[0] != '/')
        return false;
    for (const char *at = text; *at != '\0'; at++) {
        if (!isalnum((unsigned char)*at) && strchr("/._@+-", *at) == NULL &&
            (*at != ':' || at[1] == '\0'))
            return false;
    }
    return text[strspn(text, "0123456789abcdefxoABCDEFXO._+-:")] != '\0' ||
           !isdigit((unsigned char)text[0]);
}

/* Text of several lines that can stand there as it is. */
static bool is_block(const char *text)
{
    size_t left = strlen(text);
    size_t size;

    if (strchr(text, '\n') == NULL || text[strspn(text, " \n")] == '\0')
        return false;
    for (; left > 0; text += size, left -= size) {
        unsigned code = 0;

        size = text_character(text, left, &code);
        if (size == 0 || (needs_escape(code) && code != '\n' && code != '\t'))
            return false;
    }
    return true;
}

static void put_origin(struct page *page, size_t i)
{
    enum { COLUMN = 40 };
    const struct config_origin *origin = &page->config->origins[i];
    char name[CONFIG_VARIABLE_SIZE];
    char file[CONFIG_NAME_SIZE];
    char place[64];
    size_t used = page->out->len - page->line_start;

    put_indent(page, used + 2 < COLUMN ? COLUMN - used : 2);
    put(page, "# ");
    switch (origin->source) {
    case CONFIG_FROM_YAML:
        text_escape(file, sizeof file, page->config->file, strlen(page->config->file));
        snprintf(place, sizeof place, ":%zu:%zu", origin->line, origin->column);
        put(page, file);
        put(page, place);
        break;
    case CONFIG_FROM_ENVIRONMENT:
        put(page, config_variable_of(&config_settings[i], origin->upper, name));
        break;
    case CONFIG_FROM_FLAG:
        put(page, "--set");
        break;
    case CONFIG_FROM_DEFAULT:
        put(page, "default");
        break;
    }
}

static void end_line(struct page *page)
{
    put(page, "\n");
    page->line_start = page->out->len;
}

/* Everything but the lines of a block. */
static void put_scalar(struct page *page, const json_t *value)
{
    const char *text = json_string_value(value);
    char number[32];

    if (json_is_integer(value)) {
        snprintf(number, sizeof number, "%lld", (long long)json_integer_value(value));
        put(page, number);
    } else if (json_is_boolean(value)) {
        put(page, json_is_true(value) ? "true" : "false");
    } else if (!is_block(text)) {
        if (is_plain(text))
            put(page, text);
        else
            put_quoted(page, text);
    } else {
        size_t len = strlen(text);
        bool ends = text[len - 1] == '\n';

        /* The width of the indentation is said, as the text may begin with a blank. */
        put(page, !ends ? "|2-" : text[len - 2] == '\n' ? "|2+" : "|2");
    }
}

static void put_block(struct page *page, const char *text, size_t indent)
{
    while (*text != '\0') {
        size_t len = strcspn(text, "\n");

        if (len > 0)
            put_indent(page, indent);
        page->failed = page->failed || buf_append(page->out, text, len, page->err) < 0;
        put(page, "\n");
        text += len;
        if (*text == '\n')
            text++;
    }
    page->line_start = page->out->len;
}

static void put_mapping(struct page *page, json_t *mapping, size_t indent)
{
    const char *before = "- ";
    const char *key;
    json_t *value;

    json_object_foreach(mapping, key, value)
    {
        put_indent(page, indent);
        put(page, before);
        put(page, key);
        put(page, ": ");
        put_scalar(page, value);
        end_line(page);
        before = "  ";
    }
}

static void put_sequence(struct page *page, const json_t *array, size_t indent)
{
    for (size_t k = 0; k < json_array_size(array); k++) {
        json_t *item = json_array_get(array, k);

        if (json_is_object(item)) {
            put_mapping(page, item, indent);
            continue;
        }
        put_indent(page, indent);
        put(page, "- ");
        put_scalar(page, item);
        end_line(page);
    }
}

/* What has no value, or one that is not shown, is a comment. */
static void put_comment(struct page *page, size_t i, size_t indent, const char *state)
{
    const struct config_setting *setting = &config_settings[i];

    put_indent(page, indent);
    put(page, "# ");
    put(page, setting->key != NULL ? config_last_part(setting->key) : setting->variable);
    put(page, ": ");
    put(page, state);
    if (config_show_is_said(page->config, i))
        put_origin(page, i);
    end_line(page);
}

static void put_value(struct page *page, size_t i, const json_t *value, size_t indent)
{
    const char *text = json_string_value(value);

    put_indent(page, indent);
    put(page, config_last_part(config_settings[i].key));
    put(page, ":");
    if (!json_is_array(value)) {
        put(page, " ");
        put_scalar(page, value);
    } else if (json_array_size(value) == 0) {
        put(page, " []");
    }
    put_origin(page, i);
    end_line(page);
    if (json_is_array(value))
        put_sequence(page, value, indent + 2);
    else if (text != NULL && is_block(text))
        put_block(page, text, indent + 2);
}

static void put_setting(struct page *page, size_t i, size_t indent)
{
    json_t *value;

    if (config_show_is_hidden(page->config, i)) {
        put_comment(page, i, indent, "not shown");
        return;
    }
    if (config_settings[i].key == NULL)
        return;
    value = config_show_value(page->config, i);
    if (value == NULL)
        page->failed = err_sys(page->err, ENOMEM, "cannot show the settings") < 0;
    else if (json_is_null(value))
        put_comment(page, i, indent, "unset");
    else
        put_value(page, i, value, indent);
    json_decref(value);
}

static void put_section(struct page *page, size_t first, bool said_only)
{
    int len = (int)config_section_len(first);
    bool has_head = len == 0;

    for (size_t i = first; i < CONFIG_SETTING_COUNT; i++) {
        if (!config_same_section(i, first) ||
            (said_only && !config_show_is_said(page->config, i)))
            continue;
        if (!has_head) {
            char head[CONFIG_KEY_SIZE];

            snprintf(head, sizeof head, "%.*s:", len, config_settings[first].key);
            put(page, head);
            end_line(page);
            has_head = true;
        }
        put_setting(page, i, len == 0 ? 0 : 2);
    }
}

int config_show_yaml(const struct config *config, bool said_only, struct buf *ret,
                     struct err *err)
{
    struct page page = {.config = config, .out = ret, .err = err};

    buf_init(ret, CONFIG_SHOW_MAX_BYTES);
    for (size_t i = 0; i < CONFIG_SETTING_COUNT; i++) {
        if (config_begins_section(i))
            put_section(&page, i, said_only);
    }
    return page.failed ? -1 : 0;
}
