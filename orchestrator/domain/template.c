#include "domain/template.h"

#include <assert.h>
#include <string.h>

/* Of placeholders. */
#define NAME_CHARACTERS "ABCDEFGHIJKLMNOPQRSTUVWXYZ_"

static const char *find_value(const char *name, size_t len,
                              const struct template_value *values, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (strncmp(values[i].name, name, len) == 0 && values[i].name[len] == '\0') {
            assert(values[i].value != NULL);
            return values[i].value;
        }
    }
    return NULL;
}

int template_render(const char *text, const struct template_value *values, size_t count,
                    struct buf *ret, struct err *err)
{
    for (;;) {
        const char *open = strstr(text, "${");
        const char *value = NULL;
        size_t len;

        if (open == NULL)
            return buf_append_str(ret, text, err);
        if (buf_append(ret, text, (size_t)(open - text), err) < 0)
            return -1;
        /* Only as far as a name goes: the next brace may be at the other end of the text. */
        len = strspn(open + 2, NAME_CHARACTERS);
        if (open[2 + len] == '}')
            value = find_value(open + 2, len, values, count);
        if (value != NULL) {
            if (buf_append_str(ret, value, err) < 0)
                return -1;
            text = open + 2 + len + 1;
        } else {
            /* What follows an unknown "${" may hold a known one. */
            if (buf_append_str(ret, "${", err) < 0)
                return -1;
            text = open + 2;
        }
    }
}
