#include "scenario.h"

#include "base/fs.h"
#include "base/secret.h"
#include "support/pki.h"
#include "trial.h"

#include <dirent.h>
#include <inttypes.h>
#include <jansson.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/*
 * The dynamic linker's own blocks come by our malloc, which hides who asked. What OpenSSL 3.0
 * leaves when it has no memory in the middle of making one of its own tables is listed by function.
 * libyaml loses the items of a list when there is no room for the node of it.
 */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:ld-linux\nleak:_dl_\nleak:yaml_parser_load\n";
}

/* Not there under valgrind. */
int __lsan_do_recoverable_leak_check(void) __attribute__((weak));
void __lsan_register_root_region(const void *begin, size_t size) __attribute__((weak));

struct series {
    const struct scenario *scenario;
    struct buf *expected; /* shared: of the run without a failure */
    unsigned char *bytes;
};

/* ---- what a run leaves ---- */

static size_t open_descriptors(void)
{
    DIR *folder = opendir("/proc/self/fd");
    size_t count = 0;

    while (folder != NULL && readdir(folder) != NULL)
        count++;
    if (folder != NULL)
        closedir(folder);
    return count;
}

static const char *compare(const struct series *series, const struct scene *scene,
                           const struct fault *fault)
{
    const struct scenario *scenario = series->scenario;
    bool is_harmless = fault->kind == FAULT_INTERRUPTED || fault->kind == FAULT_SHORT;

    if (scene->failed && (scene->err.kind == ERR_NONE || scene->err.message[0] == '\0'))
        return "it failed without an error";
    if (!scene->failed && scenario->must_fail)
        return "it succeeded";
    if (scene->failed && !scenario->must_fail && (is_harmless || fault->at == 0))
        return "it failed, and had no reason to";
    if (!scene->failed && scene->err.kind != ERR_NONE)
        return "it succeeded, and left an error";
    if (!scene->failed && fault->at != 0 &&
        (scene->result.len != series->expected->len ||
         memcmp(buf_str(&scene->result), series->bytes, scene->result.len) != 0))
        return "it succeeded with another result";
    return NULL;
}

static bool tell(const char *wrong, const struct scene *scene)
{
    if (wrong == NULL)
        return false;
    fprintf(stderr, "%s\nresult: %s\nerror: %s: %s\n", wrong,
            scene->failed ? "failed" : "success", err_kind_name(scene->err.kind),
            scene->err.message);
    if (!scene->failed)
        fprintf(stderr, "%.*s\n",
                (int)(scene->result.len > 2000 ? 2000 : scene->result.len),
                buf_str(&scene->result));
    return true;
}

static bool run_scenario(void *owner, const struct fault *fault,
                         struct trial_report *report)
{
    struct series *series = owner;
    const struct scenario *scenario = series->scenario;
    struct scene scene = {.folder = "/tmp/torture-XXXXXX"};
    const char *wrong = NULL;
    struct err ignored;
    size_t secure, descriptors;

    buf_init(&scene.result, SCENE_RESULT_MAX);
    if (mkdtemp(scene.folder) == NULL)
        return tell("no folder", &scene);
    if (scenario->prepare != NULL)
        scenario->prepare(&scene);
    secure = CRYPTO_secure_used();
    descriptors = open_descriptors();
    faults_arm(fault);
    scene.failed = scenario->act(&scene) != 0;
    faults_disarm();
    report->failed = scene.failed;
    if (ERR_peek_error() != 0)
        wrong = "it left something in OpenSSL's queue of errors";
    else if (CRYPTO_secure_used() != secure)
        wrong = "it left secure memory";
    else if (open_descriptors() != descriptors)
        wrong = "it left a descriptor";
    else
        wrong = compare(series, &scene, fault);
    if (fault->at == 0) {
        series->expected->len = scene.result.len;
        memcpy(series->bytes, buf_str(&scene.result), scene.result.len);
    }
    if (wrong == NULL && scenario->check != NULL)
        wrong = scenario->check(&scene);
    if (scenario->clean != NULL)
        scenario->clean(&scene);
    fs_remove_tree(scene.folder, &ignored);
    if (tell(wrong, &scene))
        return true;
    buf_done(&scene.result);
    return __lsan_do_recoverable_leak_check != NULL &&
           __lsan_do_recoverable_leak_check() != 0;
}

static bool is_wanted(const char *variable, const char *name)
{
    const char *wanted = getenv(variable);

    return wanted == NULL || strstr(name, wanted) != NULL;
}

bool scenarios_run(const struct scenario *scenarios)
{
    const char *extent = getenv("TORTURE");
    bool short_run = extent != NULL && strcmp(extent, "short") == 0;
    struct series series = {0};
    unsigned long findings = 0;

    series.expected =
        mmap(NULL, sizeof(struct buf) + SCENE_RESULT_MAX, PROT_READ | PROT_WRITE,
             MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (series.expected == MAP_FAILED)
        return false;
    series.bytes = (unsigned char *)(series.expected + 1);
    for (const struct scenario *one = scenarios; one->name != NULL; one++) {
        struct trial_sum all = {0};

        if (!is_wanted("TORTURE_ONLY", one->name))
            continue;
        series.scenario = one;
        for (enum fault_kind kind = FAULT_MEMORY; kind < FAULT_KINDS; kind++) {
            if (!is_wanted("TORTURE_KIND", fault_kind_name(kind)))
                continue;
            for (unsigned lasting = 0; lasting < 2; lasting++) {
                struct trial_sum sum;

                if (lasting == 1 &&
                    (kind == FAULT_INTERRUPTED || kind == FAULT_SHORT || short_run))
                    continue;
                sum = trial_run_all(one->name, kind, lasting == 1, run_scenario, &series);
                all.calls += sum.calls;
                all.trials += sum.trials;
                all.noticed += sum.noticed;
                all.findings += sum.findings;
            }
        }
        printf("%s: %lu calls, %lu runs with a failure, %lu noticed it, %lu findings\n",
               one->name, all.calls, all.trials, all.noticed, all.findings);
        fflush(stdout);
        findings += all.findings;
    }
    return findings == 0;
}

/* ---- for scenarios ---- */

enum { RING = 4 };

const char *scene_path(const struct scene *scene, const char *name)
{
    static char paths[RING][SCENE_PATH_SIZE];
    static unsigned next;
    char *path = paths[next++ % RING];

    snprintf(path, SCENE_PATH_SIZE, "%s/%s", scene->folder, name);
    return path;
}

void scene_add(struct scene *scene, const char *text)
{
    struct err err = ERR_INIT;

    faults_pause();
    if (buf_append_str(&scene->result, text == NULL ? "" : text, &err) < 0)
        fprintf(stderr, "the result: %s\n", err.message);
    faults_go_on();
}

const char *scene_content(const struct scene *scene, const char *name)
{
    static struct buf contents[RING];
    static unsigned next;
    struct buf *content = &contents[next++ % RING];
    struct err err = ERR_INIT;

    buf_done(content);
    if (fs_read(scene_path(scene, name), SCENE_RESULT_MAX, content, &err) < 0)
        return "";
    return buf_str(content);
}

void scene_write(const struct scene *scene, const char *name, const char *text)
{
    FILE *file = fopen(scene_path(scene, name), "w");

    if (file == NULL || fputs(text, file) < 0 || fclose(file) != 0) {
        perror(name);
        exit(1);
    }
}

/* ---- keys and chains ---- */

static struct {
    EVP_PKEY *key, *other_key;
    char *chain, *later_chain, *other_chain;
} material;

EVP_PKEY *scene_key(void)
{
    return material.key;
}

EVP_PKEY *scene_other_key(void)
{
    return material.other_key;
}

const char *scene_chain(void)
{
    return material.chain;
}

const char *scene_later_chain(void)
{
    return material.later_chain;
}

const char *scene_other_chain(void)
{
    return material.other_chain;
}

static char *make_chain(EVP_PKEY *key, const char *serial)
{
    struct pki_spec spec = {.common_name = "app.example.test",
                            .names = "DNS:app.example.test",
                            .serial = serial};
    struct pki_spec authority = {.common_name = "Test CA", .ca = true};
    EVP_PKEY *ca_key = pki_key();
    X509 *ca = pki_certificate(&authority, ca_key, NULL, ca_key);
    X509 *leaf = pki_certificate(&spec, key, ca, ca_key);
    char *pem = pki_pem(leaf, ca, NULL);

    X509_free(leaf);
    X509_free(ca);
    EVP_PKEY_free(ca_key);
    return pem;
}

/* LeakSanitizer does not look there by itself for what OpenSSL's generators have to be freed. */
static void register_secure_heap(void)
{
    void *inside = OPENSSL_secure_malloc(1);
    FILE *maps = fopen("/proc/self/maps", "r");
    uintptr_t begin, end;
    char line[512];

    while (maps != NULL && fgets(line, sizeof line, maps) != NULL) {
        if (__lsan_register_root_region != NULL &&
            sscanf(line, "%" SCNxPTR "-%" SCNxPTR, &begin, &end) == 2 &&
            (uintptr_t)inside >= begin && (uintptr_t)inside < end)
            __lsan_register_root_region((void *)begin, end - begin);
    }
    if (maps != NULL)
        fclose(maps);
    OPENSSL_secure_free(inside);
}

int main(int argc, char **argv)
{
    const struct {
        const char *name;
        const struct scenario *scenarios;
    } groups[] = {
        {"files", scenarios_of_files},     {"settings", scenarios_of_settings},
        {"formats", scenarios_of_formats}, {"crypto", scenarios_of_crypto},
        {"loops", scenarios_of_loops},
    };
    struct err err = ERR_INIT;
    bool good = true;

    json_set_alloc_funcs(wipe_malloc, wipe_free);
    if (secret_setup(&err) < 0) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    register_secure_heap();
    trial_warm_up();
    material.key = pki_key();
    material.other_key = pki_key();
    material.chain = make_chain(material.key, "1");
    material.later_chain = make_chain(material.key, "2");
    material.other_chain = make_chain(material.other_key, "3");
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) {
        if (argc < 2 || strcmp(argv[1], groups[i].name) == 0)
            good = scenarios_run(groups[i].scenarios) && good;
    }
    fflush(stdout);
    _exit(good ? 0 : 1); /* leaks have been judged */
}
