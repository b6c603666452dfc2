#include "adapters/trust.h"

#include "domain/chain.h"
#include "support/pki.h"

#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct fixture {
    char folder[32];
    char path[64];
    struct pki_chain pki;
};

static int setup(void **state)
{
    static const struct pki_spec spec = {.common_name = "peer.test"};
    struct fixture *f = calloc(1, sizeof *f);

    assert_non_null(f);
    strcpy(f->folder, "/tmp/trust-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    snprintf(f->path, sizeof f->path, "%s/roots.pem", f->folder);
    pki_chain_init(&f->pki, &spec);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    unlink(f->path);
    rmdir(f->folder);
    pki_chain_done(&f->pki);
    free(f);
    return 0;
}

/* Consumes the text. */
static void put(const struct fixture *f, char *text)
{
    FILE *file = fopen(f->path, "w");

    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
    free(text);
}

static int number_of_roots(X509_STORE *store)
{
    return sk_X509_OBJECT_num(X509_STORE_get0_objects(store));
}

static void expect_refused(const struct fixture *f, enum err_kind kind, const char *says)
{
    X509_STORE *store = NULL;
    struct err err = ERR_INIT;

    assert_int_equal(trust_load(f->path, &store, &err), -1);
    assert_null(store);
    assert_int_equal(err.kind, kind);
    assert_non_null(strstr(err.message, f->path));
    assert_non_null(strstr(err.message, says));
    pki_assert_queue_empty();
}

static void all_certificates_of_the_file_are_trusted(void **state)
{
    struct fixture *f = *state;
    X509_STORE *store = NULL;
    struct err err = ERR_INIT;

    put(f, pki_pem(f->pki.root, f->pki.intermediate, f->pki.root, NULL));
    assert_int_equal(trust_load(f->path, &store, &err), 0);
    assert_int_equal(number_of_roots(store), 2);
    pki_assert_queue_empty();
    X509_STORE_free(store);
}

static void a_file_without_certificates_is_refused(void **state)
{
    struct fixture *f = *state;

    expect_refused(f, ERR_SYS, "No such file");
    put(f, strdup(""));
    expect_refused(f, ERR_CONFIG, "no certificate in PEM form");
    put(f, strdup("roots\n"));
    expect_refused(f, ERR_CONFIG, "no certificate in PEM form");
}

static void a_damaged_file_is_refused_as_a_whole(void **state)
{
    struct fixture *f = *state;
    char *pem = pki_pem(f->pki.root, f->pki.intermediate, NULL);

    pem[strlen(pem) - 60] = '*';
    put(f, pem);
    expect_refused(f, ERR_CRYPTO, "cannot be read as certificates");
}

/* By the hash of its name, as update-ca-certificates(8) leaves it there. */
static void the_roots_of_the_system_are_read_when_they_are_needed(void **state)
{
    struct fixture *f = *state;
    char *pem = pki_pem(f->pki.leaf, f->pki.intermediate, NULL);
    struct chain *chain = NULL;
    X509_STORE *store = NULL;
    struct err err = ERR_INIT;

    assert_int_equal(chain_parse(pem, strlen(pem), &chain, &err), 0);
    assert_int_equal(setenv("SSL_CERT_DIR", f->folder, 1), 0);
    assert_int_equal(trust_load(NULL, &store, &err), 0);
    assert_int_equal(chain_check_trusted(chain, store, PKI_NOW, &err), -1);
    snprintf(f->path, sizeof f->path, "%s/%08lx.0", f->folder,
             X509_NAME_hash_ex(X509_get_subject_name(f->pki.root), NULL, NULL, NULL));
    put(f, pki_pem(f->pki.root, NULL));
    assert_int_equal(chain_check_trusted(chain, store, PKI_NOW, &err), 0);
    assert_int_equal(unsetenv("SSL_CERT_DIR"), 0);
    pki_assert_queue_empty();
    X509_STORE_free(store);
    chain_free(chain);
    free(pem);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(all_certificates_of_the_file_are_trusted),
        TEST(a_file_without_certificates_is_refused),
        TEST(a_damaged_file_is_refused_as_a_whole),
        TEST(the_roots_of_the_system_are_read_when_they_are_needed),
    };
#undef TEST

    return cmocka_run_group_tests(tests, NULL, NULL);
}
