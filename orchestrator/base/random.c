#include "base/random.h"

#include <sys/random.h>

uint32_t random_number(void)
{
    uint32_t number = 0;

    (void)!getrandom(&number, sizeof number, GRND_NONBLOCK);
    return number;
}
