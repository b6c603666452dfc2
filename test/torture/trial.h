/*
 * trial: something is done in a process of its own, while the Nth call of a kind fails, and what
 * becomes of the process is judged.
 *
 * What must never be: a signal, a finding of a sanitizer, a process that does not end. What the
 * process wrote is shown then.
 */
#ifndef TEST_TORTURE_TRIAL_H
#define TEST_TORTURE_TRIAL_H

#include "faults.h"

#include <stdbool.h>

/* What a trial tells of itself. */
struct trial_report {
    unsigned long counted;
    unsigned long happened;
    bool failed; /* it noticed, and said so */
};

/* Returns true when it went wrong in a way that must not be, and has told so. */
typedef bool trial_fn(void *owner, const struct fault *fault,
                      struct trial_report *report);

struct trial_sum {
    unsigned long calls;  /* of the run without any failure */
    unsigned long trials; /* runs with a failure */
    unsigned long noticed;
    unsigned long findings;
};

/*
 * Before the first trial. Without memory for its very first blocks OpenSSL 3.0 crashes at a lock that it
 * has not made; the program makes sure of them when it starts (base/secret.h).
 */
void trial_warm_up(void);

/* In a trial: it has noticed, and what it would leave behind from here on says nothing. */
_Noreturn void trial_give_up(void);

/*
 * The runs for one kind: first without a failure, and then with one at each call, or, when
 * there are more than TORTURE_CALLS of them, at one call of each path; with TORTURE=short, at a few of
 * different places in the code. Findings are printed with `name`.
 */
struct trial_sum trial_run_all(const char *name, enum fault_kind kind, bool lasting,
                               trial_fn *run, void *owner);

#endif
