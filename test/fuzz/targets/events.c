/*
 * The input is an event log as `cert-manager verify-log` reads it, from the agent or from the file that
 * the agent makes it of.
 */
#include "domain/event_verdict.h"
#include "domain/measurement.h"
#include "domain/runtime_log.h"

#include "support/fuzz.h"

#include <stdlib.h>
#include <string.h>

static const char leaf[] =
    "9b1f6d3a7c5e2840bd917f06e3c2a8547d60fe9128b3ca45f7061e9d8c3b2a10";

static void check_verdict(const struct event_verdict *verdict,
                          const struct event_log *log)
{
    unsigned char replayed[EVENT_DIGEST_BYTES];
    struct err err = ERR_INIT;
    size_t kept = verdict->fault_count < EVENT_FAULTS_KEPT ? verdict->fault_count
                                                           : EVENT_FAULTS_KEPT;

    FUZZ_REQUIRE(verdict->entries == event_log_length(log));
    FUZZ_REQUIRE(verdict->register_entries <= verdict->entries);
    FUZZ_REQUIRE(verdict->certificate_events <= verdict->register_entries);
    for (size_t i = 0; i < kept; i++) {
        fuzz_require_line(verdict->faults[i].text);
        FUZZ_REQUIRE(event_fault_name(verdict->faults[i].kind)[0] != '\0');
        FUZZ_REQUIRE(verdict->faults[i].position <= verdict->entries);
    }
    fuzz_require_printable(verdict->certificate_leaf);
    if (event_log_replay(log, replayed, &err) < 0) {
        fuzz_require_refusal(&err);
        FUZZ_REQUIRE(verdict->fault_count > 0);
        return;
    }
    FUZZ_REQUIRE(!verdict->replayed ||
                 memcmp(replayed, verdict->rtmr3, sizeof replayed) == 0);
}

/* A log that holds names the leaf, whoever reads it. */
static void judge(const struct event_log *log)
{
    struct event_verdict verdict;
    struct event_verdict asked;
    struct err err = ERR_INIT;
    char last[65];

    FUZZ_REQUIRE(event_verdict(&verdict, log, &(struct event_question){0}, &err) == 0);
    check_verdict(&verdict, log);
    FUZZ_REQUIRE(event_verdict(&asked, log, &(struct event_question){.leaf_sha256 = leaf},
                               &err) == 0);
    check_verdict(&asked, log);
    FUZZ_REQUIRE(asked.fault_count >= verdict.fault_count);
    if (asked.fault_count == 0) {
        FUZZ_REQUIRE(strcmp(asked.certificate_leaf, leaf) == 0);
        FUZZ_REQUIRE(measurement_last_leaf(log, last) && strcmp(last, leaf) == 0);
        fuzz_note_accepted();
    }
}

void fuzz_one(const unsigned char *bytes, size_t len)
{
    char *text = fuzz_text(bytes, len);
    struct event_log *log = NULL;
    struct err err = ERR_INIT;

    if (event_log_parse(text, len, &log, &err) < 0)
        fuzz_require_refusal(&err);
    else
        judge(log);
    event_log_free(log);
    log = NULL;
    if (runtime_log_parse(text, len, &log, &err) < 0)
        fuzz_require_refusal(&err);
    else
        judge(log);
    event_log_free(log);
    free(text);
}
