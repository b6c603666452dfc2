/*
 * config_yaml_check: what the document interface of libyaml does not show: encoding, anchors, tags,
 * aliases, depth and the number of documents.
 */
#include "base/text.h"
#include "domain/config_yaml.h"

enum { NESTING_MAX = 8 };

void config_yaml_start_parser(yaml_parser_t *parser, const char *yaml, size_t len)
{
    yaml_parser_set_input_string(parser, (const unsigned char *)yaml, len);
    yaml_parser_set_encoding(parser, YAML_UTF8_ENCODING);
}

void config_yaml_report_syntax(struct config_load *load, const yaml_parser_t *parser)
{
    if (parser->error == YAML_MEMORY_ERROR || parser->problem == NULL)
        config_error(load, "%s: not enough memory to read it", load->reading);
    else if (parser->context != NULL)
        config_error(load, AT_FORMAT "%s: %s", AT(load, parser->problem_mark),
                     parser->context, parser->problem);
    else
        config_error(load, AT_FORMAT "%s", AT(load, parser->problem_mark),
                     parser->problem);
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
            config_error(load, "%s:%zu:%zu: not valid UTF-8", load->reading, line,
                         column);
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
        config_error(load, "%s: not enough memory to read it", load->reading);
        return false;
    }
    config_yaml_start_parser(&parser, yaml, len);
    while (more) {
        if (yaml_parser_parse(&parser, &event) == 0) {
            config_yaml_report_syntax(load, &parser);
            break;
        }
        whole = event.type == YAML_STREAM_END_EVENT;
        more = check_event(load, &event, &depth, &documents);
        yaml_event_delete(&event);
    }
    yaml_parser_delete(&parser);
    return whole;
}

bool config_yaml_check(struct config_load *load, const char *yaml, size_t len)
{
    return check_characters(load, yaml, len) && check_events(load, yaml, len);
}
