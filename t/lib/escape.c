/* SPDX-License-Identifier: MIT
 *
 * escape.c - root of a guest, who wants out of the share's mount, or to write what it may only read
 *
 *   escape PATH FOREIGN...    PATH: dax or copy; FOREIGN: names of folders that are others'
 *
 * Every attempt is one raw system call with the errno that it must end with, and is written to standard output as
 * "errno call: what". A call that isn't refused, or for another reason, is a line that begins with BAD. In between and
 * at the end the instance must work as before. The last line is "ok ATTEMPTS", or "failed".
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <linux/stat.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../proto/client.h"

#define MOUNT "/run/vfun"
#define OUTSIDE "/tmp/outside" /* a file of another file system of the guest */
#define P(x) ((long)(uintptr_t)(x))
/* Refused with `want`; EITHER: kernels differ. */
#define TRY(want, what, call, ...) attempt(want, want, what, #call, SYS_##call, (const long[6]){ __VA_ARGS__ })
#define EITHER(want, also, what, call, ...) attempt(want, also, what, #call, SYS_##call, (const long[6]){ __VA_ARGS__ })

static struct vfun *v;
static char folder[128], out[160], in[160], bell[160];
static int out_fd, in_fd, bell_fd, control_fd;
static int dax;
static unsigned attempts, bad;

static void
check(int good, const char *what)
{
	attempts++;
	bad += !good;
	printf("%s %s\n", good ? "good:" : "BAD", what);
}

static long
attempt(int want, int also, const char *what, const char *name, long nr, const long a[6])
{
	long r = syscall(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
	int got = r < 0 ? errno : 0;
	int good = got == want || got == also;

	attempts++;
	bad += !good;
	printf("%s%s %s: %.60s\n", good ? "" : "BAD ", strerrorname_np(got), name, what);
	return r;
}

/* The instance answers, and its header is the one that it had. */
static void
works(const char *after)
{
	static struct vfun_hdr before[2];
	const uint64_t n = 20;
	struct vfun_result res;
	struct vfun_hdr h[2];
	uint64_t got = 0;
	int r = vfun_call(v, VFUN_CMD_GET, &n, 1, NULL, &res, 30000000000ull);

	memcpy(&got, res.inline_result, sizeof(got));
	check(!r && !res.reason && got == 2432902008176640000ull, after);
	if (pread(out_fd, &h[0], sizeof(h[0]), 0) != sizeof(h[0]) ||
	    pread(in_fd, &h[1], sizeof(h[1]), 0) != sizeof(h[1]))
		check(0, "the headers can't be read");
	if (!before[0].magic)
		memcpy(before, h, sizeof(h));
	for (int i = 0; i < 2; i++)
		check(!memcmp(&h[i], &before[i], offsetof(struct vfun_hdr, bell)), "the header is what it was");
}

/* ---- the way out ---- */

static void
outward(int argc, char **argv)
{
	static const char *const host[] = { "etc/passwd", "proc/1/root", "root", "admin", "admin/socket", "service",
		"vmcli", "vmcli/demo/share.sock", "control/..", "control/.", "control/x", "%s%n%p", "..%2f",
		"factorial", "factorial.", "factorial.0", "factorial.-1", "factorial.18446744073709551617",
		"factorial.99999", "factorial.*" };
	struct open_how beneath = { .flags = O_PATH, .resolve = RESOLVE_BENEATH };
	struct stat root, up, other;
	char self[32];
	int fd;

	TRY(EXDEV, "above, from below only", openat2, AT_FDCWD, P(".."), P(&beneath), sizeof(beneath));
	check(!stat(".", &root) && !stat("..", &up) && up.st_dev != root.st_dev,
	    ".. of the mount is the guest's own folder");
	fd = (int)TRY(0, "the folder as a place", openat, AT_FDCWD, P(folder), O_PATH);
	check(!fstatat(fd, "..", &up, 0) && up.st_dev == root.st_dev && up.st_ino == root.st_ino,
	    ".. of a folder is the root");
	check(!fstatat(fd, "../../..", &up, 0) && !stat("/", &other) && up.st_dev == other.st_dev &&
		  up.st_ino == other.st_ino,
	    "and so on, up to the guest's root");
	TRY(ENOENT, "a sibling of the folder's root", openat, fd, P("../etc"), O_RDONLY);
	close(fd);
	fd = (int)TRY(0, "a file as a place", openat, AT_FDCWD, P(in), O_PATH);
	TRY(ENOTDIR, "above a file", openat, fd, P(".."), O_PATH);
	TRY(ENOTDIR, "below a file", openat, fd, P("x"), O_RDONLY);
	TRY(EBADF, "reading from a place", read, fd, P(&root), 1);
	TRY(EBADF, "an ioctl of a place", ioctl, fd, VFUN_IOC_CONTROL, P(&root));
	snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
	TRY(EACCES, "the place again, to write", openat, AT_FDCWD, P(self), O_RDWR);
	close(fd);
	for (size_t i = 0; i < sizeof(host) / sizeof(host[0]); i++)
		EITHER(ENOENT, ENOTDIR, host[i], openat, AT_FDCWD, P(host[i]), O_RDONLY);
	for (int i = 0; i < argc; i++)
		TRY(ENOENT, argv[i], openat, AT_FDCWD, P(argv[i]), O_PATH);
	TRY(EINVAL, "control as a link", readlink, P("control"), P(&root), sizeof(root));
	TRY(EINVAL, "the folder as a link", readlink, P(folder), P(&root), sizeof(root));
}

/* Files by number instead of by name. */
static void
handles(void)
{
	static const uint64_t node[] = { 0, 3, 4, 15, 60, 63, 4096, 1ull << 32, ~0ull - 1, ~0ull };
	struct {
		struct file_handle h;
		uint32_t fuse[3];
	} f;
	int mount = open(".", O_RDONLY | O_DIRECTORY);

	for (size_t i = 0; i < sizeof(node) / sizeof(node[0]); i++) {
		char what[40];

		f.h.handle_bytes = sizeof(f.fuse);
		f.h.handle_type = 0x81;
		f.fuse[0] = (uint32_t)(node[i] >> 32);
		f.fuse[1] = (uint32_t)node[i];
		f.fuse[2] = 0;
		snprintf(what, sizeof(what), "node %llu", (unsigned long long)node[i]);
		EITHER(ESTALE, EOPNOTSUPP, what, open_by_handle_at, mount, P(&f), O_RDONLY);
	}
	f.h.handle_bytes = 0;
	EITHER(EOVERFLOW, EOPNOTSUPP, "the size of a handle", name_to_handle_at, AT_FDCWD, P("control"), P(&f),
	    P(&(int){ 0 }));
	close(mount);
}

/* ---- making, moving and removing names ---- */

static void
make(const char *where, const char *x)
{
	static const struct {
		const char *what;
		unsigned mode, dev;
	} node[] = { { "null", S_IFCHR, 0x103 }, { "mem", S_IFCHR, 0x101 }, { "kvm", S_IFCHR, 0xae8 },
		{ "a disk", S_IFBLK, 0x800 }, { "a fifo", S_IFIFO, 0 }, { "a socket", S_IFSOCK, 0 },
		{ "a file", S_IFREG, 0 } };
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	int sock = socket(AF_UNIX, SOCK_STREAM, 0);

	for (size_t i = 0; i < sizeof(node) / sizeof(node[0]); i++)
		TRY(EPERM, node[i].what, mknod, P(x), node[i].mode | 0666, node[i].dev);
	TRY(EPERM, "a set-user-id file", mknod, P(x), S_IFREG | 06777, 0);
	TRY(EPERM, where, mkdir, P(x), 0777);
	TRY(EPERM, where, symlink, P("/"), P(x));
	TRY(EPERM, where, symlink, P("../../../../etc/shadow"), P(x));
	TRY(EPERM, where, openat, AT_FDCWD, P(x), O_CREAT | O_RDWR, 0666);
	TRY(EPERM, where, openat, AT_FDCWD, P(x), O_CREAT | O_EXCL | O_WRONLY | O_TRUNC, 06777);
	snprintf(un.sun_path, sizeof(un.sun_path), "%s", x);
	TRY(EPERM, where, bind, sock, P(&un), sizeof(un));
	TRY(EPERM, "control under another name", link, P("control"), P(x));
	TRY(EPERM, "datain under another name", link, P(in), P(x));
	TRY(EPERM, "an open file's name", linkat, AT_FDCWD, P("/proc/self/fd/0"), AT_FDCWD, P(x), AT_SYMLINK_FOLLOW);
	TRY(EXDEV, "a file of the guest's", link, P(OUTSIDE), P(x));
	TRY(EXDEV, "a file of the guest's", rename, P(OUTSIDE), P(x));
	TRY(EPERM, "control", rename, P("control"), P(x));
	TRY(EPERM, "datain", rename, P(in), P(x));
	TRY(EPERM, "control, leaving a whiteout", renameat2, AT_FDCWD, P("control"), AT_FDCWD, P(x), RENAME_WHITEOUT);
	TRY(EPERM, "dataout", renameat2, AT_FDCWD, P(out), AT_FDCWD, P(x), RENAME_NOREPLACE);
	TRY(EOPNOTSUPP, where, openat, AT_FDCWD, P(x[0] == 'x' ? "." : folder), O_TMPFILE | O_RDWR, 0666);
	TRY(ENOENT, "what was never made", unlink, P(x));
	close(sock);
}

static void
move(const char *inside)
{
	TRY(EPERM, "the folder", rename, P(folder), P("x"));
	TRY(EINVAL, "the folder into itself", rename, P(folder), P(inside));
	TRY(EPERM, "datain over dataout", rename, P(in), P(out));
	TRY(EPERM, "datain and dataout exchanged", renameat2, AT_FDCWD, P(in), AT_FDCWD, P(out), RENAME_EXCHANGE);
	TRY(EPERM, "control and the folder exchanged", renameat2, AT_FDCWD, P("control"), AT_FDCWD, P(folder),
	    RENAME_EXCHANGE);
	TRY(EXDEV, "control to the guest's", rename, P("control"), P("/tmp/x"));
	TRY(EXDEV, "datain to the guest's", link, P(in), P("/tmp/x"));
	TRY(EBUSY, "the root itself", rename, P("."), P("x"));
	TRY(EPERM, "control", unlink, P("control"));
	TRY(EPERM, "datain", unlink, P(in));
	TRY(EPERM, "the bell", unlink, P(bell));
	TRY(EPERM, "the folder", rmdir, P(folder));
	TRY(EISDIR, "the folder as a file", unlink, P(folder));
	TRY(ENOTDIR, "control as a folder", rmdir, P("control"));
	TRY(EEXIST, "over control", mkdir, P("control"), 0777);
	TRY(EEXIST, "over the folder", symlink, P("/"), P(folder));
	TRY(EEXIST, "over datain", mknod, P(in), S_IFCHR | 0666, 0x101);
	TRY(EEXIST, "control, exclusively", openat, AT_FDCWD, P("control"), O_CREAT | O_EXCL | O_RDWR, 0666);
}

/* ---- attributes ---- */

static void
attributes(const char *file)
{
	const struct timespec ts[2] = { { 1, 1 }, { 1, 1 } };
	int fd = open(file, O_PATH);

	TRY(EPERM, file, chmod, P(file), 06777);
	TRY(EPERM, file, chown, P(file), 1000, 1000);
	TRY(EPERM, file, lchown, P(file), 0, 0);
	TRY(EPERM, "an open place", fchownat, fd, P(""), 1000, 1000, AT_EMPTY_PATH);
	TRY(EPERM, file, utimensat, AT_FDCWD, P(file), P(ts), 0);
	TRY(EPERM, "now", utimensat, AT_FDCWD, P(file), 0, 0);
	TRY(EOPNOTSUPP, file, setxattr, P(file), P("user.x"), P("y"), 1, 0);
	TRY(EOPNOTSUPP, file, setxattr, P(file), P("trusted.overlay.opaque"), P("y"), 1, 0);
	TRY(EOPNOTSUPP, file, lsetxattr, P(file), P("security.selinux"), P("y"), 1, 0);
	TRY(EOPNOTSUPP, file, getxattr, P(file), P("user.x"), 0, 0);
	TRY(EOPNOTSUPP, file, getxattr, P(file), P("trusted.x"), 0, 0);
	TRY(EOPNOTSUPP, file, listxattr, P(file), 0, 0);
	TRY(EOPNOTSUPP, file, removexattr, P(file), P("user.x"));
	close(fd);
}

static void
xattr_sizes(void)
{
	static char name[300], value[70000];

	memset(name, 'n', sizeof(name) - 1);
	memcpy(name, "user.", 5);
	TRY(ERANGE, "a name of 299 bytes", setxattr, P(in), P(name), P("y"), 1, 0);
	name[255] = '\0';
	TRY(EOPNOTSUPP, "a name of 255 bytes", setxattr, P(in), P(name), P("y"), 1, 0);
	TRY(EOPNOTSUPP, "a value of 64 KiB", setxattr, P(in), P("user.x"), P(value), 65536, 0);
	TRY(E2BIG, "one byte more", setxattr, P(in), P("user.x"), P(value), 65537, 0);
}

/* ---- sizes and contents ---- */

static void
sizes(void)
{
	long size = (long)vfun_activated(v)->out_size;
	static const int mode[] = { 0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE,
		FALLOC_FL_ZERO_RANGE, FALLOC_FL_COLLAPSE_RANGE, FALLOC_FL_INSERT_RANGE };
	uint64_t eight = 0;
	struct stat st;

	TRY(EPERM, "dataout, shorter", truncate, P(out), 4096);
	TRY(EPERM, "dataout, longer", truncate, P(out), size + 4096);
	TRY(EPERM, "datain, emptied", truncate, P(in), 0);
	TRY(EPERM, "dataout, by descriptor", ftruncate, out_fd, 0);
	TRY(EPERM, "dataout, by opening", openat, AT_FDCWD, P(out), O_RDWR | O_TRUNC);
	TRY(EPERM, "datain, by opening to read", openat, AT_FDCWD, P(in), O_RDONLY | O_TRUNC);
	for (size_t i = 0; i < sizeof(mode) / sizeof(mode[0]); i++)
		TRY(EOPNOTSUPP, "dataout", fallocate, out_fd, mode[i], 0, 4096);
	TRY(EFBIG, "behind the end", pwrite64, out_fd, P(&eight), 8, size);
	TRY(EFBIG, "far behind the end", pwrite64, out_fd, P(&eight), 8, 1l << 40);
	TRY(EFBIG, "at the last offset of all", pwrite64, out_fd, P(&eight), 8, (long)(~0ul >> 1) - 8);
	TRY(EINVAL, "before the beginning", pwrite64, out_fd, P(&eight), 8, -1);
	check(pwrite(out_fd, &eight, 8, size - 4) == 4, "over the end: what fits");
	check(
	    pread(out_fd, &eight, 8, size) == 0 && pread(in_fd, &eight, 8, 1l << 60) == 0, "nothing is behind the end");
	TRY(EINVAL, "before the beginning", lseek, out_fd, -1, SEEK_SET);
	TRY(ENXIO, "data behind the end", lseek, out_fd, size, SEEK_DATA);
	TRY(EFAULT, "from nowhere", pwrite64, out_fd, 4096, 8, 0);
	TRY(EINVAL, "as swap space", swapon, P(out), 0);
	check(!fstat(out_fd, &st) && st.st_size == size, "its size is what it was");
	TRY(EINVAL, "9 bytes into the bell", write, bell_fd, P("123456789"), 9);
	TRY(EINVAL, "4 bytes out of the bell", read, bell_fd, P(&eight), 4);
	TRY(EINVAL, "a short message", write, control_fd, P(folder), 100);
	TRY(EINVAL, "a long message", write, control_fd, P(&st), 257);
	TRY(EFAULT, "a message from nowhere", write, control_fd, 4096, 256);
}

/* What may only be read: every way of writing that a descriptor, a name or a mapping offers. */
static void
read_only(void)
{
	static const int flags[] = { O_WRONLY, O_RDWR, O_ACCMODE, O_WRONLY | O_APPEND, O_RDWR | O_DIRECT,
		O_RDWR | O_CREAT, O_RDWR | O_SYNC, O_RDWR | O_NONBLOCK };
	struct open_how how = { .flags = O_RDWR };
	struct iovec iov = { (void *)(uintptr_t)folder, 8 };
	char self[32];
	int pipes[2];
	long zero = 0;

	for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++)
		TRY(EACCES, "datain to write", openat, AT_FDCWD, P(in), flags[i], 0666);
	TRY(EACCES, "the same", openat2, AT_FDCWD, P(in), P(&how), sizeof(how));
	snprintf(self, sizeof(self), "/proc/self/fd/%d", in_fd);
	TRY(EACCES, "the open one once more", openat, AT_FDCWD, P(self), O_RDWR);
	TRY(EBADF, "datain", write, in_fd, P(folder), 8);
	TRY(EBADF, "datain", pwrite64, in_fd, P(folder), 8, 0);
	TRY(EBADF, "datain", writev, in_fd, P(&iov), 1);
	TRY(EBADF, "datain", pwritev2, in_fd, P(&iov), 1, 0, 0, 0);
	TRY(EINVAL, "datain", ftruncate, in_fd, 0);
	TRY(EBADF, "datain", fallocate, in_fd, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, 0, 4096);
	TRY(EBADF, "dataout into it", copy_file_range, out_fd, P(&zero), in_fd, P(&zero), 4096, 0);
	TRY(EBADF, "dataout into it", sendfile, in_fd, out_fd, P(&zero), 4096);
	if (pipe(pipes) || write(pipes[1], folder, 8) != 8)
		check(0, "a pipe");
	TRY(EBADF, "a pipe into it", splice, pipes[0], 0, in_fd, P(&zero), 8, 0);
	close(pipes[0]);
	close(pipes[1]);
	TRY(EACCES, "mapped to write", mmap, 0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, in_fd, 0);
	TRY(EPERM, "seals", fcntl, in_fd, F_ADD_SEALS, F_SEAL_WRITE);
	TRY(EINVAL, "seals of dataout", fcntl, out_fd, F_ADD_SEALS, F_SEAL_WRITE);
	TRY(EACCES, "control as a program", execveat, AT_FDCWD, P("control"), 0, 0, 0);
}

/* A child that stores there must end by this signal. */
static void
store(volatile char *p, int want, const char *what)
{
	pid_t pid = fork();
	int status = 0;

	if (!pid) {
		*p = 1;
		_exit(0);
	}
	check(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) && WTERMSIG(status) == want, what);
}

static void
mappings(void)
{
	size_t size = vfun_activated(v)->out_size;
	int mem = open("/proc/self/mem", O_RDWR);
	struct iovec from = { folder, 8 }, to;
	char *p;

	TRY(ENODEV, "the bell", mmap, 0, 4096, PROT_READ, MAP_SHARED, bell_fd, 0);
	TRY(ENODEV, "control", mmap, 0, 4096, PROT_READ, MAP_SHARED, control_fd, 0);
	TRY(EPERM, "dataout, to execute", mmap, 0, 4096, PROT_READ | PROT_EXEC, MAP_SHARED, out_fd, 0);
	if (!dax) {
		TRY(ENODEV, "datain, without DAX", mmap, 0, 4096, PROT_READ, MAP_SHARED, in_fd, 0);
		TRY(ENODEV, "dataout, without DAX", mmap, 0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, out_fd, 0);
		close(mem);
		return;
	}
	p = (char *)TRY(0, "datain, to read", mmap, 0, 4096, PROT_READ, MAP_SHARED, in_fd, 0);
	to = (struct iovec){ p, 8 };
	TRY(EACCES, "writable after all", mprotect, P(p), 4096, PROT_READ | PROT_WRITE);
	TRY(EIO, "by the process's memory", pwrite64, mem, P(folder), 8, P(p));
	TRY(EFAULT, "by the process's memory", process_vm_writev, getpid(), P(&from), 1, P(&to), 1, 0);
	TRY(EACCES, "a hole in it", madvise, P(p), 4096, MADV_REMOVE);
	store(p, SIGSEGV, "a store to datain ends who does it");
	munmap(p, 4096);
	p = (char *)TRY(
	    0, "dataout, and a page more", mmap, 0, size + 4096, PROT_READ | PROT_WRITE, MAP_SHARED, out_fd, 0);
	TRY(EOPNOTSUPP, "a hole in it", madvise, P(p), 4096, MADV_REMOVE);
	store(p + size, SIGBUS, "a store behind the end ends who does it");
	munmap(p, size + 4096);
	close(mem);
}

/* ---- names and requests of all kinds ---- */

static void
names(const char *prefix)
{
	static const size_t length[] = { 255, 256, 1023, 1024, 1025, 3900, 4095, 4096, 8000 };
	static char name[9000];
	char what[32];

	for (int c = 1; c < 256; c++) {
		snprintf(name, sizeof(name), "%s%c", prefix, c);
		snprintf(what, sizeof(what), "the name \\x%02x", c);
		if (c != '/' && c != '.')
			TRY(ENOENT, what, openat, AT_FDCWD, P(name), O_RDONLY);
	}
	for (size_t i = 0; i < sizeof(length) / sizeof(length[0]); i++) {
		size_t at = (size_t)snprintf(name, sizeof(name), "%s", prefix);
		int fits = length[i] <= 255;

		memset(name + at, 'x', length[i]);
		name[at + length[i]] = '\0';
		snprintf(what, sizeof(what), "a name of %zu bytes", length[i]);
		TRY(fits ? ENOENT : ENAMETOOLONG, what, openat, AT_FDCWD, P(name), O_RDONLY);
		TRY(fits ? EPERM : ENAMETOOLONG, what, mkdir, P(name), 0777);
		TRY(fits ? EPERM : ENAMETOOLONG, what, symlink, P("/"), P(name));
		TRY(fits ? EPERM : ENAMETOOLONG, what, mknod, P(name), S_IFCHR | 0666, 0x101);
		TRY(fits ? EPERM : ENAMETOOLONG, what, rename, P("control"), P(name));
		TRY(fits ? EPERM : ENAMETOOLONG, what, link, P("control"), P(name));
	}
	memset(name, '/', 4095);
	name[4095] = '\0';
	TRY(EPERM, "a link to 4095 bytes", symlink, P(name), P("x"));
	name[4095] = '/';
	name[4096] = '\0';
	TRY(ENAMETOOLONG, "a link to 4096 bytes", symlink, P(name), P("x"));
}

static void
ioctls(void)
{
	static const struct {
		const char *what;
		unsigned long cmd;
	} known[] = { { "TCGETS", 0x5401 }, { "BLKFLSBUF", 0x1261 }, { "FS_IOC_GETFLAGS", 0x80086601 },
		{ "FS_IOC_SETFLAGS", 0x40086602 }, { "FS_IOC_FSSETXATTR", 0x401c5820 }, { "TIOCSTI", 0x5412 },
		{ "KVM_CREATE_VM", 0xae01 }, { "one byte less", 0xc0ff7601 }, { "read only", 0x81007601 },
		{ "write only", 0x41007601 }, { "16383 bytes", 0xffff7601 } };
	static char buf[16384];
	int dir = open(folder, O_RDONLY | O_DIRECTORY);

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		TRY(ENOTTY, known[i].what, ioctl, control_fd, (long)known[i].cmd, P(buf));
	for (unsigned long nr = 0; nr < 256; nr++)
		if (nr != 1)
			TRY(ENOTTY, "another number", ioctl, control_fd, (long)(0xc1007600ul | nr), P(buf));
	TRY(ENOTTY, "a request to dataout", ioctl, out_fd, VFUN_IOC_CONTROL, P(buf));
	TRY(ENOTTY, "a request to datain", ioctl, in_fd, VFUN_IOC_CONTROL, P(buf));
	TRY(ENOTTY, "a request to the bell", ioctl, bell_fd, VFUN_IOC_CONTROL, P(buf));
	TRY(ENOTTY, "a request to the folder", ioctl, dir, VFUN_IOC_CONTROL, P(buf));
	TRY(EFAULT, "a request from nowhere", ioctl, control_fd, VFUN_IOC_CONTROL, 4096);
	close(dir);
}

/* ---- races ---- */

#define ROUNDS 300
static volatile int racing;
static unsigned moved;

/* Renames, exchanges and removals without pause; each is counted that isn't refused. */
static void *
mover(void *arg)
{
	char inside[200];

	(void)arg;
	snprintf(inside, sizeof(inside), "%s/x", folder);
	while (racing) {
		moved += !rename(folder, "x") || errno != EPERM;
		moved += !rename(in, out) || errno != EPERM;
		moved += !renameat2(AT_FDCWD, in, AT_FDCWD, out, RENAME_EXCHANGE) || errno != EPERM;
		moved += !rename("control", inside) || errno != EPERM;
		moved += !symlink("/etc", "x") || errno != EPERM;
		moved += !unlink(in) || errno != EPERM;
	}
	return NULL;
}

static void
races(void)
{
	struct stat root, sub, file, st;
	unsigned wrong = 0;
	pthread_t t;

	stat(".", &root);
	stat(folder, &sub);
	fstat(in_fd, &file);
	racing = 1;
	if (pthread_create(&t, NULL, mover, NULL))
		check(0, "no thread");
	for (int i = 0; i < ROUNDS; i++) {
		int dir = open(folder, O_PATH);
		int fd = openat(dir, "datain", O_RDONLY);

		wrong += fstat(fd, &st) || st.st_ino != file.st_ino || st.st_size != file.st_size;
		wrong += fstatat(dir, ".", &st, 0) || st.st_ino != sub.st_ino;
		wrong += fstatat(dir, "..", &st, 0) || st.st_dev != root.st_dev || st.st_ino != root.st_ino;
		wrong += openat(dir, "x", O_RDONLY) >= 0 || errno != ENOENT;
		wrong += openat(dir, "datain", O_RDWR) >= 0 || errno != EACCES;
		wrong += open("x/datain", O_RDONLY) >= 0 || errno != ENOENT;
		close(fd);
		close(dir);
	}
	racing = 0;
	pthread_join(t, NULL);
	check(!wrong, "lookups beside renames find what is there");
	check(!moved, "and each rename was refused");
}

/* ---- */

static void
start(const char *path)
{
	struct vfun_options o = { .size = sizeof(o), .slots = 1, .out_arena = 65536, .in_arena = 4096 };
	int r;

	dax = !strcmp(path, "dax");
	o.path = dax ? VFUN_PATH_IS_DAX : VFUN_PATH_IS_COPY;
	r = vfun_open(&v, "factorial", &o);
	if (r || chdir(MOUNT)) {
		printf("BAD no instance: %s\n", vfun_text(v));
		exit(1);
	}
	snprintf(folder, sizeof(folder), "%s", vfun_activated(v)->folder);
	snprintf(out, sizeof(out), "%s/dataout", folder);
	snprintf(in, sizeof(in), "%s/datain", folder);
	snprintf(bell, sizeof(bell), "%s/bell", folder);
	/* Descriptor 0 is a file of the mount, for what goes by /proc/self/fd. */
	close(0);
	control_fd = open("control", O_RDWR);
	out_fd = open(out, O_RDWR);
	in_fd = open(in, O_RDONLY);
	bell_fd = open(bell, O_RDWR);
	close(open(OUTSIDE, O_CREAT | O_RDWR, 0666));
}

int
main(int argc, char **argv)
{
	char x[200];

	if (argc < 2)
		return 2;
	start(argv[1]);
	works("a call, before");
	outward(argc - 2, argv + 2);
	handles();
	make("in the root", "x");
	snprintf(x, sizeof(x), "%s/x", folder);
	make("in the folder", x);
	move(x);
	attributes(".");
	attributes("control");
	attributes(folder);
	attributes(out);
	attributes(in);
	xattr_sizes();
	works("a call, after names and attributes");
	sizes();
	read_only();
	mappings();
	works("a call, after writing everywhere");
	names("");
	snprintf(x, sizeof(x), "%s/", folder);
	names(x);
	ioctls();
	races();
	works("a call, after all that");
	check(!vfun_close(v, NULL), "released");
	if (bad)
		printf("failed %u of %u\n", bad, attempts);
	else
		printf("ok %u\n", attempts);
	return bad != 0;
}
