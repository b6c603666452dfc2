#include "runtime/signals.h"

#include <errno.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

/* One at a time: its owner may close us. */
static void on_readable(uv_poll_t *poll, int status, int events)
{
    struct signals *signals = poll->data;
    struct signalfd_siginfo info;

    (void)events;
    if (status == 0 && read(signals->fd, &info, sizeof info) == (ssize_t)sizeof info)
        signals->came(signals->owner, (int)info.ssi_signo);
}

int signals_start(struct signals *signals, uv_loop_t *loop, const int *numbers,
                  void (*came)(void *owner, int number), void *owner, struct err *err)
{
    sigset_t set;
    int status;

    *signals = (struct signals){.fd = -1, .came = came, .owner = owner};
    sigemptyset(&set);
    for (; *numbers != 0; numbers++)
        sigaddset(&set, *numbers);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signals->fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (signals->fd < 0)
        return err_sys(err, errno, "cannot receive signals");
    status = uv_poll_init(loop, &signals->poll, signals->fd);
    if (status < 0) {
        close(signals->fd);
        signals->fd = -1;
        return err_sys(err, -status, "cannot receive signals");
    }
    signals->poll.data = signals;
    status = uv_poll_start(&signals->poll, UV_READABLE, on_readable);
    return status < 0 ? err_sys(err, -status, "cannot receive signals") : 0;
}

static void on_closed(uv_handle_t *handle)
{
    const struct signals *signals = handle->data;

    close(signals->fd);
}

void signals_close(struct signals *signals)
{
    if (signals->fd < 0)
        return;
    uv_close((uv_handle_t *)&signals->poll, on_closed);
}
