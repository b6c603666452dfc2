#include "domain/caa.h"

#include "support/dns.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define ACCOUNT "https://ca.example/acct/7"

static const char *const lets_encrypt[] = {"letsencrypt.org"};

static struct caa_request usual(void)
{
    return (struct caa_request){.issuers = lets_encrypt,
                                .issuer_count = 1,
                                .account_url = ACCOUNT,
                                .method = "http-01"};
}

static void add(struct caa_set *set, bool critical, const char *tag, const char *value)
{
    struct caa_record *record = &set->items[set->count++];

    *record = (struct caa_record){.critical = critical};
    snprintf(record->tag, sizeof record->tag, "%s", tag);
    snprintf(record->value, sizeof record->value, "%s", value);
}

/* One record "issue" with this value. */
static void expect_issue(const char *value, enum caa_verdict verdict)
{
    struct caa_request request = usual();
    struct caa_set set = {.count = 0};
    char why[CAA_WHY_SIZE];

    add(&set, false, "issue", value);
    if (caa_judge(&set, &request, why) != verdict)
        fail_msg("%s: %s", value, why);
}

/* ---- RFC 8659 §4.2, §4.3 ---- */

static void an_empty_set_permits(void **state)
{
    struct caa_request request = usual();
    struct caa_set set = {.count = 0};
    char why[CAA_WHY_SIZE];

    (void)state;
    assert_int_equal(caa_judge(&set, &request, why), CAA_PERMITS);
    add(&set, false, "iodef", "mailto:a@b");
    assert_int_equal(caa_judge(&set, &request, why), CAA_PERMITS);
}

static void only_who_is_named_may_issue(void **state)
{
    (void)state;
    expect_issue("letsencrypt.org", CAA_PERMITS);
    expect_issue("LetsEncrypt.ORG", CAA_PERMITS);
    expect_issue(" \tletsencrypt.org\t ", CAA_PERMITS);
    expect_issue("letsencrypt.org;", CAA_PERMITS);
    expect_issue("letsencrypt.org ; a=b ; c=", CAA_PERMITS);
    expect_issue("ca.example", CAA_FORBIDS);
    expect_issue("letsencrypt.org.example", CAA_FORBIDS);
    expect_issue("x.letsencrypt.org", CAA_FORBIDS);
    expect_issue("letsencrypt.or", CAA_FORBIDS);
    expect_issue(";", CAA_FORBIDS);
    expect_issue("", CAA_FORBIDS);
    expect_issue("  ", CAA_FORBIDS);
    expect_issue("; letsencrypt.org", CAA_FORBIDS);
}

static void a_value_of_another_form_names_nobody(void **state)
{
    (void)state;
    expect_issue("%%%%%", CAA_FORBIDS);
    expect_issue("letsencrypt.org.", CAA_FORBIDS);
    expect_issue(".letsencrypt.org", CAA_FORBIDS);
    expect_issue("letsencrypt.org ca.example", CAA_FORBIDS);
    expect_issue("letsencrypt.org a=b", CAA_FORBIDS);
    expect_issue("letsencrypt.org; a", CAA_FORBIDS);
    expect_issue("letsencrypt.org; =b", CAA_FORBIDS);
    expect_issue("letsencrypt.org; a=b c", CAA_FORBIDS);
    expect_issue("letsencrypt.org; a=b;", CAA_FORBIDS);
    expect_issue("letsencrypt.org; a=b;; c=d", CAA_FORBIDS);
    expect_issue("letsencrypt.org; a-=b", CAA_FORBIDS);
    expect_issue("letsencrypt.org; a_b=c", CAA_FORBIDS);
    expect_issue("letsencrypt.org; a=\xc3\xa4", CAA_FORBIDS);
}

static void one_of_several_records_is_enough(void **state)
{
    struct caa_request request = usual();
    struct caa_set set = {.count = 0};
    char why[CAA_WHY_SIZE];

    (void)state;
    add(&set, false, "issue", ";");
    add(&set, false, "issue", "ca.example");
    assert_int_equal(caa_judge(&set, &request, why), CAA_FORBIDS);
    assert_string_equal(why, "not permitted by: 0 issue \";\"");
    add(&set, false, "ISSUE", "letsencrypt.org");
    assert_int_equal(caa_judge(&set, &request, why), CAA_PERMITS);
    assert_string_equal(why, "permitted by: 0 ISSUE \"letsencrypt.org\"");
}

static void a_critical_record_has_to_be_known(void **state)
{
    struct caa_request request = usual();
    struct caa_set set = {.count = 0};
    char why[CAA_WHY_SIZE];

    (void)state;
    add(&set, true, "issue", "letsencrypt.org");
    add(&set, true, "IODEF", "mailto:a@b");
    add(&set, false, "tbs", "Unknown");
    assert_int_equal(caa_judge(&set, &request, why), CAA_PERMITS);
    add(&set, true, "tbs", "Unknown");
    assert_int_equal(caa_judge(&set, &request, why), CAA_FORBIDS);
    assert_string_equal(why,
                        "a critical record that CAs do not know: 128 tbs \"Unknown\"");
}

static void issuewild_is_for_wildcards_alone(void **state)
{
    struct caa_request request = usual();
    struct caa_set set = {.count = 0};
    char why[CAA_WHY_SIZE];

    (void)state;
    add(&set, false, "issuewild", ";");
    assert_int_equal(caa_judge(&set, &request, why), CAA_PERMITS);
    request.wildcard = true;
    assert_int_equal(caa_judge(&set, &request, why), CAA_FORBIDS);
    /* With one of them, no "issue" counts for a wildcard. */
    add(&set, false, "issue", "letsencrypt.org");
    assert_int_equal(caa_judge(&set, &request, why), CAA_FORBIDS);
    add(&set, false, "issuewild", "letsencrypt.org");
    assert_int_equal(caa_judge(&set, &request, why), CAA_PERMITS);
    /* Without any, "issue" counts for wildcards, too. */
    set.count = 0;
    add(&set, false, "issue", "ca.example");
    assert_int_equal(caa_judge(&set, &request, why), CAA_FORBIDS);
}

/* ---- RFC 8657 ---- */

static void an_account_that_is_pinned_has_to_be_ours(void **state)
{
    (void)state;
    expect_issue("letsencrypt.org; accounturi=" ACCOUNT, CAA_PERMITS);
    expect_issue("letsencrypt.org;ACCOUNTURI = " ACCOUNT, CAA_PERMITS);
    expect_issue("letsencrypt.org; accounturi=" ACCOUNT "0", CAA_FORBIDS);
    expect_issue("letsencrypt.org; accounturi=https://CA.example/acct/7", CAA_FORBIDS);
    expect_issue("letsencrypt.org; accounturi=", CAA_FORBIDS);
    expect_issue("letsencrypt.org; accounturi=" ACCOUNT "; accounturi=" ACCOUNT,
                 CAA_FORBIDS);
    expect_issue("ca.example; accounturi=" ACCOUNT, CAA_FORBIDS);
}

static void a_method_has_to_be_one_of_those_named(void **state)
{
    (void)state;
    expect_issue("letsencrypt.org; validationmethods=http-01", CAA_PERMITS);
    expect_issue("letsencrypt.org; validationmethods=dns-01,http-01,ca-x", CAA_PERMITS);
    expect_issue("letsencrypt.org; validationmethods=dns-01", CAA_FORBIDS);
    expect_issue("letsencrypt.org; validationmethods=http-012", CAA_FORBIDS);
    expect_issue("letsencrypt.org; validationmethods=", CAA_FORBIDS);
    expect_issue("letsencrypt.org; validationmethods=http-01;validationmethods=http-01",
                 CAA_FORBIDS);
    expect_issue("letsencrypt.org; validationmethods=http-01; accounturi=" ACCOUNT,
                 CAA_PERMITS);
    expect_issue("letsencrypt.org; validationmethods=dns-01; accounturi=" ACCOUNT,
                 CAA_FORBIDS);
}

static void what_is_not_known_leaves_it_undecided(void **state)
{
    struct caa_request request = usual();
    struct caa_set set = {.count = 0};
    char why[CAA_WHY_SIZE];

    (void)state;
    request.account_url = "";
    add(&set, false, "issue", "letsencrypt.org; accounturi=" ACCOUNT);
    assert_int_equal(caa_judge(&set, &request, why), CAA_UNDECIDED);
    add(&set, false, "issue", ";");
    assert_int_equal(caa_judge(&set, &request, why), CAA_UNDECIDED);
    add(&set, false, "issue", "letsencrypt.org");
    assert_int_equal(caa_judge(&set, &request, why), CAA_PERMITS);

    request.issuer_count = 0;
    assert_int_equal(caa_judge(&set, &request, why), CAA_UNDECIDED);
    set.count = 0;
    add(&set, false, "issue", ";");
    assert_int_equal(caa_judge(&set, &request, why), CAA_FORBIDS);
}

static void a_record_that_is_unusable_names_nobody(void **state)
{
    struct caa_request request = usual();
    struct caa_set set = {.count = 0};
    char why[CAA_WHY_SIZE];

    (void)state;
    add(&set, false, "issue", "letsencrypt.org");
    set.items[0].unusable = true;
    assert_int_equal(caa_judge(&set, &request, why), CAA_FORBIDS);
}

/* ---- messages ---- */

static void a_parent_is_what_is_behind_the_first_dot(void **state)
{
    (void)state;
    assert_string_equal(caa_parent("a.b.c"), "b.c");
    assert_null(caa_parent("c"));
    assert_null(caa_parent("c."));
}

static int read_message(const struct dns_message *message, const char *name,
                        struct caa_set *ret, char alias[CAA_NAME_SIZE], struct err *err)
{
    return caa_read_message(message->bytes, message->len, name, ret, alias, err);
}

static void records_are_read_with_all_that_they_have(void **state)
{
    char longest[CAA_VALUE_SIZE + 1];
    const struct dns_record records[] = {
        {"App.Example.test", .flags = 128, .tag = "issue", .value = "a.example"},
        {"app.example.test", .flags = 127, .tag = "issue", .value = ""},
        {"other.test", .tag = "issue", .value = "b.example"},
        {"app.example.test", .tag = "issue", .value = "a\0b", .value_len = 3},
        {"app.example.test", .tag = "issue", .value = longest},
        {"app.example.test", .tag = "a-tag-that-is-longer-than-any-that-is-known",
         .value = "x"},
    };
    static struct caa_set set;
    struct dns_message message;
    char alias[CAA_NAME_SIZE];
    struct err err = ERR_INIT;

    (void)state;
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    dns_begin(&message, 1, 0, "app.example.test");
    for (size_t i = 0; i < sizeof records / sizeof records[0]; i++)
        dns_add(&message, &records[i], i % 2 == 0);
    assert_int_equal(read_message(&message, "app.example.test", &set, alias, &err), 0);
    assert_int_equal(set.count, 5);
    assert_true(set.items[0].critical && !set.items[1].critical);
    assert_string_equal(set.items[0].value, "a.example");
    assert_true(set.items[2].unusable && set.items[3].unusable);
    assert_string_equal(set.items[4].tag, "a-tag-that-is-longer-than-any-t");
    assert_string_equal(alias, "");
}

static void a_name_that_does_not_exist_has_no_records(void **state)
{
    static struct caa_set set;
    struct dns_message message;
    char alias[CAA_NAME_SIZE];
    struct err err = ERR_INIT;

    (void)state;
    dns_begin(&message, 1, 3, "app.example.test");
    assert_int_equal(read_message(&message, "app.example.test", &set, alias, &err), 0);
    assert_int_equal(set.count, 0);
    dns_begin(&message, 1, 2, "app.example.test");
    assert_int_equal(read_message(&message, "app.example.test", &set, alias, &err), -1);
    assert_string_equal(err.message,
                        "the answer for app.example.test is an error, code 2");
}

static void more_records_than_are_looked_at_are_an_error(void **state)
{
    const struct dns_record record = {"a.test", .tag = "issue", .value = "b.example"};
    static struct caa_set set;
    struct dns_message message;
    char alias[CAA_NAME_SIZE];
    struct err err = ERR_INIT;

    (void)state;
    dns_begin(&message, 1, 0, "a.test");
    for (int i = 0; i < CAA_RECORDS_MAX; i++)
        dns_add(&message, &record, true);
    assert_int_equal(read_message(&message, "a.test", &set, alias, &err), 0);
    assert_int_equal(set.count, CAA_RECORDS_MAX);
    dns_add(&message, &record, true);
    assert_int_equal(read_message(&message, "a.test", &set, alias, &err), -1);
    assert_int_equal(err.kind, ERR_PEER);
}

static void aliases_of_a_message_are_followed_in_any_order(void **state)
{
    const struct dns_record records[] = {
        {"c.test", .tag = "issue", .value = "right.example"},
        {"b.test", .alias = "c.test"},
        {"a.test", .alias = "b.test"},
        {"a.test", .tag = "issue", .value = "wrong.example"},
    };
    static struct caa_set set;
    struct dns_message message;
    char alias[CAA_NAME_SIZE];
    struct err err = ERR_INIT;

    (void)state;
    dns_begin(&message, 1, 0, "a.test");
    for (size_t i = 0; i < sizeof records / sizeof records[0]; i++)
        dns_add(&message, &records[i], true);
    assert_int_equal(read_message(&message, "a.test", &set, alias, &err), 0);
    assert_int_equal(set.count, 1);
    assert_string_equal(set.items[0].value, "right.example");
    assert_string_equal(alias, "c.test");
}

static void pointers_in_circles_end(void **state)
{
    static const unsigned char message[] = {
        0, 1, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0, 0xc0, 12, 1, 1, 0, 1,
    };
    static struct caa_set set;
    char alias[CAA_NAME_SIZE];
    struct err err = ERR_INIT;

    (void)state;
    assert_int_equal(
        caa_read_message(message, sizeof message, "a.test", &set, alias, &err), -1);
    assert_string_equal(err.message, "the answer for a.test is no DNS message");
}

/* Cut anywhere, and with any byte changed: nothing is read that is not there. */
static void damaged_messages_do_no_harm(void **state)
{
    const struct dns_record records[] = {
        {"app.example.test", .alias = "x.other.test"},
        {"x.other.test", .flags = 128, .tag = "issue", .value = "letsencrypt.org; a=b"},
        {"x.other.test", .tag = "iodef", .value = "mailto:a@b"},
    };
    static struct caa_set set;
    struct caa_request request = usual();
    struct dns_message message;
    char alias[CAA_NAME_SIZE];
    char why[CAA_WHY_SIZE];

    (void)state;
    dns_begin(&message, 1, 0, "app.example.test");
    for (size_t i = 0; i < sizeof records / sizeof records[0]; i++)
        dns_add(&message, &records[i], true);
    for (size_t len = 0; len <= message.len; len++) {
        /* Of exactly that size, for the sanitizer. */
        unsigned char *part = malloc(len + 1);
        struct err err = ERR_INIT;
        int result;

        assert_non_null(part);
        memcpy(part, message.bytes, len);
        part = realloc(part, len > 0 ? len : 1);
        result = caa_read_message(part, len, "app.example.test", &set, alias, &err);
        assert_int_equal(result == 0, len == message.len);
        free(part);
    }
    for (size_t at = 0; at < message.len; at++) {
        for (unsigned value = 0; value < 256; value++) {
            struct dns_message changed = message;
            struct err err = ERR_INIT;

            changed.bytes[at] = (unsigned char)value;
            if (read_message(&changed, "app.example.test", &set, alias, &err) == 0)
                caa_judge(&set, &request, why);
            else
                assert_int_not_equal(err.kind, ERR_NONE);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_set_permits),
        cmocka_unit_test(only_who_is_named_may_issue),
        cmocka_unit_test(a_value_of_another_form_names_nobody),
        cmocka_unit_test(one_of_several_records_is_enough),
        cmocka_unit_test(a_critical_record_has_to_be_known),
        cmocka_unit_test(issuewild_is_for_wildcards_alone),
        cmocka_unit_test(an_account_that_is_pinned_has_to_be_ours),
        cmocka_unit_test(a_method_has_to_be_one_of_those_named),
        cmocka_unit_test(what_is_not_known_leaves_it_undecided),
        cmocka_unit_test(a_record_that_is_unusable_names_nobody),
        cmocka_unit_test(a_parent_is_what_is_behind_the_first_dot),
        cmocka_unit_test(records_are_read_with_all_that_they_have),
        cmocka_unit_test(a_name_that_does_not_exist_has_no_records),
        cmocka_unit_test(more_records_than_are_looked_at_are_an_error),
        cmocka_unit_test(aliases_of_a_message_are_followed_in_any_order),
        cmocka_unit_test(pointers_in_circles_end),
        cmocka_unit_test(damaged_messages_do_no_harm),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
