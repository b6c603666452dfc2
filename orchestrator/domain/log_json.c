#include "domain/log_json.h"

#include "base/text.h"
#include "domain/json_text.h"

#include <ctype.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

enum { TIME_SIZE = 32, ESCAPED_SIZE = 512 };

static json_t *time_of(int64_t seconds, const char *fraction)
{
    time_t when = (time_t)seconds;
    struct tm parts;
    char date[TIME_SIZE];
    char text[2 * TIME_SIZE];

    if (gmtime_r(&when, &parts) == NULL ||
        strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &parts) == 0)
        return json_null();
    snprintf(text, sizeof text, "%s%sZ", date, fraction);
    return json_string(text);
}

static void set_text(json_t *root, const char *key, const char *text)
{
    if (text != NULL)
        json_object_set_new(root, key, json_string(text));
}

/* For what may be any bytes. */
static void set_escaped(json_t *root, const char *key, const char *text)
{
    char escaped[ESCAPED_SIZE];

    text_escape(escaped, sizeof escaped, text, strlen(text));
    set_text(root, key, escaped);
}

static json_t *object_of(const struct log_record *record)
{
    const struct log_fields *fields = &record->fields;
    char fraction[TIME_SIZE];
    json_t *root = json_object();

    snprintf(fraction, sizeof fraction, ".%03ld", record->at.tv_nsec / 1000000);
    json_object_set_new(root, "time", time_of(record->at.tv_sec, fraction));
    json_object_set_new(root, "level", json_string(log_level_setting(record->level)));
    set_escaped(root, "program", record->program); /* a word of a command line */
    set_text(root, "msg", record->text);
    set_text(root, "flow", record->place.flow);
    set_text(root, "step", record->place.step);
    if (fields->failure != NULL)
        set_text(root, "kind", err_kind_name(fields->failure->kind));
    if (fields->attempt != 0)
        json_object_set_new(root, "attempt", json_integer(fields->attempt));
    if (fields->next != 0)
        json_object_set_new(root, "next", time_of(fields->next, ""));
    if (fields->hint != NULL && fields->hint[0] != '\0')
        set_escaped(root, "hint", fields->hint);
    return root;
}

size_t log_json(char *line, size_t size, const struct log_record *record)
{
    static const char lost[] =
        "{\"level\":\"fatal\",\"program\":\"cert-manager\",\"msg\":\"a line of the log "
        "is lost: no memory\"}";
    json_t *root = object_of(record);
    size_t len = root == NULL ? 0 : json_dumpb(root, line, size, JSON_COMPACT);

    json_decref(root);
    if (len > 0 && len < size)
        return len;
    return (size_t)snprintf(line, size, "%s", lost);
}

bool log_json_is_line(const char *line, size_t len)
{
    json_t *root;
    bool good;

    if (len == 0 || line[0] != '{')
        return false;
    root = json_load_whole(line, len, 0, NULL);
    good = json_is_object(root);
    json_decref(root);
    return good;
}

/* "2026/11/23 18:49:35 [warn] 12#12: …" */
enum log_level log_json_level_of(const char *line, size_t len)
{
    static const struct {
        const char *name;
        enum log_level level;
    } levels[] = {
        {"[emerg] ", LOG_FATAL}, {"[alert] ", LOG_ERROR},  {"[crit] ", LOG_ERROR},
        {"[error] ", LOG_ERROR}, {"[warn] ", LOG_WARNING}, {"[notice] ", LOG_INFO},
        {"[debug] ", LOG_DEBUG},
    };
    static const char date[] = "dddd/dd/dd dd:dd:dd ";
    size_t used = sizeof date - 1;

    for (size_t i = 0; i < used; i++) {
        if (i >= len ||
            (date[i] == 'd' ? isdigit((unsigned char)line[i]) == 0 : line[i] != date[i]))
            return LOG_INFO;
    }
    for (size_t i = 0; i < sizeof levels / sizeof levels[0]; i++) {
        size_t name_len = strlen(levels[i].name);

        if (len - used >= name_len && memcmp(line + used, levels[i].name, name_len) == 0)
            return levels[i].level;
    }
    return LOG_INFO;
}
