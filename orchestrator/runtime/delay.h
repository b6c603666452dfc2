/*
 * delay: an operation that does nothing for a while; what a sequence waits with between
 * tries. Ownership and order of calls: done.h.
 */
#ifndef CM_RUNTIME_DELAY_H
#define CM_RUNTIME_DELAY_H

#include "runtime/done.h"
#include "runtime/timer.h"

#include <stdbool.h>
#include <stdint.h>

struct delay {
    struct timer timer;
    bool canceled;
    bool running;
    done_fn done;
    void *owner;
};

void delay_start(struct delay *delay, uv_loop_t *loop, uint64_t delay_ms, done_fn done,
                 void *owner);
void delay_cancel(struct delay *delay);

#endif
