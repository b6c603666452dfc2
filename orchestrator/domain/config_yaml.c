#include "domain/config_yaml.h"

#include "base/guess.h"

#include <stdio.h>
#include <string.h>

struct walk {
    struct config_load *load;
    yaml_document_t document;
    /* Line of each section's key, at the index of the section's first setting. */
    size_t section_lines[CONFIG_SETTING_COUNT];
};

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

/* What a text that should be "key: value" lacks. */
static const char *advice_on(const yaml_node_t *node)
{
    const char *text = is_plain(node) ? text_of(node) : "";
    size_t len = strcspn(text, ":=");

    if (text[len] == ':')
        return " (is the blank missing behind a colon?)";
    return text[len] == '=' ? "; write \"key: value\", not \"key=value\"" : "";
}

static void refuse_node(struct walk *walk, const struct config_setting *setting,
                        const yaml_node_t *node, const char *found)
{
    char expected[CONFIG_EXPECTED_SIZE];

    config_error(walk->load, AT_FORMAT "%s: found %s, expected %s",
                 AT(walk->load, node->start_mark), setting->key, found,
                 config_expected(expected, setting, CONFIG_FROM_YAML));
}

/* The same for what is to be a single value: the item of a list, too. */
static void refuse_item(struct walk *walk, const struct config_setting *setting,
                        const yaml_node_t *node, const char *found)
{
    char expected[CONFIG_EXPECTED_SIZE];

    config_error(walk->load, AT_FORMAT "%s: found %s, expected %s",
                 AT(walk->load, node->start_mark), setting->key, found,
                 config_expected_item(expected, setting, CONFIG_FROM_YAML));
}

/* Whether the text could stand in brackets as it is, as a list. */
static bool is_simple(const yaml_node_t *node)
{
    enum { LONGEST = 60 };
    static const char allowed[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.:/-_, ";

    return is_plain(node) && !is_nothing(node) && node->data.scalar.length <= LONGEST &&
           text_of(node)[strspn(text_of(node), allowed)] == '\0';
}

/* What is no list, where one has to be. */
static void refuse_list(struct walk *walk, const struct config_setting *setting,
                        const yaml_node_t *node)
{
    char expected[CONFIG_EXPECTED_SIZE];

    if (!is_simple(node)) {
        refuse_node(walk, setting, node, is_nothing(node) ? "nothing" : kind_of(node));
        return;
    }
    config_error(walk->load,
                 AT_FORMAT "%s: found a text, expected %s (did you mean [%s]?)",
                 AT(walk->load, node->start_mark), setting->key,
                 config_expected(expected, setting, CONFIG_FROM_YAML), text_of(node));
}

/* A scalar into its field of `object`; for a list, one item. */
static bool set_scalar(struct walk *walk, void *object,
                       const struct config_setting *setting, const yaml_node_t *node)
{
    struct err err = ERR_INIT;

    if (node->type != YAML_SCALAR_NODE) {
        refuse_item(walk, setting, node, kind_of(node));
        return false;
    }
    if (is_nothing(node)) {
        refuse_item(walk, setting, node, "nothing");
        return false;
    }
    if ((setting->type == CONFIG_BOOL || setting->type == CONFIG_COUNT) &&
        !is_plain(node)) {
        refuse_item(walk, setting, node, "a text in quotes");
        return false;
    }
    if (config_value_set(object, setting, CONFIG_FROM_YAML, text_of(node),
                         node->data.scalar.length, &err) < 0) {
        config_error_of(walk->load, &err, AT_FORMAT "%s: %s",
                        AT(walk->load, node->start_mark), setting->key, err.message);
        return false;
    }
    return true;
}

static bool set_list(struct walk *walk, const struct config_setting *setting,
                     const yaml_node_t *node)
{
    bool good = true;

    if (node->type != YAML_SEQUENCE_NODE) {
        refuse_list(walk, setting, node);
        return false;
    }
    config_value_clear(walk->load->config, setting);
    for (const yaml_node_item_t *item = node->data.sequence.items.start;
         item < node->data.sequence.items.top && !config_errors_full(walk->load);
         item++) {
        const yaml_node_t *entry = yaml_document_get_node(&walk->document, *item);

        /* Told once, and not of each that is too many. */
        if (config_list_is_full(walk->load->config, setting)) {
            config_error(walk->load, AT_FORMAT "%s: more than %zu items",
                         AT(walk->load, entry->start_mark), setting->key,
                         config_list_max(setting));
            return false;
        }
        good = set_scalar(walk, walk->load->config, setting, entry) && good;
    }
    return good;
}

/* ---- lists of mappings ---- */

/* What the entries of one list have in common. */
struct entry_kind {
    enum config_type type;
    const char *noun;
    const char *nouns;
    const char *expected;
    const struct config_setting *settings;
    size_t setting_count;
    int max;
    /* One more, where the mark is, or NULL without memory. */
    void *(*add)(struct config *config, yaml_mark_t mark);
    size_t (*count)(const struct config *config);
};

enum { ENTRY_SETTINGS_MAX = 16 };
_Static_assert((int)CONFIG_ROUTE_SETTING_COUNT <= ENTRY_SETTINGS_MAX &&
                   (int)CONFIG_AUTHORITY_SETTING_COUNT <= ENTRY_SETTINGS_MAX,
               "an entry has more keys than are kept count of");

static void *add_route(struct config *config, yaml_mark_t mark)
{
    struct config_route *route = config_route_add(&config->routes);

    if (route != NULL) {
        route->line = mark.line + 1;
        route->column = mark.column + 1;
    }
    return route;
}

static size_t count_routes(const struct config *config)
{
    return config->routes.count;
}

static void *add_authority(struct config *config, yaml_mark_t mark)
{
    struct authority *authority = config_authority_add(&config->acme.authorities);

    authority->line = mark.line + 1;
    authority->column = mark.column + 1;
    return authority;
}

/* The main one does not stand in the list. */
static size_t count_fallbacks(const struct config *config)
{
    size_t count = config->acme.authorities.count;

    return count == 0 ? 0 : count - 1;
}

static const struct entry_kind entry_kinds[] = {
    {CONFIG_ROUTES, "route", "routes", "a mapping with path and upstream",
     config_route_settings, CONFIG_ROUTE_SETTING_COUNT, CONFIG_ROUTES_MAX, add_route,
     count_routes},
    {CONFIG_AUTHORITIES, "CA", "CAs", "a mapping with directory",
     config_authority_settings, CONFIG_AUTHORITY_SETTING_COUNT, AUTHORITIES_MAX - 1,
     add_authority, count_fallbacks},
};

static const struct entry_kind *find_entry_kind(enum config_type type)
{
    for (size_t i = 0; i < sizeof entry_kinds / sizeof entry_kinds[0]; i++) {
        if (entry_kinds[i].type == type)
            return &entry_kinds[i];
    }
    return NULL;
}

static const struct config_setting *find_entry_setting(const struct entry_kind *kind,
                                                       const yaml_node_t *key)
{
    for (size_t i = 0; i < kind->setting_count; i++) {
        const char *name = kind->settings[i].key;

        if (key->type == YAML_SCALAR_NODE && strlen(name) == key->data.scalar.length &&
            memcmp(name, text_of(key), key->data.scalar.length) == 0)
            return &kind->settings[i];
    }
    return NULL;
}

static void report_unknown_of_entry(struct walk *walk, const struct entry_kind *kind,
                                    const yaml_node_t *key)
{
    char quoted[CONFIG_QUOTED_SIZE];
    struct guess guess;

    if (key->type != YAML_SCALAR_NODE) {
        config_error(walk->load, AT_FORMAT "found %s as a key, expected a name",
                     AT(walk->load, key->start_mark), kind_of(key));
        return;
    }
    guess = guess_of(text_of(key));
    for (size_t i = 0; i < kind->setting_count; i++)
        guess_try(&guess, kind->settings[i].key);
    config_quoted(quoted, text_of(key), key->data.scalar.length);
    if (guess.name != NULL)
        config_error(walk->load,
                     AT_FORMAT "unknown key %s of a %s (did you mean \"%s\"?)",
                     AT(walk->load, key->start_mark), quoted, kind->noun, guess.name);
    else
        config_error(walk->load, AT_FORMAT "unknown key %s of a %s",
                     AT(walk->load, key->start_mark), quoted, kind->noun);
}

/* The keys of one entry. `seen`: those that stood there already. */
static bool set_entry_pair(struct walk *walk, const struct entry_kind *kind, void *entry,
                           const yaml_node_pair_t *pair, bool seen[ENTRY_SETTINGS_MAX])
{
    const yaml_node_t *key = yaml_document_get_node(&walk->document, pair->key);
    const yaml_node_t *value = yaml_document_get_node(&walk->document, pair->value);
    const struct config_setting *setting = find_entry_setting(kind, key);

    if (setting == NULL) {
        report_unknown_of_entry(walk, kind, key);
        return false;
    }
    if (seen[setting - kind->settings]) {
        config_error(walk->load, AT_FORMAT "key \"%s\" appears twice in this %s",
                     AT(walk->load, key->start_mark), setting->key, kind->noun);
        return false;
    }
    seen[setting - kind->settings] = true;
    return set_scalar(walk, entry, setting, value);
}

static bool set_entry(struct walk *walk, const struct entry_kind *kind,
                      const yaml_node_t *node)
{
    bool seen[ENTRY_SETTINGS_MAX] = {false};
    bool good = true;
    void *entry;

    if (node->type != YAML_MAPPING_NODE) {
        config_error(walk->load, AT_FORMAT "found %s, expected %s",
                     AT(walk->load, node->start_mark),
                     is_nothing(node) ? "nothing" : kind_of(node), kind->expected);
        return false;
    }
    entry = kind->add(walk->load->config, node->start_mark);
    if (entry == NULL) {
        config_lacks_memory(walk->load, kind->noun);
        return false;
    }
    for (const yaml_node_pair_t *pair = node->data.mapping.pairs.start;
         pair < node->data.mapping.pairs.top && !config_errors_full(walk->load); pair++)
        good = set_entry_pair(walk, kind, entry, pair, seen) && good;
    for (size_t i = 0; i < kind->setting_count; i++) {
        if ((kind->settings[i].flags & CONFIG_REQUIRED) == 0 || seen[i])
            continue;
        config_error(walk->load, AT_FORMAT "this %s has no \"%s\"",
                     AT(walk->load, node->start_mark), kind->noun, kind->settings[i].key);
        good = false;
    }
    return good;
}

static bool set_entries(struct walk *walk, const struct config_setting *setting,
                        const struct entry_kind *kind, const yaml_node_t *node)
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
        const yaml_node_t *entry = yaml_document_get_node(&walk->document, *item);

        if (kind->count(walk->load->config) == (size_t)kind->max) {
            config_error(walk->load, AT_FORMAT "more than %d %s",
                         AT(walk->load, entry->start_mark), kind->max, kind->nouns);
            return false;
        }
        good = set_entry(walk, kind, entry) && good;
    }
    return good;
}

static bool set_value(struct walk *walk, const struct config_setting *setting,
                      const yaml_node_t *value)
{
    const struct entry_kind *kind = find_entry_kind(setting->type);

    if (kind != NULL)
        return set_entries(walk, setting, kind, value);
    if (config_is_list(setting))
        return set_list(walk, setting, value);
    return set_scalar(walk, walk->load->config, setting, value);
}

static void apply_setting(struct walk *walk, size_t i, const yaml_node_t *key,
                          const yaml_node_t *value)
{
    const struct config_setting *setting = &config_settings[i];
    struct config_origin *origin = &walk->load->origins[i];

    if (origin->line != 0) {
        config_error(walk->load, AT_FORMAT "key \"%s\" appears twice, first in line %zu",
                     AT(walk->load, key->start_mark), setting->key, origin->line);
        return;
    }
    origin->source = CONFIG_FROM_YAML;
    origin->line = value->start_mark.line + 1;
    origin->column = value->start_mark.column + 1;
    origin->bad = !set_value(walk, setting, value);
}

/* ---- keys ---- */

static void report_unknown(struct walk *walk, const yaml_node_t *key, const char *section)
{
    char quoted[CONFIG_QUOTED_SIZE];
    char path[CONFIG_KEY_SIZE];
    char meant[CONFIG_KEY_SIZE];
    int len = snprintf(path, sizeof path, "%s%s", section, text_of(key));
    bool whole = len >= 0 && (size_t)len < sizeof path &&
                 strlen(text_of(key)) == key->data.scalar.length;

    walk->load->unread = true;
    if (is_plain(key) && strcmp(text_of(key), "<<") == 0) {
        config_error(walk->load, AT_FORMAT "merge keys are not allowed",
                     AT(walk->load, key->start_mark));
        return;
    }
    if (!whole)
        config_error(walk->load, AT_FORMAT "unknown key %s",
                     AT(walk->load, key->start_mark),
                     config_quoted(quoted, text_of(key), key->data.scalar.length));
    else if (config_suggest_key(path, meant) && strcmp(path, meant) == 0)
        /* "log.level: debug" instead of a section. */
        config_error(walk->load,
                     AT_FORMAT
                     "unknown key \"%s\": write \"%s\" inside the section \"%.*s\"",
                     AT(walk->load, key->start_mark), path, config_last_part(path),
                     (int)strcspn(path, "."), path);
    else if (config_suggest_key(path, meant))
        config_error(walk->load, AT_FORMAT "unknown key %s (did you mean \"%s\"?)",
                     AT(walk->load, key->start_mark),
                     config_quoted(quoted, path, (size_t)len), meant);
    else
        config_error(walk->load, AT_FORMAT "unknown key %s",
                     AT(walk->load, key->start_mark),
                     config_quoted(quoted, path, (size_t)len));
}

static void walk_section(struct walk *walk, size_t first, const yaml_node_t *key,
                         const yaml_node_t *value);

/* One key of the mapping; `section` ends with a dot, or is empty. */
static void walk_pair(struct walk *walk, const char *section, const yaml_node_t *key,
                      const yaml_node_t *value)
{
    char path[CONFIG_KEY_SIZE];
    size_t i;
    int len;

    if (key->type != YAML_SCALAR_NODE) {
        config_error(walk->load, AT_FORMAT "found %s as a key, expected a name",
                     AT(walk->load, key->start_mark), kind_of(key));
        walk->load->unread = true;
        return;
    }
    /* A name with a dot is no path: sections are mappings. */
    len = snprintf(path, sizeof path, "%s%s", section, text_of(key));
    if (len < 0 || (size_t)len >= sizeof path || strchr(text_of(key), '.') != NULL ||
        strlen(text_of(key)) != key->data.scalar.length)
        report_unknown(walk, key, section);
    else if (config_find_key(path, &i))
        apply_setting(walk, i, key, value);
    else if (config_find_section(path, &i))
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
    char section[CONFIG_KEY_SIZE];

    snprintf(section, sizeof section, "%.*s.", (int)strcspn(name, "."), name);
    if (*line != 0) {
        config_error(walk->load, AT_FORMAT "key \"%s\" appears twice, first in line %zu",
                     AT(walk->load, key->start_mark), text_of(key), *line);
        return;
    }
    *line = key->start_mark.line + 1;
    /* A section whose keys are all comments is empty. */
    if (is_nothing(value))
        return;
    if (value->type != YAML_MAPPING_NODE) {
        config_error(walk->load,
                     AT_FORMAT "%s: found %s, expected a mapping of settings%s",
                     AT(walk->load, value->start_mark), text_of(key), kind_of(value),
                     advice_on(value));
        walk->load->unread = true;
    } else {
        walk_mapping(walk, section, value);
    }
}

/* false: the reasons are in the report; otherwise yaml_document_delete() is due. */
static bool open_document(struct walk *walk, const char *yaml, size_t len)
{
    struct config_load *load = walk->load;
    yaml_parser_t parser;
    bool good;

    if (len > CONFIG_YAML_MAX_BYTES) {
        config_error(load, "%s: larger than the %d bytes allowed", load->reading,
                     CONFIG_YAML_MAX_BYTES);
        return false;
    }
    if (!config_yaml_check(load, yaml, len))
        return false;
    if (yaml_parser_initialize(&parser) == 0) {
        config_lacks_memory(load, load->reading);
        return false;
    }
    config_yaml_start_parser(&parser, yaml, len);
    good = yaml_parser_load(&parser, &walk->document) != 0;
    if (!good)
        config_yaml_report_syntax(load, &parser);
    yaml_parser_delete(&parser);
    return good;
}

void config_yaml_apply(struct config_load *load, const char *yaml, size_t len)
{
    struct walk walk = {.load = load};
    const yaml_node_t *root;

    load->reading = load->yaml_name;
    load->unread = true; /* until the document stands */
    if (!open_document(&walk, yaml, len))
        return;
    root = yaml_document_get_root_node(&walk.document);
    load->unread = false;
    if (len == 0)
        config_warn(load, "%s: is empty", load->reading);
    if (root != NULL && root->type == YAML_MAPPING_NODE) {
        walk_mapping(&walk, "", root);
    } else if (root != NULL && !is_nothing(root)) {
        config_error(load, AT_FORMAT "found %s, expected a mapping of settings%s",
                     AT(load, root->start_mark), kind_of(root), advice_on(root));
        load->unread = true;
    }
    yaml_document_delete(&walk.document);
}

bool config_yaml_set(struct config_load *load, size_t i, const char *yaml, size_t len)
{
    const struct config_setting *setting = &config_settings[i];
    struct walk walk = {.load = load};
    const yaml_node_t *root;
    char name[CONFIG_KEY_SIZE + sizeof "--set "];
    char expected[CONFIG_EXPECTED_SIZE];
    bool good;

    snprintf(name, sizeof name, "--set %s", setting->key);
    load->reading = name;
    if (!open_document(&walk, yaml, len))
        return false;
    root = yaml_document_get_root_node(&walk.document);
    good = root != NULL && set_value(&walk, setting, root);
    if (root == NULL)
        config_error(load, "%s: found nothing, expected %s, or []", name,
                     config_expected(expected, setting, CONFIG_FROM_FLAG));
    yaml_document_delete(&walk.document);
    return good;
}
