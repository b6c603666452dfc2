/*
 * hostname: which names a certificate can be asked for, or have. Pure.
 */
#ifndef CM_DOMAIN_HOSTNAME_H
#define CM_DOMAIN_HOSTNAME_H

#include "base/err.h"

#include <stdbool.h>

/*
 * Syntax: labels of letters, digits, hyphens (not first or last), at most 63 bytes each and 253
 * together; no trailing dot, no address, no wildcard, no underscore, at most ASCII (an
 * internationalised name is given as A-label, "xn--…"). ERR_CONFIG: the name, what is wrong with
 * it and what to write; a text with an @ (of a URL with a password) is not repeated.
 */
int hostname_check(const char *name, struct err *err);

/* Also "*." and such a name: what a certificate may have in its place (RFC 6125 §6.4.3). */
int hostname_check_pattern(const char *pattern, struct err *err);
bool hostname_is_wildcard(const char *pattern);

/*
 * Whether an ACME CA may be asked for it: also at least two labels, not localhost nor below it,
 * not a name that RFC 6761 or RFC 6762 keep from the public DNS (.local, .localhost, .invalid, …;
 * .test and .example stay allowed: private test CAs use them), and a top-level label that is not
 * all digits.
 */
int hostname_check_public(const char *name, struct err *err);

#endif
