#include "support/names.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { NAMES_MAX = 128, NAME_MAX_BYTES = 253 };

static char names[NAMES_MAX][NAME_MAX_BYTES + 1];
static char *items[NAMES_MAX];
static struct config_list list;

static char *next(void)
{
    assert_true(list.count < NAMES_MAX);
    items[list.count] = names[list.count];
    return items[list.count++];
}

const struct config_list *names_of(const char *text)
{
    size_t len;

    list = (struct config_list){.items = items};
    do {
        len = strcspn(text, " ");
        assert_true(len <= NAME_MAX_BYTES);
        snprintf(next(), sizeof names[0], "%.*s", (int)len, text);
        text += len + 1;
    } while (text[-1] != '\0');
    return &list;
}

const struct config_list *names_of_length(size_t count)
{
    list = (struct config_list){.items = items};
    while (list.count < count) {
        size_t number = list.count;
        char *name = next();

        memset(name, 'x', NAME_MAX_BYTES);
        name[NAME_MAX_BYTES] = '\0';
        for (size_t at = 60; at < NAME_MAX_BYTES; at += 60)
            name[at] = '.';
        name[0] = (char)('a' + number / 26);
        name[1] = (char)('a' + number % 26);
    }
    return &list;
}
