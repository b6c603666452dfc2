#include "app/commands.h"
#include "app/inquiry.h"
#include "app/setup.h"
#include "domain/csr.h"

#include <stdlib.h>
#include <unistd.h>

static int build(const struct config *config, struct buf *ret, struct err *err)
{
    struct inquiry inquiry;
    EVP_PKEY *key = NULL;
    int failed;

    if (config->tls.external_key)
        return err_set(err, ERR_CONFIG,
                       "tls.key is external: make the request where the key is, this "
                       "program does not have it");
    if (inquiry_open(&inquiry, config, err) < 0)
        return -1;
    failed = inquiry_tls_key(&inquiry, &key, err);
    inquiry_close(&inquiry);
    if (failed == 0)
        failed = csr_build(key, &config->domains, ret, err);
    EVP_PKEY_free(key);
    return failed;
}

static int run(const struct command_line *line)
{
    struct config config;
    struct err err = ERR_INIT;
    BUF_SCOPED request = {0};
    int code;

    setup_harden();
    setup_log_to(STDERR_FILENO);
    buf_init(&request, CSR_MAX_BYTES);
    code = setup_load(&config, line, SETUP_LOG_WARNINGS);
    if (code == 0 && build(&config, &request, &err) == 0) {
        fputs(buf_str(&request), stdout);
    } else if (code == 0) {
        command_complain(line, "%s", err.message);
        code = err.kind == ERR_CONFIG ? EXIT_CONFIG : EXIT_FAILURE;
    }
    config_done(&config);
    return code;
}

static const struct command_option options[] = {
    SETUP_OPTIONS,
    {0},
};

static const char *const examples[] = {
    "cert-manager csr >app.csr",
    "certbot certonly --csr app.csr --manual --preferred-challenges dns",
    "cert-manager csr | openssl req -noout -text",
    NULL,
};

const struct command cmd_csr = {
    .name = "csr",
    .summary = "print the signing request for the derived key",
    .description =
        "Prints a certificate signing request, in PEM, for the key that the guest agent "
        "derives and the names of the settings. It is for people who run certbot, or "
        "another ACME client, elsewhere: the key itself never leaves this machine, and "
        "what they obtain is handed over with `cert-manager deploy`. The signature is "
        "another one each time, the rest stays the same.",
    .options = options,
    .exit_status =
        "0 shown\n"
        "1 the guest agent does not give the key\n"
        "2 wrong use\n"
        "78 unusable setting",
    .examples = examples,
    .run = run,
};
