/*
 * guess: which of several names was meant by a mistyped one. Pure.
 *
 *     struct guess guess = guess_of("domian");
 *     guess_try(&guess, "domain");
 *     guess_try(&guess, "domains");
 *     assert(strcmp(guess.name, "domain") == 0);
 */
#ifndef CM_BASE_GUESS_H
#define CM_BASE_GUESS_H

/* Borrows what was said, and the names that it is compared with. */
struct guess {
    const char *said;
    const char
        *name; /* the nearest of those that are near, the first of equals; or NULL */
    unsigned distance; /* a name must be nearer than this */
};

struct guess guess_of(const char *said);

/* A beginning of the name is near to it, too. */
void guess_try(struct guess *guess, const char *name);

/*
 * How many letters must be changed, added, left out or swapped with their neighbour to
 * make the one of the other, whatever the case. Texts that are too long for a name are
 * far away.
 */
unsigned guess_distance(const char *a, const char *b);

#endif
