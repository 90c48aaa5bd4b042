/* SPDX-License-Identifier: MIT
 *
 * slots.c - fuzz target: dataout as the service sees it
 *
 * The input makes the geometry, and then is a program of a hostile client: it fills slots and arena, well-formed or
 * not, has the service serve what is published, and changes dataout once more while a function is about to run. The
 * functions are the software backend's own, behind the service's own compute(), with numbers small enough to be done
 * soon.
 *
 * Both regions are allocated to the byte, so that the address sanitizer sees a step outside. Of datain nothing may
 * change but the header's moving parts, the slot that is answered, and the room that the request names; of dataout
 * nothing at all.
 */
#include "fuzz.h"

#include "../../proto/serve.c"

#include "../../roles/service/work.c"

#define ARENA_MAX 4

struct client {
	struct input in;
	struct service sv;
	struct serve s;
	struct state st;
	uint8_t *out, *in_region;  /* the regions */
	uint8_t *out_was, *in_was; /* what they held */
	uint64_t out_size, in_size;
	uint64_t room, room_len; /* what the function may write, in datain */
	struct {
		uint16_t off;
		uint8_t len;
		uint8_t bytes[64];
	} late; /* what the client changes while the function is about to run */
};

static void
out_write(struct client *c, uint64_t off, const void *data, uint64_t len)
{
	if (off >= c->out_size)
		return;
	if (len > c->out_size - off)
		len = c->out_size - off;
	memcpy(c->out + off, data, len);
	memcpy(c->out_was + off, data, len);
}

/* The service's compute() with numbers that don't take for ever. */
static void
bounded(void *arg, const struct serve_call *call, struct serve_answer *ans)
{
	struct client *c = arg;
	struct serve_call small = *call;
	uint64_t args[VFUN_PAYLOAD / 8] = { 0 };
	unsigned reps = c->sv.signature.get.arrays ? 0 : 1;

	CHECK(call->nargs <= VFUN_PAYLOAD / 8, "%u arguments", call->nargs);
	if (call->bulk) {
		CHECK(call->in_len <= c->s.out_arena && call->out_len <= c->s.in_arena, "lengths");
		c->room = (uint64_t)((const volatile uint8_t *)call->out - c->in_region);
		c->room_len = call->out_len;
	}
	memcpy(args, call->arg, call->nargs * sizeof(args[0]));
	if (reps)
		args[0] %= 3000;
	if (args[reps] > 3)
		args[reps] &= 3;
	out_write(c, c->late.off, c->late.bytes, c->late.len);
	/* A round of pingpong waits for two seconds unless the other side has made its move. */
	if (!strcmp(c->sv.function.name, "pingpong") && args[0] &&
	    (call->in_len < 4 || *(const volatile uint32_t *)(const volatile void *)call->in != 1))
		args[0] = 0;
	else if (!strcmp(c->sv.function.name, "pingpong"))
		args[0] &= 1;
	small.arg = args;
	compute(&c->sv.worker[0], &small, ans);
	CHECK(ans->len <= sizeof(ans->bytes) || ans->bulk || ans->reason == VFUN_R_RESULT_SIZE, "inline length");
	CHECK(!ans->bulk || ans->len <= call->out_len, "bulk length");
}

/* Of datain, only what may have changed has. */
static void
check_in(struct client *c, uint32_t position)
{
	const struct vfun_hdr *h = (const void *)c->in_region;
	struct vfun_hdr *was = (void *)c->in_was;
	uint64_t at = VFUN_PAGE + (position & (c->s.slots - 1)) * (uint64_t)VFUN_LINE;

	was->bell = h->bell;
	was->state = h->state;
	was->parked = h->parked;
	was->cpu = h->cpu;
	memcpy(c->in_was + at, c->in_region + at, VFUN_LINE);
	CHECK(c->room_len <= c->in_size && c->room <= c->in_size - c->room_len, "room");
	memcpy(c->in_was + c->room, c->in_region + c->room, c->room_len);
	CHECK(!memcmp(c->in_region, c->in_was, c->in_size), "datain was written where it mustn't");
	CHECK(!memcmp(c->out, c->out_was, c->out_size), "dataout was written");
}

static void
check_answer(struct client *c, uint32_t position)
{
	const struct vfun_answer *a = &c->st.answers[position & (c->s.slots - 1)];

	CHECK(a->seq == position + 1, "seq %u of position %u", a->seq, position);
	CHECK(a->state == VFUN_STATE_DONE, "state %u", a->state);
	CHECK(!(a->flags & ~VFUN_ANSWER_BULK), "flags %u", a->flags);
	CHECK(!a->reason || (a->reason >= VFUN_R_SLOT_COMMAND && a->reason <= VFUN_R_CUT_OFF), "reason %u", a->reason);
	CHECK(a->len <= VFUN_PAYLOAD, "len %u", a->len);
	CHECK(!(a->flags & VFUN_ANSWER_BULK) || (a->len >= 8 && a->payload.word[0] <= c->s.in_arena), "bulk");
}

/* What is published is served, as serve_loop() does. */
static void
serve_published(struct client *c)
{
	while (c->s.strikes < STRIKES && published(&c->st)) {
		uint32_t position = c->st.next;

		c->room = c->room_len = 0;
		serve_slot(&c->st);
		wake_client(&c->st);
		CHECK(c->st.next == position + 1, "position");
		check_answer(c, position);
		check_in(c, position);
	}
}

/* A slot that is well-formed as far as the input wants it to be. */
static void
fill_slot(struct client *c)
{
	uint8_t shape = in_u8(&c->in);
	uint32_t ahead = in_u8(&c->in) & 7;
	struct vfun_request r = { .seq = c->st.next + ahead + 1, .cmd = (shape & 3) + 1, .flags = shape >> 2 & 3 };
	unsigned words = shape >> 4 & 7;

	if (shape & 0x80)
		in_bytes(&c->in, &r.cmd, 4);
	else
		r.len = (uint16_t)(words * 8 + (r.flags & VFUN_SLOT_BULK ? (words < 4 ? 32 : 0) : 0));
	for (unsigned i = 0; i < VFUN_PAYLOAD / 8; i++)
		r.payload.arg[i] = in_small(&c->in);
	if (r.flags & VFUN_SLOT_BULK && shape & 0x40)
		for (unsigned i = 0; i < 4; i++)
			r.payload.arg[i] *= VFUN_LINE;
	out_write(c, VFUN_PAGE + ((r.seq - 1) & (c->s.slots - 1)) * (uint64_t)VFUN_LINE, &r, sizeof(r));
}

static void
step(struct client *c)
{
	uint8_t bytes[256];
	uint64_t off;
	uint8_t len;

	switch (in_u8(&c->in) % 6) {
	case 0:
		fill_slot(c);
		break;
	case 1:
		serve_published(c);
		break;
	case 2:
		fill_slot(c);
		serve_published(c);
		break;
	case 3:
		off = in_u16(&c->in);
		len = in_u8(&c->in);
		in_bytes(&c->in, bytes, len);
		out_write(c, off, bytes, len);
		break;
	case 4:
		c->late.off = in_u16(&c->in);
		c->late.len = in_u8(&c->in) % sizeof(c->late.bytes);
		in_bytes(&c->in, c->late.bytes, c->late.len);
		break;
	case 5:
		((struct vfun_hdr *)(void *)c->out)->parked = in_u8(&c->in);
		((struct vfun_hdr *)(void *)c->out_was)->parked = ((struct vfun_hdr *)(void *)c->out)->parked;
		break;
	}
}

static void *
region(uint64_t size)
{
	void *p = aligned_alloc(VFUN_PAGE, size);

	CHECK(p, "memory");
	memset(p, 0, size);
	return p;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct client c = { .in = { data, size } };
	struct backend_setup setup = { 0 };
	char text[BACKEND_TEXT];
	unsigned functions = 0;
	uint8_t which = in_u8(&c.in);

	while (backend_software.functions[functions].name)
		functions++;
	c.sv.backend = &backend_software;
	c.sv.function = backend_software.functions[which % functions];
	CHECK(!vfun_signature_parse(&c.sv.signature, c.sv.function.signature, text), "signature: %s", text);
	c.s.own_sets = which >> 6 & 1;
	c.s.slots = 1u << (in_u8(&c.in) & 3);
	c.s.out_arena = in_u8(&c.in) % ARENA_MAX * (uint64_t)VFUN_PAGE;
	c.s.in_arena = in_u8(&c.in) % ARENA_MAX * (uint64_t)VFUN_PAGE;
	c.s.ring_fd = -1;
	c.s.fn = bounded;
	c.s.workers = 1;
	c.sv.worker[0].sv = &c.sv;
	c.out_size = vfun_region_size(c.s.slots, c.s.out_arena);
	c.in_size = vfun_region_size(c.s.slots, c.s.in_arena);
	c.s.out = c.out = region(c.out_size);
	c.s.in = c.in_region = region(c.in_size);
	c.out_was = region(c.out_size);
	c.in_was = region(c.in_size);
	c.st = (struct state){ .s = &c.s,
		.arg = &c,
		.step = 1,
		.bit = 1,
		.out = c.s.out,
		.in = c.s.in,
		.requests = (const void *)(c.out + VFUN_PAGE),
		.answers = (void *)(c.in_region + VFUN_PAGE),
		.out_arena = c.out + VFUN_PAGE + vfun_ring_size(c.s.slots),
		.in_arena = c.in_region + VFUN_PAGE + vfun_ring_size(c.s.slots),
		.next = which & 0x80 ? UINT32_MAX - 1 : 0 };
	setup.fn = &c.sv.function;
	setup.result_max = c.s.in_arena;
	CHECK(!c.sv.backend->init(&setup, &c.sv.worker[0].state, text), "init");
	while (c.in.left)
		step(&c);
	serve_published(&c);
	c.sv.backend->exit(c.sv.worker[0].state);
	free(c.out);
	free(c.in_region);
	free(c.out_was);
	free(c.in_was);
	return 0;
}
