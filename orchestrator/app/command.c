#include "app/command.h"

#include "base/err.h"
#include "base/text.h"

#include <assert.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* ---- messages ---- */

__attribute__((format(printf, 2, 0))) static void say(const struct command_line *line,
                                                      const char *format, va_list args)
{
    char message[ERR_MESSAGE_MAX];
    char safe[2 * ERR_MESSAGE_MAX];

    vsnprintf(message, sizeof message, format, args);
    text_escape(safe, sizeof safe, message, strlen(message));
    fprintf(stderr, "cert-manager %s: %s\n", line->command->name, safe);
}

void command_complain(const struct command_line *line, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    say(line, format, args);
    va_end(args);
}

int command_wrong_use(const struct command_line *line, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    say(line, format, args);
    va_end(args);
    command_print_usage(line->command, stderr);
    fprintf(stderr, "cert-manager %s --help explains it.\n", line->command->name);
    return COMMAND_WRONG_USE;
}

/* ---- what was said ---- */

static size_t index_of(const struct command *command, const char *option)
{
    size_t i = 0;

    while (strcmp(command->options[i].name, option) != 0) {
        i++;
        assert(command->options[i].name != NULL && "the command has that option");
    }
    return i;
}

const char *command_value(const struct command_line *line, const char *option)
{
    return line->values[index_of(line->command, option)];
}

bool command_has(const struct command_line *line, const char *option)
{
    return command_value(line, option) != NULL;
}

/* ---- reading ---- */

/* getopt's numbers: an option's index plus one, and these. */
enum { HELP = COMMAND_OPTIONS_MAX + 1, UNUSABLE = '?', MISSING = ':' };

static void make_options(const struct command *command,
                         struct option ret[COMMAND_OPTIONS_MAX + 2])
{
    int i = 0;

    for (; command->options[i].name != NULL; i++) {
        assert(i < COMMAND_OPTIONS_MAX);
        ret[i] = (struct option){
            .name = command->options[i].name,
            .has_arg =
                command->options[i].argument != NULL ? required_argument : no_argument,
            .val = i + 1,
        };
    }
    ret[i++] = (struct option){.name = "help", .has_arg = no_argument, .val = HELP};
    ret[i] = (struct option){.name = NULL};
}

/* 0 to go on, else the exit code plus one: --help ends with success. */
static int read_options(struct command_line *line, int argc, char **argv)
{
    struct option options[COMMAND_OPTIONS_MAX + 2];
    int option;

    make_options(line->command, options);
    opterr = 0;
    while ((option = getopt_long(argc, argv, "+:h", options, NULL)) != -1) {
        switch (option) {
        case 'h':
        case HELP:
            command_print_help(line->command, stdout);
            return EXIT_SUCCESS + 1;
        case UNUSABLE:
            return command_wrong_use(line,
                                     optopt >= 1 && optopt <= HELP
                                         ? "no argument belongs to %s"
                                         : "no such option: %s",
                                     argv[optind - 1]) +
                   1;
        case MISSING:
            return command_wrong_use(line, "%s: its argument is missing",
                                     argv[optind - 1]) +
                   1;
        default:
            line->values[option - 1] = optarg != NULL ? optarg : "";
            break;
        }
    }
    line->operands = argv + optind;
    return 0;
}

int command_run(const struct command *command, int argc, char **argv)
{
    struct command_line line = {.command = command, .operands = argv + argc};
    int code = read_options(&line, argc, argv);

    if (code != 0)
        return code - 1;
    if (command->operands == NULL && line.operands[0] != NULL)
        return command_wrong_use(&line, "surplus argument: %s", line.operands[0]);
    return command->run(&line);
}
