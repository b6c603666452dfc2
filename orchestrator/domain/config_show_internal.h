/*
 * config_show_internal: what config_show.c (values, JSON) and config_show_yaml.c share.
 */
#ifndef CM_DOMAIN_CONFIG_SHOW_INTERNAL_H
#define CM_DOMAIN_CONFIG_SHOW_INTERNAL_H

#include "domain/config_internal.h"
#include "domain/config_show.h"

/* As the file would have it; JSON's null: it is unset. NULL without memory. */
json_t *config_show_value(const struct config *config, size_t i);

/* Of a secret, and of what may name one, nothing is shown but whether it is there. */
bool config_show_is_hidden(const struct config *config, size_t i);

/* By somebody: file, environment or command line. */
bool config_show_is_said(const struct config *config, size_t i);

#endif
