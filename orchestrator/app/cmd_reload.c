#include "app/commands.h"
#include "app/control_client.h"
#include "app/control_follow.h"
#include "app/setup.h"
#include "domain/json_text.h"

#include <stdio.h>
#include <stdlib.h>

/* Every error of a file, not only the first. */
static int refuse(const struct command_line *line, const json_t *answer, int status)
{
    const json_t *errors = json_object_get(answer, "errors");
    json_t *one;
    size_t i;

    json_array_foreach(errors, i, one)
    {
        command_complain(line, "%s", json_string_value(one));
    }
    if (json_array_size(errors) > 0)
        command_complain(line, "nothing was changed");
    else
        command_complain(line, "the daemon answered with status %d: %s", status,
                         control_text(answer, "error"));
    return status == 422 ? EXIT_CONFIG : EXIT_FAILURE;
}

static int follow(const struct command_line *line, const struct config *config,
                  const json_t *accepted)
{
    struct err err = ERR_INIT;

    if (control_follow(config, "reload", accepted, &err) == 0)
        return EXIT_SUCCESS;
    command_complain(line, "%s", err.message);
    return EXIT_FAILURE;
}

static int ask(const struct command_line *line, const struct config *config)
{
    const struct control_question question = {.method = "POST", .path = "/v1/reload"};
    struct control_answer answer;
    struct err err = ERR_INIT;
    json_t *root;
    int code;

    if (control_ask(config, &question, &answer, &err) < 0) {
        command_complain(line, "%s", err.message);
        return EXIT_FAILURE;
    }
    root = json_load_whole(buf_str(&answer.body), answer.body.len, 0, NULL);
    code = answer.status == 202 ? follow(line, config, root)
                                : refuse(line, root, answer.status);
    json_decref(root);
    control_answer_done(&answer);
    return code;
}

static int run(const struct command_line *line)
{
    struct config config;
    int code;

    setup_harden();
    code = setup_reach(&config, line);
    if (code == 0)
        code = ask(line, &config);
    config_done(&config);
    return code;
}

static const struct command_option options[] = {
    SETUP_OPTIONS,
    {0},
};

static const char *const examples[] = {
    "cert-manager reload",
    NULL,
};

const struct command cmd_reload = {
    .name = "reload",
    .summary = "have the daemon take its settings anew",
    .description =
        "The daemon reads its settings again, from the file, environment and flags that "
        "it was started with, and judges them whole, by `nginx -t` as well. Good ones "
        "take the place of those in force, in the same process: what is at work comes to "
        "its end first, nginx is reloaded only when its configuration is another one, "
        "and no connection notices. Of bad ones each error is told, and nothing changes. "
        "SIGHUP to the daemon does the same, and the log tells.\n\n"
        "Another domain, one more name or the end of acme.staging leads to an order; "
        "what is served goes on until its certificate is there. Only dev_mode and "
        "tls.key begin as a start does, with HTTPS off until there is a certificate that "
        "may be served by them. tls.force_rm acts at starts only. run_dir, nginx.conf, "
        "nginx.site_conf and nginx.pid_file cannot change while the container runs.\n\n"
        "The options only say where the daemon's control socket is (run_dir); what it "
        "reads was said when it was started.",
    .options = options,
    .exit_status =
        "0 the new settings are in force\n"
        "1 no daemon answers, or nginx refuses the configuration\n"
        "2 wrong use\n"
        "78 unusable setting",
    .examples = examples,
    .run = run,
};
