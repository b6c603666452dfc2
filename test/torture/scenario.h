/*
 * scenario: one operation that is done again and again, while each of its calls fails in turn.
 *
 * What holds in every run: success means the result of the run without a failure, to the byte;
 * failure means an error with a message; OpenSSL's queue of errors is empty; no memory, secure memory or
 * descriptor is left. A call that is interrupted, or that moves fewer bytes, is no failure at all.
 * What else has to hold, `check` says.
 */
#ifndef TEST_TORTURE_SCENARIO_H
#define TEST_TORTURE_SCENARIO_H

#include "base/buf.h"
#include "base/err.h"

#include <openssl/types.h>
#include <stdbool.h>

enum { SCENE_PATH_SIZE = 256, SCENE_RESULT_MAX = 1024 * 1024 };

/* What a run works on. Made anew for each, in a folder of its own. */
struct scene {
    char folder[64];
    void *own;
    struct buf result; /* what success has to come to */
    struct err err;
    bool failed;
};

struct scenario {
    const char *name;
    /* Undisturbed, as the last two are. */
    void (*prepare)(struct scene *scene);
    /* 0, or -1 with scene->err; what it gives goes to scene->result. Frees what it makes. */
    int (*act)(struct scene *scene);
    /* What is wrong, or NULL. */
    const char *(*check)(struct scene *scene);
    void (*clean)(struct scene *scene);
    bool must_fail; /* whatever happens */
};

/* Whether all went well; `scenarios` ends with one without a name. */
bool scenarios_run(const struct scenario *scenarios);

/* ---- for scenarios ---- */

/* "<folder of the scene>/<name>", valid until the next but three. */
const char *scene_path(const struct scene *scene, const char *name);

/* A text to the result, "" for NULL. Never fails: it is not what is tried. */
void scene_add(struct scene *scene, const char *text);

/* Made once, from fixed material: one key, one that is not it, and chains for the first. */
EVP_PKEY *scene_key(void);
EVP_PKEY *scene_other_key(void);
const char *scene_chain(void);       /* PEM, leaf and CA, for "app.example.test" */
const char *scene_later_chain(void); /* the same key, another leaf */
const char *scene_other_chain(void); /* for the other key */

/* File contents, "" for none. Freed by nobody: valid until the next but three. */
const char *scene_content(const struct scene *scene, const char *name);
void scene_write(const struct scene *scene, const char *name, const char *text);

extern const struct scenario scenarios_of_files[];
extern const struct scenario scenarios_of_settings[];
extern const struct scenario scenarios_of_formats[];
extern const struct scenario scenarios_of_crypto[];
extern const struct scenario scenarios_of_loops[];

#endif
