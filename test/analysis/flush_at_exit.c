/*
 * Linked into builds for coverage: what ends by _exit, as processes do that were forked and started no
 * program, would lose its counters. gcc itself sees to those that fork or become another program.
 */
void __gcov_dump(void);
_Noreturn void __real__exit(int status);
_Noreturn void __wrap__exit(int status);

void __wrap__exit(int status)
{
    __gcov_dump();
    __real__exit(status);
}
