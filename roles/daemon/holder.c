/* SPDX-License-Identifier: MIT
 *
 * holder.c - where QEMU finds a VM's ivshmem memory: <run>/vmcli/VM/ivshmem leads to a descriptor in /proc
 *
 * That of the launcher, if QEMU is vfund's user: no other may follow it. Else that of a process of QEMU's user
 * (roles/hold.c), which lives as long as the VM is known; the path is there when QEMU may open it. QEMU opens it once,
 * so that the process may end without harm to a VM that runs; it is then started again, but not if it ended within a
 * second, which says that it can't be started or that somebody of QEMU's user kills it.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../common/hold.h"
#include "../common/log.h"
#include "launcher.h"

#define LIFE_MS 1000

static const struct conf_vm *
conf_of(const struct vm *vm)
{
	return &vm->l->conf->vm[vm - vm->l->vm];
}

/* Under another name until it has its label. */
static int
make_link(const struct vm *vm, pid_t pid, int fd)
{
	const char *label = vm->qemu->file_label;
	int dir = vm->l->dir;
	char path[PATH_MAX];
	char made[PATH_MAX];
	char target[64];
	int r;

	snprintf(path, sizeof(path), "vmcli/%s/ivshmem", conf_of(vm)->id);
	snprintf(made, sizeof(made), "vmcli/%s/new", conf_of(vm)->id);
	snprintf(target, sizeof(target), "/proc/%d/fd/%d", (int)pid, fd);
	(void)unlinkat(dir, made, 0);
	if (symlinkat(target, dir, made) < 0)
		return -errno;
	r = label[0] ? label_file(dir, made, label) : 0;
	if (r)
		label_failed(conf_of(vm)->name, "path of the ivshmem memory", label, r);
	return renameat(dir, made, dir, path) < 0 ? -errno : 0;
}

static void on_exit_(struct loop_src *src, uint32_t events);

static void
close_ready(struct vm *vm)
{
	struct loop_src *ready = &vm->bar.holder.ready;

	if (ready->fd < 0)
		return;
	loop_del(&vm->l->loop, ready);
	close(ready->fd);
	ready->fd = -1;
}

/* It has closed its end of the pipe: QEMU may come. Or it has died, which its exit tells. */
static void
on_ready(struct loop_src *src, uint32_t events)
{
	struct vm *vm = loop_container(src, struct vm, bar.holder.ready);
	int r;

	(void)events;
	close_ready(vm);
	r = make_link(vm, vm->bar.holder.pid, HOLD_MEMORY_FD);
	if (r)
		log_err("VM %s: its ivshmem memory has no path: %s", conf_of(vm)->name, strerror(-r));
}

static int
spawn(struct vm *vm)
{
	struct holder *h = &vm->bar.holder;
	char uid[16], gid[16], optional[16];
	const char *argv[] = { "vfun-hold", conf_of(vm)->name, uid, gid, optional, vm->qemu->label, NULL };
	int ends[2];
	int r;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;

	snprintf(uid, sizeof(uid), "%u", vm->qemu->uid);
	snprintf(gid, sizeof(gid), "%u", vm->qemu->gid);
	snprintf(optional, sizeof(optional), "%u", vm->l->conf->optional);
	h->pid = launcher_spawn(vm->l, argv, (const int[]){ vm->bar.fd, ends[1] }, 2, &h->exit.fd);
	close(ends[1]);
	h->ready = (struct loop_src){ .fd = ends[0], .fn = on_ready };
	if (h->pid < 0) {
		close_ready(vm);
		r = h->pid;
		h->pid = 0;
		return r;
	}
	h->since = launcher_ms();
	h->exit.fn = on_exit_;
	r = loop_add(&vm->l->loop, &h->exit, EPOLLIN);
	return r ? r : loop_add(&vm->l->loop, &h->ready, EPOLLIN);
}

static void
collect(struct vm *vm)
{
	struct holder *h = &vm->bar.holder;

	while (waitpid(h->pid, NULL, 0) < 0 && errno == EINTR)
		;
	close_ready(vm);
	h->pid = 0;
	loop_del(&vm->l->loop, &h->exit);
	close(h->exit.fd);
}

static void
on_exit_(struct loop_src *src, uint32_t events)
{
	struct vm *vm = loop_container(src, struct vm, bar.holder.exit);
	const char *name = conf_of(vm)->name;
	int r;

	(void)events;
	collect(vm);
	if (launcher_ms() - vm->bar.holder.since < LIFE_MS) {
		log_err("VM %s: what holds its ivshmem memory ends at once: it won't start any more", name);
		return;
	}
	log_warn("VM %s: what holds its ivshmem memory has ended; it is started again", name);
	r = spawn(vm);
	if (r)
		log_err("VM %s: what holds its ivshmem memory can't be started: %s", name, strerror(-r));
}

int
holder_start(struct vm *vm)
{
	vm->bar.holder = (struct holder){ .ready.fd = -1 };
	if (!shares_stranger(vm->l, vm->qemu->uid))
		return make_link(vm, getpid(), vm->bar.fd);
	return spawn(vm);
}

void
holder_end(struct vm *vm)
{
	if (!vm->bar.holder.pid)
		return;
	kill(vm->bar.holder.pid, SIGKILL);
	collect(vm);
}
