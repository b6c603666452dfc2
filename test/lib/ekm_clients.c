/*
 * Clients of an nginx with the EKM module that compare each answer with the exporter of their own
 * connection.
 *
 *   ekm_clients [-c CONNECTIONS] [-r REQUESTS] [-t THREADS] [-p PAUSE_MS] [-2] [-s]
 *               PORT NAME SECRET [NAME SECRET]...
 *
 * On PORT of 127.0.0.1 is a server that answers every request with $ekm_channel_binding. Requests
 * are for the NAMEs in turn; a value has to be signed with a SECRET of its name, on one connection
 * always with the same.
 *
 * -c: in all, otherwise until standard input ends. -r: on each connection, one after the other.
 * -p: between requests. -2: every second connection speaks HTTP/2. -s: two of three connections
 * resume a session.
 *
 * A request on a connection that the server closes as idle is asked again on another one: when the
 * client sees it before it asks ("noticed"), or not a byte has come back ("crossed"), which is safe
 * to repeat (RFC 9112, Section 9.3.1; RFC 9113, Section 6.8). Everything else that has no right
 * answer is "failed". Prints one JSON object.
 */

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/hmac.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define LABEL "EXPORTER-Channel-Binding"
#define FORGED "X-TLS-EKM-Channel-Binding: forged\r\n"
#define EKM_LEN 32
#define HEX_LEN (2 * EKM_LEN)
#define VALUE_LEN (HEX_LEN + 1 + 64)
#define MOST_PAIRS 8
#define TIMEOUT_MS 20000

/* Of RFC 9113. */
enum { DATA = 0, RST_STREAM = 3, SETTINGS = 4, GOAWAY = 7 };
enum { END_STREAM = 1, ACK = 1, FRAME_HEAD = 9, REFUSED_STREAM = 7 };

enum outcome { WAITING, ANSWERED, CLOSED, FAILED };

struct pair {
    char *name, *secret;
    int first; /* pair with the same name */
};

struct client {
    pthread_t thread;
    SSL_CTX *ctx;
    SSL_SESSION *sessions[MOST_PAIRS];
    int name; /* of the connection at hand */
    long connections, resumed, http2, requests, failed, noticed, crossed;
    long signed_with[MOST_PAIRS];
};

struct connection {
    int fd;
    SSL *ssl;
    bool is_http2, is_closing;
    long answers;
    unsigned stream;
    unsigned char exporter[EKM_LEN];
    int signer[MOST_PAIRS];
    char value[VALUE_LEN];
    size_t value_len;
    unsigned char in[16384];
    size_t in_len;
};

static uint16_t port;
static struct pair pairs[MOST_PAIRS];
static int pair_count;
static long most_connections, most_requests = 1, pause_ms;
static bool use_http2, use_sessions;
static atomic_long next_number;
static atomic_bool over;

static void check(bool is_fine, const char *what)
{
    if (!is_fine) {
        perror(what);
        ERR_print_errors_fp(stderr);
        exit(2);
    }
}

static int fail(struct client *client, const char *what)
{
    fprintf(stderr, "failed: %s\n", what);
    ERR_print_errors_fp(stderr);
    client->failed++;
    return -1;
}

/* ---- connections ---------------------------------------------------------------------------- */

static int keep_session(SSL *ssl, SSL_SESSION *session)
{
    struct client *client = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
    SSL_SESSION_free(client->sessions[client->name]);
    client->sessions[client->name] = session;
    return 1;
}

/* Whether an operation of OpenSSL that returned `result` is to be done again, now or after a wait. */
static bool may_repeat(struct connection *c, int result)
{
    struct pollfd poll_fd = {.fd = c->fd};
    switch (SSL_get_error(c->ssl, result)) {
    case SSL_ERROR_WANT_READ:
        poll_fd.events = POLLIN;
        break;
    case SSL_ERROR_WANT_WRITE:
        poll_fd.events = POLLOUT;
        break;
    default:
        return false;
    }
    return poll(&poll_fd, 1, TIMEOUT_MS) == 1;
}

static bool send_all(struct connection *c, const void *data, size_t len)
{
    int result;
    while ((result = SSL_write(c->ssl, data, (int)len)) <= 0 && may_repeat(c, result)) {
    }
    return result > 0;
}

/* More of the input: false at its end, or when there is no room. */
static bool receive(struct connection *c)
{
    int result, room = (int)(sizeof c->in - c->in_len);
    if (room == 0) {
        return false;
    }
    while ((result = SSL_read(c->ssl, c->in + c->in_len, room)) <= 0 &&
           may_repeat(c, result)) {
    }
    c->in_len += result > 0 ? (size_t)result : 0;
    return result > 0;
}

static void disconnect(struct connection *c)
{
    if (c->ssl != NULL) {
        SSL_shutdown(c->ssl);
        SSL_free(c->ssl);
        close(c->fd);
    }
    ERR_clear_error();
    c->ssl = NULL;
}

static bool begin_http2(struct connection *c)
{
    static const char preface[] =
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        "\0\0\0\4\0\0\0\0\0"
        "\0\0\4\x8\0\0\0\0\0\x7f\xff\0\0";
    return send_all(c, preface, sizeof preface - 1);
}

static int connect_to(struct client *client, long number, struct connection *c)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    memset(c, 0, sizeof *c);
    memset(c->signer, -1, sizeof c->signer);
    c->is_http2 = use_http2 && number % 2 == 1;
    client->name = pairs[number % pair_count].first;

    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    c->ssl = SSL_new(client->ctx);
    check(c->fd >= 0 && c->ssl != NULL && SSL_set_fd(c->ssl, c->fd) == 1, "socket");
    SSL_set_tlsext_host_name(c->ssl, pairs[client->name].name);
    const char *alpn = c->is_http2 ? "\2h2" : "\x8http/1.1";
    SSL_set_alpn_protos(c->ssl, (const unsigned char *)alpn, (unsigned)strlen(alpn));
    if (use_sessions && number % 3 != 0 && client->sessions[client->name] != NULL) {
        SSL_set_session(c->ssl, client->sessions[client->name]);
    }
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address) != 0) {
        return fail(client, "connect");
    }
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    int result;
    while ((result = SSL_connect(c->ssl)) != 1 && may_repeat(c, result)) {
    }
    if (result != 1 || SSL_export_keying_material(c->ssl, c->exporter, EKM_LEN, LABEL,
                                                  sizeof LABEL - 1, NULL, 0, 0) != 1) {
        return fail(client, "handshake");
    }
    if (c->is_http2 && !begin_http2(c)) {
        return fail(client, "beginning of HTTP/2");
    }
    client->connections++;
    client->resumed += SSL_session_reused(c->ssl);
    client->http2 += c->is_http2;
    return 0;
}

/* ---- requests ------------------------------------------------------------------------------- */

static bool ask(struct connection *c, const char *name)
{
    /* GET, https, / and :authority are in HPACK's static table (RFC 7541, Appendix A). */
    static const char head[] =
        "\0\0\0\1\5\0\0\0\0"
        "\x82\x87\x84\1";
    char text[512];
    size_t len = strlen(name);
    check(len < 128, name);
    if (!c->is_http2) {
        len = (size_t)snprintf(text, sizeof text,
                               "GET / HTTP/1.1\r\nHost: %s\r\n" FORGED "\r\n", name);
        return send_all(c, text, len);
    }
    c->stream = c->stream == 0 ? 1 : c->stream + 2;
    memcpy(text, head, sizeof head);
    text[2] = (char)(sizeof head - FRAME_HEAD + len);
    for (int i = 0; i < 4; i++) {
        text[5 + i] = (char)(c->stream >> (24 - 8 * i));
    }
    text[sizeof head - 1] = (char)len;
    memcpy(text + sizeof head, name, len);
    return send_all(c, text, sizeof head + len);
}

static void consume(struct connection *c, size_t len)
{
    c->in_len -= len;
    memmove(c->in, c->in + len, c->in_len);
}

static enum outcome end_of(const struct connection *c, bool is_new)
{
    return c->in_len == 0 && !is_new ? CLOSED : FAILED;
}

static enum outcome answer_1(struct connection *c)
{
    const char *body;
    do {
        if (!receive(c)) {
            return end_of(c, c->answers == 0);
        }
        body = memmem(c->in, c->in_len, "\r\n\r\n", 4);
    } while (body == NULL || c->in_len < (size_t)(body + 4 + VALUE_LEN - (char *)c->in));
    body += 4;
    if (memcmp(c->in, "HTTP/1.1 200 ", 13) != 0) {
        return FAILED;
    }
    size_t head = (size_t)(body - (char *)c->in);
    c->is_closing = memmem(c->in, head, "\r\nConnection: close\r\n", 21) != NULL;
    memcpy(c->value, body, VALUE_LEN);
    consume(c, head + VALUE_LEN);
    return c->in_len == 0 ? ANSWERED : FAILED;
}

static unsigned number_at(const unsigned char *p)
{
    return (unsigned)p[0] << 24 | (unsigned)p[1] << 16 | (unsigned)p[2] << 8 | p[3];
}

static bool has_frame(const struct connection *c)
{
    return c->in_len >= FRAME_HEAD && c->in_len >= FRAME_HEAD + (number_at(c->in) >> 8);
}

static enum outcome take_data(struct connection *c, const unsigned char *data, size_t len,
                              bool is_end)
{
    if (c->value_len + len > VALUE_LEN) {
        return FAILED;
    }
    memcpy(c->value + c->value_len, data, len);
    c->value_len += len;
    if (!is_end) {
        return WAITING;
    }
    return c->value_len == VALUE_LEN ? ANSWERED : FAILED;
}

/* What the next frame means to the stream at hand. */
static enum outcome take_frame(struct connection *c)
{
    static const char settings_ack[] = "\0\0\0\4\1\0\0\0\0";
    const unsigned char *payload = c->in + FRAME_HEAD;
    size_t len = number_at(c->in) >> 8;
    bool is_ours = number_at(c->in + 5) == c->stream;
    unsigned flags = c->in[4];
    enum outcome outcome = WAITING;
    switch (c->in[3]) {
    case SETTINGS:
        if ((flags & ACK) == 0 && !send_all(c, settings_ack, sizeof settings_ack - 1)) {
            outcome = CLOSED;
        }
        break;
    case GOAWAY:
        c->is_closing = true;
        outcome = c->stream > number_at(payload) ? CLOSED : WAITING;
        break;
    case RST_STREAM:
        if (is_ours) {
            outcome = number_at(payload) == REFUSED_STREAM ? CLOSED : FAILED;
        }
        break;
    case DATA:
        if (is_ours) {
            outcome = take_data(c, payload, len, (flags & END_STREAM) != 0);
        }
        break;
    default:
        break;
    }
    consume(c, FRAME_HEAD + len);
    return outcome;
}

static enum outcome answer_2(struct connection *c)
{
    enum outcome outcome = WAITING;
    c->value_len = 0;
    while (outcome == WAITING) {
        if (has_frame(c)) {
            outcome = take_frame(c);
        } else if (!receive(c)) {
            outcome = c->value_len > 0 ? FAILED : end_of(c, c->answers == 0);
        }
    }
    return outcome;
}

/* Whether the server has closed, or says that it will, without having been asked. */
static bool is_closed_idle(struct connection *c)
{
    struct pollfd poll_fd = {.fd = c->fd, .events = POLLIN};
    while (!c->is_closing && (SSL_pending(c->ssl) > 0 || poll(&poll_fd, 1, 0) == 1)) {
        int result = SSL_read(c->ssl, c->in + c->in_len, (int)(sizeof c->in - c->in_len));
        if (result <= 0 && SSL_get_error(c->ssl, result) != SSL_ERROR_WANT_READ) {
            return true;
        }
        c->in_len += result > 0 ? (size_t)result : 0;
        while (c->is_http2 && has_frame(c)) {
            (void)take_frame(c);
        }
        if (!c->is_http2 && c->in_len > 0) {
            return true;
        }
    }
    return c->is_closing;
}

static bool is_right(struct client *client, struct connection *c, int name)
{
    char hex[VALUE_LEN + 1];
    unsigned char mac[EVP_MAX_MD_SIZE];
    for (int i = 0; i < pair_count; i++) {
        if (pairs[i].first != name) {
            continue;
        }
        const char *secret = pairs[i].secret;
        HMAC(EVP_sha256(), secret, (int)strlen(secret), c->exporter, EKM_LEN, mac, NULL);
        for (int at = 0; at < EKM_LEN; at++) {
            snprintf(hex + (ptrdiff_t)2 * at, 3, "%02x", c->exporter[at]);
            snprintf(hex + HEX_LEN + 1 + (ptrdiff_t)2 * at, 3, "%02x", mac[at]);
        }
        hex[HEX_LEN] = ':';
        if (memcmp(hex, c->value, VALUE_LEN) == 0) {
            bool is_same = c->signer[name] == -1 || c->signer[name] == i;
            c->signer[name] = i;
            client->signed_with[i]++;
            return is_same;
        }
    }
    return false;
}

static enum outcome request(struct client *client, struct connection *c, int name)
{
    if (!ask(c, pairs[name].name)) {
        return end_of(c, c->answers == 0);
    }
    enum outcome outcome = c->is_http2 ? answer_2(c) : answer_1(c);
    if (outcome == ANSWERED) {
        c->answers++;
        client->requests++;
        if (!is_right(client, c, name)) {
            fprintf(stderr, "wrong: %.*s for %s\n", VALUE_LEN, c->value,
                    pairs[name].name);
            return FAILED;
        }
    }
    return outcome;
}

static int converse(struct client *client, long number, struct connection *c)
{
    if (connect_to(client, number, c) != 0) {
        return -1;
    }
    for (long i = 0; i < most_requests && !atomic_load(&over);) {
        enum outcome outcome = CLOSED;
        if (is_closed_idle(c)) {
            client->noticed++;
        } else {
            outcome = request(client, c, pairs[(number + i) % pair_count].first);
            client->crossed += outcome == CLOSED;
        }
        if (outcome == FAILED) {
            return fail(client, c->is_http2 ? "request of HTTP/2" : "request");
        }
        if (outcome == ANSWERED) {
            i++;
        } else {
            disconnect(c);
            if (connect_to(client, number, c) != 0) {
                return -1;
            }
        }
        if (pause_ms > 0) {
            usleep((useconds_t)pause_ms * 1000);
        }
    }
    return 0;
}

static void *run(void *argument)
{
    struct client *client = argument;
    struct connection *c = calloc(1, sizeof *c);
    check(c != NULL, "calloc");
    while (!atomic_load(&over)) {
        long number = atomic_fetch_add(&next_number, 1);
        if (most_connections > 0 && number >= most_connections) {
            break;
        }
        (void)converse(client, number, c);
        disconnect(c);
    }
    free(c);
    return NULL;
}

/* ---- all of them ---------------------------------------------------------------------------- */

static int read_arguments(int argc, char **argv)
{
    int threads = 1, option;
    while ((option = getopt(argc, argv, "c:r:t:p:2s")) != -1) {
        switch (option) {
        case 'c':
            most_connections = atol(optarg);
            break;
        case 'r':
            most_requests = atol(optarg);
            break;
        case 't':
            threads = atoi(optarg);
            break;
        case 'p':
            pause_ms = atol(optarg);
            break;
        case '2':
            use_http2 = true;
            break;
        case 's':
            use_sessions = true;
            break;
        default:
            exit(2);
        }
    }
    argc -= optind;
    argv += optind;
    check(argc >= 3 && argc % 2 == 1 && argc / 2 <= MOST_PAIRS && threads > 0,
          "arguments");
    port = (uint16_t)atoi(argv[0]);
    for (int i = 0; i < argc / 2; i++) {
        pairs[i] = (struct pair){.name = argv[1 + 2 * i], .secret = argv[2 + 2 * i]};
        while (strcmp(pairs[pairs[i].first].name, pairs[i].name) != 0) {
            pairs[i].first++;
        }
    }
    pair_count = argc / 2;
    return threads;
}

static void begin(struct client *client)
{
    client->ctx = SSL_CTX_new(TLS_client_method());
    check(client->ctx != NULL, "SSL_CTX_new");
    SSL_CTX_set_min_proto_version(client->ctx, TLS1_3_VERSION);
    /* Otherwise SSL_read() would wait for what is behind a ticket. */
    SSL_CTX_clear_mode(client->ctx, SSL_MODE_AUTO_RETRY);
    SSL_CTX_set_app_data(client->ctx, client);
    SSL_CTX_set_session_cache_mode(client->ctx,
                                   SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(client->ctx, keep_session);
    check(pthread_create(&client->thread, NULL, run, client) == 0, "thread");
}

static void end(struct client *client, struct client *sum)
{
    pthread_join(client->thread, NULL);
    for (int i = 0; i < pair_count; i++) {
        SSL_SESSION_free(client->sessions[i]);
        sum->signed_with[i] += client->signed_with[i];
    }
    SSL_CTX_free(client->ctx);
    sum->connections += client->connections;
    sum->resumed += client->resumed;
    sum->http2 += client->http2;
    sum->requests += client->requests;
    sum->failed += client->failed;
    sum->noticed += client->noticed;
    sum->crossed += client->crossed;
}

int main(int argc, char **argv)
{
    int threads = read_arguments(argc, argv);
    signal(SIGPIPE, SIG_IGN);
    struct client *clients = calloc((size_t)threads, sizeof *clients), sum = {0};
    check(clients != NULL, "calloc");
    for (int i = 0; i < threads; i++) {
        begin(&clients[i]);
    }
    char byte;
    while (most_connections == 0 && read(STDIN_FILENO, &byte, 1) > 0) {
    }
    atomic_store(&over, most_connections == 0);
    for (int i = 0; i < threads; i++) {
        end(&clients[i], &sum);
    }
    free(clients);
    printf(
        "{\"connections\": %ld, \"resumed\": %ld, \"http2\": %ld, \"requests\": %ld, "
        "\"failed\": %ld, \"noticed\": %ld, \"crossed\": %ld, \"signed\": [",
        sum.connections, sum.resumed, sum.http2, sum.requests, sum.failed, sum.noticed,
        sum.crossed);
    for (int i = 0; i < pair_count; i++) {
        printf("%s%ld", i > 0 ? ", " : "", sum.signed_with[i]);
    }
    printf("]}\n");
    return 0;
}
