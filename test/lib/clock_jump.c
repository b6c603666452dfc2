/*
 * Preloaded into the daemon, it makes two minutes pass in no time: once something with the text of
 * JUMP_AT has been written, its monotonic clock is ahead.
 */

#include <dlfcn.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { AHEAD_S = 120 };

static const char *text;
static bool is_ahead;

__attribute__((constructor)) static void start(void)
{
    text = getenv("JUMP_AT");
}

ssize_t write(int fd, const void *buf, size_t n)
{
    ssize_t (*real)(int, const void *, size_t);
    *(void **)&real = dlsym(RTLD_NEXT, "write");
    if (text && memmem(buf, n, text, strlen(text))) {
        is_ahead = true;
    }
    return real(fd, buf, n);
}

int clock_gettime(clockid_t clock_id, struct timespec *tp)
{
    int (*real)(clockid_t, struct timespec *);
    *(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock_id, tp);
    if (is_ahead && (clock_id == CLOCK_MONOTONIC || clock_id == CLOCK_MONOTONIC_COARSE)) {
        tp->tv_sec += AHEAD_S;
    }
    return result;
}
