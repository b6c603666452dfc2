#include "app/wake.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { PATIENCE_MS = 20 * 1000 };

static char path[] = "/tmp/test_wake.XXXXXX";
static struct sockaddr_un address;

static int setup(void **state)
{
    (void)state;
    memcpy(path + strlen(path) - 6, "XXXXXX", 6);
    if (mkdtemp(path) == NULL)
        return -1;
    address = (struct sockaddr_un){.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s/socket", path);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unlink(address.sun_path);
    return rmdir(path);
}

static int bound_socket(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

/* Somebody connects, once, and says nothing. */
static void expect_one_connection(int listener)
{
    struct pollfd wait = {.fd = listener, .events = POLLIN};
    char byte;
    int fd;

    assert_int_equal(listen(listener, 5), 0);
    assert_int_equal(poll(&wait, 1, PATIENCE_MS), 1);
    fd = accept(listener, NULL, NULL);
    assert_true(fd >= 0);
    assert_int_equal(read(fd, &byte, 1), 0);
    close(fd);
}

static void test_connects_to_who_listens(void **state)
{
    struct err err = ERR_INIT;
    int listener = bound_socket();

    (void)state;
    assert_int_equal(listen(listener, 5), 0);
    assert_int_equal(wake_when_listening(address.sun_path, &err), 0);
    expect_one_connection(listener);
    close(listener);
}

/* Bound comes before listening: a connect in between is refused. */
static void test_waits_for_who_listens_later(void **state)
{
    struct err err = ERR_INIT;
    int listener;

    (void)state;
    assert_int_equal(wake_when_listening(address.sun_path, &err), 0);
    listener = bound_socket();
    expect_one_connection(listener);
    close(listener);
}

/* Of a life that was killed. */
static void test_removes_a_socket_that_nobody_listens_at(void **state)
{
    struct err err = ERR_INIT;
    int listener;

    (void)state;
    close(bound_socket());
    assert_int_equal(wake_when_listening(address.sun_path, &err), 0);
    assert_int_equal(access(address.sun_path, F_OK), -1);
    listener = bound_socket();
    expect_one_connection(listener);
    close(listener);
}

static void test_leaves_what_is_no_socket(void **state)
{
    struct err err = ERR_INIT;
    FILE *file = fopen(address.sun_path, "w");

    (void)state;
    assert_non_null(file);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(wake_when_listening(address.sun_path, &err), 0);
    assert_int_equal(access(address.sun_path, F_OK), 0);
}

static void test_leaves_no_child(void **state)
{
    struct err err = ERR_INIT;
    int listener = bound_socket();

    (void)state;
    assert_int_equal(listen(listener, 5), 0);
    assert_int_equal(wake_when_listening(address.sun_path, &err), 0);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    expect_one_connection(listener);
    close(listener);
}

static void test_path_that_is_too_long(void **state)
{
    struct err err = ERR_INIT;
    char longest[sizeof address.sun_path + 1];

    (void)state;
    memset(longest, 'x', sizeof longest - 1);
    longest[0] = '/';
    longest[sizeof longest - 1] = '\0';
    assert_int_equal(wake_when_listening(longest, &err), -1);
    assert_int_equal(err.kind, ERR_CONFIG);
    assert_non_null(strstr(err.message, "is too long for a socket: at most 107 bytes"));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_connects_to_who_listens),
        TEST(test_waits_for_who_listens_later),
        TEST(test_removes_a_socket_that_nobody_listens_at),
        TEST(test_leaves_what_is_no_socket),
        TEST(test_leaves_no_child),
        TEST(test_path_that_is_too_long),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
