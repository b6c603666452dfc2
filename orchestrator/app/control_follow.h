/*
 * control_follow: what comes of something that the daemon was asked for (its answer was 202), as it tells
 * in its status. Blocking, like control_client.
 */
#ifndef CM_APP_CONTROL_FOLLOW_H
#define CM_APP_CONTROL_FOLLOW_H

#include "base/err.h"
#include "domain/config.h"

#include <jansson.h>

/*
 * `kind` is that of the status, "renew", and `accepted` the answer. What is waited for, or at work, is
 * printed each time that it is something else, and in the end what came of it. ERR_PEER when it failed,
 * with why, or when the daemon was started again meanwhile; else as control_ask().
 */
int control_follow(const struct config *config, const char *kind, const json_t *accepted,
                   struct err *err);

#endif
