/* Stands in for a disk that stalls: each write to a file below STALL_DIR takes 200 ms more, while
   the file STALL_FLAG exists. For LD_PRELOAD, so that it meets every library alike. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static void stall(int fd) {
  const char *flag = getenv("STALL_FLAG"), *directory = getenv("STALL_DIR");
  char link[64], path[4096];
  if (!flag || !directory || access(flag, F_OK)) return;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return;
  path[length] = 0;
  if (!strncmp(path, directory, strlen(directory))) usleep(200000);
}

#define STALLING(result, name, parameters, arguments)      \
  result name parameters {                                 \
    static result (*real) parameters;                      \
    if (!real) real = dlsym(RTLD_NEXT, #name);             \
    stall(fd);                                             \
    return real arguments;                                 \
  }

STALLING(ssize_t, write, (int fd, const void *data, size_t size), (fd, data, size))
STALLING(ssize_t, writev, (int fd, const struct iovec *parts, int count), (fd, parts, count))
STALLING(ssize_t, pwrite, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at))
STALLING(ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at))
