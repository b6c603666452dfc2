/*
 * observer: what is done, told to the one who counts and shows it. There is one for the whole
 * process, because what is told comes from every depth of it.
 */
#ifndef CM_RUNTIME_OBSERVER_H
#define CM_RUNTIME_OBSERVER_H

#include "base/err.h"

enum observed {
    OBSERVED_STEP_BEGINS, /* subject: the sequence, detail: its step */
    OBSERVED_STEP,        /* the same when it is over */
    OBSERVED_AGENT_CALL,  /* subject: the method */
    OBSERVED_RELOAD,      /* of nginx */
    OBSERVED_CERTBOT,     /* a run that came to its end */
    OBSERVED_HOOK,        /* the same; subject: the event */
};

/* Borrowed while it is told. */
struct observation {
    enum observed what;
    const char *subject; /* "" where there is none */
    const char *detail;
    enum err_kind failure; /* ERR_NONE: it went well */
    double seconds;        /* that it took, 0 where that is not known */
};

/* NULL: nobody is told. */
void observer_set(void (*told)(void *owner, const struct observation *observation),
                  void *owner);

void observer_tell(const struct observation *observation);

#endif
