#include "app/commands.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *summary;
} commands[] = {
    {"run", cmd_run, "obtain, measure, serve and renew the certificate (the daemon)"},
    {"prestart", cmd_prestart, "prepare for nginx or supervisord, then become it"},
    {"verify-log", cmd_verify_log,
     "does the TEE's event log hold and name a certificate"},
    {"render", cmd_render, "show the configuration that nginx would get"},
    {"version", cmd_version, "print the version"},
};

static void print_usage(FILE *out)
{
    fprintf(out, "usage: cert-manager COMMAND [OPTION]…\n\n");
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].summary);
    fprintf(out, "\ncert-manager COMMAND --help explains a command.\n");
}

int cmd_version(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    printf("cert-manager %s\n", CERT_MANAGER_VERSION);
    return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    const char *name = argc < 2 ? "" : argv[1];

    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 ||
        strcmp(name, "help") == 0) {
        print_usage(stdout);
        return EXIT_SUCCESS;
    }
    if (strcmp(name, "--version") == 0)
        name = "version";
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (strcmp(name, commands[i].name) == 0)
            return commands[i].run(argc - 1, argv + 1);
    }
    if (name[0] != '\0')
        fprintf(stderr, "cert-manager: unknown command \"%s\"\n", name);
    print_usage(stderr);
    return 2;
}
