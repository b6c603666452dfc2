/*
 * Prints the steps of the flows from the tables that the program runs, one a line, as its log has them:
 * "FLOW: STEP".
 */
#include "flows/adopt_flow.h"
#include "flows/apply_flow.h"
#include "flows/issue_flow.h"
#include "flows/keys_flow.h"
#include "flows/preflight_flow.h"

#include <stdio.h>

static void list(const char *flow, const struct seq_step *steps)
{
    for (size_t i = 0; steps[i].name != NULL; i++)
        printf("%s: %s\n", flow, steps[i].name);
}

int main(void)
{
    list("keys", keys_steps);
    list("adopt", adopt_steps);
    list("pre-flight", preflight_steps);
    list("issue", issue_steps);
    list("apply", apply_steps);
    list("way back", apply_back_steps);
    return 0;
}
