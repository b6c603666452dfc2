#include "base/buf.h"

#include "base/secret.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void buf_init(struct buf *buf, size_t max)
{
    *buf = (struct buf){.max = max};
}

void buf_done(struct buf *buf)
{
    wipe_free(buf->data);
    *buf = (struct buf){.max = buf->max};
}

void buf_clear(struct buf *buf)
{
    if (buf->data != NULL)
        OPENSSL_cleanse(buf->data, buf->capacity);
    buf->len = 0;
}

static int make_room(struct buf *buf, size_t more, struct err *err)
{
    size_t wanted;
    unsigned char *bigger;

    if (more > buf->max - buf->len)
        return err_set(err, ERR_PEER, "more than %zu bytes", buf->max);
    if (buf->data != NULL && buf->len + more < buf->capacity)
        return 0;
    wanted = buf->capacity < 256 ? 256 : buf->capacity * 2;
    if (wanted < buf->len + more + 1)
        wanted = buf->len + more + 1;
    bigger = wipe_realloc(buf->data, wanted);
    if (bigger == NULL)
        return err_sys(err, ENOMEM, "cannot hold %zu bytes", wanted);
    buf->data = bigger;
    buf->capacity = wanted;
    return 0;
}

int buf_append(struct buf *buf, const void *bytes, size_t len, struct err *err)
{
    if (make_room(buf, len, err) < 0)
        return -1;
    if (len > 0)
        memcpy(buf->data + buf->len, bytes, len);
    buf->len += len;
    buf->data[buf->len] = '\0';
    return 0;
}

int buf_append_str(struct buf *buf, const char *text, struct err *err)
{
    return buf_append(buf, text, strlen(text), err);
}

int buf_printf(struct buf *buf, struct err *err, const char *format, ...)
{
    va_list args;
    int len;

    va_start(args, format);
    len = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (len < 0)
        return err_sys(err, errno, "cannot format text");
    if (make_room(buf, (size_t)len, err) < 0)
        return -1;
    va_start(args, format);
    vsnprintf((char *)buf->data + buf->len, (size_t)len + 1, format, args);
    va_end(args);
    buf->len += (size_t)len;
    return 0;
}

const char *buf_str(const struct buf *buf)
{
    return buf->len == 0 ? "" : (const char *)buf->data;
}
