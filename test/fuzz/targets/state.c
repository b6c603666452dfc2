/*
 * The input is a file of the state folder, which lies on a volume that others may write to: each of
 * them is tried. What is read means the same when it was written again.
 */
#include "domain/account.h"
#include "domain/certbot_record.h"
#include "domain/journal.h"
#include "domain/keys.h"
#include "domain/renewal_record.h"
#include "domain/rtmr_intent.h"

#include "base/secret.h"
#include "support/fuzz.h"

#include <stdlib.h>
#include <string.h>

enum { FILE_MAX_BYTES = 256 * 1024 };

static void require_leaf(const char *leaf)
{
    FUZZ_REQUIRE(leaf[0] == '\0' || strlen(leaf) == 64);
}

static void read_intent(const char *json)
{
    struct journal_intent intent;
    struct journal_intent again;
    struct err err = ERR_INIT;
    BUF_SCOPED text = {.max = FILE_MAX_BYTES};

    if (journal_intent_read(json, &intent, &err) < 0) {
        fuzz_require_refusal(&err);
        return;
    }
    require_leaf(intent.leaf);
    require_leaf(intent.previous);
    require_leaf(journal_wanted(&intent));
    FUZZ_REQUIRE(journal_intent_write(&intent, &text, &err) == 0);
    FUZZ_REQUIRE(journal_intent_read(buf_str(&text), &again, &err) == 0);
    FUZZ_REQUIRE(again.way == intent.way && strcmp(again.leaf, intent.leaf) == 0 &&
                 strcmp(again.previous, intent.previous) == 0);
    fuzz_note_accepted();
}

static void read_record(const char *json)
{
    struct journal_record record;
    struct journal_record again;
    struct err err = ERR_INIT;
    BUF_SCOPED text = {.max = FILE_MAX_BYTES};

    if (journal_record_read(json, &record, &err) < 0) {
        fuzz_require_refusal(&err);
        return;
    }
    require_leaf(record.leaf);
    require_leaf(record.event);
    FUZZ_REQUIRE(journal_record_write(&record, &text, &err) == 0);
    FUZZ_REQUIRE(journal_record_read(buf_str(&text), &again, &err) == 0);
    FUZZ_REQUIRE(strcmp(again.leaf, record.leaf) == 0 &&
                 strcmp(again.event, record.event) == 0 &&
                 strcmp(again.boot, record.boot) == 0);
    fuzz_note_accepted();
}

/* Whatever stands there, the certificate is renewed within its life. */
static void require_within_life(const struct renewal_record *record)
{
    static const int64_t lives[] = {1, 3600, 6 * 86400, 90 * 86400};

    for (size_t i = 0; i < sizeof lives / sizeof lives[0]; i++) {
        const struct renewal_terms terms = {.window = record->info.window,
                                            .spread = record->spread,
                                            .shared = record->shared};
        struct renewal due = renewal_of(&terms, FUZZ_NOW, FUZZ_NOW + lives[i]);

        FUZZ_REQUIRE(due.at >= FUZZ_NOW && due.at <= FUZZ_NOW + lives[i]);
    }
}

static void read_renewal(const char *json)
{
    struct renewal_record record;
    struct renewal_record again;
    struct err err = ERR_INIT;
    BUF_SCOPED text = {.max = FILE_MAX_BYTES};
    BUF_SCOPED second = {.max = FILE_MAX_BYTES};

    if (renewal_record_read(json, &record, &err) < 0) {
        fuzz_require_refusal(&err);
        FUZZ_REQUIRE(record.leaf[0] == '\0');
        return;
    }
    require_within_life(&record);
    FUZZ_REQUIRE(renewal_record_write(&record, &text, &err) == 0);
    FUZZ_REQUIRE_TEXT(renewal_record_read(buf_str(&text), &again, &err) == 0,
                      err.message);
    FUZZ_REQUIRE(renewal_record_write(&again, &second, &err) == 0);
    FUZZ_REQUIRE(fuzz_same(&text, &second));
    renewal_record_note_failure(&record, false, 0, FUZZ_NOW, 0);
    FUZZ_REQUIRE(record.ask_at > FUZZ_NOW &&
                 record.ask_at <= FUZZ_NOW + 2 * RENEWAL_ASK_MAX_S);
    fuzz_note_accepted();
}

static void read_certbot(const unsigned char *bytes, size_t len)
{
    static char name[] = "app.example.org";
    static char *names[] = {name};
    static const struct config_list list = {.items = names, .count = 1};
    static const struct certbot_purpose purpose = {.directory =
                                                       "https://ca.example.net/directory",
                                                   .names = &list,
                                                   .key = "0123456789abcdef"};
    struct certbot_record record;
    struct certbot_record again;
    struct err err = ERR_INIT;
    BUF_SCOPED json = {.max = FILE_MAX_BYTES};
    BUF_SCOPED text = {.max = FILE_MAX_BYTES};

    FUZZ_REQUIRE(buf_append(&json, bytes, len, &err) == 0);
    if (certbot_record_read(&json, &purpose, &record, &err) < 0) {
        fuzz_require_refusal(&err);
        FUZZ_REQUIRE(record.pid == 0);
        return;
    }
    /* It is a process that may be ended. */
    FUZZ_REQUIRE(record.pid > 1);
    FUZZ_REQUIRE(certbot_record_write(&record, &purpose, &text, &err) == 0);
    FUZZ_REQUIRE(certbot_record_read(&text, &purpose, &again, &err) == 0);
    FUZZ_REQUIRE(again.pid == record.pid && again.started == record.started &&
                 again.begun == record.begun && again.ours);
    fuzz_note_accepted();
}

static void read_register(const unsigned char *bytes, size_t len)
{
    unsigned char after[EVENT_DIGEST_BYTES];
    struct rtmr_intent intent;
    struct rtmr_intent again;
    struct err err = ERR_INIT;
    BUF_SCOPED text = {.max = 0};
    char *json = fuzz_text(bytes, len);
    int failed = rtmr_intent_read(&intent, json, len, &err);

    free(json);
    if (failed < 0) {
        fuzz_require_refusal(&err);
        return;
    }
    FUZZ_REQUIRE(rtmr_intent_after(&intent, after, &err) == 0);
    FUZZ_REQUIRE(rtmr_intent_write(&intent, &text, &err) == 0);
    FUZZ_REQUIRE(rtmr_intent_read(&again, buf_str(&text), text.len, &err) == 0);
    FUZZ_REQUIRE(memcmp(&again, &intent, sizeof again) == 0);
    fuzz_note_accepted();
}

static EVP_PKEY *development_key(void)
{
    static EVP_PKEY *key;
    struct secret *material;
    struct err err = ERR_INIT;

    if (key != NULL)
        return key;
    material = keys_development_material();
    FUZZ_REQUIRE(keys_derive(material, &key, &err) == 0);
    secret_free(material);
    return key;
}

/* An account that is remembered was sealed by us, whatever else is there. */
static void read_accounts(const char *json)
{
    const struct account_owner owner = {.directory = "https://ca.example.net/directory",
                                        .version = "v1",
                                        .thumbprint =
                                            "iZsPYk3T3W_-hT0q6nyIBA9iQvqy1J5Hd8dEBuGJdHk",
                                        .seal_key = development_key()};
    const struct account ours = {.url = "https://ca.example.net/acct/1",
                                 .caa_identity = "ca.example.net"};
    struct account found;
    struct err err = ERR_INIT;
    BUF_SCOPED text = {.max = FILE_MAX_BYTES};

    if (account_find(json, &owner, &found) == ACCOUNT_REMEMBERED)
        fuzz_note_accepted();
    else
        FUZZ_REQUIRE(found.url[0] == '\0' && found.caa_identity[0] == '\0');
    FUZZ_REQUIRE_TEXT(account_note(json, &owner, &ours, &text, &err) == 0, err.message);
    FUZZ_REQUIRE(account_find(buf_str(&text), &owner, &found) == ACCOUNT_REMEMBERED);
    FUZZ_REQUIRE(strcmp(found.url, ours.url) == 0);
}

void fuzz_one(const unsigned char *bytes, size_t len)
{
    char *json = fuzz_text(bytes, len);

    read_intent(json);
    read_record(json);
    read_renewal(json);
    read_certbot(bytes, len);
    read_register(bytes, len);
    read_accounts(json);
    free(json);
}
