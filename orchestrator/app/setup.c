#include "app/setup.h"

#include "base/fs.h"
#include "base/log.h"

#include <jansson.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

extern char **environ;

void setup_harden(void)
{
    const struct rlimit none = {0};

    umask(077);
    signal(SIGPIPE, SIG_IGN);
    setrlimit(RLIMIT_CORE, &none);
#ifndef __SANITIZE_ADDRESS__ /* the leak checker attaches to the process at its end */
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
#endif
}

/* Path of the settings file, or NULL when there is none to read. */
static const char *find_file(const char *given)
{
    const char *named = given != NULL ? given : getenv("CERT_MANAGER_CONFIG");

    if (named != NULL && named[0] != '\0')
        return named;
    return access(SETUP_DEFAULT_CONFIG, F_OK) == 0 ? SETUP_DEFAULT_CONFIG : NULL;
}

int setup_load(struct config *config, const char *config_file)
{
    struct config_report report;
    struct err err = ERR_INIT;
    BUF_SCOPED text = {0};
    const char *path = find_file(config_file);
    int failed;

    log_open(STDOUT_FILENO, LOG_INFO);
    *config = (struct config){0};
    if (secret_setup(&err) < 0) {
        log_fatal("%s", err.message);
        return EXIT_FAILURE;
    }
    json_set_alloc_funcs(wipe_malloc, wipe_free);
    if (path != NULL && fs_read(path, CONFIG_YAML_MAX_BYTES, &text, &err) < 0) {
        log_fatal("settings file: %s", err.message);
        return EXIT_CONFIG;
    }
    failed = config_load(config, &report, path, path == NULL ? NULL : buf_str(&text),
                         text.len, environ);
    if (failed == 0)
        log_open(STDOUT_FILENO, config->log_level);
    for (size_t i = 0; i < report.warning_count; i++)
        log_warning("%s", report.warnings[i]);
    for (size_t i = 0; i < report.error_count; i++)
        log_fatal("%s", report.errors[i]);
    config_report_done(&report);
    return failed != 0 ? EXIT_CONFIG : 0;
}
