/* Writes down what a process does to the files under a folder: preloaded, it stands before the C library's calls.
 *
 * RECORD_UNDER names the folder and RECORD_INTO the log. A record is six little-endian 64-bit numbers (kind, inode,
 * offset, length of the data, length of the first name, of the second) and then the data and the names. Only calls
 * that succeeded are written down, in the order in which they returned; a short write with the length that it had.
 *
 * The disk fills up once `writes_left` is zero: further writes into the folder fail. Below zero there is no limit.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { CREATED = 1, WRITE, TRUNCATE, SYNC, SYNC_FOLDER, LINK, UNLINK, RENAME };

long writes_left = -1;

static char under[PATH_MAX];
static int into = -1;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void begin(void) __attribute__((constructor));
static void begin(void) {
    const char *folder = getenv("RECORD_UNDER"), *log = getenv("RECORD_INTO");
    if (!folder || strlen(folder) >= sizeof under) return;
    strcpy(under, folder);
    if (log) into = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static void record(int kind, uint64_t inode, uint64_t offset, const void *data, uint64_t length, const char *one, const char *two) {
    uint64_t head[6] = {(uint64_t)kind, inode, offset, length, one ? strlen(one) : 0, two ? strlen(two) : 0};
    if (into < 0) return;
    struct iovec parts[4] = {{head, sizeof head}, {(void *)data, length}, {(void *)one, head[4]}, {(void *)two, head[5]}};
    pthread_mutex_lock(&lock);
    if (syscall(SYS_writev, into, parts, 4) != (long)(sizeof head + length + head[4] + head[5])) abort();
    pthread_mutex_unlock(&lock);
}

/* The name within the folder, or NULL. Both are absolute, as the session is given them. */
static const char *within(const char *path) {
    size_t length = strlen(under);
    return length && path && !strncmp(path, under, length) && path[length] == '/' ? path + length + 1 : NULL;
}

/* The inode behind a descriptor if it lies in the folder, or is it; else 0. */
static uint64_t inode_of(int fd, int *folder) {
    char link[64], path[PATH_MAX];
    struct stat status;
    int kept = errno;
    uint64_t found = 0;
    if (*under && fd >= 0) {
        strcpy(link, "/proc/self/fd/");
        int at = (int)strlen(link), digits = 1;
        for (int rest = fd; rest >= 10; rest /= 10) digits++;
        for (int i = digits - 1, rest = fd; i >= 0; i--, rest /= 10) link[at + i] = (char)('0' + rest % 10);
        link[at + digits] = 0;
        ssize_t length = readlink(link, path, sizeof path - 1);
        if (length > 0) {
            path[length] = 0;
            if ((within(path) || !strcmp(path, under)) && !fstat(fd, &status)) {
                *folder = S_ISDIR(status.st_mode);
                found = status.st_ino;
            }
        }
    }
    errno = kept;
    return found;
}

static uint64_t inode_at(const char *path) {
    struct stat status;
    int kept = errno;
    uint64_t found = stat(path, &status) ? 0 : status.st_ino;
    errno = kept;
    return found;
}

#define NEXT(name) static __typeof__(name) *next; if (!next) *(void **)&next = dlsym(RTLD_NEXT, #name)

static void opened(int fd, const char *path, int flags, uint64_t before) {
    const char *name = within(path);
    int folder = 0;
    if (fd < 0 || !name) return;
    uint64_t inode = inode_of(fd, &folder);
    if (!inode || folder) return;
    if ((flags & O_CREAT) && !before) record(CREATED, inode, 0, NULL, 0, name, NULL);
    else if (flags & O_TRUNC) record(TRUNCATE, inode, 0, NULL, 0, NULL, NULL);
}

#define OPEN(call) \
    int call(const char *path, int flags, ...) { \
        NEXT(call); \
        va_list rest; va_start(rest, flags); int mode = va_arg(rest, int); va_end(rest); \
        uint64_t before = within(path) ? inode_at(path) : 0; \
        int fd = next(path, flags, mode); \
        opened(fd, path, flags, before); \
        return fd; \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(call) \
    int call(int where, const char *path, int flags, ...) { \
        NEXT(call); \
        va_list rest; va_start(rest, flags); int mode = va_arg(rest, int); va_end(rest); \
        uint64_t before = within(path) ? inode_at(path) : 0; \
        int fd = next(where, path, flags, mode); \
        opened(fd, path, flags, before); \
        return fd; \
    }
OPENAT(openat)
OPENAT(openat64)

static void written(int fd, const void *data, ssize_t length, off_t offset) {
    int folder = 0;
    uint64_t inode = length > 0 ? inode_of(fd, &folder) : 0;
    if (inode) record(WRITE, inode, (uint64_t)offset, data, (uint64_t)length, NULL, NULL);
}

static int full(int fd) {
    int folder = 0;
    if (writes_left < 0 || !inode_of(fd, &folder)) return 0;
    if (writes_left > 0) return writes_left--, 0;
    errno = ENOSPC;
    return 1;
}

ssize_t write(int fd, const void *data, size_t length) {
    NEXT(write);
    if (full(fd)) return -1;
    ssize_t done = next(fd, data, length);
    if (done > 0 && into >= 0) { int kept = errno; written(fd, data, done, lseek(fd, 0, SEEK_CUR) - done); errno = kept; }
    return done;
}

#define PWRITE(call, type) \
    ssize_t call(int fd, const void *data, size_t length, type offset) { \
        NEXT(call); \
        if (full(fd)) return -1; \
        ssize_t done = next(fd, data, length, offset); \
        written(fd, data, done, (off_t)offset); \
        return done; \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

static void synced(int fd, int failed) {
    int folder = 0;
    uint64_t inode = failed ? 0 : inode_of(fd, &folder);
    if (inode) record(folder ? SYNC_FOLDER : SYNC, inode, 0, NULL, 0, NULL, NULL);
}

int fsync(int fd) { NEXT(fsync); int failed = next(fd); synced(fd, failed); return failed; }
int fdatasync(int fd) { NEXT(fdatasync); int failed = next(fd); synced(fd, failed); return failed; }

static void truncated(int fd, int failed, off_t length) {
    int folder = 0;
    uint64_t inode = failed ? 0 : inode_of(fd, &folder);
    if (inode) record(TRUNCATE, inode, (uint64_t)length, NULL, 0, NULL, NULL);
}

int ftruncate(int fd, off_t length) { NEXT(ftruncate); int failed = next(fd, length); truncated(fd, failed, length); return failed; }
int ftruncate64(int fd, off64_t length) { NEXT(ftruncate64); int failed = next(fd, length); truncated(fd, failed, length); return failed; }

int unlink(const char *path) {
    NEXT(unlink);
    int failed = next(path);
    if (!failed && within(path)) record(UNLINK, 0, 0, NULL, 0, within(path), NULL);
    return failed;
}

int unlinkat(int where, const char *path, int flags) {
    NEXT(unlinkat);
    int failed = next(where, path, flags);
    if (!failed && within(path)) record(UNLINK, 0, 0, NULL, 0, within(path), NULL);
    return failed;
}

static void linked(int failed, const char *from, const char *to, int kind) {
    if (!failed && within(to)) record(kind, inode_at(to), 0, NULL, 0, within(to), within(from));
}

int link(const char *from, const char *to) { NEXT(link); int failed = next(from, to); linked(failed, from, to, LINK); return failed; }
int linkat(int a, const char *from, int b, const char *to, int flags) {
    NEXT(linkat);
    int failed = next(a, from, b, to, flags);
    linked(failed, from, to, LINK);
    return failed;
}
int rename(const char *from, const char *to) { NEXT(rename); int failed = next(from, to); linked(failed, from, to, RENAME); return failed; }
int renameat(int a, const char *from, int b, const char *to) {
    NEXT(renameat);
    int failed = next(a, from, b, to);
    linked(failed, from, to, RENAME);
    return failed;
}
