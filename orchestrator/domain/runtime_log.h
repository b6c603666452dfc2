/*
 * runtime log: dstack's own file of what RTMR3 was extended with since the boot, one JSON
 * object per line. Pure.
 *
 *     {"event":NAME,"payload":"<base64>"[,"version":2]}
 *
 * The guest agent makes the entries of RTMR3 in its event log out of it, for every quote anew.
 */
#ifndef CM_DOMAIN_RUNTIME_LOG_H
#define CM_DOMAIN_RUNTIME_LOG_H

#include "base/buf.h"
#include "base/err.h"
#include "domain/event_log.h"

#include <stddef.h>

/*
 * The line of an event with its line end, into `ret`, which is initialised here. ERR_PEER when
 * the name is not UTF-8.
 */
int runtime_log_line(struct buf *ret, int version, const struct event_content *content,
                     struct err *err);

/*
 * The whole file as an event log, with digests that are computed from it. ERR_PEER, with the
 * number of the line, for anything else, also for a last line that is not complete.
 */
int runtime_log_parse(const char *text, size_t len, struct event_log **ret,
                      struct err *err);

#endif
