/*
 * Preloaded into nginx, tells what the EKM module asks of OpenSSL, and whether memory that it keeps
 * out of core dumps was wiped when it gives it back: one line each, "exported", "keyed", "wiped" or
 * "NOT WIPED", appended to the file that EKM_PROBE_LOG names.
 *
 * EKM_PROBE_EXPORTER replaces what OpenSSL exports: 64 hex digits, or "none" for a failure.
 */

#include <dlfcn.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/sha.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MOST_AREAS 16

static int log_fd = -1;
static unsigned char exporter[32];
static bool has_exporter, is_failing;
static const void *areas[MOST_AREAS];

static void tell(const char *line)
{
    if (write(log_fd, line, strlen(line)) < 0) {
        abort();
    }
}

__attribute__((constructor)) static void start(void)
{
    const char *path = getenv("EKM_PROBE_LOG");
    const char *hex = getenv("EKM_PROBE_EXPORTER");
    log_fd = open(path ? path : "", O_WRONLY | O_APPEND | O_CLOEXEC);
    if (log_fd < 0) {
        abort();
    }
    is_failing = hex && strcmp(hex, "none") == 0;
    has_exporter = hex && strlen(hex) == 2 * sizeof exporter;
    for (size_t i = 0; has_exporter && i < sizeof exporter; i++) {
        const char digits[] = {hex[2 * i], hex[2 * i + 1], 0};
        exporter[i] = (unsigned char)strtoul(digits, NULL, 16);
    }
}

int SSL_export_keying_material(SSL *s, unsigned char *out, size_t olen, const char *label,
                               size_t llen, const unsigned char *context,
                               size_t contextlen, int use_context)
{
    tell("exported\n");
    if (is_failing) {
        ERR_raise(ERR_LIB_SSL, ERR_R_INTERNAL_ERROR);
        return 0;
    }
    if (has_exporter && olen == sizeof exporter) {
        memcpy(out, exporter, olen);
        return 1;
    }
    int (*real)(SSL *, unsigned char *, size_t, const char *, size_t,
                const unsigned char *, size_t, int);
    *(void **)&real = dlsym(RTLD_NEXT, "SSL_export_keying_material");
    return real(s, out, olen, label, llen, context, contextlen, use_context);
}

int SHA256_Init(SHA256_CTX *c)
{
    /* OpenSSL itself calls it, too. */
    Dl_info caller;
    if (dladdr(__builtin_return_address(0), &caller) != 0 &&
        strstr(caller.dli_fname, "ngx_http_ekm_module") != NULL) {
        tell("keyed\n");
    }
    int (*real)(SHA256_CTX *);
    *(void **)&real = dlsym(RTLD_NEXT, "SHA256_Init");
    return real(c);
}

int madvise(void *addr, size_t length, int advice)
{
    for (int i = 0; advice == MADV_DONTDUMP && i < MOST_AREAS; i++) {
        if (areas[i] == NULL) {
            areas[i] = addr;
            break;
        }
    }
    return (int)syscall(SYS_madvise, addr, length, advice);
}

int munmap(void *addr, size_t len)
{
    for (int i = 0; i < MOST_AREAS; i++) {
        if (areas[i] == addr && addr != NULL) {
            const char *bytes = addr;
            bool is_wiped = bytes[0] == 0 && memcmp(bytes, bytes + 1, len - 1) == 0;
            tell(is_wiped ? "wiped\n" : "NOT WIPED\n");
            areas[i] = NULL;
        }
    }
    return (int)syscall(SYS_munmap, addr, len);
}
