/*
 * config_yaml: what config_yaml_check.c (the text as such) and config_yaml.c (its settings) share.
 */
#ifndef CM_DOMAIN_CONFIG_YAML_H
#define CM_DOMAIN_CONFIG_YAML_H

#include "domain/config_internal.h"

#include <stdbool.h>
#include <stddef.h>
#include <yaml.h>

/* Where a mark of libyaml is, for config_error(). It counts from 0, people from 1. */
#define AT_FORMAT "%s:%zu:%zu: "
#define AT(load, mark) (load)->reading, (mark).line + 1, (mark).column + 1

/* Whether the text can be loaded as a document; otherwise the reasons are in the report. */
bool config_yaml_check(struct config_load *load, const char *yaml, size_t len);

void config_yaml_start_parser(yaml_parser_t *parser, const char *yaml, size_t len);
void config_yaml_report_syntax(struct config_load *load, const yaml_parser_t *parser);

#endif
