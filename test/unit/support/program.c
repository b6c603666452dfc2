#include "support/program.h"

#include "base/secret.h"
#include "runtime/http.h"

#include <jansson.h>

int program_setup(void **state)
{
    struct err err = ERR_INIT;

    (void)state;
    json_set_alloc_funcs(wipe_malloc, wipe_free);
    return secret_setup(&err);
}

int program_setup_http(void **state)
{
    struct err err = ERR_INIT;

    return program_setup(state) < 0 || http_setup(&err) < 0 ? -1 : 0;
}
