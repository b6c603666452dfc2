#include "domain/authority.h"

#include <string.h>

/* Settings for which there was no memory are judged before they are refused, and have no directory. */
static bool is_at(const struct authority *authority, const char *directory)
{
    return authority->directory != NULL && strcmp(authority->directory, directory) == 0;
}

bool authority_is_lets_encrypt(const struct authority *authority)
{
    return is_at(authority, AUTHORITY_PRODUCTION) || authority_is_staging(authority);
}

bool authority_is_staging(const struct authority *authority)
{
    return is_at(authority, AUTHORITY_STAGING);
}

const char *authority_caa_identity(const struct authority *authority)
{
    return authority_is_lets_encrypt(authority) ? "letsencrypt.org" : NULL;
}
