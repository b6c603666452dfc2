#include "runtime/observer.h"

#include <stddef.h>

static struct {
    void (*told)(void *owner, const struct observation *observation);
    void *owner;
} observer;

void observer_set(void (*told)(void *owner, const struct observation *observation),
                  void *owner)
{
    observer.told = told;
    observer.owner = owner;
}

void observer_tell(const struct observation *observation)
{
    if (observer.told != NULL)
        observer.told(observer.owner, observation);
}
