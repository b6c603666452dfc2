#include "app/commands.h"
#include "app/daemon.h"
#include "app/sandbox.h"
#include "app/setup.h"
#include "base/log.h"

#include <stdlib.h>
#include <unistd.h>

/*
 * supervisord looks at the exit code only of a program that it has seen running (startsecs and
 * its tick of a second); one that ends sooner it starts again without end. So wait for that.
 */
enum { SUPERVISED_S = 3 };

static void wait_to_be_seen(void)
{
    if (getenv("SUPERVISOR_ENABLED") == NULL)
        return;
    log_fatal(
        "cert-manager stays stopped until the container is started again; nginx goes "
        "on with what it has");
    sleep(SUPERVISED_S);
}

static int run(const struct command_line *line)
{
    struct config config;
    int code;

    daemon_hold_hangups();
    setup_harden();
    code = setup_load(&config, line, SETUP_LOG_WARNINGS);
    if (code == 0) {
        sandbox_begin(&config);
        code = daemon_run(&config, line);
        sandbox_end();
    }
    config_done(&config);
    if (code == EXIT_CONFIG)
        wait_to_be_seen();
    return code;
}

static const struct command_option options[] = {
    SETUP_OPTIONS,
    {0},
};

static const char *const examples[] = {
    "DOMAIN=app.example.com cert-manager run",
    "cert-manager run --config deploy/config.yaml",
    "cert-manager run --set log.level=debug --set acme.staging=true",
    NULL,
};

const struct command cmd_run = {
    .name = "run",
    .summary = "obtain, measure, serve and renew the certificate (the daemon)",
    .description =
        "Obtains, measures, serves and renews the certificate until SIGTERM or SIGINT. "
        "SIGHUP has it read the settings again, as `cert-manager reload` does.",
    .options = options,
    .exit_status =
        "0 stopped by a signal\n"
        "1 cannot run\n"
        "2 wrong use\n"
        "78 unusable setting",
    .examples = examples,
    .run = run,
};
