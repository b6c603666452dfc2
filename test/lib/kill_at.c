/*
 * Preloaded into a container, it kills the daemon at an exact moment, once, with SIGKILL.
 *
 *   KILL_AT="before|after CALL TEXT"   at the first CALL with TEXT in what it is about: the bytes
 *                                      of write, the new path of rename, the path of mkdir
 *   KILL_MARK=FILE                     made before the kill; where it is there is none
 *   KILL_AFTER=TEXT                    not before something with this text was written
 *   KILL_PARENT=1                      the parent goes first: it shall not start another daemon
 *   STOP_AT=TEXT[|TEXT]…               before that, a SIGSTOP when something with this text was
 *                                      written, one after the other: somebody changes the scene and
 *                                      continues it. KILL_MARK.1, KILL_MARK.2 … are made before
 *
 * Other programs of the container only have it in their memory.
 */

#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static struct {
    char when[8];
    char call[8];
    const char *text; /* NULL: not this process */
    const char *mark;
    const char *after; /* NULL: it may come */
    char *stop;        /* the next one; NULL: there is none */
    char *stops;       /* those behind it */
    unsigned stopped;  /* so often */
    bool parent;
} moment;

__attribute__((constructor)) static void find_moment(int argc, char **argv)
{
    const char *spec = getenv("KILL_AT");
    int text_at = 0;

    moment.mark = getenv("KILL_MARK");
    moment.after = getenv("KILL_AFTER");
    moment.parent = getenv("KILL_PARENT") != NULL;
    moment.stops = getenv("STOP_AT");
    moment.stop = strsep(&moment.stops, "|");
    if (argc == 2 && strcmp(argv[1], "run") == 0 && spec != NULL && moment.mark != NULL &&
        sscanf(spec, "%7s %7s %n", moment.when, moment.call, &text_at) == 2)
        moment.text = spec + text_at;
}

static bool holds(const void *bytes, size_t len, const char *text)
{
    return memmem(bytes, len, text, strlen(text)) != NULL;
}

static void reach(const char *when, const char *call, const void *subject, size_t len)
{
    int mark;

    if (moment.text == NULL || moment.after != NULL || strcmp(moment.when, when) != 0 ||
        strcmp(moment.call, call) != 0 || !holds(subject, len, moment.text))
        return;
    mark = open(moment.mark, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (mark < 0)
        return;
    close(mark);
    if (moment.parent)
        kill(getppid(), SIGKILL);
    kill(getpid(), SIGKILL);
}

static void note(const void *bytes, size_t len)
{
    if (moment.text == NULL || access(moment.mark, F_OK) == 0)
        return;
    if (moment.after == NULL && moment.stop != NULL && holds(bytes, len, moment.stop)) {
        char path[PATH_MAX];

        moment.stop = strsep(&moment.stops, "|");
        snprintf(path, sizeof path, "%s.%u", moment.mark, ++moment.stopped);
        close(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
        kill(getpid(), SIGSTOP);
    }
    if (moment.after != NULL && holds(bytes, len, moment.after))
        moment.after = NULL;
}

/* ISO C has no conversion between pointers to objects and to functions. */
#define REAL(function, name)                                                             \
    do {                                                                                 \
        void *found = dlsym(RTLD_NEXT, name);                                            \
        memcpy(&(function), &found, sizeof(function));                                   \
    } while (0)

ssize_t write(int fd, const void *bytes, size_t len)
{
    static ssize_t (*real)(int, const void *, size_t);
    ssize_t written;

    if (real == NULL)
        REAL(real, "write");
    reach("before", "write", bytes, len);
    written = real(fd, bytes, len);
    reach("after", "write", bytes, len);
    note(bytes, len);
    return written;
}

int rename(const char *from, const char *to)
{
    static int (*real)(const char *, const char *);
    int result;

    if (real == NULL)
        REAL(real, "rename");
    reach("before", "rename", to, strlen(to));
    result = real(from, to);
    reach("after", "rename", to, strlen(to));
    return result;
}

int mkdir(const char *path, mode_t mode)
{
    static int (*real)(const char *, mode_t);
    int result;

    if (real == NULL)
        REAL(real, "mkdir");
    reach("before", "mkdir", path, strlen(path));
    result = real(path, mode);
    reach("after", "mkdir", path, strlen(path));
    return result;
}
