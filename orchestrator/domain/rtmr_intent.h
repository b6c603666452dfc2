/*
 * rtmr intent: what an extension of RTMR3 was about to do, so that after a crash it can be
 * told what it did. Pure.
 *
 * A register can only be extended, never set back, and its log is another file: one of the two
 * may have been written alone. The value before and the digest tell.
 */
#ifndef CM_DOMAIN_RTMR_INTENT_H
#define CM_DOMAIN_RTMR_INTENT_H

#include "base/buf.h"
#include "base/err.h"
#include "domain/event_digest.h"

#include <stddef.h>
#include <stdint.h>

enum {
    RTMR_NAME_MAX_BYTES = 256,
    RTMR_PAYLOAD_MAX_BYTES = 1024,
    RTMR_INTENT_MAX_BYTES = 16 * 1024,
    RTMR_BOOT_ID_SIZE = 37, /* a UUID and a zero */
};

struct rtmr_intent {
    char boot_id[RTMR_BOOT_ID_SIZE]; /* registers and log begin anew with every boot */
    int version;                     /* of the event's digest */
    char name[RTMR_NAME_MAX_BYTES + 1];
    unsigned char payload[RTMR_PAYLOAD_MAX_BYTES];
    size_t payload_len;
    unsigned char before[EVENT_DIGEST_BYTES]; /* the register */
    int64_t log_size;                         /* bytes, before the event's line */
};

/* Borrows from the intent. */
struct event_content rtmr_intent_content(const struct rtmr_intent *intent);

/* The register after the extension. */
int rtmr_intent_after(const struct rtmr_intent *intent,
                      unsigned char ret[EVENT_DIGEST_BYTES], struct err *err);

/* JSON text, into `ret`, which is initialised here; and back. ERR_PEER when it is damaged. */
int rtmr_intent_write(const struct rtmr_intent *intent, struct buf *ret, struct err *err);
int rtmr_intent_read(struct rtmr_intent *ret, const char *text, size_t len,
                     struct err *err);

#endif
