/*
 * challenge: files in the folder that the CA fetches answers from (RFC 8555 §8.3), as nginx serves
 * them: one of our own that shows whether it does, and those that certbot puts there.
 */
#ifndef CM_ADAPTERS_CHALLENGE_H
#define CM_ADAPTERS_CHALLENGE_H

#include "base/buf.h"
#include "base/fs.h"
#include "domain/config.h"
#include "runtime/http.h"

#include <stdbool.h>

enum {
    CHALLENGE_NAME_SIZE = 129, /* of a token: at most 128 characters, and at least 22 */
    CHALLENGE_TEXT_MAX_BYTES = 1024,
};

/*
 * Whether a file of that name can be the answer to a challenge: base64url of at least 128 bits
 * (RFC 8555 §8.3). Not so one of our own.
 */
bool challenge_is_token(const char *name);

/* The file of that name, which may be gone or half written; empty then. */
void challenge_read(const struct config *config, const char *name, struct buf *ret);

/* ---- a file of our own ---- */

/*
 * Its name has the form of a token, so that it takes the way of one through nginx, and its text not
 * that of an answer: who computes answers without files does not give it.
 */
struct challenge_probe {
    char path[FS_PATH_MAX]; /* "": there is none */
    char name[CHALLENGE_NAME_SIZE];
    char text[96];
};

/* The folder is made where it is missing. */
int challenge_probe_write(struct challenge_probe *probe, const struct config *config,
                          struct err *err);
void challenge_probe_remove(struct challenge_probe *probe);

/* At the start: what a killed process left. */
void challenge_probe_clean_up(const struct config *config);

/* ---- fetched as the CA does ---- */

enum { CHALLENGE_FETCH_MS = 3 * 1000 };

struct challenge_fetch {
    struct http_call call; /* the result; http_call_done after done */

    /* Private. */
    char url[512];
    char host[300];
    const char *headers[3];
};

/*
 * From nginx itself, where it listens; or with an `address` from its port 80, wherever it leads.
 * Redirects are not followed. Ends as http_start does.
 */
void challenge_fetch_start(struct challenge_fetch *fetch, struct http *http,
                           const struct config *config, const char *address,
                           const char *name, done_fn done, void *owner);
void challenge_fetch_cancel(struct challenge_fetch *fetch);

#endif
