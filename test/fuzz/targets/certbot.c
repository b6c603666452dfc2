/* The input is what certbot wrote on standard output, a line "--", and what it wrote on standard error. */
#include "domain/certbot_outcome.h"

#include "domain/ledger_outcome.h"
#include "support/fuzz.h"

#include <stdlib.h>
#include <string.h>

static void read_ending(const struct certbot_ending *ending)
{
    struct certbot_outcome outcome;
    struct err err = ERR_INIT;

    certbot_outcome_read(ending, &outcome);
    FUZZ_REQUIRE(certbot_verdict_name(outcome.verdict) != NULL);
    FUZZ_REQUIRE((outcome.verdict == CERTBOT_ISSUED) == (ending->exit_status == 0));
    fuzz_require_printable(outcome.problem);
    fuzz_require_printable(outcome.identifier);
    fuzz_require_printable(outcome.detail);
    if (outcome.verdict == CERTBOT_ISSUED)
        return;
    FUZZ_REQUIRE(outcome.detail[0] != '\0');
    FUZZ_REQUIRE(certbot_outcome_err(&outcome, &err) == -1);
    fuzz_require_refusal(&err);
    fuzz_require_line(err.message);
    FUZZ_REQUIRE(ledger_outcome_of(&outcome, true, &err) != LEDGER_ISSUED);
    if (outcome.verdict != CERTBOT_LOCAL_FAILURE)
        fuzz_note_accepted();
}

void fuzz_one(const unsigned char *bytes, size_t len)
{
    char *output = fuzz_text(bytes, len);
    struct certbot_ending ending = {.exit_status = 1,
                                    .standard_output = output,
                                    .standard_error = fuzz_cut(output, "--")};

    read_ending(&ending);
    ending.exit_status = 0;
    read_ending(&ending);
    ending.exit_status = -1;
    read_ending(&ending);
    ending.term_signal = 9;
    read_ending(&ending);
    free(output);
}
