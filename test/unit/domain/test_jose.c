#include "domain/jose.h"

#include "domain/keys.h"
#include "support/pki.h"
#include "support/vectors.h"

#include <openssl/ec.h>
#include <stdlib.h>
#include <string.h>

static int setup(void **state)
{
    struct err err = ERR_INIT;

    /* As the program does it. */
    json_set_alloc_funcs(wipe_malloc, wipe_free);
    *state = vectors_load();
    return secret_setup(&err);
}

static int teardown(void **state)
{
    json_decref(*state);
    return 0;
}

/* ---- JWK ---- */

static void public_jwks_are_those_of_the_python_service(void **state)
{
    const json_t *vector;
    size_t i;

    json_array_foreach(json_object_get(*state, "keys"), i, vector)
    {
        EVP_PKEY *key = vectors_derive(*state, vectors_text(vector, "name"));
        struct err err = ERR_INIT;
        json_t *jwk = NULL;

        assert_int_equal(jose_public_jwk(key, &jwk, &err), 0);
        assert_true(json_equal(jwk, json_object_get(vector, "jwk")));
        pki_assert_queue_empty();
        json_decref(jwk);
        EVP_PKEY_free(key);
    }
}

static void private_jwks_are_those_of_the_python_service(void **state)
{
    const json_t *vector;
    size_t i;

    json_array_foreach(json_object_get(*state, "keys"), i, vector)
    {
        EVP_PKEY *key = vectors_derive(*state, vectors_text(vector, "name"));
        json_t *wanted = json_deep_copy(json_object_get(vector, "jwk"));
        struct err err = ERR_INIT;
        struct secret *text = NULL;
        json_t *jwk;

        json_object_set_new(wanted, "d", json_string(vectors_text(vector, "jwk_d")));
        assert_int_equal(jose_private_jwk(key, &text, &err), 0);
        pki_assert_queue_empty();
        assert_int_equal(strlen((const char *)text->bytes), text->len);
        jwk = json_loadb((const char *)text->bytes, text->len, JSON_REJECT_DUPLICATES,
                         NULL);
        assert_true(json_equal(jwk, wanted));
        json_decref(jwk);
        json_decref(wanted);
        secret_free(text);
        EVP_PKEY_free(key);
    }
}

/*
 * Scalars whose public point has a coordinate that begins with a zero byte; found by
 * counting.
 */
static void coordinates_keep_their_leading_zeros(void **state)
{
    static const struct {
        const char *material;
        const char *member;
        const char *value;
    } points[] = {
        {"000000000000000000000000000000000000000000000000000000000000002b", "y",
         "ADzMwKZGDgrjKKTZfTx7YdhvxiicGJ8lJREMRBuwfpc"},
        {"000000000000000000000000000000000000000000000000000000000000017b", "x",
         "AFVDiUrz0A7X10Cr29dclrBod7eH219w7qeLkKjXwAo"},
    };

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct secret *material = vectors_secret(points[i].material);
        struct err err = ERR_INIT;
        EVP_PKEY *key = NULL;
        json_t *jwk = NULL;

        assert_int_equal(keys_derive(material, &key, &err), 0);
        assert_int_equal(jose_public_jwk(key, &jwk, &err), 0);
        assert_string_equal(json_string_value(json_object_get(jwk, points[i].member)),
                            points[i].value);
        json_decref(jwk);
        EVP_PKEY_free(key);
        secret_free(material);
    }
}

static void thumbprints_are_those_of_the_python_service(void **state)
{
    const json_t *vector;
    size_t i;

    json_array_foreach(json_object_get(*state, "keys"), i, vector)
    {
        EVP_PKEY *key = vectors_derive(*state, vectors_text(vector, "name"));
        char thumbprint[JOSE_THUMBPRINT_SIZE];
        struct err err = ERR_INIT;

        assert_int_equal(jose_thumbprint(key, thumbprint, &err), 0);
        assert_string_equal(thumbprint, vectors_text(vector, "thumbprint"));
        pki_assert_queue_empty();
        EVP_PKEY_free(key);
    }
}

/* ---- signed requests ---- */

static unsigned char *unbase64url(const char *text, size_t *ret_len)
{
    size_t len = strlen(text);
    char *padded = calloc(1, len + 4);
    unsigned char *bytes = malloc(len + 4);
    int got;

    assert_int_equal(strspn(text,
                            "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                            "0123456789-_"),
                     len);
    for (size_t i = 0; i < len; i++)
        padded[i] = text[i] == '-' ? '+' : (text[i] == '_' ? '/' : text[i]);
    while (strlen(padded) % 4 != 0)
        padded[strlen(padded)] = '=';
    got = EVP_DecodeBlock(bytes, (unsigned char *)padded, (int)strlen(padded));
    assert_true(got >= 0);
    *ret_len = len * 3 / 4;
    bytes[*ret_len] = '\0';
    free(padded);
    return bytes;
}

static void assert_signature(EVP_PKEY *key, const json_t *jws)
{
    size_t len;
    unsigned char *raw = unbase64url(vectors_text(jws, "signature"), &len);
    ECDSA_SIG *signature = ECDSA_SIG_new();
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    unsigned char *der = NULL;
    char *input;
    int der_len;
    int input_len;

    assert_int_equal(len, 64);
    assert_int_equal(ECDSA_SIG_set0(signature, BN_bin2bn(raw, 32, NULL),
                                    BN_bin2bn(raw + 32, 32, NULL)),
                     1);
    der_len = i2d_ECDSA_SIG(signature, &der);
    input_len = asprintf(&input, "%s.%s", vectors_text(jws, "protected"),
                         vectors_text(jws, "payload"));
    assert_int_equal(EVP_DigestVerifyInit(context, NULL, EVP_sha256(), NULL, key), 1);
    assert_int_equal(EVP_DigestVerify(context, der, (size_t)der_len,
                                      (const unsigned char *)input, (size_t)input_len),
                     1);
    free(input);
    OPENSSL_free(der);
    EVP_MD_CTX_free(context);
    ECDSA_SIG_free(signature);
    free(raw);
}

/* Signs, checks signature and payload, and gives the protected header. */
static json_t *signed_header(EVP_PKEY *key, const char *kid, const char *payload)
{
    struct err err = ERR_INIT;
    BUF_SCOPED body;
    unsigned char *text;
    json_t *header;
    json_t *jws;
    size_t len;

    buf_init(&body, 1024 * 1024);
    assert_int_equal(jose_sign_request(key, "https://ca.test/acme/order", "no-N_ce", kid,
                                       payload, &body, &err),
                     0);
    pki_assert_queue_empty();
    jws = json_loads(buf_str(&body), JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(jws);
    assert_int_equal(json_object_size(jws), 3);
    assert_signature(key, jws);
    text = unbase64url(vectors_text(jws, "payload"), &len);
    assert_int_equal(len, strlen(payload));
    assert_memory_equal(text, payload, len);
    free(text);
    text = unbase64url(vectors_text(jws, "protected"), &len);
    header = json_loadb((const char *)text, len, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(header);
    free(text);
    json_decref(jws);
    return header;
}

static void requests_name_the_account(void **state)
{
    EVP_PKEY *key = vectors_derive(*state, "sha256(abc)");
    json_t *header = signed_header(key, "https://ca.test/acct/1", "{\"a\":1}");
    json_t *wanted =
        json_pack("{s:s, s:s, s:s, s:s}", "alg", "ES256", "nonce", "no-N_ce", "url",
                  "https://ca.test/acme/order", "kid", "https://ca.test/acct/1");

    assert_true(json_equal(header, wanted));
    json_decref(header);
    json_decref(wanted);
    EVP_PKEY_free(key);
}

static void requests_without_account_carry_the_key(void **state)
{
    EVP_PKEY *key = vectors_derive(*state, "32x02");
    json_t *header = signed_header(key, NULL, "{\"termsOfServiceAgreed\":true}");

    assert_int_equal(json_object_size(header), 4);
    assert_null(json_object_get(header, "kid"));
    assert_true(json_equal(json_object_get(header, "jwk"),
                           json_object_get(vectors_key(*state, "32x02"), "jwk")));
    json_decref(header);
    EVP_PKEY_free(key);
}

static void post_as_get_has_an_empty_payload(void **state)
{
    EVP_PKEY *key = vectors_derive(*state, "32x02");

    json_decref(signed_header(key, "https://ca.test/acct/1", ""));
    EVP_PKEY_free(key);
}

static void payloads_of_every_length_are_encoded(void **state)
{
    EVP_PKEY *key = vectors_derive(*state, "32x02");
    char payload[201];

    for (size_t len = 1; len < sizeof payload; len += 7) {
        memset(payload, 'p', len);
        payload[len] = '\0';
        json_decref(signed_header(key, "kid", payload));
    }
    EVP_PKEY_free(key);
}

/* One in 128 signatures has a number that begins with a zero byte. */
static void signatures_have_a_fixed_width(void **state)
{
    EVP_PKEY *key = vectors_derive(*state, "32x02");

    for (int i = 0; i < 600; i++)
        json_decref(signed_header(key, "kid", "{}"));
    EVP_PKEY_free(key);
}

/* ---- refusals ---- */

static void keys_off_p256_are_refused(void **state)
{
    static const char *const types[][2] = {
        {"EC", "P-384"}, {"EC", "secp256k1"}, {"RSA", "2048"}, {"ED25519", NULL}};

    (void)state;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        EVP_PKEY *key = pki_key_of(types[i][0], types[i][1]);
        char thumbprint[JOSE_THUMBPRINT_SIZE];
        struct secret *text = NULL;
        struct err err = ERR_INIT;
        json_t *jwk = NULL;
        BUF_SCOPED body;

        buf_init(&body, 4096);
        assert_int_equal(jose_public_jwk(key, &jwk, &err), -1);
        assert_int_equal(err.kind, ERR_CRYPTO);
        assert_non_null(strstr(err.message, "P-256"));
        assert_int_equal(jose_private_jwk(key, &text, &err), -1);
        assert_int_equal(jose_thumbprint(key, thumbprint, &err), -1);
        assert_int_equal(jose_sign_request(key, "u", "n", "k", "", &body, &err), -1);
        assert_int_equal(jose_sign_request(key, "u", "n", NULL, "", &body, &err), -1);
        assert_null(jwk);
        assert_null(text);
        assert_int_equal(body.len, 0);
        pki_assert_queue_empty();
        EVP_PKEY_free(key);
    }
}

static void a_public_key_alone_neither_signs_nor_gives_d(void **state)
{
    size_t len;
    unsigned char *der =
        vectors_bytes(vectors_text(vectors_key(*state, "32x02"), "spki_der"), &len);
    const unsigned char *at = der;
    EVP_PKEY *key = d2i_PUBKEY(NULL, &at, (long)len);
    char thumbprint[JOSE_THUMBPRINT_SIZE];
    struct secret *text = NULL;
    struct err err = ERR_INIT;
    BUF_SCOPED body;

    buf_init(&body, 4096);
    assert_int_equal(jose_thumbprint(key, thumbprint, &err), 0);
    assert_int_equal(jose_private_jwk(key, &text, &err), -1);
    assert_null(text);
    assert_int_equal(err.kind, ERR_CRYPTO);
    assert_int_equal(jose_sign_request(key, "u", "n", "k", "", &body, &err), -1);
    assert_int_equal(err.kind, ERR_CRYPTO);
    assert_int_equal(body.len, 0);
    pki_assert_queue_empty();
    EVP_PKEY_free(key);
    free(der);
}

static void text_that_is_not_utf8_is_refused(void **state)
{
    EVP_PKEY *key = vectors_derive(*state, "32x02");
    struct err err = ERR_INIT;
    BUF_SCOPED body;

    buf_init(&body, 4096);
    assert_int_equal(jose_sign_request(key, "u", "\xff", "k", "", &body, &err), -1);
    assert_int_equal(err.kind, ERR_PEER);
    assert_int_equal(jose_sign_request(key, "u", "\xff", NULL, "", &body, &err), -1);
    assert_int_equal(jose_sign_request(key, "\xff", "n", NULL, "", &body, &err), -1);
    assert_int_equal(jose_sign_request(key, "u", "n", "\xff", "", &body, &err), -1);
    assert_int_equal(err.kind, ERR_PEER);
    assert_int_equal(body.len, 0);
    pki_assert_queue_empty();
    EVP_PKEY_free(key);
}

static void a_body_that_does_not_fit_is_not_begun(void **state)
{
    EVP_PKEY *key = vectors_derive(*state, "32x02");
    struct err err = ERR_INIT;
    BUF_SCOPED body;

    buf_init(&body, 100);
    assert_int_equal(jose_sign_request(key, "u", "n", "k", "{}", &body, &err), -1);
    assert_int_equal(err.kind, ERR_PEER);
    assert_int_equal(body.len, 0);
    pki_assert_queue_empty();
    EVP_PKEY_free(key);
}

static void a_payload_beyond_the_limit_is_refused(void **state)
{
    EVP_PKEY *key = vectors_derive(*state, "32x02");
    size_t len = 1024 * 1024;
    char *payload = malloc(len + 1);
    struct err err = ERR_INIT;
    BUF_SCOPED body;

    memset(payload, 'p', len);
    payload[len] = '\0';
    buf_init(&body, 4 * len);
    assert_int_equal(jose_sign_request(key, "u", "n", "k", payload, &body, &err), -1);
    assert_int_equal(err.kind, ERR_PEER);
    assert_int_equal(body.len, 0);
    pki_assert_queue_empty();
    free(payload);
    EVP_PKEY_free(key);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(public_jwks_are_those_of_the_python_service),
        cmocka_unit_test(private_jwks_are_those_of_the_python_service),
        cmocka_unit_test(coordinates_keep_their_leading_zeros),
        cmocka_unit_test(thumbprints_are_those_of_the_python_service),
        cmocka_unit_test(requests_name_the_account),
        cmocka_unit_test(requests_without_account_carry_the_key),
        cmocka_unit_test(post_as_get_has_an_empty_payload),
        cmocka_unit_test(payloads_of_every_length_are_encoded),
        cmocka_unit_test(signatures_have_a_fixed_width),
        cmocka_unit_test(keys_off_p256_are_refused),
        cmocka_unit_test(a_public_key_alone_neither_signs_nor_gives_d),
        cmocka_unit_test(text_that_is_not_utf8_is_refused),
        cmocka_unit_test(a_body_that_does_not_fit_is_not_begun),
        cmocka_unit_test(a_payload_beyond_the_limit_is_refused),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
