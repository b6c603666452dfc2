/*
 * TLS probe: which leaf, or chain, does a listening port present, asked by a real handshake.
 *
 * The chain is not verified: the question is what is served, not whether to trust it.
 * Ownership and order of calls: done.h.
 */
#ifndef CM_ADAPTERS_TLS_PROBE_H
#define CM_ADAPTERS_TLS_PROBE_H

#include "base/buf.h"
#include "base/err.h"
#include "domain/config.h"
#include "runtime/done.h"
#include "runtime/timer.h"

#include <openssl/ssl.h>
#include <stdbool.h>
#include <uv.h>

struct tls_probe {
    char leaf_sha256[65]; /* result: of the leaf's DER, lower-case hex */

    /* Private. */
    uv_tcp_t tcp;
    uv_connect_t connect;
    uv_write_t write;
    struct timer timer;
    SSL_CTX *context;
    SSL *ssl;
    BIO *from_peer; /* owned by ssl */
    BIO *to_peer;
    char where[80]; /* address and port, for messages */
    char server_name[256];
    struct buf *chain_pem;
    char out[4096]; /* on its way while `writing` */
    char in[4096];
    bool writing;
    bool running;
    bool finished; /* the outcome is settled, handles are closing */
    unsigned open_handles;
    struct err err;
    done_fn done;
    void *owner;
};

/* Whom to ask. Borrowed until tls_probe_start returns, but for ret_chain. */
struct tls_probe_target {
    const char *address; /* IPv4 or IPv6 */
    unsigned port;
    const char *server_name; /* goes into SNI, unless it is "" */
    bool proxy_protocol;     /* the port expects the PROXY protocol's header first */
    struct buf *ret_chain;   /* unless NULL, gets what is presented in PEM; until done */
};

/* Where our nginx listens. Borrows from `config`. */
struct tls_probe_target tls_probe_own_port(const struct config *config);

/*
 * ERR_NET when nobody listens, ERR_PEER when TLS fails, ERR_TIMEOUT, ERR_CANCELED; messages name
 * address and port.
 */
void tls_probe_start(struct tls_probe *probe, uv_loop_t *loop,
                     const struct tls_probe_target *target, unsigned timeout_ms,
                     done_fn done, void *owner);
void tls_probe_cancel(struct tls_probe *probe);

#endif
