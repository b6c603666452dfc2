#include "support/answers.h"

#include "support/fuzz.h"

#include <stdlib.h>
#include <string.h>

enum { HEADERS_MAX_BYTES = 64 * 1024 };

void answers_init(struct http *http, char *text)
{
    *http = (struct http){.rest = text};
}

void http_start(struct http_call *call, struct http *http,
                const struct http_request *request, done_fn done, void *owner)
{
    FUZZ_REQUIRE(http->call == NULL);
    FUZZ_REQUIRE(request->url[0] != '\0' && request->timeout_ms > 0);
    FUZZ_REQUIRE(
        http->told == NULL || request->body == NULL ||
        memmem(request->body, request->body_len, http->told, strlen(http->told)) == NULL);
    *call = (struct http_call){.http = http, .transfer = http};
    buf_init(&call->body, request->max_body);
    buf_init(&call->headers, HEADERS_MAX_BYTES);
    http->call = call;
    http->done = done;
    http->owner = owner;
    http->calls++;
}

/* Nothing that is fuzzed cancels a call. */
void http_cancel(struct http_call *call)
{
    FUZZ_REQUIRE(call->transfer == NULL);
}

/* Status, headers and body out of one answer. */
static int fill(struct http_call *call, char *answer, struct err *err)
{
    char *body = strstr(answer, "\n\n");
    size_t headers = body == NULL ? strlen(answer) : (size_t)(body - answer) + 1;

    call->status = (int)(strtoul(answer, NULL, 10) % 1000);
    return buf_append(&call->headers, answer, headers, err) < 0 ||
                   buf_append_str(&call->body, body == NULL ? "" : body + 2, err) < 0
               ? -1
               : 0;
}

bool answers_give(struct http *http)
{
    struct http_call *call = http->call;
    struct err err = ERR_INIT;
    char *answer = http->rest;

    if (call == NULL)
        return false;
    if (*answer == '\0') {
        err_set(&err, ERR_NET, "connection refused");
    } else {
        http->rest = fuzz_cut(answer, "====");
        (void)fill(call, answer, &err);
    }
    call->transfer = NULL;
    http->call = NULL;
    http->done(http->owner, err.kind == ERR_NONE ? NULL : &err);
    return true;
}

void ended_done(void *owner, const struct err *err)
{
    struct ended *ended = owner;

    FUZZ_REQUIRE(!ended->is_over);
    ended->is_over = true;
    if (err != NULL)
        ended->err = *err;
}
