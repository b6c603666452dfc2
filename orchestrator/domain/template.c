#include "domain/template.h"

#include <assert.h>
#include <string.h>

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
        const char *close = open == NULL ? NULL : strchr(open, '}');
        const char *value;

        if (close == NULL)
            return buf_append_str(ret, text, err);
        if (buf_append(ret, text, (size_t)(open - text), err) < 0)
            return -1;
        value = find_value(open + 2, (size_t)(close - open - 2), values, count);
        if (value != NULL) {
            if (buf_append_str(ret, value, err) < 0)
                return -1;
            text = close + 1;
        } else {
            /* What follows an unknown "${" may hold a known one. */
            if (buf_append_str(ret, "${", err) < 0)
                return -1;
            text = open + 2;
        }
    }
}
