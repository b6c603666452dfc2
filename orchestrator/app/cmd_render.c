#include "adapters/nginx.h"
#include "app/commands.h"
#include "app/machine.h"
#include "app/setup.h"
#include "app/site.h"
#include "base/fs.h"
#include "base/log.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct arguments {
    const char *folder;
    enum nginx_level level;
};

/* ---- the command line ---- */

static bool parse_level(const char *name, enum nginx_level *ret)
{
    for (enum nginx_level level = NGINX_HTTP_ONLY; level <= NGINX_HTTPS; level++) {
        if (strcmp(name, nginx_level_name(level)) == 0) {
            *ret = level;
            return true;
        }
    }
    return false;
}

/* 0, or the exit code. */
static int read_line(const struct command_line *line, struct arguments *ret)
{
    const char *level = command_value(line, "level");

    *ret = (struct arguments){
        .folder = command_value(line, "output"),
        .level = NGINX_HTTPS,
    };
    if (level != NULL && !parse_level(level, &ret->level))
        return command_wrong_use(line,
                                 "--level: found \"%s\", expected full, reduced or "
                                 "http-only",
                                 level);
    return 0;
}

/* ---- where it goes ---- */

static const char *name_of(const char *path)
{
    return strrchr(path, '/') + 1;
}

static int write_file(const char *folder, const char *live, const struct buf *text,
                      struct err *err)
{
    char path[FS_PATH_MAX];

    if (fs_join(path, folder, name_of(live), err) < 0)
        return -1;
    return fs_replace(path, text->data, text->len, 0644, err);
}

/* As live: one that an earlier level left would be taken for part of this one. */
static int remove_file(const char *folder, const char *live, struct err *err)
{
    char path[FS_PATH_MAX];

    return fs_join(path, folder, name_of(live), err) < 0 ? -1 : fs_remove(path, err);
}

static int write_folder(const char *folder, const struct config *config,
                        const char *include_path, const struct nginx_files *files,
                        struct err *err)
{
    if (mkdir(folder, 0755) < 0 && errno != EEXIST)
        return err_sys(err, errno, "%s", folder);
    if (files->include == NULL && remove_file(folder, include_path, err) < 0)
        return -1;
    if (files->include != NULL &&
        write_file(folder, include_path, files->include, err) < 0)
        return -1;
    return write_file(folder, config->nginx.site_conf, files->site, err);
}

static int print(const struct config *config, const char *include_path,
                 const struct nginx_files *files, struct err *err)
{
    printf("# %s\n%s", config->nginx.site_conf, buf_str(files->site));
    if (files->include != NULL)
        printf("\n# %s\n%s", include_path, buf_str(files->include));
    if (fflush(stdout) != 0 || ferror(stdout) != 0)
        return err_sys(err, errno, "standard output");
    return 0;
}

static int fail(const struct err *err, int code)
{
    log_fatal("%s", err->message);
    return code;
}

/* The exit code. */
static int render(const struct config *config, const struct nginx_facts *facts,
                  const struct arguments *arguments)
{
    BUF_SCOPED site = {0};
    BUF_SCOPED include = {0};
    const struct nginx_files files = {
        .site = &site,
        .include = arguments->level == NGINX_HTTP_ONLY ? NULL : &include,
    };
    char include_path[FS_PATH_MAX];
    struct err err = ERR_INIT;
    int failed;

    buf_init(&site, NGINX_CONF_MAX_BYTES);
    buf_init(&include, NGINX_CONF_MAX_BYTES);
    if (nginx_include_path(config, include_path, &err) < 0 ||
        nginx_render(config, facts, arguments->level, &site, &include, &err) < 0)
        return fail(&err, EXIT_CONFIG);
    if (arguments->folder == NULL)
        failed = print(config, include_path, &files, &err);
    else
        failed = write_folder(arguments->folder, config, include_path, &files, &err);
    return failed == 0 ? EXIT_SUCCESS : fail(&err, EXIT_FAILURE);
}

static void log_gaps(const struct config *config, const struct machine *machine)
{
    if (config_answers_challenges(config) && machine->facts.account_thumbprint[0] == '\0')
        log_info(
            "answers to challenges without a file are left out: cert-manager has not "
            "seen the key of the ACME account here");
    if (machine->chain_err.kind != ERR_NONE)
        log_info("live_chain is left out, because there is no certificate in %s: %s",
                 config->tls.dir, machine->chain_err.message);
    if (machine->version_err.kind != ERR_NONE)
        log_warning("nginx's version is not known, and taken for an old one: %s",
                    machine->version_err.message);
}

static int ask_and_render(const struct config *config, const struct arguments *arguments)
{
    enum machine_scope scope =
        arguments->level == NGINX_HTTP_ONLY ? MACHINE_HTTP_ONLY : MACHINE_ALL;
    struct machine machine;
    struct err err = ERR_INIT;
    int code;

    if (machine_ask(&machine, config, scope, &err) < 0)
        return fail(&err, err.kind == ERR_CONFIG ? EXIT_CONFIG : EXIT_FAILURE);
    log_gaps(config, &machine);
    if (scope == MACHINE_ALL)
        site_log_missing(machine.facts.upstreams);
    code = render(config, &machine.facts, arguments);
    if (!machine_close(&machine))
        _exit(code);
    return code;
}

static int run(const struct command_line *line)
{
    struct arguments arguments;
    struct config config;
    int code = read_line(line, &arguments);

    if (code != 0)
        return code;
    signal(SIGPIPE, SIG_IGN); /* a reader that has seen enough is a failed write */
    setup_log_to(STDERR_FILENO);
    code = setup_load(&config, line, SETUP_LOG_WARNINGS);
    if (code == 0)
        code = ask_and_render(&config, &arguments);
    config_done(&config);
    return code;
}

static const struct command_option options[] = {
    SETUP_OPTIONS,
    {"level", "LEVEL",
     "full (the default), reduced (what HTTPS steps down to when nginx refuses the full "
     "one) or http-only (while there is no certificate)",
     "full reduced http-only"},
    {"output", "FOLDER", "write the files there, and not to standard output", NULL},
    {0},
};

static const char *const examples[] = {
    "cert-manager render --config deploy/config.yaml",
    "DOMAIN=app.example.com UPSTREAM_HOST=app cert-manager render | less",
    "cert-manager render --level reduced --output /tmp/rendered",
    NULL,
};

const struct command cmd_render = {
    .name = "render",
    .summary = "show the configuration that nginx would get",
    .description =
        "Shows the configuration that nginx would get now: default.conf, and the include "
        "with what our modules and services need. Names of backends are looked up once. "
        "Nothing that runs is touched or needed, and no root.",
    .options = options,
    .exit_status =
        "0 shown\n"
        "1 cannot run\n"
        "2 wrong use\n"
        "78 unusable setting or template",
    .examples = examples,
    .run = run,
};
