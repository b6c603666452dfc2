/*
 * log prefix: a small process that puts a prefix before every line of another one's
 * output, or makes JSON of it.
 */
#ifndef CM_APP_LOG_PREFIX_H
#define CM_APP_LOG_PREFIX_H

#include "base/err.h"

/*
 * From now on standard output and error of this process, and of what it becomes by exec,
 * go through the prefixer, a bystander. It ends when the last writer has closed the pipe.
 */
int log_prefix_attach(const char *prefix, struct err *err);

/*
 * The same for lines of JSON (domain/log_json.h): each is said by `program`, at the level that nginx's
 * error log names. What is a JSON object already is left as it is.
 */
int log_prefix_attach_json(const char *program, struct err *err);

#endif
