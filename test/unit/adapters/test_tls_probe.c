#include "adapters/tls_probe.h"

#include "base/text.h"
#include "support/loop.h"
#include "support/pki.h"
#include "support/server.h"

#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME "app.example.test"

enum { PATIENCE_MS = 20000, SHORT_MS = 50, MANY_NAMES = 1000 };

struct owner {
    struct tls_probe probe;
    struct ended ended;
    bool in_call; /* the test is inside a function of the probe */
};

static void on_done(void *owner, const struct err *err)
{
    struct owner *o = owner;

    assert_false(o->in_call);
    ended_done(&o->ended, err);
    pki_assert_queue_empty();
}

static void start(struct owner *o, uv_loop_t *loop, const char *address, unsigned port,
                  unsigned timeout_ms)
{
    const struct tls_probe_target target = {
        .address = address, .port = port, .server_name = NAME};

    o->in_call = true;
    o->ended = (struct ended){0};
    tls_probe_start(&o->probe, loop, &target, timeout_ms, on_done, o);
    o->in_call = false;
}

static void cancel(struct owner *o)
{
    o->in_call = true;
    tls_probe_cancel(&o->probe);
    o->in_call = false;
}

/* ---- a TLS server ---- */

static const struct server_script no_scripts[] = {{.path = NULL, .answer = ""}};

struct https {
    struct server *server;
    EVP_PKEY *key;
    X509 *certificate;
    unsigned port;
    char leaf[65]; /* what a probe must find */
};

/* With that certificate, which it takes over. */
static void https_start(struct https *https, EVP_PKEY *key, X509 *certificate)
{
    struct server_options options = {
        .tls_key = key, .tls_certificate = certificate, .scripts = no_scripts};
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned len;

    *https = (struct https){.key = key, .certificate = certificate};
    https->server = server_start(&options);
    https->port =
        (unsigned)strtoul(strrchr(server_url(https->server), ':') + 1, NULL, 10);
    assert_int_equal(X509_digest(certificate, EVP_sha256(), digest, &len), 1);
    text_hex(https->leaf, digest, len);
}

static void https_start_usual(struct https *https)
{
    EVP_PKEY *key;
    X509 *certificate;

    server_make_certificate(&key, &certificate);
    https_start(https, key, certificate);
}

static void https_stop(struct https *https)
{
    server_stop(https->server);
    X509_free(https->certificate);
    EVP_PKEY_free(https->key);
}

/* ---- a peer in the test's own loop, for one connection ---- */

struct peer {
    uv_tcp_t listener;
    uv_tcp_t connection;
    const void *says; /* as soon as somebody connects */
    size_t len;
    bool closes; /* after that */
    bool connected;
    unsigned port;
};

static void on_connection(uv_stream_t *listener, int status)
{
    struct peer *peer = listener->data;
    uv_buf_t text;

    assert_int_equal(status, 0);
    assert_false(peer->connected);
    peer->connected = true;
    assert_int_equal(uv_tcp_init(listener->loop, &peer->connection), 0);
    assert_int_equal(uv_accept(listener, (uv_stream_t *)&peer->connection), 0);
    if (peer->len > 0) {
        char copy[64];

        assert_true(peer->len <= sizeof copy);
        memcpy(copy, peer->says, peer->len);
        text = uv_buf_init(copy, (unsigned)peer->len);
        assert_int_equal(uv_try_write((uv_stream_t *)&peer->connection, &text, 1),
                         (int)peer->len);
    }
    if (peer->closes)
        uv_close((uv_handle_t *)&peer->connection, NULL);
}

static unsigned port_of(const uv_tcp_t *listener)
{
    struct sockaddr_storage place = {0};
    int len = sizeof place;

    assert_int_equal(uv_tcp_getsockname(listener, (struct sockaddr *)&place, &len), 0);
    return place.ss_family == AF_INET6 ? ntohs(((struct sockaddr_in6 *)&place)->sin6_port)
                                       : ntohs(((struct sockaddr_in *)&place)->sin_port);
}

/* 0, or libuv's error when there is no such address. */
static int peer_start_at(struct peer *peer, uv_loop_t *loop, const struct sockaddr *place)
{
    int status;

    peer->listener.data = peer;
    assert_int_equal(uv_tcp_init(loop, &peer->listener), 0);
    status = uv_tcp_bind(&peer->listener, place, 0);
    if (status == 0)
        status = uv_listen((uv_stream_t *)&peer->listener, 1, on_connection);
    if (status == 0)
        peer->port = port_of(&peer->listener);
    return status;
}

static void peer_start(struct peer *peer, uv_loop_t *loop)
{
    struct sockaddr_in place;

    assert_int_equal(uv_ip4_addr("127.0.0.1", 0, &place), 0);
    assert_int_equal(peer_start_at(peer, loop, (struct sockaddr *)&place), 0);
}

static void peer_stop(struct peer *peer, uv_loop_t *loop)
{
    uv_close((uv_handle_t *)&peer->listener, NULL);
    if (peer->connected && !peer->closes)
        uv_close((uv_handle_t *)&peer->connection, NULL);
    loop_run(loop);
}

/* The end of a probe of this peer. */
static void probe_peer(struct owner *o, uv_loop_t *loop, struct peer *peer,
                       unsigned timeout_ms)
{
    peer_start(peer, loop);
    start(o, loop, "127.0.0.1", peer->port, timeout_ms);
    loop_run_until(loop, ended_once, &o->ended);
    peer_stop(peer, loop);
}

/* ---- what it finds ---- */

static void test_finds_the_leaf(void **state)
{
    struct owner o = {.in_call = false};
    struct https https;

    https_start_usual(&https);
    start(&o, *state, "127.0.0.1", https.port, PATIENCE_MS);
    assert_int_equal(o.ended.times, 0);
    loop_run(*state);
    ended_assert_ok(&o.ended);
    assert_string_equal(o.probe.leaf_sha256, https.leaf);
    https_stop(&https);
}

/* Leaf first, as it is presented; also after a first use of the buffer. */
static void test_finds_the_chain(void **state)
{
    static const struct pki_spec spec = {.common_name = NAME, .names = "DNS:" NAME};
    struct server_options options = {.scripts = no_scripts};
    struct tls_probe_target target = {.address = "127.0.0.1", .server_name = NAME};
    struct owner o = {.in_call = false};
    struct pki_chain pki;
    BUF_SCOPED pem = {.max = 64 * 1024};
    char *expected;

    pki_chain_init(&pki, &spec);
    expected = pki_pem(pki.leaf, pki.intermediate, NULL);
    options.tls_key = pki.leaf_key;
    options.tls_certificate = pki.leaf;
    options.tls_issuer = pki.intermediate;
    struct server *server = server_start(&options);
    target.port = (unsigned)strtoul(strrchr(server_url(server), ':') + 1, NULL, 10);
    target.ret_chain = &pem;
    tls_probe_start(&o.probe, *state, &target, PATIENCE_MS, on_done, &o);
    loop_run(*state);
    ended_assert_ok(&o.ended);
    assert_string_equal(buf_str(&pem), expected);
    server_stop(server);
    free(expected);
    pki_chain_done(&pki);
}

static void test_chain_that_is_too_long_is_refused(void **state)
{
    struct owner o = {.in_call = false};
    struct tls_probe_target target = {.address = "127.0.0.1", .server_name = NAME};
    struct https https;
    BUF_SCOPED pem = {.max = 100};

    https_start_usual(&https);
    target.port = https.port;
    target.ret_chain = &pem;
    tls_probe_start(&o.probe, *state, &target, PATIENCE_MS, on_done, &o);
    loop_run(*state);
    ended_assert_failed(&o.ended, ERR_PEER, "100");
    assert_int_equal(pem.len, 0);
    https_stop(&https);
}

/* It comes in many pieces, each larger than what is read at once. */
static void test_finds_a_very_large_leaf(void **state)
{
    struct owner o = {.in_call = false};
    struct https https;
    struct pki_spec spec = {.common_name = NAME};
    EVP_PKEY *key = pki_key();
    char *names = malloc(MANY_NAMES * 32);
    size_t len = 0;

    assert_non_null(names);
    for (int i = 0; i < MANY_NAMES; i++)
        len += (size_t)snprintf(names + len, 32, "%sDNS:a%04d.example.test",
                                i == 0 ? "" : ",", i);
    spec.names = names;
    https_start(&https, key, pki_certificate(&spec, key, NULL, key));
    free(names);
    start(&o, *state, "127.0.0.1", https.port, PATIENCE_MS);
    loop_run(*state);
    ended_assert_ok(&o.ended);
    assert_string_equal(o.probe.leaf_sha256, https.leaf);
    https_stop(&https);
}

static void test_finds_another_leaf_the_next_time(void **state)
{
    struct owner o = {.in_call = false};
    struct https https[2];

    for (int i = 0; i < 2; i++) {
        https_start_usual(&https[i]);
        start(&o, *state, "127.0.0.1", https[i].port, PATIENCE_MS);
        loop_run(*state);
        ended_assert_ok(&o.ended);
        assert_string_equal(o.probe.leaf_sha256, https[i].leaf);
    }
    assert_string_not_equal(https[0].leaf, https[1].leaf);
    for (int i = 0; i < 2; i++)
        https_stop(&https[i]);
}

static void test_probes_do_not_disturb_each_other(void **state)
{
    struct owner owners[4] = {{.in_call = false}};
    struct https https[2];

    https_start_usual(&https[0]);
    https_start_usual(&https[1]);
    for (int i = 0; i < 4; i++)
        start(&owners[i], *state, "127.0.0.1", https[i % 2].port, PATIENCE_MS);
    cancel(&owners[3]);
    loop_run(*state);
    for (int i = 0; i < 3; i++) {
        ended_assert_ok(&owners[i].ended);
        assert_string_equal(owners[i].probe.leaf_sha256, https[i % 2].leaf);
    }
    ended_assert_failed(&owners[3].ended, ERR_CANCELED, "canceled");
    https_stop(&https[0]);
    https_stop(&https[1]);
}

/* ---- what it says when there is none ---- */

static void test_nobody_listens(void **state)
{
    struct owner o = {.in_call = false};
    unsigned port = (unsigned)server_unused_port();
    char where[32];

    snprintf(where, sizeof where, "127.0.0.1:%u: ", port);
    start(&o, *state, "127.0.0.1", port, PATIENCE_MS);
    assert_int_equal(o.ended.times, 0);
    loop_run(*state);
    ended_assert_failed(&o.ended, ERR_NET, where);
    assert_string_equal(o.probe.leaf_sha256, "");
}

static void test_not_an_address(void **state)
{
    struct owner o = {.in_call = false};

    start(&o, *state, "localhost", 443, PATIENCE_MS);
    assert_int_equal(o.ended.times, 0);
    loop_run(*state);
    ended_assert_failed(&o.ended, ERR_CONFIG, "localhost:443: not an address");
}

static void test_peer_that_speaks_no_tls(void **state)
{
    static const char answer[] = "HTTP/1.1 400 Bad Request\r\n\r\n";
    struct owner o = {.in_call = false};
    struct peer peer = {.says = answer, .len = sizeof answer - 1};
    char where[32];

    probe_peer(&o, *state, &peer, PATIENCE_MS);
    snprintf(where, sizeof where, "127.0.0.1:%u: TLS", peer.port);
    ended_assert_failed(&o.ended, ERR_PEER, where);
}

static void test_peer_that_refuses_the_handshake(void **state)
{
    static const unsigned char alert[] = {0x15, 3, 3, 0,
                                          2,    2, 40}; /* handshake_failure */
    struct owner o = {.in_call = false};
    struct peer peer = {.says = alert, .len = sizeof alert};

    probe_peer(&o, *state, &peer, PATIENCE_MS);
    ended_assert_failed(&o.ended, ERR_PEER, "handshake failure");
}

static void test_peer_that_goes_away(void **state)
{
    struct owner o = {.in_call = false};
    struct peer peer = {.closes = true};

    probe_peer(&o, *state, &peer, PATIENCE_MS);
    ended_assert_failed(&o.ended, ERR_NET, "127.0.0.1:");
}

static void test_peer_that_is_silent(void **state)
{
    struct owner o = {.in_call = false};
    struct peer peer = {.len = 0};
    uint64_t begin = uv_now(*state);

    probe_peer(&o, *state, &peer, SHORT_MS);
    ended_assert_failed(&o.ended, ERR_TIMEOUT, "no TLS handshake in time");
    assert_true(uv_now(*state) - begin >= SHORT_MS);
}

static void test_peer_that_falls_silent(void **state)
{
    static const unsigned char half[] = {0x16, 3, 3, 0, 0x7a, 2}; /* of a ServerHello */
    struct owner o = {.in_call = false};
    struct peer peer = {.says = half, .len = sizeof half};

    probe_peer(&o, *state, &peer, SHORT_MS);
    ended_assert_failed(&o.ended, ERR_TIMEOUT, "no TLS handshake in time");
}

/* ---- what it sends ---- */

struct hello {
    char bytes[4096];
    size_t len;
};

static void on_room(uv_handle_t *handle, size_t suggested, uv_buf_t *ret)
{
    struct hello *hello = handle->data;

    (void)suggested;
    *ret = uv_buf_init(hello->bytes + hello->len,
                       (unsigned)(sizeof hello->bytes - hello->len));
}

static void on_hello(uv_stream_t *stream, ssize_t len, const uv_buf_t *buffer)
{
    struct hello *hello = stream->data;

    (void)buffer;
    if (len > 0)
        hello->len += (size_t)len;
    else
        uv_read_stop(stream);
}

static bool peer_has_connected(void *owner)
{
    const struct peer *peer = owner;

    return peer->connected;
}

static bool has_server_name(void *owner)
{
    const struct hello *hello = owner;

    return memmem(hello->bytes, hello->len, NAME, strlen(NAME)) != NULL;
}

/* What a peer hears from a probe that it does not answer. */
static void listen_to(struct hello *hello, uv_loop_t *loop, bool proxy_protocol)
{
    struct owner o = {.in_call = false};
    struct peer peer = {.len = 0};
    struct tls_probe_target target = {
        .address = "127.0.0.1", .server_name = NAME, .proxy_protocol = proxy_protocol};

    peer_start(&peer, loop);
    target.port = peer.port;
    tls_probe_start(&o.probe, loop, &target, PATIENCE_MS, on_done, &o);
    loop_run_until(loop, peer_has_connected, &peer);
    peer.connection.data = hello;
    assert_int_equal(uv_read_start((uv_stream_t *)&peer.connection, on_room, on_hello),
                     0);
    loop_run_until(loop, has_server_name, hello);
    cancel(&o);
    peer_stop(&peer, loop);
    ended_assert_failed(&o.ended, ERR_CANCELED, "canceled");
}

static void assert_client_hello(const char *bytes, size_t len)
{
    static const char handshake[] = {0x16, 3, 1}; /* RFC 8446 §5.1 */

    assert_true(len > sizeof handshake);
    assert_memory_equal(bytes, handshake, sizeof handshake);
}

static void test_sends_the_server_name(void **state)
{
    struct hello hello = {.len = 0};

    listen_to(&hello, *state, false);
    assert_client_hello(hello.bytes, hello.len);
}

/* Once, before everything else, and for nobody: the balancer's networks are not ours. */
static void test_sends_the_proxy_header_first(void **state)
{
    static const char header[] = "PROXY UNKNOWN\r\n";
    const size_t len = sizeof header - 1;
    struct hello hello = {.len = 0};

    listen_to(&hello, *state, true);
    assert_true(hello.len > len);
    assert_memory_equal(hello.bytes, header, len);
    assert_client_hello(hello.bytes + len, hello.len - len);
    assert_null(memmem(hello.bytes + len, hello.len - len, "PROXY", 5));
}

static void test_ipv6(void **state)
{
    static const char answer[] = "no TLS\r\n";
    struct owner o = {.in_call = false};
    struct peer peer = {.says = answer, .len = sizeof answer - 1};
    struct sockaddr_in6 place;
    char where[32];
    int status;

    assert_int_equal(uv_ip6_addr("::1", 0, &place), 0);
    status = peer_start_at(&peer, *state, (struct sockaddr *)&place);
    if (status == 0) {
        start(&o, *state, "::1", peer.port, PATIENCE_MS);
        loop_run_until(*state, ended_once, &o.ended);
    }
    peer_stop(&peer, *state);
    if (status != 0)
        skip();
    snprintf(where, sizeof where, "[::1]:%u: TLS", peer.port);
    ended_assert_failed(&o.ended, ERR_PEER, where);
}

/* ---- cancel ---- */

static void test_canceled_at_once(void **state)
{
    struct owner o = {.in_call = false};
    struct https https;

    https_start_usual(&https);
    start(&o, *state, "127.0.0.1", https.port, PATIENCE_MS);
    cancel(&o);
    cancel(&o);
    assert_int_equal(o.ended.times, 0);
    loop_run(*state);
    ended_assert_failed(&o.ended, ERR_CANCELED, "canceled");
    cancel(&o);
    loop_run(*state);
    assert_int_equal(o.ended.times, 1);
    https_stop(&https);
}

/* After the first round of the loop, after the second, until it ends by itself. */
static void test_canceled_at_every_moment(void **state)
{
    struct https https;
    unsigned canceled = 0;
    bool ended = false;

    https_start_usual(&https);
    for (unsigned rounds = 0; !ended; rounds++) {
        struct owner o = {.in_call = false};

        start(&o, *state, "127.0.0.1", https.port, PATIENCE_MS);
        for (unsigned i = 0; i < rounds && o.ended.times == 0; i++)
            uv_run(*state, UV_RUN_ONCE);
        ended = o.ended.times > 0;
        cancel(&o);
        loop_run(*state);
        assert_int_equal(o.ended.times, 1);
        if (o.ended.failed) {
            ended_assert_failed(&o.ended, ERR_CANCELED, "canceled");
            canceled++;
        }
    }
    assert_true(canceled >= 2);
    https_stop(&https);
}

static void test_canceled_while_the_peer_is_silent(void **state)
{
    struct owner o = {.in_call = false};
    struct peer peer = {.len = 0};

    peer_start(&peer, *state);
    start(&o, *state, "127.0.0.1", peer.port, PATIENCE_MS);
    loop_run_until(*state, peer_has_connected, &peer);
    cancel(&o);
    loop_run_until(*state, ended_once, &o.ended);
    ended_assert_failed(&o.ended, ERR_CANCELED, "canceled");
    peer_stop(&peer, *state);
}

static void test_canceled_after_a_failure_of_starting(void **state)
{
    struct owner o = {.in_call = false};

    start(&o, *state, "localhost", 443, PATIENCE_MS);
    cancel(&o);
    loop_run(*state);
    ended_assert_failed(&o.ended, ERR_CANCELED, "canceled");
}

static void free_owner(void *owner, const struct err *err)
{
    (void)err;
    free(owner);
}

static void test_its_end_may_free_it(void **state)
{
    struct tls_probe *probes[3];
    struct https https;

    https_start_usual(&https);
    for (int i = 0; i < 3; i++) {
        probes[i] = calloc(1, sizeof *probes[i]);
        assert_non_null(probes[i]);
        const struct tls_probe_target target = {
            .address = "127.0.0.1",
            .port = i == 1 ? (unsigned)server_unused_port() : https.port,
            .server_name = NAME,
        };

        tls_probe_start(probes[i], *state, &target, PATIENCE_MS, free_owner, probes[i]);
    }
    tls_probe_cancel(probes[2]);
    loop_run(*state);
    https_stop(&https);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        loop_test(test_finds_the_leaf),
        loop_test(test_finds_the_chain),
        loop_test(test_chain_that_is_too_long_is_refused),
        loop_test(test_finds_a_very_large_leaf),
        loop_test(test_finds_another_leaf_the_next_time),
        loop_test(test_probes_do_not_disturb_each_other),
        loop_test(test_nobody_listens),
        loop_test(test_not_an_address),
        loop_test(test_peer_that_speaks_no_tls),
        loop_test(test_peer_that_refuses_the_handshake),
        loop_test(test_peer_that_goes_away),
        loop_test(test_peer_that_is_silent),
        loop_test(test_peer_that_falls_silent),
        loop_test(test_sends_the_server_name),
        loop_test(test_sends_the_proxy_header_first),
        loop_test(test_ipv6),
        loop_test(test_canceled_at_once),
        loop_test(test_canceled_at_every_moment),
        loop_test(test_canceled_while_the_peer_is_silent),
        loop_test(test_canceled_after_a_failure_of_starting),
        loop_test(test_its_end_may_free_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
