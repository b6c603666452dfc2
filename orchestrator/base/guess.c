#include "base/guess.h"

#include <ctype.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>

static unsigned least_of(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

unsigned guess_distance(const char *a, const char *b)
{
    enum { LONGEST = 63, FAR_AWAY = 1000 };
    /*
     * Row i holds the distances of the first i letters of `a` from all beginnings of
     * `b`.
     */
    unsigned rows[3][LONGEST + 1];
    size_t a_len = strlen(a);
    size_t b_len = strlen(b);

    if (a_len > LONGEST || b_len > LONGEST)
        return FAR_AWAY;
    for (size_t k = 0; k <= b_len; k++)
        rows[0][k] = (unsigned)k;
    for (size_t i = 1; i <= a_len; i++) {
        unsigned *row = rows[i % 3];
        const unsigned *above = rows[(i - 1) % 3];
        const unsigned *higher = rows[(i + 1) % 3];

        row[0] = (unsigned)i;
        for (size_t k = 1; k <= b_len; k++) {
            int x = tolower((unsigned char)a[i - 1]);
            int y = tolower((unsigned char)b[k - 1]);

            row[k] = least_of(least_of(above[k], row[k - 1]) + 1,
                              above[k - 1] + (x == y ? 0 : 1));
            if (i > 1 && k > 1 && x == tolower((unsigned char)b[k - 2]) &&
                y == tolower((unsigned char)a[i - 2]))
                row[k] = least_of(row[k], higher[k - 2] + 1);
        }
    }
    return rows[a_len % 3][b_len];
}

struct guess guess_of(const char *said)
{
    enum { SHORT_WORD = 4, FEW = 2, SOME = 3 };

    /* From there on a word is another one: of a short word two letters are half of it. */
    return (struct guess){.said = said,
                          .distance = strlen(said) <= SHORT_WORD ? FEW : SOME};
}

/* "warn" for "warning". */
static bool is_abbreviation(const char *said, const char *name)
{
    enum { SHORTEST = 3 };
    size_t len = strlen(said);

    return len >= SHORTEST && strncasecmp(said, name, len) == 0;
}

void guess_try(struct guess *guess, const char *name)
{
    unsigned distance = guess_distance(guess->said, name);

    if (distance > 1 && is_abbreviation(guess->said, name))
        distance = 1;
    if (distance >= guess->distance)
        return;
    guess->distance = distance;
    guess->name = name;
}
