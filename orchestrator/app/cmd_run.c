#include "app/commands.h"
#include "app/daemon.h"
#include "app/setup.h"
#include "base/log.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const char help[] =
    "usage: cert-manager run [--config FILE]\n"
    "\n"
    "Obtains, measures, serves and renews the certificate until SIGTERM. Settings come "
    "from\n"
    "FILE (else $CERT_MANAGER_CONFIG, else " SETUP_DEFAULT_CONFIG
    " when it\n"
    "exists) and from the environment, which wins.\n"
    "\n"
    "exit status: 0 stopped by a signal, 1 cannot run, 2 wrong use, 78 unusable setting\n"
    "\n"
    "example: DOMAIN=app.example.com cert-manager run\n";

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

int cmd_run(int argc, char **argv)
{
    static const struct option options[] = {
        {"config", required_argument, NULL, 'c'},
        {"help", no_argument, NULL, 'h'},
        {0},
    };
    const char *config_file = NULL;
    struct config config;
    int option;
    int code;

    while ((option = getopt_long(argc, argv, "+c:h", options, NULL)) != -1) {
        if (option == 'c') {
            config_file = optarg;
            continue;
        }
        fputs(help, option == 'h' ? stdout : stderr);
        return option == 'h' ? EXIT_SUCCESS : 2;
    }
    if (optind != argc) {
        fputs(help, stderr);
        return 2;
    }
    setup_harden();
    code = setup_load(&config, config_file, SETUP_LOG_WARNINGS);
    if (code == 0)
        code = daemon_run(&config);
    config_done(&config);
    if (code == EXIT_CONFIG)
        wait_to_be_seen();
    return code;
}
