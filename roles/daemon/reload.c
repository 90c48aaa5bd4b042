/* SPDX-License-Identifier: MIT
 *
 * reload.c - vfun.conf read again while vfund runs (SIGHUP, vfun reload)
 *
 *   idle --reload_begin--> reading --no fault: adopt--> idle
 *                             \--a fault, or its death: one line, nothing is changed--> idle
 *   reading --SIGHUP--> reading, and once more after that
 *
 * A process of its own reads the file, and asks the programs what they are: that may take as long as it likes. It fills
 * memory that it shares with the launcher, sends the programs' descriptors, and ends.
 *
 * What is adopted is for instances to come; those that live stay what they are. Functions keep their numbers, by name;
 * new ones are put behind the others; those that vfun.conf doesn't have any more stay in the table as withdrawn, for
 * the instances that still have them. Of clients quotas and functions change. What was made when vfund started (VMs and
 * their devices, the network, users) needs a restart, which a line says.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../proto/plain.h"
#include "../common/fd.h"
#include "../common/log.h"
#include "launcher.h"

/* What the reading process and the launcher share. */
struct reading {
	struct conf conf;
	int faults;
	char first[VFUN_TEXT_MAX];
};

static void
note_fault(void *arg, int line, const char *fault)
{
	struct reading *r = arg;

	if (!r->faults++)
		snprintf(r->first, sizeof(r->first), "line %d: %s", line, fault);
	plain_text(r->first);
}

/* The process. */
static _Noreturn void
read_again(struct launcher *l, int sock)
{
	struct reading *r = l->reload.reading;
	int program[CONF_FUNCTIONS_MAX];
	sigset_t none;
	int n;

	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGTERM, SIG_DFL);
	l->conf = &r->conf;
	n = daemon_load(l, &r->conf, program, l->conf_path, 0, note_fault, r);
	if (n < 0) {
		snprintf(r->first, sizeof(r->first), "it can't be read: %s", strerror(-n));
		r->faults = 1;
	}
	for (int i = 0; !n && i < (int)r->conf.functions; i++)
		if (program[i] >= 0 && fd_send(sock, &i, sizeof(i), &program[i], 1))
			_exit(EXIT_FAILURE);
	_exit(EXIT_SUCCESS);
}

/* The functions' numbers, new to old. 0, or -ENOSPC. */
static int
place(struct conf *to, const struct conf *from, unsigned number[CONF_FUNCTIONS_MAX])
{
	for (unsigned i = 0; i < to->functions; i++)
		to->function[i].withdrawn = 1;
	for (unsigned i = 0; i < from->functions; i++) {
		unsigned k = 0;

		while (k < to->functions && strcmp(to->function[k].name, from->function[i].name))
			k++;
		if (k == CONF_FUNCTIONS_MAX)
			return -ENOSPC;
		if (k == to->functions)
			to->functions++;
		to->function[k] = from->function[i];
		number[i] = k;
	}
	return 0;
}

static uint64_t
renumber(uint64_t functions, const unsigned number[CONF_FUNCTIONS_MAX], unsigned n)
{
	uint64_t r = 0;

	for (unsigned i = 0; i < n; i++)
		if (functions >> i & 1)
			r |= 1ull << number[i];
	return r;
}

static const struct conf_vm *
by_name(const struct conf *c, const char *name, unsigned first, unsigned n)
{
	for (unsigned i = first; i < first + n; i++)
		if (!strcmp(c->vm[i].name, name))
			return &c->vm[i];
	return NULL;
}

/* Quotas and functions of clients [first..first + n): none of either for those that vfun.conf doesn't have any more. 1
 * if something takes a restart. */
static int
update_clients(struct conf *to, unsigned first, unsigned n, const struct conf *from, unsigned from_n,
    const unsigned number[CONF_FUNCTIONS_MAX])
{
	int restart = 0;

	for (unsigned i = first; i < first + n; i++) {
		struct conf_vm *vm = &to->vm[i];
		const struct conf_vm *fresh = by_name(from, vm->name, first, from_n);

		vm->functions = fresh ? renumber(fresh->functions, number, from->functions) : 0;
		if (!fresh) {
			restart = 1;
			continue;
		}
		vm->memory = fresh->memory;
		vm->total_instances = fresh->total_instances;
		vm->total_memory = fresh->total_memory;
		vm->instances = fresh->instances;
		restart |= vm->window != fresh->window || vm->ivshmem != fresh->ivshmem ||
			   vm->direct_io != fresh->direct_io || strcmp(vm->key_file, fresh->key_file) ||
			   vm->connections != fresh->connections;
	}
	for (unsigned i = first; i < first + from_n; i++)
		restart |= !by_name(to, from->vm[i].name, first, n);
	return restart;
}

/* libvirt's domains, within what [libvirt] says now; more than they have they get when the watcher tells again. */
static void
bound_domains(struct conf *c)
{
	const struct conf_vm *bound = &c->vm[CONF_LIBVIRT];

	for (unsigned i = c->vms; i < CONF_VMS_MAX; i++) {
		struct conf_vm *vm = &c->vm[i];

		vm->functions &= bound->functions;
		vm->instances = vm->instances < bound->instances ? vm->instances : bound->instances;
		vm->memory = vm->memory < bound->memory ? vm->memory : bound->memory;
	}
}

static int
needs_restart(const struct conf *a, const struct conf *b)
{
	return strcmp(a->user, b->user) || strcmp(a->group, b->group) || a->uid != b->uid ||
	       a->control_gid != b->control_gid || a->uid_base != b->uid_base || a->optional != b->optional ||
	       strcmp(a->listen, b->listen) || strcmp(a->connect, b->connect) || strcmp(a->watcher, b->watcher) ||
	       a->net_connections != b->net_connections || a->net_idle != b->net_idle;
}

/* 0, or -ENOSPC and nothing is changed. *restart: 1: not all of it could be adopted. */
static int
adopt(struct launcher *l, const struct conf *fresh, int program[CONF_FUNCTIONS_MAX], int *restart)
{
	static struct conf c; /* large */
	unsigned number[CONF_FUNCTIONS_MAX];

	c = *l->conf;
	if (place(&c, fresh, number))
		return -ENOSPC;
	*restart = needs_restart(&c, fresh);
	*restart |= update_clients(&c, 0, c.vms, fresh, fresh->vms, number);
	*restart |= update_clients(&c, CONF_NET, c.nets, fresh, fresh->nets, number);
	(void)update_clients(&c, CONF_HOST, 1, fresh, 1, number);
	c.vm[CONF_LIBVIRT] = fresh->vm[CONF_LIBVIRT];
	c.vm[CONF_LIBVIRT].functions = renumber(fresh->vm[CONF_LIBVIRT].functions, number, fresh->functions);
	bound_domains(&c);
	c.memory = fresh->memory;
	c.instances = fresh->instances;
	c.qemu = fresh->qemu;
	c.ranges = fresh->ranges;
	memcpy(c.range, fresh->range, sizeof(c.range));
	*l->conf = c;
	for (unsigned i = 0; i < CONF_FUNCTIONS_MAX; i++) {
		if (l->program[i] >= 0)
			close(l->program[i]);
		l->program[i] = -1;
	}
	for (unsigned i = 0; i < fresh->functions; i++) {
		l->program[number[i]] = program[i];
		program[i] = -1;
		crashes_forget(&l->conf->function[number[i]]);
	}
	return 0;
}

/* To the engine: all of it, piece by piece. */
void
reload_introduce(struct kept *engine)
{
	const struct launcher *l = engine->l;
	const uint8_t *bytes = (const uint8_t *)l->conf;

	if (!l->reload.times)
		return;
	for (uint32_t at = 0; at < sizeof(*l->conf); at += KEEP_DATA_MAX) {
		struct keep_msg msg = { .type = KEEP_CONF, .slot = at };

		msg.len = sizeof(*l->conf) - at < KEEP_DATA_MAX ? (uint32_t)(sizeof(*l->conf) - at) : KEEP_DATA_MAX;
		memcpy(msg.u.data, bytes + at, msg.len);
		if (kept_event(engine, &msg, NULL, 0))
			return; /* its successor is told again */
	}
}

static void
tell(struct launcher *l, int done, const char *text)
{
	struct keep_msg msg = { .type = KEEP_RELOADED };

	msg.u.service.reason = done ? VFUN_OK : VFUN_R_CONF;
	snprintf(msg.u.service.text, sizeof(msg.u.service.text), "%s", text);
	if (done)
		log_info("reload: %s", text);
	else
		log_err("reload: %s", text);
	(void)kept_event(&l->engine, &msg, NULL, 0);
}

/* The process has ended. */
static void
conclude(struct launcher *l, int status)
{
	const struct reading *r = l->reload.reading;
	char text[VFUN_TEXT_MAX];
	int restart = 0;
	int done = 0;

	if (!WIFEXITED(status) || WEXITSTATUS(status)) {
		snprintf(text, sizeof(text), "reading %.60s again failed: nothing is changed", l->conf_path);
	} else if (r->faults) {
		snprintf(text, sizeof(text), "nothing is changed, faults: %d; %.70s", r->faults, r->first);
	} else if (adopt(l, &r->conf, l->reload.program, &restart)) {
		snprintf(text, sizeof(text),
		    "nothing is changed: with those before, more than %d functions: restart vfund", CONF_FUNCTIONS_MAX);
	} else {
		done = 1;
		l->reload.times++;
		reload_introduce(&l->engine);
		domains_ask_again(l);
		snprintf(text, sizeof(text), "%u function%s%s", r->conf.functions, r->conf.functions == 1 ? "" : "s",
		    restart ? "; what is new of VMs, libvirt, the network or users needs a restart of vfund" : "");
	}
	tell(l, done, text);
}

static void
drop(struct launcher *l)
{
	struct reload *re = &l->reload;

	loop_del(&l->loop, &re->sock);
	close(re->sock.fd);
	for (unsigned i = 0; i < CONF_FUNCTIONS_MAX; i++)
		if (re->program[i] >= 0)
			close(re->program[i]);
	munmap(re->reading, sizeof(struct reading));
	re->reading = NULL;
	re->pid = 0;
}

/* A program, or the end. */
static void
on_sock(struct loop_src *src, uint32_t events)
{
	struct launcher *l = loop_container(src, struct launcher, reload.sock);
	int status = 0;
	int nfds = 0;
	int fd = -1;
	int i;
	long n = fd_recv(src->fd, &i, sizeof(i), &fd, 1, &nfds);

	(void)events;
	if (n == -EAGAIN)
		return;
	if (n == (long)sizeof(i) && nfds == 1 && i >= 0 && i < CONF_FUNCTIONS_MAX && l->reload.program[i] < 0) {
		l->reload.program[i] = fd;
		return;
	}
	if (nfds && fd >= 0)
		close(fd);
	kill(l->reload.pid, n == 0 ? 0 : SIGKILL);
	while (waitpid(l->reload.pid, &status, 0) < 0 && errno == EINTR)
		;
	conclude(l, status);
	drop(l);
	if (l->reload.again)
		reload_signal(l);
}

int
reload_begin(struct launcher *l)
{
	struct reload *re = &l->reload;
	int sock[2];
	int r;

	if (re->pid)
		return -EBUSY;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sock) < 0)
		return -errno;
	re->reading = mmap(NULL, sizeof(struct reading), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	re->pid = re->reading == MAP_FAILED ? -1 : fork();
	if (re->pid == 0)
		read_again(l, sock[1]);
	r = re->pid < 0 ? -errno : 0;
	close(sock[1]);
	(void)fcntl(sock[0], F_SETFL, O_NONBLOCK);
	re->sock = (struct loop_src){ .fd = sock[0], .fn = on_sock };
	for (unsigned i = 0; i < CONF_FUNCTIONS_MAX; i++)
		re->program[i] = -1;
	if (!r)
		r = loop_add(&l->loop, &re->sock, EPOLLIN);
	if (!r)
		return 0;
	if (re->pid > 0) {
		reload_end(l);
		return r;
	}
	close(sock[0]);
	if (re->reading != MAP_FAILED)
		munmap(re->reading, sizeof(struct reading));
	re->reading = NULL;
	re->pid = 0;
	return r;
}

void
reload_signal(struct launcher *l)
{
	int r = reload_begin(l);

	l->reload.again = r == -EBUSY;
	if (r && r != -EBUSY)
		log_err("SIGHUP: %s can't be read again: %s", l->conf_path, strerror(-r));
	else
		log_info("SIGHUP: reading %s again%s", l->conf_path, r ? ", once that is over which is under way" : "");
}

void
reload_end(struct launcher *l)
{
	if (l->reload.pid <= 0)
		return;
	kill(l->reload.pid, SIGKILL);
	while (waitpid(l->reload.pid, NULL, 0) < 0 && errno == EINTR)
		;
	drop(l);
}
