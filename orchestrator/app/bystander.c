#include "app/bystander.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

int bystander_start(void (*run)(void *argument), void *argument, struct err *err)
{
    pid_t child = fork();

    if (child < 0)
        return err_sys(err, errno, "cannot fork");
    if (child == 0) {
        if (fork() == 0) {
            signal(SIGINT, SIG_IGN);
            signal(SIGTERM, SIG_IGN);
            signal(SIGQUIT, SIG_IGN);
            signal(SIGPIPE, SIG_IGN);
            run(argument);
        }
        _exit(EXIT_SUCCESS);
    }
    while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
        continue;
    return 0;
}
