/* How the daemon of this machine is: asked over its control socket. */
#include "app/commands.h"
#include "app/control_client.h"
#include "app/setup.h"
#include "app/status_screen.h"
#include "app/terminal.h"
#include "base/fs.h"
#include "base/text.h"
#include "domain/json_text.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    EXIT_ATTENTION = 3,
    PATIENCE_MS = 3 * 1000,
    FILE_MAX_BYTES = 1024 * 1024,
    SCREEN_MAX_BYTES = 64 * 1024
};

static const struct timespec watch_pause = {.tv_sec = 1};

static int ask(const struct config *config, json_t **ret, struct err *err)
{
    const struct control_question question = {
        .method = "GET", .path = "/v1/status", .timeout_ms = PATIENCE_MS};

    return control_ask_json(config, &question, ret, err);
}

static void print_json(const json_t *status, size_t flags)
{
    json_dumpf(status, stdout, flags);
    putchar('\n');
}

static int code_of(const json_t *status)
{
    return screen_is_well(status) ? EXIT_SUCCESS : EXIT_ATTENTION;
}

static struct screen screen_now(void)
{
    return (struct screen){
        .out = stdout,
        .width = terminal_width(stdout),
        .line_end = "\n",
        .now = (int64_t)time(NULL),
    };
}

/* ---- no daemon ---- */

/* What it said last: better than nothing, when somebody looks for what went wrong. */
static void print_last_words(const struct config *config)
{
    struct screen screen = screen_now();
    char path[FS_PATH_MAX];
    char date[TEXT_TIME_SIZE];
    BUF_SCOPED text = {0};
    struct err ignored = ERR_INIT;
    struct stat file;
    json_t *status;

    if (fs_join(path, config->run_dir, "status.json", &ignored) < 0 ||
        stat(path, &file) < 0 || fs_read(path, FILE_MAX_BYTES, &text, &ignored) < 0)
        return;
    status = json_load_whole(buf_str(&text), text.len, 0, NULL);
    if (json_is_object(status)) {
        terminal_print(stdout, TERMINAL_DOUBTFUL,
                       "What it said last, on %s (%s):", text_time(date, file.st_mtime),
                       path);
        fputs("\n\n", stdout);
        screen.now = file.st_mtime;
        screen.past = true;
        screen_print(&screen, status);
    }
    json_decref(status);
}

/* ---- again and again ---- */

static volatile sig_atomic_t interrupted;

static void on_interrupt(int number)
{
    (void)number;
    interrupted = 1;
}

/*
 * What is being written goes on, for half a screen would be a failure; the pause ends all the same, it
 * is never restarted (signal(7)). A second signal ends the process as usual.
 */
static void catch_interrupt(void)
{
    struct sigaction action = {.sa_handler = on_interrupt,
                               .sa_flags = (int)SA_RESETHAND | SA_RESTART};

    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

#define HOME "\x1b[H"
#define CLEAR_SCREEN "\x1b[H\x1b[2J"
#define CLEAR_BELOW "\x1b[J"
#define CLEAR_LINE_END "\x1b[K\n"

static void redraw(const json_t *status, const struct err *err)
{
    struct screen screen = screen_now();

    screen.line_end = CLEAR_LINE_END;
    fputs(HOME, stdout);
    if (status != NULL) {
        screen_print(&screen, status);
    } else {
        terminal_print(stdout, TERMINAL_BAD, "%s", err->message);
        fputs(CLEAR_LINE_END, stdout);
    }
    fputs(CLEAR_BELOW, stdout);
}

/* Into a pipe or file: only what is news. */
static void report(const json_t *status, const json_t *before, const struct err *err,
                   bool json)
{
    const struct screen screen = screen_now();

    if (status != NULL && before != NULL && json_equal(status, before))
        return;
    if (status == NULL && before == NULL && !json)
        return;
    if (json && status != NULL) {
        print_json(status, JSON_COMPACT);
    } else if (!json && status != NULL) {
        screen_print(&screen, status);
        putchar('\n');
    } else if (before != NULL) {
        fprintf(stderr, "cert-manager status: %s\n", err->message);
    }
}

static int watch(const struct config *config, bool json)
{
    bool draws = !json && isatty(STDOUT_FILENO) == 1;
    json_t *before = NULL;
    int code = EXIT_FAILURE;

    catch_interrupt();
    if (draws) {
        setvbuf(stdout, NULL, _IOFBF,
                SCREEN_MAX_BYTES); /* a screen at once does not flicker */
        fputs(CLEAR_SCREEN, stdout);
    }
    while (!interrupted) {
        struct err err = ERR_INIT;
        json_t *status = NULL;

        code = ask(config, &status, &err) == 0 ? code_of(status) : EXIT_FAILURE;
        if (draws)
            redraw(status, &err);
        else
            report(status, before, &err, json);
        json_decref(before);
        before = status;
        if (fflush(stdout) != 0)
            break; /* whoever read it has gone */
        nanosleep(&watch_pause, NULL);
    }
    json_decref(before);
    return code;
}

/* ---- once ---- */

static int show(const struct command_line *line, const struct config *config, bool json)
{
    struct screen screen = screen_now();
    struct err err = ERR_INIT;
    json_t *status = NULL;
    int code;

    if (ask(config, &status, &err) < 0) {
        command_complain(line, "%s", err.message);
        if (!json)
            print_last_words(config);
        return EXIT_FAILURE;
    }
    if (json)
        print_json(status, JSON_INDENT(2));
    else
        screen_print(&screen, status);
    code = code_of(status);
    json_decref(status);
    return code;
}

static int run(const struct command_line *line)
{
    bool json = command_has(line, "json");
    struct config config;
    int code;

    setup_harden();
    code = setup_reach(&config, line);
    if (code == 0)
        code =
            command_has(line, "watch") ? watch(&config, json) : show(line, &config, json);
    config_done(&config);
    return code;
}

static const struct command_option options[] = {
    SETUP_OPTIONS,
    {"json", NULL,
     "the status as the daemon gives it; with --watch a line for each change", NULL},
    {"watch", NULL,
     "again each second until Ctrl-C; into a pipe or file only when something has "
     "changed",
     NULL},
    {0},
};

static const char *const examples[] = {
    "cert-manager status",
    "cert-manager status --watch",
    "cert-manager status --json | jq .attention",
    NULL,
};

const struct command cmd_status = {
    .name = "status",
    .summary = "show how certificate, attestation and renewal stand",
    .description =
        "Asks the daemon of this machine, and shows on one screen what is served and "
        "whether it is attested, what comes next, when and why, what is going on now, "
        "what went well and wrong last and what to do about it, and what the limits of "
        "the CA have left. What somebody should look at comes first.\n\n"
        "Where no daemon answers it shows what the last one wrote into status.json in "
        "run_dir, with the time of that.",
    .options = options,
    .exit_status =
        "0 all is well\n"
        "1 the daemon cannot be asked\n"
        "2 wrong use\n"
        "3 something needs attention\n"
        "78 unusable setting",
    .examples = examples,
    .run = run,
};
