#include "domain/keys.h"

#include "base/text.h"

#include <assert.h>
#include <errno.h>
#include <openssl/bio.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/obj_mac.h>
#include <openssl/param_build.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <string.h>

enum { POINT_BYTES = 1 + 2 * KEYS_MATERIAL_BYTES };

/* The public point of the scalar, uncompressed: what PKCS#8 and SPKI hold. */
static int public_point(const EC_GROUP *group, const BIGNUM *scalar,
                        unsigned char ret[POINT_BYTES], struct err *err)
{
    EC_POINT *point = EC_POINT_new(group);
    int failed = 0;

    if (point == NULL || EC_POINT_mul(group, point, scalar, NULL, NULL, NULL) != 1 ||
        EC_POINT_point2oct(group, point, POINT_CONVERSION_UNCOMPRESSED, ret, POINT_BYTES,
                           NULL) != POINT_BYTES)
        failed = err_openssl(err, "cannot compute the public key");
    EC_POINT_free(point);
    return failed;
}

static int assemble(const BIGNUM *scalar, const unsigned char point[POINT_BYTES],
                    EVP_PKEY **ret, struct err *err)
{
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(NULL, "EC", NULL);
    OSSL_PARAM_BLD *builder = OSSL_PARAM_BLD_new();
    OSSL_PARAM *params = NULL;
    EVP_PKEY *key = NULL;
    int failed = 0;

    if (builder != NULL &&
        OSSL_PARAM_BLD_push_utf8_string(builder, OSSL_PKEY_PARAM_GROUP_NAME,
                                        SN_X9_62_prime256v1, 0) == 1 &&
        OSSL_PARAM_BLD_push_octet_string(builder, OSSL_PKEY_PARAM_PUB_KEY, point,
                                         POINT_BYTES) == 1 &&
        OSSL_PARAM_BLD_push_BN(builder, OSSL_PKEY_PARAM_PRIV_KEY, scalar) == 1)
        params = OSSL_PARAM_BLD_to_param(builder);
    if (context == NULL || params == NULL || EVP_PKEY_fromdata_init(context) != 1 ||
        EVP_PKEY_fromdata(context, &key, EVP_PKEY_KEYPAIR, params) != 1)
        failed = err_openssl(err, "cannot make a P-256 key");
    else
        *ret = key;
    OSSL_PARAM_free(params); /* the scalar in it lies in the secure heap, wiped here */
    OSSL_PARAM_BLD_free(builder);
    EVP_PKEY_CTX_free(context);
    return failed;
}

/* `scalar` is a secure number of the caller's. */
static int derive(const struct secret *material, const EC_GROUP *group, BIGNUM *scalar,
                  EVP_PKEY **ret, struct err *err)
{
    unsigned char point[POINT_BYTES];

    if (group == NULL || scalar == NULL ||
        BN_bin2bn(material->bytes, KEYS_MATERIAL_BYTES, scalar) == NULL)
        return err_openssl(err, "cannot make a P-256 key");
    BN_set_flags(scalar, BN_FLG_CONSTTIME);
    if (BN_is_zero(scalar))
        return err_set(err, ERR_CRYPTO,
                       "key material is all zeros, which is no P-256 private key");
    if (BN_cmp(scalar, EC_GROUP_get0_order(group)) >= 0)
        return err_set(
            err, ERR_CRYPTO,
            "key material is not below the order of P-256, so it is no private "
            "key");
    if (public_point(group, scalar, point, err) < 0)
        return -1;
    return assemble(scalar, point, ret, err);
}

int keys_derive(const struct secret *material, EVP_PKEY **ret, struct err *err)
{
    EC_GROUP *group;
    BIGNUM *scalar;
    int failed;

    if (material->len != KEYS_MATERIAL_BYTES)
        return err_set(err, ERR_CRYPTO, "key material has %zu bytes, expected %d",
                       material->len, KEYS_MATERIAL_BYTES);
    group = EC_GROUP_new_by_curve_name(NID_X9_62_prime256v1);
    scalar = BN_secure_new();
    failed = derive(material, group, scalar, ret, err);
    BN_clear_free(scalar);
    EC_GROUP_free(group);
    ERR_clear_error();
    return failed;
}

struct secret *keys_development_material(void)
{
    struct secret *material = secret_new(KEYS_MATERIAL_BYTES);

    if (material != NULL)
        memset(material->bytes, 0x01, KEYS_MATERIAL_BYTES);
    return material;
}

int keys_to_pem(EVP_PKEY *key, struct secret **ret_pem, struct err *err)
{
    BIO *bio = BIO_new(BIO_s_secmem());
    const char *text;
    long len;
    int failed = 0;

    if (bio == NULL ||
        PEM_write_bio_PKCS8PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) != 1)
        failed = err_openssl(err, "cannot write the private key as PEM");
    else if ((len = BIO_get_mem_data(bio, &text)) <= 0 ||
             (*ret_pem = secret_copy(text, (size_t)len)) == NULL)
        failed = err_sys(err, ENOMEM, "private key: no secure memory left");
    BIO_free(bio);
    ERR_clear_error();
    return failed;
}

/* One PEM block in the secure heap. */
struct block {
    char *name;
    char *header;
    unsigned char *data;
    long len;
};

static void block_done(struct block *block)
{
    OPENSSL_secure_free(block->name);
    OPENSSL_secure_free(block->header);
    if (block->data != NULL)
        OPENSSL_secure_clear_free(block->data, (size_t)block->len);
    *block = (struct block){0};
}

/* 1 with a block, 0 at the end, -1 for a damaged one. */
static int block_read(BIO *bio, struct block *ret, struct err *err)
{
    if (PEM_read_bio_ex(bio, &ret->name, &ret->header, &ret->data, &ret->len,
                        PEM_FLAG_SECURE | PEM_FLAG_EAY_COMPATIBLE) == 1)
        return 1;
    if (ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE)
        return err_openssl(err, "private key: damaged PEM");
    ERR_clear_error();
    return 0;
}

/* Curve keys are cheap to check, and a private part that is not the public one's would
 * fail every handshake. */
static int check_pair(EVP_PKEY *key, struct err *err)
{
    EVP_PKEY_CTX *context;
    int failed = 0;

    if (!EVP_PKEY_is_a(key, "EC"))
        return 0;
    context = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL);
    if (context == NULL || EVP_PKEY_pairwise_check(context) != 1)
        failed = err_openssl(err,
                             "private key: its private and public part do not "
                             "belong together");
    EVP_PKEY_CTX_free(context);
    return failed;
}

static int decode(const struct block *block, EVP_PKEY **ret, struct err *err)
{
    const unsigned char *at = block->data;
    EVP_PKEY *key;

    if (strcmp(block->name, PEM_STRING_PKCS8) == 0 || strstr(block->header, "ENCRYPTED"))
        return err_set(
            err, ERR_CRYPTO,
            "private key: is encrypted, only keys without a pass phrase can be "
            "used");
    if (strcmp(block->name, PEM_STRING_PKCS8INF) != 0 &&
        strcmp(block->name, PEM_STRING_ECPRIVATEKEY) != 0 &&
        strcmp(block->name, PEM_STRING_RSA) != 0)
        return err_set(err, ERR_CRYPTO,
                       "private key: found a PEM block \"%.40s\", expected \"%s\"",
                       block->name, PEM_STRING_PKCS8INF);
    key = d2i_AutoPrivateKey(NULL, &at, block->len);
    if (key == NULL)
        return err_openssl(err, "private key: cannot be read");
    if (check_pair(key, err) < 0) {
        EVP_PKEY_free(key);
        return -1;
    }
    *ret = key;
    return 0;
}

static int read_single(BIO *bio, EVP_PKEY **ret, struct err *err)
{
    struct block block = {0};
    EVP_PKEY *key = NULL;
    int got;

    while ((got = block_read(bio, &block, err)) == 1) {
        /*
         * "openssl ecparam -genkey" puts the curve before the key, which names it
         * again.
         */
        if (strcmp(block.name, PEM_STRING_ECPARAMETERS) == 0)
            got = 0;
        else if (key != NULL)
            got = err_set(err, ERR_CRYPTO, "private key: more than one PEM block");
        else
            got = decode(&block, &key, err);
        block_done(&block);
        if (got < 0)
            break;
    }
    if (got == 0 && key == NULL)
        got = err_set(err, ERR_CRYPTO, "private key: no PEM block found");
    if (got < 0)
        EVP_PKEY_free(key);
    else
        *ret = key;
    return got;
}

int keys_from_pem(const struct secret *pem, EVP_PKEY **ret, struct err *err)
{
    BIO *bio;
    int failed;

    if (pem->len > KEYS_PEM_MAX_BYTES)
        return err_set(err, ERR_CRYPTO, "private key: %zu bytes, at most %d are allowed",
                       pem->len, KEYS_PEM_MAX_BYTES);
    if (memchr(pem->bytes, '\0', pem->len) != NULL)
        return err_set(err, ERR_CRYPTO, "private key: zero bytes in it, so it is no PEM");
    bio = BIO_new_mem_buf(pem->bytes, (int)pem->len);
    if (bio == NULL)
        return err_openssl(err, "private key: cannot be read");
    failed = read_single(bio, ret, err);
    BIO_free(bio);
    ERR_clear_error();
    return failed;
}

bool keys_same(const EVP_PKEY *a, const EVP_PKEY *b)
{
    bool same = EVP_PKEY_eq(a, b) == 1;

    ERR_clear_error(); /* keys of different types count as an error there */
    return same;
}

void keys_tls_path(char ret[KEYS_PATH_SIZE], const char *domain, bool development)
{
    int len = snprintf(ret, KEYS_PATH_SIZE, "cert/%s/%s/v1",
                       development ? "debug" : "letsencrypt", domain);

    assert(len > 0 && len < KEYS_PATH_SIZE);
    (void)len;
}

void keys_account_path(char ret[KEYS_PATH_SIZE], const char *domain, const char *version)
{
    int len = snprintf(ret, KEYS_PATH_SIZE, "letsencrypt-account/%s/%s", domain, version);

    assert(len > 0 && len < KEYS_PATH_SIZE);
    (void)len;
}

int keys_id(const EVP_PKEY *key, char ret[KEYS_ID_SIZE], struct err *err)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned char *der = NULL;
    int len = i2d_PUBKEY(key, &der);
    int hashed =
        len <= 0 ? 0 : EVP_Digest(der, (size_t)len, digest, NULL, EVP_sha256(), NULL);

    OPENSSL_free(der);
    if (hashed != 1)
        return err_openssl(err, "cannot name a key");
    text_hex(ret, digest, (KEYS_ID_SIZE - 1) / 2);
    return 0;
}
