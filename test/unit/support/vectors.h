/*
 * vectors: test/vectors.json, what the Python service made of fixed inputs.
 *
 * Everything asserts: a missing member fails the test. Strings are borrowed from the
 * file's root, which the caller of vectors_load releases with json_decref.
 */
#ifndef CM_TEST_SUPPORT_VECTORS_H
#define CM_TEST_SUPPORT_VECTORS_H

#include "base/secret.h"

#include <jansson.h>
#include <openssl/evp.h>

json_t *vectors_load(void);

const char *vectors_text(const json_t *object, const char *member);

/* The key of this name, as the JSON object with all that is known of it. */
const json_t *vectors_key(const json_t *root, const char *name);

/* Hex of any length. Caller: secret_free, free. */
struct secret *vectors_secret(const char *hex);
unsigned char *vectors_bytes(const char *hex, size_t *ret_len);

/* The key of this name, derived. Caller: EVP_PKEY_free. */
EVP_PKEY *vectors_derive(const json_t *root, const char *name);

#endif
