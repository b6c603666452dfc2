/*
 * control_client: what commands ask the daemon of this machine, over its control socket
 * (app/daemon_control.c). Blocking; needs no event loop, and http_setup is done here.
 */
#ifndef CM_APP_CONTROL_CLIENT_H
#define CM_APP_CONTROL_CLIENT_H

#include "base/buf.h"
#include "base/err.h"
#include "domain/config.h"

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

struct control_question {
    const char *method; /* "GET", "POST" */
    const char *path;   /* "/v1/status" */
    const char *body;   /* JSON, or NULL */
    size_t body_len;
    unsigned timeout_ms; /* 0: ten seconds */
};

struct control_answer {
    int status;
    struct buf body; /* wiped when freed */
};

/*
 * 0 with any status, to be released by control_answer_done; -1: ERR_NET when no daemon answers, with
 * the errno of the connect where that is known, and what to do about it; ERR_TIMEOUT, ERR_PEER. `ret` need not be initialised, and needs no release
 * after a failure.
 */
int control_ask(const struct config *config, const struct control_question *question,
                struct control_answer *ret, struct err *err);
void control_answer_done(struct control_answer *answer);

/*
 * The same, for what has to be answered with a JSON object and a status of 2xx: a new reference into
 * `ret`. Any other status is an error with what the daemon said, and the status as its code: ERR_CONFIG for
 * 4xx, else ERR_PEER.
 */
int control_ask_json(const struct config *config, const struct control_question *question,
                     json_t **ret, struct err *err);

/* A member of what it says; "" when it is none, or no text. */
const char *control_text(const json_t *object, const char *member);

/* For those who ask again and again: seconds that only go on, and a short rest. */
int64_t control_now(void);
void control_rest(void);

#endif
