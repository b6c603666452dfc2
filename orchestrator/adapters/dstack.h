/*
 * dstack: calls of the guest agent, JSON over HTTP on a unix socket (v0 API, dstack 0.5
 * and later).
 *
 * Every failure names the socket, the method, what was found, and where it helps what to
 * do. Kinds: ERR_NET not there or refused, ERR_TIMEOUT, ERR_PEER an answer that is a
 * refusal (err->code is the HTTP status) or nonsense. Answers are bounded and wiped when
 * freed. Ownership and order of calls: done.h.
 */
#ifndef CM_ADAPTERS_DSTACK_H
#define CM_ADAPTERS_DSTACK_H

#include "base/secret.h"
#include "runtime/http.h"

enum { DSTACK_KEY_BYTES = 32, DSTACK_URL_SIZE = 512, DSTACK_WORD_SIZE = 64 };

struct dstack {
    struct http *http;
    const char *configured; /* path or http:// URL, or NULL: the first well-known path
                               that exists */
    unsigned timeout_ms;
};

struct dstack_call {
    /* Results, valid in done until dstack_call_done. */
    struct secret *key; /* dstack_get_key: DSTACK_KEY_BYTES bytes */
    char *tcb_info;     /* dstack_info: JSON text */
    char *quote;        /* dstack_get_quote: the whole answer, a JSON object */
    char version[DSTACK_WORD_SIZE];  /* dstack_version: "" from one before 0.5.7 */
    char app_name[DSTACK_WORD_SIZE]; /* dstack_info: of the application, "" for none */

    /* Private. */
    struct http_call http;
    const char *method;
    char url[DSTACK_URL_SIZE];
    char endpoint[DSTACK_URL_SIZE]; /* what messages call the agent */
    char *body;
    int (*read)(struct dstack_call *call, const char *body, struct err *err);
    done_fn done;
    void *owner;
};

/* GetKey for a derivation path. */
void dstack_get_key(struct dstack_call *call, const struct dstack *agent,
                    const char *path, done_fn done, void *owner);

/*
 * EmitEvent; `payload_hex` is the hex of the payload's bytes. One at a time, ever: calls that
 * overlap inside the agent (dstack up to 0.5.11) can spoil every later quote. So it has ten
 * times the usual limit, since a call that we give up may still be at work there.
 */
void dstack_emit_event(struct dstack_call *call, const struct dstack *agent,
                       const char *event, const char *payload_hex, done_fn done,
                       void *owner);

/* GetQuote; `report_data_hex` of at most 128 digits goes into the quote. */
void dstack_get_quote(struct dstack_call *call, const struct dstack *agent,
                      const char *report_data_hex, done_fn done, void *owner);

/* Info: the TCB information with the event log. */
void dstack_info(struct dstack_call *call, const struct dstack *agent, done_fn done,
                 void *owner);

/* Version. That older agents do not have it is no failure. */
void dstack_version(struct dstack_call *call, const struct dstack *agent, done_fn done,
                    void *owner);

/* Path or URL of the one that is asked. Borrowed. */
const char *dstack_endpoint(const struct dstack *agent);

void dstack_cancel(struct dstack_call *call);
void dstack_call_done(struct dstack_call *call); /* accepts a zeroed struct */

/* The parsers of the answers, for tests: `call` receives the result. */
int dstack_read_key(struct dstack_call *call, const char *body, struct err *err);
int dstack_read_info(struct dstack_call *call, const char *body, struct err *err);
int dstack_read_quote(struct dstack_call *call, const char *body, struct err *err);

#endif
