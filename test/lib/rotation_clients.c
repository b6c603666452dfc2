/*
 * Clients of a server whose certificate is replaced again and again.
 *
 *   rotation_clients load ADDRESS PORT NAME RATE CONNECTIONS
 *
 * RATE requests for /health a second in all, over that many kept connections, until standard input
 * ends. A connection that the server has closed as idle, or said that it will close, is made anew
 * before the next request. When the server closes it while a request is on its way, and not a byte
 * has come back, the request is made again on another one, which is safe (RFC 9112, Section 9.3.1):
 * "crossed". Everything else that has no right answer is "failed". Beside them one client connects
 * every millisecond, to see whether the port is ever closed: "refused". Prints one JSON object.
 *
 *   rotation_clients watch ADDRESS PORT NAME QUIET_MS
 *
 * For each line on standard input: one handshake after the other, until another leaf than the first
 * has been presented and, for QUIET_MS, none but that. Prints one JSON object for each, with the
 * moments, in seconds since 1970, at which the last handshake with the former leaf began, and the
 * one after it.
 */

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define TIMEOUT_MS 20000
#define WATCH_LIMIT_S 30
#define HASH_LEN 32

static const char body[] = "healthy\n";

enum outcome { ANSWERED, CLOSED, FAILED };

static struct sockaddr_in server;
static const char *name;
static char request[512];
static size_t request_len;
static atomic_bool over;

struct connection {
    int fd;
    SSL *ssl; /* NULL: not connected */
    bool is_closing;
    size_t in_len;
    char in[4096];
};

struct client {
    pthread_t thread;
    SSL_CTX *ctx;
    double first_at_s, interval_s;
    struct connection connection;
    long connections, requests, failed, noticed, crossed;
    double slowest_s;
};

static void check(bool is_fine, const char *what)
{
    if (!is_fine) {
        perror(what);
        ERR_print_errors_fp(stderr);
        exit(2);
    }
}

static double now_s(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void sleep_until(double at_s)
{
    struct timespec t = {.tv_sec = (time_t)at_s};
    t.tv_nsec = (long)((at_s - (double)t.tv_sec) * 1e9);
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

/* ---- connections ---------------------------------------------------------------------------- */

static SSL_CTX *new_context(void)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    check(ctx != NULL, "SSL_CTX_new");
    /* Otherwise SSL_read() would wait for what is behind a ticket. */
    SSL_CTX_clear_mode(ctx, SSL_MODE_AUTO_RETRY);
    return ctx;
}

/* Whether an operation of OpenSSL that returned `result` is to be done again, after a wait. */
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

static bool connect_to(SSL_CTX *ctx, struct connection *c)
{
    int result = -1;
    c->is_closing = false;
    c->in_len = 0;
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    c->ssl = SSL_new(ctx);
    check(c->fd >= 0 && c->ssl != NULL && SSL_set_fd(c->ssl, c->fd) == 1, "socket");
    SSL_set_tlsext_host_name(c->ssl, name);
    if (connect(c->fd, (struct sockaddr *)&server, sizeof server) == 0) {
        fcntl(c->fd, F_SETFL, O_NONBLOCK);
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
        while ((result = SSL_connect(c->ssl)) != 1 && may_repeat(c, result)) {
        }
    } else {
        perror("connect");
    }
    if (result != 1) {
        ERR_print_errors_fp(stderr);
        disconnect(c);
    }
    return result == 1;
}

/* ---- steady load ---------------------------------------------------------------------------- */

/* Whether the server has closed without having been asked. What else may come is a ticket. */
static bool is_closed_idle(struct connection *c)
{
    struct pollfd poll_fd = {.fd = c->fd, .events = POLLIN};
    char byte;
    while (SSL_pending(c->ssl) > 0 || poll(&poll_fd, 1, 0) == 1) {
        int result = SSL_read(c->ssl, &byte, 1);
        if (result > 0 || SSL_get_error(c->ssl, result) != SSL_ERROR_WANT_READ) {
            return true;
        }
    }
    return false;
}

static enum outcome ask(struct connection *c)
{
    int result;
    while ((result = SSL_write(c->ssl, request, (int)request_len)) <= 0 &&
           may_repeat(c, result)) {
    }
    if (result <= 0) {
        return CLOSED;
    }
    for (c->in_len = 0;;) {
        const char *end = memmem(c->in, c->in_len, "\r\n\r\n", 4);
        if (end != NULL && c->in_len >= (size_t)(end + 4 - c->in) + sizeof body - 1) {
            size_t head = (size_t)(end + 4 - c->in);
            c->is_closing = memmem(c->in, head, "\r\nConnection: close\r\n", 21) != NULL;
            return c->in_len == head + sizeof body - 1 &&
                           memcmp(c->in, "HTTP/1.1 200 ", 13) == 0 &&
                           memcmp(end + 4, body, sizeof body - 1) == 0
                       ? ANSWERED
                       : FAILED;
        }
        while ((result = SSL_read(c->ssl, c->in + c->in_len,
                                  (int)(sizeof c->in - c->in_len))) <= 0 &&
               may_repeat(c, result)) {
        }
        if (result <= 0) {
            return c->in_len == 0 ? CLOSED : FAILED;
        }
        c->in_len += (size_t)result;
    }
}

/* On the connection at hand or, when the server has closed it, on another one. */
static bool make_request(struct client *client)
{
    struct connection *c = &client->connection;
    if (c->ssl != NULL && (c->is_closing || is_closed_idle(c))) {
        client->noticed += !c->is_closing;
        disconnect(c);
    }
    for (int tries = 0; tries < 3; tries++) {
        bool is_new = c->ssl == NULL;
        if (is_new && !connect_to(client->ctx, c)) {
            return false;
        }
        client->connections += is_new;
        enum outcome outcome = ask(c);
        if (outcome == ANSWERED) {
            return true;
        }
        ERR_print_errors_fp(stderr);
        disconnect(c);
        if (outcome == FAILED || is_new) {
            return false;
        }
        client->crossed++;
    }
    return false;
}

static void *make_requests(void *argument)
{
    struct client *client = argument;
    double at_s = client->first_at_s;
    while (!atomic_load(&over)) {
        sleep_until(at_s);
        double began_s = now_s(CLOCK_MONOTONIC);
        client->requests++;
        client->failed += !make_request(client);
        double lasted_s = now_s(CLOCK_MONOTONIC) - began_s;
        client->slowest_s = lasted_s > client->slowest_s ? lasted_s : client->slowest_s;
        at_s += client->interval_s;
    }
    disconnect(&client->connection);
    return NULL;
}

static long refused;

static void *knock(void *argument)
{
    (void)argument;
    for (double at_s = now_s(CLOCK_MONOTONIC); !atomic_load(&over); at_s += 0.001) {
        sleep_until(at_s);
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        check(fd >= 0, "socket");
        if (connect(fd, (struct sockaddr *)&server, sizeof server) != 0) {
            perror("knock");
            refused++;
        }
        close(fd);
    }
    return NULL;
}

static int load(double rate, int connections)
{
    struct client *clients = calloc((size_t)connections, sizeof *clients), sum = {0};
    pthread_t knocker;
    char byte;
    check(clients != NULL && rate > 0, "arguments");
    double began_s = now_s(CLOCK_MONOTONIC);
    for (int i = 0; i < connections; i++) {
        clients[i].ctx = new_context();
        clients[i].interval_s = connections / rate;
        clients[i].first_at_s = began_s + i / rate;
        check(pthread_create(&clients[i].thread, NULL, make_requests, &clients[i]) == 0,
              "thread");
    }
    check(pthread_create(&knocker, NULL, knock, NULL) == 0, "thread");
    while (read(STDIN_FILENO, &byte, 1) > 0) {
    }
    double lasted_s = now_s(CLOCK_MONOTONIC) - began_s;
    atomic_store(&over, true);
    pthread_join(knocker, NULL);
    for (int i = 0; i < connections; i++) {
        const struct client *client = &clients[i];
        pthread_join(client->thread, NULL);
        SSL_CTX_free(client->ctx);
        sum.connections += client->connections;
        sum.requests += client->requests;
        sum.failed += client->failed;
        sum.noticed += client->noticed;
        sum.crossed += client->crossed;
        sum.slowest_s =
            client->slowest_s > sum.slowest_s ? client->slowest_s : sum.slowest_s;
    }
    free(clients);
    printf(
        "{\"seconds\": %.3f, \"requests\": %ld, \"failed\": %ld, \"connections\": %ld, "
        "\"noticed\": %ld, \"crossed\": %ld, \"refused\": %ld, \"slowest_ms\": %.1f}\n",
        lasted_s, sum.requests, sum.failed, sum.connections, sum.noticed, sum.crossed,
        refused, sum.slowest_s * 1000);
    return 0;
}

/* ---- the moment at which the leaf changes --------------------------------------------------- */

static bool see_leaf(SSL_CTX *ctx, unsigned char ret[HASH_LEN])
{
    struct connection c = {0};
    unsigned len;
    if (!connect_to(ctx, &c)) {
        return false;
    }
    X509 *leaf = SSL_get1_peer_certificate(c.ssl);
    check(leaf != NULL && X509_digest(leaf, EVP_sha256(), ret, &len) == 1, "leaf");
    X509_free(leaf);
    disconnect(&c);
    return true;
}

static void watch_once(SSL_CTX *ctx, double quiet_s)
{
    unsigned char former[HASH_LEN], leaf[HASH_LEN];
    long handshakes = 1, failed = 0;
    double last_former_s = now_s(CLOCK_REALTIME), next_s = 0, seen_s = 0;
    double limit_s = last_former_s + WATCH_LIMIT_S;
    check(see_leaf(ctx, former), "first handshake");
    for (double at_s = 0; at_s < limit_s; handshakes++) {
        at_s = now_s(CLOCK_REALTIME);
        if (next_s == 0) {
            next_s = at_s;
        }
        if (seen_s > 0 && at_s - seen_s > quiet_s) {
            break;
        }
        if (!see_leaf(ctx, leaf)) {
            failed++;
        } else if (memcmp(leaf, former, HASH_LEN) != 0) {
            seen_s = seen_s > 0 ? seen_s : at_s;
        } else {
            last_former_s = at_s;
            next_s = seen_s = 0;
        }
    }
    printf(
        "{\"last_former\": %.6f, \"next\": %.6f, \"changed\": %s, \"handshakes\": %ld, "
        "\"failed\": %ld}\n",
        last_former_s, next_s, seen_s > 0 ? "true" : "false", handshakes, failed);
    fflush(stdout);
}

static int watch(double quiet_s)
{
    SSL_CTX *ctx = new_context();
    char line[64];
    while (fgets(line, sizeof line, stdin) != NULL) {
        watch_once(ctx, quiet_s);
    }
    SSL_CTX_free(ctx);
    return 0;
}

int main(int argc, char **argv)
{
    check(argc >= 6, "arguments");
    signal(SIGPIPE, SIG_IGN);
    server = (struct sockaddr_in){.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)atoi(argv[3]))};
    check(inet_pton(AF_INET, argv[2], &server.sin_addr) == 1, argv[2]);
    name = argv[4];
    request_len = (size_t)snprintf(request, sizeof request,
                                   "GET /health HTTP/1.1\r\nHost: %s\r\n\r\n", name);
    if (argc == 7 && strcmp(argv[1], "load") == 0) {
        return load(atof(argv[5]), atoi(argv[6]));
    }
    check(argc == 6 && strcmp(argv[1], "watch") == 0, "load or watch");
    return watch(atof(argv[5]) / 1000);
}
