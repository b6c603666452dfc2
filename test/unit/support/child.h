/*
 * child: processes that a test has started, or adopted.
 */
#ifndef TEST_SUPPORT_CHILD_H
#define TEST_SUPPORT_CHILD_H

#include <sys/types.h>

/*
 * Waits for the end of one, or with -group for that of any of a group, as waitpid(2) does. The signal that
 * ended it, or 0. The test fails when that does not happen in the time that a loop has.
 */
int child_end(pid_t pid);

#endif
