/*
 *     start ─┬─► FAILED ─ next round ──────────────────────────────► CLOSING ─► done
 *            └─► RUNNING ─ time-out, cancel ─► STOPPING ─ grace over ─► KILLED
 *                   │ exit                        │ exit                  │ exit
 *                   └─────────► DRAINING ◄────────┘                       ├─ in vain ─► CLOSING
 *                                  └─ wait over: SIGKILL ─► LAST ◄────────┘
 *
 * DRAINING and LAST go on to CLOSING as soon as there is nothing left to wait for, LAST
 * also when its wait is over.
 *
 * STOPPING has sent SIGTERM and KILLED has sent SIGKILL to the group. DRAINING waits for
 * descendants that hold the pipes, and after a SIGTERM also for those that do not, as the
 * grace time is theirs, too. LAST takes what the killed ones have written; a pipe that is
 * open even then belongs to a descendant which has left the group, and is closed. Where
 * there are no pipes, DRAINING and LAST wait for the group alone.
 *
 * The group is signalled after its leader has been reaped only to end what is left of it:
 * in theory its number could by then belong to a new group, within a fraction of a second.
 */
#include "runtime/process.h"

#include "base/log.h"
#include "base/secret.h"
#include "runtime/spawn.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    LINE_MAX_BYTES = 1000,
    READ_BYTES = 16 * 1024,
    DRAIN_MS = 200,      /* for descendants after the child has ended by itself */
    DRAIN_POLL_MS = 20,  /* how often to look whether the group is empty */
    KILL_WAIT_MS = 5000, /* for a SIGKILL that is not allowed, or waits in the kernel */
    STANDARD_FDS = SPAWN_FDS,
};

enum state { FAILED, RUNNING, STOPPING, KILLED, DRAINING, LAST, CLOSING };

#define TO(state) (1U << (state))
static const unsigned allowed_moves[] = {
    [FAILED] = TO(CLOSING),
    [RUNNING] = TO(STOPPING) | TO(DRAINING),
    [STOPPING] = TO(KILLED) | TO(DRAINING),
    [KILLED] = TO(LAST) | TO(CLOSING),
    [DRAINING] = TO(LAST) | TO(CLOSING),
    [LAST] = TO(CLOSING),
    [CLOSING] = 0,
};

struct output {
    struct process_io *io;
    enum process_stream stream;
    uv_pipe_t pipe;
    bool open;
    size_t line_len;
    char line[LINE_MAX_BYTES + 1];
};

struct process_io {
    struct process *process;
    enum state state;
    bool canceled;
    bool timed_out;
    char in_vain[160]; /* for messages: that it could not be ended, and why */
    struct err err;    /* why it was not started, or how it ended is not known */
    struct timer timer;
    uint64_t deadline_ms;    /* of STOPPING and DRAINING, on the loop's clock */
    uv_signal_t child_ended; /* SIGCHLD, of whichever child */
    pid_t pid;               /* and group; 0: it was not started */
    struct output outputs[PROCESS_STREAMS];
    bool to_files;
    int gate;         /* our end of what a held child waits at, or -1 */
    unsigned handles; /* not closed yet */
    done_fn done;
    void *owner;
    char program[256]; /* for messages */
    unsigned timeout_ms;
    unsigned term_grace_ms;
    void (*on_line)(void *owner, enum process_stream stream, const char *line);
    void *line_owner;
    char read_buffer[READ_BYTES];
};

static void move_to(struct process_io *io, enum state state)
{
    assert((allowed_moves[io->state] & TO(state)) != 0);
    io->state = state;
}

/* ---- the end ----------------------------------------------------------------------- */

static void finish(struct process_io *io)
{
    struct process *process = io->process;
    done_fn done = io->done;
    void *owner = io->owner;
    struct err err = io->err;

    if (io->canceled)
        err_set(&err, ERR_CANCELED, "%s: canceled%s", io->program, io->in_vain);
    else if (io->timed_out)
        err_set(&err, ERR_TIMEOUT, "%s: not finished within %u ms%s", io->program,
                io->timeout_ms, io->in_vain);
    wipe_free(io);
    process->io = NULL;
    done(owner, err.kind == ERR_NONE ? NULL : &err);
}

static void handle_closed(struct process_io *io)
{
    assert(io->handles > 0);
    if (--io->handles == 0)
        finish(io);
}

static void on_timer_close(void *owner)
{
    handle_closed(owner);
}

static void on_handle_close(uv_handle_t *handle)
{
    handle_closed(handle->data);
}

static void hand_on_line(struct output *output)
{
    struct process_io *io = output->io;

    if (output->line_len > 0 && output->line[output->line_len - 1] == '\r')
        output->line_len--;
    for (size_t i = 0; i < output->line_len; i++)
        if (output->line[i] == '\0') /* would hide the rest */
            output->line[i] = '?';
    output->line[output->line_len] = '\0';
    output->line_len = 0;
    if (io->on_line != NULL)
        io->on_line(io->line_owner, output->stream, output->line);
}

static void close_output(struct output *output)
{
    if (!output->open)
        return;
    output->open = false;
    if (output->line_len > 0)
        hand_on_line(output);
    uv_close((uv_handle_t *)&output->pipe, on_handle_close);
}

static void close_gate(struct process_io *io)
{
    if (io->gate >= 0)
        close(io->gate);
    io->gate = -1;
}

static void close_all(struct process_io *io)
{
    move_to(io, CLOSING);
    close_gate(io);
    for (int i = 0; i < PROCESS_STREAMS; i++)
        close_output(&io->outputs[i]);
    uv_close((uv_handle_t *)&io->child_ended, on_handle_close);
    timer_close(&io->timer, on_timer_close);
}

/* ---- ending the group -------------------------------------------------------------- */

/* Only after the leader has been reaped. */
static bool group_is_empty(const struct process_io *io)
{
    /* Orphans are our children where we are process 1 of a container. Where process 1 is
     * one that does not reap, the dead ones count until the grace time is over. */
    while (waitpid(-io->pid, NULL, WNOHANG) > 0)
        ;
    return kill(-io->pid, 0) < 0;
}

static bool anything_to_wait_for(const struct process_io *io)
{
    for (int i = 0; i < PROCESS_STREAMS; i++)
        if (io->outputs[i].open)
            return true;
    return io->state != LAST && (io->canceled || io->timed_out || io->to_files) &&
           !group_is_empty(io);
}

static void stop(struct process_io *io)
{
    move_to(io, STOPPING);
    kill(-io->pid, SIGTERM);
    io->deadline_ms = uv_now(io->timer.handle.loop) + io->term_grace_ms;
    timer_set(&io->timer, io->term_grace_ms);
}

static void start_last(struct process_io *io)
{
    kill(-io->pid, SIGKILL);
    move_to(io, LAST);
    if (anything_to_wait_for(io))
        timer_set(&io->timer, DRAIN_MS);
    else
        close_all(io);
}

static void drain(struct process_io *io)
{
    uint64_t now = uv_now(io->timer.handle.loop);
    uint64_t left = io->deadline_ms > now ? io->deadline_ms - now : 0;

    if (!anything_to_wait_for(io))
        close_all(io);
    else if (left == 0)
        start_last(io);
    else
        timer_set(&io->timer, left < DRAIN_POLL_MS ? left : DRAIN_POLL_MS);
}

static void on_exit_of(struct process_io *io)
{
    timer_stop(&io->timer);
    if (io->state == KILLED) {
        start_last(io);
        return;
    }
    if (io->state == RUNNING)
        io->deadline_ms = uv_now(io->timer.handle.loop) + DRAIN_MS;
    move_to(io, DRAINING);
    drain(io);
}

/* False while it runs. */
static bool reap(struct process_io *io)
{
    struct process *process = io->process;
    int status = 0;
    pid_t ended;

    do
        ended = waitpid(io->pid, &status, WNOHANG);
    while (ended < 0 && errno == EINTR);
    if (ended == 0)
        return false;
    if (ended == io->pid) {
        process->exit_status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
        process->term_signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    } else { /* somebody else in this process has asked for it: nothing more will be heard of it */
        process->lost = true;
        err_sys(&io->err, errno, "%s: how it ended cannot be learned", io->program);
    }
    uv_signal_stop(&io->child_ended);
    on_exit_of(io);
    return true;
}

static void on_child_ended(uv_signal_t *signal, int number)
{
    struct process_io *io = signal->data;

    (void)number;
    if (io->pid != 0)
        (void)reap(io);
}

/* Whoever waits for it has to go on. Nobody reaps it then, if it ends after all. */
static void leave_alone(struct process_io *io)
{
    const char *why = kill(-io->pid, SIGKILL) < 0
                          ? strerror(errno)
                          : "it gets the signal, and waits for something in the kernel";

    if (reap(io)) /* we had not been told yet */
        return;
    snprintf(io->in_vain, sizeof io->in_vain, ", and process %d cannot be ended: %s",
             io->pid, why);
    io->process->left_alone = true;
    close_all(io);
}

static void on_timer(void *owner)
{
    struct process_io *io = owner;

    switch (io->state) {
    case FAILED:
    case LAST:
        close_all(io);
        return;
    case RUNNING:
        io->timed_out = true;
        stop(io);
        return;
    case STOPPING:
        kill(-io->pid, SIGKILL);
        move_to(io, KILLED);
        timer_set(&io->timer, KILL_WAIT_MS);
        return;
    case KILLED:
        leave_alone(io);
        return;
    case DRAINING:
        drain(io);
        return;
    case CLOSING:
        break;
    }
    assert(false && "no timer is set in this state");
}

/* ---- output ------------------------------------------------------------------------ */

static void on_output_buffer(uv_handle_t *handle, size_t suggested, uv_buf_t *ret_buffer)
{
    struct process_io *io = handle->data;

    (void)suggested;
    *ret_buffer = uv_buf_init(io->read_buffer, sizeof io->read_buffer);
}

static void keep(struct process *process, enum process_stream stream, const char *bytes,
                 size_t len)
{
    struct buf *kept = &process->output[stream];
    struct err ignored = ERR_INIT;
    size_t room = kept->max - kept->len;

    if (len > room)
        process->output_cut[stream] = true;
    if (buf_append(kept, bytes, len < room ? len : room, &ignored) < 0)
        process->output_cut[stream] = true;
}

static void split_lines(struct output *output, const char *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (bytes[i] == '\n')
            hand_on_line(output);
        else if (output->line_len < LINE_MAX_BYTES)
            output->line[output->line_len++] = bytes[i];
    }
}

static void on_output(uv_stream_t *pipe, ssize_t len, const uv_buf_t *buffer)
{
    struct process_io *io = pipe->data;
    struct output *output =
        &io->outputs[pipe == (uv_stream_t *)&io->outputs[PROCESS_STDOUT].pipe
                         ? PROCESS_STDOUT
                         : PROCESS_STDERR];

    if (len > 0) {
        keep(io->process, output->stream, buffer->base, (size_t)len);
        split_lines(output, buffer->base, (size_t)len);
        return;
    }
    if (len == 0)
        return;
    if (len != UV_EOF)
        io->process->output_cut[output->stream] = true;
    close_output(output);
    if ((io->state == DRAINING || io->state == LAST) && !anything_to_wait_for(io))
        close_all(io);
}

/*
 * A pipe and not libuv's socket pair: programs open /dev/stderr by name. For that it has to be theirs when
 * they run as somebody else.
 */
static int open_output(struct output *output, uv_loop_t *loop,
                       const struct process_options *options, int *ret_write_fd)
{
    uv_file fds[2];
    int status = uv_pipe(fds, UV_NONBLOCK_PIPE, 0);

    if (status < 0)
        return status;
    if (options->change_user && fchown(fds[1], options->uid, options->gid) < 0)
        log_debug("%s cannot open its output by name: %s", options->argv[0],
                  strerror(errno));
    uv_pipe_init(loop, &output->pipe, 0);
    output->pipe.data = output->io;
    output->open = true;
    output->io->handles++;
    *ret_write_fd = fds[1];
    status = uv_pipe_open(&output->pipe, fds[0]);
    if (status < 0) {
        close(fds[0]);
        return status;
    }
    return uv_read_start((uv_stream_t *)&output->pipe, on_output_buffer, on_output);
}

/* It must not be there: a link or a FIFO that somebody put there is not written to. */
static int make_output_file(const char *path, int *ret_fd)
{
    *ret_fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    return *ret_fd < 0 ? -errno : 0;
}

/* ---- start ------------------------------------------------------------------------- */

/*
 * What a held child is until it is released: a shell that waits for a line, and ends without
 * one. The program takes its place, so number and start time are the same before and after.
 * The two variables are a shell's own.
 */
#define HOLD "read -r released && unset PWD OLDPWD && exec \"$@\" </dev/null"

static const char **held_argv(const char *const *argv)
{
    static const char *const shell[] = {"/bin/sh", "-c", HOLD, "sh"};
    enum { SHELL_WORDS = sizeof shell / sizeof shell[0] };
    size_t count = 0;
    const char **held;

    while (argv[count] != NULL)
        count++;
    held = wipe_calloc(SHELL_WORDS + count + 1, sizeof *held);
    if (held == NULL)
        return NULL;
    memcpy(held, shell, sizeof shell);
    memcpy(held + SHELL_WORDS, argv, count * sizeof *argv);
    return held;
}

/* 0 or an errno. */
static int spawn_held(const struct process_options *options, struct spawn_plan *plan,
                      pid_t *ret_pid)
{
    const char **held;
    int code;

    if (access(options->argv[0], X_OK) < 0) /* or the shell would find out, later */
        return errno;
    held = held_argv(options->argv);
    if (held == NULL)
        return ENOMEM;
    plan->argv = held;
    code = spawn(plan, ret_pid);
    wipe_free(held);
    return code;
}

static int spawn_child(struct process_io *io, const struct process_options *options,
                       const int *fds)
{
    struct spawn_plan plan = {
        .argv = options->argv,
        .environment = options->environment,
        .folder = options->folder,
        .change_user = options->change_user,
        .uid = options->uid,
        .gid = options->gid,
        .fds = {fds[0], fds[1], fds[2]},
    };

    return -(options->held ? spawn_held(options, &plan, &io->pid)
                           : spawn(&plan, &io->pid));
}

/* A socket and not a pipe: to release one that has died meanwhile is no SIGPIPE. */
static int open_gate(struct process_io *io, int *ret_fd)
{
    int ends[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
        return -errno;
    io->gate = ends[0];
    *ret_fd = ends[1];
    return 0;
}

static int open_standard_fds(struct process_io *io, uv_loop_t *loop,
                             const struct process_options *options, int *fds)
{
    int status = options->held ? open_gate(io, &fds[STDIN_FILENO]) : 0;

    for (int i = 0; i < PROCESS_STREAMS && status == 0; i++)
        status = options->output_files[i] == NULL
                     ? open_output(&io->outputs[i], loop, options, &fds[1 + i])
                     : make_output_file(options->output_files[i], &fds[1 + i]);
    return status;
}

static int start(struct process_io *io, uv_loop_t *loop,
                 const struct process_options *options)
{
    int fds[STANDARD_FDS] = {-1, -1, -1};
    int status = open_standard_fds(io, loop, options, fds);

    /* Before it can end. */
    if (status == 0)
        status = uv_signal_start(&io->child_ended, on_child_ended, SIGCHLD);
    if (status == 0)
        status = spawn_child(io, options, fds);
    for (int i = 0; i < STANDARD_FDS; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    if (status == 0)
        return 0;
    if (options->folder != NULL)
        return err_sys(&io->err, -status, "cannot start %s in %s", io->program,
                       options->folder);
    return err_sys(&io->err, -status, "cannot start %s", io->program);
}

void process_start(struct process *process, uv_loop_t *loop,
                   const struct process_options *options, done_fn done, void *owner)
{
    struct process_io *io = wipe_calloc(1, sizeof *io);

    assert(options->argv[0] != NULL && options->environment != NULL);
    assert((options->output_files[PROCESS_STDOUT] == NULL) ==
           (options->output_files[PROCESS_STDERR] == NULL));
    if (io == NULL) {
        log_fatal("no memory to start %s", options->argv[0]);
        abort(); /* nor to report it through `done` */
    }
    memset(process, 0, sizeof *process);
    process->exit_status = -1;
    process->io = io;
    io->process = process;
    io->done = done;
    io->owner = owner;
    io->timeout_ms = options->timeout_ms;
    io->term_grace_ms = options->term_grace_ms;
    io->on_line = options->on_line;
    io->line_owner = options->line_owner;
    io->to_files = options->output_files[PROCESS_STDOUT] != NULL;
    io->gate = -1;
    snprintf(io->program, sizeof io->program, "%s", options->argv[0]);
    for (int i = 0; i < PROCESS_STREAMS; i++) {
        buf_init(&process->output[i], options->max_output);
        io->outputs[i].io = io;
        io->outputs[i].stream = (enum process_stream)i;
    }
    timer_init(&io->timer, loop, on_timer, io);
    uv_signal_init(loop, &io->child_ended);
    io->child_ended.data = io;
    io->handles = 2;
    io->state = FAILED;
    if (start(io, loop, options) < 0) {
        timer_set(&io->timer, 0);
        return;
    }
    io->state = RUNNING;
    if (io->timeout_ms > 0)
        timer_set(&io->timer, io->timeout_ms);
}

void process_release(struct process *process)
{
    struct process_io *io = process->io;

    if (io == NULL || io->gate < 0)
        return;
    (void)send(io->gate, "\n", 1, MSG_NOSIGNAL);
    close_gate(io);
}

void process_cancel(struct process *process)
{
    struct process_io *io = process->io;

    if (io == NULL || io->canceled)
        return;
    io->canceled = true;
    if (io->state == RUNNING) {
        stop(io);
    } else if (io->state == DRAINING && !io->timed_out) {
        /* The child is gone, what holds the pipes is not worth a grace time. In the next
         * round: cancel may come out of on_line. */
        io->deadline_ms = uv_now(io->timer.handle.loop);
        timer_set(&io->timer, 0);
    }
}

void process_done(struct process *process)
{
    for (int i = 0; i < PROCESS_STREAMS; i++)
        buf_done(&process->output[i]);
}

pid_t process_pid(const struct process *process)
{
    const struct process_io *io = process->io;

    if (io == NULL || io->state == FAILED || io->state > KILLED)
        return 0;
    return io->pid;
}
