/*
 * secret: memory for what must not leak.
 *
 * A `struct secret` lives in OpenSSL's secure heap (locked, guarded, left out of core
 * dumps) and is wiped when freed. There is no way to print one. The wipe_* functions are
 * an ordinary allocator that clears what it frees; they serve OpenSSL, libcurl and jansson, whose
 * buffers hold keys in passing.
 */
#ifndef CM_BASE_SECRET_H
#define CM_BASE_SECRET_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>

struct secret {
    size_t len;            /* bytes, without the terminating zero */
    unsigned char bytes[]; /* always followed by a zero byte */
};

/*
 * Once, before the first secret and anything else that needs OpenSSL. Without locked memory (RLIMIT_MEMLOCK) it still
 * succeeds.
 */
int secret_setup(struct err *err);

/* Whether what secrets are in cannot be swapped out, and is left out of core dumps. */
bool secret_is_locked(void);

/* `len` zero bytes. NULL when the secure heap is exhausted. Free with secret_free. */
struct secret *secret_new(size_t len);
struct secret *secret_copy(const void *bytes, size_t len);
void secret_free(struct secret *secret);
bool secret_equal(const struct secret *a, const struct secret *b); /* constant time */

void secret_cleanup(struct secret **secret); /* for SECRET_SCOPED */
#define SECRET_SCOPED __attribute__((cleanup(secret_cleanup))) struct secret *

/*
 * How often there was no memory so far: what a library made of a text while that changed says nothing of
 * the text.
 */
unsigned long wipe_refusals(void);

void *wipe_malloc(size_t size);
void *wipe_calloc(size_t count, size_t size);
void *wipe_realloc(void *memory, size_t size);
char *wipe_strdup(const char *text);
void wipe_free(void *memory);

#endif
