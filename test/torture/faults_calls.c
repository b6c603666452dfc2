/* Allocations and calls of the system, with a way to fail. */

#include "faults.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <pwd.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#define CALLER __builtin_return_address(0)

void faults_note_written(const void *bytes, size_t len);

/* ---- memory: a sanitizer's own allocator where there is one ---- */

void *__interceptor_malloc(size_t size) __attribute__((weak));
void *__interceptor_calloc(size_t count, size_t size) __attribute__((weak));
void *__interceptor_realloc(void *memory, size_t size) __attribute__((weak));
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *memory, size_t size);

static void *out_of_memory(void)
{
    errno = ENOMEM;
    return NULL;
}

static void *allocate(size_t size)
{
    return __interceptor_malloc != NULL ? __interceptor_malloc(size)
                                        : __libc_malloc(size);
}

void *malloc(size_t size)
{
    return fault_is_due(FAULT_MEMORY, "malloc", CALLER) ? out_of_memory()
                                                        : allocate(size);
}

void *calloc(size_t count, size_t size)
{
    if (fault_is_due(FAULT_MEMORY, "calloc", CALLER))
        return out_of_memory();
    return __interceptor_calloc != NULL ? __interceptor_calloc(count, size)
                                        : __libc_calloc(count, size);
}

void *realloc(void *memory, size_t size)
{
    if (size != 0 && fault_is_due(FAULT_MEMORY, "realloc", CALLER))
        return out_of_memory();
    return __interceptor_realloc != NULL ? __interceptor_realloc(memory, size)
                                         : __libc_realloc(memory, size);
}

/* The sanitizer's own would not come by here. */
char *strndup(const char *text, size_t max)
{
    size_t len = strnlen(text, max);
    char *copy = fault_is_due(FAULT_MEMORY, "strdup", CALLER) ? out_of_memory()
                                                              : allocate(len + 1);

    if (copy != NULL) {
        memcpy(copy, text, len);
        copy[len] = '\0';
    }
    return copy;
}

char *strdup(const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy =
        fault_is_due(FAULT_MEMORY, "strdup", CALLER) ? out_of_memory() : allocate(size);

    return copy == NULL ? NULL : memcpy(copy, text, size);
}

/* ---- calls of the system ---- */

/* ISO C has no conversion between pointers to objects and to functions. */
#define FIND_REAL(name)                                                                  \
    do {                                                                                 \
        if (real == NULL) {                                                              \
            void *found = fault_real(#name);                                             \
            memcpy(&real, &found, sizeof real);                                          \
        }                                                                                \
    } while (0)

#define FAIL_WHEN_DUE(kind, name, failure, number)                                       \
    do {                                                                                 \
        if (fault_is_due(kind, name, CALLER)) {                                          \
            errno = number;                                                              \
            return failure;                                                              \
        }                                                                                \
    } while (0)

/* One that fails with that errno. */
#define CALL_AS(said, type, name, parameters, arguments, failure, number)                \
    type name parameters __attribute__((weak)); /* a test may have one of its own */     \
    type name parameters                                                                 \
    {                                                                                    \
        static type(*real) parameters;                                                   \
        FIND_REAL(name);                                                                 \
        FAIL_WHEN_DUE(FAULT_SYSTEM, said, failure, number);                              \
        return real arguments;                                                           \
    }
#define CALL(type, name, parameters, arguments, failure, number)                         \
    CALL_AS(#name, type, name, parameters, arguments, failure, number)

/* One that a signal may interrupt as well; files of a disk are opened and synced regardless of any. */
#define SLOW_CALL(type, name, parameters, arguments, number)                             \
    type name parameters                                                                 \
    {                                                                                    \
        static type(*real) parameters;                                                   \
        FIND_REAL(name);                                                                 \
        FAIL_WHEN_DUE(FAULT_SYSTEM, #name, -1, number);                                  \
        FAIL_WHEN_DUE(FAULT_INTERRUPTED, #name, -1, EINTR);                              \
        return real arguments;                                                           \
    }

/* One that moves bytes, and may move fewer. */
#define SHORT_CALL(type, name, parameters, arguments, len, number)                       \
    type name parameters                                                                 \
    {                                                                                    \
        static type(*real) parameters;                                                   \
        FIND_REAL(name);                                                                 \
        FAIL_WHEN_DUE(FAULT_SYSTEM, #name, -1, number);                                  \
        FAIL_WHEN_DUE(FAULT_INTERRUPTED, #name, -1, EINTR);                              \
        if ((len) > 1 && fault_is_due(FAULT_SHORT, #name, CALLER))                       \
            len = 1;                                                                     \
        return real arguments;                                                           \
    }

/* It is closed all the same, as Linux does it. */
int close(int fd)
{
    static int (*real)(int);
    int result;

    FIND_REAL(close);
    result = real(fd);
    FAIL_WHEN_DUE(FAULT_SYSTEM, "close", -1, EIO);
    return result;
}

/* It is handed back through a pipe from which libuv has just read, so that there is room: what cannot fail. */
static bool hands_back_lock_of_libuv(size_t len, void *caller)
{
    Dl_info info;

    return len == 1 && dladdr(caller, &info) != 0 &&
           strstr(info.dli_fname, "/libuv.so") != NULL;
}

ssize_t write(int fd, const void *bytes, size_t len)
{
    static ssize_t (*real)(int, const void *, size_t);

    FIND_REAL(write);
    if (hands_back_lock_of_libuv(len, CALLER))
        return real(fd, bytes, len);
    faults_note_written(bytes, len);
    FAIL_WHEN_DUE(FAULT_SYSTEM, "write", -1, ENOSPC);
    FAIL_WHEN_DUE(FAULT_INTERRUPTED, "write", -1, EINTR);
    if (len > 1 && fault_is_due(FAULT_SHORT, "write", CALLER))
        len = 1;
    return real(fd, bytes, len);
}

#define OPEN(name, first_parameters, first_arguments)                                    \
    int name first_parameters                                                            \
    {                                                                                    \
        static int(*real) first_parameters;                                              \
        mode_t mode = 0;                                                                 \
        va_list more;                                                                    \
        FIND_REAL(name);                                                                 \
        if ((flags & (O_CREAT | O_TMPFILE)) != 0) {                                      \
            va_start(more, flags);                                                       \
            mode = va_arg(more, mode_t);                                                 \
            va_end(more);                                                                \
        }                                                                                \
        FAIL_WHEN_DUE(FAULT_SYSTEM, #name, -1, EMFILE);                                  \
        return real first_arguments;                                                     \
    }

OPEN(open, (const char *path, int flags, ...), (path, flags, mode))
OPEN(open64, (const char *path, int flags, ...), (path, flags, mode))
OPEN(openat, (int folder, const char *path, int flags, ...), (folder, path, flags, mode))
CALL_AS("open", int, __open_2, (const char *path, int flags), (path, flags), -1, EMFILE)
CALL_AS("open", int, __open64_2, (const char *path, int flags), (path, flags), -1, EMFILE)

SHORT_CALL(ssize_t, read, (int fd, void *bytes, size_t len), (fd, bytes, len), len, EIO)
CALL_AS("read", ssize_t, __read_chk, (int fd, void *bytes, size_t len, size_t room),
        (fd, bytes, len, room), -1, EIO)
SHORT_CALL(ssize_t, pread, (int fd, void *bytes, size_t len, off_t at),
           (fd, bytes, len, at), len, EIO)
SHORT_CALL(ssize_t, pwrite, (int fd, const void *bytes, size_t len, off_t at),
           (fd, bytes, len, at), len, ENOSPC)
SHORT_CALL(ssize_t, send, (int fd, const void *bytes, size_t len, int flags),
           (fd, bytes, len, flags), len, EPIPE)
SHORT_CALL(ssize_t, recv, (int fd, void *bytes, size_t len, int flags),
           (fd, bytes, len, flags), len, ECONNRESET)
SLOW_CALL(ssize_t, writev, (int fd, const struct iovec *parts, int count),
          (fd, parts, count), EPIPE)
SLOW_CALL(ssize_t, sendmsg, (int fd, const struct msghdr *message, int flags),
          (fd, message, flags), EPIPE)
SLOW_CALL(ssize_t, recvmsg, (int fd, struct msghdr *message, int flags),
          (fd, message, flags), ECONNRESET)

CALL(int, fsync, (int fd), (fd), -1, EIO)
CALL(int, fdatasync, (int fd), (fd), -1, EIO)
SLOW_CALL(int, flock, (int fd, int operation), (fd, operation), ENOLCK)
CALL(int, ftruncate, (int fd, off_t len), (fd, len), -1, EIO)
SLOW_CALL(int, fallocate, (int fd, int mode, off_t at, off_t len), (fd, mode, at, len),
          ENOSPC)
CALL(int, rename, (const char *from, const char *to), (from, to), -1, EIO)
CALL(int, unlink, (const char *path), (path), -1, EIO)
CALL(int, unlinkat, (int folder, const char *path, int flags), (folder, path, flags), -1,
     EIO)
CALL(int, mkdir, (const char *path, mode_t mode), (path, mode), -1, ENOSPC)
CALL(int, rmdir, (const char *path), (path), -1, EIO)
CALL(int, symlink, (const char *target, const char *path), (target, path), -1, ENOSPC)
CALL(int, chmod, (const char *path, mode_t mode), (path, mode), -1, EPERM)
CALL(int, fchmod, (int fd, mode_t mode), (fd, mode), -1, EPERM)
CALL(int, fchown, (int fd, uid_t user, gid_t group), (fd, user, group), -1, EPERM)
CALL(int, lchown, (const char *path, uid_t user, gid_t group), (path, user, group), -1,
     EPERM)
CALL(int, access, (const char *path, int mode), (path, mode), -1, EIO)
CALL(int, stat, (const char *path, struct stat *ret), (path, ret), -1, EIO)
CALL(int, lstat, (const char *path, struct stat *ret), (path, ret), -1, EIO)
CALL(int, fstat, (int fd, struct stat *ret), (fd, ret), -1, EIO)
CALL(int, fstatat, (int folder, const char *path, struct stat *ret, int flags),
     (folder, path, ret, flags), -1, EIO)
CALL(int, statfs, (const char *path, struct statfs *ret), (path, ret), -1, EIO)
CALL(int, mkostemp, (char *template, int flags), (template, flags), -1, EMFILE)
CALL(char *, mkdtemp, (char *template), (template), NULL, ENOSPC)
CALL(char *, realpath, (const char *path, char *ret), (path, ret), NULL, EIO)
CALL_AS("realpath", char *, __realpath_chk, (const char *path, char *ret, size_t room),
        (path, ret, room), NULL, EIO)
CALL(ssize_t, readlink, (const char *path, char *ret, size_t size), (path, ret, size), -1,
     EIO)
CALL(DIR *, opendir, (const char *path), (path), NULL, EMFILE)
CALL(DIR *, fdopendir, (int fd), (fd), NULL, ENOMEM)
CALL(struct dirent *, readdir, (DIR * folder), (folder), NULL, EIO)
CALL(FILE *, fopen, (const char *path, const char *mode), (path, mode), NULL, EMFILE)

CALL(int, socket, (int family, int type, int protocol), (family, type, protocol), -1,
     EMFILE)
CALL(int, socketpair, (int family, int type, int protocol, int ret[2]),
     (family, type, protocol, ret), -1, EMFILE)
CALL(int, bind, (int fd, const struct sockaddr *address, socklen_t len),
     (fd, address, len), -1, EADDRINUSE)
CALL(int, listen, (int fd, int backlog), (fd, backlog), -1, EADDRINUSE)
CALL(int, accept4, (int fd, struct sockaddr *address, socklen_t *len, int flags),
     (fd, address, len, flags), -1, ECONNABORTED)
CALL(int, connect, (int fd, const struct sockaddr *address, socklen_t len),
     (fd, address, len), -1, ECONNREFUSED)
CALL(int, setsockopt, (int fd, int level, int option, const void *value, socklen_t len),
     (fd, level, option, value, len), -1, ENOPROTOOPT)
CALL(int, getsockopt, (int fd, int level, int option, void *ret, socklen_t *len),
     (fd, level, option, ret, len), -1, ENOPROTOOPT)
CALL(int, getaddrinfo,
     (const char *node, const char *service, const struct addrinfo *hints,
      struct addrinfo **ret),
     (node, service, hints, ret), EAI_SYSTEM, EIO)
CALL(int, inotify_init1, (int flags), (flags), -1, EMFILE)
CALL(int, inotify_add_watch, (int fd, const char *path, uint32_t mask), (fd, path, mask),
     -1, ENOSPC)
CALL(int, epoll_create1, (int flags), (flags), -1, EMFILE)
CALL(int, epoll_ctl, (int epoll, int operation, int fd, struct epoll_event *event),
     (epoll, operation, fd, event), -1, ENOSPC)
CALL(int, eventfd, (unsigned value, int flags), (value, flags), -1, EMFILE)
CALL(int, signalfd, (int fd, const sigset_t *signals, int flags), (fd, signals, flags),
     -1, EMFILE)

CALL(int, pipe, (int ret[2]), (ret), -1, EMFILE)
CALL(int, pipe2, (int ret[2], int flags), (ret, flags), -1, EMFILE)
CALL(pid_t, fork, (void), (), -1, EAGAIN)
CALL(int, kill, (pid_t pid, int number), (pid, number), -1, EPERM)
SLOW_CALL(pid_t, waitpid, (pid_t pid, int *ret, int options), (pid, ret, options), ECHILD)
CALL(int, execvp, (const char *program, char *const *arguments), (program, arguments), -1,
     ENOENT)
CALL(int, dup2, (int from, int to), (from, to), -1, EMFILE)
CALL(struct passwd *, getpwnam, (const char *name), (name), NULL, EIO)
CALL(ssize_t, getrandom, (void *bytes, size_t len, unsigned flags), (bytes, len, flags),
     -1, ENOSYS)
CALL(int, mlock, (const void *memory, size_t len), (memory, len), -1, ENOMEM)
