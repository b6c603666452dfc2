#include "support/timers.h"

#include "runtime/timer.h"
#include "support/fuzz.h"

#include <stddef.h>

/* No more than sequences run at a time. */
enum { TIMERS_MAX = 4 };

enum timer_state { NONE, STOPPED, SET, CLOSING };

static struct {
    struct timer *timer;
    enum timer_state state;
} timers[TIMERS_MAX];

static size_t index_of(const struct timer *timer)
{
    size_t i = 0;

    while (i < TIMERS_MAX && timers[i].timer != timer)
        i++;
    FUZZ_REQUIRE(i < TIMERS_MAX);
    return i;
}

void timer_init(struct timer *timer, uv_loop_t *loop, void (*fired)(void *owner),
                void *owner)
{
    size_t i = index_of(NULL);

    (void)loop;
    *timer = (struct timer){.fired = fired, .owner = owner};
    timers[i].timer = timer;
    timers[i].state = STOPPED;
}

void timer_set(struct timer *timer, uint64_t delay_ms)
{
    (void)delay_ms;
    timers[index_of(timer)].state = SET;
}

void timer_stop(struct timer *timer)
{
    timers[index_of(timer)].state = STOPPED;
}

bool timer_is_set(const struct timer *timer)
{
    return timers[index_of(timer)].state == SET;
}

void timer_close(struct timer *timer, void (*closed)(void *owner))
{
    timer->closed = closed;
    timers[index_of(timer)].state = CLOSING;
}

bool timers_next(void)
{
    for (size_t i = 0; i < TIMERS_MAX; i++) {
        struct timer *timer = timers[i].timer;

        if (timers[i].state == SET) {
            timers[i].state = STOPPED;
            timer->fired(timer->owner);
            return true;
        }
        if (timers[i].state == CLOSING) {
            timers[i].timer = NULL;
            timers[i].state = NONE;
            if (timer->closed != NULL)
                timer->closed(timer->owner);
            return true;
        }
    }
    return false;
}
