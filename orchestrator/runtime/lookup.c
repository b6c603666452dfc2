#include "runtime/lookup.h"

#include <assert.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

/* The last thing that touches the look-up: `done` may free or restart it. */
static void end(struct lookup *lookup, int status)
{
    struct err err = ERR_INIT;
    done_fn done = lookup->done;

    if (lookup->canceled)
        err_set(&err, ERR_CANCELED, "look-up of %s: canceled", lookup->host);
    else if (status < 0)
        err_set(&err, ERR_NET, "%s does not resolve: %s", lookup->host,
                uv_strerror(status));
    lookup->done = NULL;
    done(lookup->owner, err.kind == ERR_NONE ? NULL : &err);
}

static void on_resolver_answer(uv_getaddrinfo_t *request, int status,
                               struct addrinfo *found)
{
    struct lookup *lookup = request->data;

    for (const struct addrinfo *one = found;
         status == 0 && one != NULL && lookup->count < LOOKUP_ADDRESSES_MAX;
         one = one->ai_next) {
        status = uv_ip_name(one->ai_addr, lookup->addresses[lookup->count],
                            sizeof lookup->addresses[0]);
        lookup->count++;
    }
    uv_freeaddrinfo(found);
    end(lookup, status);
}

static void on_defer_close(uv_handle_t *handle)
{
    struct lookup *lookup = handle->data;

    end(lookup, lookup->start_error);
}

static int start(struct lookup *lookup, uv_loop_t *loop, const char *host)
{
    /* The hints with which nginx resolves its upstreams. */
    const struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG};

    /* libuv before 1.48 cuts longer names and resolves what is left (CVE-2024-24806). */
    if (strlen(host) >= sizeof lookup->host)
        return UV_ENAMETOOLONG;
    return uv_getaddrinfo(loop, &lookup->request, on_resolver_answer, host, NULL, &hints);
}

void lookup_start(struct lookup *lookup, uv_loop_t *loop, const char *host, done_fn done,
                  void *owner)
{
    memset(lookup, 0, sizeof *lookup);
    snprintf(lookup->host, sizeof lookup->host, "%s", host);
    lookup->done = done;
    lookup->owner = owner;
    lookup->request.data = lookup;
    lookup->start_error = start(lookup, loop, host);
    if (lookup->start_error < 0) {
        /* libuv calls back about a closed handle in a later round, never at once. */
        uv_timer_init(loop, &lookup->defer);
        lookup->defer.data = lookup;
        uv_close((uv_handle_t *)&lookup->defer, on_defer_close);
    }
}

void lookup_cancel(struct lookup *lookup)
{
    if (lookup->done == NULL || lookup->canceled)
        return;
    lookup->canceled = true;
    if (lookup->start_error == 0)
        uv_cancel((uv_req_t *)&lookup->request); /* UV_EBUSY: the resolver has it */
}

void lookup_list(const struct lookup *lookup, char *ret, size_t size)
{
    size_t len = 0;

    ret[0] = '\0';
    for (size_t i = 0; i < lookup->count && len + INET6_ADDRSTRLEN + 2 < size; i++)
        len += (size_t)snprintf(ret + len, size - len, "%s%s", i == 0 ? "" : ", ",
                                lookup->addresses[i]);
}
