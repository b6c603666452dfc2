#include "adapters/live_chain.h"

#include "base/fs.h"

#include "support/pki.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct fixture {
    char folder[64];
    struct config config;
    EVP_PKEY *key;
    char path[FS_PATH_MAX];
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    struct err err = ERR_INIT;

    assert_non_null(f);
    snprintf(f->folder, sizeof f->folder, "/tmp/test-live-chain-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    f->config.run_dir = f->folder;
    f->key = pki_key();
    assert_int_equal(live_chain_path(&f->config, f->key, f->path, &err), 0);
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

static struct buf text(const char *literal)
{
    union {
        const char *in;
        unsigned char *out;
    } writable = {.in = literal};

    return (struct buf){.data = writable.out, .len = strlen(literal)};
}

static void each_key_has_a_file_of_its_own(void **state)
{
    struct fixture *f = *state;
    EVP_PKEY *other = pki_key();
    char again[FS_PATH_MAX];
    char path[FS_PATH_MAX];
    struct err err = ERR_INIT;

    assert_int_equal(live_chain_path(&f->config, f->key, again, &err), 0);
    assert_string_equal(again, f->path);
    assert_int_equal(live_chain_path(&f->config, other, path, &err), 0);
    assert_string_not_equal(path, f->path);
    assert_ptr_equal(strstr(path, f->folder), path);
    EVP_PKEY_free(other);
}

static void a_staged_chain_is_live_when_it_is_switched(void **state)
{
    struct fixture *f = *state;
    const struct buf first = text("first\n");
    const struct buf second = text("second\n");
    struct stat before;
    struct stat after;
    struct err err = ERR_INIT;

    assert_int_equal(live_chain_stage(f->path, &first, &err), 0);
    assert_false(fs_exists(f->path));
    assert_int_equal(live_chain_switch(f->path, &err), 0);
    assert_true(live_chain_is(f->path, &first));
    assert_int_equal(stat(f->path, &before), 0);
    assert_int_equal(before.st_mode & 07777, 0644);

    assert_int_equal(live_chain_stage(f->path, &second, &err), 0);
    assert_true(live_chain_is(f->path, &first));
    assert_int_equal(live_chain_switch(f->path, &err), 0);
    assert_true(live_chain_is(f->path, &second));
    assert_int_equal(stat(f->path, &after), 0);
    assert_int_not_equal(before.st_ino, after.st_ino);
}

static void a_switch_without_a_staged_chain_fails_and_names_it(void **state)
{
    struct fixture *f = *state;
    struct err err = ERR_INIT;

    assert_int_equal(live_chain_switch(f->path, &err), -1);
    assert_int_equal(err.kind, ERR_SYS);
    assert_non_null(strstr(err.message, f->path));
    assert_false(live_chain_is(f->path, &(struct buf){.len = 0}));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(each_key_has_a_file_of_its_own, setup, teardown),
        cmocka_unit_test_setup_teardown(a_staged_chain_is_live_when_it_is_switched, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(
            a_switch_without_a_staged_chain_fails_and_names_it, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
