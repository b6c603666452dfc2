/* What is asked for over the control socket, and takes longer than an answer may. */
#include "app/daemon_internal.h"

#include "base/text.h"
#include "domain/json_text.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *const kinds[REQUEST_KINDS] = {
    [REQUEST_RENEW] = "renew",
    [REQUEST_DEPLOY] = "deploy",
    [REQUEST_RELOAD] = "reload",
};

static const char *const states[] = {
    [REQUEST_NONE] = "none", [REQUEST_WAITING] = "waiting", [REQUEST_RUNNING] = "running",
    [REQUEST_DONE] = "done", [REQUEST_FAILED] = "failed",
};

bool daemon_request_is_open(const struct control_request *request)
{
    return request->state == REQUEST_WAITING || request->state == REQUEST_RUNNING;
}

void daemon_request_accept(struct control_request *request)
{
    if (daemon_request_is_open(request))
        return;
    request->id++;
    request->state = REQUEST_WAITING;
    request->text[0] = '\0';
}

void daemon_request_set(struct control_request *request, enum request_state state,
                        const char *format, ...)
{
    char text[sizeof request->text];
    va_list args;

    request->state = state;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    /* Of nginx, certbot or a file it may have anything, and JSON has UTF-8. */
    text_escape(request->text, sizeof request->text, text, strlen(text));
}

static json_t *json_of(const struct control_request *request)
{
    return json_pack("{s:I, s:s, s:s}", "id", (json_int_t)request->id, "state",
                     states[request->state], "text", request->text);
}

int daemon_request_answer(const struct control_request *request,
                          struct server_answer *ret, struct err *err)
{
    ret->status = 202;
    return json_to_text(json_of(request), 0, "the answer cannot be written as JSON",
                        &ret->body, err);
}

json_t *daemon_requests_json(const struct daemon *d)
{
    json_t *list = json_object();

    for (int i = 0; i < REQUEST_KINDS; i++) {
        const struct control_request *request = &d->requests[i];

        if (request->state != REQUEST_NONE)
            json_object_set_new(list, kinds[i], json_of(request));
    }
    return list;
}
