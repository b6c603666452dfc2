#include "app/terminal.h"

#include "base/text.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { USUAL_WIDTH = 80, TEXT_MAX = 4096 };

static const char *const codes[] = {
    [TERMINAL_PLAIN] = "",
    [TERMINAL_BOLD] = "\x1b[1m",
    [TERMINAL_FAINT] = "\x1b[2m",
    [TERMINAL_GOOD] = "\x1b[32m",
    [TERMINAL_DOUBTFUL] = "\x1b[33m",
    [TERMINAL_BAD] = "\x1b[31m",
};

static bool has_colours(FILE *out)
{
    const char *no_color = getenv("NO_COLOR"); /* no-color.org */
    const char *kind = getenv("TERM");

    return (no_color == NULL || no_color[0] == '\0') && kind != NULL &&
           strcmp(kind, "dumb") != 0 && isatty(fileno(out)) == 1;
}

size_t terminal_width(FILE *out)
{
    struct winsize size;

    if (isatty(fileno(out)) == 1 && ioctl(fileno(out), TIOCGWINSZ, &size) == 0 &&
        size.ws_col > 0)
        return size.ws_col;
    return USUAL_WIDTH;
}

void terminal_print(FILE *out, enum terminal_style style, const char *format, ...)
{
    char text[TEXT_MAX];
    char safe[2 * TEXT_MAX];
    bool coloured = style != TERMINAL_PLAIN && has_colours(out);
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    text_escape(safe, sizeof safe, text, strlen(text));
    fprintf(out, "%s%s%s", coloured ? codes[style] : "", safe, coloured ? "\x1b[0m" : "");
}
