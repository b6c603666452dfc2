/*
 * hostname: which names a certificate can be asked for. Pure.
 */
#ifndef CM_DOMAIN_HOSTNAME_H
#define CM_DOMAIN_HOSTNAME_H

#include "base/err.h"

/*
 * Syntax: labels of letters, digits, hyphens (not first or last), at most 63 bytes each and 253
 * together; no trailing dot, no address, no wildcard, no underscore, at most ASCII (an
 * internationalised name is given as A-label, "xn--…"). ERR_CONFIG: the name, what is wrong with
 * it and what to write; a text with an @ (of a URL with a password) is not repeated.
 */
int hostname_check(const char *name, struct err *err);

/*
 * Whether an ACME CA may be asked for it: also at least two labels, not localhost nor below it,
 * not a name that RFC 6761 or RFC 6762 keep from the public DNS (.local, .localhost, .invalid, …;
 * .test and .example stay allowed: private test CAs use them), and a top-level label that is not
 * all digits.
 */
int hostname_check_public(const char *name, struct err *err);

#endif
