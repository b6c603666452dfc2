#include "trial.h"

#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    LIMIT_S = 30,
    OUTPUT_MAX = 12 * 1024,
    CALLS_DEFAULT = 400,
    SHORT_RUNS = 8, /* of each kind, spread over the places */
    WENT_WRONG = 99
};

/*
 * Who may call abort(): libuv and OpenSSL, which nobody can do anything about, and those of us who have not even the
 * memory to promise that a failure will be told. libcurl divides by zero in its table of sockets (trhash) when
 * there was no memory for an entry before; jansson asserts that a text has an end that it had no memory to keep, and
 * glibc that its table of name services was read.
 */
static const char *const hopeless[] = {
    "libuv.so",     "libcrypto.so",  "libcurl.so",    "(process_start+",
    "(http_start+", "(watch_close+", "libjansson.so", "(nginx_worker_group+"};
/* And who reads where nothing is: an assertion of a test that was given no text, and those two again. */
static const char *const fragile[] = {"libcmocka.so", "libjansson.so", "nss/nss_"};

struct run {
    trial_fn *run;
    void *owner;
    struct trial_report *report; /* shared with the process */
    struct fault_path *paths;    /* shared as well: of the first run */
    size_t *path_count;
};

static void *shared_memory(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (memory == MAP_FAILED) {
        perror("mmap");
        exit(1);
    }
    return memory;
}

static void keep_paths(const struct run *run)
{
    const struct fault_path *paths = faults_paths(run->path_count);

    memcpy(run->paths, paths, *run->path_count * sizeof *paths);
}

/* Tells who called abort(), for is_hopeless(). */
static void on_abort(int number)
{
    static const char said[] = "aborted by\n";
    void *frames[32];
    int count = backtrace(frames, 32);
    ssize_t put;

    faults_disarm();
    faults_describe(STDERR_FILENO);
    put = write(STDERR_FILENO, said, sizeof said - 1);

    (void)put;
    /* Without this function, the signal's frame and what raises it. */
    for (int i = 2; i < count; i++) {
        Dl_info info;

        if (dladdr(frames[i], &info) != 0 && strstr(info.dli_fname, "/libc.so") == NULL &&
            strstr(info.dli_fname, "/libasan.so") == NULL) {
            backtrace_symbols_fd(frames + i, count - i, STDERR_FILENO);
            break;
        }
    }
    sigaction(number, &(struct sigaction){.sa_handler = SIG_DFL}, NULL);
    raise(number);
}

static void on_limit(int number)
{
    faults_describe(STDERR_FILENO);
    sigaction(number, &(struct sigaction){.sa_handler = SIG_DFL}, NULL);
    raise(number);
}

static const struct run *current;

static _Noreturn void end_trial(bool went_wrong)
{
    faults_disarm();
    current->report->counted = faults_counted();
    current->report->happened = faults_happened();
    fflush(NULL);
    if (went_wrong)
        faults_describe(STDERR_FILENO);
    _exit(went_wrong ? WENT_WRONG : 0);
}

void trial_give_up(void)
{
    current->report->failed = true;
    end_trial(current->report->happened == 0 && faults_happened() == 0);
}

static _Noreturn void do_it(const struct run *run, const struct fault *fault, int output)
{
    bool went_wrong;

    dup2(output, STDOUT_FILENO);
    dup2(output, STDERR_FILENO);
    sigaction(SIGALRM, &(struct sigaction){.sa_handler = on_limit}, NULL);
    alarm(LIMIT_S);
    sigaction(SIGABRT, &(struct sigaction){.sa_handler = on_abort}, NULL);
    sigaction(SIGFPE, &(struct sigaction){.sa_handler = on_abort}, NULL);
    current = run;
    went_wrong = run->run(run->owner, fault, run->report);
    faults_disarm();
    if (fault->at == 0)
        keep_paths(run);
    end_trial(went_wrong);
}

static const char *name_of_end(int status, char *ret, size_t size)
{
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
        snprintf(ret, size, "does not end within %d s", LIMIT_S);
    else if (WIFSIGNALED(status))
        snprintf(ret, size, "%s", strsignal(WTERMSIG(status)));
    else if (WEXITSTATUS(status) == WENT_WRONG)
        snprintf(ret, size, "went wrong");
    else
        snprintf(ret, size, "exit code %d", WEXITSTATUS(status));
    return ret;
}

static bool is_hopeless(int status, const char *output)
{
    const char *at = strstr(output, "aborted by\n");

    if (!WIFSIGNALED(status) ||
        (WTERMSIG(status) != SIGABRT && WTERMSIG(status) != SIGFPE) || at == NULL)
        return false;
    for (size_t i = 0; i < sizeof hopeless / sizeof *hopeless; i++) {
        size_t len = strlen(hopeless[i]);
        /* The caller of abort() is told first. */
        const char *end = strchr(at + 11, '\n');

        if (end != NULL &&
            memmem(at + 11, (size_t)(end - at - 11), hopeless[i], len) != NULL)
            return true;
    }
    return false;
}

/* By the frames #0 and #1; or by the last word of glibc, when a name service has data of threads. */
static bool is_fragile(const char *output)
{
    const char *at = strstr(output, "AddressSanitizer: SEGV");
    const char *end = at == NULL ? NULL : strstr(at, "#2 ");

    for (size_t i = 0; end != NULL && i < sizeof fragile / sizeof *fragile; i++) {
        if (memmem(at, (size_t)(end - at), fragile[i], strlen(fragile[i])) != NULL)
            return true;
    }
    return strstr(output, "cannot allocate memory for thread-local data: ABORT") != NULL;
}

/* A call of ours that never ended, which its test has waited for. */
static bool is_lost(const char *output)
{
    return strstr(output, "the loop has ended, and the call has not") != NULL;
}

/* What a test that was given up has started, in whatever session: orphans come to us, one after the other. */
static void end_leftovers(void)
{
    pid_t ended = 0;

    while (ended >= 0 || errno == EINTR) {
        FILE *children = fopen("/proc/thread-self/children", "re");
        int pid;

        if (children == NULL)
            return; /* a kernel without CONFIG_PROC_CHILDREN */
        while (fscanf(children, "%d", &pid) == 1)
            kill(pid, SIGKILL);
        fclose(children);
        ended = waitpid(-1, NULL, 0);
    }
}

/* Whether that is a finding, which is printed then. */
static bool perform(const struct run *run, const char *name, const struct fault *fault)
{
    char output[OUTPUT_MAX + 1];
    char end[64];
    FILE *file = tmpfile();
    size_t len;
    int status;
    pid_t child;

    if (file == NULL) {
        perror("tmpfile");
        exit(1);
    }
    *run->report = (struct trial_report){0};
    fflush(NULL);
    child = fork();
    if (child == 0)
        do_it(run, fault, fileno(file));
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        continue;
    end_leftovers();
    rewind(file);
    len = fread(output, 1, OUTPUT_MAX, file);
    output[len] = '\0';
    fclose(file);
    if ((WIFEXITED(status) && WEXITSTATUS(status) == 0 && !is_lost(output)) ||
        is_hopeless(status, output) || is_fragile(output))
        return false;
    printf("FINDING: %s: %s number %lu%s: %s\n%s\n", name, fault_kind_name(fault->kind),
           fault->at, fault->lasting ? " and all that follow" : "",
           name_of_end(status, end, sizeof end), output);
    fflush(stdout);
    return true;
}

/* ---- which calls ---- */

static bool is_new(uint64_t *seen, size_t size, uint64_t value)
{
    size_t i = value % size;

    value = value == 0 ? 1 : value;
    for (; seen[i] != 0; i = (i + 1) % size) {
        if (seen[i] == value)
            return false;
    }
    seen[i] = value;
    return true;
}

/* Those that are to fail, into `ret`; their number. */
static size_t choose(const struct fault_path *paths, size_t count, unsigned long *ret)
{
    const char *extent = getenv("TORTURE");
    const char *limit = getenv("TORTURE_CALLS");
    size_t max = limit == NULL ? CALLS_DEFAULT : strtoul(limit, NULL, 10);
    bool by_place = extent != NULL && strcmp(extent, "short") == 0;
    size_t chosen = 0;
    uint64_t *seen = calloc(2 * count + 1, sizeof *seen);

    for (size_t i = 0; i < count && seen != NULL; i++) {
        uint64_t what = by_place ? paths[i].place : paths[i].path;

        if ((!by_place && count <= max) || is_new(seen, 2 * count + 1, what))
            ret[chosen++] = i + 1;
    }
    free(seen);
    if (by_place && chosen > SHORT_RUNS) {
        for (size_t i = 0; i < SHORT_RUNS; i++)
            ret[i] = ret[i * (chosen - 1) / (SHORT_RUNS - 1)];
        chosen = SHORT_RUNS;
    }
    return chosen;
}

void trial_warm_up(void)
{
    unsigned char digest[EVP_MAX_MD_SIZE];

    OPENSSL_init_crypto(OPENSSL_INIT_LOAD_CRYPTO_STRINGS | OPENSSL_INIT_LOAD_CONFIG,
                        NULL);
    RAND_priv_bytes(digest, 1);
    RAND_bytes(digest, 1);
    EVP_PKEY_free(EVP_EC_gen("P-256"));
    EVP_Digest("", 0, digest, NULL, EVP_sha256(), NULL);
}

struct trial_sum trial_run_all(const char *name, enum fault_kind kind, bool lasting,
                               trial_fn *run, void *owner)
{
    struct fault fault = {.kind = kind, .lasting = lasting};
    static struct run shared;
    struct trial_sum sum = {0};
    unsigned long *chosen;
    size_t count;

    if (shared.report == NULL) {
        prctl(PR_SET_CHILD_SUBREAPER, 1);
        shared.report = shared_memory(sizeof *shared.report);
        shared.paths = shared_memory(FAULTS_KEPT_MAX * sizeof *shared.paths);
        shared.path_count = shared_memory(sizeof *shared.path_count);
    }
    shared.run = run;
    shared.owner = owner;
    *shared.path_count = 0;
    sum.findings = perform(&shared, name, &fault);
    sum.calls = shared.report->counted;
    chosen = calloc(*shared.path_count + 1, sizeof *chosen);
    if (sum.findings > 0 || chosen == NULL) {
        free(chosen);
        return sum;
    }
    count = choose(shared.paths, *shared.path_count, chosen);
    for (size_t i = 0; i < count; i++) {
        fault.at = chosen[i];
        sum.findings += perform(&shared, name, &fault);
        sum.trials += shared.report->happened > 0;
        sum.noticed += shared.report->failed;
    }
    free(chosen);
    return sum;
}
