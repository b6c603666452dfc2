/*
 * renewal_info: asks a CA when it would have a certificate renewed, RFC 9773. Ownership and order
 * of calls: done.h.
 *
 *     read directory → get window
 *
 * A CA whose directory has no such resource is answer enough: that is a success without a window.
 */
#ifndef CM_ADAPTERS_RENEWAL_INFO_H
#define CM_ADAPTERS_RENEWAL_INFO_H

#include "adapters/acme_directory.h"
#include "domain/renewal_info.h"
#include "runtime/seq.h"

/* Borrowed until done. */
struct renewal_info_request {
    struct http *http;
    uv_loop_t *loop;
    const struct authority *authority; /* that issued the certificate */
    const char *id;                    /* of that, see renewal_info_id() */
};

struct renewal_info_call {
    /* Results, valid in done. */
    bool offered; /* by the CA; `info` is set then, unless it failed */
    struct renewal_info info;
    bool lasting;          /* a failure that would be met again at once */
    int64_t retry_after_s; /* as the CA had it, also with a failure; 0: unsaid */

    /* Private. */
    struct renewal_info_request request;
    char url[ACME_URL_SIZE + RENEWAL_INFO_ID_SIZE];
    struct seq seq;
    struct acme_directory directory;
    struct http_call http;
    done_fn done;
    void *owner;
};

/*
 * ERR_NET and ERR_TIMEOUT: the CA is out of reach. ERR_PEER: it refused (err->code is the HTTP
 * status), or what it answered is of no use (the code is 0).
 */
void renewal_info_start(struct renewal_info_call *call,
                        const struct renewal_info_request *request, done_fn done,
                        void *owner);
void renewal_info_cancel(struct renewal_info_call *call);

#endif
