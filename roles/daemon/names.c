/* SPDX-License-Identifier: MIT
 *
 * names.c - who is who on this host: what vfund has to know of /etc/passwd, /etc/group and /etc/subuid (system mode)
 *
 * The files are read directly: a static executable must not load nsswitch's modules. Users have a say in some of what
 * stands in them, so a process reads them that can do nothing else: it has a uid of its own, those files, memory that
 * it shares with vfund for the answer, and two system calls, to read and to end.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../common/fd.h"
#include "../common/sandbox.h"
#include "launcher.h"

#define NOBODY 65534u
#define FIELDS 4 /* of a line that are looked at */

enum { PASSWD, GROUP, SUBUID, FILES };

static const char *const files[FILES] = { "/etc/passwd", "/etc/group", "/etc/subuid" };

static const struct sandbox_call calls[] = { SANDBOX_CALL(read, "the files"), SANDBOX_CALL(exit_group, "the end"),
	SANDBOX_END };

/* The answer. */
struct names {
	struct user {
		int found;
		uint32_t uid, gid;
	} engine, watcher;
	int group_found;
	uint32_t group;
	struct conf_qemu qemu;
	unsigned ranges;
	struct conf_range range[CONF_RANGES_MAX];
	char owner[CONF_RANGES_MAX][32]; /* by name, until it is found */
	char clash[64];			 /* who has uids from uid-base on; "": nobody */
};

/* A file, line by line. What is longer than a line of such files is cut: only its beginning counts. */
struct lines {
	int fd;
	size_t at, len;
	char buf[4096];
	char line[256];
};

static int
next_byte(struct lines *f)
{
	if (f->at == f->len) {
		ssize_t n = read(f->fd, f->buf, sizeof(f->buf));

		if (n <= 0)
			return -1;
		f->len = (size_t)n;
		f->at = 0;
	}
	return (unsigned char)f->buf[f->at++];
}

/* The next line's first fields; what it hasn't is "". 1, or 0: the end. */
static int
next_line(struct lines *f, const char *field[FIELDS])
{
	size_t n = 0;
	char *at = f->line;
	int c;

	while ((c = next_byte(f)) >= 0 && c != '\n')
		if (n < sizeof(f->line) - 1)
			f->line[n++] = (char)c;
	f->line[n] = '\0';
	for (unsigned i = 0; i < FIELDS; i++) {
		field[i] = at;
		at += strcspn(at, ":");
		if (*at)
			*at++ = '\0';
	}
	return c >= 0 || n;
}

static int
number(const char *s, uint32_t *n)
{
	char *end;
	unsigned long v = strtoul(s, &end, 10);

	*n = (uint32_t)v;
	return isdigit((unsigned char)*s) && !*end && v < UINT32_MAX;
}

static int
among(uint32_t first, uint32_t count, uint32_t base)
{
	return first < base ? base - first < count : first - base < UIDS;
}

static void
read_ranges(struct lines *f, struct names *out, uint32_t base)
{
	const char *field[FIELDS];

	while (next_line(f, field)) {
		struct conf_range r;
		unsigned i = out->ranges;

		if (!number(field[1], &r.first) || !number(field[2], &r.count) || !r.count || field[0][0] == '#')
			continue;
		if (r.count > UINT32_MAX - r.first)
			r.count = UINT32_MAX - r.first;
		if (among(r.first, r.count, base))
			snprintf(out->clash, sizeof(out->clash), "%.31s in /etc/subuid", field[0]);
		if (!number(field[0], &r.owner))
			r.owner = r.first;
		if (i == CONF_RANGES_MAX) {
			/* Too many: from here on they count as one user's. */
			struct conf_range *last = &out->range[i - 1];
			uint32_t end = last->first + last->count > r.first + r.count ? last->first + last->count
										     : r.first + r.count;

			last->first = r.first < last->first ? r.first : last->first;
			last->count = end - last->first;
			continue;
		}
		snprintf(out->owner[i], sizeof(out->owner[i]), "%.31s", field[0]);
		out->range[i] = r;
		out->ranges++;
	}
}

/* May libvirt run QEMU as this one? Without a word in vfun.conf, as those that distributions make for it. */
static int
is_qemu(const char *wanted, const char *name, uint32_t id, const char *const usual[2])
{
	uint32_t n;

	if (wanted[0])
		return number(wanted, &n) ? n == id : !strcmp(wanted, name);
	return !strcmp(usual[0], name) || !strcmp(usual[1], name);
}

static void
add_id(uint32_t ids[CONF_QEMU_MAX], unsigned *n, uint32_t id)
{
	if (*n < CONF_QEMU_MAX)
		ids[(*n)++] = id;
}

static void
note_user(struct user *u, const char *wanted, const char *name, uint32_t uid, uint32_t gid)
{
	if (!strcmp(wanted, name))
		*u = (struct user){ .found = 1, .uid = uid, .gid = gid };
}

static void
read_users(struct lines *f, struct names *out, const struct conf *c)
{
	static const char *const usual[] = { "libvirt-qemu", "qemu" };
	const char *field[FIELDS];
	uint32_t uid, gid;

	while (next_line(f, field)) {
		if (!number(field[2], &uid) || !number(field[3], &gid))
			continue;
		note_user(&out->engine, c->user, field[0], uid, gid);
		note_user(&out->watcher, c->watcher, field[0], uid, gid);
		if (is_qemu(c->qemu.user, field[0], uid, usual)) {
			add_id(out->qemu.uid, &out->qemu.uids, uid);
			add_id(out->qemu.gid, &out->qemu.gids, gid);
		}
		if (among(uid, 1, c->uid_base))
			snprintf(out->clash, sizeof(out->clash), "%.31s in /etc/passwd", field[0]);
		for (unsigned i = 0; i < out->ranges; i++)
			if (!strcmp(out->owner[i], field[0]))
				out->range[i].owner = uid;
	}
}

static void
read_groups(struct lines *f, struct names *out, const struct conf *c)
{
	static const char *const usual[] = { "kvm", "qemu" };
	const char *field[FIELDS];
	uint32_t gid;

	while (next_line(f, field)) {
		if (!number(field[2], &gid))
			continue;
		if (!strcmp(field[0], c->group)) {
			out->group_found = 1;
			out->group = gid;
		}
		if (is_qemu(c->qemu.group, field[0], gid, usual))
			add_id(out->qemu.gid, &out->qemu.gids, gid);
	}
}

/* The process. */
static _Noreturn void
read_all(const struct conf *c, const int fd[FILES], struct names *out)
{
	static struct lines f[FILES];
	uid_t uid = c->uid_base + UID_NAMES;
	uint32_t id;

	fd_close_others(fd, FILES);
	if (setgroups(0, NULL) < 0 || setresgid(uid, uid, uid) < 0 || setresuid(uid, uid, uid) < 0 ||
	    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 ||
	    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0 || sandbox_syscalls(calls, NULL))
		_exit(EXIT_FAILURE);
	for (unsigned i = 0; i < FILES; i++)
		f[i].fd = fd[i];
	/* A number needs no entry. */
	if (number(c->qemu.user, &id))
		add_id(out->qemu.uid, &out->qemu.uids, id);
	if (number(c->qemu.group, &id))
		add_id(out->qemu.gid, &out->qemu.gids, id);
	read_ranges(&f[SUBUID], out, c->uid_base);
	read_users(&f[PASSWD], out, c);
	read_groups(&f[GROUP], out, c);
	_exit(EXIT_SUCCESS);
}

/* 0 or -errno. What isn't there is empty. */
static int
ask(const struct conf *c, struct names *out)
{
	int fd[FILES];
	int pidfd = -1;
	int status = -1;
	pid_t pid;

	for (unsigned i = 0; i < FILES; i++)
		fd[i] = open(files[i], O_RDONLY | O_CLOEXEC);
	pid = fork();
	if (pid == 0)
		read_all(c, fd, out);
	for (unsigned i = 0; i < FILES; i++)
		if (fd[i] >= 0)
			close(fd[i]);
	if (pid < 0)
		return -errno;
	pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (pidfd < 0 || launcher_collect(pid, pidfd, &status)) {
		kill(pid, SIGKILL);
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			;
	}
	if (pidfd >= 0)
		close(pidfd);
	return status ? -ENOEXEC : 0;
}

/* The engine's user and its socket's group. NULL, or a sentence; *line is where its cause stands. */
static const char *
check(struct conf *c, const struct names *n, int *line, char text[200])
{
	*line = c->user_line;
	if (c->user[0] && !n->engine.found)
		snprintf(text, 200, "user: '%s' is not in /etc/passwd", c->user);
	else if (c->user[0] && !n->engine.uid)
		snprintf(text, 200, "user: '%s' is root: it must be another", c->user);
	else if (c->user[0] && n->engine.uid == NOBODY)
		snprintf(text, 200,
		    "user: '%s' is the user of others as well, any of whom could end vfund: leave this key out, or "
		    "name "
		    "a user of vfund's own",
		    c->user);
	else if (c->group[0] && !n->group_found)
		snprintf(text, 200, "group: '%s' is not in /etc/group", c->group);
	else if (c->connect[0] && (!n->watcher.found || !n->watcher.uid))
		snprintf(text, 200, "watcher: '%s' is %s: it must be another", c->watcher,
		    n->watcher.found ? "root" : "not in /etc/passwd, where libvirtd looks for it");
	else if (n->clash[0])
		snprintf(text, 200, "uid-base: %s has uids between %u and %u, which must be vfund's alone", n->clash,
		    c->uid_base, c->uid_base + UIDS - 1);
	else
		return NULL;
	if (!c->user[0] || text[0] != 'u' || n->clash[0])
		*line = 0;
	return text;
}

/* What the process says is bounded, whatever it was made to say. */
static void
adopt(struct conf *c, const struct names *n)
{
	c->uid = c->user[0] ? n->engine.uid : c->uid_base + UID_ENGINE;
	c->gid = c->user[0] ? n->engine.gid : c->uid_base + UID_ENGINE;
	c->watcher_uid = n->watcher.uid;
	c->watcher_gid = n->watcher.gid;
	c->control_gid = c->group[0] ? n->group : 0;
	c->qemu.uids = n->qemu.uids < CONF_QEMU_MAX ? n->qemu.uids : CONF_QEMU_MAX;
	c->qemu.gids = n->qemu.gids < CONF_QEMU_MAX ? n->qemu.gids : CONF_QEMU_MAX;
	memcpy(c->qemu.uid, n->qemu.uid, sizeof(c->qemu.uid));
	memcpy(c->qemu.gid, n->qemu.gid, sizeof(c->qemu.gid));
	c->ranges = n->ranges < CONF_RANGES_MAX ? n->ranges : CONF_RANGES_MAX;
	memcpy(c->range, n->range, sizeof(c->range));
}

int
names_read(struct conf *c, conf_complain *complain, void *arg)
{
	struct names *n = mmap(NULL, sizeof(*n), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	char text[200];
	const char *fault;
	int line = 0;
	int r = n == MAP_FAILED ? -errno : ask(c, n);

	if (r) {
		snprintf(text, sizeof(text), "/etc/passwd, /etc/group and /etc/subuid can't be read: %s", strerror(-r));
		fault = text;
	} else {
		fault = check(c, n, &line, text);
		adopt(c, n);
	}
	if (n != MAP_FAILED)
		munmap(n, sizeof(*n));
	if (fault)
		complain(arg, line, fault);
	return fault != NULL;
}
