/* SPDX-License-Identifier: MIT
 *
 * domains.c - libvirt's domains as VMs: those that have an element of vfun's in their metadata
 *
 * Theory of operation
 *
 * vfund itself doesn't talk to libvirt: a process of the host half does, reading only, as a user without rights, and
 * says in fixed-size messages (virtd.h) which domains there are and what their elements say. [libvirt] of vfun.conf is
 * the upper bound of that: functions, instances, memory. Each such domain is a VM in the table behind those of
 * vfun.conf, with the domain's uuid as its clientID, and its socket is there for as long as the domain is defined,
 * since QEMU connects to it before libvirt tells anybody that the domain starts. From there on it is a VM like any
 * other: what QEMU does is seen at the socket.
 *
 *   (not in use) --DOMAIN, or remembered--> in use --DOMAIN: functions and quotas--> in use
 *   in use --GONE, or not named between BEGIN and END--> (not in use)
 *
 * Domains are remembered across starts of vfund (remember.c), since libvirtd starts those that are autostarted before
 * it answers. What the socket and the memory were made for (QEMU's user and labels, the size of the device) may have
 * changed since then: as long as no QEMU is connected they are made anew.
 *
 * A watcher that ends, as with the libvirtd that it talks to it doesn't, is started again after a while; until then
 * nothing changes.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../common/fd.h"
#include "../common/log.h"
#include "../common/virtd.h"
#include "../roles.h"
#include "launcher.h"

#define AGAIN_S 30 /* after a watcher that ended */
#define FOLDER_S 2 /* libvirt's sockets have no folder, or another one */
#define LABEL_CHARS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.:,-"

static int named[CONF_VMS_MAX];			/* since BEGIN */
static struct virtd_msg said[CONF_VMS_MAX];	/* the last word of each; kind 0: not in use */
static struct virtd_msg made_for[CONF_VMS_MAX]; /* what its socket and memory were made for */
static int changed;				/* since it was saved */
static int listing;				/* between BEGIN and END */

static void
tell_engine(struct launcher *l, unsigned i)
{
	struct keep_msg msg = { .type = KEEP_VM, .u.vm = { .index = i, .conf = l->conf->vm[i] } };

	(void)kept_event(&l->engine, &msg, NULL, 0);
}

void
domains_introduce(struct kept *engine)
{
	struct launcher *l = engine->l;

	for (unsigned i = l->conf->vms; i < CONF_VMS_MAX; i++)
		if (l->conf->vm[i].name[0])
			tell_engine(l, i);
}

static int
find(const struct launcher *l, const char *uuid)
{
	for (unsigned i = l->conf->vms; i < CONF_VMS_MAX; i++)
		if (l->conf->vm[i].name[0] && !strcmp(l->conf->vm[i].id, uuid))
			return (int)i;
	return -1;
}

static int
find_free(const struct launcher *l)
{
	for (unsigned i = l->conf->vms; i < CONF_VMS_MAX; i++)
		if (!l->conf->vm[i].name[0])
			return (int)i;
	return -1;
}

static int
terminated(const char *s, size_t size)
{
	return memchr(s, 0, size) != NULL;
}

/* "user:role:type:level", or "" */
static int
label_ok(const char label[VIRTD_LABEL_MAX])
{
	size_t n = strnlen(label, VIRTD_LABEL_MAX);

	return n < VIRTD_LABEL_MAX && strspn(label, LABEL_CHARS) == n;
}

static int
sane(const struct virtd_msg *m)
{
	return terminated(m->uuid, sizeof(m->uuid)) && terminated(m->name, sizeof(m->name)) &&
	       terminated(m->functions, sizeof(m->functions)) && terminated(m->text, sizeof(m->text)) &&
	       label_ok(m->label) && label_ok(m->file_label) &&
	       ((m->kind != VIRTD_DOMAIN && m->kind != VIRTD_GONE) || conf_uuid_ok(m->uuid));
}

/* The domain's name, as a client may have it: no two clients have the same, and none has that of a user. */
static void
make_name(const struct launcher *l, unsigned self, const struct virtd_msg *m, char name[VFUN_NAME_MAX])
{
	int taken = 0;

	snprintf(name, VFUN_NAME_MAX, "%.*s", VFUN_NAME_MAX - 1, m->name);
	for (char *c = name; *c; c++)
		if (!isalnum((unsigned char)*c) && !strchr("_-.", *c))
			*c = '_';
	for (unsigned i = 0; i < CONF_CLIENTS; i++)
		taken |= i != self && !strcmp(l->conf->vm[i].name, name);
	if (taken || !conf_name_ok(name) || !strncmp(name, "uid-", 4))
		snprintf(name, VFUN_NAME_MAX, "domain-%.23s", m->uuid);
}

/* Those that it asks for, as far as [libvirt] allows; if it doesn't say, all of these. */
static uint64_t
functions_of(const struct launcher *l, const struct virtd_msg *m, const char *name)
{
	const struct conf_vm *bound = &l->conf->vm[CONF_LIBVIRT];
	char text[VIRTD_FUNCTIONS_MAX];
	uint64_t functions = 0;
	char *save = NULL;

	snprintf(text, sizeof(text), "%s", m->functions);
	for (char *s = strtok_r(text, " ", &save); s; s = strtok_r(NULL, " ", &save)) {
		int i = conf_function_index(l->conf, s);

		if (i >= 0 && (bound->functions >> i & 1))
			functions |= 1ull << i;
		else
			log_warn("domain %s: [libvirt] of vfun.conf doesn't have function %.40s", name, s);
	}
	return m->functions[0] ? functions : bound->functions;
}

/* Its device may have as much as [libvirt] allows for all its instances, as a power of two. */
static uint64_t
ivshmem_of(const struct launcher *l, const struct virtd_msg *m, const char *name)
{
	uint64_t bound = l->conf->vm[CONF_LIBVIRT].memory;

	if (!(m->ivshmem & (m->ivshmem - 1)) && m->ivshmem / 2 < bound)
		return m->ivshmem;
	log_warn(
	    "domain %s: its ivshmem device of %llu bytes is more than memory in [libvirt] of vfun.conf: it has none, "
	    "and can't start",
	    name, (unsigned long long)m->ivshmem);
	return 0;
}

static struct conf_vm
conf_of(const struct launcher *l, unsigned i, const struct virtd_msg *m)
{
	const struct conf_vm *bound = &l->conf->vm[CONF_LIBVIRT];
	struct conf_vm c = *bound;

	make_name(l, i, m, c.name);
	snprintf(c.id, sizeof(c.id), "%s", m->uuid);
	c.functions = functions_of(l, m, c.name);
	if (m->instances && m->instances < c.instances)
		c.instances = m->instances;
	if (m->memory && m->memory < c.memory)
		c.memory = m->memory;
	c.ivshmem = m->ivshmem ? ivshmem_of(l, m, c.name) : 0;
	return c;
}

static void
forget(struct launcher *l, unsigned i)
{
	shares_end_vm(l, i);
	memset(&l->conf->vm[i], 0, sizeof(l->conf->vm[i]));
	memset(&said[i], 0, sizeof(said[i]));
	changed = 1;
	tell_engine(l, i);
}

static void
gone(struct launcher *l, unsigned i)
{
	log_info("domain %s: its element of vfun's, or it itself, is gone", l->conf->vm[i].name);
	forget(l, i);
}

/* Its socket or its memory is another's, or another. */
static int
is_stale(const struct launcher *l, unsigned i, const struct virtd_msg *m)
{
	const struct virtd_msg *was = &made_for[i];

	return l->vm[i].share.state < 0 && (m->uid != was->uid || m->gid != was->gid || m->ivshmem != was->ivshmem ||
					       strcmp(m->label, was->label) || strcmp(m->file_label, was->file_label));
}

static void
note(unsigned i, const struct virtd_msg *m)
{
	struct virtd_msg now = *m;

	now.state = 0;
	if (!memcmp(&now, &said[i], sizeof(now)))
		return;
	said[i] = now;
	changed = 1;
}

static int
is_one_of(uint32_t id, const uint32_t *ids, unsigned n)
{
	while (n && ids[n - 1] != id)
		n--;
	return n != 0;
}

/* Whom the socket and the memory will belong to. Only those whom vfun.conf or this host knows for it: whoever took over
 * what watches libvirt could name anybody. */
static void
check_user(const struct launcher *l, struct virtd_msg *m)
{
	const struct conf_qemu *q = &l->conf->qemu;

	if (!shares_stranger(l, m->uid) || (is_one_of(m->uid, q->uid, q->uids) && is_one_of(m->gid, q->gid, q->gids)))
		return;
	if (find(l, m->uuid) < 0)
		log_warn(
		    "domain %.40s: its QEMU is said to run as user %u, group %u, which it may not as far as vfun.conf "
		    "knows: see user and group of [libvirt]",
		    m->name, m->uid, m->gid);
	m->uid = m->gid = UINT32_MAX;
}

static void
domain(struct launcher *l, struct virtd_msg *m)
{
	int known = find(l, m->uuid);
	struct conf_vm c;
	int i;

	check_user(l, m);
	if (known >= 0 && is_stale(l, (unsigned)known, m)) {
		forget(l, (unsigned)known);
		known = -1;
	}
	i = known >= 0 ? known : find_free(l);
	if (i < 0) {
		log_warn("domain %.40s: there are %d VMs already", m->name, CONF_VMS_MAX);
		return;
	}
	named[i] = 1;
	c = conf_of(l, (unsigned)i, m);
	if (known >= 0)
		c.ivshmem = l->conf->vm[i].ivshmem; /* its memory is made once */
	note((unsigned)i, m);
	if (!memcmp(&c, &l->conf->vm[i], sizeof(c)))
		return;
	l->conf->vm[i] = c;
	if (known < 0)
		made_for[i] = *m;
	if (known < 0 && shares_listen_vm(l, (unsigned)i, &made_for[i])) {
		forget(l, (unsigned)i);
		return;
	}
	if (known < 0 && l->system_mode && m->uid == UINT32_MAX)
		log_warn("domain %s: who its QEMU runs as isn't known: only root's reaches its share", c.name);
	log_info("domain %s, %s: %d functions, %u instances, %llu bytes", c.name, c.id,
	    __builtin_popcountll(c.functions), c.instances, (unsigned long long)c.memory);
	tell_engine(l, (unsigned)i);
}

static void
sweep(struct launcher *l)
{
	for (unsigned i = l->conf->vms; i < CONF_VMS_MAX; i++)
		if (l->conf->vm[i].name[0] && !named[i])
			gone(l, i);
}

static void
save(struct launcher *l)
{
	if (!changed || listing)
		return;
	changed = 0;
	remember_save(l, said);
}

static void
obey(struct launcher *l, struct virtd_msg *m)
{
	int i;

	switch (m->kind) {
	case VIRTD_BEGIN:
		listing = 1;
		memset(named, 0, sizeof(named));
		log_info("libvirt, %s: connected", l->conf->connect);
		break;
	case VIRTD_DOMAIN:
		domain(l, m);
		break;
	case VIRTD_END:
		listing = 0;
		sweep(l);
		break;
	case VIRTD_GONE:
		i = find(l, m->uuid);
		if (i >= 0)
			gone(l, (unsigned)i);
		break;
	case VIRTD_LOST:
		listing = 0;
		log_warn("libvirt, %s: %s", l->conf->connect, m->text);
		break;
	}
	save(l);
}

void
domains_left(struct launcher *l, unsigned i)
{
	struct virtd_msg m = said[i];

	if (m.kind == VIRTD_DOMAIN)
		check_user(l, &m);
	if (l->stopping || m.kind != VIRTD_DOMAIN || !is_stale(l, i, &m))
		return;
	domain(l, &m);
	save(l);
}

static void
recall(struct launcher *l)
{
	const struct virtd_msg *m;
	unsigned n = remember_load(l, &m);

	for (unsigned i = 0; i < n; i++, m++) {
		struct virtd_msg copy = *m; /* what is read and what is written share their memory */

		if (copy.kind == VIRTD_DOMAIN && sane(&copy))
			domain(l, &copy);
		else
			log_warn("a remembered domain makes no sense: it counts for nothing");
	}
	changed = 0;
}

static void
on_message(struct loop_src *src, uint32_t events)
{
	struct launcher *l = loop_container(src, struct launcher, watcher.sock);
	struct virtd_msg m;
	long n = fd_recv(src->fd, &m, sizeof(m), NULL, 0, NULL);

	(void)events;
	if (n == -EAGAIN)
		return;
	if (n == (long)sizeof(m) && sane(&m)) {
		obey(l, &m);
		return;
	}
	/* At its end, or making no sense: in either case its exit is what counts. */
	if (n > 0)
		kill(l->watcher.pid, SIGKILL);
	loop_del(&l->loop, src);
	closer_put(l, src->fd, NULL);
	src->fd = -1;
}

static void start(struct launcher *l);
static void again_in(struct launcher *l, int seconds);

static void
on_again(struct loop_src *src, uint32_t events)
{
	struct launcher *l = loop_container(src, struct launcher, watcher.again);
	uint64_t times;

	(void)events;
	if (read(src->fd, &times, sizeof(times)) == (ssize_t)sizeof(times) && !l->watcher.pid && !l->stopping)
		start(l);
}

static void
on_exit_(struct loop_src *src, uint32_t events)
{
	struct launcher *l = loop_container(src, struct launcher, watcher.exit);
	int status = 0;

	(void)events;
	while (waitpid(l->watcher.pid, &status, 0) < 0 && errno == EINTR)
		;
	l->watcher.pid = 0;
	loop_del(&l->loop, src);
	close(src->fd);
	if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_NO_LIBVIRT) {
		log_warn("libvirt isn't watched: see above");
		return;
	}
	if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_LOST) {
		again_in(l, FOLDER_S);
		return;
	}
	log_warn("what watches libvirt ended: %s %d; once more in %d s", WIFSIGNALED(status) ? "signal" : "status",
	    WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), AGAIN_S);
	again_in(l, AGAIN_S);
}

/* What libvirt's library does, besides loading. */
static const struct sandbox_call calls[] = {
	SANDBOX_CALL_IF(socket, "to libvirtd", 0, UINT32_MAX, 1, AF_UNIX),
	SANDBOX_CALL(connect, "to libvirtd: there is no other socket"),
	SANDBOX_CALL(sendto, "requests, and what vfund is told"),
	SANDBOX_CALL(sendmsg, "requests"),
	SANDBOX_CALL(recvfrom, "answers; has vfund gone?"),
	SANDBOX_CALL(recvmsg, "answers"),
	SANDBOX_CALL(writev, "requests"),
	SANDBOX_CALL(readv, "answers"),
	SANDBOX_CALL(getsockname, "the socket's name"),
	SANDBOX_CALL(getpeername, "the same"),
	SANDBOX_CALL(getsockopt, "the same"),
	SANDBOX_CALL(setsockopt, "the same"),
	SANDBOX_CALL(fcntl, "the socket doesn't block"),
	SANDBOX_CALL(poll, "the event loop"),
	SANDBOX_CALL(ppoll, "the same"),
	SANDBOX_CALL(eventfd2, "the same"),
	SANDBOX_CALL(pipe2, "the same"),
	SANDBOX_CALL(close_range, "is there this call? GLib asks"),
	SANDBOX_CALL(dup, "GLib"),
	SANDBOX_CALL(clock_nanosleep, "a moment between two tries"),
	SANDBOX_CALL(getuid, "who am I"),
	SANDBOX_CALL(geteuid, "the same"),
	SANDBOX_CALL(getgid, "the same"),
	SANDBOX_CALL(getegid, "the same"),
	SANDBOX_CALL(getresuid, "the same"),
	SANDBOX_CALL(getresgid, "the same"),
	SANDBOX_CALL(getgroups, "the same"),
	SANDBOX_CALL(getpid, "the same, for its log"),
	SANDBOX_CALL(gettid, "the same"),
	SANDBOX_CALL(capget, "libcap-ng looks at itself"),
	SANDBOX_CALL(prctl, "the same; and the death signal. Nothing is gained by it without privileges"),
	SANDBOX_CALL(uname, "libvirt's version of this host"),
	SANDBOX_CALL(sysinfo, "number of processors"),
	SANDBOX_CALL(sched_getaffinity, "the same"),
	SANDBOX_CALL(get_mempolicy, "libnuma looks at itself"),
	SANDBOX_CALL(set_mempolicy, "libnuma tries what there is"),
	SANDBOX_CALL(getdents64, "libnuma looks for nodes"),
	SANDBOX_CALL(statfs, "libselinux looks for its file system"),
	SANDBOX_CALL(fstatfs, "the same"),
	SANDBOX_CALL(statx, "the same"),
	SANDBOX_CALL_IF(prlimit64, "a thread's stack", 2, UINT32_MAX, 1, 0),
	SANDBOX_CALL_IF(clone, "threads; no process", 0, CLONE_THREAD, 1, CLONE_THREAD),
	SANDBOX_CALL_FAILS(clone3, "the C library then takes clone", ENOSYS),
	SANDBOX_CALL(set_robust_list, "a thread"),
	SANDBOX_CALL(rseq, "a thread"),
	SANDBOX_CALL(sched_yield, "a thread"),
	SANDBOX_CALL(exit, "a thread ends"),
	SANDBOX_END,
};

/* Where libvirtd's socket is or will be: its folder, since each libvirtd makes the socket anew. */
static void
socket_folder(const struct launcher *l, char path[PATH_MAX])
{
	const char *given = strstr(l->conf->connect, "socket=/");
	const char *runtime = getenv("XDG_RUNTIME_DIR");
	const char *home = getenv("HOME");
	char *slash;

	if (given) {
		given += strlen("socket=");
		snprintf(path, PATH_MAX, "%.*s", (int)strcspn(given, "&"), given);
		slash = strrchr(path, '/');
		*(slash > path ? slash : slash + 1) = '\0';
	} else if (l->system_mode) {
		snprintf(path, PATH_MAX, "/run/libvirt");
	} else if (runtime && *runtime) {
		snprintf(path, PATH_MAX, "%s/libvirt", runtime);
	} else {
		snprintf(path, PATH_MAX, "%s/.cache/libvirt", home ? home : "");
	}
}

/* The child. libvirt looks its own user up. */
static _Noreturn void
become_watcher(const struct launcher *l, int sock, const char *folder)
{
	static struct view view;
	char home[PATH_MAX], runtime[PATH_MAX], user[160];
	const char *env[] = { home, runtime, NULL };
	const char *argv[] = { "vfun-half", "libvirt-watch", l->conf->connect, folder, NULL };
	const struct half_job job = { .argv = argv,
		.env = env,
		.fds = { sock },
		.nfds = 1,
		.out = -1,
		.uid = l->conf->watcher_uid,
		.gid = l->conf->watcher_gid,
		.optional = l->conf->optional,
		.calls = calls };

	snprintf(home, sizeof(home), "HOME=%s", !l->system_mode && getenv("HOME") ? getenv("HOME") : "/");
	snprintf(runtime, sizeof(runtime), "XDG_RUNTIME_DIR=%s",
	    !l->system_mode && getenv("XDG_RUNTIME_DIR") ? getenv("XDG_RUNTIME_DIR") : "");
	snprintf(user, sizeof(user), "%s:x:%u:%u::/:/\n", l->system_mode ? l->conf->watcher : "vfun",
	    l->system_mode ? job.uid : geteuid(), l->system_mode ? job.gid : getegid());
	view_add(&view, VIEW_TEXT, "etc/passwd", user);
	view_add(&view, VIEW_TEXT, "etc/nsswitch.conf", "passwd: files\n");
	view_add_files(&view, "/etc/selinux");
	view_add(&view, VIEW_FILES, folder + 1, folder);
	view_add(&view, VIEW_LINK, "var/run", "/run");
	half_run(l->half, &job, &view);
}

static void
again_in(struct launcher *l, int seconds)
{
	const struct itimerspec later = { .it_value.tv_sec = seconds };

	(void)timerfd_settime(l->watcher.again.fd, 0, &later, NULL);
}

static void
start(struct launcher *l)
{
	struct watcher *w = &l->watcher;
	char folder[PATH_MAX];
	struct stat st;
	int sock[2];

	socket_folder(l, folder);
	if (stat(folder, &st) < 0 || !S_ISDIR(st.st_mode)) {
		if (!w->waits)
			log_warn("libvirt, %s: there is no %s yet: is libvirtd running?", l->conf->connect, folder);
		w->waits = 1;
		again_in(l, FOLDER_S);
		return;
	}
	w->waits = 0;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sock) < 0) {
		log_err("libvirt isn't watched: %s", strerror(errno));
		return;
	}
	w->pid = sandbox_fork(!l->system_mode, l->conf->optional);
	if (w->pid == 0)
		become_watcher(l, sock[1], folder);
	close(sock[1]);
	(void)fcntl(sock[0], F_SETFL, O_NONBLOCK);
	w->sock = (struct loop_src){ .fd = sock[0], .fn = on_message };
	w->exit = (struct loop_src){ .fd = w->pid > 0 ? (int)syscall(SYS_pidfd_open, w->pid, 0) : -1, .fn = on_exit_ };
	if (w->exit.fd < 0 || loop_add(&l->loop, &w->exit, EPOLLIN) || loop_add(&l->loop, &w->sock, EPOLLIN))
		log_err("libvirt isn't watched: %s", strerror(errno));
}

void
domains_start(struct launcher *l)
{
	l->watcher.again = (struct loop_src){ .fd = -1, .fn = on_again };
	l->watcher.sock.fd = -1;
	if (!l->conf->connect[0])
		return;
	l->watcher.again.fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (l->watcher.again.fd < 0 || loop_add(&l->loop, &l->watcher.again, EPOLLIN)) {
		log_err("libvirt isn't watched: %s", strerror(errno));
		return;
	}
	recall(l);
	start(l);
}

void
domains_ask_again(struct launcher *l)
{
	if (l->watcher.pid > 0)
		kill(l->watcher.pid, SIGTERM);
}

void
domains_end(struct launcher *l)
{
	if (l->watcher.pid > 0) {
		kill(l->watcher.pid, SIGKILL);
		while (waitpid(l->watcher.pid, NULL, 0) < 0 && errno == EINTR)
			;
	}
	l->watcher.pid = 0;
}
