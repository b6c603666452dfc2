#include "base/secret.h"

#include <openssl/crypto.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum {
    SECURE_HEAP_BYTES = 128 * 1024,
    SECURE_HEAP_SMALLEST = 32,
};

int secret_setup(struct err *err)
{
    /* 1: locked; 2: works, but the pages could not be locked; 0: no heap at all. */
    if (CRYPTO_secure_malloc_initialized() != 0)
        return 0;
    if (CRYPTO_secure_malloc_init(SECURE_HEAP_BYTES, SECURE_HEAP_SMALLEST) == 0)
        return err_openssl(err, "cannot set up %d bytes of secure memory",
                           SECURE_HEAP_BYTES);
    return 0;
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

/* The size stands before the block, padded so that the block keeps malloc's alignment. */
#define HEADER_BYTES _Alignof(max_align_t)

static size_t block_size(const unsigned char *memory)
{
    size_t size;

    memcpy(&size, memory - HEADER_BYTES, sizeof size);
    return size;
}

void *wipe_malloc(size_t size)
{
    unsigned char *block;

    if (size > SIZE_MAX - HEADER_BYTES)
        return NULL;
    block = malloc(HEADER_BYTES + size);
    if (block == NULL)
        return NULL;
    memcpy(block, &size, sizeof size);
    return block + HEADER_BYTES;
}

void *wipe_calloc(size_t count, size_t size)
{
    void *memory;

    if (size != 0 && count > SIZE_MAX / size)
        return NULL;
    memory = wipe_malloc(count * size);
    if (memory != NULL)
        memset(memory, 0, count * size);
    return memory;
}

void *wipe_realloc(void *memory, size_t size)
{
    void *bigger;
    size_t old;

    if (memory == NULL)
        return wipe_malloc(size);
    old = block_size(memory);
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
    unsigned char *block;

    if (memory == NULL)
        return;
    block = (unsigned char *)memory - HEADER_BYTES;
    OPENSSL_cleanse(memory, block_size(memory));
    free(block);
}
