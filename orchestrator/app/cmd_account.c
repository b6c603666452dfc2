#include "adapters/account_memory.h"
#include "adapters/acme_account.h"
#include "app/commands.h"
#include "app/inquiry.h"
#include "app/setup.h"
#include "app/terminal.h"
#include "domain/jose.h"
#include "domain/json_text.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { REPORT_MAX_BYTES = 256 * 1024 };

enum state { UNKNOWN, VALID, ABSENT, DEACTIVATED };

static const struct {
    const char *name;
    const char *hint; /* "" for nothing to do */
    enum terminal_style style;
} states[] = {
    [UNKNOWN] = {"not known", "", TERMINAL_DOUBTFUL},
    [VALID] = {"valid", "", TERMINAL_GOOD},
    [ABSENT] = {"none yet", "the first order makes it", TERMINAL_PLAIN},
    [DEACTIVATED] =
        {"deactivated",
         "set LETSENCRYPT_ACCOUNT_VERSION to a value that was never used, such "
         "as v2, for a new one",
         TERMINAL_BAD},
};

/* Our account at one CA. */
struct place {
    const struct authority *authority;
    struct account account; /* as it is remembered, then as the CA has it */
    enum state state;
    struct acme_account call;
    struct inquiry_end end;
    char record[ACCOUNT_CAA_SIZE];
};

struct accounts {
    const struct config *config;
    bool offline;
    char thumbprint[JOSE_THUMBPRINT_SIZE];
    size_t count;
    struct place places[AUTHORITIES_MAX];
};

/* ---- what is known ---- */

static void recall(struct accounts *accounts, const EVP_PKEY *tls_key)
{
    struct store store;
    struct err err = ERR_INIT;

    if (store_init(&store, accounts->config, &err) < 0)
        return;
    for (size_t i = 0; i < accounts->count; i++) {
        struct place *place = &accounts->places[i];
        const struct account_owner owner = {
            .directory = place->authority->directory,
            .version = accounts->config->acme.account_version,
            .thumbprint = accounts->thumbprint,
            .seal_key = tls_key,
        };

        account_memory_load(&store, &owner, &place->account);
    }
}

static void take_answer(struct place *place)
{
    const struct acme_account *call = &place->call;
    struct account *account = &place->account;

    if (place->end.err.kind == ERR_NONE)
        place->state = VALID;
    else if (call->deactivated)
        place->state = DEACTIVATED;
    else if (call->absent)
        place->state = ABSENT;
    else
        return; /* what is remembered is all there is */
    snprintf(account->url, sizeof account->url, "%s", call->url);
    if (call->caa_identity[0] != '\0')
        snprintf(account->caa_identity, sizeof account->caa_identity, "%s",
                 call->caa_identity);
}

/* All CAs at once: one that is silent takes as long as all of them. */
static void ask(struct accounts *accounts, struct inquiry *inquiry, EVP_PKEY *key)
{
    struct err ignored = ERR_INIT;

    for (size_t i = 0; i < accounts->count; i++) {
        struct place *place = &accounts->places[i];
        const struct acme_account_request request = {
            .http = inquiry->http,
            .loop = &inquiry->loop,
            .config = accounts->config,
            .authority = place->authority,
            .key = key,
            .existing_only = true,
        };

        acme_account_start(&place->call, &request, inquiry_note, &place->end);
    }
    for (size_t i = 0; i < accounts->count; i++) {
        (void)inquiry_wait(inquiry, &accounts->places[i].end, &ignored);
        take_answer(&accounts->places[i]);
    }
}

static int find_out(struct accounts *accounts, struct inquiry *inquiry, struct err *err)
{
    EVP_PKEY *tls_key = NULL;
    EVP_PKEY *key = NULL;
    int failed = -1;

    if (inquiry_tls_key(inquiry, &tls_key, err) == 0 &&
        inquiry_account_key(inquiry, &key, err) == 0 &&
        jose_thumbprint(key, accounts->thumbprint, err) == 0) {
        recall(accounts, tls_key);
        if (!accounts->offline)
            ask(accounts, inquiry, key);
        failed = 0;
    }
    EVP_PKEY_free(key);
    EVP_PKEY_free(tls_key);
    return failed;
}

static int gather(struct accounts *accounts, struct err *err)
{
    const struct config *config = accounts->config;
    struct inquiry inquiry;
    int failed;

    if (inquiry_needs_account(config, "ACME account", err) < 0)
        return -1;
    accounts->count = config->acme.authorities.count;
    for (size_t i = 0; i < accounts->count; i++)
        accounts->places[i].authority = &config->acme.authorities.items[i];
    if (inquiry_open(&inquiry, config, err) < 0)
        return -1;
    failed = find_out(accounts, &inquiry, err);
    inquiry_close(&inquiry);
    for (size_t i = 0; i < accounts->count; i++)
        account_caa_record(&accounts->places[i].account, config->domain,
                           accounts->places[i].record);
    return failed;
}

/* ---- for people ---- */

static void print_line(const char *name, enum terminal_style style, const char *text)
{
    printf("  %-12s ", name);
    terminal_print(stdout, style, "%s", text);
    putchar('\n');
}

static void print_place(const struct place *place)
{
    putchar('\n');
    terminal_print(stdout, TERMINAL_BOLD, "%s", place->authority->directory);
    putchar('\n');
    print_line("state", states[place->state].style, states[place->state].name);
    if (place->end.err.kind != ERR_NONE && place->state == UNKNOWN)
        print_line("problem", TERMINAL_BAD, place->end.err.message);
    if (states[place->state].hint[0] != '\0')
        print_line("what to do", TERMINAL_PLAIN, states[place->state].hint);
    if (place->account.url[0] != '\0')
        print_line("account", TERMINAL_PLAIN, place->account.url);
    if (place->record[0] != '\0')
        print_line("CAA record", TERMINAL_PLAIN, place->record);
}

static void print_text(const struct accounts *accounts)
{
    const struct config *config = accounts->config;

    printf("thumbprint     %s\n", accounts->thumbprint);
    printf("version        %s\n", config->acme.account_version);
    printf("contact        %s\n",
           config->acme.email[0] == '\0' ? "none" : config->acme.email);
    for (size_t i = 0; i < accounts->count; i++)
        print_place(&accounts->places[i]);
}

/* ---- for machines ---- */

static json_t *text_or_null(const char *text)
{
    return text[0] == '\0' ? json_null() : json_of_text(text);
}

static json_t *place_json(const struct place *place)
{
    static const char *const names[] = {
        [UNKNOWN] = "unknown",
        [VALID] = "valid",
        [ABSENT] = "none",
        [DEACTIVATED] = "deactivated",
    };

    return json_pack("{s:s, s:s, s:o, s:o, s:o}", "directory",
                     place->authority->directory, "state", names[place->state], "account",
                     text_or_null(place->account.url), "caa", text_or_null(place->record),
                     "problem",
                     text_or_null(place->state == UNKNOWN ? place->end.err.message : ""));
}

static int print_json(const struct accounts *accounts, struct err *err)
{
    json_t *list = json_array();
    BUF_SCOPED text = {.max = REPORT_MAX_BYTES};

    for (size_t i = 0; i < accounts->count; i++)
        json_array_append_new(list, place_json(&accounts->places[i]));
    if (json_to_text(json_pack("{s:s, s:s, s:s, s:o}", "thumbprint", accounts->thumbprint,
                               "version", accounts->config->acme.account_version,
                               "contact", accounts->config->acme.email, "authorities",
                               list),
                     1, "the accounts cannot be written as JSON", &text, err) < 0)
        return -1;
    fputs(buf_str(&text), stdout);
    return 0;
}

/* ---- the command ---- */

static int print(const struct accounts *accounts, bool json, struct err *err)
{
    if (json)
        return print_json(accounts, err);
    print_text(accounts);
    return 0;
}

static int show(const struct command_line *line, struct accounts *accounts)
{
    struct err err = ERR_INIT;

    if (gather(accounts, &err) < 0 ||
        print(accounts, command_has(line, "json"), &err) < 0) {
        command_complain(line, "%s", err.message);
        return err.kind == ERR_CONFIG ? EXIT_CONFIG : EXIT_FAILURE;
    }
    for (size_t i = 0; i < accounts->count; i++) {
        if (!accounts->offline && accounts->places[i].state == UNKNOWN)
            return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
}

static int run(const struct command_line *line)
{
    struct config config;
    struct accounts *accounts;
    int code;

    setup_harden();
    setup_log_to(STDERR_FILENO);
    code = setup_load(&config, line, SETUP_LOG_WARNINGS);
    accounts = calloc(1, sizeof *accounts);
    if (code == 0 && accounts == NULL) {
        command_complain(line, "out of memory");
        code = EXIT_FAILURE;
    } else if (code == 0) {
        accounts->config = &config;
        accounts->offline = command_has(line, "offline");
        code = show(line, accounts);
    }
    free(accounts);
    config_done(&config);
    return code;
}

static const struct command_option options[] = {
    SETUP_OPTIONS,
    {"offline", NULL, "ask no CA: show what is remembered of earlier orders", NULL},
    {"json", NULL, "one JSON object instead of lines for people", NULL},
    {0},
};

static const char *const examples[] = {
    "cert-manager account",
    "cert-manager account --json | jq -r '.authorities[].caa'",
    NULL,
};

const struct command cmd_account = {
    .name = "account",
    .summary = "show the ACME account at each CA, and the CAA record for it",
    .description =
        "Shows the thumbprint of the ACME account's key, which the guest agent derives, "
        "and of each CA of the settings: whether it has the account, its URL, and the "
        "CAA record that lets this account alone have certificates for the domain. Each "
        "CA is asked; no account is made.",
    .options = options,
    .exit_status =
        "0 shown\n"
        "1 the guest agent does not give the key, or a CA does not answer\n"
        "2 wrong use\n"
        "78 unusable setting, or one with which there is no account",
    .examples = examples,
    .run = run,
};
