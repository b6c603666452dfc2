/*
 * log prefix: a small process that puts a prefix before every line of another one's
 * output.
 */
#ifndef CM_APP_LOG_PREFIX_H
#define CM_APP_LOG_PREFIX_H

#include "base/err.h"

/*
 * From now on standard output and error of this process, and of what it becomes by exec,
 * go through the prefixer. It is forked twice, so that it is no child of the caller:
 * nginx's master would report the end of a child that it does not know. It ends when the
 * last writer has closed the pipe.
 */
int log_prefix_attach(const char *prefix, struct err *err);

#endif
