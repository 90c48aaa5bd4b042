/* SPDX-License-Identifier: MIT
 *
 * shares.c - the launcher's side of the VMs: a socket per VM of vfun.conf, a share per connected QEMU
 *
 * A share is started when a QEMU connects, so a VM that isn't running costs a listening socket. One QEMU at a time: a
 * second one that connects is turned away, with a line of log, since two guests behind one device would see each
 * other's files.
 */
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../common/fd.h"
#include "../common/log.h"
#include "launcher.h"
#include "rate.h"

#define CONNECTS 16 /* of QEMUs to one VM within CONNECTS_MS; who comes then waits as long */
#define CONNECTS_MS 10000

#define AWAY_MAX 8 /* connections to one VM that were turned away and aren't closed yet */

static uint32_t
vm_index(const struct vm *vm)
{
	return (uint32_t)(vm - vm->l->vm);
}

/* Lines that a QEMU can cause as often as it likes. */
#define say(vm, level, ...) rate_say(vm_index(vm), 0, (vm)->l->conf->vm[vm_index(vm)].name, level, __VA_ARGS__)

/* A new channel between the engine and this share; both are told. Where one of them isn't there, its start will do it.
 */
static void
introduce(struct vm *vm)
{
	struct keep_msg msg = { .type = KEEP_PEER,
		.u.peer = { .vm = vm_index(vm), .pid = (uint32_t)vm->share.pid, .bar = vm->bar.id } };
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0) {
		say(vm, LOG_ERR_, "VM %s: no channel to the engine: %s", vm->share.name, strerror(errno));
		return;
	}
	/* The engine is sent descriptors by nobody but the launcher. */
	(void)fd_no_rights(pair[1]);
	if (kept_event(&vm->share, &msg, &pair[0], 1) == 0)
		(void)kept_event(&vm->l->engine, &msg, &pair[1], 1);
	/* Whoever has one of them may have written into the other. */
	closer_put(vm->l, pair[0], &vm->share);
	closer_put(vm->l, pair[1], &vm->share);
}

/* The record of a connected VM, for people. pid 0: remove it. */
static void
record(const struct vm *vm, pid_t pid)
{
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), "vmcli/%s/device", vm->l->conf->vm[vm_index(vm)].id);
	if (!pid) {
		(void)unlinkat(vm->l->dir, path, 0);
		return;
	}
	fd = openat(vm->l->dir, path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);
	if (fd < 0 || dprintf(fd, "share=%d\nwindow=%llu\n", (int)pid, (unsigned long long)vm->share.start.window) < 0)
		say(vm, LOG_WARN_, "VM %s: its record can't be written: %s", vm->share.name, strerror(errno));
	if (fd >= 0)
		close(fd);
}

static void
started(struct kept *share)
{
	struct vm *vm = loop_container(share, struct vm, share);

	introduce(vm);
	record(vm, share->pid);
}

static void
ended(struct kept *share)
{
	struct vm *vm = loop_container(share, struct vm, share);
	struct keep_msg msg = { .type = KEEP_PEER_GONE, .u.peer = { .vm = vm_index(vm) } };

	say(vm, LOG_INFO_, "VM %s is gone: its instances are released", share->name);
	record(vm, 0);
	bar_over(vm);
	kept_event(&vm->l->engine, &msg, NULL, 0);
	domains_left(vm->l, vm_index(vm));
}

static int
start_share(struct vm *vm, int sock)
{
	const struct conf_vm *conf = &vm->l->conf->vm[vm_index(vm)];
	struct kept *k = &vm->share;
	int r = kept_init(k);

	if (r)
		return r;
	k->l = vm->l;
	k->role = "vfun-share";
	k->name = conf->name;
	k->client = vm_index(vm);
	k->started = started;
	k->ended = ended;
	k->fds[0] = sock;
	strcpy(k->start.name, conf->name);
	k->start.window = conf->window;
	k->start.direct_io = conf->direct_io;
	k->start.verbose = (uint32_t)vm->l->verbose;
	k->start.optional = vm->l->conf->optional;
	k->start.uid = k->start.gid = vm->l->system_mode ? vm->l->conf->uid_base + UID_SHARE + vm_index(vm) : 0;
	bar_begin(vm);
	r = kept_start(k);
	if (r)
		k->fds[0] = -1;
	return r;
}

/* Connections that are turned away: what has been sent into one is closed with it. */
static struct vm *turning_away;

static void
turn_away(int sock)
{
	closer_put(turning_away->l, sock, &turning_away->share);
}

static void
listen_again(struct later *t)
{
	struct vm *vm = loop_container(t, struct vm, resume);

	(void)loop_mod(&vm->l->loop, &vm->listener, EPOLLIN);
}

/* Starting a share is work, which whoever has the socket could cause without end. 1: not now. */
static int
connects_too_often(struct vm *vm)
{
	int64_t now = launcher_ms();

	if (now - vm->connects_since > CONNECTS_MS) {
		vm->connects_since = now;
		vm->connects = 0;
	}
	if (vm->connects++ < CONNECTS)
		return 0;
	(void)loop_mod(&vm->l->loop, &vm->listener, 0);
	later_do(vm->l, &vm->resume, (int)(vm->connects_since + CONNECTS_MS - now) + 1, listen_again);
	return 1;
}

static void
on_connect(struct loop_src *src, uint32_t events)
{
	struct vm *vm = loop_container(src, struct vm, listener);
	const char *name = vm->l->conf->vm[vm_index(vm)].name;
	int sock;
	int r;

	(void)events;
	if (connects_too_often(vm))
		return;
	turning_away = vm;
	/* Who is turned away again and again waits until that is done. */
	if (closer_pending(vm->l, &vm->share) > AWAY_MAX || kept_hopeless(&vm->share)) {
		if (kept_hopeless(&vm->share))
			say(vm, LOG_WARN_,
			    "VM %s: its QEMU has sent too many descriptors whose close() doesn't end: nobody is "
			    "let in any more",
			    name);
		vm->deaf = 1;
		vm->l->attention = 1;
		(void)loop_mod(&vm->l->loop, src, 0);
		return;
	}
	sock = fd_accept(src->fd, &vm->l->spare, turn_away);
	if (sock < 0 && sock != -EAGAIN)
		say(vm, LOG_ERR_, "VM %s: a QEMU connects, but: %s", name, strerror(-sock));
	if (sock < 0)
		return;
	if (vm->share.state >= 0) {
		say(vm, LOG_WARN_, "VM %s: a second QEMU connects while the first is there: turned away", name);
		turn_away(sock);
		return;
	}
	r = start_share(vm, sock);
	if (r) {
		say(vm, LOG_ERR_, "VM %s: its share can't be started: %s", name, strerror(-r));
		kept_end(&vm->share);
		turn_away(sock);
		return;
	}
	say(vm, LOG_INFO_, "VM %s: a QEMU connects", name);
}

int
shares_look(struct launcher *l)
{
	int again = 0;

	for (unsigned i = 0; i < CONF_VMS_MAX; i++) {
		struct vm *vm = &l->vm[i];

		if (!l->conf->vm[i].name[0])
			continue;
		if (vm->share.state >= 0)
			again |= kept_look(&vm->share);
		if (!vm->deaf || kept_hopeless(&vm->share))
			continue;
		if (closer_pending(l, &vm->share) > AWAY_MAX) {
			again = 1;
			continue;
		}
		vm->deaf = 0;
		(void)loop_mod(&l->loop, &vm->listener, EPOLLIN);
	}
	return again;
}

int
shares_stranger(const struct launcher *l, uint32_t uid)
{
	return l->system_mode && uid != UINT32_MAX && uid;
}

/* The socket becomes QEMU's user's, where that is another. */
static int
hand_over(const struct launcher *l, const char *name, const struct virtd_msg *qemu)
{
	if (!shares_stranger(l, qemu->uid))
		return 0;
	return fchownat(l->dir, name, qemu->uid, qemu->gid, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}

/* With QEMU's labels, where it has some; without them it may be that nobody connects, which is no reason to end here.
 */
static int
listen_labelled(const struct launcher *l, const char *vm, const char *name, const struct virtd_msg *qemu)
{
	int r = qemu->label[0] ? label_sockets(qemu->label) : 0;
	int fd = rundir_listen(l, name, SOCK_STREAM, 0600);

	if (r)
		label_failed(vm, "socket", qemu->label, r);
	else if (qemu->label[0])
		(void)label_sockets("");
	r = fd >= 0 && qemu->file_label[0] ? label_file(l->dir, name, qemu->file_label) : 0;
	if (r)
		label_failed(vm, "socket's file", qemu->file_label, r);
	return fd;
}

int
shares_listen_vm(struct launcher *l, unsigned i, const struct virtd_msg *qemu)
{
	const struct conf_vm *conf = &l->conf->vm[i];
	struct vm *vm = &l->vm[i];
	char name[PATH_MAX];
	int fd;
	int r;

	snprintf(name, sizeof(name), "vmcli/%s", conf->id);
	if (mkdirat(l->dir, name, 0755) < 0) {
		log_err("can't make %s/%s: %s", l->run, name, strerror(errno));
		return -errno;
	}
	snprintf(name, sizeof(name), "vmcli/%s/share.sock", conf->id);
	fd = listen_labelled(l, conf->name, name, qemu);
	if (fd < 0)
		return fd;
	vm->l = l;
	vm->qemu = qemu;
	vm->share.state = -1;
	vm->deaf = 0;
	vm->listener = (struct loop_src){ .fd = fd, .fn = on_connect };
	r = hand_over(l, name, qemu);
	if (!r)
		r = bar_make(vm, conf->ivshmem);
	return r ? r : loop_add(&l->loop, &vm->listener, EPOLLIN);
}

int
shares_listen(struct launcher *l)
{
	static const struct virtd_msg own = { .uid = UINT32_MAX, .gid = UINT32_MAX };
	int r = 0;

	l->spare = dup(l->self);
	for (unsigned i = 0; !r && i < l->conf->vms; i++)
		r = shares_listen_vm(l, i, &own);
	return r;
}

void
shares_introduce(struct kept *engine)
{
	struct launcher *l = engine->l;

	for (unsigned i = 0; i < CONF_VMS_MAX; i++) {
		struct keep_msg gone = { .type = KEEP_PEER_GONE, .u.peer = { .vm = i } };

		if (!l->conf->vm[i].name[0])
			continue;
		/* The old engine may have died over the news that a VM has gone. */
		if (l->vm[i].share.state < 0)
			(void)kept_event(engine, &gone, NULL, 0);
		else if (l->vm[i].share.pid)
			introduce(&l->vm[i]);
	}
}

static void
close_vm(struct launcher *l, unsigned i)
{
	struct vm *vm = &l->vm[i];

	if (vm->share.state >= 0)
		log_warn("VM %s is still connected: its QEMU loses its device", l->conf->vm[i].name);
	kept_end(&vm->share);
	bar_end(vm);
	later_forget(l, &vm->resume);
	loop_del(&l->loop, &vm->listener);
	/* With those who wait to be let in. */
	closer_put(l, vm->listener.fd, &vm->share);
}

void
shares_end_vm(struct launcher *l, unsigned i)
{
	struct keep_msg gone = { .type = KEEP_PEER_GONE, .u.peer = { .vm = i } };
	static const char *const left[] = { "device", "share.sock", "ivshmem", "new", "" };
	char path[PATH_MAX];

	close_vm(l, i);
	(void)kept_event(&l->engine, &gone, NULL, 0);
	for (unsigned k = 0; k < sizeof(left) / sizeof(left[0]); k++) {
		snprintf(path, sizeof(path), "vmcli/%s/%s", l->conf->vm[i].id, left[k]);
		(void)unlinkat(l->dir, path, left[k][0] ? 0 : AT_REMOVEDIR);
	}
}

void
shares_end(struct launcher *l)
{
	for (unsigned i = 0; i < CONF_VMS_MAX; i++)
		if (l->conf->vm[i].name[0])
			close_vm(l, i);
}
