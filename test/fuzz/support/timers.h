/*
 * timers: in place of runtime/timer.c, without a loop and without waiting. Time goes on to whatever is
 * set when timers_next() is called.
 */
#ifndef TEST_FUZZ_TIMERS_H
#define TEST_FUZZ_TIMERS_H

#include <stdbool.h>

/* Tells the owner of a timer that it has fired, or closed; false when there is none. */
bool timers_next(void);

#endif
