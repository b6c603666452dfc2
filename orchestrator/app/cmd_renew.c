#include "app/commands.h"
#include "app/control_client.h"
#include "app/control_follow.h"
#include "app/setup.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What is known at once is told at once. */
static int report(const json_t *accepted, struct err *err)
{
    const char *state = control_text(accepted, "state");
    const char *text = control_text(accepted, "text");

    if (strcmp(state, "failed") == 0)
        return err_set(err, ERR_PEER, "%s", text);
    if (strcmp(state, "done") == 0)
        printf("%s\n", text);
    else
        printf(
            "it is on its way (%s); --wait, or cert-manager status, tells what comes "
            "of it\n",
            text);
    return 0;
}

static int ask(const struct command_line *line, const struct config *config)
{
    const char *body =
        command_has(line, "force") ? "{\"force\": true}" : "{\"force\": false}";
    const struct control_question question = {
        .method = "POST",
        .path = "/v1/renew",
        .body = body,
        .body_len = strlen(body),
    };
    struct err err = ERR_INIT;
    json_t *accepted;
    int failed;

    failed = control_ask_json(config, &question, &accepted, &err);
    if (failed == 0) {
        failed = command_has(line, "wait")
                     ? control_follow(config, "renew", accepted, &err)
                     : report(accepted, &err);
        json_decref(accepted);
    }
    if (failed < 0)
        command_complain(line, "%s", err.message);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int run(const struct command_line *line)
{
    struct config config;
    int code;

    setup_harden();
    code = setup_reach(&config, line);
    if (code == 0)
        code = ask(line, &config);
    config_done(&config);
    return code;
}

static const struct command_option options[] = {
    SETUP_OPTIONS,
    {"force", NULL,
     "order although it is not due, and take no certificate from other replicas instead",
     NULL},
    {"wait", NULL, "until it is served, or has failed, and tell the steps", NULL},
    {0},
};

static const char *const examples[] = {
    "cert-manager renew --wait",
    "cert-manager renew --force --wait",
    NULL,
};

const struct command cmd_renew = {
    .name = "renew",
    .summary = "have the daemon renew the certificate now",
    .description =
        "The daemon does what it would do in its own time: a certificate that is due is "
        "ordered now, whatever pause it has made since a try that failed. One that is "
        "not due stays, and the command says until when; --force orders all the same.\n\n"
        "The limits of the CA are kept in any case: while they leave no room for an "
        "order, or the CA has named a time, the command fails and says from when on "
        "there may be one. A try with --force that fails is repeated in its time, like "
        "any other, until it succeeds or the daemon is started again.",
    .options = options,
    .exit_status =
        "0 renewed, on its way (without --wait), or not due\n"
        "1 it failed, may not be ordered now, or no daemon answers\n"
        "2 wrong use\n"
        "78 unusable setting",
    .examples = examples,
    .run = run,
};
