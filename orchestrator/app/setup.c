#include "app/setup.h"

#include "base/fs.h"
#include "base/log.h"
#include "base/text.h"
#include "domain/log_json.h"

#include <errno.h>
#include <jansson.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

extern char **environ;

/* 1 and not 0: a program that /proc/sys/kernel/core_pattern names gets the dump of whatever other limit. */
void setup_forbid_core_dumps(void)
{
    const struct rlimit none = {.rlim_cur = 1, .rlim_max = 1};

    setrlimit(RLIMIT_CORE, &none);
}

void setup_harden(void)
{
    umask(077);
    signal(SIGPIPE, SIG_IGN);
    setup_forbid_core_dumps();
#ifndef __SANITIZE_ADDRESS__ /* the leak checker attaches to the process at its end */
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
#endif
}

struct file {
    const char *path;     /* NULL: there is none */
    const char *named_by; /* NULL: nobody, it is the default */
};

static int refuse_file(const struct file *file, const struct err *err,
                       struct config_report *report)
{
    size_t len = strlen(file->path);
    const char *reason = err->message;
    bool missing = err->kind == ERR_SYS && err->code == ENOENT;

    /* Tried again these may be over; that it is not there, or not ours to read, stays. */
    if (err->kind == ERR_SYS && (err->code == ENOMEM || err->code == EMFILE ||
                                 err->code == ENFILE || err->code == EIO))
        report->passing = true;
    /* The path stands before who named it, and is not said twice. */
    if (text_starts_with(reason, file->path) && text_starts_with(reason + len, ": "))
        reason += len + 2;
    if (missing && fs_exists(file->path))
        reason = "a link to a file that does not exist";
    if (file->named_by == NULL)
        config_report_error(report, "settings file %s: %s", file->path, reason);
    else
        config_report_error(report, "settings file %s (named by %s): %s", file->path,
                            file->named_by, reason);
    return -1;
}

/* The path is NULL when there is no file. */
static int read_file(const char *given, const char **ret_path, struct buf *ret_text,
                     struct config_report *report)
{
    const char *variable = getenv(CONFIG_FILE_VARIABLE);
    struct file file = {.path = SETUP_DEFAULT_CONFIG};
    struct err err = ERR_INIT;

    if (given != NULL && given[0] == '\0') {
        config_report_error(
            report, "--config: found \"\", expected the path of the settings file");
        return -1;
    }
    if (given != NULL)
        file = (struct file){.path = given, .named_by = "--config"};
    else if (variable != NULL && variable[0] != '\0')
        file = (struct file){.path = variable, .named_by = CONFIG_FILE_VARIABLE};
    *ret_path = file.path;
    if (fs_read(file.path, CONFIG_YAML_MAX_BYTES, ret_text, &err) == 0)
        return 0;
    /* A dangling link is there: somebody meant a file by it. */
    if (file.named_by != NULL || err.kind != ERR_SYS ||
        (err.code != ENOENT && err.code != ENOTDIR) || fs_exists(file.path))
        return refuse_file(&file, &err, report);
    *ret_path = NULL;
    return 0;
}

int setup_read(struct config *config, struct config_report *report,
               const struct command_line *line)
{
    struct config_sources sources = {
        .environment = environ,
        .flags = command_values(line, "set"),
    };
    BUF_SCOPED text = {0};

    *config = (struct config){0};
    *report = (struct config_report){0};
    if (read_file(command_value(line, "config"), &sources.yaml_name, &text, report) < 0)
        return -1;
    if (sources.yaml_name != NULL)
        sources.yaml = buf_str(&text);
    sources.yaml_len = text.len;
    return config_load(config, report, &sources);
}

static void log_report(const struct config_report *report, enum setup_warnings warnings)
{
    enum log_level level = warnings == SETUP_LOG_WARNINGS ? LOG_WARNING : LOG_DEBUG;

    for (size_t i = 0; i < report->warning_count; i++)
        log_write(level, "%s", report->warnings[i]);
    for (size_t i = 0; i < report->error_count; i++)
        log_fatal("%s", report->errors[i]);
}

static int log_fd = STDOUT_FILENO;

void setup_log_to(int fd)
{
    log_fd = fd;
}

void setup_follow(const struct config *config)
{
    log_set_form(config->log_json ? log_json : NULL);
    log_open(log_fd, config->log_level);
}

int setup_process(void)
{
    struct err err = ERR_INIT;

    log_open(log_fd, LOG_INFO);
    if (secret_setup(&err) < 0) {
        log_fatal("%s", err.message);
        return EXIT_FAILURE;
    }
    json_set_alloc_funcs(wipe_malloc, wipe_free);
    return 0;
}

int setup_load(struct config *config, const struct command_line *line,
               enum setup_warnings warnings)
{
    struct config_report report;
    int failed;

    *config = (struct config){0};
    failed = setup_process();
    if (failed != 0)
        return failed;
    failed = setup_read(config, &report, line);
    /* Errors are in the form that was wanted, as far as that is known. */
    log_set_form(config->log_json ? log_json : NULL);
    if (failed == 0)
        setup_follow(config);
    log_report(&report, warnings);
    if (failed != 0)
        failed = report.passing ? EXIT_FAILURE : EXIT_CONFIG;
    config_report_done(&report);
    return failed;
}

/* A file that cannot be read at all says nothing, and the environment may. */
static void read_without_file(struct config *config, const struct command_line *line)
{
    const struct config_sources sources = {
        .environment = environ,
        .flags = command_values(line, "set"),
    };
    struct config_report report;

    config_done(config);
    (void)config_load(config, &report, &sources);
    config_report_done(&report);
}

int setup_reach(struct config *config, const struct command_line *line)
{
    struct config_report report;
    int failed;

    *config = (struct config){0};
    setup_log_to(STDERR_FILENO);
    failed = setup_process();
    if (failed != 0)
        return failed;
    failed = setup_read(config, &report, line);
    config_report_done(&report);
    if (failed != 0 && config->run_dir == NULL)
        read_without_file(config, line);
    if (config->run_dir != NULL)
        return 0;
    log_fatal("run_dir is not known");
    return EXIT_CONFIG;
}
