#include "app/commands.h"
#include "app/control_client.h"
#include "app/daemon.h"
#include "app/setup.h"
#include "base/fs.h"
#include "base/log.h"
#include "domain/deployment.h"
#include "domain/keys.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    BODY_MAX_BYTES = 2 * (CHAIN_PEM_MAX_BYTES + KEYS_PEM_MAX_BYTES),
    REST_S = 60,  /* for what may be at work before it, besides an order */
    RETURN_S = 5, /* for a daemon that had accepted it, and ended, to be started again */
};

struct session {
    const struct command_line *line;
    struct config config; /* as far as it can be read, until it is done here */
    struct deployment deployment;
    struct buf said;  /* what holds now, in a line */
    int64_t deadline; /* by control_now(), as all times here */
    int64_t alone_from;
    int code; /* to exit with, when it has failed */
};

/* What an attempt came to. */
enum attempt {
    ATTEMPT_DONE,
    ATTEMPT_FAILED,
    ATTEMPT_AGAIN, /* somebody else is at work, or the daemon has just ended: from the start */
};

/* ---- the files ---- */

static int read_pair(const char *chain_path, const char *key_path, struct deployment *ret,
                     struct err *err)
{
    BUF_SCOPED chain = {0};
    SECRET_SCOPED key = NULL;
    const char *with = key_path == NULL ? "" : " with ";

    if (fs_read(chain_path, CHAIN_PEM_MAX_BYTES, &chain, err) < 0 ||
        (key_path != NULL && fs_read_secret(key_path, KEYS_PEM_MAX_BYTES, &key, err) < 0))
        return -1;
    if (deployment_parse(ret, chain.data, chain.len, key, err) == 0)
        return 0;
    return err_wrap(err, "%s%s%s", chain_path, with, key_path == NULL ? "" : key_path);
}

/* Links, as certbot makes them, are followed. */
static int read_lineage(const char *folder, struct deployment *ret, struct err *err)
{
    char chain[FS_PATH_MAX];
    char key[FS_PATH_MAX];

    return fs_join(chain, folder, "fullchain.pem", err) < 0 ||
                   fs_join(key, folder, "privkey.pem", err) < 0
               ? -1
               : read_pair(chain, key, ret, err);
}

/* ---- the daemon does it ---- */

/* What the status says of the request: `ret` is ATTEMPT_AGAIN while nothing came of it, or it is unknown. */
static bool read_status(struct session *s, const json_t *status, json_int_t id,
                        enum attempt *ret, struct err *err)
{
    const json_t *request =
        json_object_get(json_object_get(status, "requests"), "deploy");
    const char *state = json_string_value(json_object_get(request, "state"));
    const char *said = json_string_value(json_object_get(request, "text"));

    *ret = ATTEMPT_AGAIN;
    if (json_integer_value(json_object_get(request, "id")) != id || state == NULL ||
        said == NULL)
        return false;
    if (strcmp(state, "done") == 0) {
        *ret = buf_append_str(&s->said, said, err) == 0 ? ATTEMPT_DONE : ATTEMPT_FAILED;
        return false;
    }
    err_set(err, ERR_TIMEOUT, "%s", said);
    if (strcmp(state, "failed") == 0)
        *ret = ATTEMPT_FAILED;
    return *ret == ATTEMPT_AGAIN;
}

/* In `err` is what it last said that it waits for. */
static enum attempt follow(struct session *s, json_int_t id, struct err *err)
{
    const struct control_question question = {.method = "GET", .path = "/v1/status"};
    enum attempt attempt;
    json_t *status;
    bool is_open;

    do {
        control_rest();
        if (control_ask_json(&s->config, &question, &status, err) < 0)
            return ATTEMPT_AGAIN;
        is_open = read_status(s, status, id, &attempt, err);
        json_decref(status);
    } while (is_open && control_now() < s->deadline);
    return attempt;
}

/* Not what the daemon has refused: one that was not there, has ended meanwhile, or is busy with another. */
static bool is_worth_another(const struct err *err)
{
    return err->code == 409 || err->kind == ERR_TIMEOUT ||
           (err->kind == ERR_PEER && err->code == 0) ||
           (err->kind == ERR_NET && err->code != EACCES && err->code != EPERM);
}

static enum attempt ask_daemon(struct session *s, struct err *err)
{
    BUF_SCOPED body = {.max = BODY_MAX_BYTES};
    struct control_question question = {.method = "POST", .path = "/v1/deploy"};
    enum attempt attempt;
    json_t *answer;
    json_int_t id;

    if (deployment_to_json(&s->deployment, &body, err) < 0)
        return ATTEMPT_FAILED;
    question.body = buf_str(&body);
    question.body_len = body.len;
    if (control_ask_json(&s->config, &question, &answer, err) < 0)
        return is_worth_another(err) ? ATTEMPT_AGAIN : ATTEMPT_FAILED;
    id = json_integer_value(json_object_get(answer, "id"));
    json_decref(answer);
    attempt = follow(s, id, err);
    if (attempt == ATTEMPT_AGAIN)
        s->alone_from = control_now() + RETURN_S;
    return attempt;
}

/* ---- nobody is there to ask ---- */

/* The daemon knows its settings; for its work they have to be whole. */
static enum attempt do_it_here(struct session *s, struct err *err)
{
    *err = (struct err)ERR_INIT;
    config_done(&s->config);
    s->code = setup_load(&s->config, s->line, SETUP_SKIP_WARNINGS);
    if (s->code != 0) {
        err_set(err, ERR_CONFIG,
                "no daemon is at work, and without one the settings have to be right");
        return ATTEMPT_FAILED;
    }
    s->code = EXIT_FAILURE;
    if (daemon_deploy(&s->config, &s->deployment, &s->said, err) == 0)
        return ATTEMPT_DONE;
    return err->code == EWOULDBLOCK ? ATTEMPT_AGAIN : ATTEMPT_FAILED;
}

/* The daemon may come and go meanwhile: what is done twice is done once. */
static int deploy(struct session *s, struct err *err)
{
    enum attempt attempt;

    do {
        attempt = ask_daemon(s, err);
        if (attempt == ATTEMPT_AGAIN && err->kind == ERR_NET &&
            control_now() >= s->alone_from)
            attempt = do_it_here(s, err);
        if (attempt == ATTEMPT_AGAIN)
            control_rest();
    } while (attempt == ATTEMPT_AGAIN && control_now() < s->deadline);
    if (attempt == ATTEMPT_AGAIN)
        return err_wrap(err, "given up, not served yet");
    return attempt == ATTEMPT_DONE ? 0 : -1;
}

/* ---- the command ---- */

static bool read_seconds(const char *text, unsigned *ret)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);

    *ret = (unsigned)value;
    return text[0] >= '0' && text[0] <= '9' && *end == '\0' && value >= 1 &&
           value <= DEPLOYMENT_TIMEOUT_MAX_S;
}

/* 0, or the exit code. */
static int check_use(const struct command_line *line, unsigned *ret_timeout_s)
{
    const char *timeout = command_value(line, "timeout");
    bool lineage = command_has(line, "lineage");

    if (lineage == command_has(line, "fullchain"))
        return command_wrong_use(line, "either --lineage or --fullchain says what");
    if (lineage && command_has(line, "key"))
        return command_wrong_use(line, "--key belongs to --fullchain; a lineage has one");
    if (timeout != NULL && !read_seconds(timeout, ret_timeout_s))
        return command_wrong_use(line,
                                 "--timeout: found \"%s\", expected seconds, 1 to %d",
                                 timeout, DEPLOYMENT_TIMEOUT_MAX_S);
    return 0;
}

static int read_files(const struct command_line *line, unsigned timeout_s,
                      struct deployment *ret, struct err *err)
{
    const char *lineage = command_value(line, "lineage");

    if ((lineage != NULL ? read_lineage(lineage, ret, err)
                         : read_pair(command_value(line, "fullchain"),
                                     command_value(line, "key"), ret, err)) < 0)
        return -1;
    ret->timeout_s = timeout_s;
    return 0;
}

static int reach_and_deploy(unsigned timeout_s, struct session *s)
{
    struct err err = ERR_INIT;
    int code = setup_reach(&s->config, s->line);

    if (code != 0)
        return code;
    /* The daemon has its own: for the keys to come, and for it to be served. */
    s->deadline = control_now() + 2 * (int64_t)timeout_s + REST_S +
                  (int64_t)(s->config.certbot.timeout_ms / 1000);
    if (read_files(s->line, timeout_s, &s->deployment, &err) < 0 || deploy(s, &err) < 0) {
        command_complain(s->line, "%s", err.message);
        return s->code;
    }
    puts(buf_str(&s->said));
    return EXIT_SUCCESS;
}

static int run(const struct command_line *line)
{
    struct session session = {
        .line = line,
        .said = {.max = ERR_MESSAGE_MAX},
        .code = EXIT_FAILURE,
    };
    unsigned timeout_s = DEPLOYMENT_TIMEOUT_S;
    int code = check_use(line, &timeout_s);

    if (code != 0)
        return code;
    setup_harden();
    setup_log_to(STDERR_FILENO);
    code = reach_and_deploy(timeout_s, &session);
    config_done(&session.config);
    deployment_done(&session.deployment);
    buf_done(&session.said);
    return code;
}

static const struct command_option options[] = {
    {"lineage", "DIR",
     "what certbot manages, such as /etc/letsencrypt/live/app.example.com: fullchain.pem "
     "and privkey.pem in it",
     NULL},
    {"fullchain", "FILE", "the certificate, leaf first, and those behind it, in PEM",
     NULL},
    {"key", "FILE",
     "its private key; may be left out when that is the derived one, or stays the same",
     NULL},
    {"timeout", "SECONDS",
     "give up when it could not be served for so long, once what else is at work is over "
     "(60); one that may be served is kept even then, and tried again",
     ""},
    SETUP_OPTIONS,
    {0},
};

static const char *const examples[] = {
    "cert-manager deploy --lineage /etc/letsencrypt/live/app.example.com",
    "cert-manager deploy --fullchain fullchain.pem --key privkey.pem",
    NULL,
};

const struct command cmd_deploy = {
    .name = "deploy",
    .summary = "have a certificate served that was obtained elsewhere",
    .description =
        "Hands a certificate to the daemon, contents and not paths, and waits until that "
        "has checked, measured, installed and served it like one of its own. Without a "
        "daemon it does the same itself.\n\n"
        "The key has to be the derived one, unless tls.key is external. A certificate "
        "that is served already is a success. One that is older than that is refused, "
        "and so is one that lacks a name or is not valid now.\n\n"
        "It is what certbot's deploy hook calls.",
    .options = options,
    .exit_status =
        "0 it is served\n"
        "1 it is not, and a line says why\n"
        "2 wrong use\n"
        "78 unusable setting, without a daemon",
    .examples = examples,
    .run = run,
};
