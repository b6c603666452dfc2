#include "adapters/tls_probe.h"

#include "base/text.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <string.h>

static void advance(struct tls_probe *p);

/* ---- the end ---- */

static void handle_closed(struct tls_probe *p)
{
    struct err err;

    if (--p->open_handles > 0)
        return;
    SSL_free(p->ssl);
    SSL_CTX_free(p->context);
    ERR_clear_error();
    p->running = false;
    err = p->err; /* done may free or restart the probe */
    p->done(p->owner, err.kind == ERR_NONE ? NULL : &err);
}

static void on_tcp_closed(uv_handle_t *handle)
{
    handle_closed(handle->data);
}

static void on_timer_closed(void *owner)
{
    handle_closed(owner);
}

/* With the outcome in p->err. */
static void finish(struct tls_probe *p)
{
    if (p->finished)
        return;
    p->finished = true;
    uv_close((uv_handle_t *)&p->tcp, on_tcp_closed);
    timer_close(&p->timer, on_timer_closed);
}

static void fail_net(struct tls_probe *p, int status)
{
    err_set_code(&p->err, ERR_NET, -status, "%s: %s", p->where, uv_strerror(status));
    finish(p);
}

/* ---- the handshake ---- */

static void on_written(uv_write_t *request, int status)
{
    struct tls_probe *p = request->data;

    p->writing = false;
    if (p->finished)
        return;
    if (status < 0)
        fail_net(p, status);
    else
        advance(p);
}

/* Hands what TLS wants to say to the socket; true while that takes its time. */
static bool flush(struct tls_probe *p)
{
    uv_buf_t buffer;
    int len = 0;
    int status;

    if (!p->writing)
        len = BIO_read(p->to_peer, p->out, sizeof p->out);
    if (len <= 0)
        return p->writing;
    buffer = uv_buf_init(p->out, (unsigned)len);
    p->write.data = p;
    p->writing = true;
    status = uv_write(&p->write, (uv_stream_t *)&p->tcp, &buffer, 1, on_written);
    if (status < 0) {
        p->writing = false;
        fail_net(p, status);
    }
    return true;
}

/* The peer chose what is in it, so the buffer may be too small. */
static int take_chain(struct tls_probe *p)
{
    STACK_OF(X509) *chain = SSL_get_peer_cert_chain(p->ssl);
    BIO *bio = BIO_new(BIO_s_mem());
    const char *text;
    bool written = bio != NULL;
    int failed;

    for (int i = 0; written && i < sk_X509_num(chain); i++)
        written = PEM_write_bio_X509(bio, sk_X509_value(chain, i)) == 1;
    if (written) {
        size_t len = (size_t)BIO_get_mem_data(bio, &text);

        failed = buf_append(p->chain_pem, text, len, &p->err);
    } else {
        failed = err_openssl(&p->err, "%s: the chain cannot be kept", p->where);
    }
    BIO_free(bio);
    return failed;
}

static void take_leaf(struct tls_probe *p)
{
    X509 *leaf = SSL_get1_peer_certificate(p->ssl);
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned len = 0;

    if (leaf == NULL || X509_digest(leaf, EVP_sha256(), digest, &len) != 1)
        err_set(&p->err, ERR_PEER, "%s: no certificate in the handshake", p->where);
    else
        text_hex(p->leaf_sha256, digest, len);
    X509_free(leaf);
    if (p->err.kind == ERR_NONE && p->chain_pem != NULL)
        (void)take_chain(p); /* says in p->err what went wrong */
    finish(p);
}

static void advance(struct tls_probe *p)
{
    int result;
    int reason;

    ERR_clear_error(); /* SSL_get_error(3) looks at the queue first */
    result = SSL_do_handshake(p->ssl);
    reason = SSL_get_error(p->ssl, result);

    if (result == 1) {
        take_leaf(p);
        return;
    }
    if (flush(p) || reason == SSL_ERROR_WANT_READ)
        return;
    err_openssl(&p->err, "%s: TLS handshake", p->where);
    p->err.kind = ERR_PEER;
    finish(p);
}

static void on_room(uv_handle_t *handle, size_t suggested, uv_buf_t *ret_buffer)
{
    struct tls_probe *p = handle->data;

    (void)suggested;
    *ret_buffer = uv_buf_init(p->in, sizeof p->in);
}

static void on_read(uv_stream_t *stream, ssize_t len, const uv_buf_t *buffer)
{
    struct tls_probe *p = stream->data;

    if (p->finished || len == 0)
        return;
    if (len < 0) {
        fail_net(p, (int)len);
        return;
    }
    BIO_write(p->from_peer, buffer->base, (int)len);
    advance(p);
}

static void on_connected(uv_connect_t *request, int status)
{
    struct tls_probe *p = request->data;

    if (p->finished)
        return;
    if (status == 0)
        status = uv_read_start((uv_stream_t *)&p->tcp, on_room, on_read);
    if (status < 0)
        fail_net(p, status);
    else
        advance(p);
}

/* ---- start ---- */

static void on_timer(void *owner)
{
    struct tls_probe *p = owner;

    /* A failure of starting is reported from here, too: it has set the error already. */
    if (p->err.kind == ERR_NONE)
        err_set(&p->err, ERR_TIMEOUT, "%s: no TLS handshake in time", p->where);
    finish(p);
}

/* The PROXY protocol, version 1: the sender does not say for whom it speaks. */
static const char proxy_header[] = "PROXY UNKNOWN\r\n";

static int set_up_tls(struct tls_probe *p, bool proxy_protocol)
{
    p->context = SSL_CTX_new(TLS_client_method());
    p->ssl = p->context == NULL ? NULL : SSL_new(p->context);
    p->from_peer = BIO_new(BIO_s_mem());
    p->to_peer = BIO_new(BIO_s_mem());
    if (p->ssl == NULL || p->from_peer == NULL || p->to_peer == NULL ||
        (p->server_name[0] != '\0' &&
         SSL_set_tlsext_host_name(p->ssl, p->server_name) != 1) ||
        (proxy_protocol && BIO_puts(p->to_peer, proxy_header) <= 0)) {
        BIO_free(p->from_peer);
        BIO_free(p->to_peer);
        return err_openssl(&p->err, "cannot set up TLS for a probe");
    }
    SSL_set_bio(p->ssl, p->from_peer, p->to_peer);
    SSL_set_connect_state(p->ssl);
    return 0;
}

static int start_connect(struct tls_probe *p, const char *address, unsigned port)
{
    struct sockaddr_storage place = {0};
    int status;

    if (uv_ip4_addr(address, (int)port, (struct sockaddr_in *)&place) != 0 &&
        uv_ip6_addr(address, (int)port, (struct sockaddr_in6 *)&place) != 0)
        return err_set(&p->err, ERR_CONFIG, "%s: not an address", p->where);
    p->connect.data = p;
    status = uv_tcp_connect(&p->connect, &p->tcp, (const struct sockaddr *)&place,
                            on_connected);
    if (status < 0)
        return err_set_code(&p->err, ERR_NET, -status, "%s: %s", p->where,
                            uv_strerror(status));
    return 0;
}

struct tls_probe_target tls_probe_own_port(const struct config *config)
{
    return (struct tls_probe_target){
        .address = config->nginx.address == NULL ? "127.0.0.1" : config->nginx.address,
        .port = config->nginx.https_port,
        .server_name = config->domain,
        .proxy_protocol = config->nginx.proxy_protocol,
    };
}

void tls_probe_start(struct tls_probe *probe, uv_loop_t *loop,
                     const struct tls_probe_target *target, unsigned timeout_ms,
                     done_fn done, void *owner)
{
    struct tls_probe *p = probe;

    *p = (struct tls_probe){
        .running = true, .open_handles = 2, .done = done, .owner = owner};
    snprintf(p->where, sizeof p->where,
             strchr(target->address, ':') == NULL ? "%s:%u" : "[%s]:%u", target->address,
             target->port);
    p->chain_pem = target->ret_chain;
    snprintf(p->server_name, sizeof p->server_name, "%s", target->server_name);
    uv_tcp_init(loop, &p->tcp);
    p->tcp.data = p;
    timer_init(&p->timer, loop, on_timer, p);
    if (set_up_tls(p, target->proxy_protocol) < 0 ||
        start_connect(p, target->address, target->port) < 0)
        timeout_ms = 0;
    timer_set(&p->timer, timeout_ms);
}

void tls_probe_cancel(struct tls_probe *probe)
{
    if (!probe->running || probe->finished)
        return;
    err_set(&probe->err, ERR_CANCELED, "%s: canceled", probe->where);
    finish(probe);
}
