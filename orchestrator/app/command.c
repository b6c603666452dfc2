#include "app/command.h"

#include "base/err.h"
#include "base/guess.h"
#include "base/text.h"

#include <assert.h>
#include <errno.h>
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

/* As in the usage of other programs: "FILE…". */
static bool may_repeat(const struct command_option *option)
{
    return option->argument != NULL && text_ends_with(option->argument, "…");
}

const char *const *command_values(const struct command_line *line, const char *option)
{
    assert(may_repeat(&line->command->options[index_of(line->command, option)]));
    return line->repeated;
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

/* An option that nobody has, or one that was cut short too much to say which. */
static int refuse_option(const struct command_line *line, const char *said)
{
    const struct command_option *options = line->command->options;
    struct guess guess;
    char name[64];
    size_t fitting = 0;

    if (strncmp(said, "--", 2) != 0)
        return command_wrong_use(line, "no such option: %s", said);
    snprintf(name, sizeof name, "%.*s", (int)strcspn(said + 2, "="), said + 2);
    guess = guess_of(name);
    for (size_t i = 0; options[i].name != NULL; i++) {
        guess_try(&guess, options[i].name);
        fitting += text_starts_with(options[i].name, name);
    }
    guess_try(&guess, "help");
    if (fitting > 1)
        return command_wrong_use(line, "--%s is the beginning of several options", name);
    if (guess.name != NULL)
        return command_wrong_use(line, "no such option: --%s (did you mean --%s?)", name,
                                 guess.name);
    return command_wrong_use(line, "no such option: --%s", name);
}

/* 0 to go on, else the exit code plus one: --help ends with success. */
static int read_options(struct command_line *line, int argc, char **argv)
{
    struct option options[COMMAND_OPTIONS_MAX + 2];
    size_t repeated = 0;
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
            if (optopt >= 1 && optopt <= HELP)
                return command_wrong_use(line, "no argument belongs to %s",
                                         argv[optind - 1]) +
                       1;
            return refuse_option(line, argv[optind - 1]) + 1;
        case MISSING:
            return command_wrong_use(line, "%s: its argument is missing",
                                     argv[optind - 1]) +
                   1;
        default:
            line->values[option - 1] = optarg != NULL ? optarg : "";
            if (may_repeat(&line->command->options[option - 1]))
                line->repeated[repeated++] = optarg;
            break;
        }
    }
    line->operands = argv + optind;
    return 0;
}

static int read_and_run(struct command_line *line, int argc, char **argv)
{
    int code = read_options(line, argc, argv);

    if (code != 0)
        return code - 1;
    if (line->command->operands == NULL && line->operands[0] != NULL)
        return command_wrong_use(line, "surplus argument: %s", line->operands[0]);
    return line->command->run(line);
}

/* Whether what was printed has arrived. */
static bool is_written(const struct command_line *line)
{
    bool had_error = ferror(stdout) != 0;

    if (fflush(stdout) == 0 && !had_error)
        return true;
    command_complain(line, "standard output: %s",
                     had_error ? "cannot be written" : strerror(errno));
    return false;
}

int command_run(const struct command *command, int argc, char **argv)
{
    struct command_line line = {
        .command = command,
        .repeated = calloc((size_t)argc + 1, sizeof *line.repeated),
        .operands = argv + argc,
    };
    int code;

    if (line.repeated == NULL) {
        command_complain(&line, "not enough memory");
        return EXIT_FAILURE;
    }
    code = read_and_run(&line, argc, argv);
    /* Whatever it says otherwise: an answer that has not arrived is none. A failure was told already. */
    if (code != EXIT_FAILURE && !is_written(&line))
        code = EXIT_FAILURE;
    free(line.repeated);
    return code;
}

/* ---- which command ---- */

void command_print_unknown(const struct command *const *commands, const char *name,
                           FILE *out)
{
    struct guess guess = guess_of(name);
    bool is_option = name[0] == '-';
    char safe[128];

    for (size_t i = 0; !is_option && commands[i] != NULL; i++)
        guess_try(&guess, commands[i]->name);
    if (is_option) {
        guess_try(&guess, "--help");
        guess_try(&guess, "--version");
    }
    text_escape(safe, sizeof safe, name, strlen(name));
    fprintf(out, "cert-manager: no such %s: %s", is_option ? "option" : "command", safe);
    if (is_option && guess.name == NULL)
        fputs("; a command comes first, and its options behind it", out);
    if (guess.name != NULL)
        fprintf(out, " (did you mean \"%s\"?)", guess.name);
    fputc('\n', out);
}
