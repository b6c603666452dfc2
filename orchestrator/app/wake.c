#include "app/wake.h"

#include "app/bystander.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { TRIES_MAX = 1000, PAUSE_MS = 10 };

struct waiting {
    struct sockaddr_un address;
    pid_t pid; /* whose process is to listen there */
};

/* 0, or -1 with errno. */
static int connect_once(const struct sockaddr_un *address)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int result;
    int error;

    if (fd < 0)
        return -1;
    result = connect(fd, (const struct sockaddr *)address, sizeof *address);
    error = errno;
    close(fd);
    errno = error;
    return result;
}

/* supervisord removes it as well, and sleeps for 0.3 s (supervisor/http.py). */
static void remove_if_abandoned(const struct sockaddr_un *address)
{
    struct stat file;

    if (connect_once(address) < 0 && errno == ECONNREFUSED &&
        lstat(address->sun_path, &file) == 0 && S_ISSOCK(file.st_mode))
        (void)unlink(address->sun_path);
}

/* Nothing tells when a socket that was bound is listened to, hence the tries. */
static void try_until_listening(void *argument)
{
    const struct waiting *waiting = argument;
    const struct timespec pause = {.tv_nsec = PAUSE_MS * 1000000L};

    for (int i = 0; i < TRIES_MAX && kill(waiting->pid, 0) == 0; i++) {
        if (connect_once(&waiting->address) == 0)
            return;
        nanosleep(&pause, NULL);
    }
}

int wake_when_listening(const char *path, struct err *err)
{
    struct waiting waiting = {.address = {.sun_family = AF_UNIX}, .pid = getpid()};

    if (strlen(path) >= sizeof waiting.address.sun_path)
        return err_set(err, ERR_CONFIG, "%s is too long for a socket: at most %zu bytes",
                       path, sizeof waiting.address.sun_path - 1);
    memcpy(waiting.address.sun_path, path, strlen(path) + 1);
    remove_if_abandoned(&waiting.address);
    return bystander_start(try_until_listening, &waiting, err);
}
