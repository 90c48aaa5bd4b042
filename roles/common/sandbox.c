/* SPDX-License-Identifier: MIT
 *
 * sandbox.c - confining a process before it touches what a guest can reach
 *
 * Theory of operation, in the order of the stages:
 *
 * 1. descriptors  Only those named stay open. Nothing inherited by mistake can be used later.
 * 2. limits       No core file (it would hold guest data), few descriptors, bounded memory. File size is not bounded:
 *                 the only file such a process can write to is the log that it inherited.
 * 3. namespaces   Own user (in user mode), mount, network, ipc, uts and cgroup namespaces. The pid namespace of which
 * this process is number 1 was made by the launcher, since a process can't change its own.
 * 4. root         A fresh tmpfs, empty, read-only, becomes the root; the old one is detached. No path leads anywhere.
 * 5. identity     In system mode a uid and gid of its own, which own no file and no other process; supplementary groups
 *                 dropped. In user mode the user namespace maps the user to itself.
 * 6. capabilities Bounding set, permitted, effective, inheritable and ambient set emptied (libcap-ng); no_new_privs.
 * 7. secrecy      Not dumpable: nobody of the same uid can attach or read /proc/PID/mem.
 * 8. system calls sandbox_syscalls(): an allow-list through libseccomp whose default is KILL_PROCESS. The lists stand
 * beside the code that needs each call.
 *
 * Everything fails closed: the first stage that can't be set up is named, and the caller gives up.
 */
#include <cap-ng.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fd.h"
#include "log.h"
#include "sandbox.h"

static int
limit(int what, uint64_t value)
{
	struct rlimit rl = { .rlim_cur = value, .rlim_max = value };

	return setrlimit(what, &rl) < 0 ? -errno : 0;
}

static int
set_limits(const struct sandbox *s)
{
	int r = limit(RLIMIT_CORE, 0);

	if (!r)
		r = limit(RLIMIT_NOFILE, s->files_max);
	if (!r && s->memory_max)
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

pid_t
sandbox_fork(int user_mode)
{
	uid_t uid = geteuid();
	gid_t gid = getegid();
	unsigned long flags = CLONE_NEWPID | (user_mode ? CLONE_NEWUSER : 0) | SIGCHLD;
	pid_t pid = (pid_t)syscall(SYS_clone, flags, NULL, NULL, NULL, NULL);
	int r;

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
empty_root(void)
{
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
empty_bounding_set(void)
{
	capng_get_caps_process();
	capng_clear(CAPNG_SELECT_BOUNDS);
	return capng_apply(CAPNG_SELECT_BOUNDS) ? -EPERM : 0;
}

static int
no_capabilities(void)
{
	capng_clear(CAPNG_SELECT_ALL);
	if (capng_apply(CAPNG_SELECT_CAPS) || capng_apply(CAPNG_SELECT_AMBIENT))
		return -EPERM;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return -errno;
	return 0;
}

int
sandbox_enter(const struct sandbox *s, const char **stage)
{
	int r;

	*stage = "descriptors";
	fd_close_others(s->keep, s->nkeep);
	*stage = "limits";
	if ((r = set_limits(s)))
		return r;
	*stage = s->uid ? "namespaces" : "namespaces (does this host allow user namespaces?)";
	if ((r = own_namespaces(s)))
		return r;
	*stage = "bounding set";
	if ((r = empty_bounding_set()))
		return r;
	*stage = "root";
	if ((r = empty_root()))
		return r;
	*stage = "identity";
	if ((r = own_identity(s)))
		return r;
	*stage = "capabilities";
	if ((r = no_capabilities()))
		return r;
	/* A change of identity clears it, and the launcher's end must still be ours. */
	*stage = "death signal";
	return prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0 ? -errno : 0;
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

int
sandbox_syscalls(const struct sandbox_call *allowed, const struct sandbox_call *more)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_KILL_PROCESS);
	int r = ctx ? 0 : -ENOMEM;

	/* The other ABIs of the processor (32 bits, x32) have other numbers for the same calls. */
	if (!r)
		r = seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
	if (!r)
		r = add_rules(ctx, allowed);
	if (!r)
		r = add_rules(ctx, more);
	if (!r)
		r = seccomp_load(ctx);
	seccomp_release(ctx);
	return r;
}

static void
print_list(const struct sandbox_call *list)
{
	for (; list && list->why; list++) {
		printf("  %-16s %s", list->name, list->why);
		if (list->n && list->mask == UINT32_MAX)
			printf("; argument %u only", list->arg + 1);
		else if (list->n)
			printf("; argument %u & 0x%llx only", list->arg + 1, (unsigned long long)list->mask);
		for (unsigned i = 0; i < list->n; i++)
			printf("%s %llu", i ? " or" : "", (unsigned long long)list->value[i]);
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
