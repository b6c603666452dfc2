#include "base/text.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

void text_hex(char *ret, const void *bytes, size_t len)
{
    static const char digits[] = "0123456789abcdef";
    const unsigned char *in = bytes;

    for (size_t i = 0; i < len; i++) {
        ret[2 * i] = digits[in[i] >> 4];
        ret[2 * i + 1] = digits[in[i] & 15];
    }
    ret[2 * len] = '\0';
}

static int digit_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

int text_unhex(unsigned char *ret, size_t len, const char *hex)
{
    if (strlen(hex) != 2 * len)
        return -1;
    for (size_t i = 0; i < len; i++) {
        int high = digit_value(hex[2 * i]);
        int low = digit_value(hex[2 * i + 1]);

        if (high < 0 || low < 0)
            return -1;
        ret[i] = (unsigned char)(high << 4 | low);
    }
    return 0;
}

static const char base64url[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

void text_base64url(char *ret, const void *bytes, size_t len)
{
    const unsigned char *in = bytes;
    uint32_t bits = 0;
    int held = 0;

    for (size_t i = 0; i < len; i++) {
        bits = bits << 8 | in[i];
        for (held += 8; held >= 6; held -= 6)
            *ret++ = base64url[bits >> (held - 6) & 63];
    }
    if (held > 0)
        *ret++ = base64url[bits << (6 - held) & 63];
    *ret = '\0';
}

int text_unbase64url(unsigned char *ret, size_t *ret_len, const char *text, size_t len)
{
    size_t digits = len;
    uint32_t bits = 0;
    int held = 0;

    while (digits > 0 && text[digits - 1] == '=')
        digits--;
    if (digits % 4 == 1 || (digits < len && (len % 4 != 0 || len - digits > 2)))
        return -1;
    *ret_len = 0;
    for (size_t i = 0; i < digits; i++) {
        const char *digit = text[i] == '\0' ? NULL : strchr(base64url, text[i]);

        if (digit == NULL)
            return -1;
        bits = bits << 6 | (uint32_t)(digit - base64url);
        held += 6;
        if (held >= 8) {
            held -= 8;
            ret[(*ret_len)++] = (unsigned char)(bits >> held);
        }
    }
    return 0;
}

const char *text_time(char ret[TEXT_TIME_SIZE], int64_t unix_seconds)
{
    time_t when = (time_t)unix_seconds;
    struct tm parts;

    if (gmtime_r(&when, &parts) == NULL ||
        strftime(ret, TEXT_TIME_SIZE, "%Y-%m-%d %H:%M:%S UTC", &parts) == 0)
        snprintf(ret, TEXT_TIME_SIZE, "@%" PRId64, unix_seconds);
    return ret;
}

const char *text_duration(char ret[TEXT_DURATION_SIZE], int64_t seconds)
{
    static const struct {
        int64_t seconds;
        const char *name;
    } units[] = {{86400, "days"}, {3600, "hours"}, {60, "minutes"}, {1, "s"}};
    size_t i = 0;

    while (i < 3 && seconds < 2 * units[i].seconds)
        i++;
    snprintf(ret, TEXT_DURATION_SIZE, "%" PRId64 " %s", seconds / units[i].seconds,
             units[i].name);
    return ret;
}

size_t text_character(const void *bytes, size_t left, unsigned *ret_code)
{
    static const unsigned smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    const unsigned char *in = bytes;
    size_t len;
    unsigned code;

    if (in[0] < 0x80) {
        *ret_code = in[0];
        return 1;
    }
    if ((in[0] & 0xe0) == 0xc0)
        len = 2;
    else if ((in[0] & 0xf0) == 0xe0)
        len = 3;
    else if ((in[0] & 0xf8) == 0xf0)
        len = 4;
    else
        return 0;
    if (len > left)
        return 0;
    code = in[0] & (0xffU >> (len + 1));
    for (size_t i = 1; i < len; i++) {
        if ((in[i] & 0xc0) != 0x80)
            return 0;
        code = code << 6 | (in[i] & 0x3fU);
    }
    if (code < smallest[len] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
        return 0;
    *ret_code = code;
    return len;
}

bool text_is_control(unsigned code)
{
    return code < 0x20 || (code >= 0x7f && code < 0xa0);
}

bool text_is_unseen(unsigned code)
{
    return code == 0xa0 || code == 0xad || (code >= 0x2000 && code <= 0x200f) ||
           (code >= 0x2028 && code <= 0x202f) || (code >= 0x205f && code <= 0x206f) ||
           code == 0x3000 || code == 0xfeff || code == 0xfffe || code == 0xffff;
}

size_t text_escape(char *ret, size_t size, const void *bytes, size_t len)
{
    enum { LONGEST_PIECE = 4 };
    const unsigned char *in = bytes;
    size_t used = 0;
    size_t piece;

    for (; len > 0 && used + LONGEST_PIECE < size; in += piece, len -= piece) {
        unsigned code;

        piece = text_character(in, len, &code);
        if (piece == 0 || text_is_control(code)) {
            /* Byte by byte: a control character of C1 has two. */
            piece = 1;
            used += (size_t)snprintf(ret + used, size - used, "\\x%02x", *in);
        } else {
            memcpy(ret + used, in, piece);
            used += piece;
        }
    }
    ret[used] = '\0';
    return used;
}

bool text_starts_with(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

bool text_ends_with(const char *text, const char *suffix)
{
    size_t len = strlen(text);
    size_t tail = strlen(suffix);

    return len >= tail && strcmp(text + len - tail, suffix) == 0;
}
