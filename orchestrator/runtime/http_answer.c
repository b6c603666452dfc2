/* What a call came back with: apart from libcurl, so that it can be had without. */
#include "runtime/http.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

void http_call_done(struct http_call *call)
{
    assert(call->transfer == NULL);
    buf_done(&call->body);
    buf_done(&call->headers);
    call->status = 0;
}

const char *http_header(const struct http_call *call, const char *name, char *ret,
                        size_t size)
{
    const size_t name_len = strlen(name);
    const char *line = buf_str(&call->headers);

    while ((line = strchr(line, '\n')) != NULL) {
        const char *value;
        size_t len;

        line++;
        if (strncasecmp(line, name, name_len) != 0 || line[name_len] != ':')
            continue;
        value = line + name_len + 1;
        value += strspn(value, " \t");
        len = strcspn(value, "\r\n");
        while (len > 0 && (value[len - 1] == ' ' || value[len - 1] == '\t'))
            len--;
        snprintf(ret, size, "%.*s", (int)len, value);
        return ret;
    }
    return NULL;
}
