/* Our accounts at CAs: the sealed memory of them, and the CAA record that pins one. */
#include "domain/account.h"

#include "base/secret.h"
#include "support/pki.h"
#include "support/program.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#define DIRECTORY "https://ca.test/dir"
#define URL "https://ca.test/a\"7\""

struct fixture {
    EVP_PKEY *key;
    struct account_owner owner;
    struct account account;
    struct buf json;
};

static int setup(void **state)
{
    static struct fixture f;

    f = (struct fixture){.key = pki_key(),
                         .account = {.url = URL, .caa_identity = "ca.test"}};
    f.owner = (struct account_owner){
        .directory = DIRECTORY, .version = "v1", .thumbprint = "abc", .seal_key = f.key};
    buf_init(&f.json, ACCOUNT_MEMORY_MAX_BYTES);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    buf_done(&f->json);
    EVP_PKEY_free(f->key);
    return 0;
}

/* The account is noted beside what is there. */
static void note(struct fixture *f)
{
    struct buf json;
    struct err err = ERR_INIT;

    buf_init(&json, ACCOUNT_MEMORY_MAX_BYTES);
    assert_int_equal(account_note(buf_str(&f->json), &f->owner, &f->account, &json, &err),
                     0);
    buf_done(&f->json);
    f->json = json;
}

static void expect(const struct fixture *f, enum account_memory memory, const char *url)
{
    struct account found;

    memset(&found, 'x', sizeof found);
    assert_int_equal(account_find(buf_str(&f->json), &f->owner, &found), memory);
    assert_string_equal(found.url, url);
    assert_false(found.deactivated);
}

static void an_account_is_remembered_for_its_owner(void **state)
{
    struct fixture *f = *state;
    struct account found;

    expect(f, ACCOUNT_NOT_REMEMBERED, "");
    note(f);
    expect(f, ACCOUNT_REMEMBERED, URL);
    account_find(buf_str(&f->json), &f->owner, &found);
    assert_string_equal(found.caa_identity, "ca.test");
    f->owner.thumbprint = NULL; /* not known yet */
    expect(f, ACCOUNT_REMEMBERED, URL);
    f->owner.thumbprint = "abd";
    expect(f, ACCOUNT_NOT_REMEMBERED, "");
    f->owner.thumbprint = "abc";
    f->owner.version = "v2";
    expect(f, ACCOUNT_NOT_REMEMBERED, "");
    f->owner.version = "v1";
    f->owner.directory = DIRECTORY "2";
    expect(f, ACCOUNT_NOT_REMEMBERED, "");
}

static void each_ca_has_an_account_of_its_own(void **state)
{
    struct fixture *f = *state;

    note(f);
    f->owner.directory = "https://other.test/dir";
    strcpy(f->account.url, "https://other.test/9");
    note(f);
    strcpy(f->account.url, "https://other.test/10");
    note(f);
    expect(f, ACCOUNT_REMEMBERED, "https://other.test/10");
    f->owner.directory = DIRECTORY;
    expect(f, ACCOUNT_REMEMBERED, URL);
}

static void the_memory_does_not_grow_without_end(void **state)
{
    struct fixture *f = *state;
    char directory[64];
    json_t *root;

    f->owner.directory = directory;
    for (int i = 0; i < 40; i++) {
        snprintf(directory, sizeof directory, "https://ca%d.test/dir", i);
        note(f);
    }
    expect(f, ACCOUNT_REMEMBERED, URL);
    root = json_loads(buf_str(&f->json), 0, NULL);
    assert_int_equal(json_array_size(json_object_get(root, "accounts")), 16);
    json_decref(root);
}

/* What somebody else wrote, or changed, is not ours. */
static void an_entry_without_our_seal_counts_as_none(void **state)
{
    static const char *const members[] = {"url", "caa_identity", "seal"};
    struct fixture *f = *state;
    EVP_PKEY *other = pki_key();

    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++) {
        char *text;
        json_t *root;
        struct err err = ERR_INIT;

        buf_clear(&f->json);
        note(f);
        root = json_loads(buf_str(&f->json), 0, NULL);
        json_object_set_new(json_array_get(json_object_get(root, "accounts"), 0),
                            members[i], json_string("https://ca.test/attacker"));
        text = json_dumps(root, 0);
        assert_non_null(text);
        buf_clear(&f->json);
        assert_int_equal(buf_append_str(&f->json, text, &err), 0);
        expect(f, ACCOUNT_NOT_REMEMBERED, "");
        wipe_free(text);
        json_decref(root);
    }
    buf_clear(&f->json);
    note(f);
    f->owner.seal_key = other;
    expect(f, ACCOUNT_NOT_REMEMBERED, "");
    EVP_PKEY_free(other);
}

static void a_damaged_memory_is_told_and_replaced(void **state)
{
    static const char *const texts[] = {"{", "[]", "{}", "{\"accounts\":7}",
                                        "{\"accounts\":[],\"accounts\":[]}"};
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct err err = ERR_INIT;

        buf_clear(&f->json);
        assert_int_equal(buf_append_str(&f->json, texts[i], &err), 0);
        expect(f, ACCOUNT_MEMORY_DAMAGED, "");
        note(f);
        expect(f, ACCOUNT_REMEMBERED, URL);
    }
}

static void entries_of_the_wrong_form_are_passed_over(void **state)
{
    static const char *const entries[] = {
        "7", "{}", "{\"directory\":\"" DIRECTORY "\",\"version\":\"v1\"}",
        "{\"directory\":\"" DIRECTORY
        "\",\"version\":\"v1\",\"thumbprint\":\"abc\","
        "\"url\":7,\"caa_identity\":\"\",\"seal\":\"\"}",
        "{\"directory\":\"" DIRECTORY
        "\",\"version\":\"v1\",\"thumbprint\":\"abc\","
        "\"url\":\"u\",\"caa_identity\":\"\"}"};
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof entries / sizeof entries[0]; i++) {
        struct err err = ERR_INIT;

        buf_clear(&f->json);
        assert_int_equal(buf_printf(&f->json, &err, "{\"accounts\":[%s]}", entries[i]),
                         0);
        expect(f, ACCOUNT_NOT_REMEMBERED, "");
    }
}

static void a_url_that_is_no_text_is_refused(void **state)
{
    struct fixture *f = *state;
    struct buf json;
    struct err err = ERR_INIT;

    buf_init(&json, ACCOUNT_MEMORY_MAX_BYTES);
    strcpy(f->account.url, "\xff");
    assert_int_equal(account_note("", &f->owner, &f->account, &json, &err), -1);
    assert_int_equal(err.kind, ERR_PEER);
    buf_done(&json);
}

static void a_caa_record_pins_the_account(void **state)
{
    struct account account = {.url = "https://ca.test/acct/7", .caa_identity = "ca.test"};
    char record[ACCOUNT_CAA_SIZE];

    (void)state;
    assert_string_equal(account_caa_record(&account, "app.example.org", record),
                        "app.example.org. CAA 0 issue \"ca.test; "
                        "validationmethods=http-01; accounturi=https://ca.test/acct/7\"");
    account.caa_identity[0] = '\0';
    assert_string_equal(account_caa_record(&account, "app.example.org", record), "");
    strcpy(account.caa_identity, "ca.test");
    strcpy(account.url, "https://ca.test/\"; x=y");
    assert_string_equal(account_caa_record(&account, "app.example.org", record), "");
    account.url[0] = '\0';
    assert_string_equal(account_caa_record(&account, "app.example.org", record), "");
}

#define account_test(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        account_test(an_account_is_remembered_for_its_owner),
        account_test(each_ca_has_an_account_of_its_own),
        account_test(the_memory_does_not_grow_without_end),
        account_test(an_entry_without_our_seal_counts_as_none),
        account_test(a_damaged_memory_is_told_and_replaced),
        account_test(entries_of_the_wrong_form_are_passed_over),
        account_test(a_url_that_is_no_text_is_refused),
        account_test(a_caa_record_pins_the_account),
    };

    return cmocka_run_group_tests(tests, program_setup, NULL);
}
