#include "domain/renewal_info.h"

#include "support/pki.h"

#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>

/* ---- the id ---- */

#define SERIAL_MAX "0x7fffffffffffffffffffffffffffffffffffffff"

/* A leaf with that serial number, whose authority key identifier is these bytes; NULL for none. */
static X509 *leaf_of(const char *serial, const unsigned char *identifier, int len)
{
    const struct pki_spec spec = {.serial = serial};
    EVP_PKEY *key = pki_key();
    X509 *leaf = pki_certificate(&spec, key, NULL, key);

    if (identifier != NULL) {
        AUTHORITY_KEYID *authority = AUTHORITY_KEYID_new();

        authority->keyid = ASN1_OCTET_STRING_new();
        assert_int_equal(ASN1_OCTET_STRING_set(authority->keyid, identifier, len), 1);
        assert_int_equal(X509_add1_ext_i2d(leaf, NID_authority_key_identifier, authority,
                                           0, X509V3_ADD_REPLACE),
                         1);
        AUTHORITY_KEYID_free(authority);
        pki_sign(leaf, key);
    }
    EVP_PKEY_free(key);
    return leaf;
}

static void expect_id(const char *serial, const unsigned char *identifier, int len,
                      const char *expected)
{
    X509 *leaf = leaf_of(serial, identifier, len);
    char id[RENEWAL_INFO_ID_SIZE];

    renewal_info_id(leaf, id);
    assert_string_equal(id, expected);
    X509_free(leaf);
    pki_assert_queue_empty();
}

/* RFC 9773 §4.1. */
static void the_id_is_that_of_the_standard(void **state)
{
    static const unsigned char identifier[] = {0x69, 0x88, 0x5B, 0x6B, 0x87, 0x46, 0x40,
                                               0x41, 0xE1, 0xB3, 0x7B, 0x84, 0x7B, 0xA0,
                                               0xAE, 0x2C, 0xDE, 0x01, 0xC8, 0xD4};

    (void)state;
    expect_id("0x87654321", identifier, sizeof identifier,
              "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE");
    /* Without the top bit there is no byte before it. */
    expect_id("0x7654321f", identifier, sizeof identifier,
              "aYhba4dGQEHhs3uEe6CuLN4ByNQ.dlQyHw");
    expect_id("1", identifier, sizeof identifier, "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AQ");
    expect_id("0", identifier, sizeof identifier, "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AA");
    expect_id("-1", identifier, sizeof identifier, "aYhba4dGQEHhs3uEe6CuLN4ByNQ._w");
}

static void an_id_may_be_as_long_as_its_parts(void **state)
{
    unsigned char identifier[65] = {0};
    char expected[RENEWAL_INFO_ID_SIZE] = "";

    (void)state;
    memset(expected, 'A', 86);
    strcat(expected, ".f_________________________8");
    expect_id(SERIAL_MAX, identifier, 64, expected);
    expect_id(SERIAL_MAX, identifier, 65, "");
}

static void without_a_key_identifier_there_is_no_id(void **state)
{
    static const unsigned char none[1];

    (void)state;
    expect_id("1", NULL, 0, "");
    expect_id("1", none, 0, "");
}

/* ---- the answer ---- */

#define WINDOW(start, end)                                                               \
    "{\"suggestedWindow\":{\"start\":\"" start "\",\"end\":\"" end "\"}}"

static void expect_window(const char *json, int64_t start, int64_t end)
{
    struct renewal_info info;
    struct err err = ERR_INIT;

    assert_int_equal(renewal_info_read(json, &info, &err), 0);
    assert_int_equal(info.window.start, start);
    assert_int_equal(info.window.end, end);
}

static void a_window_is_read_in_every_form_of_its_times(void **state)
{
    (void)state;
    expect_window(WINDOW("2026-11-23T18:49:07Z", "2026-11-24T18:49:07Z"), PKI_NOW,
                  PKI_NOW + PKI_DAY);
    expect_window(WINDOW("2026-11-23t18:49:07z", "2026-11-24 18:49:07Z"), PKI_NOW,
                  PKI_NOW + PKI_DAY);
    expect_window(WINDOW("2026-11-23T18:49:07.999999999Z", "2026-11-24T20:19:07+01:30"),
                  PKI_NOW, PKI_NOW + PKI_DAY);
    expect_window(WINDOW("2026-11-23T10:49:07-08:00", "2026-11-23T18:49:08-00:00"),
                  PKI_NOW, PKI_NOW + 1);
    expect_window(WINDOW("1969-12-31T23:59:59Z", "9999-12-31T23:59:59Z"), -1,
                  INT64_C(253402300799));
    /* A leap second, and a leap day. */
    expect_window(WINDOW("2016-12-31T23:59:60Z", "2024-02-29T00:00:00Z"),
                  INT64_C(1483228800), INT64_C(1709164800));
}

static void refuse(const char *json, const char *reason)
{
    struct renewal_info info = {.explanation = "untouched"};
    struct err err = ERR_INIT;

    assert_int_equal(renewal_info_read(json, &info, &err), -1);
    assert_int_equal(err.kind, ERR_PEER);
    assert_string_equal(err.message, reason);
    assert_string_equal(info.explanation, "untouched");
}

static void nonsense_is_refused(void **state)
{
    static const char *const times[] = {
        "2026-11-23",
        "2026-11-23T18:49:07",
        "2026-11-23T18:49:07.Z",
        "2026-11-23T18:49:07Z ",
        " 2026-11-23T18:49:07Z",
        "2026-13-23T18:49:07Z",
        "2026-00-23T18:49:07Z",
        "2026-11-00T18:49:07Z",
        "2026-11-31T18:49:07Z",
        "2026-02-29T18:49:07Z",
        "2026-11-23T24:49:07Z",
        "2026-11-23T18:60:07Z",
        "2026-11-23T18:49:61Z",
        "2026-11-23T18:49:07+24:00",
        "2026-11-23T18:49:07+0100",
        "20261-1-23T18:49:07Z",
        "-026-11-23T18:49:07Z",
        "",
    };

    (void)state;
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
        char json[256];
        char reason[256];

        snprintf(json, sizeof json, WINDOW("%s", "2027-01-01T00:00:00Z"), times[i]);
        snprintf(reason, sizeof reason,
                 "suggestedWindow.start: found \"%s\", expected a time", times[i]);
        refuse(json, reason);
    }
    refuse("", "the answer is not JSON");
    refuse("[]", "the answer has no suggestedWindow.start");
    refuse("{\"suggestedWindow\":7}", "the answer has no suggestedWindow.start");
    refuse("{\"suggestedWindow\":{\"start\":\"2026-11-23T18:49:07Z\"}}",
           "the answer has no suggestedWindow.end");
    refuse("{\"suggestedWindow\":{\"start\":7,\"end\":8}}",
           "the answer has no suggestedWindow.start");
    refuse(WINDOW("2026-11-23T18:49:07Z", "2026-11-23T18:49:07Z"),
           "the suggested window begins on 2026-11-23 18:49:07 UTC and ends on "
           "2026-11-23 18:49:07 UTC, not after that");
    refuse(WINDOW("2026-11-23T18:49:08Z", "2026-11-23T18:49:07Z"),
           "the suggested window begins on 2026-11-23 18:49:08 UTC and ends on "
           "2026-11-23 18:49:07 UTC, not after that");
    refuse(WINDOW("\\u001b[31m", "2026-11-23T18:49:07Z"),
           "suggestedWindow.start: found \"\\x1b[31m\", expected a time");
}

static void expect_explanation(const char *link, const char *expected)
{
    struct renewal_info info;
    struct err err = ERR_INIT;
    char json[1024];

    snprintf(json, sizeof json,
             "{\"suggestedWindow\":{\"start\":\"2026-11-23T18:49:07Z\",\"end\":"
             "\"2026-11-24T18:49:07Z\"},\"explanationURL\":%s}",
             link);
    assert_int_equal(renewal_info_read(json, &info, &err), 0);
    assert_string_equal(info.explanation, expected);
}

static void an_explanation_is_a_link_that_can_be_shown(void **state)
{
    char link[RENEWAL_INFO_LINK_SIZE + 8];
    char expected[RENEWAL_INFO_LINK_SIZE];

    (void)state;
    expect_explanation("\"https://ca.example/why?a=b\"", "https://ca.example/why?a=b");
    expect_explanation("\"javascript:alert(1)\"", "");
    expect_explanation("\"https://ca.example/\\nERROR\"", "");
    expect_explanation("\"https://ca.example/a b\"", "");
    expect_explanation("\"https://ca.example/\xc3\xa4\"", "");
    expect_explanation("7", "");
    expect_explanation("null", "");
    /* The longest, and one that is longer by one. */
    snprintf(expected, sizeof expected, "https://%0*d", RENEWAL_INFO_LINK_SIZE - 9, 7);
    snprintf(link, sizeof link, "\"%s\"", expected);
    expect_explanation(link, expected);
    snprintf(link, sizeof link, "\"%s/\"", expected);
    expect_explanation(link, "");
}

/* ---- Retry-After ---- */

static void retry_after_is_seconds_or_a_date(void **state)
{
    (void)state;
    assert_int_equal(renewal_info_retry_after("21600", PKI_NOW), 21600);
    assert_int_equal(renewal_info_retry_after("0", PKI_NOW), 0);
    assert_int_equal(renewal_info_retry_after("999999999", PKI_NOW), 999999999);
    assert_int_equal(renewal_info_retry_after("99999999999999999999", PKI_NOW),
                     INT32_MAX);
    assert_int_equal(renewal_info_retry_after("Mon, 23 Nov 2026 19:49:07 GMT", PKI_NOW),
                     3600);
    assert_int_equal(renewal_info_retry_after("Mon, 23 Nov 2026 17:49:07 GMT", PKI_NOW),
                     0);
    assert_int_equal(renewal_info_retry_after("", PKI_NOW), 0);
    assert_int_equal(renewal_info_retry_after("-1", PKI_NOW), 0);
    assert_int_equal(renewal_info_retry_after("12h", PKI_NOW), 0);
    assert_int_equal(renewal_info_retry_after("soon", PKI_NOW), 0);
    assert_int_equal(renewal_info_retry_after("Mon, 23 Nov 2026 19:49:07 GMT+1", PKI_NOW),
                     0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_id_is_that_of_the_standard),
        cmocka_unit_test(an_id_may_be_as_long_as_its_parts),
        cmocka_unit_test(without_a_key_identifier_there_is_no_id),
        cmocka_unit_test(a_window_is_read_in_every_form_of_its_times),
        cmocka_unit_test(nonsense_is_refused),
        cmocka_unit_test(an_explanation_is_a_link_that_can_be_shown),
        cmocka_unit_test(retry_after_is_seconds_or_a_date),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
