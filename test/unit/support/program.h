/*
 * program: what the program sets up before it does anything, as set-ups of cmocka groups: JSON and the
 * libraries get memory that is wiped, secrets are in locked memory.
 */
#ifndef TEST_SUPPORT_PROGRAM_H
#define TEST_SUPPORT_PROGRAM_H

int program_setup(void **state);
int program_setup_http(void **state); /* and libcurl */

#endif
