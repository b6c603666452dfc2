/*
 * Replaces a certificate chain many times while clients make new handshakes at a steady rate, and
 * compares each leaf with what had been put in place before its handshake began.
 *
 *   chain_swaps KEY CHAIN PORT SWAPS INTERVAL_US RATE THREADS
 *
 * KEY is the server's key, CHAIN the file that is replaced by rename(2), on PORT of 127.0.0.1 is the
 * server. Leaf number i has the serial i; number 0 is there when the first client starts. Each
 * handshake is followed by a request. Prints one JSON object.
 */

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static const char *chain_path;
static uint16_t port;
static long swaps;
static double rate;
static int threads;
static EVP_PKEY *server_key, *ca_key;
static X509 *ca;

/* The leaf whose rename has returned, and the one whose rename may have happened. */
static atomic_long in_place = -1, begun = -1;
static atomic_bool over;

struct client {
    pthread_t thread;
    int number;
    long handshakes, failed, stale, early;
};

static void check(bool is_fine, const char *what)
{
    if (!is_fine) {
        perror(what);
        ERR_print_errors_fp(stderr);
        exit(2);
    }
}

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void sleep_until(double at_s)
{
    struct timespec t = {.tv_sec = (time_t)at_s};
    t.tv_nsec = (long)((at_s - (double)t.tv_sec) * 1e9);
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

static X509 *new_certificate(long serial, const char *name, EVP_PKEY *key)
{
    X509 *certificate = X509_new();
    check(certificate != NULL, "X509_new");
    X509_NAME *subject = X509_get_subject_name(certificate);
    check(X509_set_version(certificate, 2) == 1 &&
              ASN1_INTEGER_set(X509_get_serialNumber(certificate), serial) == 1 &&
              X509_gmtime_adj(X509_getm_notBefore(certificate), -3600) != NULL &&
              X509_gmtime_adj(X509_getm_notAfter(certificate), 86400) != NULL &&
              X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC,
                                         (const unsigned char *)name, -1, -1, 0) == 1 &&
              X509_set_issuer_name(certificate,
                                   ca ? X509_get_subject_name(ca) : subject) == 1 &&
              X509_set_pubkey(certificate, key) == 1 &&
              X509_sign(certificate, ca_key, EVP_sha256()) > 0,
          "certificate");
    return certificate;
}

static void put_in_place(long serial)
{
    char temporary[4096];
    snprintf(temporary, sizeof temporary, "%s.new", chain_path);
    X509 *leaf = new_certificate(serial, "a.test", server_key);
    FILE *file = fopen(temporary, "w");
    check(file != NULL, temporary);
    check(PEM_write_X509(file, leaf) == 1 && PEM_write_X509(file, ca) == 1 &&
              fclose(file) == 0,
          temporary);
    X509_free(leaf);
    atomic_store(&begun, serial);
    check(rename(temporary, chain_path) == 0, chain_path);
    atomic_store(&in_place, serial);
}

/* The serial of the leaf, or -1. */
static long handshake(SSL_CTX *ctx)
{
    static const char request[] = "GET / HTTP/1.0\r\n\r\n";
    long serial = -1;
    char answer[512];
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const struct timeval limit = {.tv_sec = 10};

    int s = socket(AF_INET, SOCK_STREAM, 0);
    check(s >= 0, "socket");
    setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    SSL *ssl = SSL_new(ctx);
    check(ssl != NULL && SSL_set_fd(ssl, s) == 1, "SSL_new");
    SSL_set_tlsext_host_name(ssl, "a.test");

    if (connect(s, (struct sockaddr *)&address, sizeof address) != 0) {
        perror("connect");
    } else if (SSL_connect(ssl) != 1 ||
               SSL_write(ssl, request, sizeof request - 1) <= 0 ||
               SSL_read(ssl, answer, sizeof answer) < 12 ||
               memcmp(answer + 9, "200", 3) != 0) {
        ERR_print_errors_fp(stderr);
    } else {
        X509 *leaf = SSL_get1_peer_certificate(ssl);
        serial = ASN1_INTEGER_get(X509_get0_serialNumber(leaf));
        X509_free(leaf);
    }
    ERR_clear_error();
    SSL_free(ssl);
    close(s);
    return serial;
}

static void *make_handshakes(void *argument)
{
    struct client *client = argument;
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    check(ctx != NULL, "SSL_CTX_new");
    double at_s = now_s() + client->number / rate;
    while (!atomic_load(&over)) {
        sleep_until(at_s);
        at_s += threads / rate;
        long least = atomic_load(&in_place);
        long serial = handshake(ctx);
        long most = atomic_load(&begun);
        client->handshakes++;
        client->failed += serial < 0;
        client->stale += serial >= 0 && serial < least;
        client->early += serial > most;
    }
    SSL_CTX_free(ctx);
    return NULL;
}

int main(int argc, char **argv)
{
    check(argc == 8, "seven arguments");
    FILE *key_file = fopen(argv[1], "r");
    check(key_file != NULL, argv[1]);
    server_key = PEM_read_PrivateKey(key_file, NULL, NULL, NULL);
    fclose(key_file);
    chain_path = argv[2];
    port = (uint16_t)atoi(argv[3]);
    swaps = atol(argv[4]);
    double interval_s = atof(argv[5]) / 1e6;
    rate = atof(argv[6]);
    threads = atoi(argv[7]);
    ca_key = EVP_EC_gen("P-256");
    check(server_key != NULL && ca_key != NULL && threads > 0, "keys");
    ca = new_certificate(1, "Swaps", ca_key);
    put_in_place(0);

    struct client *clients = calloc((size_t)threads, sizeof *clients);
    check(clients != NULL, "calloc");
    double began_s = now_s();
    for (int i = 0; i < threads; i++) {
        clients[i].number = i;
        check(pthread_create(&clients[i].thread, NULL, make_handshakes, &clients[i]) == 0,
              "thread");
    }
    for (long i = 1; i <= swaps; i++) {
        sleep_until(began_s + (double)i * interval_s);
        put_in_place(i);
    }
    double lasted_s = now_s() - began_s;
    atomic_store(&over, true);

    struct client sum = {.number = threads};
    for (int i = 0; i < threads; i++) {
        pthread_join(clients[i].thread, NULL);
        sum.handshakes += clients[i].handshakes;
        sum.failed += clients[i].failed;
        sum.stale += clients[i].stale;
        sum.early += clients[i].early;
    }
    printf(
        "{\"swaps\": %ld, \"handshakes\": %ld, \"failed\": %ld, \"stale\": %ld, "
        "\"early\": %ld, "
        "\"seconds\": %.3f}\n",
        swaps, sum.handshakes, sum.failed, sum.stale, sum.early, lasted_s);
    free(clients);
    X509_free(ca);
    EVP_PKEY_free(ca_key);
    EVP_PKEY_free(server_key);
    return 0;
}
