/*
 * template: ${NAME} in a text replaced by values. Pure.
 *
 * A ${…} whose name is not in the list stays as it is, and so does every other `$`: nginx has
 * variables of its own. Values are not searched again.
 */
#ifndef CM_DOMAIN_TEMPLATE_H
#define CM_DOMAIN_TEMPLATE_H

#include "base/buf.h"
#include "base/err.h"

#include <stddef.h>

struct template_value {
    const char *name; /* as in ${NAME}: capital letters and underscores */
    const char *value;
};

/* Appends to `ret`, an initialised buffer. */
int template_render(const char *text, const struct template_value *values, size_t count,
                    struct buf *ret, struct err *err);

#endif
