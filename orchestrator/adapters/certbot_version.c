#include "adapters/certbot_version.h"

#include "base/buf.h"

#include <stdio.h>
#include <string.h>

enum {
    ANSWER_MS = 30 * 1000, /* on a machine that is busy with its start */
    TERM_GRACE_MS = 1000,
    OUTPUT_MAX_BYTES = 4 * 1024,
};

static void on_process_done(void *owner, const struct err *err)
{
    struct certbot_version *version = owner;
    const struct process *process = &version->process;
    /* Before Python 3.4 such things were said on standard error. */
    const char *said = buf_str(&process->output[PROCESS_STDOUT]);

    if (*said == '\0')
        said = buf_str(&process->output[PROCESS_STDERR]);
    snprintf(version->text, sizeof version->text, "%.*s", (int)strcspn(said, "\r\n"),
             said);
    if (err != NULL)
        version->why = *err;
    else if (process->exit_status != 0)
        err_set(&version->why, ERR_CONFIG,
                "%s --version failed (exit status %d, signal %d): %s",
                version->config->certbot.path, process->exit_status, process->term_signal,
                version->text);
    version->answered = version->why.kind == ERR_NONE;
    version->running = false;
    process_done(&version->process);
    version->done(version->owner, version->answered ? NULL : &version->why);
}

void certbot_version_start(struct certbot_version *version, uv_loop_t *loop,
                           const struct config *config, done_fn done, void *owner)
{
    const char *const argv[] = {config->certbot.path, "--version", NULL};
    const char *const environment[] = {"PATH=/usr/local/bin:/usr/bin:/bin",
                                       "LANG=C.UTF-8", "XDG_CONFIG_HOME=/nonexistent",
                                       NULL};
    const struct process_options options = {
        .argv = argv,
        .environment = environment,
        .max_output = OUTPUT_MAX_BYTES,
        .timeout_ms = ANSWER_MS,
        .term_grace_ms = TERM_GRACE_MS,
    };

    *version = (struct certbot_version){
        .config = config, .running = true, .done = done, .owner = owner};
    (void)stat(config->certbot.path, &version->program);
    process_start(&version->process, loop, &options, on_process_done, version);
}

void certbot_version_cancel(struct certbot_version *version)
{
    if (version->running)
        process_cancel(&version->process);
}

bool certbot_version_is_asked(const struct certbot_version *version)
{
    return version->running;
}

bool certbot_version_holds(const struct certbot_version *version)
{
    const struct stat *then = &version->program;
    struct stat now;

    return version->answered && stat(version->config->certbot.path, &now) == 0 &&
           now.st_dev == then->st_dev && now.st_ino == then->st_ino &&
           now.st_mtim.tv_sec == then->st_mtim.tv_sec &&
           now.st_mtim.tv_nsec == then->st_mtim.tv_nsec;
}
