#include "adapters/trust.h"

#include "base/fs.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdbool.h>

enum { FILE_MAX_BYTES = 1024 * 1024 };

static int add_next(X509_STORE *store, BIO *bio, bool *ret_more, const char *path,
                    struct err *err)
{
    X509 *root = PEM_read_bio_X509(bio, NULL, NULL, NULL);
    int added;

    *ret_more = root != NULL;
    if (root == NULL && ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE) {
        ERR_clear_error(); /* the end of the file */
        return 0;
    }
    added = root == NULL ? 0 : X509_STORE_add_cert(store, root);
    X509_free(root);
    return added == 1 ? 0 : err_openssl(err, "%s: cannot be read as certificates", path);
}

static int add_file(X509_STORE *store, const char *path, struct err *err)
{
    BUF_SCOPED pem = {0};
    BIO *bio;
    bool more = true;
    int failed = 0;
    int count = -1; /* the end is read, too */

    if (fs_read(path, FILE_MAX_BYTES, &pem, err) < 0)
        return -1;
    bio = BIO_new_mem_buf(buf_str(&pem), (int)pem.len);
    if (bio == NULL)
        return err_openssl(err, "%s: cannot be read", path);
    for (; failed == 0 && more; count++)
        failed = add_next(store, bio, &more, path, err);
    BIO_free(bio);
    if (failed == 0 && count == 0)
        return err_set(err, ERR_CONFIG, "%s: no certificate in PEM form found", path);
    return failed;
}

/* The hashed folder: the file with all of them would be parsed as a whole, which takes 20 ms. */
static int add_system(X509_STORE *store, struct err *err)
{
    X509_LOOKUP *lookup = X509_STORE_add_lookup(store, X509_LOOKUP_hash_dir());

    if (lookup == NULL || X509_LOOKUP_add_dir(lookup, NULL, X509_FILETYPE_DEFAULT) != 1)
        return err_openssl(err, "the system's trusted roots cannot be used");
    return 0;
}

int trust_load(const char *path, X509_STORE **ret, struct err *err)
{
    X509_STORE *store = X509_STORE_new();
    int failed;

    ERR_clear_error();
    if (store == NULL)
        failed = err_openssl(err, "cannot keep trusted roots");
    else
        failed = path != NULL ? add_file(store, path, err) : add_system(store, err);
    if (failed == 0)
        *ret = store;
    else
        X509_STORE_free(store);
    ERR_clear_error();
    return failed;
}
