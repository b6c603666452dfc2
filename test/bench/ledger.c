/*
 * What the largest ledger costs: 100,000 entries, all of them within the time that some limit looks
 * at. Prints JSON: for each question the milliseconds of each of its runs.
 */
#include "base/buf.h"
#include "base/secret.h"
#include "domain/ledger_policy.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define NOW INT64_C(1795459747) /* 2026-11-23 18:49:07 UTC */

enum { RUNS = 21, INTERVAL_S = 6 }; /* 100,000 in the week that limits look back */

static char production[] = AUTHORITY_PRODUCTION;

static void fail(const struct err *err)
{
    fprintf(stderr, "%s\n", err->message);
    exit(1);
}

static void fill(struct ledger *ledger, const struct ledger_subject *subject)
{
    struct err err = ERR_INIT;

    for (int i = LEDGER_KEPT_MAX; i > 0; i--) {
        const struct ledger_entry result = {
            .outcome = i % 2 == 0 ? LEDGER_ISSUED : LEDGER_CHALLENGE_FAILED};
        int64_t at = NOW - (int64_t)i * INTERVAL_S;

        if (ledger_begin(ledger, subject, at, &at, &err) != 0 ||
            ledger_end(ledger, subject, at, &result, at, &err) != 0)
            fail(&err);
    }
}

/* ---- what is asked ---- */

struct bench {
    struct config config;
    struct ledger ledger;
    struct ledger_question question;
    struct buf text;
};

static void ask(struct bench *bench)
{
    ledger_ask(&bench->ledger, &bench->question, NOW);
}

static void permits(struct bench *bench)
{
    struct ledger_permits left[LEDGER_BUCKETS];

    ledger_permits(&bench->ledger, &bench->question.subject, &bench->question.limits, NOW,
                   left);
}

static void prune(struct bench *bench)
{
    ledger_prune(&bench->ledger, &bench->config, NOW);
}

static void write_text(struct bench *bench)
{
    struct err err = ERR_INIT;

    buf_clear(&bench->text);
    if (ledger_write(&bench->ledger, &bench->text, &err) != 0)
        fail(&err);
}

static void read_text(struct bench *bench)
{
    struct ledger read = {0};
    struct err err = ERR_INIT;

    if (ledger_read(&bench->text, &read, &err) != 0)
        fail(&err);
    ledger_done(&read);
}

static const struct {
    const char *name;
    void (*run)(struct bench *bench);
} questions[] = {
    {"may the CA be asked, and when", ask},
    {"what is left of each limit", permits},
    {"forget what no limit looks at", prune},
    {"write it as text", write_text},
    {"read that text", read_text},
};

static double milliseconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

int main(void)
{
    struct bench bench = {
        .config.acme.authorities = {.count = 1, .items[0].directory = production},
        .question.subject = {AUTHORITY_PRODUCTION, "app.example.org", "v1"},
    };
    json_t *found = json_object();

    buf_init(&bench.text, LEDGER_MAX_BYTES);
    bench.question.limits = ledger_limits_of(&bench.config, AUTHORITY_PRODUCTION);
    fill(&bench.ledger, &bench.question.subject);
    for (size_t i = 0; i < sizeof questions / sizeof questions[0]; i++) {
        json_t *times = json_array();

        for (int run = 0; run < RUNS; run++) {
            double began = milliseconds();

            questions[i].run(&bench);
            json_array_append_new(times, json_real(milliseconds() - began));
        }
        json_object_set_new(found, questions[i].name, times);
    }
    json_dumpf(found, stdout, JSON_INDENT(1));
    json_decref(found);
    ledger_done(&bench.ledger);
    buf_done(&bench.text);
    return 0;
}
