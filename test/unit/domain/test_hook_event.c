#include "domain/hook_event.h"

#include "domain/chain.h"
#include "domain/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static char domain[] = "app.example.org";
static char other[] = "www.example.org";
static char folder[] = "/etc/nginx/ssl";
static char *names[] = {domain, other};

static struct config settings(void)
{
    return (struct config){
        .domain = domain,
        .domains = {.items = names, .count = 2},
        .tls = {.dir = folder},
    };
}

static const struct chain_leaf leaf = {
    .sha256 = "ab12",
    .serial = "0f",
    .issuer_name = "CA\n\x1b[31m",
    .not_before = 1795373375,
    .not_after = 1803149375,
};

/* Exactly these variables, in this order. */
static void expect(const struct hook_news *news, const char *const *expected)
{
    struct hook_environment environment;
    struct err err = ERR_INIT;
    size_t i;

    assert_int_equal(hook_environment(news, &environment, &err), 0);
    for (i = 0; expected[i] != NULL; i++) {
        assert_true(i < environment.count);
        assert_string_equal(environment.items[i], expected[i]);
    }
    assert_int_equal(environment.count, i);
    assert_null(environment.items[i]);
    hook_environment_done(&environment);
    assert_int_equal(environment.count, 0);
}

#define COMMON(event)                                                                    \
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", \
        "CERT_MANAGER_EVENT=" event, "CERT_MANAGER_DOMAIN=app.example.org",              \
        "CERT_MANAGER_DOMAINS=app.example.org www.example.org"

#define LEAF                                                                             \
    "CERT_MANAGER_LEAF_SHA256=ab12", "CERT_MANAGER_LEAF_SERIAL=0f",                      \
        "CERT_MANAGER_LEAF_ISSUER=CA\\x0a\\x1b[31m",                                     \
        "CERT_MANAGER_LEAF_NOT_BEFORE=1795373375",                                       \
        "CERT_MANAGER_LEAF_NOT_AFTER=1803149375"

static void test_issued(void **state)
{
    const struct config config = settings();
    const struct hook_news news = {
        .event = HOOK_ISSUED, .config = &config, .leaf = &leaf};

    (void)state;
    expect(&news, (const char *const[]){COMMON("issued"), LEAF, NULL});
}

static void test_applied(void **state)
{
    const struct config config = settings();
    struct hook_news news = {
        .event = HOOK_APPLIED, .config = &config, .leaf = &leaf, .attested = true};

    (void)state;
    expect(&news, (const char *const[]){
                      COMMON("applied"), LEAF, "CERT_MANAGER_ATTESTED=true",
                      "CERT_MANAGER_CHAIN_FILE=/etc/nginx/ssl/cert.pem", NULL});
    news.attested = false;
    expect(&news, (const char *const[]){
                      COMMON("applied"), LEAF, "CERT_MANAGER_ATTESTED=false",
                      "CERT_MANAGER_CHAIN_FILE=/etc/nginx/ssl/cert.pem", NULL});
}

static void test_failed(void **state)
{
    const struct config config = settings();
    const struct err failure = {
        .kind = ERR_TIMEOUT,
        .flow = "issue",
        .step = "run certbot",
        .message = "run certbot: not finished\nA=B",
    };
    const struct err elsewhere = {.kind = ERR_SYS, .message = "disk full"};
    struct hook_news news = {
        .event = HOOK_FAILED,
        .config = &config,
        .failure = &failure,
        .attempt = 3,
        .next = 1795373375,
    };

    (void)state;
    expect(&news,
           (const char *const[]){
               COMMON("failed"), "CERT_MANAGER_REASON=run certbot: not finished\\x0aA=B",
               "CERT_MANAGER_KIND=timeout", "CERT_MANAGER_FLOW=issue",
               "CERT_MANAGER_STEP=run certbot", "CERT_MANAGER_ATTEMPT=3",
               "CERT_MANAGER_NEXT=1795373375", NULL});
    news.failure = &elsewhere;
    news.next = 0;
    expect(&news, (const char *const[]){COMMON("failed"), "CERT_MANAGER_REASON=disk full",
                                        "CERT_MANAGER_KIND=sys", "CERT_MANAGER_ATTEMPT=3",
                                        NULL});
}

static void test_level_changed(void **state)
{
    const struct config config = settings();
    const struct hook_news news = {
        .event = HOOK_LEVEL_CHANGED,
        .config = &config,
        .level = "full",
        .former_level = "reduced",
        .reason = "",
    };

    (void)state;
    expect(&news, (const char *const[]){
                      COMMON("level_changed"), "CERT_MANAGER_LEVEL=full",
                      "CERT_MANAGER_FORMER_LEVEL=reduced", "CERT_MANAGER_REASON=", NULL});
}

/* As many and as long as a certificate may have. */
static void test_all_names_are_told(void **state)
{
    struct config config = settings();
    static char name[254];
    static char *many[CONFIG_DOMAINS_MAX];
    const struct hook_news news = {.event = HOOK_ISSUED, .config = &config};
    struct hook_environment environment;
    struct err err = ERR_INIT;

    (void)state;
    memset(name, 'a', sizeof name - 1);
    for (size_t i = 0; i < CONFIG_DOMAINS_MAX; i++)
        many[i] = name;
    config.domains = (struct config_list){.items = many, .count = CONFIG_DOMAINS_MAX};
    assert_int_equal(hook_environment(&news, &environment, &err), 0);
    assert_int_equal(strlen(environment.items[4]), strlen("CERT_MANAGER_DOMAINS=") +
                                                       CONFIG_DOMAINS_MAX * sizeof name -
                                                       1);
    hook_environment_done(&environment);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_issued),
        cmocka_unit_test(test_applied),
        cmocka_unit_test(test_failed),
        cmocka_unit_test(test_level_changed),
        cmocka_unit_test(test_all_names_are_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
