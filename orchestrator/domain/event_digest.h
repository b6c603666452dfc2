/*
 * event digest: what a runtime event extends RTMR3 with. Pure.
 *
 * Version 1 is the SHA-384 of LE32(type) ":" name ":" payload. Version 2 is that of the JSON
 * object {"name", "payload", "type"} in canonical form (RFC 8785), where no name can be taken
 * for the beginning of a payload.
 */
#ifndef CM_DOMAIN_EVENT_DIGEST_H
#define CM_DOMAIN_EVENT_DIGEST_H

#include "base/buf.h"
#include "base/err.h"

#include <stddef.h>

enum {
    EVENT_DIGEST_BYTES = 48, /* SHA-384, and the register */
    EVENT_DIGEST_HEX_SIZE = 2 * EVENT_DIGEST_BYTES + 1,
    EVENT_VERSION_1 = 1,
    EVENT_VERSION_2 = 2,
    EVENT_TYPE_RUNTIME = 0x08000001,
};

/* The name is UTF-8 and may hold zero bytes; the payload is any bytes, before hex. */
struct event_content {
    const char *name;
    size_t name_len;
    const void *payload;
    size_t payload_len;
};

/*
 * The bytes that are hashed, into `ret`, which is initialised here. ERR_PEER when the name is
 * not UTF-8.
 */
int event_preimage(struct buf *ret, int version, const struct event_content *content,
                   struct err *err);

int event_digest(unsigned char ret[EVENT_DIGEST_BYTES], int version,
                 const struct event_content *content, struct err *err);

/* SHA-384 of any bytes. */
int event_hash(unsigned char ret[EVENT_DIGEST_BYTES], const void *bytes, size_t len,
               struct err *err);

/* The register, 48 zero bytes at boot, after a digest: SHA-384(register ‖ digest). */
int event_extend(unsigned char rtmr[EVENT_DIGEST_BYTES],
                 const unsigned char digest[EVENT_DIGEST_BYTES], struct err *err);

#endif
