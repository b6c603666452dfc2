#include "app/verify_report.h"

#include "base/text.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

enum { SOURCE_SHOWN_SIZE = 512 };

static const char *escaped(char ret[SOURCE_SHOWN_SIZE], const char *text)
{
    text_escape(ret, SOURCE_SHOWN_SIZE, text, strlen(text));
    return ret;
}

static size_t faults_kept(const struct event_verdict *verdict)
{
    return verdict->fault_count < EVENT_FAULTS_KEPT ? verdict->fault_count
                                                    : EVENT_FAULTS_KEPT;
}

/* ---- for people ---- */

static void print_log(const struct verify_report *report)
{
    const struct event_verdict *verdict = &report->verdict;
    char source[SOURCE_SHOWN_SIZE];

    printf("event log: %s: %zu entries, %zu in RTMR3",
           escaped(source, report->log_source), verdict->entries,
           verdict->register_entries);
    if (verdict->version_entries[EVENT_VERSION_1] > 0)
        printf(", %zu with version 1 digests", verdict->version_entries[EVENT_VERSION_1]);
    if (verdict->version_entries[EVENT_VERSION_2] > 0)
        printf(", %zu with version 2 digests", verdict->version_entries[EVENT_VERSION_2]);
    if (verdict->other_entries > 0)
        printf(", %zu of other types, not recomputed", verdict->other_entries);
    putchar('\n');
}

static void print_register(const struct event_verdict *verdict)
{
    static const char *const sources[] = {
        [REGISTER_UNKNOWN] = "compared with nothing: give --rtmr3, from a quote",
        [REGISTER_GIVEN] = "compared with --rtmr3",
        [REGISTER_SHOWN] =
            "compared with what the agent shows; --rtmr3 compares with a quote",
    };
    char hex[EVENT_DIGEST_HEX_SIZE];

    if (!verdict->replayed) {
        printf("RTMR3: not replayed\n");
        return;
    }
    text_hex(hex, verdict->rtmr3, sizeof verdict->rtmr3);
    printf("RTMR3: %s, %s\n", hex, sources[verdict->source]);
}

static void print_event(const struct event_verdict *verdict)
{
    if (verdict->certificate_position == 0)
        return;
    printf("last certificate event: entry %zu, names leaf %s",
           verdict->certificate_position,
           verdict->certificate_leaf[0] == '\0' ? "none" : verdict->certificate_leaf);
    if (verdict->certificate_events > 1)
        printf(", %zu older ones", verdict->certificate_events - 1);
    putchar('\n');
}

static void print_verdict(const struct verify_report *report)
{
    const struct event_verdict *verdict = &report->verdict;
    size_t kept = faults_kept(verdict);

    for (size_t i = 0; i < kept; i++)
        printf("fault: %s\n", verdict->faults[i].text);
    if (verdict->fault_count > kept)
        printf("fault: %zu more like these\n", verdict->fault_count - kept);
    if (verdict->fault_count == 0)
        printf("verdict: %s\n", report->certificate_source == NULL
                                    ? "holds"
                                    : "holds, and names the certificate");
    else
        printf("verdict: does not hold, %zu fault%s\n", verdict->fault_count,
               verdict->fault_count == 1 ? "" : "s");
}

void verify_report_print(const struct verify_report *report)
{
    char source[SOURCE_SHOWN_SIZE];

    print_log(report);
    print_register(&report->verdict);
    print_event(&report->verdict);
    if (report->certificate_source != NULL)
        printf("certificate: %s, leaf %s\n", escaped(source, report->certificate_source),
               report->question.leaf_sha256);
    print_verdict(report);
}

/* ---- for machines ---- */

static json_t *faults_json(const struct event_verdict *verdict)
{
    json_t *faults = json_array();

    for (size_t i = 0; i < faults_kept(verdict); i++) {
        const struct event_fault *fault = &verdict->faults[i];

        json_array_append_new(
            faults,
            json_pack("{s:s, s:o, s:s}", "kind", event_fault_name(fault->kind), "entry",
                      fault->position == 0 ? json_null()
                                           : json_integer((json_int_t)fault->position),
                      "text", fault->text));
    }
    return faults;
}

static json_t *register_json(const struct verify_report *report)
{
    static const char *const sources[] = {
        [REGISTER_UNKNOWN] = NULL,
        [REGISTER_GIVEN] = "option",
        [REGISTER_SHOWN] = "agent",
    };
    const struct event_verdict *verdict = &report->verdict;
    char hex[EVENT_DIGEST_HEX_SIZE];

    text_hex(hex, verdict->rtmr3, sizeof verdict->rtmr3);
    return json_pack("{s:s?, s:s?}", "replayed", verdict->replayed ? hex : NULL,
                     "compared_with", sources[verdict->source]);
}

static json_t *event_json(const struct event_verdict *verdict)
{
    if (verdict->certificate_position == 0)
        return json_null();
    return json_pack(
        "{s:I, s:s?, s:I}", "entry", (json_int_t)verdict->certificate_position, "leaf",
        verdict->certificate_leaf[0] == '\0' ? NULL : verdict->certificate_leaf, "older",
        (json_int_t)verdict->certificate_events - 1);
}

static json_t *certificate_json(const struct verify_report *report)
{
    char source[SOURCE_SHOWN_SIZE];

    if (report->certificate_source == NULL)
        return json_null();
    return json_pack("{s:s, s:s}", "source", escaped(source, report->certificate_source),
                     "leaf", report->question.leaf_sha256);
}

void verify_report_print_json(const struct verify_report *report)
{
    const struct event_verdict *verdict = &report->verdict;
    char source[SOURCE_SHOWN_SIZE];
    json_t *root = json_pack(
        "{s:b, s:s, s:I, s:I, s:I, s:I, s:o, s:o, s:o, s:I, s:o}", "holds",
        verdict->fault_count == 0, "source", escaped(source, report->log_source),
        "entries", (json_int_t)verdict->entries, "rtmr3_entries",
        (json_int_t)verdict->register_entries, "version_1_digests",
        (json_int_t)verdict->version_entries[EVENT_VERSION_1], "version_2_digests",
        (json_int_t)verdict->version_entries[EVENT_VERSION_2], "rtmr3",
        register_json(report), "last_certificate_event", event_json(verdict),
        "certificate", certificate_json(report), "fault_count",
        (json_int_t)verdict->fault_count, "faults", faults_json(verdict));

    if (root != NULL && json_dumpf(root, stdout, JSON_INDENT(1)) == 0)
        putchar('\n');
    json_decref(root);
}
