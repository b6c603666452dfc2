/*
 * server: an HTTP server for tests that answers by script, rightly or wrongly, from
 * threads of its own. It understands just enough of a request to know where it ends.
 *
 * Whatever fails in here fails the test program. Scripts are borrowed until server_stop.
 */
#ifndef CM_TEST_SUPPORT_SERVER_H
#define CM_TEST_SUPPORT_SERVER_H

#include <openssl/evp.h>
#include <openssl/x509.h>
#include <stddef.h>

enum server_ending {
    SERVER_KEEPS,  /* the connection, for the next request */
    SERVER_CLOSES, /* after the answer */
    SERVER_HANGS,  /* after the answer: neither sends nor closes */
    SERVER_RESETS, /* closes so that the other side gets a reset */
    SERVER_FLOODS, /* sends the answer again and again until it is not taken any more */
};

struct server_script {
    const char *path;   /* of the request; NULL is any, and ends the table */
    const char *answer; /* whole, with status line; "" for none */
    unsigned delay_ms;  /* before the answer */
    unsigned pause_ms;  /* after each byte of the answer */
    enum server_ending ending;
};

struct server_options {
    const char *unix_socket; /* NULL: a free port of 127.0.0.1 */
    EVP_PKEY *tls_key;       /* NULL: no TLS */
    X509 *tls_certificate;
    X509 *tls_issuer; /* presented behind it, or NULL */
    const struct server_script *scripts;
};

struct server;

struct server *server_start(const struct server_options *options);
void server_stop(struct server *server); /* ends all connections; accepts NULL */

/* "http://127.0.0.1:<port>" (https with TLS) or "http://localhost", without a path. */
const char *server_url(const struct server *server);

unsigned server_connections(struct server *server); /* accepted so far */
unsigned server_requests(struct server *server);    /* read completely so far */

/* Everything of the last request, "" before the first one. Into `ret`, cut at `size`. */
const char *server_last_request(struct server *server, char *ret, size_t size);

/* A self-signed certificate for 127.0.0.1 and localhost with a new key. */
void server_make_certificate(EVP_PKEY **ret_key, X509 **ret_certificate);

/* A port of 127.0.0.1 that nobody listens on. */
int server_unused_port(void);

#endif
