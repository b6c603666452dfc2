/*
 * inquiry: what a command asks of others by itself, without the daemon: an event loop, HTTP, and the guest
 * agent. What is started on the loop goes on while another one is waited for, so several are asked at once
 * by starting them all first. Every operation that was started has to be over before inquiry_close.
 */
#ifndef CM_APP_INQUIRY_H
#define CM_APP_INQUIRY_H

#include "adapters/dstack.h"
#include "domain/config.h"
#include "runtime/http.h"

#include <openssl/evp.h>
#include <stdbool.h>
#include <uv.h>

struct inquiry {
    const struct config *config;
    uv_loop_t loop;
    struct http *http;
    struct dstack agent;
};

/* How an operation ended; zeroed before it is started. */
struct inquiry_end {
    bool over;
    struct err err; /* ERR_NONE: well */
};

/* `config` is borrowed. After a failure there is nothing to close. */
int inquiry_open(struct inquiry *inquiry, const struct config *config, struct err *err);
void inquiry_close(struct inquiry *inquiry);

/* A done_fn (runtime/done.h), with a struct inquiry_end as its owner. */
void inquiry_note(void *end, const struct err *err);

/* Blocks until that operation is over: 0, or -1 with its error. */
int inquiry_wait(struct inquiry *inquiry, const struct inquiry_end *end, struct err *err);

/*
 * The key that certificates are for, and that of the ACME account, which has to be another one (RFC 8555
 * §11.1). Blocking; the caller frees it (EVP_PKEY_free). In development the TLS key is the fixed one.
 */
int inquiry_tls_key(struct inquiry *inquiry, EVP_PKEY **ret, struct err *err);
int inquiry_account_key(struct inquiry *inquiry, EVP_PKEY **ret, struct err *err);

/*
 * ERR_CONFIG in development, and with tls.key: external, where there is neither a derived key to be
 * certified nor an account; `what` is missing then: "an ACME account".
 */
int inquiry_needs_account(const struct config *config, const char *what, struct err *err);

#endif
