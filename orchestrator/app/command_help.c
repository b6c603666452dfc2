/* What is said about commands: usage, --help, the manual, completion. */
#include "app/command.h"

#include "base/text.h"

#include <string.h>

enum { WIDTH = 79, MEANING_COLUMN = 22, EXIT_COLUMN = 6, EXIT_LINE_MAX_BYTES = 512 };

/* ---- lines ---- */

/* Characters as a terminal counts them: one column each, here. */
static size_t columns_of(const char *text, size_t len)
{
    size_t columns = 0;
    unsigned code;

    for (size_t at = 0; at < len; columns++) {
        size_t step = text_character(text + at, len - at, &code);

        at += step > 0 ? step : 1;
    }
    return columns;
}

/* Words from `column` on, each line after the first `indent` columns to the right. */
static void wrap(FILE *out, const char *text, size_t column, size_t indent)
{
    bool is_first = true;

    while (*text != '\0') {
        size_t len = strcspn(text, " \n");
        size_t columns = columns_of(text, len);
        bool ends_paragraph = text[len] == '\n';

        if (!is_first && column + 1 + columns > WIDTH) {
            fprintf(out, "\n%*s", (int)indent, "");
            column = indent;
            is_first = true;
        }
        fprintf(out, "%s%.*s", is_first ? "" : " ", (int)len, text);
        column += columns + (is_first ? 0 : 1);
        is_first = false;
        text += len + strspn(text + len, " \n");
        if (ends_paragraph && *text != '\0') {
            fprintf(out, "\n\n%*s", (int)indent, "");
            column = indent;
            is_first = true;
        }
    }
    fputc('\n', out);
}

/* Its width. */
static size_t heading_of(const struct command_option *option, char *ret, size_t size)
{
    int len = snprintf(ret, size, "  --%s%s%s", option->name,
                       option->argument != NULL ? " " : "",
                       option->argument != NULL ? option->argument : "");

    return len < 0 ? 0 : columns_of(ret, (size_t)len);
}

static void print_option(const struct command_option *option, FILE *out)
{
    char heading[64];
    size_t len = heading_of(option, heading, sizeof heading);

    fputs(heading, out);
    if (len + 2 > MEANING_COLUMN)
        fprintf(out, "\n%*s", MEANING_COLUMN, "");
    else
        fprintf(out, "%*s", (int)(MEANING_COLUMN - len), "");
    wrap(out, option->meaning, MEANING_COLUMN, MEANING_COLUMN);
}

/* ---- exit status ---- */

/* One line of it: "78 unusable setting", or words alone. */
struct exit_line {
    int code_len; /* 0: words alone */
    const char *code;
    char meaning[EXIT_LINE_MAX_BYTES];
};

/* Whether there was one more; `text` is behind it then. */
static bool next_exit_line(const char **text, struct exit_line *ret)
{
    size_t len = strcspn(*text, "\n");
    size_t digits = strspn(*text, "0123456789");
    size_t front = digits > 0 && (*text)[digits] == ' ' ? digits + 1 : 0;

    if (len == 0)
        return false;
    ret->code = *text;
    ret->code_len = front > 0 ? (int)digits : 0;
    snprintf(ret->meaning, sizeof ret->meaning, "%.*s", (int)(len - front),
             *text + front);
    *text += len + ((*text)[len] == '\n');
    return true;
}

static void print_exit_status(const char *text, FILE *out)
{
    struct exit_line line;

    while (next_exit_line(&text, &line)) {
        fprintf(out, "  %-*.*s", EXIT_COLUMN - 2, line.code_len, line.code);
        wrap(out, line.meaning, EXIT_COLUMN, EXIT_COLUMN);
    }
}

/* ---- a command ---- */

void command_print_usage(const struct command *command, FILE *out)
{
    char text[512];
    size_t used =
        (size_t)snprintf(text, sizeof text, "usage: cert-manager %s", command->name);
    size_t indent = used + 1;

    for (const struct command_option *option = command->options; option->name != NULL;
         option++) {
        used += (size_t)snprintf(text + used, sizeof text - used, " [--%s%s%s]",
                                 option->name, option->argument != NULL ? "=" : "",
                                 option->argument != NULL ? option->argument : "");
    }
    if (command->operands != NULL)
        snprintf(text + used, sizeof text - used, " %s", command->operands);
    wrap(out, text, 0, indent < WIDTH / 2 ? indent : 8);
}

void command_print_help(const struct command *command, FILE *out)
{
    command_print_usage(command, out);
    fputc('\n', out);
    wrap(out, command->description, 0, 0);
    fputc('\n', out);
    for (const struct command_option *option = command->options; option->name != NULL;
         option++)
        print_option(option, out);
    print_option(&(struct command_option){.name = "help", .meaning = "show this"}, out);
    fputs("\nexit status:\n", out);
    print_exit_status(command->exit_status, out);
    if (command->examples[0] != NULL)
        fputs("\nexamples:\n", out);
    for (size_t i = 0; command->examples[i] != NULL; i++)
        fprintf(out, "  %s\n", command->examples[i]);
}

/* ---- the manual ---- */

/* Text of mdoc(7): a backslash, and a dot or a quote at the front, mean something there. */
static void print_roff(FILE *out, const char *text)
{
    bool is_front = true;

    for (; *text != '\0'; text++) {
        if (is_front && (*text == '.' || *text == '\''))
            fputs("\\&", out);
        is_front = *text == '\n';
        if (*text == '\\')
            fputs("\\e", out);
        else
            fputc(*text, out);
    }
}

/* Each sentence begins a line, as mdoc(7) wants it. */
static void print_roff_sentences(FILE *out, char *text)
{
    for (char *at = text; (at = strstr(at, ". ")) != NULL; at += 2) {
        if (at[2] >= 'A' && at[2] <= 'Z')
            at[1] = '\n';
    }
    print_roff(out, text);
}

static void print_roff_paragraphs(FILE *out, const char *text)
{
    while (*text != '\0') {
        const char *end = strstr(text, "\n\n");
        size_t len = end != NULL ? (size_t)(end - text) : strlen(text);
        char paragraph[2048];

        snprintf(paragraph, sizeof paragraph, "%.*s", (int)len, text);
        print_roff_sentences(out, paragraph);
        fputc('\n', out);
        text += len;
        if (*text != '\0') {
            fputs(".Pp\n", out);
            text += 2;
        }
    }
}

static void print_manual_exit_status(const char *text, FILE *out)
{
    struct exit_line line;

    fputs(".Pp\nExit status:\n.Bl -tag -width 78x -compact\n", out);
    while (next_exit_line(&text, &line)) {
        if (line.code_len > 0)
            fprintf(out, ".It %.*s\n", line.code_len, line.code);
        else
            fputs(".It \\&\n", out);
        print_roff_sentences(out, line.meaning);
        fputc('\n', out);
    }
    fputs(".El\n", out);
}

/* Whether the commands begin with one that has the same option, for which it was explained. */
static bool was_explained(const struct command_option *option,
                          const struct command *first)
{
    for (const struct command_option *other = first->options; other->name != NULL;
         other++) {
        if (strcmp(other->name, option->name) == 0 &&
            strcmp(other->meaning, option->meaning) == 0)
            return true;
    }
    return false;
}

static void print_manual_of(const struct command *command, const struct command *first,
                            FILE *out)
{
    fprintf(out, ".Ss %s\n.Nm\n.Cm %s\n", command->name, command->name);
    for (const struct command_option *option = command->options; option->name != NULL;
         option++) {
        fprintf(out, ".Op Fl -%s", option->name);
        if (option->argument != NULL)
            fprintf(out, " Ar %s", option->argument);
        fputc('\n', out);
    }
    if (command->operands != NULL)
        fprintf(out, ".Ar %s\n", command->operands);
    fputs(".Pp\n", out);
    print_roff_paragraphs(out, command->description);
    if (command->options[0].name != NULL)
        fputs(".Bl -tag -width Ds\n", out);
    for (const struct command_option *option = command->options; option->name != NULL;
         option++) {
        fprintf(out, ".It Fl -%s", option->name);
        if (option->argument != NULL)
            fprintf(out, " Ar %s", option->argument);
        fputc('\n', out);
        if (command != first && was_explained(option, first))
            fprintf(out, "as for\n.Cm %s\n", first->name);
        else
            print_roff_paragraphs(out, option->meaning);
    }
    if (command->options[0].name != NULL)
        fputs(".El\n", out);
    print_manual_exit_status(command->exit_status, out);
    if (command->examples[0] == NULL)
        return;
    fputs(".Bd -literal -offset indent\n", out);
    for (size_t i = 0; command->examples[i] != NULL; i++) {
        print_roff(out, command->examples[i]);
        fputc('\n', out);
    }
    fputs(".Ed\n", out);
}

void command_print_manual(const struct command *const *commands, FILE *out)
{
    for (size_t i = 0; commands[i] != NULL; i++)
        print_manual_of(commands[i], commands[0], out);
}

/* ---- completion ---- */

static void print_names(const struct command *const *commands, FILE *out)
{
    for (size_t i = 0; commands[i] != NULL; i++)
        fprintf(out, " %s", commands[i]->name);
}

static void print_options_of(const struct command *command,
                             const struct command *const *commands, FILE *out)
{
    fprintf(out, "    %s)\n        options='--help", command->name);
    for (const struct command_option *option = command->options; option->name != NULL;
         option++)
        fprintf(out, " --%s", option->name);
    if (command->operands != NULL && strcmp(command->operands, "[COMMAND]") == 0)
        print_names(commands, out);
    fputs("'\n        ;;\n", out);
}

static bool takes_setting(const struct command_option *option)
{
    return option->argument != NULL && strncmp(option->argument, "KEY=", 4) == 0;
}

static void print_words_of(const struct command *command, FILE *out)
{
    for (const struct command_option *option = command->options; option->name != NULL;
         option++) {
        if (option->argument == NULL || takes_setting(option))
            continue;
        fprintf(out, "    \"%s --%s\")\n", command->name, option->name);
        if (option->words != NULL)
            fprintf(out,
                    "        mapfile -t COMPREPLY < <(compgen -W '%s' -- \"$word\")\n",
                    option->words);
        else
            fputs("        mapfile -t COMPREPLY < <(compgen -f -- \"$word\")\n", out);
        fputs("        return\n        ;;\n", out);
    }
}

/* Behind any command: the key of a setting, to be gone on with behind its =. */
static const char setting_words[] =
    "    *\" --set\")\n"
    "        mapfile -t COMPREPLY < <(compgen -S = -W \"$keys\" -- \"$word\")\n"
    "        compopt -o nospace +o filenames\n"
    "        return\n"
    "        ;;\n";

void command_print_completion(const struct command *const *commands, const char *keys,
                              FILE *out)
{
    fputs(
        "# Completion of cert-manager for bash.\n"
        "_cert_manager()\n"
        "{\n"
        "    local word=${COMP_WORDS[COMP_CWORD]} options=\n"
        "    COMPREPLY=()\n"
        "    if [ \"$COMP_CWORD\" -eq 1 ]; then\n"
        "        mapfile -t COMPREPLY < <(compgen -W '--help --version",
        out);
    print_names(commands, out);
    fprintf(out,
            "' -- \"$word\")\n"
            "        return\n"
            "    fi\n"
            "    local keys='%s'\n",
            keys);
    fputs("    case \"${COMP_WORDS[1]} ${COMP_WORDS[COMP_CWORD - 1]}\" in\n", out);
    fputs(setting_words, out);
    for (size_t i = 0; commands[i] != NULL; i++)
        print_words_of(commands[i], out);
    fputs("    esac\n    case ${COMP_WORDS[1]} in\n", out);
    for (size_t i = 0; commands[i] != NULL; i++)
        print_options_of(commands[i], commands, out);
    fputs(
        "    esac\n"
        "    mapfile -t COMPREPLY < <(compgen -W \"$options\" -- \"$word\")\n"
        "}\n"
        "complete -o filenames -F _cert_manager cert-manager\n",
        out);
}
