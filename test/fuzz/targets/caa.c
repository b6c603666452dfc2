/* The input is the message in which a DNS server answers a question for CAA records. */
#include "domain/caa.h"

#include "support/fuzz.h"

#include <stdlib.h>

static const char *const issuers[] = {"letsencrypt.org"};

static enum caa_verdict judge(const struct caa_set *set, const char *account_url,
                              bool wildcard)
{
    const struct caa_request request = {.issuers = issuers,
                                        .issuer_count = 1,
                                        .account_url = account_url,
                                        .method = "http-01",
                                        .wildcard = wildcard};
    char why[CAA_WHY_SIZE] = "";
    enum caa_verdict verdict = caa_judge(set, &request, why);

    fuzz_require_printable(why);
    FUZZ_REQUIRE(verdict == CAA_PERMITS || why[0] != '\0');
    return verdict;
}

void fuzz_one(const unsigned char *bytes, size_t len)
{
    char *message = fuzz_text(bytes, len);
    char alias[CAA_NAME_SIZE] = "";
    struct err err = ERR_INIT;
    struct caa_set set;

    if (caa_read_message(message, len, "app.example.org", &set, alias, &err) < 0) {
        fuzz_require_refusal(&err);
    } else {
        FUZZ_REQUIRE(set.count <= CAA_RECORDS_MAX);
        fuzz_require_printable(alias);
        /* Who knows the account knows more: then nothing is left open. */
        FUZZ_REQUIRE(judge(&set, "https://ca.example/acct/1", false) != CAA_UNDECIDED);
        FUZZ_REQUIRE(judge(&set, "https://ca.example/acct/1", true) != CAA_UNDECIDED);
        FUZZ_REQUIRE(judge(&set, "", false) == CAA_PERMITS || set.count > 0);
        if (set.count > 0)
            fuzz_note_accepted();
    }
    free(message);
}
