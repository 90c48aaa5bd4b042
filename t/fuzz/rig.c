/* SPDX-License-Identifier: MIT
 *
 * rig.c - a share on a test bench: see rig.h
 */
#include <setjmp.h>

#include "fuzz.h"
#include "rig.h"

#include "../../roles/common/fd.h"
#include "../../roles/share/share.c"

#define DEATHS_MAX 64

struct rig rig;

static jmp_buf death;
static struct share_state state;

int
share_args(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	return 0;
}

void
sys_exit(int status)
{
	if (!status)
		rig.over = 1;
	longjmp(death, 1);
}

static void
mortal(void)
{
	if (rig.running && rig.mortal && !--rig.mortal)
		longjmp(death, 1);
}

void
rig_order(void)
{
	__asm__ __volatile__("" ::: "memory");
	mortal();
}

/* ---- the launcher ---- */

static void
kept_set(uint32_t slot, struct sys_file *f)
{
	struct sys_file *was = rig.kept[slot];

	rig.kept[slot] = f ? sys_file_get(f) : NULL;
	if (was)
		sys_file_put(was);
}

int
keep_store(struct keep *k, uint32_t slot, int fd)
{
	CHECK(slot < KEEP_SLOTS, "slot %u", slot);
	mortal();
	kept_set(slot, sys_file_of(fd));
	mortal();
	if (k->fds[slot] >= 0 && k->fds[slot] != fd)
		sys_close(k->fds[slot]);
	k->fds[slot] = fd;
	return 0;
}

int
keep_drop(struct keep *k, uint32_t slot)
{
	if (slot >= KEEP_SLOTS || k->fds[slot] < 0)
		return 0;
	sys_close(k->fds[slot]);
	k->fds[slot] = -1;
	mortal();
	kept_set(slot, NULL);
	mortal();
	return 0;
}

/* Take bytes off a stream. */
static void
consume(struct sys_file *f, uint32_t n)
{
	while (n) {
		struct sys_msg *m = f->head;

		CHECK(m, "more is consumed than there is");
		if (n >= m->len) {
			n -= (uint32_t)m->len;
			sys_pop(f);
			continue;
		}
		m->len -= n;
		memmove(m->bytes, m->bytes + n, m->len);
		while (m->nfiles)
			sys_file_put(m->file[--m->nfiles]);
		n = 0;
	}
}

int
keep_commit(struct keep *k, uint32_t slot, uint32_t bytes, const void *data, uint32_t len, int with)
{
	int r = 0;

	CHECK(slot < KEEP_SLOTS && rig.kept[slot] && len <= KEEP_DATA_MAX, "commit on %u", slot);
	CHECK(with < 0 || rig.kept[with], "commit with %d", with);
	mortal();
	if (rig.kept[slot]->kind != SYS_SOCKET)
		r = -ENOTSOCK;
	else if (len)
		r = rig_committed(slot, data, len, with < 0 ? NULL : rig.kept[with]);
	if (!r)
		consume(rig.kept[slot], bytes);
	rig.commits++;
	mortal();
	k->commits = rig.commits;
	return r;
}

int
keep_event(struct keep *k, struct keep_msg *msg, int fds[3], int *nfds)
{
	long n = fd_recv(k->events, msg, sizeof(*msg), fds, 3, nfds);

	return n <= 0 ? (int)n : 1;
}

int
keep_start(struct keep *k, size_t state_size, void (*alive)(const struct keep_service *))
{
	(void)k;
	(void)state_size;
	(void)alive;
	abort();
}

/* peek.c: the front-end's and the back-end's sockets are streams, the engine's channel isn't. */
long
peek(int sock, void *buf, size_t len, int *fds, int max, int *nfds)
{
	struct sys_file *f = sys_file_of(sock);
	struct sys_msg *m;
	size_t n = 0;

	CHECK(f, "peek(%d)", sock);
	if (max)
		*nfds = 0;
	if (f->kind != SYS_SOCKET)
		return -ENOTSOCK;
	m = f->head;
	if (!m)
		return f->eof ? 0 : -EAGAIN;
	for (int i = 0; i < m->nfiles && i < max; i++)
		fds[(*nfds)++] = sys_fd(m->file[i]);
	do {
		size_t part = m->len < len - n ? m->len : len - n;

		memcpy((char *)buf + n, m->bytes, part);
		n += part;
		m = m->next;
	} while (f != rig.channel && m && !m->nfiles && n < len);
	return (long)n;
}

/* ---- life and death ---- */

UNSEEN static void
boot(void *arg)
{
	struct share *s = rig.s;

	(void)arg;
	for (unsigned i = 0; i < REQUESTS_MAX; i++)
		s->req[i].used = 0;
	memset(s, 0, offsetof(struct share, chain));
	s->st = rig.st;
	for (unsigned i = 0; i < KEEP_SLOTS; i++)
		s->k.fds[i] = rig.kept[i] ? sys_fd(rig.kept[i]) : -1;
	s->k.events = sys_fd(rig.events);
	s->k.commits = rig.commits;
	s->k.start.window = 2 << 20;
	s->k.start.direct_io = 1;
	strcpy(s->k.start.name, "vm");
	share_takeover(s);
}

void
rig_run(void (*fn)(void *arg), void *arg)
{
	void (*volatile next)(void *) = fn;
	void *volatile with = arg;

	if (rig.over)
		return;
	rig.running = 1;
	/* Comes back here when it dies, and then lets a successor start. */
	if (setjmp(death)) {
		sys_died();
		if (rig.channel) {
			sys_file_put(rig.channel);
			rig.channel = NULL;
		}
		rig.deaths++;
		next = boot;
		with = NULL;
		CHECK(rig.deaths < DEATHS_MAX || rig.over, "dies again and again");
	}
	if (!rig.over)
		next(with);
	rig.running = 0;
}

void
rig_kill(void)
{
	if (rig.over)
		return;
	sys_died();
	if (rig.channel)
		sys_file_put(rig.channel);
	rig.channel = NULL;
	rig_run(boot, NULL);
}

static void
timers(void *arg)
{
	(void)arg;
	share_timers(rig.s);
}

void
rig_timers(void)
{
	rig_run(timers, NULL);
}

static void
source(void *arg)
{
	struct loop_src *src = ((struct sys_file *)arg)->src;

	if (src)
		src->fn(src, EPOLLIN);
	share_timers(rig.s);
}

void
rig_source(struct sys_file *f)
{
	if (f)
		rig_run(source, f);
}

void
rig_engine(int there)
{
	struct keep_msg msg = { .type = KEEP_PEER };
	struct sys_file *was = rig.channel;

	if (rig.over)
		return;
	if (was) {
		while (was->head)
			sys_pop(was);
		was->eof = 1;
	}
	if (!there) {
		rig_source(was);
		if (was && was == rig.channel) {
			rig.channel = NULL;
			sys_file_put(was);
		}
		return;
	}
	rig.channel = sys_file_new(SYS_SOCKET, 0);
	sys_push(rig.events, &msg, sizeof(msg), &rig.channel, 1);
	rig_source(rig.events);
	while (rig.events->head) /* it died before */
		rig_source(rig.events);
	if (was)
		sys_file_put(was);
}

void
rig_start(void)
{
	sys_start();
	memset(&rig, 0, sizeof(rig));
	memset(&state, 0, sizeof(state));
	rig.s = &self;
	rig.st = &state;
	rig.events = sys_file_new(SYS_SOCKET, 0);
	rig.kept[SLOT_FRONT] = sys_file_new(SYS_SOCKET, 0);
	rig_run(boot, NULL);
}

void
rig_end(void)
{
	sys_died();
	for (unsigned i = 0; i < KEEP_SLOTS; i++)
		if (rig.kept[i])
			sys_file_put(rig.kept[i]);
	if (rig.channel)
		sys_file_put(rig.channel);
	sys_file_put(rig.events);
	sys_end();
}

/* ---- what must hold ---- */

UNSEEN static void
check_maps(const struct share_state *st)
{
	unsigned sent = 0;

	for (unsigned i = 0; i < SHARE_MAPS; i++) {
		const struct share_map *m = &st->map[i];

		if (m->state == MAP_NONE)
			continue;
		sent += m->state == MAP_SENT || m->state == MAP_UNMAP_SENT;
		CHECK(m->len && m->len <= rig.s->k.start.window && m->moff <= rig.s->k.start.window - m->len, "window");
		CHECK(m->state != MAP_ON || tree_serial(rig.s, m->serial), "a mapping of nothing");
		for (unsigned k = 0; k < i; k++)
			CHECK(st->map[k].state == MAP_NONE || m->moff + m->len <= st->map[k].moff ||
				  st->map[k].moff + st->map[k].len <= m->moff,
			    "two mappings in one place");
	}
	CHECK(sent <= 1 && (!sent || st->back_busy), "%u requests to the front-end", sent);
}

UNSEEN static int
held(const struct share *s, const struct share_instance *in)
{
	for (unsigned i = 0; i < SHARE_HANDLES; i++) {
		const struct share_handle *h = &s->st->handle[i];

		if (h->valid && (h->node == NODE_CONTROL ? h->control == in->creator : h->node / 4 == in->serial))
			return 1;
	}
	return 0;
}

UNSEEN static void
check_instances(struct share *s, unsigned *maps)
{
	for (unsigned i = 0; i < SHARE_INSTANCES; i++) {
		struct share_instance *in = &s->st->instance[i];

		*maps += s->local[i].page != NULL;
		if (!in->valid)
			continue;
		CHECK(s->local[i].page, "instance %u isn't mapped", i);
		for (unsigned f = 0; f < 3; f++)
			CHECK(s->k.fds[SLOT_INSTANCE + 3 * i + f] >= 0, "instance %u has no descriptors", i);
		CHECK(tree_serial(s, in->serial) == in, "serial");
		CHECK(in->dying || in->lease_end || held(s, in), "an instance that nobody holds");
	}
}

UNSEEN void
rig_check(void)
{
	struct share *s = rig.s;
	unsigned maps = 0;
	unsigned fds = 1 + (s->engine.fd >= 0);

	if (rig.over)
		return;
	for (unsigned i = 0; i < SHARE_REGIONS; i++) {
		maps += s->region_ptr[i] != NULL;
		CHECK(!s->st->region[i].valid == !s->region_ptr[i], "region %u", i);
		CHECK(!s->st->region[i].valid || s->k.fds[SLOT_REGION + i] >= 0, "region %u has no descriptor", i);
	}
	check_instances(s, &maps);
	check_maps(s->st);
	CHECK(sys_maps() == maps, "%u mappings instead of %u", sys_maps(), maps);
	for (unsigned i = 0; i < KEEP_SLOTS; i++) {
		CHECK(!rig.kept[i] == (s->k.fds[i] < 0), "slot %u", i);
		fds += rig.kept[i] != NULL;
	}
	CHECK(sys_fds() == fds, "%u descriptors instead of %u", sys_fds(), fds);
	for (unsigned i = 0; i < SHARE_HANDLES; i++)
		CHECK(!s->st->handle[i].valid || s->st->handle[i].fh % SHARE_HANDLES == i, "handle %u", i);
	for (unsigned i = 0; i < REQUESTS_MAX; i++)
		CHECK(!s->req[i].used || s->req[i].wait != WAIT_NOTHING, "a request that waits for nothing");
}
