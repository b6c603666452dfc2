#include "base/text.h"
#include "domain/config_internal.h"

#include <stdio.h>
#include <string.h>

const char *config_quoted(char ret[CONFIG_QUOTED_SIZE], const char *text, size_t len)
{
    static const char cut[] = "…";
    enum { LONGEST_PIECE = 6, TAIL = sizeof cut + 1 };
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
        } else if (text_is_unseen(code)) {
            used +=
                (size_t)snprintf(ret + used, CONFIG_QUOTED_SIZE - used, "\\u%04x", code);
        } else {
            memcpy(ret + used, text + i, size);
            used += size;
        }
    }
    ret[used++] = '"';
    ret[used] = '\0';
    return ret;
}
