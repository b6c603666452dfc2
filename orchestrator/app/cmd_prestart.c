#include "adapters/live_chain.h"
#include "adapters/nginx.h"
#include "adapters/store.h"
#include "app/commands.h"
#include "app/log_prefix.h"
#include "app/setup.h"
#include "app/step_down.h"
#include "app/wake.h"
#include "base/fs.h"
#include "base/log.h"
#include "domain/chain.h"
#include "domain/keys.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PROGRAM_NAME_SIZE = 64 };

static int render_http_only(const struct config *config, struct err *err)
{
    struct nginx_facts facts;
    BUF_SCOPED site = {0};
    BUF_SCOPED include = {0};
    const struct nginx_files files = {.site = &site};
    struct err unusable = ERR_INIT;

    nginx_machine_facts(config, &facts);
    buf_init(&site, NGINX_CONF_MAX_BYTES);
    if (nginx_render(config, &facts, NGINX_HTTP_ONLY, &site, &include, &unusable) < 0) {
        log_error("prestart: port 80 is served by our own template: %s",
                  unusable.message);
        buf_clear(&site);
        if (nginx_render_stock_http_only(config, &facts, &site, err) < 0)
            return -1;
    }
    return nginx_install(config, &files, err);
}

/*
 * Whether it is the key that nginx served with: the include names the chain for it. A pair with another
 * key may have been put there by anybody, and would be served unmeasured.
 */
static bool is_key_of_before(const struct config *config, const EVP_PKEY *key,
                             struct err *err)
{
    char include[FS_PATH_MAX];
    char live[FS_PATH_MAX];
    BUF_SCOPED text = {0};

    if (!config->nginx.live_chain)
        return true;
    if (nginx_include_path(config, include, err) < 0 ||
        fs_read(include, NGINX_CONF_MAX_BYTES, &text, err) < 0 ||
        live_chain_path(config, key, live, err) < 0)
        return false;
    if (strstr(buf_str(&text), live) != NULL)
        return true;
    err_set(err, ERR_CONFIG, "key.pem is another one than nginx has served with");
    return false;
}

/* Whether the pair would keep nginx from starting with HTTPS configured, or must not be served. */
static bool pair_is_unusable(const struct config *config, const struct store *store,
                             struct err *err)
{
    BUF_SCOPED chain_pem = {0};
    SECRET_SCOPED key_pem = NULL;
    struct chain *chain = NULL;
    EVP_PKEY *key = NULL;
    bool unusable = true;

    if (store_load_chain(store, &chain_pem, err) < 0 ||
        store_load_key(store, &key_pem, err) < 0)
        unusable = true;
    else if (chain_pem.len == 0 || key_pem == NULL)
        err_set(err, ERR_CONFIG, "a file of the pair is missing");
    else if (chain_parse(chain_pem.data, chain_pem.len, &chain, err) == 0 &&
             keys_from_pem(key_pem, &key, err) == 0) {
        unusable = !chain_has_key(chain, key);
        if (unusable)
            err_set(err, ERR_CONFIG, "key.pem does not belong to cert.pem");
        else
            unusable = !is_key_of_before(config, key, err);
    }
    EVP_PKEY_free(key);
    chain_free(chain);
    return unusable;
}

/* HTTP-only at boot, without any configuration, and when the pair is of no use. */
static bool needs_http_only(const struct config *config, const struct store *store,
                            bool boot)
{
    char include[FS_PATH_MAX];
    struct err err = ERR_INIT;

    if (boot || !nginx_configured(config))
        return true;
    if (nginx_include_path(config, include, &err) < 0 || !fs_exists(include) ||
        !pair_is_unusable(config, store, &err))
        return false;
    log_error("prestart: HTTPS is off until cert-manager has put the pair right: %s",
              err.message);
    return true;
}

/* Failures are logged and do not keep the command from running: nginx says what it lacks. */
static void prepare(const struct config *config, bool boot)
{
    struct store store;
    struct err err = ERR_INIT;
    bool finished = false;
    int ended;

    if (fs_make_folder(config->run_dir, 0755, &err) < 0 ||
        store_init(&store, config, &err) < 0 ||
        store_finish_promotion(&store, &finished, &err) < 0)
        log_error("prestart: %s", err.message);
    if (finished)
        log_info("prestart: finished the promotion of a pair that was cut off");
    ended = nginx_end_orphans(config);
    if (ended > 0)
        log_warning("prestart: told %d nginx workers without a master to quit", ended);
    if (!needs_http_only(config, &store, boot))
        step_down_if_refused(config, &store);
    else if (render_http_only(config, &err) < 0)
        log_error("prestart: port 80 is not served: %s", err.message);
}

/*
 * What COMMAND writes has the form of the log. With JSON that holds for whatever COMMAND is: "[nginx] "
 * says that it is nginx, else its own name does.
 */
static int shape_log(const struct command_line *line, bool json, struct err *err)
{
    const char *prefix = command_value(line, "log-prefix");
    const char *command = line->operands[0];
    const char *slash = strrchr(command, '/');
    char program[PROGRAM_NAME_SIZE];
    size_t begin;

    if (!json)
        return prefix == NULL ? 0 : log_prefix_attach(prefix, err);
    if (prefix == NULL)
        return log_prefix_attach_json(slash == NULL ? command : slash + 1, err);
    begin = strspn(prefix, " [");
    snprintf(program, sizeof program, "%.*s", (int)strcspn(prefix + begin, " ]:"),
             prefix + begin);
    return log_prefix_attach_json(program, err);
}

static int run(const struct command_line *line)
{
    const char *wake = command_value(line, "wake");
    const bool boot = command_has(line, "boot");
    struct config config;
    struct err err = ERR_INIT;
    mode_t old_umask = umask(077);
    bool json;
    int code;

    setup_forbid_core_dumps(); /* COMMAND may be nginx, which has the TLS key */
    if (line->operands[0] == NULL)
        return command_wrong_use(line, "the command to become is missing");
    code = setup_load(&config, line, boot ? SETUP_LOG_WARNINGS : SETUP_SKIP_WARNINGS);
    if (code == 0)
        prepare(&config, boot);
    json = config.log_json;
    config_done(&config);
    /* Settings that were spoilt later must not keep nginx from coming back. */
    if (code != 0 && boot)
        return code;
    if (code != 0)
        log_error("prestart: %s starts with the configuration of before",
                  line->operands[0]);
    umask(old_umask);
    if (wake != NULL && wake_when_listening(wake, &err) < 0)
        log_warning("prestart: %s begins a second later: %s", line->operands[0],
                    err.message);
    if (shape_log(line, json, &err) < 0)
        log_error("prestart: %s", err.message);
    execvp(line->operands[0], line->operands);
    log_fatal("prestart: cannot run %s: %s", line->operands[0], strerror(errno));
    return EXIT_FAILURE;
}

static const struct command_option options[] = {
    {"boot", NULL,
     "the container starts: HTTPS of an earlier life is switched off until its "
     "certificate was measured again",
     NULL},
    {"log-prefix", "TEXT",
     "put TEXT before every line that COMMAND writes; with log.format json its word "
     "names the program in the lines",
     NULL},
    {"wake", "SOCKET",
     "connect to that unix socket once COMMAND listens there: supervisord starts its "
     "programs at once then, and not after a second",
     NULL},
    SETUP_OPTIONS,
    {0},
};

static const char *const examples[] = {
    "cert-manager prestart --log-prefix '[nginx] ' -- nginx -g 'daemon off;'",
    NULL,
};

const struct command cmd_prestart = {
    .name = "prestart",
    .summary = "prepare for nginx or supervisord, then become it",
    .description =
        "Makes sure that nginx can start, then becomes COMMAND: a promotion of a "
        "certificate that was cut off is finished, and a missing nginx configuration is "
        "made.",
    .options = options,
    .operands = "-- COMMAND…",
    .exit_status =
        "COMMAND's own, once it runs\n"
        "1 COMMAND cannot be run\n"
        "2 wrong use\n"
        "78 unusable setting (with --boot; later COMMAND starts with the configuration "
        "of before)",
    .examples = examples,
    .run = run,
};
