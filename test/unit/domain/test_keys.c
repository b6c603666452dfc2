#include "domain/keys.h"

#include "support/pki.h"
#include "support/vectors.h"

#include <openssl/pem.h>
#include <stdlib.h>
#include <string.h>

static int setup(void **state)
{
    struct err err = ERR_INIT;

    *state = vectors_load();
    return secret_setup(&err);
}

static int teardown(void **state)
{
    json_decref(*state);
    return 0;
}

/* ---- deriving ---- */

static void assert_der(const unsigned char *der, int len, const char *hex)
{
    size_t wanted_len;
    unsigned char *wanted = vectors_bytes(hex, &wanted_len);

    assert_int_equal(len, (int)wanted_len);
    assert_memory_equal(der, wanted, wanted_len);
    free(wanted);
}

static void keys_are_those_of_the_python_service(void **state)
{
    const json_t *keys = json_object_get(*state, "keys");
    const json_t *vector;
    size_t i;

    assert_true(json_array_size(keys) >= 7);
    json_array_foreach(keys, i, vector)
    {
        EVP_PKEY *key = vectors_derive(*state, vectors_text(vector, "name"));
        struct err err = ERR_INIT;
        struct secret *pem = NULL;
        unsigned char *der = NULL;
        PKCS8_PRIV_KEY_INFO *pkcs8;
        EVP_PKEY *again = NULL;
        int len;

        pki_assert_queue_empty();
        assert_int_equal(keys_to_pem(key, &pem, &err), 0);
        pki_assert_queue_empty();
        assert_int_equal(pem->len, 241);
        assert_string_equal((const char *)pem->bytes, vectors_text(vector, "pkcs8_pem"));

        len = i2d_PUBKEY(key, &der);
        assert_der(der, len, vectors_text(vector, "spki_der"));
        OPENSSL_free(der);
        der = NULL;
        pkcs8 = EVP_PKEY2PKCS8(key);
        len = i2d_PKCS8_PRIV_KEY_INFO(pkcs8, &der);
        assert_der(der, len, vectors_text(vector, "pkcs8_der"));
        PKCS8_PRIV_KEY_INFO_free(pkcs8);
        OPENSSL_clear_free(der, (size_t)len);

        assert_int_equal(keys_from_pem(pem, &again, &err), 0);
        assert_true(keys_same(key, again));
        pki_assert_queue_empty();
        EVP_PKEY_free(again);
        EVP_PKEY_free(key);
        secret_free(pem);
    }
}

static void a_derived_key_passes_openssls_own_check(void **state)
{
    EVP_PKEY *key = vectors_derive(*state, "sha256(abc)");
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL);

    assert_int_equal(EVP_PKEY_check(context), 1);
    assert_int_equal(EVP_PKEY_get_bits(key), 256);
    EVP_PKEY_CTX_free(context);
    EVP_PKEY_free(key);
}

static void material_that_is_no_scalar_is_refused(void **state)
{
    const json_t *refused = json_object_get(*state, "refused");
    const json_t *vector;
    size_t i;

    assert_true(json_array_size(refused) >= 10);
    json_array_foreach(refused, i, vector)
    {
        const char *hex = vectors_text(vector, "material");
        struct secret *material = vectors_secret(hex);
        struct err err = ERR_INIT;
        EVP_PKEY *key = NULL;

        assert_int_equal(keys_derive(material, &key, &err), -1);
        assert_null(key);
        assert_int_equal(err.kind, ERR_CRYPTO);
        if (strstr(err.message, vectors_text(vector, "why")) == NULL)
            fail_msg("%s says: %s", vectors_text(vector, "name"), err.message);
        if (strlen(hex) >= 8)
            assert_null(strstr(err.message, hex));
        pki_assert_queue_empty();
        secret_free(material);
    }
}

static void development_uses_a_fixed_key(void **state)
{
    struct secret *material = keys_development_material();
    EVP_PKEY *wanted = vectors_derive(*state, "32x01");
    struct err err = ERR_INIT;
    EVP_PKEY *key = NULL;

    assert_non_null(material);
    assert_int_equal(material->len, KEYS_MATERIAL_BYTES);
    assert_int_equal(keys_derive(material, &key, &err), 0);
    assert_true(keys_same(key, wanted));
    secret_free(material);
    EVP_PKEY_free(wanted);
    EVP_PKEY_free(key);
}

/* ---- reading PEM ---- */

static void assert_refused(const char *pem, const char *says)
{
    struct secret *secret = secret_copy(pem, strlen(pem));
    struct err err = ERR_INIT;
    EVP_PKEY *key = NULL;

    assert_non_null(secret);
    assert_int_equal(keys_from_pem(secret, &key, &err), -1);
    assert_null(key);
    assert_int_equal(err.kind, ERR_CRYPTO);
    if (strstr(err.message, says) == NULL)
        fail_msg("says \"%s\", not \"%s\"", err.message, says);
    pki_assert_queue_empty();
    secret_free(secret);
}

static void assert_accepted(const char *pem, const EVP_PKEY *wanted)
{
    struct secret *secret = secret_copy(pem, strlen(pem));
    struct err err = ERR_INIT;
    EVP_PKEY *key = NULL;

    assert_non_null(secret);
    if (keys_from_pem(secret, &key, &err) < 0)
        fail_msg("%s", err.message);
    assert_true(keys_same(key, wanted));
    pki_assert_queue_empty();
    EVP_PKEY_free(key);
    secret_free(secret);
}

static void keys_of_any_type_are_read(void **state)
{
    static const char *const types[][2] = {
        {"EC", "P-256"}, {"EC", "P-384"}, {"RSA", "2048"}, {"ED25519", NULL}};

    (void)state;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        EVP_PKEY *key = pki_key_of(types[i][0], types[i][1]);
        char *pem = pki_key_pem(key);

        assert_accepted(pem, key);
        free(pem);
        EVP_PKEY_free(key);
    }
}

/* The older form: "openssl genrsa -traditional", "openssl ecparam -genkey". */
static char *traditional_pem(EVP_PKEY *key, const EVP_CIPHER *cipher)
{
    BIO *bio = BIO_new(BIO_s_mem());
    char word[] = "word";
    const char *text;
    char *copy;
    long len;

    assert_int_equal(PEM_write_bio_PrivateKey_traditional(
                         bio, key, cipher, (unsigned char *)word, 4, NULL, NULL),
                     1);
    len = BIO_get_mem_data(bio, &text);
    copy = strndup(text, (size_t)len);
    BIO_free(bio);
    return copy;
}

static void traditional_pem_is_read(void **state)
{
    static const char parameters[] =
        "-----BEGIN EC PARAMETERS-----\n"
        "BggqhkjOPQMBBw==\n"
        "-----END EC PARAMETERS-----\n";
    EVP_PKEY *ec = vectors_derive(*state, "32x02");
    EVP_PKEY *rsa = pki_key_of("RSA", "2048");
    char *ec_pem = traditional_pem(ec, NULL);
    char *rsa_pem = traditional_pem(rsa, NULL);
    char *both;

    assert_non_null(strstr(ec_pem, "BEGIN EC PRIVATE KEY"));
    assert_accepted(ec_pem, ec);
    assert_accepted(rsa_pem, rsa);
    assert_true(asprintf(&both, "%s%s", parameters, ec_pem) > 0);
    assert_accepted(both, ec);
    assert_refused(parameters, "no PEM block");
    free(both);
    free(ec_pem);
    free(rsa_pem);
    EVP_PKEY_free(ec);
    EVP_PKEY_free(rsa);
}

static void encrypted_keys_are_refused_without_a_question(void **state)
{
    EVP_PKEY *key = vectors_derive(*state, "32x02");
    BIO *bio = BIO_new(BIO_s_mem());
    char *old = traditional_pem(key, EVP_aes_128_cbc());
    char word[] = "word";
    const char *text;
    char *pem;

    assert_int_equal(
        PEM_write_bio_PKCS8PrivateKey(bio, key, EVP_aes_128_cbc(), word, 4, NULL, NULL),
        1);
    assert_int_equal(BIO_write(bio, "", 1), 1);
    BIO_get_mem_data(bio, &text);
    pem = strdup(text);
    assert_non_null(strstr(pem, "BEGIN ENCRYPTED PRIVATE KEY"));
    assert_refused(pem, "encrypted");
    assert_refused(old, "encrypted");
    free(pem);
    free(old);
    BIO_free(bio);
    EVP_PKEY_free(key);
}

static void files_that_are_no_single_key_are_refused(void **state)
{
    const char *pem = vectors_text(vectors_key(*state, "32x02"), "pkcs8_pem");
    const char *certificate =
        vectors_text(json_object_get(*state, "event"), "certificate_pem");
    char *text;
    char *junk = pki_block("PRIVATE KEY", "no key at all", 13);

    assert_refused("", "no PEM block");
    assert_refused("hello\n", "no PEM block");
    assert_refused(certificate, "\"CERTIFICATE\", expected \"PRIVATE KEY\"");
    assert_refused(junk, "cannot be read");
    assert_true(asprintf(&text, "%s%s", pem, pem) > 0);
    assert_refused(text, "more than one");
    free(text);
    assert_true(asprintf(&text, "%s%s", pem, certificate) > 0);
    assert_refused(text, "more than one");
    free(text);
    assert_true(asprintf(&text, "%.200s", pem) > 0);
    assert_refused(text, "damaged");
    free(text);
    assert_true(asprintf(&text, "%s%.200s", pem, pem) > 0);
    assert_refused(text, "damaged");
    free(text);
    assert_true(asprintf(&text, "%.100s!%s", pem, pem + 101) > 0);
    assert_refused(text, "damaged");
    free(text);
    free(junk);
}

static void text_around_a_key_is_tolerated(void **state)
{
    EVP_PKEY *key = vectors_derive(*state, "32x02");
    const char *pem = vectors_text(vectors_key(*state, "32x02"), "pkcs8_pem");
    char *text;

    assert_true(asprintf(&text, "Private-Key: (256 bit)\n%s\n\nthe end\n", pem) > 0);
    assert_accepted(text, key);
    free(text);
    EVP_PKEY_free(key);
}

static void a_public_key_that_is_not_the_private_ones_is_refused(void **state)
{
    const json_t *mine = vectors_key(*state, "32x01");
    const json_t *other = vectors_key(*state, "32x02");
    size_t len;
    unsigned char *der = vectors_bytes(vectors_text(mine, "pkcs8_der"), &len);
    size_t other_len;
    unsigned char *other_der =
        vectors_bytes(vectors_text(other, "pkcs8_der"), &other_len);
    char *pem;

    memcpy(der + len - 65, other_der + other_len - 65, 65);
    pem = pki_block("PRIVATE KEY", der, len);
    assert_refused(pem, "belong together");
    free(pem);
    free(der);
    free(other_der);
}

static void large_files_are_refused_unread(void **state)
{
    struct secret *pem = secret_new(KEYS_PEM_MAX_BYTES + 1);
    struct err err = ERR_INIT;
    EVP_PKEY *key = NULL;

    (void)state;
    assert_non_null(pem);
    assert_int_equal(keys_from_pem(pem, &key, &err), -1);
    assert_int_equal(err.kind, ERR_CRYPTO);
    assert_non_null(strstr(err.message, "16385 bytes"));
    pki_assert_queue_empty();
    secret_free(pem);
}

static void zero_bytes_are_refused(void **state)
{
    const char *pem = vectors_text(vectors_key(*state, "32x02"), "pkcs8_pem");
    struct secret *longer = secret_new(strlen(pem) + 1);
    struct err err = ERR_INIT;
    EVP_PKEY *key = NULL;

    assert_non_null(longer);
    memcpy(longer->bytes, pem, strlen(pem));
    assert_int_equal(keys_from_pem(longer, &key, &err), -1);
    assert_int_equal(err.kind, ERR_CRYPTO);
    assert_non_null(strstr(err.message, "zero bytes"));
    pki_assert_queue_empty();
    secret_free(longer);
}

static void only_public_keys_cannot_be_written(void **state)
{
    size_t len;
    unsigned char *der =
        vectors_bytes(vectors_text(vectors_key(*state, "32x02"), "spki_der"), &len);
    const unsigned char *at = der;
    EVP_PKEY *key = d2i_PUBKEY(NULL, &at, (long)len);
    struct err err = ERR_INIT;
    struct secret *pem = NULL;

    assert_non_null(key);
    assert_int_equal(keys_to_pem(key, &pem, &err), -1);
    assert_null(pem);
    assert_int_equal(err.kind, ERR_CRYPTO);
    pki_assert_queue_empty();
    EVP_PKEY_free(key);
    free(der);
}

/* ---- comparing, paths ---- */

static void keys_are_compared_by_their_public_part(void **state)
{
    EVP_PKEY *one = vectors_derive(*state, "32x01");
    EVP_PKEY *same = vectors_derive(*state, "32x01");
    EVP_PKEY *two = vectors_derive(*state, "32x02");
    EVP_PKEY *opposite = vectors_derive(*state, "n-1"); /* same x as "one", other y */
    EVP_PKEY *scalar_one = vectors_derive(*state, "one");
    EVP_PKEY *rsa = pki_key_of("RSA", "2048");
    EVP_PKEY *p384 = pki_key_of("EC", "P-384");

    assert_true(keys_same(one, same));
    assert_false(keys_same(one, two));
    assert_false(keys_same(scalar_one, opposite));
    assert_false(keys_same(one, rsa));
    assert_false(keys_same(one, p384));
    assert_false(keys_same(one, NULL));
    pki_assert_queue_empty();
    EVP_PKEY_free(one);
    EVP_PKEY_free(same);
    EVP_PKEY_free(two);
    EVP_PKEY_free(opposite);
    EVP_PKEY_free(scalar_one);
    EVP_PKEY_free(rsa);
    EVP_PKEY_free(p384);
}

static void paths_are_those_of_the_python_service(void **state)
{
    char path[KEYS_PATH_SIZE];
    char domain[254];
    char version[65];

    (void)state;
    keys_tls_path(path, "peer.test", false);
    assert_string_equal(path, "cert/letsencrypt/peer.test/v1");
    keys_tls_path(path, "peer.test", true);
    assert_string_equal(path, "cert/debug/peer.test/v1");
    keys_account_path(path, "peer.test", "v1");
    assert_string_equal(path, "letsencrypt-account/peer.test/v1");
    assert_string_equal(KEYS_EKM_PATH, "ekm/hmac-key/v1");

    memset(domain, 'd', 253);
    domain[253] = '\0';
    memset(version, 'v', 64);
    version[64] = '\0';
    keys_account_path(path, domain, version);
    assert_int_equal(strlen(path), strlen("letsencrypt-account//") + 253 + 64);
    keys_tls_path(path, domain, false);
    assert_int_equal(strlen(path), strlen("cert/letsencrypt//v1") + 253);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_are_those_of_the_python_service),
        cmocka_unit_test(a_derived_key_passes_openssls_own_check),
        cmocka_unit_test(material_that_is_no_scalar_is_refused),
        cmocka_unit_test(development_uses_a_fixed_key),
        cmocka_unit_test(keys_of_any_type_are_read),
        cmocka_unit_test(traditional_pem_is_read),
        cmocka_unit_test(encrypted_keys_are_refused_without_a_question),
        cmocka_unit_test(files_that_are_no_single_key_are_refused),
        cmocka_unit_test(text_around_a_key_is_tolerated),
        cmocka_unit_test(a_public_key_that_is_not_the_private_ones_is_refused),
        cmocka_unit_test(large_files_are_refused_unread),
        cmocka_unit_test(zero_bytes_are_refused),
        cmocka_unit_test(only_public_keys_cannot_be_written),
        cmocka_unit_test(keys_are_compared_by_their_public_part),
        cmocka_unit_test(paths_are_those_of_the_python_service),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
