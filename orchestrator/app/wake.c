#include "app/wake.h"

#include "app/bystander.h"

#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { TRIES_MAX = 1000, PAUSE_MS = 10 };

struct waiting {
    struct sockaddr_un address;
    pid_t pid; /* whose process is to listen there */
};

/* Nothing tells when a socket that was bound is listened to, hence the tries. */
static void try_until_listening(void *argument)
{
    const struct waiting *waiting = argument;
    const struct sockaddr_un *address = &waiting->address;
    const struct timespec pause = {.tv_nsec = PAUSE_MS * 1000000L};
    bool connected = false;

    for (int i = 0; i < TRIES_MAX && !connected && kill(waiting->pid, 0) == 0; i++) {
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        if (fd < 0)
            return;
        connected = connect(fd, (const struct sockaddr *)address, sizeof *address) == 0;
        close(fd);
        if (!connected)
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
    return bystander_start(try_until_listening, &waiting, err);
}
