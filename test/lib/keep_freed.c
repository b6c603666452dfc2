/*
 * Preloaded into the daemon, nothing that it frees is used again: what was not wiped before stays in
 * its memory, and is found there. Otherwise that would be a matter of luck.
 */

#include <dlfcn.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

void free(void *memory)
{
    (void)memory;
}

void *realloc(void *memory, size_t size)
{
    size_t old = memory == NULL ? 0 : malloc_usable_size(memory);
    void *bigger = malloc(size);

    if (bigger != NULL && memory != NULL)
        memcpy(bigger, memory, old < size ? old : size);
    return bigger;
}
