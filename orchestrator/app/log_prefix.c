#include "app/log_prefix.h"

#include "app/bystander.h"
#include "base/text.h"
#include "domain/log_json.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

/* Of JSON, too: a byte may become four of an escaped one, and those eight. */
enum {
    LINE_BYTES = 16 * 1024,
    ESCAPED_SIZE = 4 * LINE_BYTES + 1,
    JSON_SIZE = 2 * ESCAPED_SIZE + 1024
};

/* In one write: lines of several writers do not mix. */
static void put_parts(const char *head, const char *line, size_t len)
{
    const struct iovec parts[] = {
        {.iov_base = (void *)(uintptr_t)head, .iov_len = strlen(head)},
        {.iov_base = (void *)(uintptr_t)line, .iov_len = len},
        {.iov_base = (char[]){'\n'}, .iov_len = 1},
    };

    /*
     * When nobody reads the log any more there is nowhere to report it; the pipe is
     * still drained.
     */
    (void)!writev(STDOUT_FILENO, parts, 3);
}

static void put_prefixed(const char *prefix, const char *line, size_t len)
{
    put_parts(prefix, line, len);
}

static void put_json(const char *program, const char *line, size_t len)
{
    static char escaped[ESCAPED_SIZE];
    static char json[JSON_SIZE];
    struct log_record record = {
        .level = log_json_level_of(line, len),
        .program = program,
        .text = escaped,
    };

    if (log_json_is_line(line, len)) {
        put_parts("", line, len);
        return;
    }
    clock_gettime(CLOCK_REALTIME, &record.at);
    text_escape(escaped, sizeof escaped, line, len);
    put_parts("", json, log_json(json, sizeof json, &record));
}

/* What becomes of a line, and what is put to it. */
typedef void put_fn(const char *name, const char *line, size_t len);

static void copy_lines(int from, put_fn *put, const char *name)
{
    static char held[LINE_BYTES];
    size_t used = 0;
    ssize_t got;

    for (;;) {
        char *start = held;
        char *end;

        got = read(from, held + used, sizeof held - used);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break;
        used += (size_t)got;
        while ((end = memchr(start, '\n', used - (size_t)(start - held))) != NULL) {
            put(name, start, (size_t)(end - start));
            start = end + 1;
        }
        used -= (size_t)(start - held);
        memmove(held, start, used);
        if (used == sizeof held) { /* longer than any line should be: in pieces */
            put(name, held, used);
            used = 0;
        }
    }
    if (used > 0)
        put(name, held, used);
}

struct copying {
    int pipe_ends[2];
    put_fn *put;
    const char *name;
};

/* It lives as long as its writers. */
static void copy(void *argument)
{
    const struct copying *copying = argument;

    close(copying->pipe_ends[1]);
    copy_lines(copying->pipe_ends[0], copying->put, copying->name);
}

static int attach(put_fn *put, const char *name, struct err *err)
{
    struct copying copying = {.put = put, .name = name};

    if (pipe(copying.pipe_ends) < 0)
        return err_sys(err, errno, "cannot make a pipe for the log");
    if (bystander_start(copy, &copying, err) < 0) {
        close(copying.pipe_ends[0]);
        close(copying.pipe_ends[1]);
        return err_wrap(err, "cannot start the log prefixer");
    }
    dup2(copying.pipe_ends[1], STDOUT_FILENO);
    dup2(copying.pipe_ends[1], STDERR_FILENO);
    close(copying.pipe_ends[0]);
    close(copying.pipe_ends[1]);
    return 0;
}

int log_prefix_attach(const char *prefix, struct err *err)
{
    return attach(put_prefixed, prefix, err);
}

int log_prefix_attach_json(const char *program, struct err *err)
{
    return attach(put_json, program, err);
}
