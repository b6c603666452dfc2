#include "base/text.h"
#include "domain/config_internal.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

const char *config_quoted(char ret[CONFIG_QUOTED_SIZE], const char *text, size_t len)
{
    static const char cut[] = "…";
    enum { LONGEST_PIECE = 4, TAIL = sizeof cut + 1 };
    size_t used = 0;
    size_t size;

    ret[used++] = '"';
    for (size_t i = 0; i < len; i += size) {
        unsigned code;

        if (used + LONGEST_PIECE + TAIL > CONFIG_QUOTED_SIZE) {
            memcpy(ret + used, cut, sizeof cut - 1);
            used += sizeof cut - 1;
            break;
        }
        size = text_character(text + i, len - i, &code);
        if (size == 0 || text_is_control(code)) {
            /* Byte by byte: a character of C1 has two. */
            size = 1;
            used += (size_t)snprintf(ret + used, CONFIG_QUOTED_SIZE - used, "\\x%02x",
                                     (unsigned char)text[i]);
        } else {
            memcpy(ret + used, text + i, size);
            used += size;
        }
    }
    ret[used++] = '"';
    ret[used] = '\0';
    return ret;
}

static unsigned least_of(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

unsigned config_distance(const char *a, const char *b)
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
