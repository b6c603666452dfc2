/* How certbot is called, by what is configured for the CA. */
#include "adapters/certbot_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static char program[] = "/usr/bin/certbot";
static char webroot[] = "/acme-challenge";
static char directory[] = "https://ca.example.test/dir";
static char bundle[] = "/etc/ca.pem";
static char chain[] = "Root, No. 1";

static struct certbot_command command;

static void fill(const struct authority *authority, const char *profile)
{
    const struct config config = {.certbot = {.path = program},
                                  .nginx = {.webroot = webroot}};
    const struct certbot_request request = {
        .config = &config, .authority = authority, .profile = profile};
    struct err err = ERR_INIT;

    assert_int_equal(certbot_fill_command(&command, "/run/w", &request, &err), 0);
}

/* The argument behind that option, or NULL. */
static const char *option(const char *name)
{
    for (size_t i = 0; command.argv[i] != NULL; i++) {
        if (strcmp(command.argv[i], name) == 0)
            return command.argv[i + 1];
    }
    return NULL;
}

static const char *variable(const char *name)
{
    size_t len = strlen(name);

    for (size_t i = 0; command.environment[i] != NULL; i++) {
        if (strncmp(command.environment[i], name, len) == 0 &&
            command.environment[i][len] == '=')
            return command.environment[i] + len + 1;
    }
    return NULL;
}

static void a_ca_needs_its_directory_alone(void **state)
{
    const struct authority authority = {.directory = directory};

    (void)state;
    fill(&authority, NULL);
    assert_string_equal(command.argv[0], program);
    assert_string_equal(command.argv[1], "certonly");
    assert_string_equal(option("--server"), directory);
    assert_string_equal(option("--account"), "cert-manager");
    assert_string_equal(option("-w"), webroot);
    assert_string_equal(option("--csr"), "/run/w/request.csr");
    assert_string_equal(option("--fullchain-path"), "/run/w/out/fullchain.pem");
    assert_null(option("--preferred-profile"));
    assert_null(option("--preferred-chain"));
    assert_string_equal(variable("TMPDIR"), "/run/w/tmp");
    assert_string_equal(variable("XDG_CONFIG_HOME"), "/nonexistent");
    assert_null(variable("REQUESTS_CA_BUNDLE"));
    assert_null(variable("https_proxy"));
    assert_null(variable("no_proxy"));
    assert_string_equal(command.errors, "/run/w/stderr");
}

static void what_is_configured_for_the_ca_is_passed_on(void **state)
{
    const struct authority authority = {
        .directory = directory,
        .ca_bundle = bundle,
        .preferred_chain = chain,
        .proxy = "http://proxy:3128",
        .no_proxy = "localhost,10.0.0.0/8",
    };

    (void)state;
    fill(&authority, "shortlived");
    assert_string_equal(option("--preferred-profile"), "shortlived");
    assert_string_equal(option("--preferred-chain"), chain);
    assert_string_equal(variable("REQUESTS_CA_BUNDLE"), bundle);
    assert_string_equal(variable("https_proxy"), "http://proxy:3128");
    assert_string_equal(variable("no_proxy"), "localhost,10.0.0.0/8");
}

/* The HMAC key of an external account binding is nothing that certbot needs to see. */
static void an_account_binding_is_not(void **state)
{
    static char key_id[] = "kid-1";
    static char key_file[] = "/run/secrets/eab";
    const struct authority authority = {
        .directory = directory, .eab_key_id = key_id, .eab_key_file = key_file};

    (void)state;
    fill(&authority, NULL);
    for (size_t i = 0; command.argv[i] != NULL; i++)
        assert_null(strstr(command.argv[i], "eab"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_ca_needs_its_directory_alone),
        cmocka_unit_test(what_is_configured_for_the_ca_is_passed_on),
        cmocka_unit_test(an_account_binding_is_not),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
