/* The remembered accounts on the volume: what cannot be read counts as none, and costs no order. */
#include "adapters/account_memory.h"

#include "base/fs.h"
#include "support/pki.h"
#include "support/program.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define URL "https://ca.test/account/7"

struct fixture {
    char folder[64];
    char tls[96];
    char path[160]; /* of the memory */
    struct config config;
    struct store store;
    EVP_PKEY *key;
    struct account_owner owner;
    struct account account;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    struct err err = ERR_INIT;

    assert_non_null(f);
    snprintf(f->folder, sizeof f->folder, "/tmp/test-account-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    snprintf(f->tls, sizeof f->tls, "%s/tls", f->folder);
    snprintf(f->path, sizeof f->path, "%s/.cert-manager/account.json", f->tls);
    f->config.tls.dir = f->tls;
    f->config.run_dir = f->folder;
    assert_int_equal(store_init(&f->store, &f->config, &err), 0);
    assert_int_equal(fs_make_folder(f->tls, 0755, &err), 0);
    assert_int_equal(fs_make_folder(f->store.state, 0700, &err), 0);
    f->key = pki_key();
    f->owner = (struct account_owner){.directory = "https://ca.test/dir",
                                      .version = "v1",
                                      .thumbprint = "abc",
                                      .seal_key = f->key};
    f->account = (struct account){.url = URL, .caa_identity = "ca.test"};
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    struct err err = ERR_INIT;

    EVP_PKEY_free(f->key);
    assert_int_equal(fs_remove_tree(f->folder, &err), 0);
    free(f);
    return 0;
}

static void save(const struct fixture *f)
{
    struct err err = ERR_INIT;

    if (account_memory_save(&f->store, &f->owner, &f->account, &err) < 0)
        fail_msg("%s", err.message);
}

static void expect_remembered(const struct fixture *f, const char *url)
{
    struct account found;

    memset(&found, 0xa5, sizeof found);
    account_memory_load(&f->store, &f->owner, &found);
    assert_string_equal(found.url, url);
    assert_string_equal(found.caa_identity, url[0] == '\0' ? "" : "ca.test");
    assert_false(found.deactivated);
}

static void what_was_saved_is_found_by_its_owner_alone(void **state)
{
    struct fixture *f = *state;

    expect_remembered(f, "");
    save(f);
    expect_remembered(f, URL);
    f->owner.version = "v2";
    expect_remembered(f, "");
}

static void what_is_forgotten_is_gone_and_may_be_forgotten_again(void **state)
{
    struct fixture *f = *state;

    save(f);
    account_memory_forget(&f->store);
    assert_false(fs_exists(f->path));
    account_memory_forget(&f->store);
    expect_remembered(f, "");
}

static void a_damaged_memory_counts_as_none_and_is_replaced(void **state)
{
    static const char half[] = "{\"accounts\": [";
    struct fixture *f = *state;
    struct err err = ERR_INIT;

    assert_int_equal(fs_replace(f->path, half, sizeof half - 1, 0600, &err), 0);
    expect_remembered(f, "");
    save(f);
    expect_remembered(f, URL);
}

static void a_memory_larger_than_any_of_ours_counts_as_none(void **state)
{
    struct fixture *f = *state;
    struct err err = ERR_INIT;

    assert_int_equal(fs_replace(f->path, "", 0, 0600, &err), 0);
    assert_int_equal(truncate(f->path, ACCOUNT_MEMORY_MAX_BYTES + 1), 0);
    expect_remembered(f, "");
    save(f);
    expect_remembered(f, URL);
}

/* A hostile volume: nothing of it is followed, waited for or removed with what is in it. */
static void what_is_no_file_counts_as_none(void **state)
{
    struct fixture *f = *state;
    struct err err = ERR_INIT;
    char inner[192];

    assert_int_equal(mkfifo(f->path, 0600), 0);
    expect_remembered(f, "");
    assert_int_equal(unlink(f->path), 0);
    snprintf(inner, sizeof inner, "%s/inner", f->path);
    assert_int_equal(fs_make_folder(inner, 0700, &err), 0);
    expect_remembered(f, "");
    account_memory_forget(&f->store);
    assert_true(fs_exists(inner));
    assert_int_equal(account_memory_save(&f->store, &f->owner, &f->account, &err), -1);
    assert_int_equal(err.kind, ERR_SYS);
    assert_non_null(strstr(err.message, "account.json"));
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_was_saved_is_found_by_its_owner_alone),
        TEST(what_is_forgotten_is_gone_and_may_be_forgotten_again),
        TEST(a_damaged_memory_counts_as_none_and_is_replaced),
        TEST(a_memory_larger_than_any_of_ours_counts_as_none),
        TEST(what_is_no_file_counts_as_none),
    };
    return cmocka_run_group_tests(tests, program_setup, NULL);
}
