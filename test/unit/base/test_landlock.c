/* Each in a process of its own: there is no way back. */
#include "base/landlock.h"

#include "base/fs.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char root[] = "/tmp/test_landlock-XXXXXX";
static char open_folder[64];
static char closed_folder[64];
static char open_file[96]; /* in the closed folder */

static void touch(const char *folder, const char *name, char *ret, size_t size)
{
    snprintf(ret, size, "%s/%s", folder, name);
    close(open(ret, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
}

static int group_setup(void **state)
{
    char ignored[96];

    (void)state;
    if (mkdtemp(root) == NULL)
        return -1;
    snprintf(open_folder, sizeof open_folder, "%s/open", root);
    snprintf(closed_folder, sizeof closed_folder, "%s/closed", root);
    if (mkdir(open_folder, 0700) < 0 || mkdir(closed_folder, 0700) < 0)
        return -1;
    touch(closed_folder, "allowed", open_file, sizeof open_file);
    touch(closed_folder, "there", ignored, sizeof ignored);
    return 0;
}

static int group_teardown(void **state)
{
    struct err err = ERR_INIT;

    (void)state;
    return fs_remove_tree(root, &err);
}

/* 0 when all was as `look` expects it, else how many things were not. */
static int confined(int (*look)(void))
{
    int status = 0;
    pid_t pid;

    if (landlock_version() == 0)
        skip();
    pid = fork();
    if (pid == 0) {
        struct landlock rules;
        struct err err = ERR_INIT;

        if (landlock_begin(&rules, &err) < 0 ||
            landlock_allow(&rules, open_folder, &err) < 0 ||
            landlock_allow(&rules, open_file, &err) < 0 ||
            landlock_allow(&rules, "/nonexistent/folder", &err) < 0 ||
            prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
            landlock_confine(&rules, &err) < 0)
            _exit(255);
        _exit(look());
    }
    assert_true(pid > 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

/* 0, or the errno of making it. */
static int make_file(const char *folder)
{
    char path[FS_PATH_MAX];
    int fd;

    snprintf(path, sizeof path, "%s/new", folder);
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return errno;
    close(fd);
    return 0;
}

static int open_there(int flags)
{
    char path[FS_PATH_MAX];
    int fd;

    snprintf(path, sizeof path, "%s/there", closed_folder);
    fd = open(path, flags | O_CLOEXEC);
    if (fd < 0)
        return errno;
    close(fd);
    return 0;
}

static int look_in_the_closed_folder(void)
{
    char there[FS_PATH_MAX];
    char link_path[FS_PATH_MAX];

    snprintf(there, sizeof there, "%s/there", closed_folder);
    snprintf(link_path, sizeof link_path, "%s/new", closed_folder);
    return (make_file(closed_folder) != EACCES) + (open_there(O_WRONLY) != EACCES) +
           (open_there(O_RDONLY | O_TRUNC) == 0 && landlock_version() > 2) +
           (unlink(there) == 0 || errno != EACCES) +
           (mkdir(link_path, 0700) == 0 || errno != EACCES) +
           (symlink("there", link_path) == 0 || errno != EACCES) +
           (open_there(O_RDONLY) != 0);
}

static void nothing_else_is_changed_and_all_can_be_read(void **state)
{
    (void)state;
    assert_int_equal(confined(look_in_the_closed_folder), 0);
}

static int look_in_the_open_folder(void)
{
    char path[FS_PATH_MAX];
    char folder[FS_PATH_MAX];
    char moved[FS_PATH_MAX];
    struct err err = ERR_INIT;

    snprintf(path, sizeof path, "%s/file", open_folder);
    snprintf(folder, sizeof folder, "%s/folder", open_folder);
    snprintf(moved, sizeof moved, "%s/folder/file", open_folder);
    return (fs_replace(path, "x", 1, 0600, &err) < 0) + (mkdir(folder, 0700) < 0) +
           (rename(path, moved) < 0) + (mkfifo(path, 0600) < 0) + (unlink(path) < 0) +
           (unlink(moved) < 0) + (rmdir(folder) < 0) + (symlink("target", path) < 0);
}

static void all_goes_on_where_it_may(void **state)
{
    (void)state;
    assert_int_equal(confined(look_in_the_open_folder), 0);
}

static int look_at_a_single_file(void)
{
    int fd = open(open_file, O_WRONLY | O_CLOEXEC);

    return (fd < 0 || write(fd, "x", 1) != 1) + (unlink(open_file) == 0);
}

static void a_file_may_be_written_and_not_be_removed(void **state)
{
    (void)state;
    assert_int_equal(confined(look_at_a_single_file), 0);
}

/* What leads out of the open folder is judged by where it leads. */
static int look_through_a_link(void)
{
    char path[FS_PATH_MAX];
    char through[FS_PATH_MAX];

    snprintf(path, sizeof path, "%s/link", open_folder);
    snprintf(through, sizeof through, "%s/link", open_folder);
    return (symlink(closed_folder, path) < 0) + (make_file(through) != EACCES);
}

static void a_link_leads_nowhere_else(void **state)
{
    (void)state;
    assert_int_equal(confined(look_through_a_link), 0);
}

static int look_at_programs(void)
{
    char *const argv[] = {(char[]){"true"}, NULL};

    return execv("/bin/true", argv) == 0 || errno != EACCES;
}

static void no_program_is_run(void **state)
{
    (void)state;
    assert_int_equal(confined(look_at_programs), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_else_is_changed_and_all_can_be_read),
        cmocka_unit_test(all_goes_on_where_it_may),
        cmocka_unit_test(a_file_may_be_written_and_not_be_removed),
        cmocka_unit_test(a_link_leads_nowhere_else),
        cmocka_unit_test(no_program_is_run),
    };

    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
