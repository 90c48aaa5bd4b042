/* SPDX-License-Identifier: MIT
 *
 * holder.c - where QEMU finds a VM's ivshmem memory: <run>/vmcli/VM/ivshmem leads to a descriptor in /proc
 *
 * That of the launcher, if QEMU is vfund's user: no other may follow it. Else that of a process of QEMU's user
 * (roles/hold.c), which lives as long as the VM is known; the path is there when QEMU may open it. QEMU opens it once,
 * so that the process may end without harm to a VM that runs. The path goes with it, since the number in it may be
 * another process's next, and it is started again: at once, or, if it ended within a few seconds, after a while that
 * doubles each time. Whoever has QEMU's user can kill it as often as he likes.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../common/hold.h"
#include "../common/log.h"
#include "launcher.h"

#define LIFE_MS 5000 /* one that lived longer than this is replaced at once */
#define AGAIN_MS 1000
#define AGAIN_MAX_MS 30000

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

/* After a while, and a longer one each time. */
static void
later(struct vm *vm)
{
	struct holder *h = &vm->bar.holder;
	struct itimerspec at = { 0 };

	h->wait_ms = !h->wait_ms ? AGAIN_MS : h->wait_ms * 2 > AGAIN_MAX_MS ? AGAIN_MAX_MS : h->wait_ms * 2;
	at.it_value.tv_sec = h->wait_ms / 1000;
	if (timerfd_settime(h->again.fd, 0, &at, NULL) < 0)
		log_err(
		    "VM %s: what holds its ivshmem memory isn't started again: %s", conf_of(vm)->name, strerror(errno));
}

static void
respawn(struct vm *vm)
{
	int r = spawn(vm);

	if (!r)
		return;
	log_err("VM %s: what holds its ivshmem memory can't be started: %s", conf_of(vm)->name, strerror(-r));
	later(vm);
}

static void
on_again(struct loop_src *src, uint32_t events)
{
	struct vm *vm = loop_container(src, struct vm, bar.holder.again);
	uint64_t times;

	(void)events;
	if (read(src->fd, &times, sizeof(times)) == (ssize_t)sizeof(times) && !vm->bar.holder.pid)
		respawn(vm);
}

static void
on_exit_(struct loop_src *src, uint32_t events)
{
	struct vm *vm = loop_container(src, struct vm, bar.holder.exit);
	struct holder *h = &vm->bar.holder;
	char path[PATH_MAX];

	(void)events;
	collect(vm);
	snprintf(path, sizeof(path), "vmcli/%s/ivshmem", conf_of(vm)->id);
	(void)unlinkat(vm->l->dir, path, 0);
	if (launcher_ms() - h->since >= LIFE_MS) {
		log_warn("VM %s: what holds its ivshmem memory has ended: started again", conf_of(vm)->name);
		h->wait_ms = 0;
		respawn(vm);
		return;
	}
	later(vm);
	log_warn("VM %s: what holds its ivshmem memory has ended at once: started again in %u s", conf_of(vm)->name,
	    h->wait_ms / 1000);
}

int
holder_start(struct vm *vm)
{
	struct holder *h = &vm->bar.holder;
	int r;

	*h = (struct holder){ .ready.fd = -1, .again.fd = -1 };
	if (!shares_stranger(vm->l, vm->qemu->uid))
		return make_link(vm, getpid(), vm->bar.fd);
	h->again =
	    (struct loop_src){ .fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK), .fn = on_again };
	r = h->again.fd < 0 ? -errno : loop_add(&vm->l->loop, &h->again, EPOLLIN);
	return r ? r : spawn(vm);
}

void
holder_end(struct vm *vm)
{
	struct holder *h = &vm->bar.holder;

	if (h->pid) {
		kill(h->pid, SIGKILL);
		collect(vm);
	}
	if (h->again.fd <= 0) /* 0: it was never begun */
		return;
	loop_del(&vm->l->loop, &h->again);
	close(h->again.fd);
	h->again.fd = -1;
}
