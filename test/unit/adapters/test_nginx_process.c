#include "support/nginx_fixture.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- the master ---- */

/* A child that bears a name, in the process group of that number (0: one of its own). It
 * exits with the number of the signal when it gets SIGHUP or SIGQUIT. */
static pid_t fork_named(const char *name, pid_t group)
{
    int ready[2];
    char byte;
    pid_t child;

    assert_int_equal(pipe(ready), 0);
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        sigset_t signals;
        int got = 0;

        sigemptyset(&signals);
        sigaddset(&signals, SIGHUP);
        sigaddset(&signals, SIGQUIT);
        sigprocmask(SIG_BLOCK, &signals, NULL);
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && setpgid(0, group) == 0 &&
            prctl(PR_SET_NAME, name) == 0 && write(ready[1], "", 1) == 1)
            sigwait(&signals, &got);
        _exit(got);
    }
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    return child;
}

static void start_child(struct nginx_fixture *f, const char *name)
{
    f->child = fork_named(name, 0);
}

/* The number of the signal that one of them has got, or -1 when it was killed. */
static int ended_with(pid_t child)
{
    int status;

    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void write_pid(const struct nginx_fixture *f, pid_t pid)
{
    char content[32];

    snprintf(content, sizeof content, "%d\n", (int)pid);
    fixture_write(f->pid_file, content);
}

static void no_pid_file_is_no_master(void **state)
{
    const struct nginx_fixture *f = *state;

    assert_int_equal(nginx_master(&f->config), 0);
    fixture_make_folder(f->pid_file);
    assert_int_equal(nginx_master(&f->config), 0);
}

static void a_pid_file_without_a_pid_is_no_master(void **state)
{
    static const char *const contents[] = {
        "",     "\n",           "nginx\n",
        "0\n",  "1\n",          "-1\n",
        "-2\n", "4294967298\n", "99999999999999999999999\n"};
    const struct nginx_fixture *f = *state;

    for (size_t i = 0; i < sizeof contents / sizeof contents[0]; i++) {
        fixture_write(f->pid_file, contents[i]);
        assert_int_equal(nginx_master(&f->config), 0);
    }
}

static void a_pid_of_before_is_no_master(void **state)
{
    struct nginx_fixture *f = *state;

    start_child(f, "nginx");
    write_pid(f, f->child);
    assert_int_equal(nginx_master(&f->config), f->child);
    fixture_end_child(f);
    assert_int_equal(nginx_master(&f->config), 0);
}

static void a_pid_of_another_program_is_no_master(void **state)
{
    static const char *const names[] = {"nginx2",         "ngin",    "cert-manager", "",
                                        "nginx) S 1 2 (", "(nginx)", "nginx) x"};
    struct nginx_fixture *f = *state;

    write_pid(f, getpid());
    assert_int_equal(nginx_master(&f->config), 0);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        start_child(f, names[i]);
        write_pid(f, f->child);
        assert_int_equal(nginx_master(&f->config), 0);
        fixture_end_child(f);
    }
}

/* The kernel keeps 15 characters of it. */
static void a_long_program_name_is_known(void **state)
{
    struct nginx_fixture *f = *state;

    f->config.nginx.path = fixture_text("/opt/a-long-name-of-nginx");
    start_child(f, "a-long-name-of-nginx");
    write_pid(f, f->child);
    assert_int_equal(nginx_master(&f->config), f->child);
    f->config.nginx.path = fixture_text("a-long-name-of-another");
    assert_int_equal(nginx_master(&f->config), f->child);
    f->config.nginx.path = fixture_text("another");
    assert_int_equal(nginx_master(&f->config), 0);
}

static void a_reload_is_a_hangup_for_the_master(void **state)
{
    struct nginx_fixture *f = *state;
    struct err err = ERR_INIT;

    assert_int_equal(nginx_ask_reload(&f->config, &err), -1);
    assert_int_equal(err.kind, ERR_SYS);
    assert_non_null(strstr(err.message, "nginx is not running"));
    assert_non_null(strstr(err.message, f->pid_file));
    start_child(f, "nginx");
    write_pid(f, f->child);
    assert_int_equal(nginx_ask_reload(&f->config, &err), 0);
    assert_int_equal(ended_with(f->child), SIGHUP);
    f->child = 0;
}

/* A master that has ended and was not waited for yet cannot be told anything. */
static void a_dead_process_is_no_master(void **state)
{
    struct nginx_fixture *f = *state;
    siginfo_t ended;

    start_child(f, "nginx");
    write_pid(f, f->child);
    kill(f->child, SIGKILL);
    assert_int_equal(waitid(P_PID, (id_t)f->child, &ended, WEXITED | WNOWAIT), 0);
    assert_int_equal(nginx_master(&f->config), 0);
}

/* Workers are in the group of their master, and keep its ports when it is killed. */
static void workers_without_master_are_told_to_quit(void **state)
{
    struct nginx_fixture *f = *state;
    pid_t workers[2];
    pid_t stranger;
    pid_t other_group;

    /* A name of its own: whatever goes wrong, no other nginx of this machine is told. */
    f->config.nginx.path = fixture_text("/opt/test-of-orphans");
    start_child(f, "test-of-orphans");
    write_pid(f, f->child);
    for (int i = 0; i < 2; i++)
        workers[i] = fork_named("test-of-orphans", f->child);
    stranger = fork_named("other", f->child);
    other_group = fork_named("test-of-orphans", 0);
    assert_int_equal(nginx_end_orphans(&f->config), 0);
    fixture_end_child(f);
    assert_int_equal(nginx_end_orphans(&f->config), 2);
    for (int i = 0; i < 2; i++)
        assert_int_equal(ended_with(workers[i]), SIGQUIT);
    assert_int_equal(nginx_end_orphans(&f->config), 0);
    kill(stranger, SIGKILL);
    kill(other_group, SIGKILL);
    assert_int_equal(ended_with(stranger), -1);
    assert_int_equal(ended_with(other_group), -1);
    assert_int_equal(unlink(f->pid_file), 0);
    assert_int_equal(nginx_end_orphans(&f->config), 0);
}

static void set_time(const char *path, time_t seconds)
{
    const struct timespec times[] = {{.tv_sec = seconds}, {.tv_sec = seconds}};

    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
}

static void a_site_that_came_after_the_start_is_unread(void **state)
{
    struct nginx_fixture *f = *state;

    assert_true(nginx_has_read_site(&f->config)); /* nginx reads it when it starts */
    start_child(f, "nginx");
    write_pid(f, f->child);
    assert_false(nginx_has_read_site(&f->config));
    fixture_write(f->site, "");
    set_time(f->pid_file, 1000);
    set_time(f->site, 999);
    assert_true(nginx_has_read_site(&f->config));
    set_time(f->site, 1000);
    assert_false(nginx_has_read_site(&f->config));
    set_time(f->site, 1001);
    assert_false(nginx_has_read_site(&f->config));
    fixture_end_child(f);
    assert_true(nginx_has_read_site(&f->config));
}

/* ---- waiting for the master ---- */

static void the_wait_ends_when_a_master_runs(void **state)
{
    struct nginx_fixture *f = *state;

    nginx_wait_start(&f->wait, f->loop, &f->config, ended_done, &f->ended);
    assert_int_equal(f->ended.times, 0);
    uv_run(f->loop, UV_RUN_ONCE);
    fixture_write(f->pid_file, "");
    uv_run(f->loop, UV_RUN_ONCE);
    assert_int_equal(f->ended.times, 0);
    start_child(f, "nginx");
    write_pid(f, f->child);
    loop_run(f->loop);
    ended_assert_ok(&f->ended);
}

static void the_wait_is_canceled(void **state)
{
    struct nginx_fixture *f = *state;

    nginx_wait_start(&f->wait, f->loop, &f->config, ended_done, &f->ended);
    uv_run(f->loop, UV_RUN_ONCE);
    nginx_wait_cancel(&f->wait);
    nginx_wait_cancel(&f->wait);
    assert_int_equal(f->ended.times, 0);
    loop_run(f->loop);
    ended_assert_failed(&f->ended, ERR_CANCELED, "canceled");
    nginx_wait_cancel(&f->wait);
    loop_run(f->loop);
    assert_int_equal(f->ended.times, 1);
}

static void the_wait_has_an_end(void **state)
{
    struct nginx_fixture *f = *state;

    nginx_wait_start(&f->wait, f->loop, &f->config, ended_done, &f->ended);
    assert_true(f->wait.deadline_ms >= NGINX_WAIT_MS);
    f->wait.deadline_ms = uv_now(f->loop);
    loop_run(f->loop);
    ended_assert_failed(&f->ended, ERR_SYS, "nginx is not running");
    assert_non_null(strstr(f->ended.err.message, f->pid_file));
}

/* ---- a reload, until it is seen ---- */

static void start_reload(struct nginx_fixture *f)
{
    f->ended = (struct ended){0};
    nginx_reload_start(&f->reload, f->loop, &f->config, ended_done, &f->ended);
    assert_int_equal(f->ended.times, 0);
    assert_true(f->reload.deadline_ms >= uv_now(f->loop) + NGINX_RELOAD_MS);
}

/* Sooner than in ten seconds. */
static void shorten_reload(struct nginx_fixture *f, unsigned limit_ms)
{
    f->reload.deadline_ms = uv_now(f->loop) + limit_ms;
}

/* A site that says `answer`, with all kinds of processes that nginx has beside workers. */
static void write_site(const struct nginx_fixture *f, const char *answer)
{
    char content[1024];

    snprintf(content, sizeof content,
             "proxy_cache_path %s/cache keys_zone=cache:1m;\n"
             "server {\n"
             "    listen 127.0.0.1:%u;\n"
             "    location / { return 200 \"%s\"; }\n"
             "}\n",
             f->folder, f->config.nginx.http_port, answer);
    fixture_write(f->site, content);
}

static void start_nginx(struct nginx_fixture *f, const char *answer)
{
    char head[PATH_SIZE + 64];

    fixture_need_nginx();
    snprintf(head, sizeof head, "user root;\nworker_processes 2;\npid %s;", f->pid_file);
    fixture_write_conf(f, head, "");
    write_site(f, answer);
    fixture_start_nginx(f, 2);
}

static int connect_to(const struct nginx_fixture *f)
{
    const struct timeval patience = {.tv_sec = 20};
    struct sockaddr_in place = {.sin_family = AF_INET,
                                .sin_port = htons((uint16_t)f->config.nginx.http_port),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience),
                     0);
    assert_int_equal(connect(fd, (struct sockaddr *)&place, sizeof place), 0);
    return fd;
}

static void say(int fd, const char *text)
{
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
}

/* The rest of the answer ends with that; closes the connection. */
static void assert_answer(int fd, const char *expected)
{
    char answer[1024];
    size_t len = 0;
    ssize_t got;

    while ((got = read(fd, answer + len, sizeof answer - 1 - len)) > 0)
        len += (size_t)got;
    assert_int_equal(got, 0);
    close(fd);
    answer[len] = '\0';
    assert_true(len > strlen(expected));
    assert_string_equal(answer + len - strlen(expected), expected);
}

static void assert_answers(const struct nginx_fixture *f, const char *expected)
{
    for (int i = 0; i < 20; i++) {
        int fd = connect_to(f);

        say(fd, "GET / HTTP/1.0\r\n\r\n");
        assert_answer(fd, expected);
    }
}

/* From then on no connection meets the former configuration. */
static void a_reload_ends_when_old_workers_accept_no_more(void **state)
{
    struct nginx_fixture *f = *state;

    start_nginx(f, "answer 0");
    assert_answers(f, "answer 0");
    for (int i = 1; i <= 5; i++) {
        char answer[32];

        snprintf(answer, sizeof answer, "answer %d", i);
        write_site(f, answer);
        start_reload(f);
        loop_run(f->loop);
        ended_assert_ok(&f->ended);
        assert_answers(f, answer);
    }
}

static void a_reload_does_not_wait_for_old_connections(void **state)
{
    struct nginx_fixture *f = *state;
    int fd;

    start_nginx(f, "before");
    assert_answers(f, "before");
    fd = connect_to(f);
    say(fd, "GET / HTTP/1.0\r\n");
    write_site(f, "after");
    start_reload(f);
    loop_run(f->loop);
    ended_assert_ok(&f->ended);
    assert_answers(f, "after");
    say(fd, "\r\n"); /* its worker is still there, but it is closing down */
    assert_answer(fd, "before");
}

static void a_reload_of_what_nginx_refuses_has_an_end(void **state)
{
    struct nginx_fixture *f = *state;

    start_nginx(f, "before");
    assert_answers(f, "before");
    fixture_write(f->site, "no_such_directive on;\n");
    start_reload(f);
    shorten_reload(f, 300);
    loop_run(f->loop);
    ended_assert_failed(&f->ended, ERR_CONFIG,
                        "nginx was asked to reload, but did not within 10 s; its own "
                        "lines in the log say why");
    assert_answers(f, "before");
    /* The next one has nothing to do with it. */
    write_site(f, "after");
    start_reload(f);
    loop_run(f->loop);
    ended_assert_ok(&f->ended);
    assert_answers(f, "after");
}

static void a_reload_without_a_master_has_an_end(void **state)
{
    struct nginx_fixture *f = *state;

    start_reload(f);
    shorten_reload(f, 50);
    loop_run(f->loop);
    ended_assert_failed(&f->ended, ERR_SYS, "nginx is to reload, and is not running");
    assert_non_null(strstr(f->ended.err.message, f->pid_file));
}

/* It may have read the files of before: the first workers are not those that are waited for. */
static void a_master_that_comes_late_reloads(void **state)
{
    struct nginx_fixture *f = *state;

    start_reload(f);
    uv_run(f->loop, UV_RUN_ONCE);
    start_nginx(f, "before");
    write_site(f, "after");
    loop_run(f->loop);
    ended_assert_ok(&f->ended);
    assert_answers(f, "after");
}

static bool is_gone(void *owner)
{
    const struct nginx_fixture *f = owner;

    return nginx_master(&f->config) == 0;
}

/* A master that ends when it is asked: one that crashed over the configuration. */
static void start_reload_of_one_that_ends(struct nginx_fixture *f)
{
    start_child(f, "nginx");
    write_pid(f, f->child);
    start_reload(f);
    loop_run_until(f->loop, is_gone, f);
    assert_int_equal(f->ended.times, 0);
}

static void a_reload_ends_with_another_master(void **state)
{
    struct nginx_fixture *f = *state;
    pid_t other = fork_named("nginx", 0);

    start_reload_of_one_that_ends(f);
    write_pid(f, other);
    loop_run(f->loop);
    kill(other, SIGKILL);
    assert_int_equal(ended_with(other), -1);
    ended_assert_ok(&f->ended);
}

static void a_reload_whose_master_is_gone_says_so(void **state)
{
    struct nginx_fixture *f = *state;

    start_reload_of_one_that_ends(f);
    shorten_reload(f, 0);
    loop_run(f->loop);
    ended_assert_failed(&f->ended, ERR_SYS, "nginx is to reload, and is not running");
    assert_non_null(strstr(f->ended.err.message, f->pid_file));
}

static void a_reload_is_canceled(void **state)
{
    struct nginx_fixture *f = *state;

    start_child(f, "nginx");
    write_pid(f, f->child);
    start_reload(f);
    nginx_reload_cancel(&f->reload);
    nginx_reload_cancel(&f->reload);
    assert_int_equal(f->ended.times, 0);
    loop_run(f->loop);
    ended_assert_failed(&f->ended, ERR_CANCELED, "canceled");
    nginx_reload_cancel(&f->reload);
    loop_run(f->loop);
    assert_int_equal(f->ended.times, 1);
}

static void a_reload_is_canceled_while_it_waits(void **state)
{
    struct nginx_fixture *f = *state;

    start_reload_of_one_that_ends(f);
    nginx_reload_cancel(&f->reload);
    loop_run(f->loop);
    ended_assert_failed(&f->ended, ERR_CANCELED, "canceled");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        nginx_fixture_test(no_pid_file_is_no_master),
        nginx_fixture_test(a_pid_file_without_a_pid_is_no_master),
        nginx_fixture_test(a_pid_of_before_is_no_master),
        nginx_fixture_test(a_pid_of_another_program_is_no_master),
        nginx_fixture_test(a_long_program_name_is_known),
        nginx_fixture_test(a_reload_is_a_hangup_for_the_master),
        nginx_fixture_test(a_dead_process_is_no_master),
        nginx_fixture_test(workers_without_master_are_told_to_quit),
        nginx_fixture_test(a_site_that_came_after_the_start_is_unread),
        nginx_fixture_test(the_wait_ends_when_a_master_runs),
        nginx_fixture_test(the_wait_is_canceled),
        nginx_fixture_test(the_wait_has_an_end),
        nginx_fixture_test(a_reload_ends_when_old_workers_accept_no_more),
        nginx_fixture_test(a_reload_does_not_wait_for_old_connections),
        nginx_fixture_test(a_reload_of_what_nginx_refuses_has_an_end),
        nginx_fixture_test(a_reload_without_a_master_has_an_end),
        nginx_fixture_test(a_master_that_comes_late_reloads),
        nginx_fixture_test(a_reload_ends_with_another_master),
        nginx_fixture_test(a_reload_whose_master_is_gone_says_so),
        nginx_fixture_test(a_reload_is_canceled),
        nginx_fixture_test(a_reload_is_canceled_while_it_waits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
