#include "runtime/delay.h"

static void on_timer_closed(void *owner)
{
    struct delay *delay = owner;
    struct err err = ERR_INIT;

    delay->running = false;
    if (delay->canceled)
        err_set(&err, ERR_CANCELED, "canceled");
    delay->done(delay->owner, delay->canceled ? &err : NULL);
}

static void on_timer_fired(void *owner)
{
    struct delay *delay = owner;

    timer_close(&delay->timer, on_timer_closed);
}

void delay_start(struct delay *delay, uv_loop_t *loop, uint64_t delay_ms, done_fn done,
                 void *owner)
{
    *delay = (struct delay){.running = true, .done = done, .owner = owner};
    timer_init(&delay->timer, loop, on_timer_fired, delay);
    timer_set(&delay->timer, delay_ms);
}

void delay_cancel(struct delay *delay)
{
    if (!delay->running || delay->canceled ||
        uv_is_closing((uv_handle_t *)&delay->timer.handle))
        return;
    delay->canceled = true;
    timer_set(&delay->timer, 0);
}
