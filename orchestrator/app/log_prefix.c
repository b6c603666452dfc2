#include "app/log_prefix.h"

#include "app/bystander.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

enum { LINE_BYTES = 16 * 1024 };

/* Prefix, line and line end in one write: lines of several writers do not mix. */
static void put_line(const char *prefix, char *line, size_t len)
{
    struct iovec parts[] = {
        {.iov_base = (void *)(uintptr_t)prefix, .iov_len = strlen(prefix)},
        {.iov_base = line, .iov_len = len},
        {.iov_base = (char[]){'\n'}, .iov_len = 1},
    };

    /*
     * When nobody reads the log any more there is nowhere to report it; the pipe is
     * still drained.
     */
    (void)!writev(STDOUT_FILENO, parts, 3);
}

static void copy_lines(int from, const char *prefix)
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
            put_line(prefix, start, (size_t)(end - start));
            start = end + 1;
        }
        used -= (size_t)(start - held);
        memmove(held, start, used);
        if (used == sizeof held) { /* longer than any line should be: in pieces */
            put_line(prefix, held, used);
            used = 0;
        }
    }
    if (used > 0)
        put_line(prefix, held, used);
}

struct copying {
    int pipe_ends[2];
    const char *prefix;
};

/* It lives as long as its writers. */
static void copy(void *argument)
{
    const struct copying *copying = argument;

    close(copying->pipe_ends[1]);
    copy_lines(copying->pipe_ends[0], copying->prefix);
}

int log_prefix_attach(const char *prefix, struct err *err)
{
    struct copying copying = {.prefix = prefix};

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
