#include "runtime/watch.h"

#include <errno.h>
#include <stdlib.h>

struct watch_io {
    uv_fs_event_t handle;
    void (*changed)(void *owner, const char *name);
    void (*closed)(void *owner);
    void *owner;
};

static void on_close(uv_handle_t *handle)
{
    struct watch_io *io = handle->data;
    void (*closed)(void *owner) = io->closed;
    void *owner = io->owner;

    free(io);
    if (closed != NULL)
        closed(owner);
}

static void on_event(uv_fs_event_t *handle, const char *name, int events, int status)
{
    struct watch_io *io = handle->data;

    (void)events;
    /* An error of the watch is a reason to look, like any event. */
    io->changed(io->owner, name != NULL && status == 0 ? name : "");
}

static struct watch_io *new_io(uv_loop_t *loop)
{
    struct watch_io *io = calloc(1, sizeof *io);

    if (io == NULL)
        return NULL;
    uv_fs_event_init(loop, &io->handle);
    io->handle.data = io;
    return io;
}

static int refuse(const char *folder, int errnum, struct err *err)
{
    /* Of these strerror(3) says "No space left on device" and "Too many open files". */
    if (errnum == ENOSPC)
        return err_set_code(err, ERR_SYS, errnum,
                            "cannot watch %s: fs.inotify.max_user_watches is reached",
                            folder);
    if (errnum == EMFILE)
        return err_set_code(err, ERR_SYS, errnum,
                            "cannot watch %s: fs.inotify.max_user_instances or the "
                            "limit of open files is reached",
                            folder);
    return err_sys(err, errnum, "cannot watch %s", folder);
}

int watch_start(struct watch *watch, uv_loop_t *loop, const char *folder,
                void (*changed)(void *owner, const char *name), void *owner,
                struct err *err)
{
    int status;

    watch->io = NULL;
    struct watch_io *io = new_io(loop);
    if (io == NULL)
        return refuse(folder, ENOMEM, err);
    io->changed = changed;
    io->owner = owner;
    status = uv_fs_event_start(&io->handle, on_event, folder, 0);
    if (status < 0) {
        uv_close((uv_handle_t *)&io->handle, on_close);
        return refuse(folder, -status, err);
    }
    watch->io = io;
    return 0;
}

void watch_close(struct watch *watch, uv_loop_t *loop, void (*closed)(void *owner),
                 void *owner)
{
    struct watch_io *io = watch->io;

    if (io == NULL && closed == NULL)
        return;
    if (io == NULL && (io = new_io(loop)) == NULL)
        abort(); /* there is no way left to keep the promise to call `closed` */
    watch->io = NULL;
    io->closed = closed;
    io->owner = owner;
    uv_close((uv_handle_t *)&io->handle, on_close);
}
