/* SPDX-License-Identifier: MIT
 *
 * services.c - the launcher's services: start, watch, end
 *
 *   STARTING --svc_ready, reason 0--> READY --exit, kill--> (gone: `gone` is written into datain, the engine is told,
 *                                                            and datain is held until it says KEEP_FREE: held.c)
 *      \--svc_ready with a reason, exit, time-out--> (gone: the engine is told why)
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../backends/backend.h"
#include "../../proto/plain.h"
#include "../common/fd.h"
#include "../common/log.h"
#include "../common/svc.h"
#include "launcher.h"
#include "rate.h"

#define WORKER_MEMORY (8ull << 20)

/* Lines that a client can cause as often as it likes. */
#define say(s, level, ...) rate_say((s)->vm, (s)->account, (s)->client, level, __VA_ARGS__)

struct service *
services_find(struct launcher *l, uint64_t id)
{
	for (struct service *s = l->services; s; s = s->next)
		if (s->id == id)
			return s;
	return NULL;
}

static void
tell_engine(struct service *s, uint32_t type, enum vfun_reason reason, const char *text)
{
	struct keep_msg msg = { .type = type };

	msg.u.service = (struct keep_service){ .id = s->id, .pid = (uint32_t)s->pid, .reason = (uint16_t)reason };
	snprintf(msg.u.service.text, sizeof(msg.u.service.text), "%s", text);
	kept_event(&s->l->engine, &msg, NULL, 0);
}

static void
close_sock(struct service *s)
{
	if (s->sock.fd < 0)
		return;
	loop_del(&s->l->loop, &s->sock);
	closer_put(s->l, s->sock.fd, NULL);
	s->sock.fd = -1;
}

void
service_free(struct service *s)
{
	for (int i = 0; i < 3; i++)
		closer_put(s->l, s->regions[i], NULL);
	free(s);
}

/* Unlink, and free unless its memory is to be held; the process is collected already. */
static void
drop(struct service *s, int hold)
{
	struct service **at = &s->l->services;

	while (*at != s)
		at = &(*at)->next;
	*at = s->next;
	close_sock(s);
	words_end(s);
	cgroup_remove(s->id);
	loop_del(&s->l->loop, &s->exit);
	close(s->exit.fd);
	if (hold)
		held_add(s);
	else
		service_free(s);
}

/* A service with a device has ended: by its watchdog, or because XRT or the device brought it down. */
static enum vfun_reason
device_end(const struct service *s, int status, char text[VFUN_TEXT_MAX])
{
	if (WIFEXITED(status) && WEXITSTATUS(status) == SVC_EXIT_LATE) {
		snprintf(text, VFUN_TEXT_MAX, "a call of %s took longer than %u ms (vfun.conf: timeout)", s->fn->name,
		    s->fn->xrt.timeout_ms);
		return VFUN_R_LATE;
	}
	if (WIFEXITED(status) && WEXITSTATUS(status) == SVC_EXIT_DEVICE)
		snprintf(text, VFUN_TEXT_MAX, "the device of %s failed", s->fn->name);
	else
		snprintf(text, VFUN_TEXT_MAX, "XRT or the device ended the service of %s: %s %d", s->fn->name,
		    WIFSIGNALED(status) ? "signal" : "status",
		    WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	return VFUN_R_DEVICE;
}

/* What it has said of the system call that it ended for. */
static int
last_word(const struct service *s)
{
	siginfo_t si;

	return s->refused >= 0 ? s->refused : refused_call(&si, fd_recv(s->sock.fd, &si, sizeof(si), NULL, 0, NULL));
}

/* The end of a service. First the memory: a client that is told of a release may count on it. */
static void
over(struct service *s, enum vfun_reason reason, const char *text)
{
	struct keep_msg msg = { .type = KEEP_SERVICE_EXIT };
	int hold;

	held_mark_gone(s, reason ? reason : VFUN_R_GONE);
	hold = held_wanted(s);
	if (!hold)
		bar_free(s->l, s->id);
	msg.u.service = (struct keep_service){
		.id = s->id, .pid = (uint32_t)s->pid, .reason = (uint16_t)reason, .held = (uint32_t)hold
	};
	snprintf(msg.u.service.text, sizeof(msg.u.service.text), "%s", reason ? text : "");
	kept_event(&s->l->engine, &msg, NULL, 0);
	drop(s, hold);
}

static void
on_exit_(struct loop_src *src, uint32_t events)
{
	struct service *s = loop_container(src, struct service, exit);
	enum vfun_reason reason = VFUN_R_GONE;
	char text[VFUN_TEXT_MAX];
	int status = 0;

	(void)events;
	while (waitpid(s->pid, &status, 0) < 0 && errno == EINTR)
		;
	if (s->told_to_end)
		reason = VFUN_OK;
	else if (WIFEXITED(status) && WEXITSTATUS(status) == SVC_EXIT_CUT_OFF)
		reason = VFUN_R_CUT_OFF;
	else if (WIFEXITED(status) && WEXITSTATUS(status) == SVC_EXIT_SEQ)
		reason = VFUN_R_SLOT_SEQ;
	snprintf(text, sizeof(text), "the service of %s ended: %s %d", s->fn->name,
	    WIFSIGNALED(status) ? "signal" : "status", WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	if (reason == VFUN_R_CUT_OFF)
		snprintf(text, sizeof(text), "too many insane slots in a row, the client is cut off");
	if (reason == VFUN_R_SLOT_SEQ)
		snprintf(text, sizeof(text), "the client skipped a position, or used a slot again too early");
	words_end(s);
	s->refused = WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS ? last_word(s) : -1;
	if (reason == VFUN_R_GONE && s->hardware)
		reason = device_end(s, status, text);
	if (reason == VFUN_R_GONE && (s->program || (WIFEXITED(status) && WEXITSTATUS(status) == SVC_EXIT_LATE))) {
		reason = program_end(s, status, text);
		crashes_count(s);
	}
	if ((reason == VFUN_R_GONE || reason == VFUN_R_DEVICE) && !s->program)
		refused_text(s, text);
	if (reason == VFUN_R_GONE && cgroup_oom(s->id))
		snprintf(text, sizeof(text), "the service of %s ended: it took more memory than its cgroup may",
		    s->fn->name);
	if (reason == VFUN_R_GONE || reason == VFUN_R_LATE || reason == VFUN_R_DEVICE)
		say(s, LOG_WARN_, "instance %llu of %s: %s", (unsigned long long)s->id, s->client, text);
	if (s->deadline && !s->told_to_end)
		tell_engine(s, KEEP_SERVICE_FAILED, s->hardware ? VFUN_R_DEVICE : VFUN_R_START_FAILED, text);
	over(s, reason, text);
}

static void
serves(struct service *s)
{
	char text[64] = "";

	s->deadline = 0;
	if (s->huge)
		snprintf(text, sizeof(text), ", %llu of them in huge pages", (unsigned long long)s->huge);
	else if (s->hardware)
		snprintf(text, sizeof(text), ", %s by the device", s->copies ? "copied" : "used in place");
	tell_engine(s, KEEP_SERVICE_READY, VFUN_OK, text);
}

static void
refused(struct service *s, enum vfun_reason reason, const char *text)
{
	say(s, LOG_WARN_, "instance %llu of %s (%s): %s", (unsigned long long)s->id, s->client, s->fn->name, text);
	tell_engine(s, KEEP_SERVICE_FAILED, reason, text);
	s->told_to_end = 1;
	kill(s->pid, SIGKILL);
}

/* QEMU maps them, for path dax; those in a BAR have its label already. */
static void
label_regions(const struct service *s)
{
	const struct vm *vm = s->vm < CONF_VMS_MAX ? &s->l->vm[s->vm] : NULL;

	for (int i = 0; vm && vm->qemu && !s->off[0] && i < 2; i++)
		label_memory(vm, s->regions[i], "instance's memory");
}

/* The regions come while the service is being confined; one byte more says that it is; where it has become a program,
 * that program says so. */
static void
on_sock(struct loop_src *src, uint32_t events)
{
	struct service *s = loop_container(src, struct service, sock);
	union {
		struct svc_ready ready;
		struct vfun_program_ready program;
	} u;
	char text[VFUN_TEXT_MAX];
	enum vfun_reason reason;
	int nfds = 0;
	int fds[3];
	/* Further descriptors are nothing that a program may leave here. */
	long n = fd_recv(src->fd, &u, sizeof(u), fds, s->regions[0] < 0 ? 3 : 0, &nfds);

	(void)events;
	if (n == -EAGAIN)
		return;
	if (n == (long)sizeof(u.ready) && !u.ready.reason && nfds == 3 && s->regions[0] < 0 && !rules_regions(fds)) {
		memcpy(s->regions, fds, sizeof(fds));
		label_regions(s);
		s->huge = u.ready.huge;
		s->copies = u.ready.copies;
		return;
	}
	for (int i = 0; i < nfds; i++)
		closer_put(s->l, fds[i], NULL);
	/* It stays open for the last word. */
	loop_del(&s->l->loop, &s->sock);
	s->refused = refused_call(&u, n);
	if (s->refused >= 0)
		return;
	if (n == (long)sizeof(u.ready)) {
		u.ready.text[sizeof(u.ready.text) - 1] = '\0';
		plain_text(u.ready.text);
		refused(s,
		    (u.ready.reason && u.ready.reason < VFUN_R_SLOT_COMMAND) ||
			    (!s->program && u.ready.reason == VFUN_R_DEVICE)
			? u.ready.reason
			: VFUN_R_START_FAILED,
		    u.ready.text);
	} else if (s->program && s->regions[0] >= 0 && (n > 0 || n == -EMSGSIZE)) {
		reason = program_ready(s, &u.program, n, text);
		if (reason)
			refused(s, reason, text);
		else
			serves(s);
	} else if (n == 1 && !s->program && s->regions[0] >= 0) {
		serves(s);
	} /* else it is dying: its exit will be told */
}

/* vfund's limits over all clients; 0 or -EDQUOT. Whose instances they are only the engine knows, and who has taken it
 * over says what he likes. */
static int
check_quota(const struct launcher *l, uint64_t size)
{
	unsigned n = held_usage(l, &size);

	for (const struct service *s = l->services; s; s = s->next) {
		n++;
		size += s->size[0] + s->size[1];
	}
	return n < l->conf->instances && size <= l->conf->memory ? 0 : -EDQUOT;
}

/* The lowest number that no living service has: it makes the uid. */
static uint32_t
free_slot(const struct launcher *l)
{
	const struct service *s = l->services;
	uint32_t slot = 0;

	while (s) {
		if (s->slot != slot) {
			s = s->next;
			continue;
		}
		slot++;
		s = l->services;
	}
	return slot;
}

/* What the engine asks is checked again: it may have been taken over. */
static int
check_launch(struct launcher *l, const struct keep_launch *req)
{
	const struct conf_function *fn;

	if (req->function >= l->conf->functions || req->vm >= CONF_CLIENTS ||
	    (req->bar && (req->vm >= CONF_VMS_MAX || !l->conf->vm[req->vm].name[0])) || services_find(l, req->id) ||
	    held_is(l, req->id))
		return -EINVAL;
	fn = &l->conf->function[req->function];
	if (fn->withdrawn || req->slots < 1 || req->slots > fn->slots_max || (req->slots & (req->slots - 1)) ||
	    req->out_arena > fn->arena_max || req->in_arena > fn->arena_max || req->out_arena % VFUN_PAGE ||
	    req->in_arena % VFUN_PAGE || req->spin_us > fn->spin_us ||
	    (req->features & ~(conf_features(fn) | (req->vm == CONF_HOST ? VFUN_FEATURE_EVENTFD : 0))))
		return -EINVAL;
	if (req->target == VFUN_TARGET_HARDWARE ? !conf_is_hardware(fn) : conf_is_hardware(fn) && !fn->fallback[0])
		return -EINVAL;
	return check_quota(
	    l, vfun_region_size(req->slots, req->out_arena) + vfun_region_size(req->slots, req->in_arena));
}

static void
fill_start(const struct launcher *l, const struct service *s, const struct keep_launch *req, struct svc_start *start)
{
	memset(start, 0, sizeof(*start));
	if (s->hardware) {
		strcpy(start->function, s->fn->name);
		strcpy(start->backend, s->fn->xrt.emulated[0] ? backend_xrt_emulated.name : backend_xrt.name);
		start->xrt = s->fn->xrt;
		start->queue = s->fn->queue < req->slots ? s->fn->queue : req->slots;
	} else if (s->program) {
		strcpy(start->function, s->fn->name);
		strcpy(start->backend, backend_program.name);
		start->program = s->fn->program;
		strcpy(start->signature, s->signature);
	} else {
		strcpy(start->function, conf_is_hardware(s->fn) ? s->fn->fallback : s->fn->name);
		strcpy(start->backend, backend_software.name);
		start->program.limit_ms = s->fn->program.limit_ms;
	}
	strcpy(start->client, s->client);
	start->id = req->id;
	start->session = req->session;
	start->out_arena = req->out_arena;
	start->in_arena = req->in_arena;
	start->slots = req->slots;
	start->spin_us = req->spin_us;
	start->workers = conf_workers(s->fn, req->version, req->slots);
	start->verbose = (uint32_t)l->verbose;
	start->optional = l->conf->optional;
	start->version = req->version;
	start->features = req->features;
	start->place = s->off[0];
	start->wait_ms = s->wait_ms;
	/* The regions, for each worker private results as large as the reply's arena, twice, and what every service
	 * needs; for further workers a stack and zstd's workspace. */
	start->memory_max = vfun_region_size(req->slots, req->out_arena) + vfun_region_size(req->slots, req->in_arena) +
			    start->workers * 2 * req->in_arena + s->fn->overhead + (start->workers - 1) * WORKER_MEMORY;
	if (l->system_mode)
		start->uid = l->conf->uid_base + UID_SERVICE + s->slot;
}

/* A place in the VM's BAR, if it is to have one. 0, or -ENOSPC. */
static int
find_place(struct launcher *l, struct service *s, const struct keep_launch *req)
{
	s->size[0] = vfun_region_size(req->slots, req->out_arena);
	s->size[1] = vfun_region_size(req->slots, req->in_arena);
	if (req->bar == KEEP_BAR_NO)
		return 0;
	s->off[0] = bar_take(&l->vm[req->vm], s->id, s->size[0] + s->size[1]);
	if (s->off[0])
		s->off[1] = s->off[0] + s->size[0];
	return s->off[0] || req->bar != KEEP_BAR_MUST ? 0 : -ENOSPC;
}

/* It did not come to be. */
static void
give_up(struct service *s)
{
	bar_free(s->l, s->id);
	free(s);
}

/* The pipe of a program: the end that it writes to, or -errno. */
static int
make_pipe(struct service *s)
{
	int ends[2];
	int r;

	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
		return -errno;
	r = words_begin(s, ends[0]);
	if (!r)
		return ends[1];
	close(ends[1]);
	return r;
}

/* What the service gets with its orders, see svc.h. How many, or -errno; what was opened here is *image. */
static int
attach(struct service *s, const struct svc_start *start, const struct keep_launch *req, int fds[3], int *image)
{
	int n = 0;

	if (start->place)
		fds[n++] = s->l->vm[req->vm].bar.fd;
	if (s->program) {
		*image = make_pipe(s);
		if (*image < 0)
			return *image;
		fds[n++] = *image;
		fds[n++] = s->l->program[req->function];
	}
	if (!s->hardware)
		return n;
	*image = open(start->xrt.xclbin, O_RDONLY | O_CLOEXEC);
	if (*image < 0) {
		say(s, LOG_ERR_, "%s: %s", start->xrt.xclbin, strerror(errno));
		return -errno;
	}
	fds[n++] = *image;
	fds[n++] = s->l->half;
	return n;
}

static int
send_start(struct service *s, const struct svc_start *start, const struct keep_launch *req)
{
	int image = -1;
	int fds[3];
	int n = attach(s, start, req, fds, &image);
	int r = n < 0 ? n : fd_send(s->sock.fd, start, sizeof(*start), fds, n);

	if (image >= 0)
		close(image);
	return r;
}

/* The process is there: limit it, watch it, and tell it what to do. 0 or -errno. */
static int
begin(struct service *s, const struct svc_start *start, const struct keep_launch *req)
{
	struct launcher *l = s->l;
	int r = cgroup_add(s->id, start, s->fn->cpu, s->pid);

	s->sock.fn = on_sock;
	s->exit.fn = on_exit_;
	s->deadline = launcher_ms() + s->fn->timeout_ms + s->wait_ms;
	s->next = l->services;
	l->services = s;
	(void)fcntl(s->sock.fd, F_SETFL, O_NONBLOCK);
	if (!r)
		r = loop_add(&l->loop, &s->exit, EPOLLIN);
	if (!r)
		r = loop_add(&l->loop, &s->sock, EPOLLIN);
	if (!r)
		r = send_start(s, start, req);
	return r;
}

int
services_launch(struct launcher *l, const struct keep_launch *req)
{
	struct service *s;
	struct svc_start start;
	int sock[2];
	int r = check_launch(l, req);

	if (r)
		return r == -EINVAL && l->reload.times ? -ESTALE : r;
	s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	*s = (struct service){ .l = l,
		.id = req->id,
		.slot = free_slot(l),
		.regions = { -1, -1, -1 },
		.fn = &l->conf->function[req->function],
		.vm = req->vm,
		.words = { .src = { .fd = -1 } },
		.refused = -1,
		.program = conf_is_program(&l->conf->function[req->function]),
		.hardware = req->target == VFUN_TARGET_HARDWARE };
	snprintf(s->client, sizeof(s->client), "%.*s", (int)sizeof(req->client) - 1, req->client);
	/* Users of the host are told apart by their names, uid-N. */
	if (s->vm == CONF_HOST)
		s->account = conf_account(l->conf, (uint32_t)strtoul(s->client + 4, NULL, 10));
	strcpy(s->signature, s->fn->signature);
	r = s->hardware ? 0 : crashes_wait(s);
	s->wait_ms = r > 0 ? (uint32_t)r : 0;
	r = r < 0 ? -ECANCELED : give_settle(s, req);
	if (!r)
		r = find_place(l, s, req);
	if (!r && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sock) < 0)
		r = -errno;
	if (r) {
		give_up(s);
		return r;
	}
	fill_start(l, s, req, &start);
	s->pid = launcher_spawn(
	    l, (const char *const[]){ "vfun-service", s->fn->name, s->client, NULL }, &sock[1], 1, &s->exit.fd);
	close(sock[1]);
	if (s->pid < 0) {
		r = s->pid;
		close(sock[0]);
		give_up(s);
		return r;
	}
	s->sock.fd = sock[0];
	r = begin(s, &start, req);
	if (r) {
		kill(s->pid, SIGKILL);
		while (waitpid(s->pid, NULL, 0) < 0 && errno == EINTR)
			;
		bar_free(l, s->id);
		drop(s, 0);
	}
	return r;
}

int
services_free(struct launcher *l, uint64_t id)
{
	struct service *s = services_find(l, id);

	if (s) {
		s->unwanted = 1;
		return services_kill(l, id);
	}
	held_free(l, id);
	bar_free(l, id);
	return 0;
}

int
services_kill(struct launcher *l, uint64_t id)
{
	struct service *s = services_find(l, id);

	if (!s)
		return -ESRCH;
	s->told_to_end = 1;
	return kill(s->pid, SIGKILL) < 0 ? -errno : 0;
}

int64_t
services_deadline(const struct launcher *l)
{
	int64_t first = 0;

	for (const struct service *s = l->services; s; s = s->next) {
		if (s->deadline && !s->told_to_end && (!first || s->deadline < first))
			first = s->deadline;
		if (s->words.again && (!first || s->words.again < first))
			first = s->words.again;
	}
	return first;
}

void
services_expire(struct launcher *l)
{
	int64_t now = launcher_ms();

	for (struct service *s = l->services; s; s = s->next) {
		words_again(s);
		if (!s->deadline || s->told_to_end || s->deadline > now)
			continue;
		say(s, LOG_WARN_, "instance %llu of %s: %s did not get ready in time", (unsigned long long)s->id,
		    s->client, s->fn->name);
		tell_engine(s, KEEP_SERVICE_FAILED, VFUN_R_TIMEOUT, "the service did not get ready in time");
		s->told_to_end = 1;
		kill(s->pid, SIGKILL);
	}
}

int
services_greet(struct kept *engine)
{
	int r = 0;

	for (struct service *s = engine->l->services; !r && s; s = s->next) {
		struct keep_msg msg = { .type = KEEP_SERVICE_ALIVE,
			.u.service = { .id = s->id, .pid = (uint32_t)s->pid } };

		r = kept_event(engine, &msg, NULL, 0);
	}
	return r ? r : held_greet(engine);
}

void
services_end(struct launcher *l)
{
	for (struct service *s = l->services; s; s = s->next)
		kill(s->pid, SIGKILL);
	for (struct service *next, *s = l->services; s; s = next) {
		next = s->next;
		if (launcher_collect(s->pid, s->exit.fd, NULL))
			log_err("instance %llu: its service doesn't end, the kernel waits for a device: left alone",
			    (unsigned long long)s->id);
		held_mark_gone(s, VFUN_R_GONE);
		drop(s, 0);
	}
	held_end(l);
}
