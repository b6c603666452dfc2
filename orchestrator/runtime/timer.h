/*
 * timer: one wake-up, set again at will. Milliseconds of the loop's monotonic clock.
 *
 * Embedded in its owner. timer_init … timer_close; the owner's memory stays until
 * `closed`.
 */
#ifndef CM_RUNTIME_TIMER_H
#define CM_RUNTIME_TIMER_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

struct timer {
    uv_timer_t handle;
    void (*fired)(void *owner);
    void (*closed)(void *owner);
    void *owner;
};

void timer_init(struct timer *timer, uv_loop_t *loop, void (*fired)(void *owner),
                void *owner);

/*
 * Fire once in `delay_ms`, instead of whatever was set before. 0 fires in the next
 * round.
 */
void timer_set(struct timer *timer, uint64_t delay_ms);
void timer_stop(struct timer *timer);
bool timer_is_set(const struct timer *timer); /* and has not fired */

/* `closed` may be NULL. Called in a later round of the loop. Close once. */
void timer_close(struct timer *timer, void (*closed)(void *owner));

#endif
