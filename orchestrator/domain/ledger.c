#include "domain/ledger_internal.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    DAY = 24 * 3600,
    /* Clocks are set by so much in normal times, and tries of one second are told apart by one. */
    CLOCK_TOLERANCE_S = 60,
    ROW_LIFE_S = 8 * DAY, /* longer than any waiting time */
    ROW_KEPT = 16,        /* the pace changes no more after so many failures */
    UNKNOWN_LIFE_S = 31 * DAY,
    LONGEST_TRY_S = 31 * DAY, /* whatever the clock says */
};

void ledger_done(struct ledger *ledger)
{
    for (size_t i = 0; i < ledger->subject_count; i++) {
        free(ledger->subjects[i].directory);
        free(ledger->subjects[i].names);
        free(ledger->subjects[i].account);
    }
    free(ledger->entries);
    *ledger = (struct ledger){.count = 0};
}

/* ---- names ---- */

static int compare_names(const void *a, const void *b)
{
    return strcasecmp(*(const char *const *)a, *(const char *const *)b);
}

static int append_name(struct buf *ret, const char *name, struct err *err)
{
    if (ret->len > 0 && buf_append(ret, " ", 1, err) < 0)
        return -1;
    for (; *name != '\0'; name++) {
        char c = (char)tolower((unsigned char)*name);

        if (buf_append(ret, &c, 1, err) < 0)
            return -1;
    }
    return 0;
}

int ledger_names(const char *const *names, size_t count, struct buf *ret, struct err *err)
{
    const char **sorted = calloc(count == 0 ? 1 : count, sizeof *sorted);
    int failed = 0;

    if (sorted == NULL)
        return err_sys(err, ENOMEM, "cannot sort names");
    if (count > 0)
        memcpy(sorted, names, count * sizeof *sorted);
    qsort(sorted, count, sizeof *sorted, compare_names);
    buf_init(ret, LEDGER_NAMES_SIZE);
    for (size_t i = 0; i < count && failed == 0; i++) {
        if (i == 0 || compare_names(&sorted[i - 1], &sorted[i]) != 0)
            failed = append_name(ret, sorted[i], err);
    }
    free(sorted);
    return failed;
}

/* ---- subjects and entries ---- */

size_t ledger_find_subject(const struct ledger *ledger,
                           const struct ledger_subject *subject)
{
    size_t i = 0;

    while (i < ledger->subject_count &&
           (strcmp(ledger->subjects[i].directory, subject->directory) != 0 ||
            strcmp(ledger->subjects[i].names, subject->names) != 0 ||
            strcmp(ledger->subjects[i].account, subject->account) != 0))
        i++;
    return i;
}

int ledger_add_subject(struct ledger *ledger, const struct ledger_subject *subject,
                       size_t *ret_index, struct err *err)
{
    size_t i = ledger_find_subject(ledger, subject);

    *ret_index = i;
    if (i < ledger->subject_count)
        return 0;
    if (i == LEDGER_SUBJECTS_MAX)
        return err_set(err, ERR_SYS,
                       "orders for more than %d different sets of names, "
                       "accounts and CAs within a week",
                       LEDGER_SUBJECTS_MAX);
    ledger->subject_count++;
    ledger->subjects[i].directory = strdup(subject->directory);
    ledger->subjects[i].names = strdup(subject->names);
    ledger->subjects[i].account = strdup(subject->account);
    if (ledger->subjects[i].directory != NULL && ledger->subjects[i].names != NULL &&
        ledger->subjects[i].account != NULL)
        return 0;
    ledger->subject_count--;
    free(ledger->subjects[i].directory);
    free(ledger->subjects[i].names);
    free(ledger->subjects[i].account);
    return err_sys(err, ENOMEM, "cannot keep the ledger");
}

int ledger_append(struct ledger *ledger, const struct ledger_entry *entry,
                  struct err *err)
{
    if (ledger->count == LEDGER_ENTRIES_MAX)
        return err_set(err, ERR_SYS, "more than %d entries", LEDGER_ENTRIES_MAX);
    if (ledger->count == ledger->capacity) {
        size_t capacity = ledger->capacity == 0 ? 16 : 2 * ledger->capacity;
        struct ledger_entry *larger = realloc(ledger->entries, capacity * sizeof *larger);

        if (larger == NULL)
            return err_sys(err, ENOMEM, "cannot keep the ledger");
        ledger->entries = larger;
        ledger->capacity = capacity;
    }
    ledger->entries[ledger->count++] = *entry;
    return 0;
}

int64_t ledger_time_of(const struct ledger_entry *entry, int64_t now)
{
    if (entry->at <= now)
        return entry->at;
    return entry->seen != 0 && entry->seen <= now ? entry->seen : now;
}

/* ---- what happens ---- */

static struct ledger_entry *find(const struct ledger *ledger,
                                 const struct ledger_subject *subject, int64_t at)
{
    size_t index = ledger_find_subject(ledger, subject);

    for (size_t i = ledger->count; i > 0; i--) {
        struct ledger_entry *entry = &ledger->entries[i - 1];

        if (entry->at == at && entry->subject == index)
            return entry;
    }
    return NULL;
}

static int append(struct ledger *ledger, const struct ledger_subject *subject,
                  const struct ledger_entry *result, int64_t at, struct err *err)
{
    struct ledger_entry entry = *result;
    size_t index;

    if (ledger_add_subject(ledger, subject, &index, err) < 0)
        return -1;
    entry.at = at;
    entry.seen = 0;
    entry.subject = (unsigned short)index;
    return ledger_append(ledger, &entry, err);
}

int ledger_begin(struct ledger *ledger, const struct ledger_subject *subject, int64_t now,
                 int64_t *ret_at, struct err *err)
{
    static const struct ledger_entry pending = {.outcome = LEDGER_PENDING};

    while (find(ledger, subject, now) != NULL)
        now++;
    *ret_at = now;
    return append(ledger, subject, &pending, now, err);
}

int ledger_end(struct ledger *ledger, const struct ledger_subject *subject, int64_t at,
               const struct ledger_entry *result, int64_t now, struct err *err)
{
    struct ledger_entry *entry = find(ledger, subject, at);
    struct ledger_entry ended = *result;

    if (ended.wait_s > 0 && now > at)
        ended.wait_s += now - at < LONGEST_TRY_S ? now - at : LONGEST_TRY_S;
    if (entry == NULL)
        return append(ledger, subject, &ended, at, err);
    if (entry->outcome != LEDGER_PENDING) /* it was taken over, and is counted already */
        return 0;
    entry->outcome = ended.outcome;
    entry->wait_s = ended.wait_s;
    entry->context = ended.context;
    return 0;
}

void ledger_withdraw(struct ledger *ledger, const struct ledger_subject *subject,
                     int64_t at)
{
    struct ledger_entry *entry = find(ledger, subject, at);
    size_t behind;

    if (entry == NULL)
        return;
    behind = ledger->count - (size_t)(entry - ledger->entries) - 1;
    memmove(entry, entry + 1, behind * sizeof *entry);
    ledger->count--;
}

size_t ledger_give_up_pending(struct ledger *ledger, const struct ledger_subject *subject,
                              int64_t wait_s)
{
    size_t index = ledger_find_subject(ledger, subject);
    size_t found = 0;

    for (size_t i = 0; i < ledger->count; i++) {
        struct ledger_entry *entry = &ledger->entries[i];

        if (entry->subject != index || entry->outcome != LEDGER_PENDING)
            continue;
        entry->outcome = LEDGER_DOUBTFUL;
        entry->wait_s = wait_s;
        found++;
    }
    return found;
}

size_t ledger_mind_clock(struct ledger *ledger, int64_t now)
{
    size_t found = 0;

    if (ledger->unknown_before > now)
        ledger->unknown_before = now;
    for (size_t i = 0; i < ledger->count; i++) {
        struct ledger_entry *entry = &ledger->entries[i];

        if (entry->at <= now + CLOCK_TOLERANCE_S)
            continue;
        found += entry->seen == 0;
        if (entry->seen == 0 || entry->seen > now)
            entry->seen = now;
    }
    return found;
}

/* ---- what is forgotten ---- */

static void drop_unused_subjects(struct ledger *ledger)
{
    size_t indices[LEDGER_SUBJECTS_MAX] = {0};
    bool used[LEDGER_SUBJECTS_MAX] = {false};
    size_t kept = 0;

    for (size_t i = 0; i < ledger->count; i++)
        used[ledger->entries[i].subject] = true;
    for (size_t i = 0; i < ledger->subject_count; i++) {
        if (!used[i]) {
            free(ledger->subjects[i].directory);
            free(ledger->subjects[i].names);
            free(ledger->subjects[i].account);
            continue;
        }
        ledger->subjects[kept] = ledger->subjects[i];
        indices[i] = kept++;
    }
    ledger->subject_count = kept;
    for (size_t i = 0; i < ledger->count; i++)
        ledger->entries[i].subject = (unsigned short)indices[ledger->entries[i].subject];
}

/*
 * A limit looks back as far as to when none of its permits was missing: one that is in use all the
 * time never forgets, but at its pace that is little.
 */
void ledger_prune(struct ledger *ledger, const struct config *config, int64_t now)
{
    unsigned newer[LEDGER_SUBJECTS_MAX][LEDGER_OUTCOMES] = {{0}};
    bool *counted = calloc(ledger->count + 1, sizeof *counted);
    size_t first = ledger->count;

    if (ledger->unknown_before != 0 && now - ledger->unknown_before > UNKNOWN_LIFE_S)
        ledger->unknown_before = 0;
    if (counted == NULL)
        return;
    ledger_mark_counted(ledger, config, now, counted);
    /* From the newest back: what stays is moved to the end, and then to the front as a whole. */
    for (size_t i = ledger->count; i > 0; i--) {
        const struct ledger_entry *entry = &ledger->entries[i - 1];
        bool is_of_row = now - ledger_time_of(entry, now) <= ROW_LIFE_S &&
                         newer[entry->subject][entry->outcome]++ < ROW_KEPT;

        if ((is_of_row || counted[i - 1]) && ledger->count - first < LEDGER_KEPT_MAX)
            ledger->entries[--first] = *entry;
    }
    free(counted);
    ledger->count -= first;
    if (ledger->count > 0)
        memmove(ledger->entries, ledger->entries + first,
                ledger->count * sizeof *ledger->entries);
    drop_unused_subjects(ledger);
}
