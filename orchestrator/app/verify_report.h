/*
 * verify report: what `cert-manager verify-log` found, on standard output.
 */
#ifndef CM_APP_VERIFY_REPORT_H
#define CM_APP_VERIFY_REPORT_H

#include "domain/event_verdict.h"

struct verify_report {
    const char *log_source; /* path of a file, or the agent's socket */
    const char
        *certificate_source; /* path or host; NULL: no certificate was asked about */
    struct event_question question;
    struct event_verdict verdict;
};

void verify_report_print(const struct verify_report *report);      /* for people */
void verify_report_print_json(const struct verify_report *report); /* one object */

#endif
