// For deploy/static, loaded before the C library: build scripts get the same "random" bytes each time. That of
// promql-parser writes what it keeps in hash maps into its code, and Rust seeds these with random bytes; the order
// would be another with each build. Nothing else is changed, least of all in the binary that is built.
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

ssize_t getrandom(void *into, size_t size, unsigned flags) {
  if (!strstr(program_invocation_short_name, "build-script"))
    return syscall(SYS_getrandom, into, size, flags);
  memset(into, 0, size);
  return size;
}
