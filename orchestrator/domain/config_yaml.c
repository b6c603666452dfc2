#include "base/text.h"
#include "domain/config_internal.h"

#include <stdio.h>
#include <string.h>
#include <yaml.h>

enum { NESTING_MAX = 8, PATH_SIZE = 64 };

/* libyaml counts from 0, people from 1. */
#define AT_FORMAT "%s:%zu:%zu: "
#define AT(walk, mark) (walk)->load->yaml_name, (mark).line + 1, (mark).column + 1

struct walk {
    struct config_load *load;
    yaml_document_t document;
    /* Line of each section's key, at the index of the section's first setting. */
    size_t section_lines[CONFIG_SETTING_COUNT];
};

/* ---- before the document: what the document interface does not show ---- */

/* Encoding and characters, with line and column, which libyaml does not give for them. */
static bool check_characters(struct config_load *load, const char *yaml, size_t len)
{
    size_t line = 1;
    size_t column = 1;
    size_t size;

    for (size_t i = 0; i < len; i += size) {
        unsigned code;

        size = text_character(yaml + i, len - i, &code);
        if (size == 0) {
            config_error(load, "%s:%zu:%zu: not valid UTF-8", load->yaml_name, line,
                         column);
            return false;
        }
        if (text_is_control(code) && code != '\n' && code != '\r' && code != '\t') {
            config_error(load, "%s:%zu:%zu: control character 0x%02x", load->yaml_name,
                         line, column, code);
            return false;
        }
        column++;
        if (code == '\n') {
            line++;
            column = 1;
        }
    }
    return true;
}

static void start_parser(yaml_parser_t *parser, const char *yaml, size_t len)
{
    yaml_parser_set_input_string(parser, (const unsigned char *)yaml, len);
    yaml_parser_set_encoding(parser, YAML_UTF8_ENCODING);
}

static void report_syntax(struct walk *walk, const yaml_parser_t *parser)
{
    if (parser->error == YAML_MEMORY_ERROR || parser->problem == NULL)
        config_error(walk->load, "%s: not enough memory to read it",
                     walk->load->yaml_name);
    else if (parser->context != NULL)
        config_error(walk->load, AT_FORMAT "%s: %s", AT(walk, parser->problem_mark),
                     parser->context, parser->problem);
    else
        config_error(walk->load, AT_FORMAT "%s", AT(walk, parser->problem_mark),
                     parser->problem);
}

static void refuse_anchor(struct walk *walk, const yaml_event_t *event,
                          const yaml_char_t *anchor, const yaml_char_t *tag)
{
    if (anchor != NULL)
        config_error(walk->load, AT_FORMAT "anchors are not allowed: write the value out",
                     AT(walk, event->start_mark));
    if (tag != NULL)
        config_error(walk->load, AT_FORMAT "tags are not allowed",
                     AT(walk, event->start_mark));
}

/* One event of the first pass; false ends it. */
static bool check_event(struct walk *walk, const yaml_event_t *event, unsigned *depth,
                        unsigned *documents)
{
    switch (event->type) {
    case YAML_DOCUMENT_START_EVENT:
        if (++*documents > 1) {
            config_error(walk->load, AT_FORMAT "a second document; one is allowed",
                         AT(walk, event->start_mark));
            return false;
        }
        return true;
    case YAML_ALIAS_EVENT:
        config_error(walk->load, AT_FORMAT "aliases are not allowed: write the value out",
                     AT(walk, event->start_mark));
        return true;
    case YAML_SCALAR_EVENT:
        refuse_anchor(walk, event, event->data.scalar.anchor, event->data.scalar.tag);
        return true;
    case YAML_SEQUENCE_START_EVENT:
    case YAML_MAPPING_START_EVENT:
        refuse_anchor(walk, event, event->data.sequence_start.anchor,
                      event->data.sequence_start.tag);
        if (++*depth > NESTING_MAX) {
            config_error(walk->load, AT_FORMAT "nested more than %d deep",
                         AT(walk, event->start_mark), NESTING_MAX);
            return false;
        }
        return true;
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        --*depth;
        return true;
    default:
        return event->type != YAML_STREAM_END_EVENT;
    }
}

/* Whether the text can be loaded as a document. */
static bool check_events(struct walk *walk, const char *yaml, size_t len)
{
    yaml_parser_t parser;
    yaml_event_t event;
    unsigned depth = 0;
    unsigned documents = 0;
    bool more = true;
    bool whole = false;

    if (yaml_parser_initialize(&parser) == 0) {
        config_error(walk->load, "%s: not enough memory to read it",
                     walk->load->yaml_name);
        return false;
    }
    start_parser(&parser, yaml, len);
    while (more) {
        if (yaml_parser_parse(&parser, &event) == 0) {
            report_syntax(walk, &parser);
            break;
        }
        whole = event.type == YAML_STREAM_END_EVENT;
        more = check_event(walk, &event, &depth, &documents);
        yaml_event_delete(&event);
    }
    yaml_parser_delete(&parser);
    return whole;
}

/* ---- the document ---- */

static const char *kind_of(const yaml_node_t *node)
{
    if (node->type == YAML_SEQUENCE_NODE)
        return "a sequence";
    return node->type == YAML_MAPPING_NODE ? "a mapping" : "a text";
}

static const char *text_of(const yaml_node_t *scalar)
{
    return (const char *)scalar->data.scalar.value;
}

static bool is_plain(const yaml_node_t *node)
{
    return node->type == YAML_SCALAR_NODE &&
           node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
}

/* The key stands there, but nothing behind it. */
static bool is_nothing(const yaml_node_t *node)
{
    static const char *const words[] = {"", "~", "null", "Null", "NULL"};

    for (size_t i = 0; is_plain(node) && i < sizeof words / sizeof words[0]; i++) {
        if (strcmp(text_of(node), words[i]) == 0)
            return true;
    }
    return false;
}

static void refuse_node(struct walk *walk, const struct config_setting *setting,
                        const yaml_node_t *node, const char *found)
{
    char expected[CONFIG_EXPECTED_SIZE];

    config_error(walk->load, AT_FORMAT "%s: found %s, expected %s",
                 AT(walk, node->start_mark), setting->key, found,
                 config_expected(expected, setting, CONFIG_FROM_YAML));
}

/* A scalar into its setting; for a list, one item. */
static bool set_scalar(struct walk *walk, const struct config_setting *setting,
                       const yaml_node_t *node)
{
    struct err err = ERR_INIT;

    if (node->type != YAML_SCALAR_NODE) {
        refuse_node(walk, setting, node, kind_of(node));
        return false;
    }
    if (is_nothing(node)) {
        refuse_node(walk, setting, node, "nothing");
        return false;
    }
    if ((setting->type == CONFIG_BOOL || setting->type == CONFIG_COUNT) &&
        !is_plain(node)) {
        refuse_node(walk, setting, node, "a text in quotes");
        return false;
    }
    if (config_value_set(walk->load->config, setting, CONFIG_FROM_YAML, text_of(node),
                         node->data.scalar.length, &err) < 0) {
        config_error(walk->load, AT_FORMAT "%s: %s", AT(walk, node->start_mark),
                     setting->key, err.message);
        return false;
    }
    return true;
}

static bool set_list(struct walk *walk, const struct config_setting *setting,
                     const yaml_node_t *node)
{
    bool good = true;

    if (node->type != YAML_SEQUENCE_NODE) {
        refuse_node(walk, setting, node, is_nothing(node) ? "nothing" : kind_of(node));
        return false;
    }
    config_value_clear(walk->load->config, setting);
    for (const yaml_node_item_t *item = node->data.sequence.items.start;
         item < node->data.sequence.items.top && !config_errors_full(walk->load);
         item++) {
        if (!set_scalar(walk, setting, yaml_document_get_node(&walk->document, *item)))
            good = false;
    }
    return good;
}

static void apply_setting(struct walk *walk, size_t i, const yaml_node_t *key,
                          const yaml_node_t *value)
{
    const struct config_setting *setting = &config_settings[i];
    struct config_origin *origin = &walk->load->origins[i];

    if (origin->line != 0) {
        config_error(walk->load, AT_FORMAT "key \"%s\" appears twice, first in line %zu",
                     AT(walk, key->start_mark), setting->key, origin->line);
        return;
    }
    origin->source = CONFIG_FROM_YAML;
    origin->line = value->start_mark.line + 1;
    origin->column = value->start_mark.column + 1;
    origin->bad = setting->type == CONFIG_LIST ? !set_list(walk, setting, value)
                                               : !set_scalar(walk, setting, value);
}

/* ---- keys ---- */

static bool find_setting(const char *path, size_t *ret)
{
    for (size_t i = 0; i < CONFIG_SETTING_COUNT; i++) {
        if (config_settings[i].key != NULL && strcmp(config_settings[i].key, path) == 0) {
            *ret = i;
            return true;
        }
    }
    return false;
}

/* The first setting in the section `path`. */
static bool find_section(const char *path, size_t *ret)
{
    size_t len = strlen(path);

    for (size_t i = 0; i < CONFIG_SETTING_COUNT; i++) {
        const char *key = config_settings[i].key;

        if (key != NULL && strncmp(key, path, len) == 0 && key[len] == '.') {
            *ret = i;
            return true;
        }
    }
    return false;
}

static const char *last_part(const char *path)
{
    const char *dot = strrchr(path, '.');

    return dot == NULL ? path : dot + 1;
}

/*
 * The key that was probably meant: the one spelled nearly so, else the one of the same
 * name in another section. A section that was probably meant is named without its
 * settings.
 */
static bool suggest(const char *path, char ret[PATH_SIZE])
{
    unsigned least = strlen(path) < 5 ? 2 : 3;
    bool found = false;

    for (size_t i = 0; i < CONFIG_SETTING_COUNT; i++) {
        const char *key = config_settings[i].key;
        char section[PATH_SIZE];
        size_t len;

        if (key == NULL)
            continue;
        if (config_distance(path, key) < least) {
            least = config_distance(path, key);
            snprintf(ret, PATH_SIZE, "%s", key);
            found = true;
        }
        len = strcspn(key, ".");
        snprintf(section, sizeof section, "%.*s", (int)len, key);
        if (key[len] == '.' && config_distance(path, section) < least) {
            least = config_distance(path, section);
            snprintf(ret, PATH_SIZE, "%s", section);
            found = true;
        }
    }
    for (size_t i = 0; !found && i < CONFIG_SETTING_COUNT; i++) {
        const char *key = config_settings[i].key;

        if (key != NULL && strcmp(last_part(key), last_part(path)) == 0) {
            snprintf(ret, PATH_SIZE, "%s", key);
            found = true;
        }
    }
    return found;
}

static void report_unknown(struct walk *walk, const yaml_node_t *key, const char *section)
{
    char quoted[CONFIG_QUOTED_SIZE];
    char path[PATH_SIZE];
    char meant[PATH_SIZE];
    int len = snprintf(path, sizeof path, "%s%s", section, text_of(key));
    bool whole = len >= 0 && (size_t)len < sizeof path &&
                 strlen(text_of(key)) == key->data.scalar.length;

    walk->load->unread = true;
    if (is_plain(key) && strcmp(text_of(key), "<<") == 0) {
        config_error(walk->load, AT_FORMAT "merge keys are not allowed",
                     AT(walk, key->start_mark));
        return;
    }
    if (!whole)
        config_error(walk->load, AT_FORMAT "unknown key %s", AT(walk, key->start_mark),
                     config_quoted(quoted, text_of(key), key->data.scalar.length));
    else if (suggest(path, meant) && strcmp(path, meant) == 0)
        /* "log.level: debug" instead of a section. */
        config_error(walk->load,
                     AT_FORMAT
                     "unknown key \"%s\": write \"%s\" inside the section \"%.*s\"",
                     AT(walk, key->start_mark), path, last_part(path),
                     (int)strcspn(path, "."), path);
    else if (suggest(path, meant))
        config_error(walk->load, AT_FORMAT "unknown key %s (did you mean \"%s\"?)",
                     AT(walk, key->start_mark), config_quoted(quoted, path, (size_t)len),
                     meant);
    else
        config_error(walk->load, AT_FORMAT "unknown key %s", AT(walk, key->start_mark),
                     config_quoted(quoted, path, (size_t)len));
}

static void walk_section(struct walk *walk, size_t first, const yaml_node_t *key,
                         const yaml_node_t *value);

/* One key of the mapping; `section` ends with a dot, or is empty. */
static void walk_pair(struct walk *walk, const char *section, const yaml_node_t *key,
                      const yaml_node_t *value)
{
    char path[PATH_SIZE];
    size_t i;
    int len;

    if (key->type != YAML_SCALAR_NODE) {
        config_error(walk->load, AT_FORMAT "found %s as a key, expected a name",
                     AT(walk, key->start_mark), kind_of(key));
        walk->load->unread = true;
        return;
    }
    /* A name with a dot is no path: sections are mappings. */
    len = snprintf(path, sizeof path, "%s%s", section, text_of(key));
    if (len < 0 || (size_t)len >= sizeof path || strchr(text_of(key), '.') != NULL ||
        strlen(text_of(key)) != key->data.scalar.length)
        report_unknown(walk, key, section);
    else if (find_setting(path, &i))
        apply_setting(walk, i, key, value);
    else if (find_section(path, &i))
        walk_section(walk, i, key, value);
    else
        report_unknown(walk, key, section);
}

static void walk_mapping(struct walk *walk, const char *section,
                         const yaml_node_t *mapping)
{
    for (const yaml_node_pair_t *pair = mapping->data.mapping.pairs.start;
         pair < mapping->data.mapping.pairs.top && !config_errors_full(walk->load);
         pair++) {
        walk_pair(walk, section, yaml_document_get_node(&walk->document, pair->key),
                  yaml_document_get_node(&walk->document, pair->value));
    }
}

/* Never deeper than the table: a key below a setting is not looked at. */
static void walk_section(struct walk *walk, size_t first, const yaml_node_t *key,
                         const yaml_node_t *value)
{
    const char *name = config_settings[first].key;
    size_t *line = &walk->section_lines[first];
    char section[PATH_SIZE];

    snprintf(section, sizeof section, "%.*s.", (int)strcspn(name, "."), name);
    if (*line != 0) {
        config_error(walk->load, AT_FORMAT "key \"%s\" appears twice, first in line %zu",
                     AT(walk, key->start_mark), text_of(key), *line);
        return;
    }
    *line = key->start_mark.line + 1;
    /* A section whose keys are all comments is empty. */
    if (is_nothing(value))
        return;
    if (value->type != YAML_MAPPING_NODE) {
        config_error(walk->load, AT_FORMAT "%s: found %s, expected a mapping of settings",
                     AT(walk, value->start_mark), text_of(key), kind_of(value));
        walk->load->unread = true;
    } else {
        walk_mapping(walk, section, value);
    }
}

static void walk_document(struct walk *walk, const char *yaml, size_t len)
{
    const yaml_node_t *root;
    yaml_parser_t parser;

    if (yaml_parser_initialize(&parser) == 0) {
        config_error(walk->load, "%s: not enough memory to read it",
                     walk->load->yaml_name);
        return;
    }
    start_parser(&parser, yaml, len);
    if (yaml_parser_load(&parser, &walk->document) == 0) {
        report_syntax(walk, &parser);
        yaml_parser_delete(&parser);
        return;
    }
    root = yaml_document_get_root_node(&walk->document);
    walk->load->unread = false;
    if (root != NULL && root->type == YAML_MAPPING_NODE) {
        walk_mapping(walk, "", root);
    } else if (root != NULL && !is_nothing(root)) {
        config_error(walk->load, AT_FORMAT "found %s, expected a mapping of settings",
                     AT(walk, root->start_mark), kind_of(root));
        walk->load->unread = true;
    }
    yaml_document_delete(&walk->document);
    yaml_parser_delete(&parser);
}

void config_yaml_apply(struct config_load *load, const char *yaml, size_t len)
{
    struct walk walk = {.load = load};

    load->unread = true; /* until the document stands */
    if (len > CONFIG_YAML_MAX_BYTES)
        config_error(load, "%s: larger than the %d bytes allowed", load->yaml_name,
                     CONFIG_YAML_MAX_BYTES);
    else if (check_characters(load, yaml, len) && check_events(&walk, yaml, len))
        walk_document(&walk, yaml, len);
}
