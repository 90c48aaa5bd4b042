/* SPDX-License-Identifier: MIT
 *
 * sandbox.c - confining a process before it touches what a guest can reach
 *
 * Theory of operation, in the order of the stages:
 *
 * 1. descriptors  Only those named stay open. Nothing inherited by mistake can be used later.
 * 2. limits       No core file (it would hold guest data), few descriptors, bounded memory, no further process. File
 * size is not bounded: the only file such a process can write to is the log that it inherited.
 * 3. namespaces   Own user (in user mode), mount, network, ipc, uts and cgroup namespaces. The pid namespace of which
 * this process is number 1 was made by the launcher, since a process can't change its own.
 * 4. root         A fresh tmpfs, empty, read-only, becomes the root; the old one is detached. No path leads anywhere.
 * 5. identity     In system mode a uid and gid of its own, which own no file and no other process; supplementary groups
 *                 dropped. In user mode the user namespace maps the user to itself.
 * 6. capabilities Bounding set, permitted, effective, inheritable and ambient set emptied (libcap-ng); no_new_privs.
 * 7. secrecy      Not dumpable: nobody of the same uid can attach or read /proc/PID/mem.
 * 8. landlock     Where the kernel has it: no file system access at all, but for the engine's folder of records. The
 * empty root says the same; this one holds also for a descriptor that somebody might slip in.
 * 9. death signal The launcher's end is this process's.
 * 10. system calls sandbox_syscalls(): an allow-list through libseccomp whose default is KILL_PROCESS. The lists stand
 * beside the code that needs each call.
 *
 * Everything fails closed: the first stage that can't be set up is named, and the caller gives up, unless the
 * administrator has named that very stage in vfun.conf as optional on this host.
 */
#include <cap-ng.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/landlock.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fd.h"
#include "log.h"
#include "sandbox.h"

/* What the engine does below its folder of records. */
#define RECORDS                                                                                                        \
	(LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_REMOVE_DIR |                   \
	    LANDLOCK_ACCESS_FS_REMOVE_FILE)

static int
limit(int what, uint64_t value)
{
	struct rlimit rl;

	if (getrlimit(what, &rl) < 0)
		return -errno;
	/* What is lower already stays so: raising it may be forbidden. */
	if (rl.rlim_max != RLIM_INFINITY && rl.rlim_max < value)
		value = rl.rlim_max;
	rl.rlim_cur = rl.rlim_max = value;
	return setrlimit(what, &rl) < 0 ? -errno : 0;
}

static int
own_descriptors(const struct sandbox *s)
{
	fd_close_others(s->keep, s->nkeep);
	return 0;
}

static int
own_limits(const struct sandbox *s)
{
	int r = limit(RLIMIT_CORE, 0);

	/* With threads to come, sandbox_no_more_threads() does this. */
	if (!r && !s->threads)
		r = limit(RLIMIT_NPROC, 0);
	if (!r)
		r = limit(RLIMIT_NOFILE, s->files_max);
	/* The sanitizer's shadow of the address space takes 16 TB of it. */
	if (!r && s->memory_max && !SANDBOX_SANITIZED)
		r = limit(RLIMIT_AS, s->memory_max);
	return r;
}

static int
write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	int r;

	if (fd < 0)
		return -errno;
	r = fd_write_all(fd, text, strlen(text));
	close(fd);
	return r;
}

/* In a new user namespace: this user is himself, and nobody else is anybody. */
static int
map_self(uid_t uid, gid_t gid)
{
	char map[64];
	int r = write_file("/proc/self/setgroups", "deny");

	snprintf(map, sizeof(map), "%u %u 1\n", uid, uid);
	if (!r)
		r = write_file("/proc/self/uid_map", map);
	snprintf(map, sizeof(map), "%u %u 1\n", gid, gid);
	return r ? r : write_file("/proc/self/gid_map", map);
}

static int
own_namespaces(const struct sandbox *s)
{
	uid_t uid = geteuid();
	gid_t gid = getegid();
	int flags = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP;

	if (unshare(flags | (s->uid ? 0 : CLONE_NEWUSER)) < 0)
		return -errno;
	return s->uid ? 0 : map_self(uid, gid);
}

static int
empty_root(const struct sandbox *s)
{
	(void)s;
	/* /proc is there wherever vfund runs, and is only a place to mount on: nothing of it stays visible. */
	if (mount(NULL, "/", NULL, MS_SLAVE | MS_REC, NULL) < 0 ||
	    mount("none", "/proc", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=4k,nr_inodes=2,mode=555") < 0 ||
	    chdir("/proc") < 0 ||
	    mount(NULL, ".", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0 ||
	    syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
		return -errno;
	return 0;
}

static int
own_identity(const struct sandbox *s)
{
	if (!s->uid)
		return 0;
	if (setgroups(0, NULL) < 0 || setresgid(s->gid, s->gid, s->gid) < 0 || setresuid(s->uid, s->uid, s->uid) < 0)
		return -errno;
	return 0;
}

/* In two steps: the bounding set needs CAP_SETPCAP, which goes with the change of identity, and /proc. */
static int
empty_bounding_set(const struct sandbox *s)
{
	(void)s;
	capng_get_caps_process();
	capng_clear(CAPNG_SELECT_BOUNDS);
	return capng_apply(CAPNG_SELECT_BOUNDS) ? -EPERM : 0;
}

static int
no_capabilities(const struct sandbox *s)
{
	(void)s;
	capng_clear(CAPNG_SELECT_ALL);
	if (capng_apply(CAPNG_SELECT_CAPS) || capng_apply(CAPNG_SELECT_AMBIENT))
		return -EPERM;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return -errno;
	return 0;
}

static int
landlock(const struct sandbox *s)
{
	struct landlock_ruleset_attr attr = { .handled_access_fs =
						  LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_WRITE_FILE |
						  LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR | RECORDS |
						  LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_SOCK |
						  LANDLOCK_ACCESS_FS_MAKE_FIFO | LANDLOCK_ACCESS_FS_MAKE_BLOCK |
						  LANDLOCK_ACCESS_FS_MAKE_SYM };
	struct landlock_path_beneath_attr beneath = { .allowed_access = LANDLOCK_ACCESS_FS_WRITE_FILE | RECORDS };
	int fd = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr), 0);
	int r = 0;

	if (fd < 0)
		return errno == ENOSYS || errno == EOPNOTSUPP ? 0 : -errno;
	if (s->folder) {
		beneath.parent_fd = *s->folder;
		if (syscall(SYS_landlock_add_rule, fd, LANDLOCK_RULE_PATH_BENEATH, &beneath, 0) < 0)
			r = -errno;
	}
	if (!r && syscall(SYS_landlock_restrict_self, fd, 0) < 0)
		r = -errno;
	close(fd);
	return r;
}

/* A change of identity clears it, and the launcher's end must still be ours. */
static int
death_signal(const struct sandbox *s)
{
	(void)s;
	return prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0 ? -errno : 0;
}

static const struct {
	const char *name;
	int (*enter)(const struct sandbox *);
} stages[] = {
	{ "descriptors", own_descriptors }, { "limits", own_limits }, { "namespaces", own_namespaces },
	{ "bounding-set", empty_bounding_set }, { "root", empty_root }, { "identity", own_identity },
	{ "capabilities", no_capabilities }, { "landlock", landlock }, { "death-signal", death_signal },
	{ "pid-namespace", NULL }, /* sandbox_fork()'s */
};

#define STAGES (sizeof(stages) / sizeof(stages[0]))
#define PID_NAMESPACE (STAGES - 1)

uint32_t
sandbox_stage(const char *name)
{
	for (unsigned i = 0; i < STAGES; i++)
		if (!strcmp(name, stages[i].name))
			return 1u << i;
	return 0;
}

int
sandbox_enter(const struct sandbox *s, const char **stage)
{
	for (unsigned i = 0; i < PID_NAMESPACE; i++) {
		int r = stages[i].enter(s);

		if (r && !(s->optional >> i & 1)) {
			*stage = stages[i].name;
			return r;
		}
		if (r)
			log_warn(
			    "stage %s can't be set up: %s; vfun.conf calls it optional", stages[i].name, strerror(-r));
	}
	*stage = "done";
	return 0;
}

int
sandbox_no_more_threads(void)
{
	return limit(RLIMIT_NPROC, 0);
}

pid_t
sandbox_fork(int user_mode, uint32_t optional)
{
	uid_t uid = geteuid();
	gid_t gid = getegid();
	unsigned long flags = CLONE_NEWPID | (user_mode ? CLONE_NEWUSER : 0) | SIGCHLD;
	pid_t pid = (pid_t)syscall(SYS_clone, flags, NULL, NULL, NULL, NULL);
	int r;

	if (pid < 0 && optional >> PID_NAMESPACE & 1) {
		log_warn("stage pid-namespace can't be set up: %s; vfun.conf calls it optional", strerror(errno));
		pid = fork();
		return pid < 0 ? -errno : pid;
	}
	if (pid < 0)
		return -errno;
	if (pid > 0 || !user_mode)
		return pid;
	r = map_self(uid, gid);
	if (!r)
		return 0;
	log_err("the user namespace can't be set up: %s", strerror(-r));
	_exit(EXIT_FAILURE);
}

int
sandbox_launcher(void)
{
	capng_clear(CAPNG_SELECT_BOTH);
	/* Namespaces, mounts and pivot_root; identities; emptying bounding sets; ending processes of those identities;
	 * and removing what the engine left in its folder of records. */
	if (capng_updatev(CAPNG_ADD, CAPNG_EFFECTIVE | CAPNG_PERMITTED | CAPNG_BOUNDING_SET, CAP_SYS_ADMIN, CAP_SETUID,
		CAP_SETGID, CAP_SETPCAP, CAP_KILL, CAP_DAC_OVERRIDE, -1) ||
	    capng_apply(CAPNG_SELECT_BOTH))
		return -EPERM;
	return 0;
}

static int
add_rule(scmp_filter_ctx ctx, const struct sandbox_call *c)
{
	int r = c->n ? 0 : seccomp_rule_add(ctx, SCMP_ACT_ALLOW, c->nr, 0);

	for (unsigned i = 0; !r && i < c->n; i++)
		r = seccomp_rule_add(
		    ctx, SCMP_ACT_ALLOW, c->nr, 1, SCMP_CMP(c->arg, SCMP_CMP_MASKED_EQ, c->mask, c->value[i]));
	return r;
}

static int
add_rules(scmp_filter_ctx ctx, const struct sandbox_call *list)
{
	int r = 0;

	for (; !r && list && list->why; list++)
		r = add_rule(ctx, list);
	return r;
}

#if SANDBOX_SANITIZED
/* What the sanitizer's runtime needs on top of any list: its own malloc, and whatever stands between a finding and the
 * end of the report. A build for tests; the lists themselves are tested in the other one (t/confine.t). */
static const struct sandbox_call sanitizer[] = {
	SANDBOX_CALL_IF(mmap, "malloc; never executable", 2, PROT_EXEC, 1, 0),
	SANDBOX_CALL(munmap, "malloc"),
	SANDBOX_CALL(madvise, "malloc's shadow: no huge pages there; freed memory goes back"),
	SANDBOX_CALL(getpid, "the report's number of the process"),
	SANDBOX_CALL(gettid, "and of the thread"),
	SANDBOX_CALL(open, "files of /proc that explain addresses: there are none in an empty root"),
	SANDBOX_CALL(openat, "the same"),
	SANDBOX_CALL(readlink, "the same"),
	SANDBOX_CALL(readlinkat, "the same"),
	SANDBOX_CALL(pipe2, "is this address readable? write() to a pipe tells"),
	SANDBOX_CALL(write, "the same"),
	SANDBOX_CALL(close, "the same"),
	SANDBOX_CALL(futex, "locks that are held while reporting"),
	SANDBOX_CALL(sched_yield, "the same"),
	SANDBOX_CALL(rt_sigprocmask, "no signal meanwhile"),
	SANDBOX_CALL(sigaltstack, "before a call that doesn't return"),
	SANDBOX_CALL(exit_group, "the end of a report"),
	SANDBOX_END,
};
#else
static const struct sandbox_call *const sanitizer = NULL;
#endif

int
sandbox_syscalls(const struct sandbox_call *allowed, const struct sandbox_call *more)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_KILL_PROCESS);
	int r = ctx ? 0 : -ENOMEM;

	/* The other ABIs of the processor (32 bits, x32) have other numbers for the same calls. */
	if (!r)
		r = seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
	if (!r)
		r = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_TSYNC, 1);
	if (!r)
		r = add_rules(ctx, allowed);
	if (!r)
		r = add_rules(ctx, more);
	if (!r)
		r = add_rules(ctx, sanitizer);
	if (!r)
		r = seccomp_load(ctx);
	seccomp_release(ctx);
	return r;
}

/* What the argument must be: one of the values, or made of certain bits. */
static void
print_argument(const struct sandbox_call *c)
{
	if (c->mask != UINT32_MAX && c->n == 1 && !c->value[0]) {
		printf("; argument %u: no bits but 0x%x", c->arg + 1, ~(uint32_t)c->mask);
		return;
	}
	printf("; argument %u only", c->arg + 1);
	for (unsigned i = 0; i < c->n; i++)
		printf(c->value[i] > 255 ? "%s 0x%llx" : "%s %llu", i ? " or" : "", (unsigned long long)c->value[i]);
	if (c->mask != UINT32_MAX)
		printf(" in the bits 0x%llx", (unsigned long long)c->mask);
}

static void
print_list(const struct sandbox_call *list)
{
	for (; list && list->why; list++) {
		printf("  %-16s %s", list->name, list->why);
		if (list->n)
			print_argument(list);
		printf("\n");
	}
}

void
sandbox_print(const char *title, const struct sandbox_call *allowed, const struct sandbox_call *more)
{
	unsigned n = 0;

	for (const struct sandbox_call *c = allowed; c->why; c++)
		n++;
	for (const struct sandbox_call *c = more; c && c->why; c++)
		n++;
	printf("%s: %u\n", title, n);
	print_list(allowed);
	print_list(more);
}
