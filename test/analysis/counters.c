/*
 * Linked into the program when it is built for coverage. Counters are written at exit; what ends in
 * another way, by _exit or as another program, would lose them. gcc wraps these functions by itself only
 * for -std=gnu17, and for tests, whose children are killed after so many system calls, it must not.
 *
 * And who may not write them, because it runs as another user, is not to say so for each file in its
 * output, which tests read.
 */
#include <fcntl.h>
#include <sys/types.h>
#include <unistd.h>

void __gcov_dump(void);
void __gcov_reset(void);

_Noreturn void __real__exit(int status);
_Noreturn void __wrap__exit(int status);
pid_t __real_fork(void);
pid_t __wrap_fork(void);
int __real_execvp(const char *file, char *const argv[]);
int __wrap_execvp(const char *file, char *const argv[]);

static int may_write(void)
{
    return eaccess(COUNTERS_FOLDER, W_OK) == 0;
}

/* Before libgcov's own destructor, which has a priority. */
__attribute__((destructor)) static void be_silent(void)
{
    if (!may_write())
        (void)dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), STDERR_FILENO);
}

static void write_counters(void)
{
    if (may_write()) {
        __gcov_dump();
        __gcov_reset();
    }
}

void __wrap__exit(int status)
{
    write_counters();
    __real__exit(status);
}

/* The child begins with none, or what was done before would count twice. */
pid_t __wrap_fork(void)
{
    write_counters();
    return __real_fork();
}

int __wrap_execvp(const char *file, char *const argv[])
{
    write_counters();
    return __real_execvp(file, argv);
}
