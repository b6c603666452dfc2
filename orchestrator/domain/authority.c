#include "domain/authority.h"

#include <string.h>

bool authority_is_lets_encrypt(const struct authority *authority)
{
    return strcmp(authority->directory, AUTHORITY_PRODUCTION) == 0 ||
           authority_is_staging(authority);
}

bool authority_is_staging(const struct authority *authority)
{
    return strcmp(authority->directory, AUTHORITY_STAGING) == 0;
}

const char *authority_caa_identity(const struct authority *authority)
{
    return authority_is_lets_encrypt(authority) ? "letsencrypt.org" : NULL;
}
