/*
 * buf: a growing byte buffer that is given its maximum at creation, so that nothing from
 * outside can make it grow without bound. The bytes are always followed by a zero byte,
 * and are wiped when freed.
 *
 * After buf_init the owner calls buf_done once; buf_done accepts a zeroed struct.
 */
#ifndef CM_BASE_BUF_H
#define CM_BASE_BUF_H

#include "base/err.h"

#include <stddef.h>

struct buf {
    unsigned char *data; /* NULL while empty */
    size_t len;
    size_t capacity;
    size_t max; /* most bytes that it will ever hold */
};

void buf_init(struct buf *buf, size_t max);
void buf_done(struct buf *buf);
void buf_clear(struct buf *buf); /* length 0, memory kept and wiped */

/*
 * ERR_PEER when it would exceed the maximum (nothing is appended then), ERR_SYS without
 * memory.
 */
int buf_append(struct buf *buf, const void *bytes, size_t len, struct err *err);
int buf_append_str(struct buf *buf, const char *text, struct err *err);
int buf_printf(struct buf *buf, struct err *err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The bytes as a C string, "" while empty. Borrowed until the next change. */
const char *buf_str(const struct buf *buf);

#define BUF_SCOPED __attribute__((cleanup(buf_done))) struct buf

#endif
