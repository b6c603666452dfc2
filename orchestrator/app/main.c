#include "app/commands.h"

#include <string.h>

int main(int argc, char **argv)
{
    const char *name = argc < 2 ? "" : argv[1];

    if (strcmp(name, "-h") == 0 || strcmp(name, "--help") == 0)
        name = "help";
    if (strcmp(name, "--version") == 0)
        name = "version";
    for (size_t i = 0; commands[i] != NULL; i++) {
        if (strcmp(name, commands[i]->name) == 0)
            return command_run(commands[i], argc - 1, argv + 1);
    }
    if (name[0] != '\0')
        command_print_unknown(commands, name, stderr);
    fputs(
        "usage: cert-manager COMMAND [OPTION]…\n"
        "cert-manager help lists the commands.\n",
        stderr);
    return COMMAND_WRONG_USE;
}
