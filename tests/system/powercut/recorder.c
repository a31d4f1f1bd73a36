/* Records what a process does to the files below one folder: writes, names and syncs, in one order, for powercut/trace.py.

   Preloaded (LD_PRELOAD). TICKWIRE_TRACE names the file of the trace, TICKWIRE_TRACE_ROOT the folder. One lock is held over
   each call and its record, so that the order of records is the order of effects. Syncs are recorded and not done: the
   process lives on, and the page cache with it.

   Some libraries (Rust's rustix, of what LanceDB is made) call the kernel without libc; a seccomp filter sends those of their
   calls that change names here too, by SIGSYS. That nothing passes by is checked: replayed whole, the trace must give the very
   files that the run left.

   A record: kind (1 byte), a (8 bytes), b (8 bytes), length (8 bytes), then so many bytes. Files are named by inode, which
   is never reused here: every file that loses its last name is kept open. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <ucontext.h>
#include <unistd.h>

/* The sixth argument of our own calls, by which the filter knows them. */
#define OURS 0x71636b77L

enum { CREATE = 'c', MKDIR = 'm', WRITE = 'w', TRUNCATE = 't', RENAME = 'r', LINK = 'l', UNLINK = 'u', RMDIR = 'd',
       SYNC = 's', FAILED_SYNC = 'f', NOTE = 'n', ZERO = 'z' };

static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static int trace = -1;
static char root[PATH_MAX];
static size_t root_length;
/* TICKWIRE_FAIL_SYNC="suffix:n": the n-th sync of a file whose path ends so fails, and those after it; 0 left: now. */
static char failing[PATH_MAX];
static long syncs_left = -1;

static void out(const void *bytes, size_t length) {
    const char *at = bytes;
    while (length) {
        ssize_t n = syscall(SYS_write, trace, at, length);
        if (n < 0) { if (errno == EINTR) continue; abort(); }
        at += n; length -= n;
    }
}

static void record_parts(char kind, uint64_t a, uint64_t b, const struct iovec *parts, int count, size_t length) {
    char head[25];
    uint64_t numbers[3] = {a, b, length};
    int saved = errno;
    head[0] = kind;
    memcpy(head + 1, numbers, sizeof numbers);
    out(head, sizeof head);
    for (int i = 0; i < count && length; i++) {
        size_t n = parts[i].iov_len < length ? parts[i].iov_len : length;
        out(parts[i].iov_base, n);
        length -= n;
    }
    errno = saved;
}

static void record(char kind, uint64_t a, uint64_t b, const void *bytes, size_t length) {
    struct iovec part = {(void *)bytes, length};
    record_parts(kind, a, b, &part, 1, length);
}

static void trap_names(void);

__attribute__((constructor)) static void start(void) {
    const char *file = getenv("TICKWIRE_TRACE"), *folder = getenv("TICKWIRE_TRACE_ROOT");
    if (!file || !folder || !realpath(folder, root)) return;
    root_length = strlen(root);
    int low = syscall(SYS_openat, AT_FDCWD, file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    trace = syscall(SYS_fcntl, low, F_DUPFD_CLOEXEC, 900);
    syscall(SYS_close, low);
    if (trace < 0) abort();
    const char *fail = getenv("TICKWIRE_FAIL_SYNC"), *colon = fail ? strrchr(fail, ':') : 0;
    if (colon && (size_t)(colon - fail) < sizeof failing) {
        memcpy(failing, fail, colon - fail);
        syncs_left = atol(colon + 1);
    }
    /* Only this process: not the ones that it starts. */
    unsetenv("LD_PRELOAD");
    trap_names();
}

/* The absolute path of (folder, path), without resolving its last part; 0 if it is not below the root. */
static int locate(int folder, const char *path, char *found) {
    if (trace < 0) return 0;
    char whole[2 * PATH_MAX], parent[PATH_MAX];
    if (path[0] == '/') snprintf(whole, sizeof whole, "%s", path);
    else {
        char base[PATH_MAX];
        ssize_t n;
        if (folder == AT_FDCWD) { if (!getcwd(base, sizeof base)) return 0; }
        else {
            char link[64];
            snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
            if ((n = readlink(link, base, sizeof base - 1)) < 0) return 0;
            base[n] = 0;
        }
        snprintf(whole, sizeof whole, "%s/%s", base, path);
    }
    size_t length = strlen(whole);
    while (length > 1 && whole[length - 1] == '/') whole[--length] = 0;
    char *slash = strrchr(whole, '/');
    if (!slash) return 0;
    *slash = 0;
    if (!realpath(*whole ? whole : "/", parent)) return 0;
    if (snprintf(found, PATH_MAX, "%s/%s", parent, slash + 1) >= PATH_MAX) return 0;
    return strncmp(found, root, root_length) == 0 && found[root_length] == '/';
}

static uint64_t inode_of(int fd) {
    struct stat facts;
    return fstat(fd, &facts) == 0 ? facts.st_ino : 0;
}

/* The inode of an open file below the root; 0 for others. */
static uint64_t traced(int fd) {
    if (trace < 0) return 0;
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    if (strncmp(path, root, root_length) || (path[root_length] != '/' && path[root_length])) return 0;
    return inode_of(fd);
}

static void keep(const char *path) {
    /* Inodes that nothing names would be given to new files. */
    int fd = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) { syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 1000); syscall(SYS_close, fd); }
}

void tickwire_trace_note(const char *bytes, size_t length) {
    if (trace < 0) return;
    pthread_mutex_lock(&lock);
    record(NOTE, 0, 0, bytes, length);
    pthread_mutex_unlock(&lock);
}

static int open_at(int folder, const char *path, int flags, mode_t mode) {
    char found[PATH_MAX];
    if (!(flags & (O_CREAT | O_TRUNC)) || !locate(folder, path, found))
        return syscall(SYS_openat, folder, path, flags, mode);
    pthread_mutex_lock(&lock);
    struct stat before;
    int existed = lstat(found, &before) == 0;
    int fd = syscall(SYS_openat, folder, path, flags, mode);
    if (fd >= 0) {
        if (!existed) record(CREATE, inode_of(fd), 0, found + root_length, strlen(found + root_length));
        else if (flags & O_TRUNC) record(TRUNCATE, inode_of(fd), 0, "", 0);
    }
    pthread_mutex_unlock(&lock);
    return fd;
}

#define MODE(flags) mode_t mode = 0; \
    if ((flags) & (O_CREAT | O_TMPFILE)) { va_list more; va_start(more, flags); mode = va_arg(more, mode_t); va_end(more); }
int open(const char *path, int flags, ...) { MODE(flags) return open_at(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags) return open_at(AT_FDCWD, path, flags, mode); }
int openat(int folder, const char *path, int flags, ...) { MODE(flags) return open_at(folder, path, flags, mode); }
int openat64(int folder, const char *path, int flags, ...) { MODE(flags) return open_at(folder, path, flags, mode); }
int creat(const char *path, mode_t mode) { return open_at(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return open_at(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

static ssize_t vector(int fd, const struct iovec *parts, int count, off_t offset, int positioned) {
    uint64_t inode = traced(fd);
    if (!inode)
        return positioned ? syscall(SYS_pwritev, fd, parts, count, offset, 0) : syscall(SYS_writev, fd, parts, count);
    pthread_mutex_lock(&lock);
    ssize_t n;
    if (positioned) n = syscall(SYS_pwritev, fd, parts, count, offset, 0);
    else {
        n = syscall(SYS_writev, fd, parts, count);
        offset = lseek(fd, 0, SEEK_CUR) - (n > 0 ? n : 0);
    }
    if (n > 0) record_parts(WRITE, inode, offset, parts, count, n);
    pthread_mutex_unlock(&lock);
    return n;
}

ssize_t write(int fd, const void *bytes, size_t length) {
    if (trace < 0 || !traced(fd)) return syscall(SYS_write, fd, bytes, length);
    struct iovec part = {(void *)bytes, length};
    return vector(fd, &part, 1, 0, 0);
}
ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) {
    struct iovec part = {(void *)bytes, length};
    return vector(fd, &part, 1, offset, 1);
}
ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset) { return pwrite(fd, bytes, length, offset); }
ssize_t writev(int fd, const struct iovec *parts, int count) { return vector(fd, parts, count, 0, 0); }
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset) { return vector(fd, parts, count, offset, 1); }
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t offset) { return vector(fd, parts, count, offset, 1); }
ssize_t pwritev2(int fd, const struct iovec *parts, int count, off_t offset, int flags) {
    (void)flags;
    return offset == -1 ? vector(fd, parts, count, 0, 0) : vector(fd, parts, count, offset, 1);
}
ssize_t pwritev64v2(int fd, const struct iovec *parts, int count, off64_t offset, int flags) {
    return pwritev2(fd, parts, count, offset, flags);
}

/* Copies by the kernel would pass by: whoever asks for them must read and write instead. */
ssize_t copy_file_range(int a, off64_t *b, int c, off64_t *d, size_t e, unsigned f) {
    (void)b; (void)d; (void)e; (void)f;
    if (!traced(c)) return syscall(SYS_copy_file_range, a, b, c, d, e, f);
    errno = ENOSYS;
    return -1;
}
ssize_t sendfile(int to, int from, off_t *offset, size_t count) {
    if (!traced(to)) return syscall(SYS_sendfile, to, from, offset, count);
    errno = ENOSYS;
    return -1;
}
ssize_t sendfile64(int to, int from, off64_t *offset, size_t count) { return sendfile(to, from, offset, count); }

int ftruncate(int fd, off_t length) {
    uint64_t inode = traced(fd);
    pthread_mutex_lock(&lock);
    int result = syscall(SYS_ftruncate, fd, length);
    if (inode && !result) record(TRUNCATE, inode, length, "", 0);
    pthread_mutex_unlock(&lock);
    return result;
}
int ftruncate64(int fd, off64_t length) { return ftruncate(fd, length); }
int fallocate(int fd, int mode, off_t offset, off_t length) {
    if (!traced(fd)) return syscall(SYS_fallocate, fd, mode, offset, length);
    errno = EOPNOTSUPP;
    return -1;
}
int fallocate64(int fd, int mode, off64_t offset, off64_t length) { return fallocate(fd, mode, offset, length); }
int posix_fallocate(int fd, off_t offset, off_t length) {
    struct stat facts;
    if (fstat(fd, &facts)) return errno;
    return facts.st_size >= offset + length ? 0 : ftruncate(fd, offset + length) ? errno : 0;
}
int posix_fallocate64(int fd, off64_t offset, off64_t length) { return posix_fallocate(fd, offset, length); }

static int pair(char kind, int from_folder, const char *from, int to_folder, const char *to, long number, int flags) {
    char source[PATH_MAX], target[PATH_MAX];
    int inside = locate(from_folder, from, source) && locate(to_folder, to, target);
    pthread_mutex_lock(&lock);
    if (inside && kind == RENAME) keep(target);
    int result = syscall(number, from_folder, from, to_folder, to, flags, OURS);
    if (!result && inside) {
        char both[2 * PATH_MAX];
        int n = snprintf(both, sizeof both, "%s%c%s", source + root_length, '\n', target + root_length);
        record(kind, 0, 0, both, n);
    }
    pthread_mutex_unlock(&lock);
    return result;
}
int rename(const char *from, const char *to) { return pair(RENAME, AT_FDCWD, from, AT_FDCWD, to, SYS_renameat2, 0); }
int renameat(int a, const char *from, int b, const char *to) { return pair(RENAME, a, from, b, to, SYS_renameat2, 0); }
int renameat2(int a, const char *from, int b, const char *to, unsigned flags) {
    return pair(RENAME, a, from, b, to, SYS_renameat2, flags);
}
int link(const char *from, const char *to) { return pair(LINK, AT_FDCWD, from, AT_FDCWD, to, SYS_linkat, 0); }
int linkat(int a, const char *from, int b, const char *to, int flags) { return pair(LINK, a, from, b, to, SYS_linkat, flags); }

static int single(int folder, const char *path, int flags) {
    char found[PATH_MAX];
    int inside = locate(folder, path, found);
    pthread_mutex_lock(&lock);
    if (inside && !(flags & AT_REMOVEDIR)) keep(found);
    int result = syscall(SYS_unlinkat, folder, path, flags, 0, 0, OURS);
    if (!result && inside) record(flags & AT_REMOVEDIR ? RMDIR : UNLINK, 0, 0, found + root_length, strlen(found + root_length));
    pthread_mutex_unlock(&lock);
    return result;
}
int unlink(const char *path) { return single(AT_FDCWD, path, 0); }
int unlinkat(int folder, const char *path, int flags) { return single(folder, path, flags); }
int rmdir(const char *path) { return single(AT_FDCWD, path, AT_REMOVEDIR); }
int remove(const char *path) {
    int result = unlink(path);
    return result && errno == EISDIR ? rmdir(path) : result;
}

int mkdirat(int folder, const char *path, mode_t mode) {
    char found[PATH_MAX];
    int inside = locate(folder, path, found);
    pthread_mutex_lock(&lock);
    int result = syscall(SYS_mkdirat, folder, path, mode, 0, 0, OURS);
    if (!result && inside) record(MKDIR, 0, 0, found + root_length, strlen(found + root_length));
    pthread_mutex_unlock(&lock);
    return result;
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

static int synced(int fd, long number) {
    if (!traced(fd)) return syscall(number, fd);
    char link[64], path[PATH_MAX];
    struct stat facts;
    pthread_mutex_lock(&lock);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    path[n < 0 ? 0 : n] = 0;
    fstat(fd, &facts);
    size_t length = strlen(path), suffix = strlen(failing);
    if (syncs_left >= 0 && length >= suffix && !strcmp(path + length - suffix, failing)
        && (syncs_left == 0 || --syncs_left == 0)) {
        record(FAILED_SYNC, facts.st_ino, S_ISDIR(facts.st_mode), path + root_length, length - root_length);
        pthread_mutex_unlock(&lock);
        errno = EIO;
        return -1;
    }
    record(SYNC, facts.st_ino, S_ISDIR(facts.st_mode), path + root_length, strlen(path) - root_length);
    pthread_mutex_unlock(&lock);
    return 0;
}
int fsync(int fd) { return synced(fd, SYS_fsync); }
int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }

static void trapped(int number, siginfo_t *info, void *where) {
    (void)number;
    int saved = errno;
    long result;
    mcontext_t *at = &((ucontext_t *)where)->uc_mcontext;
#if defined(__x86_64__)
    greg_t *r = at->gregs;
    long a = r[REG_RDI], b = r[REG_RSI], c = r[REG_RDX], d = r[REG_R10], e = r[REG_R8];
#elif defined(__aarch64__)
    unsigned long long *r = at->regs;
    long a = r[0], b = r[1], c = r[2], d = r[3], e = r[4];
#else
#error "tell the recorder where this machine keeps the arguments of a system call"
#endif
    switch (info->si_syscall) {
#ifdef SYS_rename
    case SYS_rename: result = rename((char *)a, (char *)b); break;
    case SYS_link: result = link((char *)a, (char *)b); break;
    case SYS_unlink: result = unlink((char *)a); break;
    case SYS_rmdir: result = rmdir((char *)a); break;
    case SYS_mkdir: result = mkdir((char *)a, b); break;
#endif
#ifdef SYS_renameat
    case SYS_renameat: result = renameat(a, (char *)b, c, (char *)d); break;
#endif
    case SYS_renameat2: result = renameat2(a, (char *)b, c, (char *)d, e); break;
    case SYS_linkat: result = linkat(a, (char *)b, c, (char *)d, e); break;
    case SYS_unlinkat: result = unlinkat(a, (char *)b, c); break;
    case SYS_mkdirat: result = mkdirat(a, (char *)b, c); break;
    default: abort();
    }
    if (result < 0) result = -errno;
#if defined(__x86_64__)
    r[REG_RAX] = result;
#else
    r[0] = result;
#endif
    errno = saved;
}

static void trap_names(void) {
    static const int numbers[] = {
#ifdef SYS_rename
        SYS_rename, SYS_link, SYS_unlink, SYS_rmdir, SYS_mkdir,
#endif
#ifdef SYS_renameat
        SYS_renameat,
#endif
        SYS_renameat2, SYS_linkat, SYS_unlinkat, SYS_mkdirat};
    enum { COUNT = sizeof numbers / sizeof *numbers };
    struct sock_filter code[5 + COUNT];
    int n = 0;
    code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[5]));
    code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, OURS, COUNT + 1, 0);
    code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (int i = 0; i < COUNT; i++)
        code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, numbers[i], COUNT - i, 0);
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP);
    struct sock_fprog program = {n, code};
    struct sigaction action = {.sa_sigaction = trapped, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK};
    if (sigaction(SIGSYS, &action, NULL) || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) {
        perror("tickwire recorder: seccomp");
        abort();
    }
}
