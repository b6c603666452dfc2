/* random: numbers that spread retries. Nothing secret is made from them. */
#ifndef CM_BASE_RANDOM_H
#define CM_BASE_RANDOM_H

#include <stdint.h>

/* Any 32 bits; 0 when the kernel has no randomness yet, which merely spreads nothing. */
uint32_t random_number(void);

#endif
