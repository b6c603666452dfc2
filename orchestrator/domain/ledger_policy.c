/* Whether a CA may be asked, and when: the arithmetic of its limits, and what is left to wait. */
#include "domain/ledger_policy.h"

#include "domain/ledger_internal.h"

#include <string.h>

/* ---- names ---- */

/*
 * The last two labels. A registered domain, for which the public suffix list would be needed, is
 * that or has more labels, so that names which share one share these, too: among "a.co.uk" and
 * "b.co.uk" we count too much, but never too little.
 */
static const char *domain_of(const char *name, size_t *ret_len)
{
    size_t len = strcspn(name, " ");
    size_t dots = 0;
    size_t i = len;

    for (; i > 0; i--) {
        dots += name[i - 1] == '.';
        if (dots == 2)
            break;
    }
    *ret_len = len - i;
    return name + i;
}

static const char *whole(const char *name, size_t *ret_len)
{
    *ret_len = strcspn(name, " ");
    return name;
}

typedef const char *(*part_fn)(const char *name, size_t *ret_len);

static bool has(const char *names, const char *wanted, size_t wanted_len, part_fn part)
{
    for (const char *name = names; *name != '\0'; name += *name == ' ') {
        size_t len;
        const char *text = part(name, &len);

        if (len == wanted_len && memcmp(text, wanted, len) == 0)
            return true;
        name += strcspn(name, " ");
    }
    return false;
}

/* Whether two sets of names have one in common, or a part of one. */
static bool share(const char *a, const char *b, part_fn part)
{
    for (const char *name = a; *name != '\0'; name += *name == ' ') {
        size_t len;
        const char *text = part(name, &len);

        if (has(b, text, len, part))
            return true;
        name += strcspn(name, " ");
    }
    return false;
}

/* ---- buckets ---- */

/* What it is called, which outcomes take a permit, and what is said when there is none. */
static const struct {
    const char *name;
    unsigned counts;
    const char *why;
} kinds[LEDGER_BUCKETS] = {
    [LEDGER_CERTIFICATES] = {"certificates", LEDGER_COUNTS_CERTIFICATE,
                             "the CA's limit of certificates for the same names is used "
                             "up"},
    [LEDGER_DOMAIN] = {"domain", LEDGER_COUNTS_CERTIFICATE,
                       "the CA's limit of certificates for the registered domain is used "
                       "up"},
    [LEDGER_FAILURES] = {"failures", LEDGER_COUNTS_FAILURE,
                         "the CA's limit of failed challenges is used up"},
    [LEDGER_ORDERS] = {"orders", LEDGER_COUNTS_ORDER,
                       "the CA's limit of orders is used up"},
};

const char *ledger_bucket_name(enum ledger_bucket bucket)
{
    return kinds[bucket].name;
}

/*
 * Permits in the form of the instant at which all of them would be back. Entries that are out of
 * order only make it later.
 */
struct bucket {
    struct ledger_limit limit;
    int64_t full_at;
    int64_t latest;
    size_t
        since; /* index of the entry that was the first to take from it when it was full */
};

static void take(struct bucket *bucket, size_t index, int64_t at)
{
    int64_t latest = at > bucket->latest ? at : bucket->latest;
    int64_t most = latest + ledger_limit_horizon(&bucket->limit);

    if (bucket->full_at <= at) {
        bucket->full_at = at;
        bucket->since = index;
    }
    bucket->full_at += bucket->limit.refill_s;
    if (bucket->full_at > most) /* no more than all of them can be missing */
        bucket->full_at = most;
    bucket->latest = latest;
}

/* When there is one again, if not already. */
static int64_t next_permit(const struct bucket *bucket)
{
    return bucket->full_at - ledger_limit_horizon(&bucket->limit) +
           bucket->limit.refill_s;
}

static void open_bucket(struct bucket *bucket, const struct ledger_limit *limit,
                        int64_t unknown_before)
{
    *bucket = (struct bucket){.limit = *limit};
    if (unknown_before == 0)
        return;
    bucket->latest = unknown_before;
    bucket->full_at = unknown_before + ledger_limit_horizon(limit) - limit->refill_s;
}

/* Bits: the buckets that this subject's entries take from, as far as the question goes. */
static unsigned buckets_of(const struct ledger *ledger, size_t subject,
                           const struct ledger_subject *asked)
{
    const char *names = ledger->subjects[subject].names;
    unsigned bits = 0;

    if (strcmp(ledger->subjects[subject].directory, asked->directory) != 0)
        return 0;
    if (strcmp(names, asked->names) == 0)
        bits |= 1U << LEDGER_CERTIFICATES;
    if (share(names, asked->names, domain_of))
        bits |= 1U << LEDGER_DOMAIN;
    if (strcmp(ledger->subjects[subject].account, asked->account) != 0)
        return bits;
    if (share(names, asked->names, whole))
        bits |= 1U << LEDGER_FAILURES;
    return bits | 1U << LEDGER_ORDERS;
}

static bool takes(const struct ledger_entry *entry, const unsigned *bits, unsigned bucket)
{
    return (bits[entry->subject] & 1U << bucket) != 0 &&
           (kinds[bucket].counts & ledger_counts((enum ledger_outcome)entry->outcome)) !=
               0;
}

static void fill(struct bucket *buckets, unsigned *bits, const struct ledger *ledger,
                 const struct ledger_subject *asked, const struct ledger_limits *limits,
                 int64_t now)
{
    open_bucket(&buckets[LEDGER_CERTIFICATES], &limits->certificates,
                ledger->unknown_before);
    open_bucket(&buckets[LEDGER_DOMAIN], &limits->domain, ledger->unknown_before);
    open_bucket(&buckets[LEDGER_FAILURES], &limits->failures, ledger->unknown_before);
    open_bucket(&buckets[LEDGER_ORDERS], &limits->orders, ledger->unknown_before);
    for (size_t i = 0; i < ledger->subject_count; i++)
        bits[i] = buckets_of(ledger, i, asked);
    for (size_t i = 0; i < ledger->count; i++) {
        for (unsigned k = 0; k < LEDGER_BUCKETS; k++) {
            if (takes(&ledger->entries[i], bits, k))
                take(&buckets[k], i, ledger_time_of(&ledger->entries[i], now));
        }
    }
}

void ledger_mark_counted(const struct ledger *ledger, const struct config *config,
                         int64_t now, bool *ret_counted)
{
    for (size_t s = 0; s < ledger->subject_count; s++) {
        const struct ledger_subject subject = {
            .directory = ledger->subjects[s].directory,
            .names = ledger->subjects[s].names,
            .account = ledger->subjects[s].account,
        };
        struct ledger_limits limits = ledger_limits_of(config, subject.directory);
        unsigned bits[LEDGER_SUBJECTS_MAX];
        struct bucket buckets[LEDGER_BUCKETS];

        fill(buckets, bits, ledger, &subject, &limits, now);
        for (unsigned k = 0; k < LEDGER_BUCKETS; k++) {
            if (buckets[k].limit.count == 0 || buckets[k].full_at <= now)
                continue;
            for (size_t i = buckets[k].since; i < ledger->count; i++)
                ret_counted[i] = ret_counted[i] || takes(&ledger->entries[i], bits, k);
        }
    }
}

void ledger_permits(const struct ledger *ledger, const struct ledger_subject *asked,
                    const struct ledger_limits *limits, int64_t now,
                    struct ledger_permits ret[LEDGER_BUCKETS])
{
    struct bucket buckets[LEDGER_BUCKETS];
    unsigned bits[LEDGER_SUBJECTS_MAX];

    fill(buckets, bits, ledger, asked, limits, now);
    for (unsigned k = 0; k < LEDGER_BUCKETS; k++) {
        const struct ledger_limit *limit = &buckets[k].limit;
        int64_t missing = 0;

        if (limit->count > 0 && buckets[k].full_at > now)
            missing = (buckets[k].full_at - now + limit->refill_s - 1) / limit->refill_s;
        ret[k] = (struct ledger_permits){.limit = limit->count, .left = limit->count};
        if (missing == 0)
            continue;
        /* More than all of them: a ledger was lost when the clock was ahead. */
        if (missing > (int64_t)limit->count)
            missing = (int64_t)limit->count;
        ret[k].left = limit->count - (unsigned)missing;
        ret[k].next_at = buckets[k].full_at - (missing - 1) * limit->refill_s;
    }
}

static void ask_limits(const struct ledger *ledger, const struct ledger_subject *asked,
                       const struct ledger_limits *limits, int64_t now,
                       struct ledger_answer *answer)
{
    struct bucket buckets[LEDGER_BUCKETS];
    unsigned bits[LEDGER_SUBJECTS_MAX];

    fill(buckets, bits, ledger, asked, limits, now);
    for (unsigned k = 0; k < LEDGER_BUCKETS; k++) {
        if (buckets[k].limit.count == 0 || next_permit(&buckets[k]) <= answer->from)
            continue;
        answer->from = next_permit(&buckets[k]);
        answer->why = kinds[k].why;
    }
}

/* ---- what was tried ---- */

/* The last entry of a subject, of one outcome or (LEDGER_OUTCOMES) of any; NULL for none. */
static const struct ledger_entry *last_of(const struct ledger *ledger,
                                          const struct ledger_subject *subject,
                                          enum ledger_outcome outcome)
{
    size_t index = ledger_find_subject(ledger, subject);

    for (size_t i = ledger->count; i > 0; i--) {
        const struct ledger_entry *entry = &ledger->entries[i - 1];

        if (entry->subject == index &&
            (outcome == LEDGER_OUTCOMES || entry->outcome == outcome))
            return entry;
    }
    return NULL;
}

static bool is_pending(const struct ledger *ledger, const struct ledger_subject *subject)
{
    return last_of(ledger, subject, LEDGER_PENDING) != NULL;
}

unsigned ledger_row(const struct ledger *ledger, const struct ledger_subject *subject,
                    enum ledger_outcome outcome)
{
    size_t index = ledger_find_subject(ledger, subject);
    unsigned row = 0;

    for (size_t i = ledger->count; i > 0; i--) {
        const struct ledger_entry *entry = &ledger->entries[i - 1];

        if (entry->subject != index)
            continue;
        if (entry->outcome == LEDGER_ISSUED && outcome != LEDGER_ISSUED)
            break;
        row += entry->outcome == outcome;
    }
    return row;
}

/* Until when that try is not repeated. */
static int64_t end_of_wait(const struct ledger_entry *entry,
                           const struct ledger_question *question, int64_t now)
{
    int64_t wait_s = entry->wait_s;

    if (entry->outcome == LEDGER_CONFIGURATION && entry->context != question->context)
        return 0;
    if (question->urgent && entry->outcome != LEDGER_RATE_LIMITED &&
        entry->outcome != LEDGER_ISSUED && wait_s > LEDGER_URGENT_WAIT_S)
        wait_s = LEDGER_URGENT_WAIT_S;
    return ledger_time_of(entry, now) + wait_s;
}

static const char *why_wait(enum ledger_outcome outcome)
{
    static const char *const texts[LEDGER_OUTCOMES] = {
        [LEDGER_PENDING] = "an order is under way",
        [LEDGER_DOUBTFUL] = "it is not known what became of the last order",
        [LEDGER_ISSUED] = "what the CA issued last was of no use",
        [LEDGER_CHALLENGE_FAILED] = "the last challenge failed",
        [LEDGER_CAA_FORBIDS] = "the CAA record of the domain forbids the CA to issue",
        [LEDGER_RATE_LIMITED] = "the CA has limited us",
        [LEDGER_UNREACHED] = "the CA was not reached",
        [LEDGER_REFUSED] = "the last order was refused",
        [LEDGER_CONFIGURATION] = "a setting has to be changed",
    };

    return texts[outcome];
}

/* ---- the answer ---- */

/* Whether the last failed challenge has been rehearsed, and what is to be done about it. */
static void ask_rehearsal(const struct ledger *ledger,
                          const struct ledger_question *question, int64_t now,
                          struct ledger_answer *answer)
{
    const struct ledger_entry *failed =
        last_of(ledger, &question->subject, LEDGER_CHALLENGE_FAILED);
    const struct ledger_entry *rehearsed;
    struct ledger_answer there = {.why = ""};

    if (question->rehearsal.directory == NULL ||
        ledger_row(ledger, &question->subject, LEDGER_CHALLENGE_FAILED) <
            LEDGER_REHEARSE_AFTER)
        return;
    rehearsed = last_of(ledger, &question->rehearsal, LEDGER_OUTCOMES);
    if (rehearsed != NULL && rehearsed < failed)
        rehearsed = NULL; /* of an earlier one: both are in the same array */
    /* Whatever else went wrong there says nothing about the challenge here. */
    if (rehearsed != NULL && rehearsed->outcome != LEDGER_CHALLENGE_FAILED)
        return;
    ask_limits(ledger, &question->rehearsal, &question->rehearsal_limits, now, &there);
    if (rehearsed == NULL &&
        there.from > now) /* one that is not to be had holds nothing */
        return;
    answer->action = LEDGER_REHEARSE;
    if (rehearsed == NULL)
        return;
    answer->from = end_of_wait(rehearsed, question, now);
    answer->why = "the challenge failed in a rehearsal, too";
    if (there.from > answer->from)
        answer->from = there.from;
}

struct ledger_answer ledger_ask(const struct ledger *ledger,
                                const struct ledger_question *question, int64_t now)
{
    const struct ledger_entry *last =
        last_of(ledger, &question->subject, LEDGER_OUTCOMES);
    struct ledger_answer answer = {
        .action = LEDGER_ORDER, .why = "", .last = LEDGER_OUTCOMES};

    if (last != NULL) {
        answer.last = (enum ledger_outcome)last->outcome;
        answer.from = end_of_wait(last, question, now);
        answer.why = why_wait(answer.last);
    }
    ask_limits(ledger, &question->subject, &question->limits, now, &answer);
    if (answer.from <= now)
        ask_rehearsal(ledger, question, now, &answer);
    if (answer.from <= now)
        answer.why = "";
    if (is_pending(ledger, &question->subject))
        answer.action = LEDGER_SETTLE;
    else if (question->rehearsal.directory != NULL &&
             is_pending(ledger, &question->rehearsal))
        answer.action = LEDGER_SETTLE_REHEARSAL;
    else if (answer.from > now)
        answer.action = LEDGER_WAIT;
    return answer;
}
