#include "base/landlock.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Later than the oldest headers that we are built with. */
#define ACCESS_FS_TRUNCATE (1ULL << 14)  /* version 3 */
#define ACCESS_FS_IOCTL_DEV (1ULL << 15) /* version 5 */

#define OF_FILES (LANDLOCK_ACCESS_FS_WRITE_FILE | ACCESS_FS_TRUNCATE)

/* Special files, too: to rename one out of the way is to make one. */
#define OF_FOLDERS                                                                       \
    (OF_FILES | LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE |         \
     LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG |                         \
     LANDLOCK_ACCESS_FS_MAKE_SOCK | LANDLOCK_ACCESS_FS_MAKE_FIFO |                       \
     LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_BLOCK |                      \
     LANDLOCK_ACCESS_FS_MAKE_SYM | LANDLOCK_ACCESS_FS_REFER)

#define NOWHERE (LANDLOCK_ACCESS_FS_EXECUTE | ACCESS_FS_IOCTL_DEV)

enum { FIRST_OF_USE = 2, WITH_TRUNCATE = 3, WITH_IOCTL = 5 };

static uint64_t known(int version, uint64_t access)
{
    if (version < WITH_TRUNCATE)
        access &= ~ACCESS_FS_TRUNCATE;
    if (version < WITH_IOCTL)
        access &= ~ACCESS_FS_IOCTL_DEV;
    return access;
}

int landlock_version(void)
{
    long version =
        syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);

    return version < FIRST_OF_USE ? 0 : (int)version;
}

int landlock_begin(struct landlock *rules, struct err *err)
{
    struct landlock_ruleset_attr handled = {0};
    long fd;

    *rules = (struct landlock){.fd = -1, .version = landlock_version()};
    if (rules->version == 0)
        return err_sys(err, ENOSYS, "Landlock");
    handled.handled_access_fs = known(rules->version, OF_FOLDERS | NOWHERE);
    fd = syscall(SYS_landlock_create_ruleset, &handled, sizeof handled, 0);
    if (fd < 0)
        return err_sys(err, errno, "Landlock");
    rules->fd = (int)fd;
    return 0;
}

int landlock_allow(const struct landlock *rules, const char *path, struct err *err)
{
    struct landlock_path_beneath_attr rule = {
        .allowed_access = known(rules->version, OF_FOLDERS),
        .parent_fd = open(path, O_PATH | O_CLOEXEC),
    };
    struct stat status;
    int failed = 0;

    if (rule.parent_fd < 0)
        return errno == ENOENT || errno == ENOTDIR
                   ? 0
                   : err_sys(err, errno, "Landlock: %s", path);
    if (fstat(rule.parent_fd, &status) == 0 && !S_ISDIR(status.st_mode))
        rule.allowed_access = known(rules->version, OF_FILES);
    if (syscall(SYS_landlock_add_rule, rules->fd, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) !=
        0)
        failed = err_sys(err, errno, "Landlock: %s", path);
    close(rule.parent_fd);
    return failed;
}

int landlock_confine(const struct landlock *rules, struct err *err)
{
    return syscall(SYS_landlock_restrict_self, rules->fd, 0) == 0
               ? 0
               : err_sys(err, errno, "Landlock");
}

void landlock_drop(struct landlock *rules)
{
    if (rules->fd >= 0)
        close(rules->fd);
    rules->fd = -1;
}
