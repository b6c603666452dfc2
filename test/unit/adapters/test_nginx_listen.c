#include "adapters/nginx_listen.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

static char loopback[] = "127.0.0.1";

/* A port of this machine that is listened to, and its socket. */
static unsigned take_port(int *ret_fd)
{
    struct sockaddr_in place = {.sin_family = AF_INET};
    socklen_t len = sizeof place;

    place.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    *ret_fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(*ret_fd, (struct sockaddr *)&place, sizeof place), 0);
    assert_int_equal(listen(*ret_fd, 1), 0);
    assert_int_equal(getsockname(*ret_fd, (struct sockaddr *)&place, &len), 0);
    return ntohs(place.sin_port);
}

static struct config settings(char *address, unsigned http_port, unsigned https_port)
{
    struct config config = {0};

    config.nginx.address = address;
    config.nginx.http_port = http_port;
    config.nginx.https_port = https_port;
    return config;
}

static void refuses(const struct config *now, const struct config *next, const char *part)
{
    struct err err = ERR_INIT;

    assert_int_equal(nginx_try_ports(now, next, false, &err), -1);
    assert_int_equal(err.kind, ERR_CONFIG);
    assert_non_null(strstr(err.message, part));
}

static void ports_that_nginx_has_are_its_own(void **state)
{
    struct err err = ERR_INIT;
    int fd;
    unsigned port = take_port(&fd);
    struct config now = settings(loopback, port, 1);
    struct config swapped = settings(loopback, 1, port);

    (void)state;
    assert_int_equal(nginx_try_ports(&now, &now, false, &err), 0);
    assert_int_equal(nginx_try_ports(&now, &swapped, false, &err), 0);
    close(fd);
}

static void a_port_of_somebody_else_is_named(void **state)
{
    struct err err = ERR_INIT;
    int fd;
    unsigned port = take_port(&fd);
    struct config now = settings(loopback, 1, 2);
    struct config next = settings(loopback, 1, port);

    (void)state;
    refuses(&now, &next, "127.0.0.1, port");
    close(fd);
    assert_int_equal(nginx_try_ports(&now, &next, false, &err), 0);
}

static void all_addresses_cannot_become_one_with_the_same_port(void **state)
{
    int fd;
    unsigned port = take_port(&fd);
    struct config now = settings(loopback, port, port);
    struct config next = settings(NULL, port, port);

    (void)state;
    refuses(&now, &next, "0.0.0.0, port");
    close(fd);
}

static void an_address_of_another_machine_is_named(void **state)
{
    char elsewhere[] = "192.0.2.1";
    struct config now = settings(loopback, 1, 2);
    struct config next = settings(elsewhere, 1, 2);

    (void)state;
    refuses(&now, &next, "no address of this machine");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ports_that_nginx_has_are_its_own),
        cmocka_unit_test(a_port_of_somebody_else_is_named),
        cmocka_unit_test(all_addresses_cannot_become_one_with_the_same_port),
        cmocka_unit_test(an_address_of_another_machine_is_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
