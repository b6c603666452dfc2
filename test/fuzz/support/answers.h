/*
 * answers: HTTP calls (runtime/http.h) that are answered from a text in place of a network, one after
 * the other. An answer is what a server sends, without the word HTTP before the status; a line "===="
 * is between two of them:
 *
 *     200
 *     Replay-Nonce: oFvnlFP1wIhRlYS2jTaXbA
 *
 *     {"newNonce": …}
 *     ====
 *     201
 *     …
 */
#ifndef TEST_FUZZ_ANSWERS_H
#define TEST_FUZZ_ANSWERS_H

#include "runtime/http.h"

#include <stddef.h>

struct http {
    char *rest; /* answers that were not given yet; written to */
    struct http_call *call;
    done_fn done;
    void *owner;
    size_t calls;     /* so far */
    const char *told; /* in a request this must not be; NULL: anything may */
};

void answers_init(struct http *http, char *text);

/* Gives the call that waits its answer; false when none does. Behind the last one nobody answers. */
bool answers_give(struct http *http);

/* An operation's end. */
struct ended {
    bool is_over;
    struct err err; /* ERR_NONE: it went well */
};
void ended_done(void *ended, const struct err *err);

#endif
