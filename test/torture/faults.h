/*
 * faults: the Nth call of a kind fails.
 *
 * Allocations, system calls and calls of libraries go through wrappers of ours (faults_calls.c,
 * faults_library.c), which are linked into a test program, or preloaded into the daemon. Only calls
 * that come from the code under test are counted: those whose innermost caller among the test's own
 * code and the code under test is the latter. What a library does on its behalf counts, what the test
 * does for itself does not.
 *
 * A path is the chain of callers of a call. Two calls by the same path differ in their data only, so
 * a long loop need not fail at each of its rounds.
 *
 * The preloaded one is steered by the environment, and only `cert-manager run` minds it:
 *
 *   FAULT_KIND=KIND      memory, system, library, interrupted or short
 *   FAULT_CALL=NAME[|NAME]…  of these functions only
 *   FAULT_AT=N           the Nth call; 0: none, they are only counted
 *   FAULT_LASTING=1      and each that follows
 *   FAULT_AFTER=TEXT     nothing counts before a line of the log has this text
 *   FAULT_MARK=FILE      tells what failed, and who called, and where it died of it; where it is nothing fails
 *   FAULT_COUNT=FILE     the calls so far, a number of 8 bytes
 */
#ifndef TEST_TORTURE_FAULTS_H
#define TEST_TORTURE_FAULTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum fault_kind {
    FAULT_NONE,
    FAULT_MEMORY,      /* there is none */
    FAULT_SYSTEM,      /* a call of the system says no */
    FAULT_LIBRARY,     /* a call of OpenSSL, jansson, libuv … says no */
    FAULT_INTERRUPTED, /* EINTR: has to go unnoticed */
    FAULT_SHORT,       /* one byte is read or written: the same */
    FAULT_KINDS,
};

const char *fault_kind_name(enum fault_kind kind);

struct fault {
    enum fault_kind kind;
    unsigned long at; /* from 1; 0: none, calls are only counted, and their paths kept */
    bool lasting;     /* and all that follow */
};

/* Counting begins anew. */
void faults_arm(const struct fault *fault);
void faults_disarm(void); /* what there is to be told stays */

/* What comes in between is the test's own affair. */
void faults_pause(void);
void faults_go_on(void);

unsigned long faults_counted(void);

/* How often something failed, and the first of them: its function and its callers, for people. */
unsigned long faults_happened(void);
void faults_describe(int fd);

/*
 * The calls that were counted, each with a number for its path and one for the place in the code
 * under test; of at most FAULTS_KEPT_MAX.
 */
enum { FAULTS_KEPT_MAX = 200 * 1000 };
struct fault_path {
    uint64_t path;
    uint64_t place;
};
const struct fault_path *faults_paths(size_t *ret_count);

/* For the wrappers: whether this call is to fail, in that way. */
bool fault_is_due(enum fault_kind kind, const char *call, const void *caller);

/* The function of that name behind ours. */
void *fault_real(const char *name);

#endif
