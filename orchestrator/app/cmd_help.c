/* What the program says about itself: help and version. */
#include "app/commands.h"
#include "base/buf.h"
#include "domain/config_reference.h"

#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

static const char *const no_examples[] = {NULL};

/* ---- help ---- */

static void print_commands(FILE *out)
{
    fputs("usage: cert-manager COMMAND [OPTION]…\n\n", out);
    for (size_t i = 0; commands[i] != NULL; i++)
        fprintf(out, "  %-12s%s\n", commands[i]->name, commands[i]->summary);
    fputs("\ncert-manager COMMAND --help explains a command.\n", out);
}

static int print_settings(const struct command_line *line)
{
    BUF_SCOPED text = {0};
    struct err err = ERR_INIT;

    if (config_reference(&text, &err) < 0) {
        command_complain(line, "%s", err.message);
        return EXIT_FAILURE;
    }
    fputs(buf_str(&text), stdout);
    return EXIT_SUCCESS;
}

static int print_completion(const struct command_line *line)
{
    BUF_SCOPED keys = {0};
    struct err err = ERR_INIT;

    if (config_reference_keys(&keys, &err) < 0) {
        command_complain(line, "%s", err.message);
        return EXIT_FAILURE;
    }
    command_print_completion(commands, buf_str(&keys), stdout);
    return EXIT_SUCCESS;
}

static int help(const struct command_line *line)
{
    const char *name = line->operands[0];

    if (command_has(line, "completion"))
        return print_completion(line);
    if (command_has(line, "manual")) {
        command_print_manual(commands, stdout);
        return EXIT_SUCCESS;
    }
    if (command_has(line, "settings"))
        return print_settings(line);
    if (name != NULL && line->operands[1] != NULL)
        return command_wrong_use(line, "surplus argument: %s", line->operands[1]);
    if (name == NULL) {
        print_commands(stdout);
        return EXIT_SUCCESS;
    }
    for (size_t i = 0; commands[i] != NULL; i++) {
        if (strcmp(commands[i]->name, name) == 0) {
            command_print_help(commands[i], stdout);
            return EXIT_SUCCESS;
        }
    }
    command_print_unknown(commands, name, stderr);
    return COMMAND_WRONG_USE;
}

static const struct command_option help_options[] = {
    {"completion", NULL, "print the completion for bash", NULL},
    {"manual", NULL, "print the commands' part of cert-manager(8), as mdoc(7)", NULL},
    {"settings", NULL, "print the settings' part of cert-manager.yaml(5), as mdoc(7)",
     NULL},
    {0},
};

static const char *const help_examples[] = {
    "cert-manager help run",
    "cert-manager help --completion >/etc/bash_completion.d/cert-manager",
    NULL,
};

const struct command cmd_help = {
    .name = "help",
    .summary = "list the commands, or explain one",
    .description = "Lists the commands, or explains one, as its --help does.",
    .options = help_options,
    .operands = "[COMMAND]",
    .exit_status =
        "0 shown\n"
        "1 cannot write\n"
        "2 wrong use",
    .examples = help_examples,
    .run = help,
};

/* ---- version ---- */

static int version(const struct command_line *line)
{
    (void)line;
    printf("cert-manager %s\nOpenSSL %s, libuv %s\n", CERT_MANAGER_VERSION,
           OpenSSL_version(OPENSSL_VERSION_STRING), uv_version_string());
    return EXIT_SUCCESS;
}

static const struct command_option no_options[] = {{0}};

const struct command cmd_version = {
    .name = "version",
    .summary = "print the version",
    .description = "Prints the version, and those of the libraries that are in use.",
    .options = no_options,
    .exit_status =
        "0 shown\n"
        "1 cannot write\n"
        "2 wrong use",
    .examples = no_examples,
    .run = version,
};
