#include "base/fs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

/* Everything happens in a folder of the test's own, which is the working directory. */
static char folder[] = "/tmp/test_fs.XXXXXX";

static int setup(void **state)
{
    (void)state;
    umask(077);
    memcpy(folder + strlen(folder) - 6, "XXXXXX", 6);
    if (mkdtemp(folder) == NULL)
        return -1;
    return chdir(folder);
}

static int teardown(void **state)
{
    struct err err = ERR_INIT;

    (void)state;
    return chdir("/") < 0 || fs_remove_tree(folder, &err) < 0 ? -1 : 0;
}

static void write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

static void expect_file(const char *path, const char *text)
{
    struct err err = ERR_INIT;
    struct buf buf;

    assert_int_equal(fs_read(path, 1 << 20, &buf, &err), 0);
    assert_int_equal(buf.len, strlen(text));
    assert_string_equal(buf_str(&buf), text);
    buf_done(&buf);
}

static mode_t mode_of(const char *path)
{
    struct stat status;

    assert_int_equal(stat(path, &status), 0);
    return status.st_mode & 07777;
}

static int count_entries(const char *path)
{
    struct dirent *entry;
    DIR *dir = opendir(path);
    int count = -2; /* . and .. */

    assert_non_null(dir);
    while ((entry = readdir(dir)) != NULL)
        count++;
    closedir(dir);
    return count;
}

/*
 * Runs `body` in a process of its own, as an ordinary user, and returns what it
 * returns.
 */
static int as_ordinary_user(int (*body)(void))
{
    int status;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        if (geteuid() == 0 && (setgid(65534) < 0 || setuid(65534) < 0))
            _exit(99);
        _exit(body());
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

/* ---- paths ---- */

static void test_join(void **state)
{
    struct err err = ERR_INIT;
    char path[FS_PATH_MAX];
    char name[FS_PATH_MAX];

    (void)state;
    assert_int_equal(fs_join(path, "/a", "b", &err), 0);
    assert_string_equal(path, "/a/b");
    memset(name, 'x', sizeof name);
    name[FS_PATH_MAX - 4] = '\0';
    assert_int_equal(fs_join(path, "/a", name, &err), 0);
    assert_int_equal(strlen(path), FS_PATH_MAX - 1);
    name[FS_PATH_MAX - 4] = 'x';
    name[FS_PATH_MAX - 3] = '\0';
    assert_int_equal(fs_join(path, "/a", name, &err), -1);
    assert_int_equal(err.kind, ERR_CONFIG);
}

static void test_exists(void **state)
{
    (void)state;
    assert_false(fs_exists("a"));
    assert_int_equal(symlink("nowhere", "a"), 0);
    assert_true(fs_exists("a"));
    assert_true(fs_exists("."));
    assert_false(fs_exists("a/b"));
}

/* ---- reading ---- */

static void test_read(void **state)
{
    struct err err = ERR_INIT;
    struct buf buf;

    (void)state;
    write_file("a", "0123456789");
    assert_int_equal(symlink("a", "link"), 0);
    assert_int_equal(fs_read("link", 10, &buf, &err), 0);
    assert_string_equal(buf_str(&buf), "0123456789");
    buf_done(&buf);
    write_file("empty", "");
    assert_int_equal(fs_read("empty", 0, &buf, &err), 0);
    assert_string_equal(buf_str(&buf), "");
    buf_done(&buf);
    assert_int_equal(err.kind, ERR_NONE);
}

static void test_read_large(void **state)
{
    struct err err = ERR_INIT;
    struct buf buf;
    char *text = malloc(100001);

    (void)state;
    assert_non_null(text);
    memset(text, 'x', 100000);
    text[100000] = '\0';
    write_file("a", text);
    expect_file("a", text);
    assert_int_equal(fs_read("a", 99999, &buf, &err), -1);
    assert_int_equal(err.kind, ERR_CONFIG);
    assert_string_equal(err.message, "a: larger than the 99999 bytes allowed");
    assert_null(buf.data);
    free(text);
}

/* Files of the kernel say that they have no length. */
static void test_read_without_length(void **state)
{
    struct err err = ERR_INIT;
    struct buf buf;

    (void)state;
    assert_int_equal(fs_read("/proc/self/status", 65536, &buf, &err), 0);
    assert_true(buf.len > 10);
    buf_done(&buf);
    assert_int_equal(fs_read("/proc/self/status", 10, &buf, &err), -1);
    assert_string_equal(err.message, "/proc/self/status: more than 10 bytes");
    assert_null(buf.data);
}

static void test_read_missing(void **state)
{
    struct err err = ERR_INIT;
    struct buf buf;
    struct secret *secret;

    (void)state;
    assert_int_equal(fs_read("a", 10, &buf, &err), -1);
    assert_int_equal(err.kind, ERR_SYS);
    assert_int_equal(err.code, ENOENT);
    assert_string_equal(err.message, "a: No such file or directory");
    buf_done(&buf);
    assert_int_equal(fs_read_secret("a", 10, &secret, &err), -1);
    assert_int_equal(err.code, ENOENT);
}

static void test_read_refuses_what_is_no_file(void **state)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "socket"};
    struct err err = ERR_INIT;
    struct buf buf;
    struct secret *secret;
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    (void)state;
    assert_int_equal(mkfifo("fifo", 0600), 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    close(fd);
    alarm(10); /* a wait for the other end of the FIFO would be one for ever */
    assert_int_equal(fs_read("fifo", 10, &buf, &err), -1);
    assert_string_equal(err.message, "fifo: not a regular file");
    assert_int_equal(fs_read_secret("fifo", 10, &secret, &err), -1);
    assert_string_equal(err.message, "fifo: not a regular file");
    assert_int_equal(fs_read("/dev/zero", 10, &buf, &err), -1);
    assert_string_equal(err.message, "/dev/zero: not a regular file");
    assert_int_equal(fs_read(".", 10, &buf, &err), -1);
    assert_string_equal(err.message, ".: a folder, expected a regular file");
    assert_int_equal(fs_read("socket", 10, &buf, &err), -1);
    assert_string_equal(err.message, "socket: not a regular file");
    assert_int_equal(err.kind, ERR_CONFIG); /* and will be none later */
    alarm(0);
}

/* What somebody else writes may be longer than wanted, or a link to what we may read. */
static void test_read_head(void **state)
{
    struct err err = ERR_INIT;
    struct buf buf;

    (void)state;
    write_file("a", "0123456789");
    assert_int_equal(fs_read_head("a", 100, &buf, &err), 0);
    assert_string_equal(buf_str(&buf), "0123456789");
    buf_done(&buf);
    assert_int_equal(fs_read_head("a", 10, &buf, &err), 0);
    assert_string_equal(buf_str(&buf), "0123456789");
    buf_done(&buf);
    assert_int_equal(fs_read_head("a", 4, &buf, &err), 0);
    assert_string_equal(buf_str(&buf), "0123");
    buf_done(&buf);
    assert_int_equal(fs_read_head("a", 0, &buf, &err), 0);
    assert_string_equal(buf_str(&buf), "");
    buf_done(&buf);
    assert_int_equal(err.kind, ERR_NONE);
    assert_int_equal(symlink("a", "link"), 0);
    assert_int_equal(fs_read_head("link", 10, &buf, &err), -1);
    assert_int_equal(err.code, ELOOP);
    assert_null(buf.data);
    assert_int_equal(fs_read_head("nothing", 10, &buf, &err), -1);
    assert_int_equal(err.code, ENOENT);
    assert_int_equal(mkfifo("fifo", 0600), 0);
    assert_int_equal(fs_read_head("fifo", 10, &buf, &err), -1);
    assert_string_equal(err.message, "fifo: not a regular file");
}

static void test_read_head_of_much(void **state)
{
    struct err err = ERR_INIT;
    struct buf buf;

    (void)state;
    write_file("a", "start");
    assert_int_equal(truncate("a", 1 << 20), 0);
    assert_int_equal(fs_read_head("a", 10001, &buf, &err), 0);
    assert_int_equal(buf.len, 10001);
    assert_memory_equal(buf.data, "start", 6);
    buf_done(&buf);
}

static void test_read_secret(void **state)
{
    struct err err = ERR_INIT;
    struct secret *secret;

    (void)state;
    write_file("a", "0123456789");
    assert_int_equal(fs_read_secret("a", 10, &secret, &err), 0);
    assert_int_equal(secret->len, 10);
    assert_memory_equal(secret->bytes, "0123456789", 11);
    secret_free(secret);
    assert_int_equal(fs_read_secret("a", 9, &secret, &err), -1);
    assert_string_equal(err.message, "a: larger than the 9 bytes allowed");
    /* More comes out than the length said: part of a key is no key. */
    assert_int_equal(fs_read_secret("/proc/self/status", 65536, &secret, &err), -1);
    assert_string_equal(err.message, "/proc/self/status: changed while it was read");
}

/* ---- replacing ---- */

static void test_replace(void **state)
{
    struct err err = ERR_INIT;

    (void)state;
    assert_int_equal(fs_replace("a", "first", 5, 0644, &err), 0);
    expect_file("a", "first");
    assert_int_equal(mode_of("a"), 0644);
    assert_int_equal(fs_replace("a", "", 0, 0600, &err), 0);
    expect_file("a", "");
    assert_int_equal(mode_of("a"), 0600);
    umask(0);
    assert_int_equal(fs_replace("b", "x", 1, 0640, &err), 0);
    umask(077);
    assert_int_equal(mode_of("b"), 0640);
    assert_int_equal(count_entries("."), 2);
}

/* Who has the old file open goes on reading the old file. */
static void test_replace_leaves_open_file_alone(void **state)
{
    struct err err = ERR_INIT;
    char text[16] = "";
    int fd;

    (void)state;
    write_file("a", "old");
    fd = open("a", O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(fs_replace("a", "newer", 5, 0644, &err), 0);
    assert_int_equal(read(fd, text, sizeof text - 1), 3);
    assert_string_equal(text, "old");
    close(fd);
    expect_file("a", "newer");
}

/* A reader sees one content or the other, and always a file. */
static void test_replace_is_atomic(void **state)
{
    enum { SIZE = 40000, TIMES = 60 };
    static char texts[2][SIZE];
    int status = 0;
    pid_t pid;

    (void)state;
    memset(texts[0], 'a', SIZE);
    memset(texts[1], 'b', SIZE);
    write_file("a", "");
    assert_int_equal(truncate("a", 0), 0);
    struct err err = ERR_INIT;
    assert_int_equal(fs_replace("a", texts[0], SIZE, 0600, &err), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        int failed = 0;

        for (int i = 0; i < TIMES && failed == 0; i++)
            failed = fs_replace("a", texts[i % 2], SIZE, 0600, &err);
        _exit(failed == 0 ? 0 : 1);
    }
    do {
        struct buf buf;

        assert_int_equal(fs_read("a", SIZE, &buf, &err), 0);
        assert_int_equal(buf.len, SIZE);
        assert_memory_equal(buf.data, texts[buf.data[0] == 'b'], SIZE);
        buf_done(&buf);
    } while (waitpid(pid, &status, WNOHANG) == 0);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_int_equal(count_entries("."), 1);
}

static void test_replace_without_room(void **state)
{
    static char text[20000];
    struct rlimit before;
    struct rlimit small;
    struct err err = ERR_INIT;
    int result;

    (void)state;
    write_file("a", "old");
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    small.rlim_cur = 8192;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    result = fs_replace("a", text, sizeof text, 0644, &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    signal(SIGXFSZ, SIG_DFL);
    assert_int_equal(result, -1);
    assert_int_equal(err.kind, ERR_SYS);
    assert_int_equal(err.code, EFBIG);
    assert_string_equal(err.message, "a: cannot write: File too large");
    expect_file("a", "old");
    assert_int_equal(count_entries("."), 1);
}

static int replace_in_locked_folder(void)
{
    struct err err = ERR_INIT;

    if (fs_replace("locked/a", "new", 3, 0644, &err) == 0)
        return 1;
    if (err.kind != ERR_SYS || err.code != EACCES)
        return 2;
    return strcmp(err.message, "locked/a: cannot create: Permission denied") == 0 ? 0 : 3;
}

static void test_replace_in_read_only_folder(void **state)
{
    (void)state;
    assert_int_equal(chmod(".", 0755), 0);
    assert_int_equal(mkdir("locked", 0755), 0);
    write_file("locked/a", "old");
    assert_int_equal(chmod("locked", 0555), 0);
    assert_int_equal(as_ordinary_user(replace_in_locked_folder), 0);
    assert_int_equal(chmod("locked", 0755), 0);
    expect_file("locked/a", "old");
    assert_int_equal(count_entries("locked"), 1);
}

static void test_replace_of_a_folder(void **state)
{
    struct err err = ERR_INIT;

    (void)state;
    assert_int_equal(mkdir("a", 0700), 0);
    assert_int_equal(fs_replace("a", "x", 1, 0644, &err), -1);
    assert_string_equal(err.message, "a: cannot rename: Is a directory");
    assert_int_equal(count_entries("."), 1);
}

static void test_replace_in_missing_folder(void **state)
{
    struct err err = ERR_INIT;
    char path[FS_PATH_MAX + 10];

    (void)state;
    assert_int_equal(fs_replace("none/a", "x", 1, 0644, &err), -1);
    assert_int_equal(err.code, ENOENT);
    assert_string_equal(err.message, "none/a: cannot create: No such file or directory");
    memset(path, 'x', sizeof path - 1);
    path[sizeof path - 1] = '\0';
    assert_int_equal(fs_replace(path, "x", 1, 0644, &err), -1);
    assert_int_equal(err.kind, ERR_CONFIG);
}

/* A link in the place of the file is replaced itself: what it names stays untouched. */
static void test_replace_does_not_follow(void **state)
{
    struct err err = ERR_INIT;
    struct stat status;

    (void)state;
    write_file("victim", "old");
    assert_int_equal(symlink("victim", "a"), 0);
    assert_int_equal(fs_replace("a", "new", 3, 0644, &err), 0);
    assert_int_equal(lstat("a", &status), 0);
    assert_true(S_ISREG(status.st_mode));
    expect_file("victim", "old");
}

/* ---- renaming, removing ---- */

static void test_rename(void **state)
{
    struct err err = ERR_INIT;

    (void)state;
    assert_int_equal(mkdir("dir", 0700), 0);
    write_file("a", "a");
    write_file("dir/b", "b");
    assert_int_equal(fs_rename("a", "dir/b", &err), 0);
    assert_false(fs_exists("a"));
    expect_file("dir/b", "a");
    assert_int_equal(fs_rename("a", "dir/b", &err), -1);
    assert_int_equal(err.code, ENOENT);
    assert_string_equal(err.message,
                        "a: cannot rename to dir/b: No such file or directory");
}

static void test_remove(void **state)
{
    struct err err = ERR_INIT;

    (void)state;
    write_file("a", "a");
    assert_int_equal(symlink("a", "link"), 0);
    assert_int_equal(fs_remove("link", &err), 0);
    assert_true(fs_exists("a"));
    assert_int_equal(fs_remove("a", &err), 0);
    assert_false(fs_exists("a"));
    assert_int_equal(fs_remove("a", &err), 0);
    assert_int_equal(err.kind, ERR_NONE);
    assert_int_equal(fs_remove(".", &err), -1);
    assert_int_equal(err.kind, ERR_SYS);
}

static void test_remove_tree(void **state)
{
    struct err err = ERR_INIT;

    (void)state;
    assert_int_equal(mkdir("outside", 0700), 0);
    write_file("outside/kept", "kept");
    assert_int_equal(mkdir("tree", 0700), 0);
    assert_int_equal(mkdir("tree/a", 0700), 0);
    assert_int_equal(mkdir("tree/a/b", 0700), 0);
    write_file("tree/a/b/file", "x");
    write_file("tree/.hidden", "x");
    assert_int_equal(symlink("../outside", "tree/link"), 0);
    assert_int_equal(symlink("../../outside/kept", "tree/a/link"), 0);
    assert_int_equal(symlink("nowhere", "tree/dangling"), 0);
    assert_int_equal(mkfifo("tree/fifo", 0600), 0);
    assert_int_equal(fs_remove_tree("tree", &err), 0);
    assert_false(fs_exists("tree"));
    expect_file("outside/kept", "kept");
    assert_int_equal(fs_remove_tree("tree", &err), 0);
    /* Of a link, the link is removed, and so is a file in the tree's place. */
    assert_int_equal(symlink("outside", "tree"), 0);
    assert_int_equal(fs_remove_tree("tree", &err), 0);
    assert_false(fs_exists("tree"));
    expect_file("outside/kept", "kept");
    write_file("tree", "");
    assert_int_equal(fs_remove_tree("tree", &err), 0);
    assert_false(fs_exists("tree"));
}

static void test_remove_tree_is_bounded(void **state)
{
    struct err err = ERR_INIT;
    int fd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(mkdir("tree", 0700), 0);
    assert_int_equal(chdir("tree"), 0);
    for (int i = 0; i < 40; i++) {
        assert_int_equal(mkdir("d", 0700), 0);
        assert_int_equal(chdir("d"), 0);
    }
    assert_int_equal(fchdir(fd), 0);
    close(fd);
    assert_int_equal(fs_remove_tree("tree", &err), -1);
    assert_non_null(strstr(err.message, "more than 32 folders deep"));
    /* What is left can be removed from below. */
    for (int depth = 40; depth > 0; depth--) {
        char path[128] = "tree";

        for (int i = 0; i < depth; i++)
            memcpy(path + 4 + 2 * i, "/d", 3);
        assert_int_equal(rmdir(path), 0);
    }
    assert_int_equal(fs_remove_tree("tree", &err), 0);
}

/* ---- folders ---- */

/* SIGXFSZ comes in the middle of the write. */
static void be_killed_while_replacing(const char *path)
{
    const struct rlimit few = {.rlim_cur = 4, .rlim_max = 4};
    const struct rlimit none = {0};
    struct err err = ERR_INIT;
    pid_t pid = fork();
    int status;

    assert_true(pid >= 0);
    if (pid == 0) {
        setrlimit(RLIMIT_CORE, &none);
        setrlimit(RLIMIT_FSIZE, &few);
        signal(SIGXFSZ, SIG_DFL);
        fs_replace(path, "key material", 12, 0600, &err);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
}

static void test_remove_leftovers(void **state)
{
    const time_t now = time(NULL);
    struct err err = ERR_INIT;

    (void)state;
    write_file("key.pem", "old");
    write_file("key.pem.new-one", "of somebody else");
    assert_int_equal(mkdir("folder.new-abcdef", 0700), 0);
    be_killed_while_replacing("key.pem");
    expect_file("key.pem", "old");
    assert_int_equal(count_entries("."), 4);

    /* Somebody may still be at it. */
    assert_int_equal(fs_remove_leftovers(".", now - 60, &err), 0);
    assert_int_equal(count_entries("."), 4);

    assert_int_equal(fs_remove_leftovers(".", now + 60, &err), 0);
    assert_int_equal(count_entries("."), 3);
    expect_file("key.pem", "old");
    expect_file("key.pem.new-one", "of somebody else");
    assert_int_equal(fs_remove_leftovers("missing", now, &err), 0);
    assert_int_equal(fs_remove_leftovers("key.pem", now, &err), -1);
    assert_int_equal(err.code, ENOTDIR);
}

static void test_make_folder(void **state)
{
    struct err err = ERR_INIT;

    (void)state;
    assert_int_equal(fs_make_folder("a/b/c", 0750, &err), 0);
    assert_int_equal(mode_of("a"), 0755);
    assert_int_equal(mode_of("a/b"), 0755);
    assert_int_equal(mode_of("a/b/c"), 0750);
    assert_int_equal(fs_make_folder("a/b/c", 0700, &err), 0);
    assert_int_equal(mode_of("a/b/c"), 0700);
    assert_int_equal(chmod("a", 0711), 0);
    assert_int_equal(fs_make_folder("a/b/d/", 02775, &err), 0);
    assert_int_equal(mode_of("a"), 0711);
    assert_int_equal(mode_of("a/b/d"), 02775);
    assert_int_equal(fs_make_folder("/", mode_of("/"), &err), 0);
    write_file("file", "");
    assert_int_equal(fs_make_folder("file", 0700, &err), -1);
    assert_string_equal(err.message, "file: is not a folder");
    assert_int_equal(fs_make_folder("file/a", 0700, &err), -1);
    assert_int_equal(err.kind, ERR_SYS);
    assert_int_equal(symlink("nowhere", "dangling"), 0);
    assert_int_equal(fs_make_folder("dangling", 0700, &err), -1);
}

static void test_sync_folder(void **state)
{
    struct err err = ERR_INIT;

    (void)state;
    assert_int_equal(fs_sync_folder(".", &err), 0);
    assert_int_equal(fs_sync_folder("none", &err), -1);
    assert_int_equal(err.code, ENOENT);
    write_file("file", "");
    assert_int_equal(fs_sync_folder("file", &err), -1);
}

/* ---- lock ---- */

static int lock_is_taken(void)
{
    int fd = open("lock", O_RDWR | O_CLOEXEC);

    if (fd < 0)
        return 2;
    return flock(fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK;
}

static int in_child(int (*body)(void))
{
    int status;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0)
        _exit(body());
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void test_lock(void **state)
{
    struct err err = ERR_INIT;
    int fd = -1;

    (void)state;
    assert_int_equal(fs_lock("lock", &fd, &err), 0);
    assert_int_equal(mode_of("lock"), 0600);
    assert_int_equal(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    assert_int_equal(in_child(lock_is_taken), 1);
    close(fd);
    assert_int_equal(in_child(lock_is_taken), 0);
}

static void test_lock_now(void **state)
{
    struct err err = ERR_INIT;
    int fd = -1;
    int other = -1;

    (void)state;
    assert_int_equal(fs_lock("lock", &fd, &err), 0);
    assert_int_equal(fs_lock_now("lock", &other, &err), -1);
    assert_int_equal(err.code, EWOULDBLOCK);
    assert_int_equal(other, -1);
    close(fd);
    assert_int_equal(fs_lock_now("lock", &other, &err), 0);
    assert_int_equal(in_child(lock_is_taken), 1);
    close(other);
}

static void test_lock_of_a_folder(void **state)
{
    struct err err = ERR_INIT;
    int fd = -1;
    int other = -1;

    (void)state;
    assert_int_equal(mkdir("folder", 0500), 0);
    assert_int_equal(symlink("folder", "link"), 0);
    assert_int_equal(fs_lock_folder_now("folder", &fd, &err), 0);
    assert_int_equal(fs_lock_folder_now("link", &other, &err), -1);
    assert_int_equal(err.code, EWOULDBLOCK);
    close(fd);
    assert_int_equal(fs_lock_folder_now("link", &other, &err), 0);
    close(other);
    assert_int_equal(fs_lock_folder_now("missing", &other, &err), -1);
    assert_int_equal(err.code, ENOENT);
    assert_int_equal(unlink("link"), 0);
    assert_int_equal(rmdir("folder"), 0);
}

static int take_lock(void)
{
    struct err err = ERR_INIT;
    int fd;

    return fs_lock("lock", &fd, &err) == 0 ? 0 : 1;
}

/* The second waits until the first is done. */
static void test_lock_waits(void **state)
{
    static const struct timespec moment = {.tv_nsec = 100000000};
    struct err err = ERR_INIT;
    int fd = -1;
    int status;
    pid_t pid;

    (void)state;
    assert_int_equal(fs_lock("lock", &fd, &err), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        /* Its own copy of the descriptor would hold the lock too. */
        close(fd);
        _exit(take_lock());
    }
    nanosleep(&moment, NULL);
    assert_int_equal(waitpid(pid, &status, WNOHANG), 0);
    close(fd);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void test_lock_refuses_links(void **state)
{
    struct err err = ERR_INIT;
    int fd = -1;

    (void)state;
    write_file("file", "");
    assert_int_equal(symlink("file", "lock"), 0);
    assert_int_equal(fs_lock("lock", &fd, &err), -1);
    assert_int_equal(err.code, ELOOP);
    assert_int_equal(fs_lock("none/lock", &fd, &err), -1);
    assert_string_equal(err.message,
                        "none/lock: cannot open lock: No such file or directory");
    assert_int_equal(fd, -1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

static void test_replace_link(void **state)
{
    struct err err = ERR_INIT;
    char target[16];

    (void)state;
    for (int i = 0; i < 2; i++) {
        /* What a crash has left is in nobody's way. */
        assert_int_equal(symlink("nowhere", "link.new"), 0);
        assert_int_equal(fs_replace_link("link", i == 0 ? "a" : "b", &err), 0);
        assert_int_equal(readlink("link", target, sizeof target), 1);
        assert_int_equal(target[0], i == 0 ? 'a' : 'b');
        assert_false(fs_exists("link.new"));
    }
    assert_int_equal(mkdir("folder", 0700), 0);
    assert_int_equal(fs_replace_link("folder", "a", &err), -1);
    assert_int_equal(err.kind, ERR_SYS);
    assert_false(fs_exists("folder.new"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_join),
        TEST(test_exists),
        TEST(test_read),
        TEST(test_read_large),
        TEST(test_read_without_length),
        TEST(test_read_missing),
        TEST(test_read_refuses_what_is_no_file),
        TEST(test_read_head),
        TEST(test_read_head_of_much),
        TEST(test_read_secret),
        TEST(test_replace),
        TEST(test_replace_leaves_open_file_alone),
        TEST(test_replace_is_atomic),
        TEST(test_replace_without_room),
        TEST(test_replace_in_read_only_folder),
        TEST(test_replace_of_a_folder),
        TEST(test_replace_in_missing_folder),
        TEST(test_replace_does_not_follow),
        TEST(test_rename),
        TEST(test_remove),
        TEST(test_remove_tree),
        TEST(test_remove_tree_is_bounded),
        TEST(test_remove_leftovers),
        TEST(test_make_folder),
        TEST(test_sync_folder),
        TEST(test_lock),
        TEST(test_lock_now),
        TEST(test_lock_of_a_folder),
        TEST(test_lock_waits),
        TEST(test_lock_refuses_links),
        TEST(test_replace_link),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
