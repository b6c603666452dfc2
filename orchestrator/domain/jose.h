/*
 * jose: the parts of JWK, JWS and ACME's use of them that a P-256 key needs. Pure.
 * RFC 7515 (JWS), RFC 7517 and 7518 (JWK, ES256), RFC 7638 (thumbprint), RFC 8555 §6.2 and
 * §7.3.4 (external account binding, HS256).
 */
#ifndef CM_DOMAIN_JOSE_H
#define CM_DOMAIN_JOSE_H

#include "base/buf.h"
#include "base/err.h"
#include "base/secret.h"

#include <jansson.h>
#include <openssl/evp.h>

/* {"crv","kty","x","y"}; x and y always 32 bytes before encoding. Caller: json_decref. */
int jose_public_jwk(const EVP_PKEY *key, json_t **ret, struct err *err);

/* The same with "d", as JSON text in secure memory. */
int jose_private_jwk(const EVP_PKEY *key, struct secret **ret, struct err *err);

/* base64url of SHA-256 over the canonical public JWK. */
#define JOSE_THUMBPRINT_SIZE 44
int jose_thumbprint(const EVP_PKEY *key, char ret[JOSE_THUMBPRINT_SIZE], struct err *err);

/*
 * Flattened JWS with ES256 (r‖s, 64 bytes) of an ACME request: protected header
 * {"alg","nonce","url", and "kid", or "jwk" when kid is NULL}. `payload` is JSON text, "" for
 * POST-as-GET. `ret` is an initialised buffer that receives the request body.
 */
int jose_sign_request(EVP_PKEY *key, const char *url, const char *nonce, const char *kid,
                      const char *payload, struct buf *ret, struct err *err);

/* The bytes of an HMAC key from its base64url, as CAs give it; a line end may follow. */
int jose_read_hmac_key(const struct secret *text, struct secret **ret, struct err *err);

/*
 * The member "externalAccountBinding" of newAccount: the account key's public JWK, signed with
 * the key that the CA gave for `key_id`; `url` is that of newAccount. Caller: json_decref.
 */
int jose_external_binding(const EVP_PKEY *key, const char *key_id,
                          const struct secret *hmac_key, const char *url, json_t **ret,
                          struct err *err);

#endif
