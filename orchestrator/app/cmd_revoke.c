#include "adapters/acme_revocation.h"
#include "adapters/store.h"
#include "app/commands.h"
#include "app/inquiry.h"
#include "app/setup.h"
#include "base/fs.h"
#include "base/text.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ANSWER_SIZE = 300, NAMES_SIZE = 400 };

static const struct {
    const char *name;
    enum acme_revocation_reason reason;
} reasons[] = {
    {"unspecified", ACME_UNSPECIFIED},
    {"key-compromise", ACME_KEY_COMPROMISE},
    {"superseded", ACME_SUPERSEDED},
    {"cessation-of-operation", ACME_CESSATION_OF_OPERATION},
};
#define REASONS "unspecified key-compromise superseded cessation-of-operation"

struct arguments {
    const char *cert; /* file, NULL: the one in tls.dir */
    const char *directory;
    size_t reason; /* in the table */
    bool yes;
};

struct job {
    const struct command_line *line;
    const struct config *config;
    struct arguments arguments;
    struct chain *chain;
    char source[FS_PATH_MAX]; /* file that it is from */
    EVP_PKEY *account_key;
    EVP_PKEY *tls_key;
    struct acme_revocation revocation;
};

/* ---- the command line ---- */

/* 0, or the exit code. */
static int read_line(const struct command_line *line, struct arguments *ret)
{
    const char *reason = command_value(line, "reason");

    *ret = (struct arguments){
        .cert = command_value(line, "cert"),
        .directory = command_value(line, "directory"),
        .yes = command_has(line, "yes"),
    };
    while (reason != NULL && strcmp(reason, reasons[ret->reason].name) != 0) {
        if (++ret->reason == sizeof reasons / sizeof reasons[0])
            return command_wrong_use(
                line, "--reason: found \"%s\", expected one of " REASONS, reason);
    }
    if (!ret->yes && isatty(STDIN_FILENO) != 1)
        return command_wrong_use(line,
                                 "--yes is missing: standard input is no terminal, where "
                                 "you could be asked");
    return 0;
}

/* ---- what is needed ---- */

static int load_chain(struct job *job, struct err *err)
{
    struct store store;
    BUF_SCOPED pem = {0};

    if (job->arguments.cert != NULL) {
        snprintf(job->source, sizeof job->source, "%s", job->arguments.cert);
    } else {
        if (store_init(&store, job->config, err) < 0)
            return -1;
        snprintf(job->source, sizeof job->source, "%s", store.chain);
    }
    if (fs_read(job->source, CHAIN_PEM_MAX_BYTES, &pem, err) < 0)
        return -1;
    return chain_parse(pem.data, pem.len, &job->chain, err) < 0
               ? err_wrap(err, "%s", job->source)
               : 0;
}

static bool is_candidate(const struct job *job, const struct authority *authority)
{
    return job->arguments.directory == NULL ||
           strcmp(job->arguments.directory, authority->directory) == 0;
}

static int check_directory(const struct job *job, struct err *err)
{
    const struct authorities *authorities = &job->config->acme.authorities;

    for (size_t i = 0; i < authorities->count; i++) {
        if (is_candidate(job, &authorities->items[i]))
            return 0;
    }
    return err_set(
        err, ERR_CONFIG,
        "--directory: the settings name no CA %s: it has to be acme.directory or "
        "one of acme.fallback",
        job->arguments.directory);
}

/* ---- asked twice ---- */

static void describe(const struct job *job)
{
    const struct chain_leaf *leaf = chain_leaf(job->chain);
    char names[NAMES_SIZE];
    char date[TEXT_TIME_SIZE];

    chain_list_names(job->chain, names, sizeof names);
    fprintf(stderr, "file         %s\n", job->source);
    fprintf(stderr, "names        %s\n", names);
    fprintf(stderr, "serial       %s\n", leaf->serial);
    fprintf(stderr, "fingerprint  %s\n", leaf->sha256);
    fprintf(stderr, "issuer       %s\n", leaf->issuer_name);
    fprintf(stderr, "valid until  %s\n", text_time(date, leaf->not_after));
    fprintf(stderr, "reason       %s\n\n", reasons[job->arguments.reason].name);
}

/* One line of standard input, whether it is this text. */
static bool is_answered(const char *expected)
{
    char answer[ANSWER_SIZE];

    if (fgets(answer, sizeof answer, stdin) == NULL) {
        fputc('\n', stderr);
        return false;
    }
    answer[strcspn(answer, "\r\n")] = '\0';
    return strcmp(answer, expected) == 0;
}

static bool is_wanted(const struct job *job)
{
    describe(job);
    if (job->arguments.yes)
        return true;
    fputs(
        "A revocation cannot be taken back. HTTPS goes on serving this certificate "
        "until\n"
        "another one is there, and clients that look for revocations refuse it.\n\n"
        "Revoke it (yes or no)? ",
        stderr);
    if (!is_answered("yes"))
        return false;
    fprintf(stderr, "To be sure, type the domain, %s: ", job->config->domain);
    return is_answered(job->config->domain);
}

/* ---- at the CA ---- */

static int revoke_at(struct job *job, struct inquiry *inquiry,
                     const struct authority *authority, struct err *err)
{
    const struct acme_revocation_request request = {
        .http = inquiry->http,
        .loop = &inquiry->loop,
        .config = job->config,
        .authority = authority,
        .account_key = job->account_key,
        .certificate_key = chain_has_key(job->chain, job->tls_key) ? job->tls_key : NULL,
        .chain = job->chain,
        .reason = reasons[job->arguments.reason].reason,
    };
    struct inquiry_end end = {0};

    acme_revocation_start(&job->revocation, &request, inquiry_note, &end);
    return inquiry_wait(inquiry, &end, err);
}

/* A leaf does not say which directory it is from: one after the other is asked. */
static int revoke_somewhere(struct job *job, struct inquiry *inquiry,
                            const struct authority **ret, struct err *err)
{
    const struct authorities *authorities = &job->config->acme.authorities;
    struct err failure = ERR_INIT;

    for (size_t i = 0; i < authorities->count; i++) {
        const struct authority *authority = &authorities->items[i];

        if (!is_candidate(job, authority))
            continue;
        if (failure.kind != ERR_NONE)
            command_complain(job->line, "%s", failure.message);
        failure = (struct err)ERR_INIT;
        if (revoke_at(job, inquiry, authority, &failure) == 0) {
            *ret = authority;
            return 0;
        }
        err_wrap(&failure, "%s", authority->directory);
    }
    *err = failure;
    return -1;
}

static int ask(struct job *job, const struct authority **ret, struct err *err)
{
    struct inquiry inquiry;
    int failed;

    if (inquiry_open(&inquiry, job->config, err) < 0)
        return -1;
    failed = inquiry_tls_key(&inquiry, &job->tls_key, err) < 0 ||
                     inquiry_account_key(&inquiry, &job->account_key, err) < 0 ||
                     revoke_somewhere(job, &inquiry, ret, err) < 0
                 ? -1
                 : 0;
    inquiry_close(&inquiry);
    return failed;
}

/* ---- the command ---- */

static void tell_what_follows(const struct job *job, const struct authority *authority)
{
    printf("revoked%s at %s: serial %s\n",
           job->revocation.already ? " already, before this," : "", authority->directory,
           chain_leaf(job->chain)->serial);
    if (reasons[job->arguments.reason].reason == ACME_KEY_COMPROMISE)
        puts(
            "The guest agent derives the key, so the next certificate has the same one "
            "as long as the\nagent, the application and the domain stay what they are, "
            "and the CA may refuse it. Have\nanother key derived first: deploy the "
            "application anew under another identity, or change DOMAIN.");
    if (job->arguments.cert == NULL)
        puts(
            "HTTPS serves it until another one is there: `cert-manager renew --force` "
            "orders that, as far\nas the CA's limits allow; a revocation does not give "
            "any of them back.");
}

static int carry_out(struct job *job, struct err *err)
{
    const struct authority *authority = NULL;

    if (inquiry_needs_account(job->config, "ACME account", err) < 0 ||
        (job->arguments.directory != NULL && check_directory(job, err) < 0) ||
        load_chain(job, err) < 0)
        return -1;
    if (!is_wanted(job))
        return err_set(err, ERR_CANCELED, "nothing was revoked");
    if (ask(job, &authority, err) < 0)
        return err_wrap(err, "not revoked");
    tell_what_follows(job, authority);
    return 0;
}

static int run_job(struct job *job)
{
    struct err err = ERR_INIT;
    int failed = carry_out(job, &err);

    EVP_PKEY_free(job->account_key);
    EVP_PKEY_free(job->tls_key);
    chain_free(job->chain);
    if (failed == 0)
        return EXIT_SUCCESS;
    command_complain(job->line, "%s", err.message);
    return err.kind == ERR_CONFIG ? EXIT_CONFIG : EXIT_FAILURE;
}

static int run(const struct command_line *line)
{
    struct config config;
    struct arguments arguments;
    struct job *job;
    int code = read_line(line, &arguments);

    if (code != 0)
        return code;
    setup_harden();
    setup_log_to(STDERR_FILENO);
    code = setup_load(&config, line, SETUP_SKIP_WARNINGS);
    job = calloc(1, sizeof *job);
    if (code == 0 && job == NULL) {
        command_complain(line, "out of memory");
        code = EXIT_FAILURE;
    } else if (code == 0) {
        job->line = line;
        job->config = &config;
        job->arguments = arguments;
        code = run_job(job);
    }
    free(job);
    config_done(&config);
    return code;
}

static const struct command_option options[] = {
    SETUP_OPTIONS,
    {"cert", "FILE", "the certificate: PEM, leaf first; else the one in tls.dir", NULL},
    {"reason", "REASON",
     "unspecified (the default), key-compromise, superseded or cessation-of-operation",
     REASONS},
    {"directory", "URL",
     "the CA that issued it, one of the settings; else each of them is asked in turn",
     ""},
    {"yes", NULL, "do not ask; needed where standard input is no terminal", NULL},
    {0},
};

static const char *const examples[] = {
    "cert-manager revoke --reason key-compromise",
    "cert-manager revoke --cert old.pem --reason superseded --yes",
    NULL,
};

const struct command cmd_revoke = {
    .name = "revoke",
    .summary = "take a certificate back at its CA, after a compromise",
    .description =
        "Has the CA revoke the certificate in tls.dir, or another one, by the ACME "
        "account or the certificate's own key, after asking twice. It cannot be taken "
        "back, and HTTPS goes on serving the certificate until another one is there: "
        "`cert-manager renew --force`.\n\n"
        "After a compromise of the key mind that the guest agent derives it: another "
        "certificate has the same key until the application has another identity, or "
        "another domain.",
    .options = options,
    .exit_status =
        "0 revoked, also when it was before\n"
        "1 not revoked\n"
        "2 wrong use\n"
        "78 unusable setting, or one with which there is no account",
    .examples = examples,
    .run = run,
};
