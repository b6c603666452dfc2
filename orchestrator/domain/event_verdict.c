#include "domain/event_verdict.h"

#include "base/text.h"
#include "domain/measurement.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { NAME_SHOWN_SIZE = 64, DIGITS_SHOWN = 16 };

struct judge {
    struct event_verdict *verdict;
    const struct event_log *log;
    const struct event_question *question;
    const unsigned char *expected; /* register, or NULL */
    size_t left_out;               /* entries of RTMR3 without a digest */
    bool unreadable;               /* a digest of RTMR3, so there is no replay */
    size_t equal_before;           /* position of the entry of RTMR3 that came when the
                                      register had the expected value; 0: none */
    size_t leaf_position; /* of an earlier certificate event that names the leaf */
};

const char *event_fault_name(enum event_fault_kind kind)
{
    static const char *const names[] = {
        [FAULT_ENTRY_MALFORMED] = "entry-malformed",
        [FAULT_REGISTER_EMPTY] = "register-empty",
        [FAULT_DIGESTS_LEFT_OUT] = "digests-left-out",
        [FAULT_DIGEST_MISSING] = "digest-missing",
        [FAULT_DIGEST_MALFORMED] = "digest-malformed",
        [FAULT_DIGEST_WRONG] = "digest-wrong",
        [FAULT_VERSION_WRONG] = "version-wrong",
        [FAULT_PREIMAGE_WRONG] = "preimage-wrong",
        [FAULT_PAYLOAD_MISSING] = "payload-missing",
        [FAULT_PAYLOAD_MALFORMED] = "payload-malformed",
        [FAULT_REGISTER_DIFFERS] = "register-differs",
        [FAULT_EVENT_MISSING] = "event-missing",
        [FAULT_EVENT_UNBOUND] = "event-unbound",
        [FAULT_EVENT_MALFORMED] = "event-malformed",
        [FAULT_LEAF_DIFFERS] = "leaf-differs",
    };
    return names[kind];
}

/* ---- faults ---- */

static size_t put_place(char *ret, size_t size, const struct event *event)
{
    char name[NAME_SHOWN_SIZE];

    if (event == NULL)
        return 0;
    if (!json_is_string(event->name))
        return (size_t)snprintf(ret, size, "entry %zu: ", event->position);
    text_escape(name, sizeof name, json_string_value(event->name),
                json_string_length(event->name));
    return (size_t)snprintf(ret, size, "entry %zu (%s): ", event->position, name);
}

/* `event` NULL: of the log as a whole. */
__attribute__((format(printf, 4, 5))) static void add_fault(struct judge *judge,
                                                            enum event_fault_kind kind,
                                                            const struct event *event,
                                                            const char *format, ...)
{
    struct event_verdict *verdict = judge->verdict;
    struct event_fault *fault;
    va_list args;
    size_t used;

    if (verdict->fault_count++ >= EVENT_FAULTS_KEPT)
        return;
    fault = &verdict->faults[verdict->fault_count - 1];
    fault->kind = kind;
    fault->position = event == NULL ? 0 : event->position;
    used = put_place(fault->text, sizeof fault->text, event);
    va_start(args, format);
    vsnprintf(fault->text + used, sizeof fault->text - used, format, args);
    va_end(args);
}

/* ---- one entry of RTMR3 ---- */

/*
 * Which of its two digests an event has; 0: neither. With `ret_preimage` initialised to that
 * version's.
 */
static int find_version(const struct event_content *content,
                        const unsigned char digest[EVENT_DIGEST_BYTES],
                        unsigned char ret_wanted[EVENT_DIGEST_BYTES],
                        struct buf *ret_preimage, int *ret_version, struct err *err)
{
    unsigned char computed[EVENT_DIGEST_BYTES];

    *ret_version = 0;
    for (int version = EVENT_VERSION_1; version <= EVENT_VERSION_2; version++) {
        if (event_preimage(ret_preimage, version, content, err) < 0)
            return -1;
        if (event_hash(computed, ret_preimage->data, ret_preimage->len, err) < 0) {
            buf_done(ret_preimage);
            return -1;
        }
        if (memcmp(computed, digest, sizeof computed) == 0) {
            *ret_version = version;
            return 0;
        }
        if (version == EVENT_VERSION_1)
            memcpy(ret_wanted, computed, sizeof computed);
        buf_done(ret_preimage);
    }
    return 0;
}

static int check_preimage(struct judge *judge, const struct event *event,
                          const struct buf *wanted, struct err *err)
{
    BUF_SCOPED found = {0};
    struct err unreadable = ERR_INIT;

    if (event->preimage == NULL)
        return 0;
    if (event_unhex(event->preimage, &found, &unreadable) < 0) {
        if (unreadable.kind == ERR_SYS) {
            *err = unreadable;
            return -1;
        }
        add_fault(judge, FAULT_PREIMAGE_WRONG, event, "its preimage is not hex");
    } else if (found.len != wanted->len ||
               memcmp(found.data, wanted->data, found.len) != 0) {
        add_fault(judge, FAULT_PREIMAGE_WRONG, event,
                  "its preimage is not what its name, payload and version make");
    }
    return 0;
}

static void report_wrong_digest(struct judge *judge, const struct event *event,
                                const unsigned char *digest, const unsigned char *wanted)
{
    char found_hex[EVENT_DIGEST_HEX_SIZE];
    char wanted_hex[EVENT_DIGEST_HEX_SIZE];

    text_hex(found_hex, digest, EVENT_DIGEST_BYTES);
    text_hex(wanted_hex, wanted, EVENT_DIGEST_BYTES);
    add_fault(judge, FAULT_DIGEST_WRONG, event,
              "its digest %.*s… is neither version 1 (%.*s…) nor version 2 of its name "
              "and payload%s",
              DIGITS_SHOWN, found_hex, DIGITS_SHOWN, wanted_hex,
              json_string_length(event->payload) == 0
                  ? "; the payload is empty, was it left out of this log?"
                  : "; one of the three was changed, or the payload was cut");
}

/* The digest binds name and payload. */
static int check_content(struct judge *judge, const struct event *event,
                         const unsigned char *digest, const struct buf *payload,
                         struct err *err)
{
    const struct event_content content = {
        .name = json_string_value(event->name),
        .name_len = json_string_length(event->name),
        .payload = payload->data,
        .payload_len = payload->len,
    };
    unsigned char wanted[EVENT_DIGEST_BYTES];
    BUF_SCOPED preimage = {0};
    int version;

    if (find_version(&content, digest, wanted, &preimage, &version, err) < 0)
        return -1;
    judge->verdict->version_entries[version]++;
    if (version == 0) {
        report_wrong_digest(judge, event, digest, wanted);
        return 0;
    }
    if (event->version < 0)
        add_fault(judge, FAULT_VERSION_WRONG, event, "its version is not a number");
    else if (event->version != 0 && event->version != version)
        add_fault(judge, FAULT_VERSION_WRONG, event,
                  "it says version %" PRId64 ", but its digest is of version %d",
                  event->version, version);
    return check_preimage(judge, event, &preimage, err);
}

static int check_runtime_event(struct judge *judge, const struct event *event,
                               const unsigned char *digest, struct err *err)
{
    BUF_SCOPED payload = {0};
    struct err unreadable = ERR_INIT;

    if (!json_is_string(event->name)) {
        add_fault(judge, FAULT_ENTRY_MALFORMED, event, "it has no name (member event)");
        return 0;
    }
    if (event->payload == NULL) {
        add_fault(judge, FAULT_PAYLOAD_MISSING, event,
                  "it has no payload (member event_payload), so its digest cannot be "
                  "recomputed");
        return 0;
    }
    if (event_unhex(event->payload, &payload, &unreadable) == 0)
        return check_content(judge, event, digest, &payload, err);
    if (unreadable.kind == ERR_SYS) {
        *err = unreadable;
        return -1;
    }
    add_fault(judge, FAULT_PAYLOAD_MALFORMED, event,
              "its payload (member event_payload) is not hex, or was cut");
    return 0;
}

static int check_digest(struct judge *judge, const struct event *event, struct err *err)
{
    unsigned char digest[EVENT_DIGEST_BYTES];

    if (!event_unhex_exactly(event->digest, digest, sizeof digest)) {
        judge->unreadable = true;
        add_fault(judge, FAULT_DIGEST_MALFORMED, event,
                  "its digest is not %d bytes in hex", EVENT_DIGEST_BYTES);
        return 0;
    }
    if (judge->expected != NULL && judge->equal_before == 0 &&
        memcmp(judge->verdict->rtmr3, judge->expected, EVENT_DIGEST_BYTES) == 0)
        judge->equal_before = event->position;
    if (event_extend(judge->verdict->rtmr3, digest, err) < 0)
        return -1;
    if (event->type == EVENT_TYPE_RUNTIME)
        return check_runtime_event(judge, event, digest, err);
    judge->verdict->other_entries++;
    if (event->type < 0)
        add_fault(judge, FAULT_ENTRY_MALFORMED, event, "it has no type (event_type)");
    return 0;
}

/* ---- the log ---- */

static bool is_left_out(const struct event *event)
{
    return event->digest == NULL ||
           (json_is_string(event->digest) && json_string_length(event->digest) == 0);
}

static void count_entries(struct judge *judge)
{
    struct event event;

    judge->verdict->entries = event_log_length(judge->log);
    for (size_t i = 0; i < judge->verdict->entries; i++) {
        event_log_entry(judge->log, i, &event);
        if (event.imr < 0)
            add_fault(judge, FAULT_ENTRY_MALFORMED, &event,
                      "it names no register (member imr)");
        if (event.imr != EVENT_LOG_REGISTER)
            continue;
        judge->verdict->register_entries++;
        judge->left_out += is_left_out(&event);
    }
}

static int check_entries(struct judge *judge, struct err *err)
{
    struct event event;

    for (size_t i = 0; i < judge->verdict->entries; i++) {
        event_log_entry(judge->log, i, &event);
        if (event.imr != EVENT_LOG_REGISTER)
            continue;
        if (is_left_out(&event)) {
            judge->unreadable = true;
            add_fault(judge, FAULT_DIGEST_MISSING, &event, "it has no digest");
        } else if (check_digest(judge, &event, err) < 0) {
            return -1;
        }
    }
    judge->verdict->replayed = !judge->unreadable;
    return 0;
}

static void check_register(struct judge *judge)
{
    struct event_verdict *verdict = judge->verdict;
    const char *whose = judge->question->rtmr3 != NULL ? "given" : "that the agent shows";
    char expected[EVENT_DIGEST_HEX_SIZE];
    char found[EVENT_DIGEST_HEX_SIZE];

    if (judge->expected == NULL || !verdict->replayed)
        return;
    verdict->source = judge->question->rtmr3 != NULL ? REGISTER_GIVEN : REGISTER_SHOWN;
    if (memcmp(verdict->rtmr3, judge->expected, EVENT_DIGEST_BYTES) == 0)
        return;
    text_hex(expected, judge->expected, EVENT_DIGEST_BYTES);
    text_hex(found, verdict->rtmr3, EVENT_DIGEST_BYTES);
    if (judge->equal_before != 0)
        add_fault(judge, FAULT_REGISTER_DIFFERS, NULL,
                  "the register %s, %s, is RTMR3 as it was before entry %zu: it is older "
                  "than the log, or the register was not extended",
                  whose, expected, judge->equal_before);
    else
        add_fault(judge, FAULT_REGISTER_DIFFERS, NULL,
                  "the log replays RTMR3 to %s, but the register %s is %s: entries are "
                  "missing, changed, in another order, or of another boot",
                  found, whose, expected);
}

/* ---- the certificate event ---- */

static void look_back(struct judge *judge)
{
    struct event_verdict *verdict = judge->verdict;
    struct event event;
    char leaf[65];

    for (size_t i = 0; i < verdict->entries; i++) {
        event_log_entry(judge->log, i, &event);
        if (event.imr != EVENT_LOG_REGISTER || !event_is_named(&event, MEASUREMENT_EVENT))
            continue;
        verdict->certificate_events++;
        if (event.position < verdict->certificate_position &&
            judge->question->leaf_sha256 != NULL &&
            measurement_leaf(&event, leaf) == NULL &&
            strcmp(leaf, judge->question->leaf_sha256) == 0)
            judge->leaf_position = event.position;
    }
}

static void check_leaf(struct judge *judge, const struct event *event)
{
    const char *wanted = judge->question->leaf_sha256;
    char earlier[80] = "";

    /* "" was told as a fault of its own. */
    if (wanted == NULL || judge->verdict->certificate_leaf[0] == '\0' ||
        strcmp(judge->verdict->certificate_leaf, wanted) == 0)
        return;
    if (judge->leaf_position != 0)
        snprintf(earlier, sizeof earlier,
                 "; only entry %zu does, and the last one counts", judge->leaf_position);
    add_fault(judge, FAULT_LEAF_DIFFERS, event,
              "the last certificate event names leaf %s, not the certificate's %s%s",
              judge->verdict->certificate_leaf, wanted, earlier);
}

static void check_certificate(struct judge *judge)
{
    struct event_verdict *verdict = judge->verdict;
    struct event last;
    const char *problem;

    if (!event_log_last(judge->log, MEASUREMENT_EVENT, &last)) {
        add_fault(judge, FAULT_EVENT_MISSING, NULL,
                  "no event \"%s\" in RTMR3: no certificate is attested",
                  MEASUREMENT_EVENT);
        return;
    }
    verdict->certificate_position = last.position;
    problem = measurement_leaf(&last, verdict->certificate_leaf);
    look_back(judge);
    if (problem != NULL)
        add_fault(judge, FAULT_EVENT_MALFORMED, &last, "the last certificate event %s",
                  problem);
    if (last.type != EVENT_TYPE_RUNTIME)
        add_fault(judge, FAULT_EVENT_UNBOUND, &last,
                  "the last certificate event is not a runtime event (event_type %d), so "
                  "no digest binds its payload",
                  EVENT_TYPE_RUNTIME);
    check_leaf(judge, &last);
}

int event_verdict(struct event_verdict *ret, const struct event_log *log,
                  const struct event_question *question, struct err *err)
{
    struct judge judge = {
        .verdict = ret,
        .log = log,
        .question = question,
        .expected =
            question->rtmr3 != NULL ? question->rtmr3 : event_log_shown_register(log),
    };

    memset(ret, 0, sizeof *ret);
    count_entries(&judge);
    if (ret->register_entries == 0)
        add_fault(&judge, FAULT_REGISTER_EMPTY, NULL,
                  "no entry of this log is in RTMR3 (imr 3)");
    else if (judge.left_out == ret->register_entries)
        add_fault(&judge, FAULT_DIGESTS_LEFT_OUT, NULL,
                  "all digests of RTMR3 are left out, as GetQuote does since dstack "
                  "0.5.6: take the log of the agent's Info (tcb_info.event_log)");
    else if (check_entries(&judge, err) < 0)
        return -1;
    check_register(&judge);
    check_certificate(&judge);
    return 0;
}
