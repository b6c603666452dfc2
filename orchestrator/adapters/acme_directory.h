/*
 * acme_directory: where a CA offers what, RFC 8555 §7.1.1 and RFC 9773 §3. Ownership and order of
 * calls: done.h.
 */
#ifndef CM_ADAPTERS_ACME_DIRECTORY_H
#define CM_ADAPTERS_ACME_DIRECTORY_H

#include "domain/authority.h"
#include "runtime/http.h"

#include <stdbool.h>

enum {
    ACME_URL_SIZE = 1024,
    ACME_NONCE_SIZE = 256,
    ACME_IDENTITY_SIZE = 256,
    ACME_PROFILES_SIZE = 256,
};

/* Borrowed until done. */
struct acme_directory_request {
    struct http *http;
    const struct authority *authority;
    unsigned timeout_ms;
};

struct acme_directory {
    /* Results, valid in done. */
    char new_nonce[ACME_URL_SIZE];
    char new_account[ACME_URL_SIZE];
    char revoke_cert[ACME_URL_SIZE]; /* "" where the CA has none, as for the next */
    char renewal_info[ACME_URL_SIZE];
    char caa_identity[ACME_IDENTITY_SIZE]; /* its name in CAA records, "" for unknown */
    bool needs_binding; /* accounts there have to be bound to one at the CA */
    bool lacks_profile; /* the one that the authority is configured with */
    char profiles[ACME_PROFILES_SIZE]; /* that it has, "" for none; cut when it is long */

    /* Private. */
    const struct authority *authority;
    struct http_call call;
    done_fn done;
    void *owner;
};

/*
 * ERR_NET and ERR_TIMEOUT: the CA is out of reach. ERR_PEER: it refused (err->code is the HTTP
 * status), or what is there is no directory (the code is 0).
 */
void acme_directory_start(struct acme_directory *directory,
                          const struct acme_directory_request *request, done_fn done,
                          void *owner);
void acme_directory_cancel(struct acme_directory *directory);

/* A header of an answer; false, and `ret` is "", when there is none, or an empty or a longer one. */
bool acme_take_header(const struct http_call *answer, const char *name, char *ret,
                      size_t size);

/* Whether the answer is a problem document of this ACME type, "badNonce" (RFC 8555 §6.7). */
bool acme_problem_is(const struct http_call *answer, const char *type);

/*
 * An answer that is no success as an error, with the type and the detail of its problem document
 * (RFC 7807), where it is one. Returns -1.
 */
int acme_refused(const struct http_call *answer, const char *what, struct err *err);

#endif
