#include "runtime/timer.h"

static void on_timer(uv_timer_t *handle)
{
    struct timer *timer = handle->data;

    timer->fired(timer->owner);
}

static void on_timer_close(uv_handle_t *handle)
{
    struct timer *timer = handle->data;

    if (timer->closed != NULL)
        timer->closed(timer->owner);
}

void timer_init(struct timer *timer, uv_loop_t *loop, void (*fired)(void *owner),
                void *owner)
{
    timer->fired = fired;
    timer->closed = NULL;
    timer->owner = owner;
    uv_timer_init(loop, &timer->handle);
    timer->handle.data = timer;
}

void timer_set(struct timer *timer, uint64_t delay_ms)
{
    /* A timer of 0 that is set by a timer's callback fires in the same round with libuv
     * before 1.45: two that set each other would keep the loop from all else. */
    uv_timer_start(&timer->handle, on_timer, delay_ms > 0 ? delay_ms : 1, 0);
}

void timer_stop(struct timer *timer)
{
    uv_timer_stop(&timer->handle);
}

bool timer_is_set(const struct timer *timer)
{
    return uv_is_active((const uv_handle_t *)&timer->handle) != 0;
}

void timer_close(struct timer *timer, void (*closed)(void *owner))
{
    timer->closed = closed;
    uv_close((uv_handle_t *)&timer->handle, on_timer_close);
}
