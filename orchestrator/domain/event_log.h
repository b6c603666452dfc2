/*
 * event log: the list of events that explains the TEE's registers, as the guest agent gives
 * it. Pure.
 *
 * Everything in it may be hostile. What is not an event log is refused as a whole; what is
 * wrong with a single entry is left for those who ask about it (event_verdict.h).
 */
#ifndef CM_DOMAIN_EVENT_LOG_H
#define CM_DOMAIN_EVENT_LOG_H

#include "base/err.h"
#include "domain/event_digest.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    EVENT_LOG_MAX_BYTES = 16 * 1024 * 1024,
    EVENT_LOG_REGISTER = 3, /* RTMR3: the only one that applications extend */
};

/* One entry. Members are borrowed from the log, as they are there; NULL: absent or null. */
struct event {
    size_t position; /* in the log, from 1 */
    int64_t imr;     /* register; -1: no such number there, so for the next two */
    int64_t type;
    int64_t version; /* of the digest; 0: absent */
    const json_t *name;
    const json_t *digest; /* these are strings of hex in a good log */
    const json_t *payload;
    const json_t *preimage;
};

struct event_log;

/*
 * Takes the array of entries; an object that has it as `event_log`, in JSON or as a text of
 * JSON (tcb_info, the answer of GetQuote); an object that has one of these as `tcb_info` (the
 * answer of Info); or any of them as a JSON string. ERR_PEER when it is none, or too large.
 */
int event_log_parse(const char *text, size_t len, struct event_log **ret,
                    struct err *err);
void event_log_free(struct event_log *log);

/* Of entries that were put together elsewhere: an array of objects, which is consumed. */
int event_log_new(json_t *entries, struct event_log **ret, struct err *err);

size_t event_log_length(const struct event_log *log);
void event_log_entry(const struct event_log *log, size_t index, struct event *ret);

/* RTMR3 as the agent shows it beside the log, or NULL. */
const unsigned char *event_log_shown_register(const struct event_log *log);

/* RTMR3 as its entries make it, by their digests. ERR_PEER when one is not readable. */
int event_log_replay(const struct event_log *log, unsigned char ret[EVENT_DIGEST_BYTES],
                     struct err *err);

bool event_is_named(const struct event *event, const char *name);

/* The last event in RTMR3 of that very name; false when there is none. */
bool event_log_last(const struct event_log *log, const char *name, struct event *ret);

/*
 * Bytes of a string of hex, either case. event_unhex initialises `ret`; ERR_PEER when it is
 * something else.
 */
int event_unhex(const json_t *hex, struct buf *ret, struct err *err);
bool event_unhex_exactly(const json_t *hex, void *ret, size_t len); /* of that length */

#endif
