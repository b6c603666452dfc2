/*
 * json_text: a JSON value as the text of a file or an answer. Pure.
 */
#ifndef CM_DOMAIN_JSON_TEXT_H
#define CM_DOMAIN_JSON_TEXT_H

#include "base/buf.h"
#include "base/err.h"

#include <jansson.h>

/*
 * Appended to `ret`, indented by so many columns, with a newline at its end. `root` is consumed;
 * NULL, which is what jansson gives without memory, fails: ERR_SYS with `complaint`.
 */
int json_to_text(json_t *root, size_t indent, const char *complaint, struct buf *ret,
                 struct err *err);

/*
 * A text that comes from far, or was cut, as a string: what is no UTF-8 in it, for which jansson makes
 * none, is escaped. NULL without memory.
 */
json_t *json_of_text(const char *text);

#endif
