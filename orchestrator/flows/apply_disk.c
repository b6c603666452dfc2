/* How far the disk has what is to be served with, or was before: both ways of the apply flow ask. */
#include "flows/apply_internal.h"

#include "base/fs.h"
#include "domain/keys.h"

#include <openssl/crypto.h>
#include <string.h>

/* A file that cannot be read as a key is another one. */
static int compare_key(const struct store *store, const EVP_PKEY *key, bool *ret_differs,
                       struct err *err)
{
    SECRET_SCOPED pem = NULL;
    struct err unusable = ERR_INIT;
    EVP_PKEY *stored = NULL;

    *ret_differs = true;
    if (store_load_key(store, &pem, &unusable) < 0)
        return unusable.kind == ERR_SYS ? (*err = unusable, -1) : 0;
    if (pem == NULL || keys_from_pem(pem, &stored, &unusable) < 0)
        return 0;
    *ret_differs = !keys_same(stored, key);
    EVP_PKEY_free(stored);
    return 0;
}

/* In canonical form: another writer's line breaks are no reason to write again. */
static int compare_chain(const struct store *store, const struct buf *chain_pem,
                         bool *ret_differs, struct err *err)
{
    BUF_SCOPED file = {0};
    BUF_SCOPED canonical = {.max = CHAIN_PEM_MAX_BYTES};
    struct err unusable = ERR_INIT;
    struct chain *stored = NULL;

    *ret_differs = true;
    if (store_load_chain(store, &file, &unusable) < 0)
        return unusable.kind == ERR_SYS ? (*err = unusable, -1) : 0;
    if (chain_parse(file.data, file.len, &stored, &unusable) == 0 &&
        chain_to_pem(stored, &canonical, &unusable) == 0)
        *ret_differs = strcmp(buf_str(&canonical), buf_str(chain_pem)) != 0;
    chain_free(stored);
    return 0;
}

static int compare_secret(const struct config *config, const struct secret *secret,
                          bool *ret_differs, struct err *err)
{
    SECRET_SCOPED stored = NULL;
    char path[FS_PATH_MAX];
    struct err missing = ERR_INIT;

    if (nginx_secret_path(config, path, err) < 0)
        return -1;
    *ret_differs = fs_read_secret(path, secret->len, &stored, &missing) < 0 ||
                   stored->len != secret->len ||
                   CRYPTO_memcmp(stored->bytes, secret->bytes, secret->len) != 0;
    return 0;
}

int apply_compare_disk(const struct apply_request *request, const struct serving *serving,
                       const struct buf *chain_pem, struct apply_stale *ret,
                       struct err *err)
{
    return compare_chain(request->store, chain_pem, &ret->chain, err) < 0 ||
                   compare_key(request->store, serving->key, &ret->key, err) < 0
               ? -1
               : compare_secret(request->config, serving->ekm_secret, &ret->secret, err);
}
