#include "adapters/chain_search.h"

#include "domain/chain.h"
#include "support/loop.h"
#include "support/pki.h"
#include "support/server.h"

#include <dlfcn.h>
#include <netdb.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME "app.example.test"

enum { PATIENCE_MS = 20000, SHORT_MS = 100, PLACES_MAX = 8 };

/* ---- a resolver ---- */

/* "slow.test" is not answered before the test says so; "here.test" is 127.0.0.1. */
static sem_t slow;

int getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                struct addrinfo **ret)
{
    int (*library)(const char *, const char *, const struct addrinfo *,
                   struct addrinfo **);
    void *symbol = dlsym(RTLD_NEXT, "getaddrinfo");

    if (strcmp(host, "slow.test") == 0)
        sem_wait(&slow);
    memcpy(&library, &symbol, sizeof library);
    if (strcmp(host, "unknown.test") == 0)
        return EAI_NONAME;
    return library(strstr(host, ".test") != NULL ? "127.0.0.1" : host, service, hints,
                   ret);
}

/* ---- the owner of a search ---- */

struct owner {
    struct chain_search search;
    struct ended ended;
    struct chain_search_place places[PLACES_MAX];
    size_t count;
    const char *wanted; /* leaf that ends the search */
    unsigned looks;
    char where[80]; /* that was it */
    bool in_call;
};

static bool is_it(void *owner, const char *where, const struct buf *pem)
{
    struct owner *o = owner;
    struct err err = ERR_INIT;
    struct chain *chain = NULL;
    bool same;

    assert_false(o->in_call);
    assert_int_equal(o->ended.times, 0);
    assert_int_equal(chain_parse(pem->data, pem->len, &chain, &err), 0);
    same = o->wanted != NULL && strcmp(chain_leaf(chain)->sha256, o->wanted) == 0;
    chain_free(chain);
    o->looks++;
    if (same)
        snprintf(o->where, sizeof o->where, "%s", where);
    return same;
}

static void on_done(void *owner, const struct err *err)
{
    struct owner *o = owner;

    assert_false(o->in_call);
    ended_done(&o->ended, err);
}

static void add(struct owner *o, const char *host, unsigned port)
{
    struct chain_search_place *place = &o->places[o->count++];

    *place = (struct chain_search_place){.at.port = port};
    assert_int_equal(host_port_set_host(&place->at, host, strlen(host)), 0);
}

static void start(struct owner *o, uv_loop_t *loop, unsigned timeout_ms)
{
    const struct chain_search_request request = {
        .loop = loop,
        .places = o->places,
        .place_count = o->count,
        .server_name = NAME,
        .timeout_ms = timeout_ms,
        .is_it = is_it,
    };

    o->in_call = true;
    chain_search_start(&o->search, &request, on_done, o);
    memset(o->places, 0, sizeof o->places); /* it has its own */
    o->in_call = false;
    assert_int_equal(o->ended.times, 0);
}

/* ---- servers ---- */

struct https {
    struct server *server;
    EVP_PKEY *key;
    X509 *certificate;
    unsigned port;
    char leaf[65];
};

static unsigned port_of(struct server *server)
{
    return (unsigned)strtoul(strrchr(server_url(server), ':') + 1, NULL, 10);
}

static void https_start(struct https *https)
{
    static const struct server_script scripts[] = {{.path = NULL, .answer = ""}};
    struct server_options options = {.scripts = scripts};
    struct err err = ERR_INIT;
    struct chain *chain = NULL;
    char *pem;

    server_make_certificate(&https->key, &https->certificate);
    options.tls_key = https->key;
    options.tls_certificate = https->certificate;
    https->server = server_start(&options);
    https->port = port_of(https->server);
    pem = pki_pem(https->certificate, NULL);
    assert_int_equal(chain_parse(pem, strlen(pem), &chain, &err), 0);
    strcpy(https->leaf, chain_leaf(chain)->sha256);
    chain_free(chain);
    free(pem);
}

static void https_stop(struct https *https)
{
    server_stop(https->server);
    X509_free(https->certificate);
    EVP_PKEY_free(https->key);
}

/* Accepts, and never says anything. */
static void mute_start(uv_tcp_t *mute, uv_loop_t *loop, unsigned *ret_port)
{
    struct sockaddr_in place;
    int len = sizeof place;
    uv_os_fd_t fd;

    assert_int_equal(uv_ip4_addr("127.0.0.1", 0, &place), 0);
    assert_int_equal(uv_tcp_init(loop, mute), 0);
    assert_int_equal(uv_tcp_bind(mute, (struct sockaddr *)&place, 0), 0);
    assert_int_equal(uv_tcp_getsockname(mute, (struct sockaddr *)&place, &len), 0);
    *ret_port = ntohs(place.sin_port);
    assert_int_equal(uv_fileno((uv_handle_t *)mute, &fd), 0);
    assert_int_equal(listen(fd, 8), 0);
}

/* ---- what is found ---- */

static void test_the_first_that_fits_ends_it(void **state)
{
    struct owner o = {.count = 0};
    struct https other;
    struct https wanted;
    uv_tcp_t mute;
    unsigned mute_port;
    char where[32];

    https_start(&other);
    https_start(&wanted);
    mute_start(&mute, *state, &mute_port);
    add(&o, "127.0.0.1", mute_port);
    add(&o, "127.0.0.1", other.port);
    add(&o, "127.0.0.1", (unsigned)server_unused_port());
    add(&o, "here.test", wanted.port);
    add(&o, "unknown.test", wanted.port);
    o.wanted = wanted.leaf;
    start(&o, *state, PATIENCE_MS);
    loop_run_until(*state, ended_once, &o.ended);
    ended_assert_ok(&o.ended);
    snprintf(where, sizeof where, "127.0.0.1:%u", wanted.port);
    assert_string_equal(o.where, where);
    uv_close((uv_handle_t *)&mute, NULL);
    loop_run(*state);
    https_stop(&other);
    https_stop(&wanted);
}

static void test_a_place_is_asked_a_few_times(void **state)
{
    struct owner o = {.count = 0};
    struct https other;

    https_start(&other);
    add(&o, "127.0.0.1", other.port);
    start(&o, *state, PATIENCE_MS);
    loop_run(*state);
    ended_assert_ok(&o.ended);
    assert_int_equal(o.looks, CHAIN_SEARCH_TRIES);
    assert_string_equal(o.where, "");
    https_stop(&other);
}

static void test_nobody_is_there(void **state)
{
    struct owner o = {.count = 0};

    add(&o, "127.0.0.1", (unsigned)server_unused_port());
    add(&o, "unknown.test", 443);
    start(&o, *state, PATIENCE_MS);
    loop_run(*state);
    ended_assert_ok(&o.ended);
    assert_int_equal(o.looks, 0);
}

static void test_nobody_is_to_be_asked(void **state)
{
    struct owner o = {.count = 0};

    start(&o, *state, PATIENCE_MS);
    loop_run(*state);
    ended_assert_ok(&o.ended);
}

/* ---- how long it takes ---- */

static void test_silence_lasts_until_the_time_is_up(void **state)
{
    struct owner o = {.count = 0};
    uv_tcp_t mute;
    unsigned port;
    uint64_t begin = uv_now(*state);

    mute_start(&mute, *state, &port);
    add(&o, "127.0.0.1", port);
    start(&o, *state, SHORT_MS);
    loop_run_until(*state, ended_once, &o.ended);
    ended_assert_ok(&o.ended);
    assert_true(uv_now(*state) - begin >= SHORT_MS);
    uv_close((uv_handle_t *)&mute, NULL);
    loop_run(*state);
}

/* getaddrinfo(3) cannot be interrupted; the search does not wait for it. */
static void test_a_resolver_that_hangs_is_left_to_itself(void **state)
{
    struct owner *o = calloc(1, sizeof *o);

    assert_non_null(o);
    add(o, "slow.test", 443);
    start(o, *state, SHORT_MS);
    loop_run_until(*state, ended_once, &o->ended);
    ended_assert_ok(&o->ended);
    free(o);
    sem_post(&slow);
    loop_run(*state);
}

static void test_what_is_found_does_not_wait_for_the_resolver(void **state)
{
    struct owner o = {.count = 0};
    struct https wanted;

    https_start(&wanted);
    add(&o, "slow.test", 443);
    add(&o, "127.0.0.1", wanted.port);
    o.wanted = wanted.leaf;
    start(&o, *state, PATIENCE_MS);
    loop_run_until(*state, ended_once, &o.ended);
    ended_assert_ok(&o.ended);
    assert_int_equal(o.looks, 1);
    sem_post(&slow);
    loop_run(*state);
    https_stop(&wanted);
}

/* ---- cancel ---- */

static void cancel(struct owner *o)
{
    o->in_call = true;
    chain_search_cancel(&o->search);
    chain_search_cancel(&o->search);
    o->in_call = false;
}

/* After the first round of the loop, after the second, until it ends by itself. */
static void test_canceled_at_every_moment(void **state)
{
    struct https https;
    unsigned canceled = 0;
    bool ended = false;

    https_start(&https);
    for (unsigned rounds = 0; !ended; rounds++) {
        struct owner o = {.count = 0};

        add(&o, "here.test", https.port);
        add(&o, "127.0.0.1", https.port);
        o.wanted = https.leaf;
        start(&o, *state, PATIENCE_MS);
        for (unsigned i = 0; i < rounds && o.ended.times == 0; i++)
            uv_run(*state, UV_RUN_ONCE);
        ended = o.ended.times > 0;
        cancel(&o);
        loop_run(*state);
        assert_int_equal(o.ended.times, 1);
        canceled += o.ended.failed;
        if (o.ended.failed)
            ended_assert_failed(&o.ended, ERR_CANCELED, "canceled");
    }
    assert_true(canceled >= 2);
    https_stop(&https);
}

static void test_canceled_while_the_resolver_hangs(void **state)
{
    struct owner *o = calloc(1, sizeof *o);

    assert_non_null(o);
    add(o, "slow.test", 443);
    start(o, *state, PATIENCE_MS);
    uv_run(*state, UV_RUN_NOWAIT);
    cancel(o);
    loop_run_until(*state, ended_once, &o->ended);
    ended_assert_failed(&o->ended, ERR_CANCELED, "canceled");
    free(o);
    sem_post(&slow);
    loop_run(*state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        loop_test(test_the_first_that_fits_ends_it),
        loop_test(test_a_place_is_asked_a_few_times),
        loop_test(test_nobody_is_there),
        loop_test(test_nobody_is_to_be_asked),
        loop_test(test_silence_lasts_until_the_time_is_up),
        loop_test(test_a_resolver_that_hangs_is_left_to_itself),
        loop_test(test_what_is_found_does_not_wait_for_the_resolver),
        loop_test(test_canceled_at_every_moment),
        loop_test(test_canceled_while_the_resolver_hangs),
    };

    sem_init(&slow, 0, 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
