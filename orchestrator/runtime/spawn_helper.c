/*
 * A request is one message: a head, the descriptors, and all texts one behind the other. The answer has
 * what became of it. Both ends are of the same program, so the form is that of its memory.
 */
#include "runtime/spawn.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define TITLE "cert-manager: starts programs"

enum {
    MESSAGE_MAX_BYTES = 128 * 1024,
    TEXTS_MAX = 1024,
    PATIENCE_MS = 20 * 1000, /* with a helper that a busy machine does not let run */
};

struct head {
    uint32_t argc;
    uint32_t envc;
    bool has_folder;
    bool change_user;
    bool has_fd[SPAWN_FDS];
    uid_t uid;
    gid_t gid;
};

struct answer {
    int code; /* an errno, or 0 */
    pid_t pid;
};

struct message {
    struct head head;
    char texts[MESSAGE_MAX_BYTES];
};

static int ours = -1; /* our end of the socket; -1: there is no helper */
static pid_t helper;

/* ---- a message with descriptors ---- */

union rights {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(SPAWN_FDS * sizeof(int))];
};

static int send_message(int fd, struct message *message, size_t len, const int *fds)
{
    struct iovec part = {.iov_base = message, .iov_len = len};
    struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1};
    union rights rights = {.bytes = {0}};
    int given[SPAWN_FDS];
    size_t count = 0;
    ssize_t sent;

    for (int i = 0; i < SPAWN_FDS; i++) {
        if (fds[i] >= 0)
            given[count++] = fds[i];
    }
    if (count > 0) {
        header.msg_control = rights.bytes;
        header.msg_controllen = CMSG_SPACE(count * sizeof *given);
        rights.align.cmsg_level = SOL_SOCKET;
        rights.align.cmsg_type = SCM_RIGHTS;
        rights.align.cmsg_len = CMSG_LEN(count * sizeof *given);
        memcpy(CMSG_DATA(&rights.align), given, count * sizeof *given);
    }
    do
        sent = sendmsg(fd, &header, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent < 0 ? errno : 0;
}

/* Its length, 0 when there will be none any more. */
static size_t receive_message(int fd, struct message *message, int *ret_fds)
{
    struct iovec part = {.iov_base = message, .iov_len = sizeof *message};
    union rights rights = {.bytes = {0}};
    struct msghdr header = {
        .msg_iov = &part,
        .msg_iovlen = 1,
        .msg_control = rights.bytes,
        .msg_controllen = sizeof rights.bytes,
    };
    const struct cmsghdr *control;
    ssize_t got;

    for (int i = 0; i < SPAWN_FDS; i++)
        ret_fds[i] = -1;
    do
        got = recvmsg(fd, &header, MSG_CMSG_CLOEXEC);
    while (got < 0 && errno == EINTR);
    if (got <= 0)
        return 0;
    control = CMSG_FIRSTHDR(&header);
    if (control != NULL && control->cmsg_type == SCM_RIGHTS)
        memcpy(ret_fds, CMSG_DATA(control), control->cmsg_len - CMSG_LEN(0));
    return (size_t)got;
}

/* ---- the request ---- */

static bool put_text(struct message *message, size_t *used, const char *text)
{
    size_t size = strlen(text) + 1;

    if (size > sizeof message->texts - *used)
        return false;
    memcpy(message->texts + *used, text, size);
    *used += size;
    return true;
}

static bool put_list(struct message *message, size_t *used, const char *const *list,
                     uint32_t *ret_count)
{
    for (*ret_count = 0; list[*ret_count] != NULL; (*ret_count)++) {
        if (!put_text(message, used, list[*ret_count]))
            return false;
    }
    return true;
}

/* 0, or E2BIG. */
static int write_request(const struct spawn_plan *plan, struct message *message,
                         size_t *ret_len)
{
    struct head *head = &message->head;
    size_t used = 0;

    *head = (struct head){
        .has_folder = plan->folder != NULL,
        .change_user = plan->change_user,
        .uid = plan->uid,
        .gid = plan->gid,
    };
    for (int i = 0; i < SPAWN_FDS; i++)
        head->has_fd[i] = plan->fds[i] >= 0;
    if (!put_list(message, &used, plan->argv, &head->argc) ||
        !put_list(message, &used, plan->environment, &head->envc) ||
        (plan->folder != NULL && !put_text(message, &used, plan->folder)) ||
        head->argc + head->envc > TEXTS_MAX)
        return E2BIG;
    *ret_len = offsetof(struct message, texts) + used;
    return 0;
}

/* `lists` has room for all texts and the end of both lists. */
static bool read_request(const struct message *message, size_t len, const int *fds,
                         const char **lists, struct spawn_plan *ret)
{
    const struct head *head = &message->head;
    const char *at = message->texts;
    const char *end = (const char *)message + len;
    const char **next = lists;
    size_t count = (size_t)head->argc + head->envc + (head->has_folder ? 1 : 0);
    int fd = 0;

    if (len <= offsetof(struct message, texts) || end[-1] != '\0' ||
        count > TEXTS_MAX + 1)
        return false;
    *ret = (struct spawn_plan){
        .argv = lists,
        .environment = lists + head->argc + 1,
        .change_user = head->change_user,
        .uid = head->uid,
        .gid = head->gid,
    };
    for (size_t i = 0; i < count; i++) {
        if (at == end)
            return false;
        if (i == (size_t)head->argc + head->envc)
            ret->folder = at;
        else
            *next++ = at;
        if (i + 1 == head->argc)
            *next++ = NULL;
        at += strlen(at) + 1;
    }
    *next = NULL;
    for (int i = 0; i < SPAWN_FDS; i++)
        ret->fds[i] = head->has_fd[i] ? fds[fd++] : -1;
    return head->argc > 0;
}

/* ---- in the helper ---- */

/* Others look for the daemon by what it was called with. */
static void take_title(void)
{
    char words[4096];
    int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
    ssize_t room = fd < 0 ? -1 : read(fd, words, sizeof words);

    if (fd >= 0)
        close(fd);
    if (room > 0) { /* there, the words stand one behind the other */
        memset(program_invocation_name, 0, (size_t)room);
        snprintf(program_invocation_name, (size_t)room, "%s", TITLE);
    }
    prctl(PR_SET_NAME, "cm-spawn");
}

static void serve_one(int fd, struct message *message, size_t len, int *fds)
{
    const char *lists[TEXTS_MAX + 2];
    struct spawn_plan plan;
    struct answer answer = {.code = EINVAL};

    if (read_request(message, len, fds, lists, &plan))
        answer.code = spawn_here(&plan, CLONE_PARENT, &answer.pid);
    for (int i = 0; i < SPAWN_FDS; i++) {
        if (fds[i] >= 0)
            close(fds[i]);
    }
    (void)send(fd, &answer, sizeof answer, MSG_NOSIGNAL);
}

/* That it can: the child of this call is the daemon's, and ends at once. */
static void greet(int fd)
{
    struct answer answer = {.code = 0};
    long pid = syscall(SYS_clone, CLONE_PARENT | SIGCHLD, NULL, NULL, NULL, NULL);

    if (pid == 0)
        _exit(EXIT_SUCCESS);
    if (pid < 0)
        answer.code = errno;
    else
        answer.pid = (pid_t)pid;
    (void)send(fd, &answer, sizeof answer, MSG_NOSIGNAL);
}

/* It goes with us, and not before: what a terminal or a supervisor sends to the group is not for it. */
static void live(int fd)
{
    static const int unheard[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGPIPE};
    static struct message message;
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    int fds[SPAWN_FDS];
    size_t len;

    for (size_t i = 0; i < sizeof unheard / sizeof unheard[0]; i++)
        signal(unheard[i], SIG_IGN);
    for (int i = 0; null >= 0 && i < SPAWN_FDS; i++)
        dup2(null, i);
    if (fd != SPAWN_FDS)
        fd = dup3(fd, SPAWN_FDS, O_CLOEXEC);
    close_range(SPAWN_FDS + 1, ~0U, 0);
    take_title();
    greet(fd);
    while ((len = receive_message(fd, &message, fds)) > 0)
        serve_one(fd, &message, len, fds);
}

/* ---- in the daemon ---- */

static void reap(pid_t pid)
{
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        continue;
}

/*
 * 0 with the answer, or an errno. An answer that comes too late would be taken for the next one, so
 * the helper has to go, too. The socket does not block where it is watched.
 */
static int await_answer(struct answer *ret)
{
    struct pollfd readable = {.fd = ours, .events = POLLIN};
    int code = ETIMEDOUT;
    ssize_t got;
    int ready;

    do
        ready = poll(&readable, 1, PATIENCE_MS);
    while (ready < 0 && errno == EINTR);
    if (ready > 0) {
        got = recv(ours, ret, sizeof *ret, MSG_DONTWAIT);
        if (got == (ssize_t)sizeof *ret)
            return 0;
        code = got < 0 ? errno : ESRCH;
    }
    (void)shutdown(ours, SHUT_RDWR);
    return code;
}

static int ask(const struct spawn_plan *plan, struct answer *ret)
{
    struct message *message = malloc(sizeof *message);
    size_t len = 0;
    int code;

    if (message == NULL)
        return ENOMEM;
    code = write_request(plan, message, &len);
    if (code == 0)
        code = send_message(ours, message, len, plan->fds);
    free(message);
    return code == 0 ? await_answer(ret) : code;
}

int spawn(const struct spawn_plan *plan, pid_t *ret_pid)
{
    struct answer answer = {.pid = 0};
    int code;

    if (ours < 0) {
        code = spawn_here(plan, 0, &answer.pid);
    } else {
        code = ask(plan, &answer);
        if (code == 0)
            code = answer.code;
    }
    if (code != 0 && answer.pid > 0)
        reap(answer.pid);
    *ret_pid = code == 0 ? answer.pid : 0;
    return code;
}

int spawn_helper_start(struct err *err)
{
    struct answer greeting = {.pid = 0};
    int ends[2];
    int code;

    assert(ours < 0);
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
        return err_sys(err, errno, "cannot make a socket for the helper");
    helper = fork();
    if (helper == 0) {
        close(ends[0]);
        live(ends[1]);
        _exit(EXIT_SUCCESS);
    }
    close(ends[1]);
    if (helper < 0) {
        code = errno;
        close(ends[0]);
        return err_sys(err, code, "cannot fork the helper");
    }
    ours = ends[0];
    code = await_answer(&greeting);
    if (code == 0)
        code = greeting.code;
    if (code == 0) {
        reap(greeting.pid);
        return 0;
    }
    spawn_helper_end();
    return err_sys(err, code, "the helper cannot start programs for us");
}

void spawn_helper_end(void)
{
    if (ours < 0)
        return;
    close(ours);
    ours = -1;
    reap(helper);
}

bool spawn_helper_runs(void)
{
    return ours >= 0;
}

/* ---- its end ---- */

static void on_gone(uv_poll_t *poll, int status, int events)
{
    struct spawn_watch *watch = poll->data;

    (void)status;
    (void)events;
    uv_poll_stop(poll);
    watch->gone(watch->owner);
}

void spawn_watch_start(struct spawn_watch *watch, uv_loop_t *loop,
                       void (*gone)(void *owner), void *owner)
{
    *watch = (struct spawn_watch){.gone = gone, .owner = owner};
    if (ours < 0 || uv_poll_init(loop, &watch->poll, ours) < 0)
        return;
    watch->poll.data = watch;
    watch->open = true;
    uv_poll_start(&watch->poll, UV_DISCONNECT, on_gone);
}

void spawn_watch_close(struct spawn_watch *watch)
{
    if (watch->open)
        uv_close((uv_handle_t *)&watch->poll, NULL);
    watch->open = false;
}
