/*
 * Linked into builds for coverage. What ends by _exit, as processes do that were forked and started no
 * program, would lose its counters; gcc itself sees to those that fork or become another program.
 *
 * And who may not write them, because it runs as another user, is not to say so for each file in its
 * output, which tests read.
 */
#include <fcntl.h>
#include <unistd.h>

void __gcov_dump(void);
_Noreturn void __real__exit(int status);
_Noreturn void __wrap__exit(int status);

/* Before libgcov's own destructor, which has a priority. */
__attribute__((destructor)) static void be_silent(void)
{
    if (eaccess(COUNTERS_FOLDER, W_OK) < 0)
        (void)dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), STDERR_FILENO);
}

void __wrap__exit(int status)
{
    be_silent();
    __gcov_dump();
    __real__exit(status);
}
