/* Preloaded into a gateway that runs under callgrind (versions.py). There the kernel takes /proc/self/exe for callgrind
 * itself; the gateway means its own binary, which GATEWAY_BINARY names. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static const char *meant(const char *path) {
    const char *binary = getenv("GATEWAY_BINARY");
    return binary && path && strcmp(path, "/proc/self/exe") == 0 ? binary : path;
}

int execvp(const char *path, char *const words[]) {
    int (*next)(const char *, char *const[]) = dlsym(RTLD_NEXT, "execvp");
    return next(meant(path), words);
}

int posix_spawnp(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions, const posix_spawnattr_t *attributes,
                 char *const words[], char *const environment[]) {
    int (*next)(pid_t *, const char *, const posix_spawn_file_actions_t *, const posix_spawnattr_t *, char *const[],
                char *const[]) = dlsym(RTLD_NEXT, "posix_spawnp");
    return next(pid, meant(path), actions, attributes, words, environment);
}

int open64(const char *path, int flags, ...) {
    int (*next)(const char *, int, ...) = dlsym(RTLD_NEXT, "open64");
    va_list more;
    va_start(more, flags);
    int mode = va_arg(more, int);
    va_end(more);
    return next(meant(path), flags, mode);
}
