#include "base/secret.h"

#include <malloc.h>
#include <openssl/crypto.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum {
    SECURE_HEAP_BYTES = 128 * 1024,
    SECURE_HEAP_SMALLEST = 32,
};

static void *openssl_malloc(size_t size, const char *file, int line)
{
    (void)file;
    (void)line;
    return wipe_malloc(size);
}

static void *openssl_realloc(void *memory, size_t size, const char *file, int line)
{
    (void)file;
    (void)line;
    if (memory != NULL && size == 0) {
        wipe_free(memory);
        return NULL;
    }
    return wipe_realloc(memory, size);
}

static void openssl_free(void *memory, const char *file, int line)
{
    (void)file;
    (void)line;
    wipe_free(memory);
}

/* What containers are given is little, and all that is given is less than all that may be had. */
static void raise_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_MEMLOCK, &limit);
    }
}

static bool locked;

int secret_setup(struct err *err)
{
    int got;

    if (CRYPTO_secure_malloc_initialized() != 0)
        return 0;
    /*
     * OpenSSL's decoders and encoders leave DER with the private key in what they free. Refused
     * where something has been allocated already, as in tests.
     */
    (void)CRYPTO_set_mem_functions(openssl_malloc, openssl_realloc, openssl_free);
    raise_limit();
    /* 1: locked; 2: works, but the pages could not be locked; 0: no heap at all. */
    got = CRYPTO_secure_malloc_init(SECURE_HEAP_BYTES, SECURE_HEAP_SMALLEST);
    if (got == 0)
        return err_openssl(err, "cannot set up %d bytes of secure memory",
                           SECURE_HEAP_BYTES);
    locked = got == 1;
    return 0;
}

bool secret_is_locked(void)
{
    return locked;
}

struct secret *secret_new(size_t len)
{
    struct secret *secret;

    if (len > SIZE_MAX - sizeof *secret - 1)
        return NULL;
    secret = OPENSSL_secure_zalloc(sizeof *secret + len + 1);
    if (secret != NULL)
        secret->len = len;
    return secret;
}

struct secret *secret_copy(const void *bytes, size_t len)
{
    struct secret *secret = secret_new(len);

    if (secret != NULL)
        memcpy(secret->bytes, bytes, len);
    return secret;
}

void secret_free(struct secret *secret)
{
    if (secret != NULL)
        OPENSSL_secure_clear_free(secret, sizeof *secret + secret->len + 1);
}

bool secret_equal(const struct secret *a, const struct secret *b)
{
    return a->len == b->len && CRYPTO_memcmp(a->bytes, b->bytes, a->len) == 0;
}

void secret_cleanup(struct secret **secret)
{
    secret_free(*secret);
}

static unsigned long refusals;

unsigned long wipe_refusals(void)
{
    return refusals;
}

static void *refuse(void)
{
    refusals++;
    return NULL;
}

/* More than that nobody has, and sanitizers end whoever asks for it. */
void *wipe_malloc(size_t size)
{
    void *memory = size > PTRDIFF_MAX ? NULL : malloc(size > 0 ? size : 1);

    return memory != NULL ? memory : refuse();
}

void *wipe_calloc(size_t count, size_t size)
{
    void *memory =
        size != 0 && count > PTRDIFF_MAX / size ? refuse() : wipe_malloc(count * size);

    if (memory != NULL)
        memset(memory, 0, count * size);
    return memory;
}

/* realloc(3) would leave the old bytes behind where it moves a block. */
void *wipe_realloc(void *memory, size_t size)
{
    void *bigger;
    size_t old;

    if (memory == NULL)
        return wipe_malloc(size);
    old = malloc_usable_size(memory);
    bigger = wipe_malloc(size);
    if (bigger == NULL)
        return NULL;
    memcpy(bigger, memory, old < size ? old : size);
    wipe_free(memory);
    return bigger;
}

char *wipe_strdup(const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = wipe_malloc(size);

    if (copy != NULL)
        memcpy(copy, text, size);
    return copy;
}

void wipe_free(void *memory)
{
    if (memory == NULL)
        return;
    OPENSSL_cleanse(memory, malloc_usable_size(memory));
    free(memory);
}
