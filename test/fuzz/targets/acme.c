/*
 * The input is what a CA answers, in turn, to whoever wants an account there, and to whoever asks when
 * a certificate is to be renewed: see support/answers.h.
 */
#include "adapters/acme_account.h"
#include "adapters/renewal_info.h"

#include "base/secret.h"
#include "domain/account.h"
#include "domain/config.h"
#include "domain/keys.h"
#include "domain/renewal.h"
#include "support/answers.h"
#include "support/fuzz.h"
#include "support/timers.h"

#include <stdlib.h>
#include <string.h>

enum { CALLS_MAX = 16 };

/* base64url of 32 times 0x01, which is the private key. */
#define PRIVATE_KEY "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE"

static char directory_url[] = "https://ca.example.net/directory";
static char email[] = "a@example.org";
static char profile[] = "shortlived";
static const struct authority authority = {.directory = directory_url,
                                           .profile = profile};

static void run(struct http *http, const struct ended *ended)
{
    while (!ended->is_over)
        FUZZ_REQUIRE(answers_give(http) || timers_next());
    FUZZ_REQUIRE(!timers_next());
    FUZZ_REQUIRE(http->calls > 0 && http->calls <= CALLS_MAX);
}

/* What stands in it is copied into DNS by people. */
static void make_record(const struct acme_account *account)
{
    char record[ACCOUNT_CAA_SIZE];
    struct account known = {.url = ""};

    memcpy(known.url, account->url, sizeof known.url);
    memcpy(known.caa_identity, account->caa_identity, sizeof known.caa_identity);
    account_caa_record(&known, "app.example.org", record);
    FUZZ_REQUIRE_TEXT(strpbrk(record, "\\\t\r\n") == NULL, record);
}

static void find_account(const unsigned char *bytes, size_t len, EVP_PKEY *key,
                         bool existing_only)
{
    char *text = fuzz_text(bytes, len);
    struct http http;
    struct config config = {.acme.email = email};
    struct ended ended = {.is_over = false};
    struct acme_account account;

    answers_init(&http, text);
    http.told = PRIVATE_KEY;
    acme_account_start(&account,
                       &(struct acme_account_request){.http = &http,
                                                      .config = &config,
                                                      .authority = &authority,
                                                      .key = key,
                                                      .existing_only = existing_only},
                       ended_done, &ended);
    run(&http, &ended);
    if (ended.err.kind == ERR_NONE) {
        FUZZ_REQUIRE(account.url[0] != '\0' && !account.deactivated);
        FUZZ_REQUIRE(!existing_only || !account.created);
        make_record(&account);
        fuzz_note_accepted();
    } else {
        fuzz_require_refusal(&ended.err);
        FUZZ_REQUIRE(strstr(ended.err.message, directory_url) != NULL);
    }
    free(text);
}

static void ask_window(const unsigned char *bytes, size_t len)
{
    char *text = fuzz_text(bytes, len);
    struct http http;
    struct ended ended = {.is_over = false};
    struct renewal_info_call call;

    answers_init(&http, text);
    renewal_info_start(
        &call,
        &(struct renewal_info_request){.http = &http,
                                       .authority = &authority,
                                       .id = "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE"},
        ended_done, &ended);
    run(&http, &ended);
    FUZZ_REQUIRE(call.retry_after_s >= 0);
    if (ended.err.kind != ERR_NONE) {
        fuzz_require_refusal(&ended.err);
    } else if (call.offered) {
        struct renewal_terms terms = {.window = call.info.window};
        struct renewal due = renewal_of(&terms, FUZZ_NOW, FUZZ_NOW + 90 * 86400);

        FUZZ_REQUIRE(renewal_window_is_sound(&call.info.window));
        FUZZ_REQUIRE(due.at >= FUZZ_NOW && due.at <= FUZZ_NOW + 90 * 86400);
        fuzz_require_printable(call.info.explanation);
        fuzz_note_accepted();
    }
    free(text);
}

void fuzz_one(const unsigned char *bytes, size_t len)
{
    static EVP_PKEY *key;

    if (key == NULL) {
        struct secret *material = keys_development_material();
        struct err err = ERR_INIT;

        FUZZ_REQUIRE(keys_derive(material, &key, &err) == 0);
        secret_free(material);
    }
    find_account(bytes, len, key, false);
    find_account(bytes, len, key, true);
    ask_window(bytes, len);
}
