#include "domain/renewal.h"

enum {
    SHORT_LIFE_S = 10 * 24 * 3600,
    LONGEST_REST_S = 3600,
    CLOCK_TOLERANCE_S = 5 * 60, /* CAs and virtual machines disagree on the time */
    ASK_USUAL_S = 6 * 3600,
};

/* Of the time that is left, in which machines with the same leaf spread: a day of 30. */
enum { SHARED_PART = 30 };

/* What is left of the life when a leaf is due, if only its dates and the operator count. */
static int64_t margin(const struct renewal_terms *terms, int64_t life)
{
    if (terms->before_s > 0)
        return terms->before_s < life / 2 ? terms->before_s : life / 2;
    return life < SHORT_LIFE_S ? life / 2 : life / 3;
}

/* `part` of 2^32 parts of a span that is not negative. */
static int64_t part_of(int64_t span, uint32_t part)
{
    uint64_t whole = (uint64_t)span;

    return (int64_t)((whole >> 32) * part + ((whole & UINT32_MAX) * part >> 32));
}

bool renewal_window_is_sound(const struct renewal_window *window)
{
    return window->end > window->start;
}

struct renewal renewal_of(const struct renewal_terms *terms, int64_t not_before,
                          int64_t not_after)
{
    /* Never after the end, also when the dates are the wrong way round. */
    int64_t life = not_after > not_before ? not_after - not_before : 0;
    int64_t begin = not_after - life;
    int64_t left = margin(terms, life);
    int64_t latest = not_after - (terms->before_s > 0 ? left : left - left / 4);
    struct renewal_window window = terms->window;

    if (!renewal_window_is_sound(&window) || window.start >= latest ||
        (window.start <= begin && window.end >= not_after))
        return (struct renewal){
            .at = not_after - left +
                  (terms->shared ? part_of(left / SHARED_PART, terms->spread) : 0),
            .rule = terms->before_s > 0 ? RENEWAL_BY_SETTING : RENEWAL_BY_LIFETIME,
        };
    if (window.start < begin)
        window.start = begin;
    if (window.end > latest)
        window.end = latest;
    if (window.end < begin) /* long ago means now */
        window.end = begin;
    return (struct renewal){
        .at = window.start + part_of(window.end - window.start, terms->spread),
        .rule = RENEWAL_BY_CA,
    };
}

uint64_t renewal_rest_ms(int64_t not_before, int64_t not_after)
{
    int64_t quarter = (not_after - not_before) / 4;
    int64_t rest = quarter < LONGEST_REST_S ? quarter : LONGEST_REST_S;

    return rest > 0 ? (uint64_t)rest * 1000 : 1000;
}

bool renewal_is_before_life(int64_t not_before, int64_t now)
{
    return now < not_before - CLOCK_TOLERANCE_S;
}

static int64_t doubled(unsigned failures)
{
    int64_t wait = RENEWAL_ASK_MIN_S;

    for (unsigned i = 1; i < failures && wait < ASK_USUAL_S; i++)
        wait *= 2;
    return wait < ASK_USUAL_S ? wait : ASK_USUAL_S;
}

int64_t renewal_ask_after_s(const struct renewal_asked *asked, uint32_t random)
{
    int64_t wait = ASK_USUAL_S;

    if (asked->retry_after_s > 0)
        wait = asked->retry_after_s;
    else if (asked->failures > 0 && !asked->lasting)
        wait = doubled(asked->failures);
    if (wait < RENEWAL_ASK_MIN_S)
        wait = RENEWAL_ASK_MIN_S;
    if (wait > RENEWAL_ASK_MAX_S)
        wait = RENEWAL_ASK_MAX_S;
    wait += part_of(wait / 10, random);
    return wait < RENEWAL_ASK_MAX_S ? wait : RENEWAL_ASK_MAX_S;
}

bool renewal_may_ask(int64_t ask_at, int64_t now)
{
    return now >= ask_at || ask_at - now > RENEWAL_ASK_MAX_S;
}
