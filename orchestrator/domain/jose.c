#include "domain/jose.h"

#include "base/text.h"
#include "domain/json_text.h"

#include <errno.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/hmac.h>
#include <openssl/obj_mac.h>
#include <openssl/sha.h>
#include <string.h>

enum {
    NUMBER_BYTES = 32, /* a coordinate or scalar of P-256 */
    NUMBER_TEXT_SIZE = TEXT_BASE64URL_SIZE(NUMBER_BYTES),
    SIGNATURE_BYTES = 2 * NUMBER_BYTES, /* RFC 7518 §3.4 */
    SIGNATURE_DER_MAX_BYTES = 80,
    INPUT_MAX_BYTES = 1024 * 1024, /* of a request, before it is wrapped */
    BODY_MAX_BYTES = INPUT_MAX_BYTES + 1024,
};

/* Keys sorted and no white space, as RFC 7638 §3 wants it for the thumbprint. */
#define DUMP_FLAGS (JSON_COMPACT | JSON_SORT_KEYS)

static int check_curve(const EVP_PKEY *key, struct err *err)
{
    char group[80] = "";

    if (!EVP_PKEY_is_a(key, "EC") ||
        EVP_PKEY_get_group_name(key, group, sizeof group, NULL) != 1 ||
        strcmp(group, SN_X9_62_prime256v1) != 0)
        return err_openssl(err, "ES256 needs a P-256 key");
    return 0;
}

/*
 * One number of the key in base64url; `ret` then holds a secret when the number is one.
 */
static int number_text(const EVP_PKEY *key, const char *param, char ret[NUMBER_TEXT_SIZE],
                       struct err *err)
{
    unsigned char bytes[NUMBER_BYTES];
    BIGNUM *number = BN_secure_new();
    int failed = 0;

    if (number == NULL || EVP_PKEY_get_bn_param(key, param, &number) != 1 ||
        BN_bn2binpad(number, bytes, sizeof bytes) != (int)sizeof bytes)
        failed = err_openssl(err, "cannot read the P-256 key's numbers");
    else
        text_base64url(ret, bytes, sizeof bytes);
    BN_clear_free(number);
    OPENSSL_cleanse(bytes, sizeof bytes);
    return failed;
}

static int public_jwk(const EVP_PKEY *key, json_t **ret, struct err *err)
{
    char x[NUMBER_TEXT_SIZE];
    char y[NUMBER_TEXT_SIZE];

    if (check_curve(key, err) < 0 ||
        number_text(key, OSSL_PKEY_PARAM_EC_PUB_X, x, err) < 0 ||
        number_text(key, OSSL_PKEY_PARAM_EC_PUB_Y, y, err) < 0)
        return -1;
    *ret = json_pack("{s:s, s:s, s:s, s:s}", "crv", "P-256", "kty", "EC", "x", x, "y", y);
    return *ret != NULL ? 0 : err_sys(err, ENOMEM, "cannot make a JWK");
}

int jose_public_jwk(const EVP_PKEY *key, json_t **ret, struct err *err)
{
    int failed = public_jwk(key, ret, err);

    ERR_clear_error();
    return failed;
}

int jose_private_jwk(const EVP_PKEY *key, struct secret **ret, struct err *err)
{
    char d[NUMBER_TEXT_SIZE];
    json_t *jwk = NULL;
    struct secret *text = NULL;
    size_t len = 0;
    int failed;

    failed = public_jwk(key, &jwk, err);
    if (failed == 0)
        failed = number_text(key, OSSL_PKEY_PARAM_PRIV_KEY, d, err);
    if (failed == 0) {
        /* jansson holds "d" in passing, in memory that is wiped (base/secret.h). */
        if (json_object_set_new(jwk, "d", json_string(d)) == 0)
            len = json_dumpb(jwk, NULL, 0, DUMP_FLAGS);
        text = len == 0 ? NULL : secret_new(len);
        /* Without memory it writes nothing, also when it has counted. */
        if (text == NULL ||
            json_dumpb(jwk, (char *)text->bytes, text->len, DUMP_FLAGS) != len) {
            secret_free(text);
            failed = err_sys(err, ENOMEM, "private JWK: no secure memory left");
        } else
            *ret = text;
    }
    OPENSSL_cleanse(d, sizeof d);
    json_decref(jwk);
    ERR_clear_error();
    return failed;
}

int jose_thumbprint(const EVP_PKEY *key, char ret[JOSE_THUMBPRINT_SIZE], struct err *err)
{
    unsigned char digest[SHA256_DIGEST_LENGTH];
    char text[256];
    json_t *jwk = NULL;
    size_t len;
    int failed;

    failed = public_jwk(key, &jwk, err);
    if (failed == 0) {
        len = json_dumpb(jwk, text, sizeof text, DUMP_FLAGS);
        if (len == 0 || len > sizeof text ||
            EVP_Digest(text, len, digest, NULL, EVP_sha256(), NULL) != 1)
            failed = err_openssl(err, "cannot compute the key's thumbprint");
        else
            text_base64url(ret, digest, sizeof digest);
    }
    json_decref(jwk);
    ERR_clear_error();
    return failed;
}

static int append_base64url(struct buf *ret, const void *bytes, size_t len,
                            struct err *err)
{
    enum { PIECE = 48 }; /* a multiple of 3, so that pieces join without padding */
    char text[TEXT_BASE64URL_SIZE(PIECE)];
    const unsigned char *at = bytes;

    while (len > 0) {
        size_t piece = len < PIECE ? len : PIECE;

        text_base64url(text, at, piece);
        if (buf_append_str(ret, text, err) < 0)
            return -1;
        at += piece;
        len -= piece;
    }
    return 0;
}

/* Consumes `json`, which may be NULL: the library refuses text that is not UTF-8. */
static int append_json(struct buf *ret, json_t *json, struct err *err)
{
    int failed;

    if (json == NULL)
        return err_set(err, ERR_PEER,
                       "ACME request: the URL, nonce or account URL is not UTF-8");
    failed = json_append(json, DUMP_FLAGS, ret, err);
    json_decref(json);
    return failed;
}

/* RFC 8555 §6.2. */
static int append_protected(struct buf *ret, const EVP_PKEY *key, const char *url,
                            const char *nonce, const char *kid, struct err *err)
{
    BUF_SCOPED header;
    json_t *jwk = NULL;
    json_t *json;

    buf_init(&header, INPUT_MAX_BYTES);
    if (kid != NULL)
        json = json_pack("{s:s, s:s, s:s, s:s}", "alg", "ES256", "nonce", nonce, "url",
                         url, "kid", kid);
    else if (public_jwk(key, &jwk, err) < 0)
        return -1;
    else
        json = json_pack("{s:s, s:s, s:s, s:o}", "alg", "ES256", "nonce", nonce, "url",
                         url, "jwk", jwk);
    if (append_json(&header, json, err) < 0)
        return -1;
    return append_base64url(ret, header.data, header.len, err);
}

/*
 * OpenSSL's signatures are DER, JWS wants the two numbers in fixed width (RFC 7518
 * §3.4).
 */
static int raw_signature(const unsigned char *der, size_t der_len,
                         unsigned char ret[SIGNATURE_BYTES])
{
    ECDSA_SIG *signature = d2i_ECDSA_SIG(NULL, &der, (long)der_len);
    int failed = -1;

    if (signature != NULL &&
        BN_bn2binpad(ECDSA_SIG_get0_r(signature), ret, NUMBER_BYTES) == NUMBER_BYTES &&
        BN_bn2binpad(ECDSA_SIG_get0_s(signature), ret + NUMBER_BYTES, NUMBER_BYTES) ==
            NUMBER_BYTES)
        failed = 0;
    ECDSA_SIG_free(signature);
    return failed;
}

static int sign(EVP_PKEY *key, const struct buf *input,
                unsigned char ret[SIGNATURE_BYTES], struct err *err)
{
    unsigned char der[SIGNATURE_DER_MAX_BYTES];
    size_t der_len = sizeof der;
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    int failed = 0;

    if (context == NULL ||
        EVP_DigestSignInit(context, NULL, EVP_sha256(), NULL, key) != 1 ||
        EVP_DigestSign(context, der, &der_len, input->data, input->len) != 1 ||
        raw_signature(der, der_len, ret) < 0)
        failed = err_openssl(err, "ACME request: cannot sign");
    EVP_MD_CTX_free(context);
    return failed;
}

static int sign_request(EVP_PKEY *key, const char *url, const char *nonce,
                        const char *kid, const char *payload, struct buf *ret,
                        struct err *err)
{
    unsigned char signature[SIGNATURE_BYTES];
    char signature_text[TEXT_BASE64URL_SIZE(SIGNATURE_BYTES)];
    BUF_SCOPED input; /* "<protected>.<payload>", RFC 7515 §5.1 */
    BUF_SCOPED body;
    size_t protected_len;

    buf_init(&input, INPUT_MAX_BYTES);
    buf_init(&body, BODY_MAX_BYTES);
    if (check_curve(key, err) < 0 ||
        append_protected(&input, key, url, nonce, kid, err) < 0)
        return -1;
    protected_len = input.len;
    if (buf_append_str(&input, ".", err) < 0 ||
        append_base64url(&input, payload, strlen(payload), err) < 0 ||
        sign(key, &input, signature, err) < 0)
        return -1;
    text_base64url(signature_text, signature, sizeof signature);
    if (append_json(&body,
                    json_pack("{s:s%, s:s, s:s}", "protected", buf_str(&input),
                              protected_len, "payload",
                              buf_str(&input) + protected_len + 1, "signature",
                              signature_text),
                    err) < 0)
        return -1;
    return buf_append(ret, body.data, body.len, err);
}

int jose_sign_request(EVP_PKEY *key, const char *url, const char *nonce, const char *kid,
                      const char *payload, struct buf *ret, struct err *err)
{
    int failed = sign_request(key, url, nonce, kid, payload, ret, err);

    ERR_clear_error();
    return failed;
}

/* ---- external account binding ---- */

int jose_read_hmac_key(const struct secret *text, struct secret **ret, struct err *err)
{
    SECRET_SCOPED bytes = secret_new(TEXT_UNBASE64URL_MAX(text->len));
    size_t text_len = text->len;
    size_t len;

    while (text_len > 0 && strchr(" \t\r\n", text->bytes[text_len - 1]) != NULL)
        text_len--;
    if (bytes == NULL)
        return err_sys(err, ENOMEM, "no secure memory left");
    if (text_unbase64url(bytes->bytes, &len, (const char *)text->bytes, text_len) < 0 ||
        len == 0)
        return err_set(
            err, ERR_CONFIG,
            "expected the HMAC key in base64url (letters, digits, - and _) and "
            "nothing else");
    *ret = secret_copy(bytes->bytes, len);
    return *ret == NULL ? err_sys(err, ENOMEM, "no secure memory left") : 0;
}

/* "<protected>.<payload>" (RFC 7515 §5.1). */
static int append_binding_input(struct buf *ret, const EVP_PKEY *key, const char *key_id,
                                const char *url, size_t *ret_protected_len,
                                struct err *err)
{
    BUF_SCOPED header;
    BUF_SCOPED payload;
    json_t *jwk = NULL;

    buf_init(&header, INPUT_MAX_BYTES);
    buf_init(&payload, INPUT_MAX_BYTES);
    if (append_json(
            &header,
            json_pack("{s:s, s:s, s:s}", "alg", "HS256", "kid", key_id, "url", url),
            err) < 0 ||
        append_base64url(ret, header.data, header.len, err) < 0 ||
        public_jwk(key, &jwk, err) < 0)
        return -1;
    *ret_protected_len = ret->len;
    if (append_json(&payload, jwk, err) < 0 || buf_append_str(ret, ".", err) < 0)
        return -1;
    return append_base64url(ret, payload.data, payload.len, err);
}

static int external_binding(const EVP_PKEY *key, const char *key_id,
                            const struct secret *hmac_key, const char *url, json_t **ret,
                            struct err *err)
{
    unsigned char code[SHA256_DIGEST_LENGTH];
    char code_text[TEXT_BASE64URL_SIZE(SHA256_DIGEST_LENGTH)];
    BUF_SCOPED input;
    size_t protected_len = 0;

    buf_init(&input, INPUT_MAX_BYTES);
    if (append_binding_input(&input, key, key_id, url, &protected_len, err) < 0)
        return -1;
    if (HMAC(EVP_sha256(), hmac_key->bytes, (int)hmac_key->len, input.data, input.len,
             code, NULL) == NULL)
        return err_openssl(err, "external account binding: cannot sign");
    text_base64url(code_text, code, sizeof code);
    *ret =
        json_pack("{s:s%, s:s, s:s}", "protected", buf_str(&input), protected_len,
                  "payload", buf_str(&input) + protected_len + 1, "signature", code_text);
    return *ret != NULL ? 0 : err_sys(err, ENOMEM, "cannot bind the account");
}

int jose_external_binding(const EVP_PKEY *key, const char *key_id,
                          const struct secret *hmac_key, const char *url, json_t **ret,
                          struct err *err)
{
    int failed = external_binding(key, key_id, hmac_key, url, ret, err);

    ERR_clear_error();
    return failed;
}
