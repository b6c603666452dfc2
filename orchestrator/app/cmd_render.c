#include "adapters/evidence_folder.h"
#include "adapters/live_chain.h"
#include "adapters/nginx.h"
#include "adapters/store.h"
#include "adapters/upstream_watch.h"
#include "app/commands.h"
#include "app/setup.h"
#include "app/site.h"
#include "base/fs.h"
#include "base/log.h"
#include "domain/chain.h"

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

/* What is asked of the machine first. */
struct questions {
    uv_loop_t loop;
    struct nginx_facts facts;
    char live_chain[FS_PATH_MAX];
    char evidence[FS_PATH_MAX];
    struct upstream_watch upstreams;
    struct nginx_probe probe;
    unsigned open;
    bool round_over; /* no look-up is in the resolver any more */
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

/* ---- what the machine says ---- */

static void know_more(struct questions *questions)
{
    if (--questions->open == 0)
        uv_stop(&questions->loop);
}

static void on_version_known(void *owner, const struct err *err)
{
    if (err != NULL)
        log_warning("nginx's version is not known, and taken for an old one: %s",
                    err->message);
    know_more(owner);
}

static void on_looked_up(void *owner, const struct upstream *upstream, bool changed,
                         const struct err *err)
{
    (void)owner;
    (void)upstream;
    (void)changed;
    (void)err;
}

static void on_round_over(void *owner, bool changed)
{
    struct questions *questions = owner;

    (void)changed;
    questions->round_over = true;
}

static void on_ready(void *owner)
{
    struct questions *questions = owner;

    site_log_missing(&questions->upstreams.upstreams);
    know_more(questions);
}

static const struct upstream_watch_events watch_events = {
    .looked_up = on_looked_up,
    .round_over = on_round_over,
    .ready = on_ready,
};

/* Its name has that of the certificate's key in it. */
static void find_live_chain(struct questions *questions, const struct config *config)
{
    struct store store;
    struct chain *chain = NULL;
    struct err err = ERR_INIT;
    BUF_SCOPED pem = {0};

    if (!config->nginx.live_chain)
        return;
    if (store_init(&store, config, &err) == 0 &&
        store_load_chain(&store, &pem, &err) == 0 &&
        chain_parse(pem.data, pem.len, &chain, &err) == 0 &&
        live_chain_path(config, chain_public_key(chain), questions->live_chain, &err) ==
            0)
        questions->facts.live_chain = questions->live_chain;
    else
        log_info("live_chain is left out, because there is no certificate in %s: %s",
                 config->tls.dir, err.message);
    chain_free(chain);
}

/*
 * 0 when everything is known that can be known soon; then close_questions() is due. Without HTTPS
 * no backend is asked for.
 */
static int ask(struct questions *questions, const struct config *config,
               enum nginx_level level, struct err *err)
{
    bool names = level != NGINX_HTTP_ONLY;

    *questions = (struct questions){.open = names ? 2 : 1, .round_over = !names};
    nginx_machine_facts(config, &questions->facts);
    if (config_answers_challenges(config) &&
        questions->facts.account_thumbprint[0] == '\0')
        log_info(
            "answers to challenges without a file are left out: cert-manager has not "
            "seen the key of the ACME account here");
    if (evidence_folder_for_nginx(config, questions->evidence, &questions->facts, err) <
        0)
        return -1;
    if (uv_loop_init(&questions->loop) != 0)
        return err_set(err, ERR_SYS, "cannot create the event loop");
    if (upstream_watch_init(&questions->upstreams, &questions->loop, config,
                            &watch_events, questions, err) < 0) {
        upstream_watch_done(&questions->upstreams);
        uv_loop_close(&questions->loop);
        return -1;
    }
    questions->facts.upstreams = &questions->upstreams.upstreams;
    if (names) {
        find_live_chain(questions, config);
        upstream_watch_start(&questions->upstreams);
    }
    nginx_probe_start(&questions->probe, &questions->loop, config, &questions->facts,
                      on_version_known, questions);
    uv_run(&questions->loop, UV_RUN_DEFAULT);
    return 0;
}

/*
 * getaddrinfo(3) cannot be interrupted, and exit(3) waits for libuv's threads. Everything has been
 * written: a resolver that hangs must not hold the command up.
 */
static void close_questions(struct questions *questions, int code)
{
    if (!questions->round_over)
        _exit(code);
    upstream_watch_close(&questions->upstreams);
    uv_run(&questions->loop, UV_RUN_DEFAULT);
    uv_loop_close(&questions->loop);
    upstream_watch_done(&questions->upstreams);
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

static int ask_and_render(const struct config *config, const struct arguments *arguments)
{
    struct questions questions;
    struct err err = ERR_INIT;
    int code;

    if (ask(&questions, config, arguments->level, &err) < 0)
        return fail(&err, err.kind == ERR_CONFIG ? EXIT_CONFIG : EXIT_FAILURE);
    code = render(config, &questions.facts, arguments);
    close_questions(&questions, code);
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
    .exit_status = "0 shown, 1 cannot run, 2 wrong use, 78 unusable setting or template",
    .examples = examples,
    .run = run,
};
