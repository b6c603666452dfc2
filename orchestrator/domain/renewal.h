/*
 * renewal: when a certificate is renewed, and when its CA is asked about that. Pure.
 *
 * The CA's renewal information (RFC 9773) comes first. Without it the lifetime decides: a third of it
 * is left (30 of 90 days), or half of a life below 10 days, so that 90-, 45- and 6-day certificates
 * all have room for several tries; or the operator does, with acme.renew_before.
 *
 * Nothing happens at a fixed time of day. The instant follows from the dates of the certificate, to
 * the second; inside the CA's window, and where several machines serve the same leaf, it is a random
 * one. The random number is drawn once for each leaf and kept, so that a restart moves nothing.
 *
 * All times are Unix seconds.
 */
#ifndef CM_DOMAIN_RENEWAL_H
#define CM_DOMAIN_RENEWAL_H

#include <stdbool.h>
#include <stdint.h>

/* What the CA suggests: a time from `start` on and before `end`. Zeroed: nothing. */
struct renewal_window {
    int64_t start;
    int64_t end;
};

/* What counts besides the dates of the leaf. Zeroed: they alone do. */
struct renewal_terms {
    int64_t before_s; /* acme.renew_before, 0 where it is not set */
    struct renewal_window window;
    uint32_t spread; /* the leaf's random number */
    bool
        shared; /* other machines serve the same leaf: not all of them are to order at once */
};

enum renewal_rule { RENEWAL_BY_LIFETIME, RENEWAL_BY_SETTING, RENEWAL_BY_CA };

struct renewal {
    int64_t at; /* due from then on; always within the life */
    enum renewal_rule rule;
};

/*
 * A setting that is longer than half of the life counts as half of it: otherwise a short-lived
 * certificate would be renewed all the time.
 *
 * A window may be as early as it likes, but it must leave time to try again: three quarters of what
 * the lifetime would leave (22.5 of 30 days), or all of acme.renew_before. What of it is later does
 * not count. One of nothing else is refused, and so is one that is the whole life: it says nothing.
 */
struct renewal renewal_of(const struct renewal_terms *terms, int64_t not_before,
                          int64_t not_after);

/* Whether a CA's suggestion is one: it ends after it begins (RFC 9773 §4.2). */
bool renewal_window_is_sound(const struct renewal_window *window);

/*
 * How long to leave the CA alone after it has issued a leaf: a quarter of its life, at most an
 * hour. A leaf that our clock, or the CA, calls due at once must not have us order without end.
 */
uint64_t renewal_rest_ms(int64_t not_before, int64_t not_after);

/* Whether a leaf that is valid only later may be so because our clock is behind. */
bool renewal_is_before_life(int64_t not_before, int64_t now);

/* ---- questions to the CA ---- */

enum { RENEWAL_ASK_MIN_S = 60, RENEWAL_ASK_MAX_S = 12 * 3600 };

/* What came of one. */
struct renewal_asked {
    unsigned failures;     /* in a row, 0 when it was answered */
    bool lasting;          /* a failure that the same question would meet again */
    int64_t retry_after_s; /* as the CA had it, 0 when it did not say */
};

/*
 * How long until the next one: as the CA says, within RENEWAL_ASK_MIN_S and _MAX_S (twice a day);
 * unsaid, and after a lasting failure, six hours; after another one from a minute on, doubling.
 * `random` adds up to a tenth.
 */
int64_t renewal_ask_after_s(const struct renewal_asked *asked, uint32_t random);

/* `ask_at` 0: never asked. One that is too far away comes from a clock that was wrong. */
bool renewal_may_ask(int64_t ask_at, int64_t now);

#endif
