/*
 * log_json: lines of the log as JSON, one object each. Pure.
 *
 *     {"time":"2026-11-23T18:49:35.401Z","level":"error","program":"cert-manager","msg":"…",
 *      "flow":"issue","step":"run certbot","kind":"peer","attempt":2,
 *      "next":"2026-11-23T18:59:35Z","hint":"…"}
 *
 * `msg` is the text of the text form. What is not known of a line is left out. Times are RFC 3339,
 * always UTC.
 */
#ifndef CM_DOMAIN_LOG_JSON_H
#define CM_DOMAIN_LOG_JSON_H

#include "base/log.h"

#include <stdbool.h>
#include <stddef.h>

/* A log_form. */
size_t log_json(char *line, size_t size, const struct log_record *record);

/* Whether the line is one JSON object already. */
bool log_json_is_line(const char *line, size_t len);

/* What nginx says of a line of its error log ("[warn]"); info for any other line. */
enum log_level log_json_level_of(const char *line, size_t len);

#endif
