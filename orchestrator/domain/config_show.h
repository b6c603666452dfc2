/*
 * config_show: the settings in force, and where each of them comes from: "default", the file with line
 * and column, a variable, or --set. Secrets never: neither they nor what may name them.
 */
#ifndef CM_DOMAIN_CONFIG_SHOW_H
#define CM_DOMAIN_CONFIG_SHOW_H

#include "base/buf.h"
#include "base/err.h"
#include "domain/config.h"

#include <jansson.h>
#include <stdbool.h>

/* A text grows by its escapes, and by what is said beside it. */
enum { CONFIG_SHOW_MAX_BYTES = 8 * 1024 * 1024 };

/*
 * As a file that could be loaded, with the origin as a comment behind each value. `said_only`: without
 * those that are as they are by default.
 */
int config_show_yaml(const struct config *config, bool said_only, struct buf *ret,
                     struct err *err);

/*
 * {"file": …, "settings": {"acme.email": {"value": …, "from": "variable", "variable": "EMAIL"}, …}}; values
 * as the file has them, null for what is unset. NULL without memory.
 */
json_t *config_show_json(const struct config *config, bool said_only);

/* Whether anybody has said anything of the setting, so that it is not as it is by default. */
bool config_says(const struct config *config, const char *key);

#endif
