#include "app/commands.h"
#include "app/control_client.h"
#include "app/setup.h"
#include "base/log.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

static int ask(const struct command_line *line, const struct config *config,
               enum log_level *level)
{
    char body[64];
    struct control_question question = {.method = "GET", .path = "/v1/log-level"};
    struct err err = ERR_INIT;
    json_t *answer;

    if (level != NULL) {
        question.method = "POST";
        question.body = body;
        question.body_len = (size_t)snprintf(body, sizeof body, "{\"level\": \"%s\"}",
                                             log_level_name(*level));
    }
    if (control_ask_json(config, &question, &answer, &err) < 0) {
        command_complain(line, "%s", err.message);
        return EXIT_FAILURE;
    }
    puts(control_text(answer, "level"));
    json_decref(answer);
    return EXIT_SUCCESS;
}

static int run(const struct command_line *line)
{
    const char *said = line->operands[0];
    struct config config;
    enum log_level level;
    int code;

    if (said != NULL && line->operands[1] != NULL)
        return command_wrong_use(line, "surplus argument: %s", line->operands[1]);
    if (said != NULL && log_level_parse(said, &level) < 0)
        return command_wrong_use(
            line, "found \"%s\", expected debug, info, warning, error or fatal", said);
    setup_harden();
    code = setup_reach(&config, line);
    if (code == 0)
        code = ask(line, &config, said == NULL ? NULL : &level);
    config_done(&config);
    return code;
}

static const struct command_option options[] = {
    SETUP_OPTIONS,
    {0},
};

static const char *const examples[] = {
    "cert-manager log-level",
    "cert-manager log-level debug",
    NULL,
};

const struct command cmd_log_level = {
    .name = "log-level",
    .summary = "show how much the daemon logs, or change it",
    .description =
        "Prints from which level on the daemon logs, or changes it until its settings "
        "are read again: LEVEL is debug, info, warning, error or fatal.",
    .options = options,
    .operands = "[LEVEL]",
    .exit_status =
        "0 shown, or changed\n"
        "1 no daemon answers\n"
        "2 wrong use\n"
        "78 unusable setting",
    .examples = examples,
    .run = run,
};
