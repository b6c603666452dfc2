/*
 * Each line of the input is a variable of the environment, "NAME=value", or behind the first line "--"
 * a setting of the command line, "key=value".
 */
#include "support/fuzz.h"
#include "support/settings.h"

#include "base/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Behind every secret of an input: no text of the program may ever have it. */
#define SECRET_MARK "-hIdDeN"

enum { LINES_MAX = 32 };

/* The secret gets a mark, which must never be seen again. */
static char *copy_line(const char *line)
{
    bool is_secret = text_starts_with(line, "EKM_SHARED_SECRET=");
    size_t size = strlen(line) + sizeof SECRET_MARK;
    char *copy = malloc(size);

    FUZZ_REQUIRE(copy != NULL);
    snprintf(copy, size, "%s%s", line, is_secret ? SECRET_MARK : "");
    return copy;
}

static void take_lines(char *text, char *ret[LINES_MAX + 1])
{
    size_t count = 0;

    for (const char *line; count < LINES_MAX && (line = fuzz_next_line(&text)) != NULL;
         count++)
        ret[count] = copy_line(line);
}

static void free_lines(char *lines[LINES_MAX + 1])
{
    for (size_t i = 0; lines[i] != NULL; i++)
        free(lines[i]);
}

void fuzz_one(const unsigned char *bytes, size_t len)
{
    char *variables[LINES_MAX + 1] = {NULL};
    char *flags[LINES_MAX + 1] = {NULL};
    char *text = fuzz_text(bytes, len);
    /* The fuzzer sees what is searched for. */
    bool mark_is_known = strstr(text, SECRET_MARK) != NULL;
    char *behind = fuzz_cut(text, "--");
    struct config config;

    take_lines(text, variables);
    take_lines(behind, flags);
    if (fuzz_load_settings(&(struct config_sources){.environment = variables,
                                                    .flags = (const char *const *)flags},
                           mark_is_known ? NULL : SECRET_MARK, &config))
        config_done(&config);
    free_lines(variables);
    free_lines(flags);
    free(text);
}
