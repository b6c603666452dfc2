/* The names of the certificate: DOMAIN and those of `domains`. */
#include "domain/config.h"

#include "support/settings.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define DOMAIN "DOMAIN=app.example.org"
#define EXTERNAL "tls:\n  key: external\n"
#define WILDCARD                                                                         \
    "\" is a wildcard, which HTTP-01 challenges cannot prove; list the names one by "    \
    "one, or bring a certificate of your own with tls.key: external"

/* The names in their order, with blanks between them. */
static void expect_names(const struct config *config, const char *expected)
{
    char all[1024] = "";
    size_t used = 0;

    for (size_t i = 0; i < config->domains.count; i++)
        used += (size_t)snprintf(all + used, sizeof all - used, "%s%s", i == 0 ? "" : " ",
                                 config->domains.items[i]);
    assert_string_equal(all, expected);
}

static void expect_names_of(const char *file, const char *expected)
{
    struct settings settings;

    settings_load_good(&settings, file, DOMAIN);
    expect_names(&settings.config, expected);
    settings_done(&settings);
}

/* Outside development, where a CA is asked. */
static void expect_in_production(const char *file, const char *error)
{
    char domain[] = DOMAIN;
    char *const environment[] = {domain, NULL};
    struct config config;
    struct config_report report;
    int result = config_load(&config, &report,
                             &(struct config_sources){.yaml_name = "config.yaml",
                                                      .yaml = file,
                                                      .yaml_len = strlen(file),
                                                      .environment = environment});

    assert_int_equal(report.error_count, error == NULL ? 0 : 1);
    assert_int_equal(result, error == NULL ? 0 : -1);
    if (error != NULL)
        assert_string_equal(report.errors[0], error);
    config_done(&config);
    config_report_done(&report);
}

static void the_domain_alone_is_the_only_name(void **state)
{
    struct settings settings;

    (void)state;
    expect_names_of("", "app.example.org");
    expect_names_of("domains: []\n", "app.example.org");
    settings_load_good(&settings, "", NULL);
    expect_names(&settings.config, "localhost");
    settings_done(&settings);
}

static void the_domain_goes_first_wherever_it_is_from(void **state)
{
    (void)state;
    expect_names_of("domains: [www.example.org, other.example]\n",
                    "app.example.org www.example.org other.example");
    expect_names_of("domain: file.example.org\ndomains: [www.example.org]\n",
                    "app.example.org www.example.org");
    expect_names_of("domains: [www.example.org, app.example.org]\n",
                    "app.example.org www.example.org");
}

static void names_are_taken_once_and_in_lower_case(void **state)
{
    struct settings settings;

    (void)state;
    expect_names_of("domains: [WWW.Example.ORG, APP.example.org]\n",
                    "app.example.org www.example.org");
    settings_expect_warning("domains:\n  - a.example\n  - b.example\n  - A.Example\n",
                            DOMAIN,
                            "config.yaml:2:3: domains: \"a.example\" is there twice, and "
                            "taken once");
    settings_load(&settings, "domains: [a.example, b.example, A.Example]\n", DOMAIN);
    expect_names(&settings.config, "app.example.org a.example b.example");
    settings_done(&settings);
}

static void what_is_no_name_is_refused_at_its_place(void **state)
{
    (void)state;
    settings_expect_error(
        "domains: a.example\n", DOMAIN,
        "config.yaml:1:10: domains: found a text, expected a sequence "
        "of DNS names such as www.example.org (did you mean [a.example]?)");
    settings_expect_error("domains:\n", DOMAIN,
                          "config.yaml:1:9: domains: found nothing, expected a sequence "
                          "of DNS names such as www.example.org");
    settings_expect_error(
        "domains: [a.*.example]\n", DOMAIN,
        "config.yaml:1:11: domains: \"a.*.example\" is a wildcard; expected one name "
        "such as service.example.org");
    settings_expect_error("domains:\n  - a.example\n  - b_c.example\n", DOMAIN,
                          "config.yaml:3:5: domains: \"b_c.example\" has a character "
                          "that is not allowed, '_' at position 2; expected letters, "
                          "digits, hyphens and dots");
    settings_expect_error(
        "domains: [\"*.\"]\n", DOMAIN,
        "config.yaml:1:11: domains: \"\" is empty; expected a name such "
        "as service.example.org");
}

static void wildcards_need_certificates_of_somebody_else(void **state)
{
    (void)state;
    expect_in_production("domains: [\"*.example.org\"]\n",
                         "config.yaml:1:10: domains: \"*.example.org" WILDCARD);
    settings_expect_error("domains: [\"*.example.org\"]\n", DOMAIN,
                          "config.yaml:1:10: domains: \"*.example.org" WILDCARD);
    expect_in_production(EXTERNAL "domains: [\"*.example.org\"]\n", NULL);
    expect_names_of(EXTERNAL "domains: [\"*.Example.org\", www.example.net]\n",
                    "app.example.org *.example.org www.example.net");
    settings_expect_error("", "DOMAIN=*.example.org",
                          "DOMAIN: \"*.example.org\" is a wildcard; expected one name "
                          "such as service.example.org");
}

static void a_public_ca_is_not_asked_for_private_names(void **state)
{
    static const char file[] = "domains: [www.example.org, a.localhost]\n";
    char external[128];

    (void)state;
    expect_in_production(file,
                         "config.yaml:1:10: domains: \"a.localhost\" cannot get a "
                         "certificate: no CA issues for \"localhost\" or names below it");
    expect_names_of(file, "app.example.org www.example.org a.localhost");
    snprintf(external, sizeof external, "%s%s", EXTERNAL, file);
    expect_in_production(external, NULL);
}

/* `count` names in the file, of which DOMAIN may be the first. */
static void write_names(char *ret, size_t size, size_t count, bool with_domain)
{
    size_t used = (size_t)snprintf(ret, size, "domains:\n");

    for (size_t i = 0; i < count; i++)
        used += i == 0 && with_domain
                    ? (size_t)snprintf(ret + used, size - used, "  - app.example.org\n")
                    : (size_t)snprintf(ret + used, size - used, "  - n%zu.example\n", i);
    assert_true(used < size);
}

static void a_hundred_names_are_the_most(void **state)
{
    char file[4096];
    struct settings settings;

    (void)state;
    write_names(file, sizeof file, CONFIG_DOMAINS_MAX - 1, false);
    settings_load_good(&settings, file, DOMAIN);
    assert_int_equal(settings.config.domains.count, CONFIG_DOMAINS_MAX);
    settings_done(&settings);
    write_names(file, sizeof file, CONFIG_DOMAINS_MAX, true);
    settings_expect_good(file, DOMAIN);
    write_names(file, sizeof file, CONFIG_DOMAINS_MAX, false);
    settings_expect_error(file, DOMAIN,
                          "config.yaml:2:3: domains: 101 names together with DOMAIN, at "
                          "most 100 are allowed");
    write_names(file, sizeof file, CONFIG_DOMAINS_MAX + 1, false);
    settings_expect_error(file, DOMAIN,
                          "config.yaml:102:5: domains: more than 100 items");
}

static void challenges_are_answered_where_there_is_an_account(void **state)
{
    struct config config = {.acme = {.stateless = true}};

    (void)state;
    assert_true(config_answers_challenges(&config));
    config.development = true;
    assert_false(config_answers_challenges(&config));
    config.development = false;
    config.tls.external_key = true;
    assert_false(config_answers_challenges(&config));
    config.tls.external_key = false;
    config.acme.stateless = false;
    assert_false(config_answers_challenges(&config));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_domain_alone_is_the_only_name),
        cmocka_unit_test(the_domain_goes_first_wherever_it_is_from),
        cmocka_unit_test(names_are_taken_once_and_in_lower_case),
        cmocka_unit_test(what_is_no_name_is_refused_at_its_place),
        cmocka_unit_test(wildcards_need_certificates_of_somebody_else),
        cmocka_unit_test(a_public_ca_is_not_asked_for_private_names),
        cmocka_unit_test(a_hundred_names_are_the_most),
        cmocka_unit_test(challenges_are_answered_where_there_is_an_account),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
