/* names: the names of a certificate, as config.domains has them. */
#ifndef TEST_SUPPORT_NAMES_H
#define TEST_SUPPORT_NAMES_H

#include "domain/config.h"

/* Those in a text, with blanks between them. Valid until the next call. */
const struct config_list *names_of(const char *text);

/* That many, each as long as names can be and different from the others. The same storage. */
const struct config_list *names_of_length(size_t count);

#endif
