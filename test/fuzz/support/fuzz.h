/*
 * fuzz: what the fuzz targets share. A target is one file in test/fuzz/targets/ with a fuzz_one() that
 * hands any bytes to code of the program, and requires of what comes back what its header promises.
 *
 * Beside the sanitizers every input is checked for what fuzz_one() does not have to ask for: it takes
 * less than a second of the processor, and leaves nothing in OpenSSL's queue of errors, where it
 * would become part of a later message.
 *
 * With FUZZ_REPEAT=BYTES in the environment an input is repeated until it has that size.
 */
#ifndef TEST_FUZZ_H
#define TEST_FUZZ_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FUZZ_NOW INT64_C(1795459747) /* 2026-11-23 18:49:07 UTC */

/* What the target does with one input. */
void fuzz_one(const unsigned char *bytes, size_t len);

/* Counts an input that was not refused, so that the table shows how deep a target gets. */
void fuzz_note_accepted(void);

/* Otherwise the run ends, and the input is kept. */
#define FUZZ_REQUIRE(condition)                                                          \
    do {                                                                                 \
        if (!(condition))                                                                \
            fuzz_fail(__FILE__, __LINE__, #condition, "");                               \
    } while (0)
#define FUZZ_REQUIRE_TEXT(condition, text)                                               \
    do {                                                                                 \
        if (!(condition))                                                                \
            fuzz_fail(__FILE__, __LINE__, #condition, text);                             \
    } while (0)
_Noreturn void fuzz_fail(const char *file, int line, const char *condition,
                         const char *text);

/* A copy with a zero behind it and nothing more, so that reading on is seen. Caller: free. */
char *fuzz_text(const unsigned char *bytes, size_t len);

/* Cuts the next line off, NULL at the end. */
char *fuzz_next_line(char **rest);

/* The input up to the line that is `mark`, and what is behind it ("" when there is none). */
char *fuzz_cut(char *text, const char *mark);

/* An error as a function has to leave it: a kind, and words for people. */
void fuzz_require_refusal(const struct err *err);

/* One line that a terminal and a log can show: UTF-8, no control characters, something in it. */
void fuzz_require_line(const char *text);

/* UTF-8 without control characters; may be empty. */
void fuzz_require_printable(const char *text);

bool fuzz_same(const struct buf *a, const struct buf *b);

#endif
