/*
 * fuzz: requests as they should not be, from a seed that is printed, and that the variable FUZZ_SEED
 * repeats.
 */
#ifndef TEST_SUPPORT_FUZZ_H
#define TEST_SUPPORT_FUZZ_H

#include <stddef.h>
#include <stdint.h>

struct fuzz {
    uint64_t state;
};

void fuzz_init(struct fuzz *fuzz);

/* From 0 to `end` - 1; 0 when that is 0. */
size_t fuzz_below(struct fuzz *fuzz, size_t end);

/* One that was good, changed here and there, or not at all; its length, at most `size`. */
size_t fuzz_request(struct fuzz *fuzz, char *ret, size_t size);

#endif
