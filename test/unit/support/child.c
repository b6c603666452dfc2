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
    uint64_t limit_ns = uv_hrtime() + (uint64_t)loop_limit_ms() * 1000000;
    int status = 0;
    pid_t ended = waitpid(pid, &status, WNOHANG);

    while (ended == 0 && uv_hrtime() < limit_ns) {
        usleep(POLL_US);
        ended = waitpid(pid, &status, WNOHANG);
    }
    if (ended <= 0)
        fail_msg("process %d: %s", (int)pid,
                 ended < 0 ? strerror(errno) : "has not ended");
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}
