#include "adapters/renewal_file.h"

#include "base/secret.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LEAF "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define OTHER "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210"

static char folder[] = "/tmp/test_renewal.XXXXXX";
static struct config config = {.run_dir = folder, .tls = {.dir = folder}};
static struct store store;

static int setup(void **state)
{
    struct err err = ERR_INIT;

    (void)state;
    json_set_alloc_funcs(wipe_malloc, wipe_free);
    memcpy(folder + strlen(folder) - 6, "XXXXXX", 6);
    return mkdtemp(folder) == NULL ? -1 : store_init(&store, &config, &err);
}

static int teardown(void **state)
{
    struct err err = ERR_INIT;

    (void)state;
    return fs_remove_tree(folder, &err);
}

static void save(void)
{
    const struct renewal_record record = {
        .leaf = LEAF,
        .spread = 77,
        .info = {.window = {.start = 5, .end = 6}},
    };
    struct err err = ERR_INIT;

    assert_int_equal(renewal_file_save(&store, &record, &err), 0);
}

static void a_record_is_that_of_one_leaf(void **state)
{
    struct renewal_record record;

    (void)state;
    assert_false(renewal_file_load(&store, LEAF, &record));
    save();
    assert_true(renewal_file_load(&store, LEAF, &record));
    assert_int_equal(record.spread, 77);
    assert_int_equal(record.info.window.end, 6);
    assert_false(renewal_file_load(&store, OTHER, &record));
}

static void a_damaged_record_counts_as_none_and_is_replaced(void **state)
{
    struct renewal_record record;
    struct err err = ERR_INIT;

    (void)state;
    save();
    assert_int_equal(store_write_state(&store, RENEWAL_RECORD, "{\"version\":1", &err),
                     0);
    assert_false(renewal_file_load(&store, LEAF, &record));
    assert_string_equal(record.leaf, "");
    save();
    assert_true(renewal_file_load(&store, LEAF, &record));
}

static void a_record_that_cannot_be_kept_is_an_error(void **state)
{
    const struct renewal_record record = {.leaf = LEAF};
    struct err err = ERR_INIT;

    (void)state;
    save();
    assert_int_equal(fs_remove_tree(store.state, &err), 0);
    assert_int_equal(fs_replace(store.state, "", 0, 0600, &err), 0); /* no folder */
    assert_int_equal(renewal_file_save(&store, &record, &err), -1);
    assert_true(err.message[0] != '\0');
}

#define file_test(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        file_test(a_record_is_that_of_one_leaf),
        file_test(a_damaged_record_counts_as_none_and_is_replaced),
        file_test(a_record_that_cannot_be_kept_is_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
