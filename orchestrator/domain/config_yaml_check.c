/*
 * config_yaml_check: what the document interface of libyaml does not show: encoding, anchors, tags,
 * aliases, depth and the number of documents.
 */
#include "base/text.h"
#include "domain/config_yaml.h"

#include <string.h>

enum { NESTING_MAX = 8 };

void config_yaml_start_parser(yaml_parser_t *parser, const char *yaml, size_t len)
{
    static const char mark[] = "\xef\xbb\xbf";

    /* The mark of byte order is no column. */
    if (len >= sizeof mark - 1 && memcmp(yaml, mark, sizeof mark - 1) == 0) {
        yaml += sizeof mark - 1;
        len -= sizeof mark - 1;
    }
    yaml_parser_set_input_string(parser, (const unsigned char *)yaml, len);
    yaml_parser_set_encoding(parser, YAML_UTF8_ENCODING);
}

/* ---- what libyaml says, in words for the people who write such files ---- */

struct saying {
    const char *problem;
    const char *context; /* NULL: in any */
    bool at_start;       /* where it begins is what has to be looked at */
    const char *text;
};

static const struct saying sayings[] = {
    {"found unexpected end of stream", "while scanning a quoted scalar", true,
     "the quote that opens here is not closed"},
    {"found unexpected document indicator", "while scanning a quoted scalar", true,
     "the quote that opens here is not closed"},
    {"found unknown escape character", NULL, false,
     "no such escape; in double quotes a backslash begins one: write the text in single "
     "quotes"},
    {"did not find expected alphabetic or numeric character", "while scanning an alias",
     true, "a value that begins with * needs quotes"},
    {"did not find expected alphabetic or numeric character", "while scanning an anchor",
     true, "a value that begins with & needs quotes"},
    {"mapping values are not allowed in this context", NULL, false,
     "a colon that does not belong here: is a blank missing behind that of the line "
     "above, is this line indented too far, or does a value need quotes?"},
    {"could not find expected ':'", "while scanning a simple key", true,
     "expected \"key: value\", found no colon"},
    {"did not find expected key", NULL, false,
     "expected a key, indented like those before it"},
    {"did not find expected '-' indicator", NULL, false,
     "expected \"- \" and an item, indented like those before it"},
    {"did not find expected ',' or ']'", NULL, true,
     "the [ that opens here is not closed, or a comma is missing behind it"},
    {"did not find expected ',' or '}'", NULL, true,
     "the { that opens here is not closed, or a comma is missing behind it"},
    {"did not find expected node content", NULL, false, "a value is missing here"},
    {"did not find expected <document start>", NULL, false,
     "this belongs to nothing before it: is it indented less, or a bracket too much?"},
    {"found a tab character that violates indentation", NULL, false,
     "a tab; indent with blanks"},
    {"found a tab character where an indentation space is expected", NULL, false,
     "a tab; indent with blanks"},
};

static const struct saying *find_saying(const yaml_parser_t *parser)
{
    for (size_t i = 0; i < sizeof sayings / sizeof sayings[0]; i++) {
        const struct saying *saying = &sayings[i];

        if (strcmp(saying->problem, parser->problem) == 0 &&
            (saying->context == NULL ||
             (parser->context != NULL && strcmp(saying->context, parser->context) == 0)))
            return saying;
    }
    return NULL;
}

/*
 * The byte at the mark; 0 at the end of the text. Its index counts characters: lines are no help, as YAML
 * ends them in five ways.
 */
static char byte_at(const char *text, size_t len, yaml_mark_t mark)
{
    size_t at = 0;

    for (size_t left = mark.index; at < len && left > 0; left--) {
        unsigned code;
        size_t size = text_character(text + at, len - at, &code);

        at += size > 0 ? size : 1;
    }
    if (at >= len)
        return '\0';
    return text[at];
}

/* What a single character gives away; whether that is all there is to say. */
static bool report_character(struct config_load *load, const yaml_parser_t *parser)
{
    static const char bad_token[] = "found character that cannot start any token";
    const char *text = (const char *)parser->input.string.start;
    size_t len = (size_t)(parser->input.string.end - parser->input.string.start);
    char byte = byte_at(text, len, parser->problem_mark);
    bool is_token = strcmp(parser->problem, bad_token) == 0;

    if (byte == '\t' && is_token)
        config_error(load, AT_FORMAT "a tab; indent with blanks",
                     AT(load, parser->problem_mark));
    else if (is_token)
        config_error(load, AT_FORMAT "a value that begins with %c needs quotes",
                     AT(load, parser->problem_mark), byte);
    else if (byte == ']' || byte == '}')
        config_error(load, AT_FORMAT "a %c that nothing opened",
                     AT(load, parser->problem_mark), byte);
    else
        return false;
    return true;
}

void config_yaml_report_syntax(struct config_load *load, const yaml_parser_t *parser)
{
    const struct saying *saying;

    if (parser->error == YAML_MEMORY_ERROR || parser->problem == NULL) {
        config_lacks_memory(load, load->reading);
        return;
    }
    if (report_character(load, parser))
        return;
    saying = find_saying(parser);
    if (saying != NULL)
        config_error(load, AT_FORMAT "%s",
                     AT(load, saying->at_start && parser->context != NULL
                                  ? parser->context_mark
                                  : parser->problem_mark),
                     saying->text);
    else if (parser->context != NULL)
        config_error(load, AT_FORMAT "%s: %s", AT(load, parser->problem_mark),
                     parser->context, parser->problem);
    else
        config_error(load, AT_FORMAT "%s", AT(load, parser->problem_mark),
                     parser->problem);
}

/* ---- what it does not say ---- */

/* The mark of byte order of UTF-16, which editors of Windows put before their text. */
static bool is_utf16(const char *yaml, size_t len)
{
    return len >= 2 &&
           (memcmp(yaml, "\xff\xfe", 2) == 0 || memcmp(yaml, "\xfe\xff", 2) == 0);
}

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
            config_error(load, "%s:%zu:%zu: not valid UTF-8%s", load->reading, line,
                         column,
                         is_utf16(yaml, len) ? ", but UTF-16; save it as UTF-8" : "");
            return false;
        }
        if (code == 0xfffe || code == 0xffff) {
            config_error(load, "%s:%zu:%zu: U+%04X is no character", load->reading, line,
                         column, code);
            return false;
        }
        if (text_is_control(code) && code != '\n' && code != '\r' && code != '\t') {
            config_error(load, "%s:%zu:%zu: control character 0x%02x", load->reading,
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

static void refuse_anchor(struct config_load *load, const yaml_event_t *event,
                          const yaml_char_t *anchor, const yaml_char_t *tag)
{
    if (anchor != NULL)
        config_error(load, AT_FORMAT "anchors are not allowed: write the value out",
                     AT(load, event->start_mark));
    if (tag != NULL)
        config_error(load, AT_FORMAT "tags are not allowed", AT(load, event->start_mark));
}

/* One event of the first pass; false ends it. */
static bool check_event(struct config_load *load, const yaml_event_t *event,
                        unsigned *depth, unsigned *documents)
{
    switch (event->type) {
    case YAML_DOCUMENT_START_EVENT:
        if (++*documents > 1) {
            config_error(load, AT_FORMAT "a second document; one is allowed",
                         AT(load, event->start_mark));
            return false;
        }
        return true;
    case YAML_ALIAS_EVENT:
        config_error(load, AT_FORMAT "aliases are not allowed: write the value out",
                     AT(load, event->start_mark));
        return true;
    case YAML_SCALAR_EVENT:
        refuse_anchor(load, event, event->data.scalar.anchor, event->data.scalar.tag);
        return true;
    case YAML_SEQUENCE_START_EVENT:
    case YAML_MAPPING_START_EVENT:
        refuse_anchor(load, event, event->data.sequence_start.anchor,
                      event->data.sequence_start.tag);
        if (++*depth > NESTING_MAX) {
            config_error(load, AT_FORMAT "nested more than %d deep",
                         AT(load, event->start_mark), NESTING_MAX);
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
static bool check_events(struct config_load *load, const char *yaml, size_t len)
{
    yaml_parser_t parser;
    yaml_event_t event;
    unsigned depth = 0;
    unsigned documents = 0;
    bool more = true;
    bool whole = false;

    if (yaml_parser_initialize(&parser) == 0) {
        config_lacks_memory(load, load->reading);
        return false;
    }
    config_yaml_start_parser(&parser, yaml, len);
    while (more) {
        if (yaml_parser_parse(&parser, &event) == 0) {
            config_yaml_report_syntax(load, &parser);
            break;
        }
        whole = event.type == YAML_STREAM_END_EVENT;
        /* To load a document takes libyaml the square of its anchors: not of a file full of them. */
        more = check_event(load, &event, &depth, &documents) && !config_errors_full(load);
        yaml_event_delete(&event);
    }
    yaml_parser_delete(&parser);
    return whole;
}

bool config_yaml_check(struct config_load *load, const char *yaml, size_t len)
{
    return check_characters(load, yaml, len) && check_events(load, yaml, len);
}
