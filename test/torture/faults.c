#include "faults.h"

#include <dlfcn.h>
#include <execinfo.h>
#include <fcntl.h>
#include <link.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <unwind.h>

/* A place is a call and who called for it, since all allocations go through a few functions. */
enum { FRAMES_MAX = 64, CALLS_MAX = 16, PLACE_FRAMES = 3 };

/* What the code under test is in, when it is not the program itself. */
#define UNDER_TEST "libunder-test.so"

struct range {
    uintptr_t begin, end;
};

static struct {
    struct range test;       /* empty in a daemon, where everything is under test */
    struct range under_test; /* empty: no program of ours, nothing ever fails */
    struct fault fault;
    const char *calls[CALLS_MAX]; /* none: all */
    const char *after;            /* NULL: it counts */
    const char *mark;
    unsigned long *count; /* one that others see, or this one's own */
    unsigned long own_count;
    unsigned long *happened; /* like count */
    unsigned long own_happened;
    bool is_armed;
    struct fault_path *paths;
    const char *call; /* the first that failed, and its callers */
    void *frames[FRAMES_MAX];
    int frame_count;
} faults = {.count = &faults.own_count, .happened = &faults.own_happened};

/* What is called in here is nobody's. */
static __thread bool is_inside __attribute__((tls_model("initial-exec")));

static const char *const kinds[] = {
    [FAULT_NONE] = "none",
    [FAULT_MEMORY] = "memory",
    [FAULT_SYSTEM] = "system",
    [FAULT_LIBRARY] = "library",
    [FAULT_INTERRUPTED] = "interrupted",
    [FAULT_SHORT] = "short",
};

const char *fault_kind_name(enum fault_kind kind)
{
    return kinds[kind];
}

/* ---- who calls ---- */

static bool is_in(const struct range *range, uintptr_t address)
{
    return address >= range->begin && address < range->end;
}

static int find_range(struct dl_phdr_info *info, size_t size, void *owner)
{
    struct range found = {0};

    (void)size;
    for (size_t i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &info->dlpi_phdr[i];

        if (segment->p_type == PT_LOAD && (segment->p_flags & PF_X) != 0) {
            found.begin = info->dlpi_addr + segment->p_vaddr;
            found.end = found.begin + segment->p_memsz;
        }
    }
    /* The program itself comes first, and has no name. */
    if (info->dlpi_name[0] == '\0' && faults.test.begin == 0)
        faults.test = found;
    else if (strstr(info->dlpi_name, UNDER_TEST) != NULL)
        *(struct range *)owner = found;
    return 0;
}

struct walk {
    uintptr_t caller; /* of the wrapper: the frames before are ours */
    struct fault_path path;
    bool is_begun;
    bool is_judged;
    bool counts;
    int frames; /* in the code under test */
    int left;
};

static void mix(uint64_t *sum, uint64_t value)
{
    *sum = (*sum ^ value) * UINT64_C(0x100000001b3); /* FNV-1a, by words */
}

static _Unwind_Reason_Code look(struct _Unwind_Context *context, void *owner)
{
    struct walk *walk = owner;
    uintptr_t address = _Unwind_GetIP(context);

    if (walk->left-- == 0)
        return _URC_END_OF_STACK;
    if (!walk->is_begun && address != walk->caller)
        return _URC_NO_REASON;
    walk->is_begun = true;
    if (is_in(&faults.under_test, address)) {
        if (walk->frames++ < PLACE_FRAMES)
            mix(&walk->path.place, address - faults.under_test.begin);
        walk->is_judged = walk->counts = true;
        mix(&walk->path.path, address - faults.under_test.begin);
    } else if (is_in(&faults.test, address)) {
        walk->is_judged = true;
        return _URC_END_OF_STACK;
    } else if (!walk->is_judged)
        mix(&walk->path.path, 1);
    return _URC_NO_REASON;
}

/* False when the call is the test's own affair. */
static bool find_path(const void *caller, struct fault_path *ret)
{
    struct walk walk = {.caller = (uintptr_t)caller, .left = FRAMES_MAX};

    _Unwind_Backtrace(look, &walk);
    *ret = walk.path;
    /* A thread has no caller at all: of libuv's, or of the sanitizer. */
    return walk.counts;
}

/* ---- whether it fails ---- */

static bool is_meant(const char *call)
{
    if (faults.calls[0] == NULL)
        return true;
    for (size_t i = 0; i < CALLS_MAX && faults.calls[i] != NULL; i++) {
        if (strcmp(faults.calls[i], call) == 0)
            return true;
    }
    return false;
}

/* In a daemon a failure happens in one life only, though supervisord starts others. */
static bool leave_mark(const char *call)
{
    int fd;

    if (faults.mark == NULL)
        return true;
    if (*faults.happened > 0)
        return true;
    fd = open(faults.mark, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        faults.is_armed = false;
        return false;
    }
    dprintf(fd, "%s\n", call);
    backtrace_symbols_fd(faults.frames, faults.frame_count, fd);
    close(fd);
    return true;
}

static bool decide(const char *call, const void *caller)
{
    struct fault_path path = {0};
    unsigned long number;

    if (faults.test.begin != 0 && !find_path(caller, &path))
        return false;
    number = __atomic_add_fetch(faults.count, 1, __ATOMIC_RELAXED);
    if (faults.paths != NULL && faults.fault.at == 0 && number <= FAULTS_KEPT_MAX)
        faults.paths[number - 1] = path;
    if (faults.fault.at == 0 || number < faults.fault.at ||
        (number > faults.fault.at && !faults.fault.lasting))
        return false;
    if (faults.call == NULL) {
        faults.call = call;
        faults.frame_count = backtrace(faults.frames, FRAMES_MAX);
    }
    if (!leave_mark(call))
        return false;
    ++*faults.happened;
    return true;
}

bool fault_is_due(enum fault_kind kind, const char *call, const void *caller)
{
    bool due;

    if (!faults.is_armed || faults.fault.kind != kind || is_inside ||
        faults.after != NULL)
        return false;
    /* What libraries call of each other is not what the code under test has to get along with. */
    if (kind == FAULT_LIBRARY && !is_in(&faults.under_test, (uintptr_t)caller))
        return false;
    if (!is_meant(call))
        return false;
    is_inside = true;
    due = decide(call, caller);
    is_inside = false;
    return due;
}

void *fault_real(const char *name)
{
    bool was_inside = is_inside;
    void *found;

    is_inside = true;
    found = dlsym(RTLD_NEXT, name);
    is_inside = was_inside;
    return found;
}

/* ---- for test programs ---- */

void faults_arm(const struct fault *fault)
{
    size_t size = FAULTS_KEPT_MAX * sizeof *faults.paths;

    if (faults.paths == NULL && fault->at == 0)
        faults.paths = mmap(NULL, size, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    /* Shared with processes that a test makes: what fails there is no failure without a reason. */
    if (faults.happened == &faults.own_happened)
        faults.happened = mmap(NULL, sizeof *faults.happened, PROT_READ | PROT_WRITE,
                               MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    faults.fault = *fault;
    faults.own_count = 0;
    *faults.happened = 0;
    faults.call = NULL;
    faults.is_armed = true;
}

void faults_disarm(void)
{
    faults.is_armed = false;
}

void faults_pause(void)
{
    is_inside = true;
}

void faults_go_on(void)
{
    is_inside = false;
}

unsigned long faults_counted(void)
{
    return *faults.count;
}

unsigned long faults_happened(void)
{
    return *faults.happened;
}

void faults_describe(int fd)
{
    if (faults.call == NULL) /* or not in this process */
        return;
    dprintf(fd, "failed: %s, called by\n", faults.call);
    backtrace_symbols_fd(faults.frames, faults.frame_count, fd);
}

const struct fault_path *faults_paths(size_t *ret_count)
{
    *ret_count = *faults.count < FAULTS_KEPT_MAX ? *faults.count : FAULTS_KEPT_MAX;
    return faults.paths;
}

/* ---- for a daemon ---- */

/* A line of the log that FAULT_AFTER waits for. */
void faults_note_written(const void *bytes, size_t len);
void faults_note_written(const void *bytes, size_t len)
{
    if (faults.after != NULL &&
        memmem(bytes, len, faults.after, strlen(faults.after)) != NULL)
        faults.after = NULL;
}

static void share_count(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    void *shared = MAP_FAILED;

    if (fd >= 0 && ftruncate(fd, sizeof *faults.count) == 0)
        shared =
            mmap(NULL, sizeof *faults.count, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd >= 0)
        close(fd);
    if (shared != MAP_FAILED)
        faults.count = shared;
}

/* Who it was, for whoever has to tell a library's end from one of ours. */
static void on_death(int number)
{
    void *frames[FRAMES_MAX];
    int count = backtrace(frames, FRAMES_MAX);
    int fd;

    faults.is_armed = false;
    fd = open(faults.mark, O_WRONLY | O_APPEND | O_CLOEXEC);
    if (fd >= 0) {
        dprintf(fd, "died by signal %d\n", number);
        backtrace_symbols_fd(frames, count, fd);
        close(fd);
    }
    raise(number);
}

/* A sanitizer tells of all but abort() itself, and counts as a failure anyway. */
static void watch_for_death(void)
{
    static const int numbers[] = {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL};
    const struct sigaction once = {.sa_handler = on_death, .sa_flags = (int)SA_RESETHAND};
    bool is_sanitized = dlsym(RTLD_DEFAULT, "__asan_init") != NULL;
    size_t count = is_sanitized ? 1 : sizeof numbers / sizeof *numbers;

    for (size_t i = 0; faults.mark != NULL && i < count; i++)
        sigaction(numbers[i], &once, NULL);
}

static void read_environment(void)
{
    static char calls[512];
    const char *kind = getenv("FAULT_KIND");
    const char *names = getenv("FAULT_CALL");
    const char *at = getenv("FAULT_AT");
    const char *count = getenv("FAULT_COUNT");
    char *rest = calls;

    for (enum fault_kind i = FAULT_NONE; kind != NULL && i < FAULT_KINDS; i++) {
        if (strcmp(kinds[i], kind) == 0)
            faults.fault.kind = i;
    }
    if (names != NULL) {
        snprintf(calls, sizeof calls, "%s", names);
        for (size_t i = 0; i < CALLS_MAX && rest != NULL; i++)
            faults.calls[i] = strsep(&rest, "|");
    }
    faults.fault.at = at == NULL ? 0 : strtoul(at, NULL, 10);
    faults.fault.lasting = getenv("FAULT_LASTING") != NULL;
    faults.after = getenv("FAULT_AFTER");
    faults.mark = getenv("FAULT_MARK");
    if (count != NULL)
        share_count(count);
    faults.is_armed = faults.mark == NULL || access(faults.mark, F_OK) != 0;
    watch_for_death();
}

__attribute__((constructor)) static void find_programs(int argc, char **argv)
{
    struct range library = {0};
    void *frames[1];

    is_inside = true;
    backtrace(frames, 1); /* its first call loads a library */
    dl_iterate_phdr(find_range, &library);
    if (library.begin != 0)
        faults.under_test = library;
    else {
        faults.under_test = faults.test;
        faults.test = (struct range){0};
        if (argc == 2 && strcmp(argv[1], "run") == 0 && getenv("FAULT_KIND") != NULL)
            read_environment();
    }
    is_inside = false;
}

/* ---- calls of libraries: for the wrappers that make-library-calls writes ---- */

/* jansson fails when its allocator says no, and that one counts (base/secret.h). */
void *wipe_malloc(size_t size) __attribute__((weak));

void *library_call(const char *name, void **real, const void *caller);
void *library_call(const char *name, void **real, const void *caller)
{
    if (*real == NULL)
        *real = fault_real(name);
    if (!fault_is_due(FAULT_LIBRARY, name, caller))
        return *real;
    if (strncmp(name, "json_", 5) == 0 && wipe_malloc != NULL)
        (void)wipe_malloc(SIZE_MAX);
    return NULL;
}
