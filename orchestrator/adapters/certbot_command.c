/* How certbot is called: its arguments, and an environment that nothing is inherited in. */
#include "adapters/certbot_internal.h"

#include <stdio.h>

/* How long certbot waits for the CA after the challenges are through. */
#define ISSUANCE_TIMEOUT_S "90"

static int fill_paths(struct certbot_command *command, const char *folder,
                      struct err *err)
{
    const struct {
        char *ret;
        const char *name;
    } paths[] = {
        {command->config, "config"},
        {command->work, "work"},
        {command->logs, "logs"},
        {command->csr, "request.csr"},
        {command->cert, "out/cert.pem"},
        {command->chain, "out/chain.pem"},
        {command->fullchain, "out/fullchain.pem"},
        {command->output, "stdout"},
        {command->errors, "stderr"},
        {command->tmp, "tmp"},
    };

    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        if (fs_join(paths[i].ret, folder, paths[i].name, err) < 0)
            return -1;
    }
    return 0;
}

/* `value` NULL: the argument, or the option before it, is left out. */
static void add(const char **list, size_t max, const char *option, const char *value)
{
    size_t count = 0;

    if (value == NULL)
        return;
    while (list[count] != NULL)
        count++;
    if (option != NULL && count + 1 < max)
        list[count++] = option;
    if (count + 1 < max)
        list[count] = value;
}

static void fill_arguments(struct certbot_command *command,
                           const struct certbot_request *request)
{
    const struct authority *authority = request->authority;
    const struct {
        const char *option;
        const char *value;
    } arguments[] = {
        {NULL, request->config->certbot.path},
        {NULL, "certonly"},
        {NULL, "--non-interactive"},
        /* the only way to the CA's problem document, and in certbot 2.1 to any reason at
           all */
        {NULL, "--debug"},
        {"--max-log-backups", "0"},
        {"--server", authority->directory},
        {"--account", CERTBOT_ACCOUNT_ID},
        {NULL, "--webroot"},
        {"-w", request->config->nginx.webroot},
        {"--csr", command->csr},
        {"--config-dir", command->config},
        {"--work-dir", command->work},
        {"--logs-dir", command->logs},
        {"--cert-path", command->cert},
        {"--chain-path", command->chain},
        {"--fullchain-path", command->fullchain},
        {"--issuance-timeout", ISSUANCE_TIMEOUT_S},
        {"--preferred-chain", authority->preferred_chain},
        {"--preferred-profile", request->profile},
    };

    for (size_t i = 0; i < sizeof arguments / sizeof arguments[0]; i++)
        add(command->argv, CERTBOT_ARGUMENTS_MAX, arguments[i].option,
            arguments[i].value);
}

static void fill_environment(struct certbot_command *command,
                             const struct authority *authority)
{
    const struct {
        const char *name;
        const char *value;
    } variables[] = {
        {"PATH", "/usr/local/bin:/usr/bin:/bin"},
        {"LANG", "C.UTF-8"},
        {"TMPDIR", command->tmp},
        /* no per-user cli.ini may change what certbot does */
        {"XDG_CONFIG_HOME", "/nonexistent"},
        {"REQUESTS_CA_BUNDLE", authority->ca_bundle},
        {"https_proxy", authority->proxy},
        {"no_proxy", authority->proxy == NULL ? NULL : authority->no_proxy},
    };
    size_t count = 0;

    for (size_t i = 0; i < sizeof variables / sizeof variables[0]; i++) {
        char *text = command->variables[count];

        if (variables[i].value == NULL)
            continue;
        snprintf(text, CERTBOT_VARIABLE_SIZE, "%s=%s", variables[i].name,
                 variables[i].value);
        command->environment[count++] = text;
    }
}

int certbot_fill_command(struct certbot_command *command, const char *folder,
                         const struct certbot_request *request, struct err *err)
{
    *command = (struct certbot_command){.argv = {NULL}};
    if (fill_paths(command, folder, err) < 0)
        return -1;
    fill_arguments(command, request);
    fill_environment(command, request->authority);
    return 0;
}
