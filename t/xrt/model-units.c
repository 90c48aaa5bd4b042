/* SPDX-License-Identifier: MIT
 *
 * model-units.c - the test device: its compute units, and their queues
 *
 * Each client writes to its own view of a unit's registers. When it sets AP_START, the view waits for the unit; then
 * the unit gets the view's registers and runs. A client has at most one run in a unit, as with real registers: more of
 * them wait in XRT's own queue, in the client.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "model.h"

struct argument {
	const char *name;
	uint32_t offset;
	uint32_t size;
};

static const struct kernel {
	const char *name;
	struct argument arguments[4];
} kernels[KERNELS] = {
	{ "factorial", { { "n", 0x10, 8 }, { "reps", 0x18, 8 }, { "out", 0x20, 8 } } },
	{ "fibonacci", { { "n", 0x10, 8 }, { "reps", 0x18, 8 }, { "out", 0x20, 8 } } },
	{ "vadd", { { "a", 0x10, 8 }, { "b", 0x18, 8 }, { "out", 0x20, 8 }, { "count", 0x28, 4 } } },
};

static struct unit {
	bool present;
	uint64_t base;
	struct client *client; /* whose run it is; NULL: idle */
	enum fault fault;
	int64_t until; /* FAULT_SLOW: not done before */
} units[KERNELS];

static uint64_t tickets;

static int64_t
now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

void
units_clear(void)
{
	memset(units, 0, sizeof(units));
}

void
units_place(unsigned int kernel, uint64_t base)
{
	units[kernel] = (struct unit){ .present = true, .base = base };
}

/* The view that an access of `size` bytes is for, and the offset in its registers. */
static struct view *
view_at(struct client *c, uint64_t address, size_t size, unsigned int *kernel, size_t *offset)
{
	for (unsigned int k = 0; k < KERNELS; k++) {
		const uint64_t at = address - units[k].base;

		if (!units[k].present || address < units[k].base || at % 4 || size % 4)
			continue;
		if (at > sizeof(c->views[k].regs) || size > sizeof(c->views[k].regs) - at)
			continue;
		*kernel = k;
		*offset = at;
		return &c->views[k];
	}
	say("client %u: registers 0x%llx, %zu bytes: refused, there are none", c->number, (unsigned long long)address,
	    size);
	return NULL;
}

static bool
busy(const struct view *v)
{
	return v->state == RUN_QUEUED || v->state == RUN_RUNNING;
}

bool
units_write(struct client *c, uint64_t address, const uint8_t *data, size_t size)
{
	unsigned int kernel = 0;
	size_t offset = 0;
	struct view *v = c->loaded ? view_at(c, address, size, &kernel, &offset) : NULL;

	if (!v)
		return false;
	if (busy(v)) {
		say("client %u: registers of %s: refused, it is running", c->number, kernels[kernel].name);
		return false;
	}
	memcpy((uint8_t *)v->regs + offset, data, size);
	if (offset == 0 && size && v->regs[0] & AP_START) {
		v->state = RUN_QUEUED;
		v->ticket = ++tickets;
	}
	return true;
}

bool
units_read(struct client *c, uint64_t address, uint8_t *data, size_t size)
{
	unsigned int kernel = 0;
	size_t offset = 0;
	struct view *v = c->loaded ? view_at(c, address, size, &kernel, &offset) : NULL;

	if (!v)
		return false;
	v->regs[0] = busy(v) ? AP_START : v->state == RUN_DONE ? AP_DONE | AP_IDLE : AP_IDLE;
	memcpy(data, (uint8_t *)v->regs + offset, size);
	if (offset == 0 && size && v->state == RUN_DONE)
		v->state = RUN_NONE;
	return true;
}

static void
say_run(const struct client *c, unsigned int kernel)
{
	const struct kernel *k = &kernels[kernel];
	const struct view *v = &c->views[kernel];
	char text[256];
	int n = 0;

	for (const struct argument *a = k->arguments; a < k->arguments + 4 && a->name; a++) {
		uint64_t value = v->regs[a->offset / 4];

		if (a->size == 8)
			value |= (uint64_t)v->regs[a->offset / 4 + 1] << 32;
		n += snprintf(text + n, sizeof(text) - n, " %s=%llu", a->name, (unsigned long long)value);
	}
	say("client %u runs %s%s, run %llu, %s", c->number, k->name, text, (unsigned long long)v->ticket, kernels_kind);
}

static void
start(unsigned int kernel, struct client *c)
{
	struct unit *u = &units[kernel];
	unsigned int number;

	say_run(c, kernel);
	u->fault = fault_now(&number);
	if (u->fault == FAULT_DIE) {
		say("dies");
		_Exit(1);
	}
	u->until = u->fault == FAULT_SLOW ? now_ms() + number : 0;
	u->client = c;
	c->views[kernel].state = RUN_RUNNING;
	kernels_start(kernel, c->views[kernel].regs);
}

static void
start_next(unsigned int kernel)
{
	struct client *first = NULL;

	for (struct client *c = clients; c; c = c->next) {
		const struct view *v = &c->views[kernel];

		if (v->state == RUN_QUEUED && (!first || v->ticket < first->views[kernel].ticket))
			first = c;
	}
	if (first)
		start(kernel, first);
}

static void
step(unsigned int kernel)
{
	struct unit *u = &units[kernel];
	struct client *c = u->client;
	uint64_t cycles = 0;

	if (!kernels_step(kernel, &cycles))
		return;
	c->views[kernel].state = RUN_DONE;
	u->client = NULL;
	say("client %u is done with %s, run %llu, %llu cycles", c->number, kernels[kernel].name,
	    (unsigned long long)c->views[kernel].ticket, (unsigned long long)cycles);
}

/* Some work of every unit. Returns for how many milliseconds there is nothing to do but answering; -1: without end. */
int
units_work(void)
{
	int idle = -1;

	for (unsigned int k = 0; k < KERNELS; k++) {
		struct unit *u = &units[k];
		int64_t wait;

		if (!u->client)
			start_next(k);
		if (!u->client || u->fault == FAULT_HANG)
			continue;
		wait = u->until ? u->until - now_ms() : 0;
		if (wait <= 0) {
			step(k);
			wait = 0;
		}
		idle = idle < 0 || wait < idle ? (int)wait : idle;
	}
	return idle;
}

/* The client goes, or unloads: its runs end at once. */
void
units_drop(struct client *c)
{
	for (unsigned int k = 0; k < KERNELS; k++) {
		if (units[k].client == c) {
			say("client %u leaves a run of %s unfinished", c->number, kernels[k].name);
			kernels_reset(k);
			units[k].client = NULL;
		}
		memset(&c->views[k], 0, sizeof(c->views[k]));
	}
}

static void *
bus(unsigned int kernel, uint64_t address, size_t size, const char *what)
{
	const struct client *c = units[kernel].client;
	void *at = memory_at(c, address, size);

	if (!at)
		say("client %u: %s %s 0x%llx, %zu bytes: refused, not its memory", c->number, kernels[kernel].name,
		    what, (unsigned long long)address, size);
	return at;
}

bool
bus_read(unsigned int kernel, uint64_t address, void *data, size_t size)
{
	const void *at = bus(kernel, address, size, "reads");

	if (at)
		memcpy(data, at, size);
	else
		memset(data, 0, size);
	return at;
}

bool
bus_write(unsigned int kernel, uint64_t address, const void *data, size_t size)
{
	void *at;

	if (units[kernel].fault == FAULT_NO_WRITE)
		return true;
	at = bus(kernel, address, size, "writes");
	if (at)
		memcpy(at, data, size);
	return at;
}
