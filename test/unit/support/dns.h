/*
 * dns: DNS messages for tests, and a server that answers with them, over UDP and TCP, on the loop of
 * the test. Whatever fails in here fails the test program.
 */
#ifndef TEST_SUPPORT_DNS_H
#define TEST_SUPPORT_DNS_H

#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

enum { DNS_MAX = 8 * 1024, DNS_RECORDS_MAX = 64 };

/* One record: an alias, or one of type CAA. The table ends with one without a name. */
struct dns_record {
    const char *name;
    const char *alias; /* NULL: CAA */
    int flags;
    const char *tag;
    const char *value;
    size_t value_len; /* 0: that of the text */
};

struct dns_message {
    unsigned char bytes[DNS_MAX];
    size_t len;
};

/* The names of the records are pointers to earlier ones where `compressed`. */
void dns_begin(struct dns_message *message, unsigned id, unsigned rcode,
               const char *name);
void dns_add(struct dns_message *message, const struct dns_record *record,
             bool compressed);

struct dns_server {
    const struct dns_record *records;
    const char *broken; /* for this name: SERVFAIL */
    bool silent;
    bool follows;   /* aliases, as a resolver does */
    bool truncates; /* over UDP */

    unsigned asked; /* questions so far */
    unsigned asked_by_tcp;
    char names[32][256]; /* that were asked for */
    char address[64];    /* "127.0.0.1:<port>" */

    uv_udp_t udp;
    uv_tcp_t tcp;
};

void dns_server_start(struct dns_server *server, uv_loop_t *loop);
void dns_server_stop(struct dns_server *server);

#endif
