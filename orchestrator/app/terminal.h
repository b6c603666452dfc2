/*
 * terminal: what people look at. Colours and a width of its own only where a terminal shows the text:
 * pipes and files get the plain text. NO_COLOR (any text but the empty one) and TERM=dumb switch colours
 * off.
 */
#ifndef CM_APP_TERMINAL_H
#define CM_APP_TERMINAL_H

#include <stddef.h>
#include <stdio.h>

enum terminal_style {
    TERMINAL_PLAIN,
    TERMINAL_BOLD,
    TERMINAL_FAINT,
    TERMINAL_GOOD,
    TERMINAL_DOUBTFUL,
    TERMINAL_BAD
};

/* Columns; 80 where it is no terminal, or one that does not know. */
size_t terminal_width(FILE *out);

/* Control characters of what is printed are escaped, line breaks as well. */
void terminal_print(FILE *out, enum terminal_style style, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
