#include "adapters/evidence_folder.h"

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

static char run_dir[] = "/tmp/test_evidence.XXXXXX";
static struct config config = {.run_dir = run_dir, .evidence = true};

static int setup(void **state)
{
    (void)state;
    umask(077);
    memcpy(run_dir + strlen(run_dir) - 6, "XXXXXX", 6);
    return mkdtemp(run_dir) == NULL ? -1 : 0;
}

static int teardown(void **state)
{
    struct err err = ERR_INIT;

    (void)state;
    return fs_remove_tree(run_dir, &err);
}

static const char *path_of(const char *name)
{
    static char path[FS_PATH_MAX];

    snprintf(path, sizeof path, "%s/%s", run_dir, name);
    return path;
}

static mode_t mode_of(const char *name)
{
    struct stat status;

    assert_int_equal(stat(path_of(name), &status), 0);
    return status.st_mode & 07777;
}

static void publish(const char *text)
{
    char folder[FS_PATH_MAX];
    struct err err = ERR_INIT;

    assert_int_equal(evidence_folder_prepare(&config, folder, &err), 0);
    assert_int_equal(evidence_folder_write(folder, "file", text, strlen(text), &err), 0);
    assert_int_equal(evidence_folder_publish(&config, folder, &err), 0);
}

static void expect_shown(const char *text)
{
    BUF_SCOPED shown = {0};
    struct err err = ERR_INIT;

    assert_int_equal(fs_read(path_of("evidences/file"), 64, &shown, &err), 0);
    assert_string_equal(buf_str(&shown), text);
}

static void what_is_prepared_is_not_shown(void **state)
{
    char folder[FS_PATH_MAX];
    struct err err = ERR_INIT;

    (void)state;
    publish("old");
    for (int i = 0; i < 2; i++) { /* the second time over what the first one has left */
        assert_int_equal(evidence_folder_prepare(&config, folder, &err), 0);
        assert_int_equal(
            evidence_folder_write(folder, i == 0 ? "more" : "file", "new", 3, &err), 0);
        expect_shown("old");
    }
    assert_int_equal(evidence_folder_publish(&config, folder, &err), 0);
    expect_shown("new");
    assert_false(fs_exists(path_of("evidences/more")));
}

static void the_former_folder_is_removed(void **state)
{
    (void)state;
    publish("1");
    assert_true(fs_exists(path_of("evidences-1")));
    publish("2");
    expect_shown("2");
    assert_false(fs_exists(path_of("evidences-1")));
    publish("3");
    expect_shown("3");
    assert_false(fs_exists(path_of("evidences-2")));
}

static void workers_of_nginx_can_read_it(void **state)
{
    (void)state;
    publish("text");
    assert_int_equal(mode_of("evidences"), 0755);
    assert_int_equal(mode_of("evidences/file"), 0644);
}

static void nothing_is_left_when_it_is_withdrawn(void **state)
{
    char folder[FS_PATH_MAX];
    struct err err = ERR_INIT;

    (void)state;
    assert_int_equal(evidence_folder_withdraw(&config, &err), 0);
    publish("text");
    assert_int_equal(evidence_folder_prepare(&config, folder, &err), 0);
    assert_int_equal(evidence_folder_withdraw(&config, &err), 0);
    assert_int_equal(rmdir(run_dir), 0);
    assert_int_equal(mkdir(run_dir, 0700), 0);
}

static void nginx_is_told_of_it_only_where_somebody_attests(void **state)
{
    struct config other = config;
    struct nginx_facts facts = {0};
    char path[FS_PATH_MAX];
    struct err err = ERR_INIT;

    (void)state;
    other.development = true;
    assert_int_equal(evidence_folder_for_nginx(&other, path, &facts, &err), 0);
    assert_null(facts.evidence);
    other = config;
    other.evidence = false;
    assert_int_equal(evidence_folder_for_nginx(&other, path, &facts, &err), 0);
    assert_null(facts.evidence);
    assert_int_equal(evidence_folder_for_nginx(&config, path, &facts, &err), 0);
    assert_string_equal(facts.evidence, path_of("evidences"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_prepared_is_not_shown, setup, teardown),
        cmocka_unit_test_setup_teardown(the_former_folder_is_removed, setup, teardown),
        cmocka_unit_test_setup_teardown(workers_of_nginx_can_read_it, setup, teardown),
        cmocka_unit_test_setup_teardown(nothing_is_left_when_it_is_withdrawn, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(nginx_is_told_of_it_only_where_somebody_attests,
                                        setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
