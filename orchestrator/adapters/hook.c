#include "adapters/hook.h"

#include "base/fs.h"
#include "base/log.h"
#include "runtime/observer.h"

#include <assert.h>
#include <errno.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    TERM_GRACE_MS = 1000, /* supervisord gives us 3 s to end, and this is part of them */
    LINES_MAX = 100,
    WORDS_MAX = 64, /* which is what a list of the settings has at most */
};

static const struct config_list *command_of(const struct hook *hook)
{
    return &hook->config->hooks.commands[hook->event];
}

static const char *program_of(const struct hook *hook)
{
    return command_of(hook)->items[0];
}

/* ---- may it run? ---- */

static int find_user(struct hook *hook, struct err *err)
{
    const char *name = hook->config->hooks.user;
    const struct passwd *user;

    if (geteuid() != 0)
        return 0;
    user = getpwnam(name);
    if (user == NULL)
        return err_set(err, ERR_CONFIG,
                       "there is no user \"%s\" (hooks.user) to run %s as", name,
                       program_of(hook));
    hook->change_user = user->pw_uid != 0;
    hook->uid = user->pw_uid;
    hook->gid = user->pw_gid;
    return 0;
}

/* In a folder with the sticky bit nobody replaces the file of another one. */
static bool others_may_change(const struct stat *status)
{
    bool writable = (status->st_mode & (S_IWGRP | S_IWOTH)) != 0;
    bool sticky = S_ISDIR(status->st_mode) && (status->st_mode & S_ISVTX) != 0;

    return status->st_uid != 0 || (writable && !sticky);
}

/* Whoever can change what runs as root is root. The file, and each folder that leads to it. */
static int check_program(const struct hook *hook, struct err *err)
{
    const char *program = program_of(hook);
    char *path = realpath(program, NULL);
    struct stat status;
    int failed = 0;

    if (path == NULL)
        return err_sys(err, errno, "%s", program);
    for (char *end = path + strlen(path); failed == 0 && end != NULL;
         end = strrchr(path, '/')) {
        *end = '\0';
        if (stat(path[0] == '\0' ? "/" : path, &status) < 0)
            failed = err_sys(err, errno, "%s", path);
        else if (others_may_change(&status))
            failed = err_set(
                err, ERR_CONFIG,
                "%s is not run as root, because others than root can change %s; make it "
                "root's alone (chown root, chmod go-w), or set hooks.user",
                program, path[0] == '\0' ? "/" : path);
    }
    free(path);
    return failed;
}

static int begin_check(void *flow, struct err *err)
{
    struct hook *hook = flow;

    if (find_user(hook, err) < 0)
        return -1;
    return geteuid() == 0 && !hook->change_user && check_program(hook, err) < 0
               ? -1
               : SEQ_READY;
}

int hook_check(const struct config *config, enum hook_event event, struct err *err)
{
    struct hook hook = {.config = config, .event = event};

    if (begin_check(&hook, err) < 0)
        return -1;
    return access(program_of(&hook), X_OK) == 0
               ? 0
               : err_sys(err, errno, "%s cannot be run", program_of(&hook));
}

/* ---- the run ---- */

static void on_line(void *owner, enum process_stream stream, const char *line)
{
    struct hook *hook = owner;
    const char *name = hook_event_name(hook->event);

    (void)stream;
    if (++hook->lines <= LINES_MAX)
        log_info("hook on_%s: %s", name, line);
    else if (hook->lines == LINES_MAX + 1)
        log_info("hook on_%s: its further output is left out", name);
}

static void on_process_done(void *owner, const struct err *err)
{
    struct hook *hook = owner;
    struct err why = err_copy(err);

    if (why.kind == ERR_TIMEOUT)
        err_wrap(&why, "hooks.timeout");
    seq_resume(&hook->seq, err == NULL ? NULL : &why);
}

static int begin_run(void *flow, struct err *err)
{
    struct hook *hook = flow;
    const struct config_list *command = command_of(hook);
    const char *argv[WORDS_MAX + 1] = {NULL};
    struct process_options options = {
        .argv = argv,
        .environment = (const char *const *)hook->environment->items,
        .folder = "/",
        .change_user = hook->change_user,
        .uid = hook->uid,
        .gid = hook->gid,
        .timeout_ms = hook->config->hooks.timeout_ms,
        .term_grace_ms = TERM_GRACE_MS,
        .on_line = on_line,
        .line_owner = hook,
    };

    (void)err;
    assert(command->count <= WORDS_MAX);
    for (size_t i = 0; i < command->count; i++)
        argv[i] = command->items[i];
    process_start(&hook->process, hook->loop, &options, on_process_done, hook);
    return SEQ_WAIT;
}

static int finish_run(void *flow, struct err *err)
{
    struct hook *hook = flow;
    const struct process *process = &hook->process;

    if (process->exit_status == 0)
        return SEQ_END;
    if (process->exit_status < 0)
        return err_set(err, ERR_PEER, "%s was ended by signal %d", program_of(hook),
                       process->term_signal);
    return err_set(err, ERR_PEER, "%s ended with exit code %d", program_of(hook),
                   process->exit_status);
}

static void abort_run(void *flow)
{
    struct hook *hook = flow;

    process_cancel(&hook->process);
}

/* The process has its own time limit: hooks.timeout. */
static const struct seq_step steps[] = {
    {"check program", begin_check, NULL, NULL, 0},
    {"run", begin_run, finish_run, abort_run, 0},
    {0},
};

static void on_steps_done(void *owner, const struct err *err)
{
    struct hook *hook = owner;

    process_done(&hook->process);
    observer_tell(
        &(struct observation){.what = OBSERVED_HOOK,
                              .subject = hook_event_name(hook->event),
                              .detail = "",
                              .failure = err == NULL ? ERR_NONE : err->kind,
                              .seconds = (double)(uv_hrtime() - hook->begun_ns) / 1e9});
    hook->done(hook->owner, err);
}

void hook_start(struct hook *hook, uv_loop_t *loop, const struct config *config,
                enum hook_event event, const struct hook_environment *environment,
                done_fn done, void *owner)
{
    *hook = (struct hook){
        .config = config,
        .loop = loop,
        .event = event,
        .environment = environment,
        .begun_ns = uv_hrtime(),
        .done = done,
        .owner = owner,
    };
    seq_start(&hook->seq, loop, HOOK_SEQUENCE, steps, hook, on_steps_done, hook);
}

void hook_cancel(struct hook *hook)
{
    seq_cancel(&hook->seq);
}
