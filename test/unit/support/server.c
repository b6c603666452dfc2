#include "support/server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { MAX_CONNECTIONS = 256, MAX_REQUEST = 256 * 1024 };

/* Not an assertion of cmocka: those must not be used outside the test's own thread. */
#define MUST(condition)                                                                  \
    do {                                                                                 \
        if (!(condition)) {                                                              \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #condition,           \
                    strerror(errno));                                                    \
            abort();                                                                     \
        }                                                                                \
    } while (0)

struct connection {
    struct server *server;
    int fd;
    SSL *tls;
    pthread_t thread;
};

struct server {
    struct server_options options;
    char url[64];
    int listener;
    int stop_pipe[2]; /* readable once the server stops */
    SSL_CTX *tls;
    pthread_t thread;
    struct connection connections[MAX_CONNECTIONS];
    unsigned connection_count;
    pthread_mutex_t mutex; /* guards the rest */
    unsigned request_count;
    unsigned accepted;
    char last_request[MAX_REQUEST + 1];
};

/* false when the server stops, or when `timeout_ms` are over (-1: never). */
static bool wait_for(struct server *server, int fd, short events, int timeout_ms)
{
    struct pollfd fds[] = {{.fd = server->stop_pipe[0], .events = POLLIN},
                           {.fd = fd, .events = events}};

    MUST(poll(fds, 2, timeout_ms) >= 0 || errno == EINTR);
    return fds[0].revents == 0 && fds[1].revents != 0;
}

/* 0 or less when there is nothing more to come. */
static int receive(struct connection *connection, char *ret, size_t size)
{
    if ((connection->tls == NULL || SSL_pending(connection->tls) == 0) &&
        !wait_for(connection->server, connection->fd, POLLIN, -1))
        return -1;
    if (connection->tls != NULL)
        return SSL_read(connection->tls, ret, (int)size);
    return (int)recv(connection->fd, ret, size, 0);
}

static bool send_all(struct connection *connection, const char *bytes, size_t len)
{
    while (len > 0) {
        ssize_t sent;

        if (!wait_for(connection->server, connection->fd, POLLOUT, -1))
            return false;
        if (connection->tls != NULL)
            sent = SSL_write(connection->tls, bytes, (int)len);
        else
            sent = send(connection->fd, bytes, len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent <= 0 && !(connection->tls == NULL && errno == EAGAIN))
            return false;
        if (sent > 0) {
            bytes += sent;
            len -= (size_t)sent;
        }
    }
    return true;
}

/* Bytes of the whole request, 0 while it is not complete. */
static size_t request_length(const char *request, size_t len)
{
    const char *end = strstr(request, "\r\n\r\n");
    const char *content_length = strcasestr(request, "\r\nContent-Length:");
    size_t wanted;

    if (end == NULL)
        return 0;
    wanted = (size_t)(end + 4 - request);
    if (content_length != NULL && content_length < end)
        wanted += strtoul(content_length + strlen("\r\nContent-Length:"), NULL, 10);
    return len >= wanted ? wanted : 0;
}

static bool read_request(struct connection *connection, char *request)
{
    size_t len = 0;

    request[0] = '\0';
    while (request_length(request, len) == 0) {
        int more;

        MUST(len < MAX_REQUEST);
        more = receive(connection, request + len, MAX_REQUEST - len);
        if (more <= 0)
            return false;
        len += (size_t)more;
        request[len] = '\0';
    }
    pthread_mutex_lock(&connection->server->mutex);
    connection->server->request_count++;
    memcpy(connection->server->last_request, request, len + 1);
    pthread_mutex_unlock(&connection->server->mutex);
    return true;
}

static const struct server_script *find_script(const struct server *server,
                                               const char *request)
{
    const struct server_script *script = server->options.scripts;
    const char *path = strchr(request, ' ');

    MUST(path != NULL);
    path++;
    while (script->path != NULL &&
           (strlen(script->path) != strcspn(path, " ?") ||
            strncmp(script->path, path, strlen(script->path)) != 0))
        script++;
    return script;
}

static bool send_answer(struct connection *connection, const struct server_script *script)
{
    if (script->delay_ms > 0) /* the peer that goes away ends the waiting, too */
        wait_for(connection->server, connection->fd, POLLRDHUP, (int)script->delay_ms);
    if (script->pause_ms == 0)
        return send_all(connection, script->answer, strlen(script->answer));
    for (const char *byte = script->answer; *byte != '\0'; byte++) {
        if (!send_all(connection, byte, 1) || wait_for(connection->server, connection->fd,
                                                       POLLRDHUP, (int)script->pause_ms))
            return false;
    }
    return true;
}

/* false when the connection ends. */
static bool finish_answer(struct connection *connection,
                          const struct server_script *script)
{
    const struct linger at_once = {.l_onoff = 1, .l_linger = 0};

    switch (script->ending) {
    case SERVER_KEEPS:
        return true;
    case SERVER_CLOSES:
        return false;
    case SERVER_HANGS:
        wait_for(connection->server, connection->fd, POLLRDHUP, -1);
        return false;
    case SERVER_RESETS:
        MUST(setsockopt(connection->fd, SOL_SOCKET, SO_LINGER, &at_once,
                        sizeof at_once) == 0);
        return false;
    case SERVER_FLOODS:
        while (send_all(connection, script->answer, strlen(script->answer)))
            continue;
        return false;
    }
    return false;
}

static void *serve_connection(void *data)
{
    struct connection *connection = data;
    struct server *server = connection->server;
    char *request = malloc(MAX_REQUEST + 1);
    bool good = true;

    MUST(request != NULL);
    if (server->tls != NULL) {
        connection->tls = SSL_new(server->tls);
        MUST(connection->tls != NULL && SSL_set_fd(connection->tls, connection->fd) == 1);
        good = wait_for(server, connection->fd, POLLIN, -1) &&
               SSL_accept(connection->tls) == 1;
    }
    while (good && read_request(connection, request)) {
        const struct server_script *script = find_script(server, request);

        good = send_answer(connection, script) && finish_answer(connection, script);
    }
    if (connection->tls != NULL)
        SSL_shutdown(connection->tls);
    SSL_free(connection->tls);
    close(connection->fd);
    free(request);
    return NULL;
}

static void *accept_connections(void *data)
{
    struct server *server = data;

    while (wait_for(server, server->listener, POLLIN, -1)) {
        struct connection *connection = &server->connections[server->connection_count];

        MUST(server->connection_count < MAX_CONNECTIONS);
        connection->server = server;
        connection->fd = accept4(server->listener, NULL, NULL, SOCK_CLOEXEC);
        MUST(connection->fd >= 0);
        server->connection_count++;
        pthread_mutex_lock(&server->mutex);
        server->accepted++;
        pthread_mutex_unlock(&server->mutex);
        MUST(pthread_create(&connection->thread, NULL, serve_connection, connection) ==
             0);
    }
    return NULL;
}

static int open_port(int *ret_port)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    MUST(fd >= 0 && bind(fd, (struct sockaddr *)&address, len) == 0);
    MUST(getsockname(fd, (struct sockaddr *)&address, &len) == 0);
    *ret_port = ntohs(address.sin_port);
    return fd;
}

static int open_unix_socket(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    MUST(fd >= 0 && strlen(path) < sizeof address.sun_path);
    memcpy(address.sun_path, path, strlen(path) + 1);
    MUST(bind(fd, (struct sockaddr *)&address, sizeof address) == 0);
    return fd;
}

struct server *server_start(const struct server_options *options)
{
    struct server *server = calloc(1, sizeof *server);
    int port = 0;

    MUST(server != NULL && pipe(server->stop_pipe) == 0);
    signal(SIGPIPE, SIG_IGN); /* SSL_write has no MSG_NOSIGNAL */
    server->options = *options;
    pthread_mutex_init(&server->mutex, NULL);
    if (options->unix_socket != NULL) {
        server->listener = open_unix_socket(options->unix_socket);
        snprintf(server->url, sizeof server->url, "http://localhost");
    } else {
        server->listener = open_port(&port);
        snprintf(server->url, sizeof server->url, "%s://127.0.0.1:%d",
                 options->tls_key == NULL ? "http" : "https", port);
    }
    MUST(listen(server->listener, 128) == 0);
    if (options->tls_key != NULL) {
        server->tls = SSL_CTX_new(TLS_server_method());
        MUST(server->tls != NULL);
        MUST(SSL_CTX_use_certificate(server->tls, options->tls_certificate) == 1);
        MUST(options->tls_issuer == NULL ||
             SSL_CTX_add1_chain_cert(server->tls, options->tls_issuer) == 1);
        MUST(SSL_CTX_use_PrivateKey(server->tls, options->tls_key) == 1);
    }
    MUST(pthread_create(&server->thread, NULL, accept_connections, server) == 0);
    return server;
}

void server_stop(struct server *server)
{
    if (server == NULL)
        return;
    MUST(write(server->stop_pipe[1], "", 1) == 1);
    pthread_join(server->thread, NULL);
    for (unsigned i = 0; i < server->connection_count; i++)
        pthread_join(server->connections[i].thread, NULL);
    close(server->listener);
    close(server->stop_pipe[0]);
    close(server->stop_pipe[1]);
    if (server->options.unix_socket != NULL)
        unlink(server->options.unix_socket);
    SSL_CTX_free(server->tls);
    pthread_mutex_destroy(&server->mutex);
    free(server);
}

const char *server_url(const struct server *server)
{
    return server->url;
}

unsigned server_connections(struct server *server)
{
    unsigned count;

    pthread_mutex_lock(&server->mutex);
    count = server->accepted;
    pthread_mutex_unlock(&server->mutex);
    return count;
}

unsigned server_requests(struct server *server)
{
    unsigned count;

    pthread_mutex_lock(&server->mutex);
    count = server->request_count;
    pthread_mutex_unlock(&server->mutex);
    return count;
}

const char *server_last_request(struct server *server, char *ret, size_t size)
{
    pthread_mutex_lock(&server->mutex);
    snprintf(ret, size, "%s", server->last_request);
    pthread_mutex_unlock(&server->mutex);
    return ret;
}

static void add_extension(X509 *certificate, int nid, const char *value)
{
    X509V3_CTX context;
    X509_EXTENSION *extension;

    X509V3_set_ctx_nodb(&context);
    X509V3_set_ctx(&context, certificate, certificate, NULL, NULL, 0);
    extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    MUST(extension != NULL && X509_add_ext(certificate, extension, -1) == 1);
    X509_EXTENSION_free(extension);
}

void server_make_certificate(EVP_PKEY **ret_key, X509 **ret_certificate)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *certificate = X509_new();
    X509_NAME *name = X509_NAME_new();

    MUST(key != NULL && certificate != NULL && name != NULL);
    MUST(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
                                    (const unsigned char *)"test server", -1, -1,
                                    0) == 1);
    MUST(X509_set_version(certificate, 2) == 1);
    MUST(ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1) == 1);
    MUST(X509_set_subject_name(certificate, name) == 1);
    MUST(X509_set_issuer_name(certificate, name) == 1);
    MUST(X509_gmtime_adj(X509_getm_notBefore(certificate), -3600) != NULL);
    MUST(X509_gmtime_adj(X509_getm_notAfter(certificate), 3600) != NULL);
    MUST(X509_set_pubkey(certificate, key) == 1);
    add_extension(certificate, NID_basic_constraints, "critical,CA:TRUE");
    add_extension(certificate, NID_subject_alt_name, "IP:127.0.0.1,DNS:localhost");
    MUST(X509_sign(certificate, key, EVP_sha256()) > 0);
    X509_NAME_free(name);
    *ret_key = key;
    *ret_certificate = certificate;
}

int server_unused_port(void)
{
    int port;

    close(open_port(&port));
    return port;
}
