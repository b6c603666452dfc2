/*
 * keys: private keys out of the 32 bytes that the guest agent derives. Pure.
 *
 * The bytes are the P-256 scalar itself, big-endian, as the Python service took them: same
 * bytes, same key. EVP_PKEY results are owned by the caller (EVP_PKEY_free).
 */
#ifndef CM_DOMAIN_KEYS_H
#define CM_DOMAIN_KEYS_H

#include "base/err.h"
#include "base/secret.h"

#include <openssl/evp.h>
#include <stdbool.h>
#include <stddef.h>

enum { KEYS_MATERIAL_BYTES = 32, KEYS_PEM_MAX_BYTES = 16 * 1024 };

/* ERR_CRYPTO for any other length, for 0, and for values not below the order of the group. */
int keys_derive(const struct secret *material, EVP_PKEY **ret, struct err *err);

/* The fixed material of development, 32 times 0x01. Caller frees; NULL without memory. */
struct secret *keys_development_material(void);

/* PKCS#8 PEM without encryption, in secure memory; 241 bytes for P-256. */
int keys_to_pem(EVP_PKEY *key, struct secret **ret_pem, struct err *err);

/* A single unencrypted private key of any type. Never asks for a pass phrase. */
int keys_from_pem(const struct secret *pem, EVP_PKEY **ret, struct err *err);

/* The first 16 hex digits of the SHA-256 of the public key's SubjectPublicKeyInfo: a name. */
#define KEYS_ID_SIZE 17
int keys_id(const EVP_PKEY *key, char ret[KEYS_ID_SIZE], struct err *err);

bool keys_same(const EVP_PKEY *a, const EVP_PKEY *b); /* by public key */

/*
 * Paths that the guest agent derives from. `ret` of KEYS_PATH_SIZE bytes; the inputs are
 * a checked host name (at most 253 bytes) and a checked account version (at most 64).
 */
#define KEYS_PATH_SIZE 384
#define KEYS_EKM_PATH "ekm/hmac-key/v1"
void keys_tls_path(char ret[KEYS_PATH_SIZE], const char *domain, bool development);
void keys_account_path(char ret[KEYS_PATH_SIZE], const char *domain, const char *version);

#endif
