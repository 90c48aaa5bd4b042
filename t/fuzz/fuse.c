/* SPDX-License-Identifier: MIT
 *
 * fuse.c - fuzz target: a guest, from its memory to its FUSE requests
 *
 * Real: the share, all of it. Played here: a guest with 64 KB of memory, two virtqueues in it and a driver that is
 * well-behaved until the input writes something else into that memory; QEMU, which maps and tells of it, or doesn't;
 * the engine, which answers, adds and takes away instances, or doesn't; and whoever kills the share, anywhere.
 *
 * After each step the share's tables must agree (rig.c), and of the guest's memory nothing may have changed but used
 * rings and what descriptors offer for writing. While the guest is well-behaved each of its requests is answered once,
 * with a header that fits, and at the end, when time has passed, none is left.
 */
#include <linux/virtio_ring.h>

#include "fuzz.h"
#include "rig.h"

#define GPA 0x100000ull
#define UVA 0x7f0000000000ull
#define WINDOW_GPA 0x4000000000ull
#define MEM 0x10000u
#define NUM 16u
#define DESC(q) ((q)*0x1000u)
#define AVAIL(q) (DESC(q) + 0x400u)
#define USED(q) (DESC(q) + 0x800u)
#define TABLES 0x2000u /* indirect tables, 256 bytes each */
#define BUFFERS 0x5000u
#define SEGMENTS 8
#define BAR_PAGES 16

enum vhost {
	SET_FEATURES = 2,
	SET_NUM = 8,
	SET_ADDR,
	SET_BASE,
	GET_BASE,
	SET_KICK,
	SET_CALL,
	SET_PROTOCOL = 16,
	SET_ENABLE = 18,
	SET_BACK = 21,
	ADD_REG = 37,
	REM_REG
};

struct pending {
	int used;
	uint64_t unique;
	uint32_t opcode;
	uint32_t out_len;
	unsigned ndesc;
	uint16_t desc[SEGMENTS];
	unsigned nout;
	struct {
		uint32_t off, len;
	} out[SEGMENTS];
};

struct back { /* what QEMU is asked for */
	int used, map;
	int parts; /* that were sent */
	int refuse;
	uint64_t moff, foff, len;
	struct sys_file *file;
};

static struct {
	struct input in;
	struct sys_file *mem, *bar;
	uint8_t shadow[MEM], ok[MEM];
	int allowed, self_modifying;
	int dirty; /* the guest isn't well-behaved any more */
	uint16_t avail[2], used[2];
	uint32_t busy[2]; /* descriptors */
	struct pending pending[2][NUM];
	int paused[2];
	uint32_t bump;
	uint64_t unique;
	uint64_t fh[16];
	unsigned nfh;
	struct imsg ask[64]; /* the engine's */
	unsigned nask;
	uint64_t next_instance;
	struct back back;
	int lies;	/* QEMU has answered what it wasn't asked */
	uint64_t reply; /* the front-end's last, its first 8 bytes */
} g;

/* ---- what the share says ---- */

/* Nobody may have the files of what is given to others open. */
UNSEEN static void
check_free(uint64_t id)
{
	for (unsigned i = 0; i < SHARE_INSTANCES; i++) {
		const struct share_instance *in = &rig.st->instance[i];

		if (!in->valid || in->id != id)
			continue;
		CHECK(in->dying, "freed, and shown");
		for (unsigned k = 0; in->off[0] && k < SHARE_HANDLES; k++)
			CHECK(!rig.st->handle[k].valid || rig.st->handle[k].node / 4 != in->serial, "freed, and open");
	}
}

int
sys_sent(struct sys_file *f, const void *msg, size_t len, struct sys_file **files, int n)
{
	const struct imsg *m = msg;

	(void)files;
	CHECK(f == rig.channel && len == sizeof(*m) && n == 0, "to the engine");
	if (m->type == IM_REQUEST && g.nask < 64)
		g.ask[g.nask++] = *m;
	CHECK(m->type == IM_REQUEST || m->type == IM_CLOSED || m->type == IM_LEASE_END || m->type == IM_FREE, "type %u",
	    m->type);
	if (m->type == IM_FREE)
		check_free(m->instance);
	return 0;
}

/* A request to QEMU, in two parts. The second depends on whether QEMU's device runs: see back.c. */
UNSEEN static int
back_committed(struct sys_file *to, const uint8_t *data, uint32_t len, struct sys_file *with)
{
	int stopped = g.paused[0] || g.paused[1];
	uint32_t request = data[0];

	if (to->full)
		return -EAGAIN;
	if (len == 1) {
		CHECK((request == 9) == (with != NULL) && (with || request == 10), "to QEMU: %u", request);
		CHECK(!g.back.used || g.lies, "two requests at once");
		if (g.back.used && g.back.file)
			sys_file_put(g.back.file);
		g.back = (struct back){ .used = 1, .map = request == 9, .parts = 1 };
		g.back.file = with ? sys_file_get(with) : NULL;
		to->unread = 1;
		return 0;
	}
	CHECK(len == VHOST_HDR + 40 - 1 && !with && g.back.parts == 1, "to QEMU: %u bytes", len);
	CHECK(!to->unread, "before QEMU waits for it");
	g.back.parts = 2;
	g.back.refuse = data[0];
	CHECK(g.back.refuse == stopped || g.lies, "a request that a %s device reads", stopped ? "stopped" : "running");
	memcpy(&g.back.foff, data + VHOST_HDR - 1 + 8, 8);
	memcpy(&g.back.moff, data + VHOST_HDR - 1 + 16, 8);
	memcpy(&g.back.len, data + VHOST_HDR - 1 + 24, 8);
	CHECK(!g.back.file || (g.back.foff <= g.back.file->size && g.back.len <= g.back.file->size - g.back.foff),
	    "past the file's end");
	CHECK(g.back.len <= 2 << 20 && g.back.moff <= (2 << 20) - g.back.len, "past the window's end");
	return 0;
}

int
rig_committed(uint32_t slot, const void *data, uint32_t len, struct sys_file *with)
{
	const struct vhost_msg *m = data;

	if (slot == SLOT_BACK)
		return back_committed(rig.kept[slot], data, len, with);
	CHECK(slot == SLOT_FRONT && len == VHOST_HDR + m->size, "%u bytes", len);
	memcpy(&g.reply, m->payload, sizeof(g.reply));
	return 0;
}

/* ---- guest memory ---- */

static void check_memory(void);

static void
guest_write(uint32_t off, const void *data, uint32_t len)
{
	check_memory();
	if (off >= MEM)
		return;
	if (len > MEM - off)
		len = MEM - off;
	memcpy(g.mem->data + off, data, len);
	memcpy(g.shadow + off, data, len);
}

UNSEEN static void
allow(uint64_t addr, uint32_t len)
{
	uint64_t off = addr - GPA;

	if (addr < GPA || off > MEM || len > MEM - off)
		return;
	memset(g.ok + off, 1, len);
	if (len && off < BUFFERS)
		g.self_modifying = 1;
}

UNSEEN static void
allow_table(const struct vring_desc *table, unsigned n, int indirect)
{
	for (unsigned i = 0; i < n; i++) {
		struct vring_desc d;
		uint64_t off;

		memcpy(&d, table + i, sizeof(d));
		off = d.addr - GPA;
		if (!indirect && d.flags & VRING_DESC_F_INDIRECT) {
			if (d.addr < GPA || off > MEM || d.len > MEM - off || d.len % sizeof(d))
				continue;
			if (off < TABLES || off + d.len > BUFFERS)
				g.self_modifying = 1; /* perhaps */
			allow_table((const void *)(g.mem->data + off), d.len / sizeof(d), 1);
		} else if (d.flags & VRING_DESC_F_WRITE) {
			allow(d.addr, d.len);
		}
	}
}

/* What the share may write, as the guest's memory says before it runs. */
static void
allow_all(void)
{
	if (g.allowed)
		return;
	memset(g.ok, 0, sizeof(g.ok));
	g.self_modifying = 0;
	for (unsigned q = 0; q < 2; q++)
		allow_table((const void *)(g.mem->data + DESC(q)), NUM, 0);
	for (unsigned q = 0; q < 2; q++)
		memset(g.ok + USED(q), 1, 4 + 8 * NUM);
	g.allowed = 1;
}

UNSEEN static void
check_memory(void)
{
	if (!g.allowed)
		return;
	g.allowed = 0;
	if (!memcmp(g.mem->data, g.shadow, MEM))
		return;
	for (unsigned i = 0; i < MEM; i++)
		CHECK(
		    g.self_modifying || g.ok[i] || g.mem->data[i] == g.shadow[i], "guest memory was written at %x", i);
	memcpy(g.shadow, g.mem->data, MEM);
}

/* ---- the driver ---- */

static uint16_t
get16(uint32_t off)
{
	uint16_t v;

	memcpy(&v, g.mem->data + off, sizeof(v));
	return v;
}

static uint32_t
get32(uint32_t off)
{
	uint32_t v;

	memcpy(&v, g.mem->data + off, sizeof(v));
	return v;
}

static uint32_t
buffer(uint32_t len)
{
	uint32_t at = g.bump;

	if (at + len > MEM)
		at = BUFFERS;
	g.bump = at + ((len + 7) & ~7u);
	return at;
}

/* Part of a request as one to three descriptors. */
static void
segments(struct vring_desc *d, unsigned *n, uint32_t at, uint32_t len, uint8_t shape, uint16_t flags)
{
	uint32_t cut = shape & 1 && len > 1 ? len / ((shape >> 1 & 7) + 2) + 1 : len;

	if (shape & 1 && cut < len) {
		d[(*n)++] = (struct vring_desc){ .addr = GPA + at, .len = cut, .flags = flags };
		at += cut;
		len -= cut;
	}
	if (len)
		d[(*n)++] = (struct vring_desc){ .addr = GPA + at, .len = len, .flags = flags };
}

static int
free_desc(unsigned q)
{
	for (int i = 0; i < (int)NUM; i++)
		if (!(g.busy[q] >> i & 1)) {
			g.busy[q] |= 1u << i;
			return i;
		}
	return -1;
}

static void
submit(unsigned q, const void *req, uint32_t len, uint32_t out_len, uint8_t shape)
{
	struct vring_desc d[SEGMENTS];
	struct pending p = { .used = 1, .out_len = out_len };
	const struct fuse_in_header *h = req;
	uint32_t at = buffer(len);
	unsigned n = 0;
	uint16_t head;

	guest_write(at, req, len);
	segments(d, &n, at, len, shape, 0);
	at = buffer(out_len);
	p.nout = n;
	segments(d, &n, at, out_len, shape >> 4, VRING_DESC_F_WRITE);
	for (unsigned i = p.nout, k = 0; i < n; i++, k++) {
		p.out[k].off = (uint32_t)(d[i].addr - GPA);
		p.out[k].len = d[i].len;
	}
	p.nout = n - p.nout;
	p.unique = h->unique;
	p.opcode = h->opcode;
	if (!n)
		return;
	for (p.ndesc = 0; p.ndesc < (shape & 8 ? 1 : n); p.ndesc++) {
		int i = free_desc(q);

		if (i < 0) {
			while (p.ndesc)
				g.busy[q] &= ~(1u << p.desc[--p.ndesc]);
			return;
		}
		p.desc[p.ndesc] = (uint16_t)i;
	}
	head = p.desc[0];
	for (unsigned i = 0; i + 1 < n; i++) {
		d[i].flags |= VRING_DESC_F_NEXT;
		d[i].next = shape & 8 ? (uint16_t)(i + 1) : p.desc[i + 1];
	}
	if (shape & 8) {
		uint32_t table = TABLES + (q * NUM + head) * 0x80u;
		struct vring_desc one = {
			.addr = GPA + table, .len = n * (uint32_t)sizeof(one), .flags = VRING_DESC_F_INDIRECT
		};

		guest_write(table, d, n * (uint32_t)sizeof(*d));
		guest_write(DESC(q) + head * 16u, &one, sizeof(one));
	} else {
		for (unsigned i = 0; i < n; i++)
			guest_write(DESC(q) + p.desc[i] * 16u, &d[i], sizeof(d[i]));
	}
	g.pending[q][head] = p;
	guest_write(AVAIL(q) + 4 + g.avail[q] % NUM * 2u, &head, 2);
	g.avail[q]++;
	guest_write(AVAIL(q) + 2, &g.avail[q], 2);
}

/* The beginning of an answer. */
static void
answer_bytes(const struct pending *p, void *buf, uint32_t len)
{
	uint8_t *to = buf;

	memset(buf, 0, len);
	for (unsigned i = 0; i < p->nout && len; i++) {
		uint32_t n = p->out[i].len < len ? p->out[i].len : len;

		memcpy(to, g.mem->data + p->out[i].off, n);
		to += n;
		len -= n;
	}
}

static void
answered(struct pending *p, uint32_t len)
{
	struct {
		struct fuse_out_header h;
		union {
			struct fuse_open_out open;
			struct fuse_entry_out entry;
		} u;
	} a;

	CHECK(p->used, "a request is answered that isn't there, or twice");
	if (p->out_len < sizeof(a.h) || p->opcode == FUSE_FORGET || p->opcode == FUSE_BATCH_FORGET ||
	    p->opcode == FUSE_INTERRUPT) {
		CHECK(!len || len == 16, "len %u", len);
		return;
	}
	answer_bytes(p, &a, sizeof(a));
	CHECK(a.h.unique == p->unique, "another's answer");
	CHECK(a.h.len == len && len >= sizeof(a.h) && len <= p->out_len, "len %u, %u in the ring, room %u", a.h.len,
	    len, p->out_len);
	CHECK(a.h.error <= 0 && a.h.error > -512 && (!a.h.error || len == sizeof(a.h)), "error %d", a.h.error);
	if (a.h.error || p->opcode != FUSE_OPEN)
		return;
	CHECK(len == sizeof(a.h) + sizeof(a.u.open), "OPEN's len %u", len);
	g.fh[g.nfh++ % 16] = a.u.open.fh;
}

static void
collect(void)
{
	for (unsigned q = 0; q < 2; q++) {
		uint16_t idx = get16(USED(q) + 2);

		if (g.dirty)
			continue;
		CHECK((uint16_t)(idx - g.used[q]) <= NUM, "used index");
		for (; g.used[q] != idx; g.used[q]++) {
			uint32_t id = get32(USED(q) + 4 + g.used[q] % NUM * 8u);
			struct pending *p = &g.pending[q][id % NUM];

			CHECK(id < NUM, "used element %u", id);
			answered(p, get32(USED(q) + 8 + g.used[q] % NUM * 8u));
			for (unsigned i = 0; i < p->ndesc; i++)
				g.busy[q] &= ~(1u << p->desc[i]);
			p->used = 0;
		}
	}
}

static void
run(struct sys_file *f)
{
	allow_all();
	rig_source(f);
}

static void
kick(unsigned q)
{
	struct sys_file *f = rig.kept[SLOT_KICK + q];

	if (!f)
		return;
	f->count = 1;
	run(f);
}

/* ---- QEMU ---- */

static void
say(enum vhost request, const void *payload, uint32_t size, struct sys_file *file)
{
	struct vhost_msg m = { .request = request, .flags = VHOST_VERSION, .size = size };

	if (request == ADD_REG && g.back.used)
		m.flags |= VHOST_NEED_REPLY; /* a piece of the window: it may be refused */
	memcpy(m.payload, payload, size);
	if (rig.over)
		return;
	sys_push(rig.kept[SLOT_FRONT], &m, VHOST_HDR + size, &file, file ? 1 : 0);
	while (!rig.over && rig.kept[SLOT_FRONT]->head)
		run(rig.kept[SLOT_FRONT]);
	/* A QEMU that tells of memory over other memory is disconnected. */
	CHECK(!rig.over || request == ADD_REG, "the share ended over request %u", request);
}

static void
say2(enum vhost request, uint32_t a, uint32_t b)
{
	say(request, (const uint32_t[]){ a, b }, 8, NULL);
}

static void
say_fd(enum vhost request, uint64_t v)
{
	struct sys_file *f = sys_file_new(SYS_EVENT, 0);

	say(request, &v, 8, f);
	sys_file_put(f);
}

static void
say_region(enum vhost request, uint64_t gpa, uint64_t size, uint64_t uva, uint64_t off, struct sys_file *f)
{
	uint64_t v[5] = { 0, gpa, size, uva, off };

	say(request, v, sizeof(v), f);
}

static void
ring_start(uint32_t q, uint32_t base)
{
	struct {
		uint32_t q, flags;
		uint64_t desc, used, avail, log;
	} a = { q, 0, UVA + DESC(q), UVA + USED(q), UVA + AVAIL(q), 0 };

	say2(SET_NUM, q, NUM);
	say(SET_ADDR, &a, sizeof(a), NULL);
	say2(SET_BASE, q, base);
	say_fd(SET_CALL, q);
	say_fd(SET_KICK, q);
	say2(SET_ENABLE, q, 1);
	g.paused[q] = 0;
}

/* The VM pauses; goes on where it was; or its driver starts anew. */
static void
ring_step(uint32_t q, uint8_t how)
{
	static const uint8_t zeros[0x1000];

	if (!g.paused[q]) {
		say2(GET_BASE, q, 0);
		g.paused[q] = 1 + (int)(g.reply >> 32 & 0xffff);
	} else if (how & 1) {
		ring_start(q, (uint32_t)g.paused[q] - 1);
	} else {
		guest_write(DESC(q), zeros, sizeof(zeros));
		memset(g.pending[q], 0, sizeof(g.pending[q]));
		g.avail[q] = g.used[q] = 0;
		g.busy[q] = 0;
		/* The place where it stopped, if it is 0, looks like going on. */
		if (g.paused[q] == 1)
			g.dirty = 1;
		ring_start(q, 0);
	}
}

/* QEMU takes the first part. From here on it does nothing until the rest is there. */
static void
back_read(void)
{
	struct sys_file *f = rig.kept[SLOT_BACK];

	f->unread = 0;
	f->full = 0;
	for (int i = 0; i < 8 && g.back.parts == 1 && !rig.over && rig.kept[SLOT_BACK] == f; i++) {
		sys_ms += 10;
		allow_all();
		rig_timers();
	}
	CHECK(g.back.parts == 2 || g.lies || rig.over, "QEMU waits for ever");
}

/* QEMU answers the open request; it tells of new memory before or after, or not at all. */
static void
back_answer(uint8_t how)
{
	struct back b = g.back;
	struct {
		uint32_t request, flags, size;
		uint64_t result;
	} __attribute__((packed)) m = { b.map ? 9 : 10, VHOST_VERSION | VHOST_REPLY, 8, how & 1 };

	if (how & 0x80 && rig.kept[SLOT_BACK]) { /* not asked, or not understood */
		m.flags ^= how & 0x40 ? VHOST_REPLY : 0;
		m.size += how & 0x20 ? 4 : 0;
		g.lies = 1;
		sys_push(rig.kept[SLOT_BACK], &m, how & 0x10 ? 12 : sizeof(m), NULL, 0);
		run(rig.kept[SLOT_BACK]);
		return;
	}
	if (!b.used || !rig.kept[SLOT_BACK])
		return;
	if (b.parts == 1)
		back_read();
	b = g.back;
	if (b.parts != 2 || !rig.kept[SLOT_BACK])
		return;
	m.result |= (uint64_t)b.refuse;
	if (how & 2 && !m.result)
		say_region(b.map ? ADD_REG : REM_REG, WINDOW_GPA + b.moff, b.len, WINDOW_GPA + b.moff, b.foff, b.file);
	g.back.used = 0;
	if (rig.kept[SLOT_BACK])
		sys_push(rig.kept[SLOT_BACK], &m, sizeof(m), NULL, 0);
	/* Half a message stays. */
	for (int i = 0; i < 4 && rig.kept[SLOT_BACK] && rig.kept[SLOT_BACK]->head && rig.kept[SLOT_BACK]->src; i++)
		run(rig.kept[SLOT_BACK]);
	if (how & 4 && !m.result)
		say_region(b.map ? ADD_REG : REM_REG, WINDOW_GPA + b.moff, b.len, WINDOW_GPA + b.moff, b.foff, b.file);
	if (b.file)
		sys_file_put(b.file);
}

/* ---- the engine ---- */

static void
engine_says(const struct imsg *m, struct sys_file *const *files, int n)
{
	struct sys_file *c = rig.channel;

	if (!c)
		return;
	sys_push(c, m, sizeof(*m), files, n);
	while (rig.channel == c && c->head)
		run(c);
}

/* What the launcher says on the engine's behalf. */
static void
launcher_adds(const struct keep_add *add, struct sys_file *const *files)
{
	struct keep_msg m = { .type = KEEP_ADD, .u.add = *add };

	sys_push(rig.events, &m, sizeof(m), files, 3);
	while (rig.events->head)
		rig_source(rig.events);
}

/* One in the BAR: pages 1 to 3 and 4 to 5, or 9 to 11 and 12 to 13. */
static void
engine_add_bar(struct keep_add *m)
{
	struct sys_file *files[3] = { g.bar, g.bar, sys_file_new(SYS_EVENT, 0) };

	m->out_off = (m->id & 4 ? 9 : 1) * VFUN_PAGE;
	m->in_off = m->out_off + m->out_size;
	launcher_adds(m, files);
	sys_file_put(files[2]);
}

/* What is in no region's place stays as it was. */
UNSEEN static void
check_bar(void)
{
	const uint8_t *p = g.bar->data;
	const unsigned gap[][2] = { { 0, 1 }, { 6, 9 }, { 14, BAR_PAGES } };

	for (unsigned i = 0; i < 3; i++)
		for (unsigned at = gap[i][0] * VFUN_PAGE; at < gap[i][1] * VFUN_PAGE; at++)
			CHECK(!p[at], "the BAR's byte %u was written", at);
}

static void
show(uint32_t handle, uint32_t uid)
{
	struct keep_add m = { .handle = handle,
		.id = ++g.next_instance,
		.out_size = 3 * VFUN_PAGE,
		.in_size = 2 * VFUN_PAGE,
		.uid = uid };
	struct sys_file *files[3];

	snprintf(m.folder, sizeof(m.folder), "f.%u", (unsigned)m.id);
	if (m.id % 4 == 3) {
		engine_add_bar(&m);
		return;
	}
	files[0] = sys_file_new(SYS_MEMORY, m.out_size);
	files[1] = sys_file_new(SYS_MEMORY, m.in_size);
	files[2] = sys_file_new(SYS_EVENT, 0);
	launcher_adds(&m, files);
	for (int i = 0; i < 3; i++)
		sys_file_put(files[i]);
}

static void
engine_answer(uint8_t how)
{
	struct imsg m;
	unsigned i = how >> 3;
	int add;

	if (!g.nask || !rig.channel)
		return;
	i %= g.nask;
	m = g.ask[i];
	g.ask[i] = g.ask[--g.nask];
	add = m.msg.type == VFUN_MSG_ACTIVATE && how & 1;
	if (add && !(how & 4))
		show(m.handle, m.uid);
	if (add)
		m.msg.body.active.instance = g.next_instance + (how & 4 ? 1 : 0);
	m.type = IM_REPLY;
	m.msg.type |= VFUN_MSG_REPLY;
	m.msg.reason = how & 1 ? 0 : VFUN_R_DENIED;
	engine_says(&m, NULL, 0);
	if (how & 2) /* once more */
		engine_says(&m, NULL, 0);
	if (add && how & 4)
		show(m.handle, m.uid);
}

static struct sys_file *
ring_of(unsigned i)
{
	return rig.kept[SLOT_INSTANCE + 3 * (i & 3) + 2];
}

/* ---- requests ---- */

static uint64_t
node(uint8_t v)
{
	return v == 0xff ? in_u64(&g.in) : v < 0x20 ? NODE_ROOT : v < 0x40 ? NODE_CONTROL : 64 + v % 16u;
}

static uint64_t
handle(uint8_t v)
{
	return v < 0xf0 ? g.fh[v % 16] : v;
}

static void
request(uint8_t what)
{
	static const uint8_t opcodes[] = { FUSE_LOOKUP, FUSE_GETATTR, FUSE_OPEN, FUSE_READ, FUSE_WRITE, FUSE_RELEASE,
		FUSE_IOCTL, FUSE_OPENDIR, FUSE_READDIR, FUSE_SETUPMAPPING, FUSE_REMOVEMAPPING, FUSE_INIT, FUSE_STATFS,
		FUSE_DESTROY, FUSE_FORGET, FUSE_RENAME, FUSE_OPEN, FUSE_READ, FUSE_WRITE, FUSE_IOCTL, FUSE_SETUPMAPPING,
		FUSE_FLUSH, FUSE_FSYNC, FUSE_SETATTR };
	static const char *const names[] = { "control", "f.1", "f.2", "dataout", "datain", "bell", "..", "" };
	union {
		struct fuse_in_header h;
		uint8_t bytes[2048];
	} r;
	uint8_t shape = in_u8(&g.in);
	uint8_t arg = in_u8(&g.in);
	uint8_t *a = r.bytes + sizeof(r.h);
	uint32_t len = 0;
	uint32_t out = 256;
	struct vfun_msg msg = { .magic = VFUN_MSG_MAGIC, .type = arg & 7, .version = VFUN_VERSION };

	memset(&r, 0, sizeof(r));
	r.h = (struct fuse_in_header){ .opcode = opcodes[what % sizeof(opcodes)],
		.unique = ++g.unique,
		.nodeid = node(in_u8(&g.in)),
		.uid = arg & 0x80   ? 0
		       : arg & 0x40 ? 1001
				    : 1000 };
	switch (r.h.opcode) {
	case FUSE_LOOKUP:
		strcpy((char *)a, names[arg & 7]);
		len = (uint32_t)strlen((char *)a) + 1;
		break;
	case FUSE_OPEN:
		*(struct fuse_open_in *)(void *)a =
		    (struct fuse_open_in){ .flags = (arg & 3u) | (arg & 4 ? O_TRUNC : 0u) };
		len = sizeof(struct fuse_open_in);
		break;
	case FUSE_READ:
	case FUSE_READDIR:
		*(struct fuse_read_in *)(void *)a = (struct fuse_read_in){ .fh = handle(in_u8(&g.in)),
			.offset = in_small(&g.in) * (arg & 1 ? 64 : 1),
			.size = in_u16(&g.in) };
		len = sizeof(struct fuse_read_in);
		out = 16 + (uint32_t)(((struct fuse_read_in *)(void *)a)->size & 0xfff);
		break;
	case FUSE_WRITE:
		*(struct fuse_write_in *)(void *)a = (struct fuse_write_in){
			.fh = handle(in_u8(&g.in)), .offset = in_small(&g.in) * (arg & 1 ? 64 : 1), .size = in_u8(&g.in)
		};
		len = sizeof(struct fuse_write_in) + ((struct fuse_write_in *)(void *)a)->size;
		if (arg & 8) {
			((struct fuse_write_in *)(void *)a)->size = sizeof(msg);
			memcpy(a + sizeof(struct fuse_write_in), &msg, sizeof(msg));
			len = sizeof(struct fuse_write_in) + sizeof(msg);
		}
		break;
	case FUSE_RELEASE:
		*(struct fuse_release_in *)(void *)a = (struct fuse_release_in){ .fh = handle(in_u8(&g.in)) };
		len = sizeof(struct fuse_release_in);
		break;
	case FUSE_IOCTL:
		*(struct fuse_ioctl_in *)(void *)a = (struct fuse_ioctl_in){ .fh = handle(in_u8(&g.in)),
			.cmd = (uint32_t)VFUN_IOC_CONTROL,
			.in_size = sizeof(msg),
			.out_size = sizeof(msg) };
		memcpy(a + sizeof(struct fuse_ioctl_in), &msg, sizeof(msg));
		len = sizeof(struct fuse_ioctl_in) + sizeof(msg);
		out = 16 + sizeof(struct fuse_ioctl_out) + sizeof(msg);
		break;
	case FUSE_SETUPMAPPING:
		*(struct fuse_setupmapping_in *)(void *)a = (struct fuse_setupmapping_in){ .foffset = (arg & 3) * 4096u,
			.len = (1 + (arg >> 2 & 3)) * 4096u,
			.moffset = in_small(&g.in) * 4096 };
		len = sizeof(struct fuse_setupmapping_in);
		break;
	case FUSE_REMOVEMAPPING:
		*(uint32_t *)(void *)a = arg & 3;
		len = 4 + (arg & 3u) * sizeof(struct fuse_removemapping_one);
		for (unsigned i = 0; i < (arg & 3u); i++) {
			struct fuse_removemapping_one one = { in_small(&g.in) * 4096, in_small(&g.in) * 4096 };

			memcpy(a + 4 + i * sizeof(one), &one, sizeof(one));
		}
		break;
	case FUSE_INIT:
		*(struct fuse_init_in *)(void *)a = (struct fuse_init_in){ .major = FUSE_KERNEL_VERSION,
			.minor = arg & 1 ? 38 : 30,
			.flags = FUSE_MAP_ALIGNMENT | FUSE_INIT_EXT,
			.flags2 = arg & 2 ? 0 : FUSE_HAS_INODE_DAX >> 32 };
		len = sizeof(struct fuse_init_in);
		break;
	default:
		len = arg & 63;
	}
	if (shape & 0x80) /* some of it otherwise */
		in_bytes(&g.in, r.bytes + in_u8(&g.in) % (sizeof(r.h) + 24), 4);
	if (shape & 0x40)
		out = in_u8(&g.in);
	if (!(shape & 0x80))
		r.h.len = (uint32_t)sizeof(r.h) + len;
	submit(r.h.opcode != FUSE_FORGET && what < 0xf0, &r, (uint32_t)sizeof(r.h) + len, out,
	    (uint8_t)((shape & 0x1f) | arg << 5));
}

static void
mount_dax(void)
{
	struct {
		struct fuse_in_header h;
		struct fuse_init_in i;
	} r = { .h = { .len = sizeof(r), .opcode = FUSE_INIT, .unique = ++g.unique },
		.i = { .major = FUSE_KERNEL_VERSION,
		    .minor = 38,
		    .flags = FUSE_MAP_ALIGNMENT | FUSE_INIT_EXT,
		    .flags2 = FUSE_HAS_INODE_DAX >> 32 } };

	submit(1, &r, sizeof(r), 256, 0);
	kick(1);
	collect();
	CHECK(rig.st->dax, "no DAX");
}

static void
open_control(uint32_t uid)
{
	struct {
		struct fuse_in_header h;
		struct fuse_open_in o;
	} r = { .h = {
		    .len = sizeof(r), .opcode = FUSE_OPEN, .unique = ++g.unique, .nodeid = NODE_CONTROL, .uid = uid } };

	submit(1, &r, sizeof(r), 64, 0);
	kick(1);
	collect();
}

static void
step(void)
{
	static const uint32_t spans[] = { 5, 50, 101, 1001, 2001, 10001, 60001, 20 };
	uint8_t what = in_u8(&g.in);
	uint8_t arg = in_u8(&g.in);
	uint8_t bytes[32];
	uint16_t off;

	switch (what % 16) {
	case 0:
	case 1:
	case 2:
	case 3:
	case 4:
		request(arg);
		if (!(what & 0x80))
			kick(arg < 0xf0);
		break;
	case 5: /* no good guest any more */
		off = in_u16(&g.in);
		if (arg & 0x40) /* where it hurts */
			off = (uint16_t)((arg & 0x20 ? DESC(1) : AVAIL(1)) + off % 0x100u);
		in_bytes(&g.in, bytes, arg & 31);
		guest_write(off, bytes, arg & 31);
		g.dirty = 1;
		break;
	case 6:
	case 7:
		engine_answer(arg);
		break;
	case 8:
		if (arg & 0x80)
			engine_says(&(struct imsg){ .type = IM_DEL, .instance = 1 + (arg & 3), .handle = arg >> 2 & 3 },
			    NULL, 0);
		else if (arg & 0x40)
			show(1 + (arg & 3), 1000 + (arg >> 2 & 1));
		else if (ring_of(arg)) {
			ring_of(arg)->count = 1;
			run(ring_of(arg));
		}
		break;
	case 9:
	case 10:
		back_answer(arg);
		break;
	case 11:
		sys_ms += spans[arg & 7];
		allow_all();
		rig_timers();
		break;
	case 12:
		allow_all();
		if (arg & 0x80)
			rig_kill();
		else
			rig.mortal = 1 + arg;
		break;
	case 13:
		allow_all();
		if (arg & 0x80 && rig.channel) {
			rig.channel->full = arg & 1;
		} else if (arg & 0x40 && rig.kept[SLOT_BACK]) {
			rig.kept[SLOT_BACK]->full = arg & 1;
		} else if (arg & 0x20) {
			engine_says(&(struct imsg){ .type = arg & 31u }, NULL, 0);
		} else if (arg & 0x10 && rig.channel) {
			sys_push(rig.channel, "?", 1, NULL, 0);
			run(rig.channel);
			g.nask = 0;
			rig_engine(1);
		} else {
			g.nask = 0;
			rig_engine(arg & 3);
		}
		break;
	case 14:
		if (arg & 0x80)
			ring_step(arg & 1, arg >> 1);
		break;
	case 15:
		kick(arg & 1);
		break;
	}
	check_memory();
	collect();
	rig_check();
}

static void
set_up(uint8_t how)
{
	uint64_t features = 1ull << 32 | 1ull << 28 | 1ull << 30;
	uint64_t protocol = 1ull << 0 | 1ull << 3 | 1ull << 5 | 1ull << 9 | 1ull << 10 | 1ull << 13 | 1ull << 15 |
			    1ull << 16 | 1ull << PROTOCOL_SHMEM;
	struct sys_file *back = sys_file_new(SYS_SOCKET, 0);

	g.mem = sys_file_new(SYS_MEMORY, MEM);
	g.bar = sys_file_new(SYS_MEMORY, BAR_PAGES * VFUN_PAGE);
	g.bump = BUFFERS;
	say(SET_FEATURES, &features, 8, NULL);
	say(SET_PROTOCOL, &protocol, 8, NULL);
	say(SET_BACK, "", 0, back);
	sys_file_put(back);
	say_region(ADD_REG, GPA, MEM, UVA, 0, g.mem);
	ring_start(0, 0);
	ring_start(1, 0);
	rig_engine(1);
	if (how & 1)
		mount_dax();
	open_control(1000);
	open_control(1001);
	show(1, 1000);
	show(2, 1001);
	check_memory();
	rig_check();
}

/* Time passes: whatever waits is answered. */
static void
settle(void)
{
	rig.mortal = 0;
	if (rig.channel)
		rig.channel->full = 0;
	if (rig.kept[SLOT_BACK])
		rig.kept[SLOT_BACK]->full = 0;
	allow_all();
	for (unsigned q = 0; q < 2; q++)
		if (g.paused[q])
			ring_step(q, 1);
	for (unsigned i = 0; i < 6; i++) {
		for (unsigned q = 0; q < 2; q++)
			kick(q);
		sys_ms += 61000;
		rig_timers();
	}
	check_memory();
	collect();
	rig_check();
	for (unsigned q = 0; q < 2 && !g.dirty; q++)
		for (unsigned i = 0; i < NUM; i++)
			CHECK(!g.pending[q][i].used, "queue %u: request %u of type %u was never answered", q, i,
			    g.pending[q][i].opcode);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	memset(&g, 0, sizeof(g));
	g.in = (struct input){ data, size };
	rig_start();
	set_up(in_u8(&g.in));
	while (g.in.left && rig.deaths < 32 && !rig.over)
		step();
	if (!rig.over)
		settle();
	if (g.back.used && g.back.file)
		sys_file_put(g.back.file);
	check_bar();
	sys_file_put(g.mem);
	sys_file_put(g.bar);
	rig_end();
	return 0;
}
