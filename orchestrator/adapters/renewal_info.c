#include "adapters/renewal_info.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

/* Nothing of the daemon's goes on meanwhile. */
enum { CALL_TIMEOUT_MS = 10 * 1000 };

enum { TOO_MANY_REQUESTS = 429 };

static int begin_directory(void *flow, struct err *err)
{
    struct renewal_info_call *call = flow;
    const struct acme_directory_request request = {
        .http = call->request.http,
        .authority = call->request.authority,
        .timeout_ms = CALL_TIMEOUT_MS,
    };

    (void)err;
    acme_directory_start(&call->directory, &request, seq_resume, &call->seq);
    return SEQ_WAIT;
}

static int finish_directory(void *flow, struct err *err)
{
    struct renewal_info_call *call = flow;

    (void)err;
    call->offered = call->directory.renewal_info[0] != '\0';
    return call->offered ? SEQ_NEXT : SEQ_END;
}

static void abort_directory(void *flow)
{
    struct renewal_info_call *call = flow;

    acme_directory_cancel(&call->directory);
}

static int begin_window(void *flow, struct err *err)
{
    struct renewal_info_call *call = flow;
    const char *resource = call->directory.renewal_info;
    size_t len = strlen(resource);
    const struct http_request request = {
        .method = "GET",
        .url = call->url,
        .ca_bundle = call->request.authority->ca_bundle,
        .proxy = call->request.authority->proxy,
        .no_proxy = call->request.authority->no_proxy,
        .max_body = RENEWAL_INFO_MAX_BYTES,
        .timeout_ms = CALL_TIMEOUT_MS,
    };

    (void)err;
    snprintf(call->url, sizeof call->url, "%s%s%s", resource,
             resource[len - 1] == '/' ? "" : "/", call->request.id);
    http_start(&call->http, call->request.http, &request, seq_resume, &call->seq);
    return SEQ_WAIT;
}

static bool is_lasting(int status)
{
    return status < 500 && status != TOO_MANY_REQUESTS;
}

static int finish_window(void *flow, struct err *err)
{
    struct renewal_info_call *call = flow;
    char value[64];

    if (http_header(&call->http, "Retry-After", value, sizeof value) != NULL)
        call->retry_after_s = renewal_info_retry_after(value, (int64_t)time(NULL));
    call->lasting = is_lasting(call->http.status);
    if (call->http.status != 200)
        return acme_refused(&call->http, "renewalInfo", err);
    return renewal_info_read(buf_str(&call->http.body), &call->info, err) < 0
               ? err_wrap(err, "renewalInfo")
               : SEQ_END;
}

static void abort_window(void *flow)
{
    struct renewal_info_call *call = flow;

    http_cancel(&call->http);
}

static const struct seq_step steps[] = {
    {"read directory", begin_directory, finish_directory, abort_directory, 0},
    {"get window", begin_window, finish_window, abort_window, 0},
    {0},
};

static void on_steps_done(void *owner, const struct err *failure)
{
    struct renewal_info_call *call = owner;
    struct err err = ERR_INIT;

    http_call_done(&call->http);
    if (failure != NULL) {
        err = *failure;
        err_wrap(&err, "ACME directory %s", call->request.authority->directory);
    }
    call->done(call->owner, failure != NULL ? &err : NULL);
}

void renewal_info_start(struct renewal_info_call *call,
                        const struct renewal_info_request *request, done_fn done,
                        void *owner)
{
    *call = (struct renewal_info_call){.request = *request, .done = done, .owner = owner};
    seq_start(&call->seq, request->loop, "renewal information", steps, call,
              on_steps_done, call);
}

void renewal_info_cancel(struct renewal_info_call *call)
{
    seq_cancel(&call->seq);
}
