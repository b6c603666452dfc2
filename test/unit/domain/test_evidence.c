#include "domain/evidence.h"

#include "base/secret.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

enum { MAX_BYTES = 4096 };

/* As sha256sum(1) prints them. */
#define OF_ABC "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
#define OF_NOTHING "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define OF_SUMS "a72a11adf25027f223d2ab0af34cc23f524f8e31a25ba02c72b98a95727f325e"

static int group_setup(void **state)
{
    (void)state;
    /* As the program does it. */
    json_set_alloc_funcs(wipe_malloc, wipe_free);
    return 0;
}

static void the_sums_are_those_of_sha256sum(void **state)
{
    BUF_SCOPED chain = {.max = MAX_BYTES};
    BUF_SCOPED account = {.max = MAX_BYTES};
    BUF_SCOPED sums = {.max = MAX_BYTES};
    struct err err = ERR_INIT;

    (void)state;
    assert_int_equal(buf_append_str(&chain, "abc", &err), 0);
    assert_int_equal(evidence_sums(&chain, &account, &sums, &err), 0);
    assert_string_equal(buf_str(&sums),
                        OF_ABC "  cert.pem\n" OF_NOTHING "  account.json\n");
}

static void the_report_data_are_the_sum_of_the_sums(void **state)
{
    BUF_SCOPED sums = {.max = MAX_BYTES};
    char hex[EVIDENCE_SHA256_SIZE];
    struct err err = ERR_INIT;

    (void)state;
    assert_int_equal(
        buf_append_str(&sums, OF_ABC "  cert.pem\n" OF_NOTHING "  account.json\n", &err),
        0);
    assert_int_equal(evidence_report_data(&sums, hex, &err), 0);
    assert_string_equal(hex, OF_SUMS);
}

static void expect_account(const struct evidence_account *account, const char *text)
{
    BUF_SCOPED json = {.max = MAX_BYTES};
    struct err err = ERR_INIT;

    assert_int_equal(evidence_account_json(account, &json, &err), 0);
    assert_string_equal(buf_str(&json), text);
}

static void what_is_not_known_of_the_account_is_null(void **state)
{
    const struct evidence_account whole = {"https://ca.test/dir", "https://ca.test/1\"2",
                                           "abc"};
    const struct evidence_account unconfirmed = {"https://ca.test/dir", NULL, "abc"};
    const struct evidence_account none = {0};

    (void)state;
    expect_account(&whole,
                   "{\n \"directory\": \"https://ca.test/dir\",\n"
                   " \"account\": \"https://ca.test/1\\\"2\",\n"
                   " \"thumbprint\": \"abc\"\n}\n");
    expect_account(&unconfirmed,
                   "{\n \"directory\": \"https://ca.test/dir\",\n"
                   " \"account\": null,\n \"thumbprint\": \"abc\"\n}\n");
    expect_account(&none,
                   "{\n \"directory\": null,\n \"account\": null,\n"
                   " \"thumbprint\": null\n}\n");
}

static void a_url_that_is_no_text_is_refused(void **state)
{
    const struct evidence_account account = {"https://ca.test/dir", "https://\xff",
                                             "abc"};
    BUF_SCOPED json = {.max = MAX_BYTES};
    struct err err = ERR_INIT;

    (void)state;
    assert_int_equal(evidence_account_json(&account, &json, &err), -1);
    assert_int_equal(err.kind, ERR_PEER);
    assert_int_equal(json.len, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_sums_are_those_of_sha256sum),
        cmocka_unit_test(the_report_data_are_the_sum_of_the_sums),
        cmocka_unit_test(what_is_not_known_of_the_account_is_null),
        cmocka_unit_test(a_url_that_is_no_text_is_refused),
    };

    return cmocka_run_group_tests(tests, group_setup, NULL);
}
