#include "app/commands.h"
#include "app/setup.h"
#include "base/log.h"
#include "domain/config_show.h"
#include "domain/json_text.h"

#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

static int show(const struct config *config, const struct command_line *line,
                struct err *err)
{
    const bool changed_only = command_has(line, "changed");
    BUF_SCOPED text = {0};
    int failed;

    if (command_has(line, "json")) {
        buf_init(&text, CONFIG_SHOW_MAX_BYTES);
        failed = json_to_text(config_show_json(config, changed_only), 2,
                              "cannot show the settings", &text, err);
    } else {
        failed = config_show_yaml(config, changed_only, &text, err);
    }
    if (failed < 0)
        return -1;
    fputs(buf_str(&text), stdout);
    return 0;
}

static int run(const struct command_line *line)
{
    struct config config;
    struct err err = ERR_INIT;
    int code;

    signal(SIGPIPE, SIG_IGN); /* a reader that has seen enough is a failed write */
    setup_log_to(STDERR_FILENO);
    code = setup_load(&config, line, SETUP_LOG_WARNINGS);
    if (code == 0 && show(&config, line, &err) < 0) {
        log_fatal("%s", err.message);
        code = EXIT_FAILURE;
    }
    config_done(&config);
    return code;
}

static const struct command_option options[] = {
    SETUP_OPTIONS,
    {"changed", NULL, "only what file, environment or --set say", NULL},
    {"json", NULL, "as JSON, for machines", NULL},
    {0},
};

static const char *const examples[] = {
    "cert-manager config",
    "cert-manager config --changed",
    "cert-manager config --config new.yaml --json | jq '.settings[\"acme.email\"]'",
    NULL,
};

const struct command cmd_config = {
    .name = "config",
    .summary = "show the settings in force, and where each comes from",
    .description =
        "Shows the settings in force as a settings file that could be loaded, each with "
        "where it comes from: default, the file with line and column, the variable, or "
        "--set. What is unset, and what is secret, is a comment.\n\n"
        "Errors of the settings are told as they would be at the start: all of them, "
        "each in a line.",
    .options = options,
    .exit_status =
        "0 shown\n"
        "1 cannot write\n"
        "2 wrong use\n"
        "78 unusable setting",
    .examples = examples,
    .run = run,
};
