#include "support/dns.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include <cmocka.h>

enum { HEADER_BYTES = 12, TYPE_CNAME = 5, TYPE_CAA = 257, SERVFAIL = 2, NXDOMAIN = 3 };

/* ---- messages ---- */

static void put(struct dns_message *m, const void *bytes, size_t len)
{
    assert_true(m->len + len <= sizeof m->bytes);
    memcpy(m->bytes + m->len, bytes, len);
    m->len += len;
}

static void put_16(struct dns_message *m, unsigned value)
{
    const unsigned char bytes[] = {(unsigned char)(value >> 8), (unsigned char)value};

    put(m, bytes, sizeof bytes);
}

static void put_name(struct dns_message *m, const char *name)
{
    while (*name != '\0') {
        unsigned char len = (unsigned char)strcspn(name, ".");

        put(m, &len, 1);
        put(m, name, len);
        name += len;
        name += *name == '.';
    }
    put(m, "", 1);
}

void dns_begin(struct dns_message *message, unsigned id, unsigned rcode, const char *name)
{
    message->len = 0;
    put_16(message, id);
    put_16(message, 0x8180 | rcode);
    put_16(message, 1);
    put_16(message, 0);
    put_16(message, 0);
    put_16(message, 0);
    put_name(message, name);
    put_16(message, TYPE_CAA);
    put_16(message, 1);
}

/* Where the name of the question or of an earlier alias stands; 0 when it is not there. */
static size_t find_name(const struct dns_message *m, const char *name)
{
    struct dns_message wanted = {.len = 0};

    put_name(&wanted, name);
    for (size_t at = HEADER_BYTES; at + wanted.len <= m->len; at++) {
        if (memcmp(m->bytes + at, wanted.bytes, wanted.len) == 0)
            return at;
    }
    return 0;
}

void dns_add(struct dns_message *message, const struct dns_record *record,
             bool compressed)
{
    size_t earlier = compressed ? find_name(message, record->name) : 0;
    size_t value_len = record->alias != NULL    ? 0
                       : record->value_len != 0 ? record->value_len
                                                : strlen(record->value);
    struct dns_message data = {.len = 0};

    if (earlier != 0)
        put_16(message, 0xc000 | (unsigned)earlier);
    else
        put_name(message, record->name);
    put_16(message, record->alias != NULL ? TYPE_CNAME : TYPE_CAA);
    put_16(message, 1);
    put_16(message, 0);
    put_16(message, 60);
    if (record->alias != NULL) {
        put_name(&data, record->alias);
    } else {
        const unsigned char head[] = {(unsigned char)record->flags,
                                      (unsigned char)strlen(record->tag)};

        put(&data, head, sizeof head);
        put(&data, record->tag, strlen(record->tag));
        put(&data, record->value, value_len);
    }
    put_16(message, (unsigned)data.len);
    put(message, data.bytes, data.len);
    message->bytes[7]++; /* answers */
}

/* ---- the server ---- */

static void read_question(const unsigned char *bytes, size_t len, char name[256])
{
    size_t at = HEADER_BYTES;
    size_t end = 0;

    name[0] = '\0';
    while (at < len && bytes[at] != 0) {
        int count = snprintf(name + end, 256 - end, "%s%.*s", end == 0 ? "" : ".",
                             (int)bytes[at], (const char *)bytes + at + 1);

        end += (size_t)count;
        at += 1U + bytes[at];
    }
}

static void add_records(const struct dns_server *server, const char *name,
                        struct dns_message *ret)
{
    for (const struct dns_record *one = server->records; one->name != NULL; one++) {
        if (strcasecmp(one->name, name) != 0)
            continue;
        dns_add(ret, one, true);
        if (one->alias != NULL && server->follows)
            add_records(server, one->alias, ret);
    }
}

/* False when there is to be none. */
static bool answer(struct dns_server *server, const unsigned char *bytes, size_t len,
                   struct dns_message *ret)
{
    char name[256];
    unsigned id = (unsigned)bytes[0] << 8 | bytes[1];
    bool known = false;

    read_question(bytes, len, name);
    assert_true(server->asked < sizeof server->names / sizeof server->names[0]);
    memcpy(server->names[server->asked++], name, sizeof name);
    if (server->silent)
        return false;
    for (const struct dns_record *one = server->records; one->name != NULL; one++)
        known = known || strcasecmp(one->name, name) == 0;
    if (server->broken != NULL && strcmp(server->broken, name) == 0) {
        dns_begin(ret, id, SERVFAIL, name);
        return true;
    }
    dns_begin(ret, id, known ? 0 : NXDOMAIN, name);
    add_records(server, name, ret);
    return true;
}

struct sent {
    union {
        uv_udp_send_t udp;
        uv_write_t tcp;
    } request;
    struct dns_message message;
};

static void on_sent_by_udp(uv_udp_send_t *request, int status)
{
    (void)status;
    free(request->data);
}

static void on_buffer(uv_handle_t *handle, size_t size, uv_buf_t *ret)
{
    (void)handle;
    *ret = uv_buf_init(malloc(size), (unsigned)size);
    assert_non_null(ret->base);
}

static void on_datagram(uv_udp_t *udp, ssize_t len, const uv_buf_t *buf,
                        const struct sockaddr *from, unsigned flags)
{
    struct dns_server *server = udp->data;
    struct sent *sent;

    (void)flags;
    if (from != NULL && len >= HEADER_BYTES) {
        uv_buf_t out;

        sent = calloc(1, sizeof *sent);
        assert_non_null(sent);
        sent->request.udp.data = sent;
        if (answer(server, (unsigned char *)buf->base, (size_t)len, &sent->message)) {
            if (server->truncates) {
                sent->message.bytes[2] |= 2;
                sent->message.bytes[7] = 0;
            }
            out = uv_buf_init((char *)sent->message.bytes, (unsigned)sent->message.len);
            assert_int_equal(
                uv_udp_send(&sent->request.udp, udp, &out, 1, from, on_sent_by_udp), 0);
        } else {
            free(sent);
        }
    }
    free(buf->base);
}

static void on_peer_closed(uv_handle_t *peer)
{
    free(peer);
}

static void on_sent_by_tcp(uv_write_t *request, int status)
{
    (void)status;
    free(request->data);
}

/* A question comes in one piece here: loopback, and few bytes. */
static void on_stream(uv_stream_t *peer, ssize_t len, const uv_buf_t *buf)
{
    struct dns_server *server = peer->data;

    if (len > 2 + HEADER_BYTES) {
        struct sent *sent = calloc(1, sizeof *sent);
        static unsigned char prefix[2];
        uv_buf_t out[2];

        assert_non_null(sent);
        sent->request.tcp.data = sent;
        server->asked_by_tcp++;
        if (answer(server, (unsigned char *)buf->base + 2, (size_t)len - 2,
                   &sent->message)) {
            prefix[0] = (unsigned char)(sent->message.len >> 8);
            prefix[1] = (unsigned char)sent->message.len;
            out[0] = uv_buf_init((char *)prefix, 2);
            out[1] =
                uv_buf_init((char *)sent->message.bytes, (unsigned)sent->message.len);
            uv_write(&sent->request.tcp, peer, out, 2, on_sent_by_tcp);
        } else {
            free(sent);
        }
    } else if (len < 0) {
        uv_close((uv_handle_t *)peer, on_peer_closed);
    }
    free(buf->base);
}

static void on_connection(uv_stream_t *listener, int status)
{
    uv_tcp_t *peer = calloc(1, sizeof *peer);

    assert_int_equal(status, 0);
    assert_non_null(peer);
    uv_tcp_init(listener->loop, peer);
    peer->data = listener->data;
    assert_int_equal(uv_accept(listener, (uv_stream_t *)peer), 0);
    uv_read_start((uv_stream_t *)peer, on_buffer, on_stream);
}

/* Sockets of both kinds at one port that is free for both. */
static unsigned bind_both(int *ret_udp, int *ret_tcp)
{
    for (int tries = 0; tries < 100; tries++) {
        struct sockaddr_in place = {.sin_family = AF_INET,
                                    .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t len = sizeof place;

        *ret_udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        *ret_tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_true(*ret_udp >= 0 && *ret_tcp >= 0);
        if (bind(*ret_udp, (struct sockaddr *)&place, sizeof place) == 0 &&
            getsockname(*ret_udp, (struct sockaddr *)&place, &len) == 0 &&
            bind(*ret_tcp, (struct sockaddr *)&place, sizeof place) == 0)
            return ntohs(place.sin_port);
        close(*ret_udp);
        close(*ret_tcp);
    }
    fail_msg("no port is free for UDP and TCP");
    return 0;
}

void dns_server_start(struct dns_server *server, uv_loop_t *loop)
{
    int udp;
    int tcp;

    snprintf(server->address, sizeof server->address, "127.0.0.1:%u",
             bind_both(&udp, &tcp));
    uv_udp_init(loop, &server->udp);
    uv_tcp_init(loop, &server->tcp);
    server->udp.data = server;
    server->tcp.data = server;
    assert_int_equal(uv_udp_open(&server->udp, udp), 0);
    assert_int_equal(uv_tcp_open(&server->tcp, tcp), 0);
    assert_int_equal(uv_listen((uv_stream_t *)&server->tcp, 8, on_connection), 0);
    assert_int_equal(uv_udp_recv_start(&server->udp, on_buffer, on_datagram), 0);
    /* The loop ends without it. */
    uv_unref((uv_handle_t *)&server->udp);
    uv_unref((uv_handle_t *)&server->tcp);
}

void dns_server_stop(struct dns_server *server)
{
    uv_close((uv_handle_t *)&server->udp, NULL);
    uv_close((uv_handle_t *)&server->tcp, NULL);
}
