/*
 * config_reference: every setting in the form of mdoc(7), for cert-manager.yaml(5). From the table
 * that reads them, so that the manual cannot say anything else.
 */
#ifndef CM_DOMAIN_CONFIG_REFERENCE_H
#define CM_DOMAIN_CONFIG_REFERENCE_H

#include "base/buf.h"
#include "base/err.h"

/* A subsection for each section of the file, and the settings of each in the order of the table. */
int config_reference(struct buf *ret, struct err *err);

/* Their keys, a blank between two, for the completion of shells. */
int config_reference_keys(struct buf *ret, struct err *err);

#endif
