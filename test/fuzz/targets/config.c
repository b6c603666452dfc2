/* The input is a configuration file. */
#include "support/fuzz.h"
#include "support/settings.h"

#include <stdlib.h>

static char *const environment[] = {NULL};

void fuzz_one(const unsigned char *bytes, size_t len)
{
    char *yaml = fuzz_text(bytes, len);
    struct config config;

    if (fuzz_load_settings(&(struct config_sources){.yaml_name = "config.yaml",
                                                    .yaml = yaml,
                                                    .yaml_len = len,
                                                    .environment = environment},
                           NULL, &config))
        config_done(&config);
    free(yaml);
}
