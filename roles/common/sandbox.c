/* SPDX-License-Identifier: MIT
 *
 * sandbox.c - confining a process before it touches what a guest can reach
 *
 * Theory of operation, in the order of the stages:
 *
 * 1. descriptors  Only those named stay open. Nothing inherited by mistake can be used later.
 * 2. limits       No core file (it would hold guest data), few descriptors, bounded memory, no further process. The
 * engine's files have a size, unless the log is one: others can write to no file but that log.
 * 3. namespaces   Own user (in user mode), mount, network, ipc, uts and cgroup namespaces. The pid namespace of which
 * this process is number 1 was made by the launcher, since a process can't change its own.
 * 4. root         A fresh tmpfs, read-only, becomes the root; the old one is detached. No path leads anywhere. It is
 * empty but for services that use a device: these see the host's libraries, read-only, and their device. The engine's
 * folder of records becomes a mount of its own below nothing.
 * 5. identity     In system mode a uid and gid of its own, which own no file and no other process; supplementary groups
 *                 dropped. In user mode the user namespace maps the user to itself.
 * 6. capabilities Bounding set, permitted, effective, inheritable and ambient set emptied (libcap-ng); no_new_privs.
 * 7. secrecy      Not dumpable: nobody of the same uid can attach or read /proc/PID/mem.
 * 8. landlock     Where the kernel has it, as far as it has it: no file system access at all, but for the engine's
 * folder of records and what is in the root; no TCP, no abstract sockets, no signals to others. The root and the
 * namespaces say the same; this one holds also for a descriptor that somebody might slip in.
 * 9. death signal The launcher's end is this process's.
 * 10. system calls sandbox_syscalls(): an allow-list through libseccomp whose default is KILL_PROCESS. The lists stand
 * beside the code that needs each call. A service's raise SIGSYS, which kills as well, but can say of which call it
 * died: proto/filter.h.
 *
 * Everything fails closed: the first stage that can't be set up is named, and the caller gives up, unless the
 * administrator has named that very stage in vfun.conf as optional on this host.
 */
#include <cap-ng.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/landlock.h>
#include <linux/mount.h>
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
#include <sys/utsname.h>
#include <unistd.h>

#include "fd.h"
#include "log.h"
#include "sandbox.h"
#include "trusted.h"

/* What a kernel newer than these headers knows of Landlock. */
#define FS_REFER (1ull << 13)		/* ABI 2 */
#define FS_TRUNCATE (1ull << 14)	/* 3 */
#define NET_TCP (1ull << 0 | 1ull << 1) /* 4: bind, connect */
#define FS_IOCTL_DEV (1ull << 15)	/* 5 */
#define SCOPES (1ull << 0 | 1ull << 1)	/* 6: abstract Unix sockets, signals */

#define OTHERS 256u /* threads that count as this process's: those of services of a second vfund with the same uids */

/* What a process does in a folder in which it may write: the engine's records, a scratch folder. */
#define WRITE (LANDLOCK_ACCESS_FS_WRITE_FILE | FS_TRUNCATE)
#define RECORDS                                                                                                        \
	(WRITE | LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_REMOVE_DIR |           \
	    LANDLOCK_ACCESS_FS_REMOVE_FILE)
#define VIEW_READ (LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)

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

/* Does RLIMIT_NPROC count this process's threads only? Those of its uid, or since Linux 5.14 of its user namespace;
 * before that in user mode all that the user has. */
static int
counts_its_own(const struct sandbox *s)
{
	struct utsname u;
	char *end;
	unsigned long major;

	if (s->uid)
		return 1;
	if (uname(&u) < 0)
		return 0;
	major = strtoul(u.release, &end, 10);
	return major > 5 || (major == 5 && *end == '.' && strtoul(end + 1, NULL, 10) >= 14);
}

/* A log that is a file grows, and this process writes to it. */
static int
log_is_file(void)
{
	struct stat st;

	return fstat(STDERR_FILENO, &st) == 0 && S_ISREG(st.st_mode);
}

static int
own_limits(const struct sandbox *s)
{
	int r = limit(RLIMIT_CORE, 0);

	/* With threads to come, sandbox_no_more_threads() makes it 0. */
	if (!r && (!s->threads || counts_its_own(s)))
		r = limit(RLIMIT_NPROC, s->threads ? s->threads + OTHERS : 0);
	if (!r)
		r = limit(RLIMIT_NOFILE, s->files_max);
	/* What it maps of others' memory doesn't count: that is shared. */
	if (!r && s->data_max && !SANDBOX_SANITIZED)
		r = limit(RLIMIT_DATA, s->data_max);
	if (!r && s->file_max && !log_is_file())
		r = limit(RLIMIT_FSIZE, s->file_max);
	/* The sanitizer's shadow of the address space takes 16 TB of it. */
	if (!r && s->memory_max && !SANDBOX_SANITIZED)
		r = limit(RLIMIT_AS, s->memory_max);
	return r;
}

/* flags: O_CREAT, for a file that nobody may write to any more; or 0 */
static int
write_file(const char *path, int flags, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC | flags, 0444);
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
	int r = write_file("/proc/self/setgroups", 0, "deny");

	snprintf(map, sizeof(map), "%u %u 1\n", uid, uid);
	if (!r)
		r = write_file("/proc/self/uid_map", 0, map);
	snprintf(map, sizeof(map), "%u %u 1\n", gid, gid);
	return r ? r : write_file("/proc/self/gid_map", 0, map);
}

/* 1: this process has a mount namespace of its own. In another one, stage root would pull away the host's mounts. */
static int own_mounts;

static int
own_namespaces(const struct sandbox *s)
{
	uid_t uid = geteuid();
	gid_t gid = getegid();
	int flags = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP;

	/* Where the working directory is, it is in the new namespace as well: own_root() takes it from there. */
	if (s->folder && fchdir(*s->folder) < 0)
		return -errno;
	if (unshare(flags | (s->uid ? 0 : CLONE_NEWUSER)) < 0)
		return -errno;
	own_mounts = 1;
	return s->uid ? 0 : map_self(uid, gid);
}

/* A folder of the new root, and those above it; the working directory is that root. 0 or -errno. */
static int
make_folder(const char *path)
{
	char buf[PATH_MAX];

	snprintf(buf, sizeof(buf), "%s", path);
	for (char *slash = strchr(buf, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		if (mkdir(buf, 0755) < 0 && errno != EEXIST)
			return -errno;
		*slash = '/';
	}
	return mkdir(buf, 0755) < 0 && errno != EEXIST ? -errno : 0;
}

/* Mount what is there on v->path. Whoever could put a link where the administrator saw a folder gains nothing: it is
 * mounted by the descriptor that the walk ends with. */
static int
attach_view(const struct sandbox_view *v, int owners)
{
	char why[TRUSTED_WHY];
	int fd;
	int tree;
	int r;

	if (!v->trusted)
		return mount(v->source, v->path, NULL, MS_BIND | MS_REC, NULL) < 0 ? -errno : 0;
	fd = trusted_open(v->source, O_PATH, owners, why);
	if (fd < 0) {
		log_err("files: %s", why);
		return fd;
	}
	tree = (int)syscall(SYS_open_tree, fd, "", AT_EMPTY_PATH | AT_RECURSIVE | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	r = tree < 0 || syscall(SYS_move_mount, tree, "", AT_FDCWD, v->path, MOVE_MOUNT_F_EMPTY_PATH) < 0 ? -errno : 0;
	close(fd);
	if (tree >= 0)
		close(tree);
	return r;
}

/* A file or folder of the host, with all that is mounted below it; what the host's mount forbids stays forbidden. */
static int
bind_view(const struct sandbox_view *v, int owners)
{
	struct mount_attr attr = { .attr_set = MOUNT_ATTR_NOSUID };
	struct stat st;
	int r;

	if (stat(v->source, &st) < 0)
		return -errno;
	r = S_ISDIR(st.st_mode) ? make_folder(v->path) : write_file(v->path, O_CREAT, "");
	if (r)
		return r;
	if (v->kind != VIEW_DEVICE)
		attr.attr_set |= MOUNT_ATTR_NODEV;
	if (v->kind == VIEW_FILES)
		attr.attr_set |= MOUNT_ATTR_RDONLY;
	r = attach_view(v, owners);
	if (!r && syscall(SYS_mount_setattr, AT_FDCWD, v->path, AT_RECURSIVE, &attr, sizeof(attr)) < 0)
		r = -errno;
	return r;
}

/* The folder that a thing is in. */
static int
make_parent(const char *path)
{
	char buf[PATH_MAX];
	char *slash;

	snprintf(buf, sizeof(buf), "%s", path);
	slash = strrchr(buf, '/');
	if (!slash)
		return 0;
	*slash = '\0';
	return make_folder(buf);
}

static int
show(const struct sandbox_view *v, int owners)
{
	int r = make_parent(v->path);

	if (r)
		return r;
	switch (v->kind) {
	case VIEW_SCRATCH:
		r = make_folder(v->path);
		/* XRT's emulation shim maps its files executable, without ever executing them. */
		return r										 ? r
		       : mount("none", v->path, "tmpfs", MS_NOSUID | MS_NODEV, "size=16m,mode=1777") < 0 ? -errno
													 : 0;
	case VIEW_LINK:
		return symlink(v->source, v->path) < 0 ? -errno : 0;
	case VIEW_TEXT:
		return write_file(v->path, O_CREAT, v->source);
	default:
		return bind_view(v, owners);
	}
}

/* The working directory becomes a mount of its own, which hangs below nothing: there no path leads out of it, not even
 * where Landlock is missing. The descriptor is replaced. */
static int
detach_folder(int folder)
{
	int tree = (int)syscall(SYS_open_tree, AT_FDCWD, ".", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	int r = tree < 0 || dup3(tree, folder, O_CLOEXEC) < 0 ? -errno : 0;

	if (tree >= 0)
		close(tree);
	return r;
}

static int
own_root(const struct sandbox *s)
{
	unsigned long flags = MS_NOSUID | MS_NODEV | MS_NOEXEC;
	int r = 0;

	if (!own_mounts) {
		log_warn("stage root needs the mount namespace that stage namespaces makes");
		return -EPERM;
	}
	/* /proc is there wherever vfund runs, and is only a place to mount on: nothing of it stays visible. */
	if (mount(NULL, "/", NULL, MS_SLAVE | MS_REC, NULL) < 0)
		return -errno;
	if (s->folder)
		r = detach_folder(*s->folder);
	if (r)
		return r;
	if (mount("none", "/proc", "tmpfs", flags,
		s->views ? "size=256k,nr_inodes=128,mode=755" : "size=4k,nr_inodes=2,mode=555") < 0 ||
	    chdir("/proc") < 0)
		return -errno;
	for (unsigned i = 0; !r && i < s->views; i++)
		r = show(&s->view[i], s->uid != 0);
	if (r)
		return r;
	if (mount(NULL, ".", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | flags, NULL) < 0 ||
	    syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
		return -errno;
	return 0;
}

static int
own_identity(const struct sandbox *s)
{
	if (!s->uid)
		return 0;
	if (setgroups(s->device_gid ? 1 : 0, &s->device_gid) < 0 || setresgid(s->gid, s->gid, s->gid) < 0 ||
	    setresuid(s->uid, s->uid, s->uid) < 0)
		return -errno;
	return 0;
}

/* In two steps: the bounding set needs CAP_SETPCAP, which goes with the change of identity, and /proc. */
static int
empty_bounding_set(const struct sandbox *s)
{
	(void)s;
	/* A child that wasn't executed remembers its parent's number. */
	capng_setpid((int)syscall(SYS_gettid));
	if (capng_get_caps_process())
		return -EPERM;
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

/* All that Landlock can forbid, in the kernel that runs. 0, or -errno where it has none. */
struct ruleset {
	uint64_t fs, net, scoped;
};

static int
landlock_all(struct ruleset *all)
{
	long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);

	if (abi < 0)
		return -errno;
	*all = (struct ruleset){ .fs = (LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1 };
	if (abi >= 2)
		all->fs |= FS_REFER;
	if (abi >= 3)
		all->fs |= FS_TRUNCATE;
	if (abi >= 4)
		all->net = NET_TCP;
	if (abi >= 5)
		all->fs |= FS_IOCTL_DEV;
	if (abi >= 6)
		all->scoped = SCOPES;
	return 0;
}

/* Everything below that folder, or that file, as far as `allowed` goes. 0 or -errno. */
static int
landlock_allow(int ruleset, const struct ruleset *all, int fd, uint64_t allowed)
{
	struct landlock_path_beneath_attr beneath = { .allowed_access = allowed & all->fs, .parent_fd = fd };
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISDIR(st.st_mode))
		beneath.allowed_access &=
		    LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_READ_FILE | WRITE | FS_IOCTL_DEV;
	return syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &beneath, 0) < 0 ? -errno : 0;
}

static int
landlock_view(int ruleset, const struct ruleset *all, const char *path, uint64_t allowed)
{
	int fd = open(path, O_PATH | O_CLOEXEC);
	int r = fd < 0 ? -errno : landlock_allow(ruleset, all, fd, allowed);

	if (fd >= 0)
		close(fd);
	return r;
}

static int
landlock_views(int ruleset, const struct ruleset *all, const struct sandbox *s)
{
	static const uint64_t more[] = {
		[VIEW_DEVICE] = WRITE | FS_IOCTL_DEV, [VIEW_SHARED] = WRITE, [VIEW_SCRATCH] = RECORDS, [VIEW_TEXT] = 0
	};
	int r = s->views ? landlock_view(ruleset, all, "/", VIEW_READ) : 0;

	for (unsigned i = 0; !r && i < s->views; i++)
		if (more[s->view[i].kind])
			r = landlock_view(ruleset, all, s->view[i].path, VIEW_READ | more[s->view[i].kind]);
	return r;
}

int
sandbox_landlock(void)
{
	struct ruleset all;

	return landlock_all(&all) == 0;
}

static int
landlock(const struct sandbox *s)
{
	struct ruleset all;
	int r = landlock_all(&all);
	int fd;

	if (r)
		return r == -ENOSYS || r == -EOPNOTSUPP ? 0 : r;
	fd = (int)syscall(SYS_landlock_create_ruleset, &all, sizeof(all), 0);
	if (fd < 0)
		return -errno;
	if (s->folder)
		r = landlock_allow(fd, &all, *s->folder, RECORDS);
	if (!r)
		r = landlock_views(fd, &all, s);
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
	{ "bounding-set", empty_bounding_set }, { "root", own_root }, { "identity", own_identity },
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
sandbox_powerless(void)
{
	/* libcap-ng remembers which process it looked at. */
	capng_setpid((int)getpid());
	return no_capabilities(NULL);
}

int
sandbox_no_more_threads(void)
{
	return limit(RLIMIT_NPROC, 0);
}

/* Once, until it works again: a client can cause it at will. */
static void
say_no_pid_namespace(int err, int user_mode)
{
	static int said;

	if (err && !said)
		log_err("stage pid-namespace can't be set up: %s%s", strerror(err),
		    user_mode ? " (may ordinary users make user namespaces here?)" : "");
	said = err != 0;
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
	r = pid < 0 ? errno : 0;
	if (pid)
		say_no_pid_namespace(r, user_mode);
	if (r)
		return -r;
	if (pid > 0 || !user_mode)
		return pid;
	r = map_self(uid, gid);
	if (!r)
		return 0;
	log_err("the user namespace can't be set up: %s", strerror(-r));
	_exit(EXIT_FAILURE);
}

int
sandbox_launcher(int chown)
{
	capng_clear(CAPNG_SELECT_BOTH);
	/* Namespaces, mounts and pivot_root; identities; emptying bounding sets; ending processes of those identities;
	 * and removing what the engine left in its folder of records. */
	if (capng_updatev(CAPNG_ADD, CAPNG_EFFECTIVE | CAPNG_PERMITTED | CAPNG_BOUNDING_SET, CAP_SYS_ADMIN, CAP_SETUID,
		CAP_SETGID, CAP_SETPCAP, CAP_KILL, CAP_DAC_OVERRIDE, -1) ||
	    (chown && capng_updatev(CAPNG_ADD, CAPNG_EFFECTIVE | CAPNG_PERMITTED, CAP_CHOWN, CAP_FOWNER, -1)) ||
	    capng_apply(CAPNG_SELECT_BOTH))
		return -EPERM;
	return 0;
}

static int
add_rule(scmp_filter_ctx ctx, const struct sandbox_call *c)
{
	uint32_t action = c->error ? SCMP_ACT_ERRNO((unsigned)c->error) : SCMP_ACT_ALLOW;
	int r = c->n ? 0 : seccomp_rule_add(ctx, action, c->nr, 0);

	for (unsigned i = 0; !r && i < c->n; i++)
		r = seccomp_rule_add(ctx, action, c->nr, c->none ? 2 : 1,
		    SCMP_CMP(c->arg, SCMP_CMP_MASKED_EQ, c->mask, c->value[i]),
		    SCMP_CMP(c->other, SCMP_CMP_MASKED_EQ, c->none, 0));
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

/* The filter, not loaded yet. 0 or -errno; to be released in any case. */
static int
make_filter(scmp_filter_ctx *ctx, uint32_t refusal, const struct sandbox_call *allowed, const struct sandbox_call *more)
{
	int r;

	*ctx = seccomp_init(refusal);
	r = *ctx ? 0 : -ENOMEM;
	/* The other ABIs of the processor (32 bits, x32) have other numbers for the same calls. */
	if (!r)
		r = seccomp_attr_set(*ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
	if (!r)
		r = seccomp_attr_set(*ctx, SCMP_FLTATR_CTL_TSYNC, 1);
	if (!r)
		r = add_rules(*ctx, allowed);
	if (!r)
		r = add_rules(*ctx, more);
	if (!r)
		r = add_rules(*ctx, sanitizer);
	return r;
}

static int
load(uint32_t refusal, const struct sandbox_call *allowed, const struct sandbox_call *more)
{
	scmp_filter_ctx ctx;
	int r = make_filter(&ctx, refusal, allowed, more);

	if (!r)
		r = seccomp_load(ctx);
	seccomp_release(ctx);
	return r;
}

int
sandbox_syscalls(const struct sandbox_call *allowed, const struct sandbox_call *more)
{
	return load(SCMP_ACT_KILL_PROCESS, allowed, more);
}

int
sandbox_syscalls_told(const struct sandbox_call *allowed, const struct sandbox_call *more)
{
	return load(SCMP_ACT_TRAP, allowed, more);
}

int
sandbox_export(int fd, const struct sandbox_call *allowed, const struct sandbox_call *more)
{
	scmp_filter_ctx ctx;
	int r = make_filter(&ctx, SCMP_ACT_TRAP, allowed, more);

	if (!r)
		r = seccomp_export_bpf(ctx, fd);
	seccomp_release(ctx);
	return r;
}

int
sandbox_call_number(const char *name)
{
	int nr = seccomp_syscall_resolve_name(name);

	return nr >= 0 ? nr : -1;
}

int
sandbox_call_name(int nr, char name[SANDBOX_NAME])
{
	char *s = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, nr);
	int known = s != NULL;

	if (known)
		snprintf(name, SANDBOX_NAME, "%s", s);
	free(s);
	return known;
}

/* What the argument must be: one of the values, or made of certain bits. */
static void
print_argument(const struct sandbox_call *c)
{
	if (c->mask != UINT32_MAX && c->n == 1 && !c->value[0]) {
		printf("; argument %u: no bits but 0x%x", c->arg + 1u, ~(uint32_t)c->mask);
		return;
	}
	printf("; argument %u only", c->arg + 1u);
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
		if (list->none)
			printf("; argument %u: without the bits 0x%x", list->other + 1u, list->none);
		if (list->error)
			printf("; not allowed: fails with %s", strerrorname_np(list->error));
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
