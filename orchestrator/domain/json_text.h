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

/* Appended to `ret` with jansson's flags; whatever fails has an error, which jansson alone does not give. */
int json_append(const json_t *root, size_t flags, struct buf *ret, struct err *err);

/*
 * json_dumps(), which leaves out what it had no memory for, and goes on: NULL then, and for no `root`. No
 * other of jansson's functions makes texts of a size of their own here. Caller: wipe_free.
 */
char *json_dump_whole(const json_t *root, size_t flags);

/*
 * json_loadb(), which drops the bytes of a text that it had no memory for, and goes on: NULL then. No other
 * of jansson's functions reads texts here.
 */
json_t *json_load_whole(const char *text, size_t len, size_t flags,
                        json_error_t *ret_where);

/*
 * The text as JSON, with jansson's flags. NULL: ERR_CONFIG where it is none, ERR_SYS where there was no
 * memory to tell; jansson itself takes that for bad syntax.
 */
json_t *json_from_text(const char *text, size_t len, size_t flags, struct err *err);

/*
 * A text that comes from far, or was cut, as a string: what is no UTF-8 in it, for which jansson makes
 * none, is escaped. NULL without memory.
 */
json_t *json_of_text(const char *text);

#endif
