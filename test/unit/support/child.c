#include "support/child.h"

#include "support/loop.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { POLL_US = 1000 };

int child_end(pid_t pid)
{
    int status = 0;
    pid_t ended = 0;

    for (unsigned ms = 0; ended == 0 && ms < loop_limit_ms(); ms++) {
        ended = waitpid(pid, &status, WNOHANG);
        if (ended == 0)
            usleep(POLL_US);
    }
    if (ended <= 0)
        fail_msg("process %d: %s", (int)pid,
                 ended < 0 ? strerror(errno) : "has not ended");
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}
