/*
 * command: a verb of the command line as data. What reads the command line, --help, the manual and the
 * completion of shells are all made from it, so that they cannot differ.
 *
 * Texts are paragraphs without line breaks of their own, an empty line between two of them.
 */
#ifndef CM_APP_COMMAND_H
#define CM_APP_COMMAND_H

#include <stdbool.h>
#include <stdio.h>

enum { COMMAND_WRONG_USE = 2, COMMAND_OPTIONS_MAX = 12 };

struct command_option {
    const char *name; /* "config" for --config */
    const char
        *argument; /* "FILE", or NULL for a switch; "WORD…" may be said repeatedly */
    const char *meaning;
    const char *words; /* that a shell may complete, "full reduced", or NULL: files */
};

struct command;

/* What was said. Borrowed from argv. */
struct command_line {
    const struct command *command;
    const char
        *values[COMMAND_OPTIONS_MAX]; /* the last; NULL: not given; "" for a switch */
    const char **repeated;            /* every value of the option that may repeat */
    char **operands;                  /* ends with NULL */
};

struct command {
    const char *name;
    const char *summary;
    const char *description;
    const struct command_option
        *options;                /* ends with one without a name; one may repeat */
    const char *operands;        /* "-- COMMAND…", or NULL when there are none */
    const char *exit_status;     /* a line each: "78 unusable setting" */
    const char *const *examples; /* ends with NULL */
    int (*run)(const struct command_line *line);
};

/*
 * Reads `argv` (from the command's name on), answers --help, and runs it: the exit code, which is
 * EXIT_FAILURE when standard output cannot be written.
 */
int command_run(const struct command *command, int argc, char **argv);

/* What was said to an option of the command, or NULL. */
const char *command_value(const struct command_line *line, const char *option);
bool command_has(const struct command_line *line, const char *option);

/* Everything that was said to an option that may repeat, in its order; ends with NULL. */
const char *const *command_values(const struct command_line *line, const char *option);

/* "cert-manager NAME: …" on standard error, without control characters: COMMAND_WRONG_USE. */
int command_wrong_use(const struct command_line *line, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* The same for what is no matter of use. */
void command_complain(const struct command_line *line, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* "cert-manager: no such command: stauts (did you mean "status"?)" */
void command_print_unknown(const struct command *const *commands, const char *name,
                           FILE *out);

/* ---- command_help.c ---- */

void command_print_usage(const struct command *command, FILE *out);
void command_print_help(const struct command *command, FILE *out);

/* The commands' part of cert-manager(8), in mdoc(7). */
void command_print_manual(const struct command *const *commands, FILE *out);

/* For bash: a function, and what it is for. `keys` are those of settings, with blanks between them. */
void command_print_completion(const struct command *const *commands, const char *keys,
                              FILE *out);

#endif
