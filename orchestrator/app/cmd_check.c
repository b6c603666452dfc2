#include "app/check.h"
#include "app/commands.h"
#include "app/setup.h"
#include "base/log.h"
#include "domain/json_text.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

enum { REPORT_MAX_BYTES = 1024 * 1024 };

static void add_lines(struct verdicts *verdicts, enum verdict verdict, char *const *lines,
                      size_t count)
{
    for (size_t i = 0; i < count; i++)
        verdicts_add(verdicts, verdict, "settings", "%s", lines[i]);
}

/* Whether there are settings to go on with. */
static bool check_settings(struct verdicts *verdicts, const struct command_line *line,
                           struct config *config)
{
    struct config_report report;
    int failed = setup_read(config, &report, line);

    add_lines(verdicts, VERDICT_FAILED, report.errors, report.error_count);
    add_lines(verdicts, VERDICT_WARNING, report.warnings, report.warning_count);
    if (failed == 0 && report.warning_count == 0)
        verdicts_add(verdicts, VERDICT_OK, "settings", "%s%s", config->domain,
                     config->development ? ", in development" : "");
    config_report_done(&report);
    return failed == 0;
}

static int print(const struct verdicts *verdicts, bool json, struct err *err)
{
    BUF_SCOPED text = {.max = REPORT_MAX_BYTES};

    if (!json)
        verdicts_print(verdicts, stdout);
    else if (json_to_text(verdicts_json(verdicts), 1,
                          "the verdicts cannot be written as JSON", &text, err) < 0)
        return -1;
    else
        fputs(buf_str(&text), stdout);
    if (fflush(stdout) != 0 || ferror(stdout) != 0)
        return err_sys(err, errno, "standard output");
    return 0;
}

/* The exit code. */
static int check_all(struct check *check, struct config *config,
                     const struct command_line *line)
{
    struct err err = ERR_INIT;

    if (check_settings(check->verdicts, line, config)) {
        log_open(STDERR_FILENO, LOG_FATAL); /* the rows say it */
        check_files(check);
        check_nginx(check);
        check_others(check);
    }
    if (print(check->verdicts, command_has(line, "json"), &err) < 0) {
        command_complain(line, "%s", err.message);
        return EXIT_FAILURE;
    }
    return verdicts_hold(check->verdicts) ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int run(const struct command_line *line)
{
    struct verdicts *verdicts = calloc(1, sizeof *verdicts);
    struct config config = {0};
    struct check check = {
        .config = &config,
        .offline = command_has(line, "offline"),
        .verdicts = verdicts,
    };
    int code;

    setup_harden();
    setup_log_to(STDERR_FILENO);
    if (verdicts == NULL) {
        command_complain(line, "out of memory");
        return EXIT_FAILURE;
    }
    code = setup_process();
    if (code == 0)
        code = check_all(&check, &config, line);
    if (check.hangs)
        _exit(code);
    config_done(&config);
    free(verdicts);
    return code;
}

static const struct command_option options[] = {
    SETUP_OPTIONS,
    {"offline", NULL,
     "ask neither the guest agent nor CAs nor DNS: for a place that has none of them, "
     "such as a build",
     NULL},
    {"json", NULL, "one JSON object instead of a table", NULL},
    {0},
};

static const char *const examples[] = {
    "cert-manager check",
    "cert-manager check --offline --config deploy/config.yaml",
    "cert-manager check --json | jq '.checks[] | select(.verdict == \"failed\")'",
    NULL,
};

const struct command cmd_check = {
    .name = "check",
    .summary = "say what would keep it from working, before it does",
    .description =
        "Looks at the settings, the clock, the folders and files, the templates, what "
        "nginx says of the configuration made of them, its ports, the guest agent, the "
        "stored certificate, certbot, the CAs and the DNS, and gives a verdict on each: "
        "ok, warn (it works, but not as it should), FAIL, or - when it was not looked "
        "at. Below stands what to do.\n\n"
        "It needs no daemon and disturbs none: nothing is ordered, measured, installed "
        "or moved, and all that is written is a temporary folder below $TMPDIR or /tmp "
        "for `nginx -t`. Run it as the user that runs the daemon.",
    .options = options,
    .exit_status =
        "0 nothing has failed\n"
        "1 something has\n"
        "2 wrong use",
    .examples = examples,
    .run = run,
};
