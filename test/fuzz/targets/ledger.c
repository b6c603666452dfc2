/* The input is ledger.json, which others may write to: what is read is safe to ask and to write again. */
#include "domain/ledger.h"

#include "domain/ledger_policy.h"
#include "support/fuzz.h"

#include <stdlib.h>
#include <string.h>

static char production[] = AUTHORITY_PRODUCTION;

/* Ways in which time goes on: not at all, a day, a year, and back to a clock that was wrong. */
static const int64_t clocks[] = {FUZZ_NOW, FUZZ_NOW + 86400, FUZZ_NOW + 366 * 86400, 0};

static struct buf text_of(const struct ledger *ledger)
{
    struct err err = ERR_INIT;
    struct buf text;

    buf_init(&text, LEDGER_MAX_BYTES);
    FUZZ_REQUIRE(ledger_write(ledger, &text, &err) == 0);
    return text;
}

static void require_same_again(const struct ledger *ledger)
{
    struct ledger again = {.count = 0};
    struct err err = ERR_INIT;
    struct buf text = text_of(ledger);
    struct buf second;

    FUZZ_REQUIRE_TEXT(ledger_read(&text, &again, &err) == 0, err.message);
    second = text_of(&again);
    FUZZ_REQUIRE_TEXT(fuzz_same(&text, &second), buf_str(&text));
    ledger_done(&again);
    buf_done(&text);
    buf_done(&second);
}

static void ask(const struct ledger *ledger, const struct config *config,
                const struct ledger_subject *subject, int64_t now)
{
    const struct ledger_question question = {
        .subject = *subject, .limits = ledger_limits_of(config, subject->directory)};
    struct ledger_permits permits[LEDGER_BUCKETS];
    struct ledger_answer answer = ledger_ask(ledger, &question, now);

    FUZZ_REQUIRE(answer.why != NULL && answer.last <= LEDGER_OUTCOMES);
    FUZZ_REQUIRE(answer.action != LEDGER_WAIT || answer.from > now);
    FUZZ_REQUIRE(answer.action != LEDGER_ORDER || answer.from <= now);
    ledger_permits(ledger, subject, &question.limits, now, permits);
    for (int i = 0; i < LEDGER_BUCKETS; i++) {
        FUZZ_REQUIRE(permits[i].left <= permits[i].limit);
        FUZZ_REQUIRE(permits[i].left > 0 || permits[i].limit == 0 ||
                     answer.action != LEDGER_ORDER);
    }
}

static void live_on(struct ledger *ledger, const struct config *config)
{
    struct ledger_subject subject = {
        .directory = production, .names = "app.example.org", .account = "v1"};

    if (ledger->subject_count > 0)
        subject = (struct ledger_subject){.directory = ledger->subjects[0].directory,
                                          .names = ledger->subjects[0].names,
                                          .account = ledger->subjects[0].account};
    for (size_t i = 0; i < sizeof clocks / sizeof clocks[0]; i++) {
        ledger_mind_clock(ledger, clocks[i]);
        ask(ledger, config, &subject, clocks[i]);
    }
    ledger_give_up_pending(ledger, &subject, 60);
    ledger_prune(ledger, config, FUZZ_NOW);
    require_same_again(ledger);
}

void fuzz_one(const unsigned char *bytes, size_t len)
{
    struct config config = {.acme.authorities.count = 1};
    struct ledger ledger = {.count = 0};
    struct err err = ERR_INIT;
    BUF_SCOPED text = {.max = LEDGER_MAX_BYTES};

    config.acme.authorities.items[0].directory = production;
    FUZZ_REQUIRE(buf_append(&text, bytes, len, &err) == 0);
    if (ledger_read(&text, &ledger, &err) < 0) {
        fuzz_require_refusal(&err);
        FUZZ_REQUIRE(ledger.count == 0 && ledger.subject_count == 0);
        return;
    }
    fuzz_note_accepted();
    require_same_again(&ledger);
    live_on(&ledger, &config);
    ledger_done(&ledger);
}
