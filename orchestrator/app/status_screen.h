/*
 * status_screen: the status JSON of a daemon as one screen for people.
 */
#ifndef CM_APP_STATUS_SCREEN_H
#define CM_APP_STATUS_SCREEN_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct screen {
    FILE *out;
    size_t width;
    const char *line_end; /* "\n", or with what clears the rest of a terminal's line */
    int64_t now;          /* Unix seconds, which ages are counted from */
    bool past;            /* how it was then: nothing is well by that */
};

/* Members that are missing are left out. */
void screen_print(const struct screen *screen, const json_t *status);

/* Whether nobody has to look at anything. */
bool screen_is_well(const json_t *status);

#endif
