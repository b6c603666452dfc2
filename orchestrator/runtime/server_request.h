/*
 * server_request: one HTTP/1.1 request as a stranger's bytes, read with limits. Pure.
 *
 * RFC 9112 in its strict form: lines end with CRLF, there is one Content-Length or none, and
 * no transfer coding. A request with a second meaning is refused, never guessed at.
 */
#ifndef CM_RUNTIME_SERVER_REQUEST_H
#define CM_RUNTIME_SERVER_REQUEST_H

#include <stdbool.h>
#include <stddef.h>

enum {
    SERVER_HEAD_MAX = 8 * 1024, /* request line and header fields, with the empty line */
    SERVER_METHOD_SIZE = 16,
    SERVER_TARGET_SIZE = 512,
};

struct server_request {
    char method[SERVER_METHOD_SIZE]; /* "GET" */
    char path[SERVER_TARGET_SIZE];   /* "/v1/status", as it was sent, not decoded */
    char query[SERVER_TARGET_SIZE];  /* what follows the "?", "" for nothing */
    const char *body;                /* into the bytes */
    size_t body_len;
    bool expects_continue; /* the body comes after "100 Continue" (RFC 9110 §10.1.1) */
};

enum server_parse {
    SERVER_PARSE_MORE, /* so far so good; in `ret` is what is known when the head is over */
    SERVER_PARSE_WHOLE, /* head and body are there */
    SERVER_PARSE_BAD,   /* `ret_status` says what to answer */
};

/* `ret_status` is one of 400, 411, 413, 414, 431, 501, 505. */
enum server_parse server_request_parse(struct server_request *ret, const char *bytes,
                                       size_t len, size_t body_max, int *ret_status);

/* "Not Found" for 404; "" for what this program never answers. */
const char *server_status_text(int status);

#endif
