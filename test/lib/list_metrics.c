/* Prints the families of metrics from the program's own table, one a line: its name, then its labels. */
#include "domain/metrics.h"

#include <stdio.h>

int main(void)
{
    for (int i = 0; i < METRIC_COUNT; i++) {
        printf("%s", metrics_name((enum metric)i));
        for (size_t k = 0; metrics_label((enum metric)i, k) != NULL; k++)
            printf(" %s", metrics_label((enum metric)i, k));
        printf("\n");
    }
    return 0;
}
