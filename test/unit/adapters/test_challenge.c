#include "adapters/challenge.h"

#include "support/loop.h"
#include "support/server.h"

#include <ftw.h>
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

#define TOKEN "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA"
#define PATH "/.well-known/acme-challenge/" TOKEN

static char folder[] = "/tmp/challenge-XXXXXX";

static struct config config_of(void)
{
    static char domain[] = "app.example.test";
    static char run_dir[] = "/run/of-a-test";
    static char user[] = "nobody-of-that-name";

    return (struct config){
        .domain = domain,
        .run_dir = run_dir,
        .nginx = {.webroot = folder, .http_port = 80},
        .certbot = {.user = user},
    };
}

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) == NULL ? -1 : 0;
}

static int remove_one(const char *path, const struct stat *status, int type,
                      struct FTW *walk)
{
    (void)status;
    (void)type;
    (void)walk;
    return remove(path);
}

static int remove_folder(void **state)
{
    (void)state;
    return nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static void a_token_has_at_least_128_bits_of_base64url(void **state)
{
    char name[140];

    (void)state;
    assert_true(challenge_is_token(TOKEN));
    memset(name, 'a', sizeof name);
    name[128] = '\0';
    assert_true(challenge_is_token(name));
    name[128] = 'a';
    name[129] = '\0';
    assert_false(challenge_is_token(name));
    name[22] = '\0';
    assert_true(challenge_is_token(name));
    name[21] = '\0';
    assert_false(challenge_is_token(name));
    assert_false(challenge_is_token("evaGxfADs6pSRb2LAv9IZf17.t3juxGJ-PCt92wr-oA"));
    assert_false(challenge_is_token("evaGxfADs6pSRb2LAv9IZf17/t3juxGJ-PCt92wr-oA"));
    assert_false(challenge_is_token(""));
}

static void the_file_of_our_own_is_there_until_it_is_removed(void **state)
{
    const struct config config = config_of();
    struct challenge_probe probe;
    struct challenge_probe again;
    struct err err = ERR_INIT;
    BUF_SCOPED text = {0};
    struct stat status;

    (void)state;
    assert_int_equal(challenge_probe_write(&probe, &config, &err), 0);
    challenge_read(&config, probe.name, &text);
    assert_string_equal(buf_str(&text), probe.text);
    assert_int_equal(stat(probe.path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0644);
    /* It takes the way of a token through nginx, but nobody takes it for a challenge. */
    assert_int_equal(strspn(probe.name, "abcdefghijklmnopqrstuvwxyz0123456789-"),
                     strlen(probe.name));
    assert_in_range(strlen(probe.name), 22, 128);
    assert_false(challenge_is_token(probe.name));
    assert_int_not_equal(strncmp(probe.text, probe.name, strlen(probe.name)), 0);
    /* Another life finds what a killed one has left; the text is always a new one. */
    assert_int_equal(challenge_probe_write(&again, &config, &err), 0);
    assert_string_equal(again.path, probe.path);
    assert_string_not_equal(again.text, probe.text);
    challenge_probe_remove(&again);
    assert_false(fs_exists(probe.path));
    challenge_probe_remove(&again);
    assert_int_equal(challenge_probe_write(&probe, &config, &err), 0);
    challenge_probe_clean_up(&config);
    assert_false(fs_exists(probe.path));
}

static void a_webroot_that_is_none_is_an_error(void **state)
{
    static char nothing[] = "/proc/nothing";
    struct config config = config_of();
    struct challenge_probe probe;
    struct err err = ERR_INIT;

    (void)state;
    config.nginx.webroot = nothing;
    assert_int_equal(challenge_probe_write(&probe, &config, &err), -1);
    assert_string_equal(probe.path, "");
}

/* ---- fetched ---- */

static void fetch(uv_loop_t *loop, struct config *config, const char *address,
                  struct ended *ended, struct challenge_fetch *fetch)
{
    struct err err = ERR_INIT;
    struct http *http;

    assert_int_equal(http_setup(&err), 0);
    http = http_new(loop, &err);
    assert_non_null(http);
    challenge_fetch_start(fetch, http, config, address, TOKEN, ended_done, ended);
    loop_run_until(loop, ended_once, ended);
    http_close(http, NULL, NULL);
    loop_run(loop);
}

static void it_is_fetched_for_the_domain_and_from_nginx(void **state)
{
    const struct server_script scripts[] = {
        {.path = PATH, .answer = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nours"},
        {.path = NULL, .answer = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"}};
    struct server *server = server_start(&(struct server_options){.scripts = scripts});
    struct config config = config_of();
    struct challenge_fetch call;
    struct ended ended = {0};
    char request[1024];

    config.nginx.http_port = (unsigned)atoi(strrchr(server_url(server), ':') + 1);
    fetch(*state, &config, NULL, &ended, &call);
    ended_assert_ok(&ended);
    assert_int_equal(call.call.status, 200);
    assert_string_equal(buf_str(&call.call.body), "ours");
    server_last_request(server, request, sizeof request);
    assert_non_null(strstr(request, "\r\nHost: app.example.test\r\n"));
    assert_null(strstr(request, "PROXY"));
    http_call_done(&call.call);
    server_stop(server);
}

static void where_nginx_wants_the_proxy_protocol_it_begins_with_that(void **state)
{
    const struct server_script scripts[] = {
        {.path = NULL, .answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"}};
    struct server *server = server_start(&(struct server_options){.scripts = scripts});
    struct config config = config_of();
    struct challenge_fetch call;
    struct ended ended = {0};
    char request[1024];

    config.nginx.proxy_protocol = true;
    config.nginx.http_port = (unsigned)atoi(strrchr(server_url(server), ':') + 1);
    fetch(*state, &config, NULL, &ended, &call);
    ended_assert_ok(&ended);
    server_last_request(server, request, sizeof request);
    assert_int_equal(strncmp(request, "PROXY TCP4 127.0.0.1 127.0.0.1 ", 31), 0);
    http_call_done(&call.call);
    server_stop(server);
}

static void nobody_there_is_an_error(void **state)
{
    struct config config = config_of();
    struct challenge_fetch call;
    struct ended ended = {0};

    config.nginx.http_port = (unsigned)server_unused_port();
    fetch(*state, &config, NULL, &ended, &call);
    ended_assert_failed(&ended, ERR_NET, "refused");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_token_has_at_least_128_bits_of_base64url),
        cmocka_unit_test(the_file_of_our_own_is_there_until_it_is_removed),
        cmocka_unit_test(a_webroot_that_is_none_is_an_error),
        loop_test(it_is_fetched_for_the_domain_and_from_nginx),
        loop_test(where_nginx_wants_the_proxy_protocol_it_begins_with_that),
        loop_test(nobody_there_is_an_error),
    };

    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
