/*
 * control_follow: what comes of something that the daemon was asked for (its answer was 202), as it tells
 * in its status. Blocking, like control_client.
 */
#ifndef CM_APP_CONTROL_FOLLOW_H
#define CM_APP_CONTROL_FOLLOW_H

#include "base/err.h"
#include "domain/config.h"

#include <jansson.h>

struct control_follow {
    const struct config *config;
    const char *kind; /* as the status has it below "requests": "renew" */
    /* What is waited for, or at work, each time that it is something else; NULL: is not told. */
    void (*progress)(const char *text);
};

/*
 * `accepted` is the answer, as a JSON object. 0 when it is done, and what came of it in `ret_text`;
 * ERR_PEER when it failed, and with why, or when the daemon was started again meanwhile; else as
 * control_ask().
 */
int control_follow(const struct control_follow *follow, const json_t *accepted,
                   char ret_text[ERR_MESSAGE_MAX], struct err *err);

#endif
