/*
 * http_transfer: one call of http.h as libcurl sees it: its settings, what arrives, and
 * what its end means. Of http.c alone. Nothing here touches the loop.
 */
#ifndef CM_RUNTIME_HTTP_TRANSFER_H
#define CM_RUNTIME_HTTP_TRANSFER_H

#include "base/err.h"
#include "runtime/http.h"

#include <curl/curl.h>
#include <stdbool.h>
#include <stddef.h>

enum {
    TRANSFER_MAX_HEADER = 64 * 1024, /* all header lines of all responses of one call */
    TRANSFER_TARGET_SIZE = 512,
};

struct transfer {
    struct transfer *next; /* in http->ended */
    struct http *http;
    struct http_call *call;
    done_fn done;
    void *owner;
    CURL *easy;
    struct curl_slist *headers;
    struct err err; /* ERR_NONE while all is well */
    bool ended;
    bool header_complete; /* of the final response; what follows are trailers */
    size_t header_bytes;
    unsigned timeout_ms;
    bool through_socket;
    int open_errno;                    /* of socket(2) */
    char target[TRANSFER_TARGET_SIZE]; /* "GET http://host/path through /path/of.sock" */
    char detail[CURL_ERROR_SIZE];
};

/* The easy handle with all its settings; -1 with `transfer->err`. The caller has set
 * `call` and the members from `http` to `owner`. */
int transfer_prepare(struct transfer *transfer, const struct http_request *request);

/* Status of the answer, or `transfer->err`, from libcurl's result. */
void transfer_judge(struct transfer *transfer, CURLcode code);

/* It is no longer in a multi handle. */
void transfer_free(struct transfer *transfer);

#endif
