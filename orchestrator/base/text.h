/*
 * text: encodings, characters and time stamps. Pure.
 */
#ifndef CM_BASE_TEXT_H
#define CM_BASE_TEXT_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Lower-case hex and a terminating zero: `ret` holds 2 * len + 1 bytes. */
void text_hex(char *ret, const void *bytes, size_t len);

/*
 * Exactly 2 * len hex digits of either case, nothing else; -1 otherwise (`ret` then
 * undefined).
 */
int text_unhex(unsigned char *ret, size_t len, const char *hex);

/*
 * Unpadded base64url (RFC 4648 §5) and a zero: `ret` holds TEXT_BASE64URL_SIZE(len)
 * bytes.
 */
#define TEXT_BASE64URL_SIZE(len) (((len) + 2) / 3 * 4 + 1)
void text_base64url(char *ret, const void *bytes, size_t len);

/*
 * Back again, into `ret` of TEXT_UNBASE64URL_MAX(len) bytes; padding may be there. -1 for what
 * is no base64url (`ret` then undefined).
 */
#define TEXT_UNBASE64URL_MAX(len) ((len) / 4 * 3 + 3)
int text_unbase64url(unsigned char *ret, size_t *ret_len, const char *text, size_t len);

/* "2026-11-23 18:44:03 UTC", for messages. `ret` holds TEXT_TIME_SIZE bytes. */
#define TEXT_TIME_SIZE 32
const char *text_time(char ret[TEXT_TIME_SIZE], int64_t unix_seconds);

/* "3 days", "2 hours", "45 s": the largest unit of which there are at least two. */
#define TEXT_DURATION_SIZE 32
const char *text_duration(char ret[TEXT_DURATION_SIZE], int64_t seconds);

/*
 * Bytes of the character at the front of the `left` bytes, at least one, and its code
 * point; 0 when they are not valid UTF-8 (RFC 3629: no surrogates, no longer form than
 * needed).
 */
size_t text_character(const void *bytes, size_t left, unsigned *ret_code);
bool text_is_control(unsigned code); /* C0, DEL and C1 */

/*
 * Blanks that are none, marks of direction and what has no width: nobody sees them, and they come along
 * when text is copied out of web pages and chats.
 */
bool text_is_unseen(unsigned code);

/*
 * Safe to print: UTF-8 passes; bytes of control characters, and what is not UTF-8, become
 * \xNN. A terminating zero, too; cut to `size` between characters. Returns the length.
 */
size_t text_escape(char *ret, size_t size, const void *bytes, size_t len);

bool text_starts_with(const char *text, const char *prefix);
bool text_ends_with(const char *text, const char *suffix);

#endif
