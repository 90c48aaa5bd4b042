/* SPDX-License-Identifier: MIT
 *
 * inside.c - what a confined process can still do before its system calls are filtered: it must be nothing
 *
 *   inside UID     sandbox_enter() as a service does it (0: user mode), then everything that it should not get anywhere
 * with.
 *
 * The filter of system calls forbids nearly all of this a second time; here each stage stands by itself. Says "ok" or
 * what succeeded.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <dirent.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <linux/capability.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../roles/common/sandbox.h"

static int bad;

static void
no(const char *what, int succeeded)
{
	if (succeeded) {
		dprintf(1, "%s succeeded\n", what);
		bad = 1;
	}
}

static void
files(int leaked)
{
	static const char *const paths[] = { "/etc/passwd", "/proc/self/status", "/dev/null", "/bin/sh", "/tmp", "/run",
		"/sys" };
	struct dirent *e;
	DIR *d = opendir("/");

	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++)
		no(paths[i], open(paths[i], O_RDONLY) >= 0);
	while (d && (e = readdir(d)) != NULL)
		no(e->d_name, strcmp(e->d_name, ".") && strcmp(e->d_name, ".."));
	no("a way up", open("/../../etc/passwd", O_RDONLY) >= 0 || open("../../../etc/passwd", O_RDONLY) >= 0);
	no("creating a file", open("/x", O_CREAT | O_RDWR, 0600) >= 0);
	no("making a folder", mkdir("/x", 0700) == 0);
	no("making a device", mknod("/x", S_IFCHR | 0600, 0x103) == 0);
	no("an inherited descriptor", fcntl(leaked, F_GETFD) >= 0);
}

/* What the kernel knows of Landlock; 0: nothing. */
static long
landlock_abi(void)
{
	long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, 1);

	return abi < 0 ? 0 : abi;
}

/* Landlock alone stands between a folder of the host that has slipped in, and what is in it. */
static void
slipped_in(int folder)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(7000) };
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	if (landlock_abi() < 1)
		return;
	no("a file of a folder that slipped in", openat(folder, "etc/passwd", O_RDONLY) >= 0 || errno != EACCES);
	no("the folder itself", openat(folder, ".", O_RDONLY | O_DIRECTORY) >= 0 || errno != EACCES);
	if (landlock_abi() >= 4)
		no("waiting for TCP", bind(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0 || errno != EACCES);
}

static void
others(void)
{
	struct sockaddr_in sa = {
		.sin_family = AF_INET, .sin_port = htons(22), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)
	};
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	no("connecting to this machine", fd >= 0 && connect(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0);
	no("a network", fd >= 0 && connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 && errno == ECONNREFUSED);
	no("seeing the parent", getppid() != 0 || getpid() != 1);
	for (pid_t pid = 2; pid < 70000; pid++)
		no("signalling another process", kill(pid, 0) == 0 || errno != ESRCH);
	no("tracing one", ptrace(PTRACE_ATTACH, 2, 0, 0) == 0);
}

/* Its own folder it may use; there is nothing above it. What Landlock doesn't look at is O_PATH. */
static void
own_folder(int folder)
{
	struct stat here, above;
	int fd = openat(folder, "../../../..", O_PATH);

	no("what is above its folder", fstat(folder, &here) < 0 || fstat(fd, &above) < 0 ||
					   here.st_ino != above.st_ino || here.st_dev != above.st_dev);
	signal(SIGXFSZ, SIG_IGN);
	fd = openat(folder, "y", O_WRONLY | O_CREAT, 0600);
	no("losing a small file", pwrite(fd, "y", 1, 4094) != 1);
	no("a large file", pwrite(fd, "y", 1, 4096) == 1);
	no("removing it", unlinkat(folder, "y", 0) < 0);
	no("losing its folder", mkdirat(folder, "x", 0755) < 0 || unlinkat(folder, "x", AT_REMOVEDIR) < 0);
}

static void
power(void)
{
	struct __user_cap_header_struct h = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { { 0 } };
	struct rlimit rl = { .rlim_cur = 1 << 20, .rlim_max = 1 << 20 };

	no("having capabilities", syscall(SYS_capget, &h, data) == 0 && (data[0].permitted | data[1].permitted));
	data[0].effective = data[0].permitted = data[0].inheritable = ~0u;
	no("taking capabilities", syscall(SYS_capset, &h, data) == 0);
	no("becoming root", setuid(0) == 0 && geteuid() == 0 && open("/etc/shadow", O_RDONLY) >= 0);
	no("mounting",
	    mount("none", "/", "tmpfs", 0, NULL) == 0 || mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND, NULL) == 0);
	no("leaving the root", chroot("/") == 0);
	no("a host name", sethostname("x", 1) == 0);
	no("being dumpable", prctl(PR_GET_DUMPABLE) != 0);
	no("raising the limit of open files", setrlimit(RLIMIT_NOFILE, &rl) == 0);
	rl.rlim_cur = rl.rlim_max = RLIM_INFINITY;
	no("a core file", setrlimit(RLIMIT_CORE, &rl) == 0);
	no("running a program", execl("/bin/sh", "sh", (char *)NULL) == 0);
}

int
main(int argc, char **argv)
{
	uint32_t uid = argc > 1 ? (uint32_t)atoi(argv[1]) : 0;
	int leaked = open("/", O_RDONLY);
	int folder = fcntl(leaked, F_DUPFD, 3);
	struct sandbox box = { .keep = &folder,
		.nkeep = 1,
		.uid = uid,
		.gid = uid,
		.files_max = 16,
		.memory_max = 64 << 20,
		.data_max = 32 << 20 };
	int own = argc > 2 ? open(argv[2], O_RDONLY | O_DIRECTORY) : -1;
	int keep[2] = { folder, own };
	const char *stage;
	int status;
	pid_t pid;
	int r;

	if (own >= 0) {
		box.keep = keep;
		box.nkeep = 2;
		box.folder = &own;
		box.file_max = 4096;
		dup2(open("/dev/null", O_WRONLY), 2);
	}

	leaked = fcntl(leaked, F_DUPFD, 100);
	pid = sandbox_fork(uid == 0, 0);
	if (pid)
		return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status) : 2;
	r = sandbox_enter(&box, &stage);
	if (r) {
		dprintf(1, "stage %s: %s\n", stage, strerror(-r));
		return 1;
	}
	files(leaked);
	slipped_in(folder);
	if (own >= 0)
		own_folder(own);
	others();
	power();
	no("much memory", malloc(128 << 20) != NULL);
	no("much of its own",
	    mmap(NULL, 40 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED);
	no("losing what is shared", mmap(NULL, 40 << 20, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1, 0) == MAP_FAILED);
	printf("landlock %ld\n", landlock_abi());
	fflush(stdout);
	if (!bad)
		dprintf(1, "ok\n");
	return bad;
}
