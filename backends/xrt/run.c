/* SPDX-License-Identifier: MIT
 *
 * run.c - the driver of a kernel on an XRT device; in the host half
 *
 * Theory of operation
 *
 * init   opens the device, loads the xclbin unless it is loaded already, opens the kernel (shared: other services use
 *        the same one at the same time, XRT's contexts see to that), and allocates every buffer that calls will need:
 *        while serving nothing is allocated or opened on the device, so that few system calls are left. The first
 *        state does this for all; each has a run handle of its own, which is how several runs are queued.
 * run    sets the kernel's arguments, brings the input to the device, starts, waits, and brings the result back.
 * Waiting is XRT's business and may never end: the watchdog (half.c) is there for that.
 *
 * Buffers. An arena is one buffer on the device for each memory bank that arguments need it in, page for page: by user
 * pointer, so that DMA goes to and from the arena itself, or, where the device doesn't take these, with host memory of
 * its own and one copy each way. What a call names in the arena is a part of that buffer (XRT's sub-buffer), kept until
 * a call names another one. A result that isn't wanted in the arena goes through a small buffer of each state.
 *
 * Device memory was somebody else's before. Every buffer is overwritten with zeros when it is allocated: for arenas
 * with the arena itself, which is all zeros then.
 *
 * Syncs that fail. A card's driver says so; XRT's emulation shim doesn't. A word of the device that only init() has
 * written is therefore brought back with each result that goes through such a small buffer, and when a buffer is
 * allocated it has to prove that what is written to it comes back.
 *
 * Errors. XRT's C functions return 0 for some failures, after an exception that isn't one of XRT's own, and then set
 * errno to 0, which nothing else does: errno is set to something else beforehand and looked at afterwards.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib.h"
#include "xrt.h"

#define LAUNCHES_MAX 100000u /* that are measured at once */
#define DEPTH_MAX 16u

/* An arena on the device, in one memory bank. */
struct arena {
	xrt_handle bo;
	uint8_t *host; /* what the device reads and writes: the arena itself, or a copy */
	uint8_t *own;  /* the arena */
	uint64_t size;
	int bank;
};

/* What the states share. */
static struct device {
	struct xrt_lib lib;
	xrt_handle device;
	xrt_handle kernel;
	const struct xrt_desc *desc;
	struct arena arena[2 * XRT_ARGS_MAX];
	unsigned arenas;
	int copies; /* 1: some arena isn't used in place */
	unsigned users;
} dev;

/* A buffer argument as it was last set. */
struct place {
	struct arena *arena; /* that its input, or its result, is in */
	xrt_handle sub;
	uint64_t off;
	uint64_t len;
	int set; /* 1: the run's argument is `sub`, 0: the scratch's part */
};

/* Where an argument's bytes are. */
struct part {
	struct arena *arena; /* NULL: in the scratch */
	uint64_t off;
	uint64_t len;
};

struct layout {
	struct part part[XRT_ARGS_MAX];
	struct xrt_shares shares;
	int in_place; /* 1: the result is made in the client's room */
};

/* A call in the queue. */
struct xrt_state {
	xrt_handle run;
	struct layout layout;		/* of the call under way */
	struct place in[XRT_ARGS_MAX];	/* IN: in dataout's arena */
	struct place out[XRT_ARGS_MAX]; /* INOUT, OUT: in datain's arena */
	xrt_handle scratch;		/* NULL: results have no fixed length */
	uint8_t *scratch_host;
	uint64_t scratch_size; /* the guard, 8 bytes, is behind it */
	xrt_handle scratch_part[XRT_ARGS_MAX];
	xrt_handle now[XRT_ARGS_MAX]; /* the run's buffer argument */
	uint64_t *launch;	      /* measure: ns of each */
	xrt_handle queue[DEPTH_MAX];  /* measure: further runs */
	unsigned queued;
};

/* An XRT function that returns 0 for success. */
#define OK(call) (errno = EDOM, (call) == 0 && errno != 0)

#define GUARD 0x7665736c75706d69ull

static enum vfun_reason
fail(enum vfun_reason reason, char text[BACKEND_TEXT], const char *what)
{
	snprintf(text, BACKEND_TEXT, "%s", what);
	return reason;
}

static enum vfun_reason
load(const struct backend_setup *setup, unsigned char uuid[16], char text[BACKEND_TEXT])
{
	static const unsigned char none[16];
	unsigned char loaded[16] = { 0 };
	int r;

	if (xrt_image_uuid(setup->image, setup->image_len, uuid))
		return fail(VFUN_R_IMAGE, text, "the xclbin is not one");
	if (OK(dev.lib.DeviceGetXclbinUUID(dev.device, loaded)) && memcmp(loaded, none, 16) &&
	    !memcmp(loaded, uuid, 16))
		return VFUN_OK;
	errno = EDOM;
	r = dev.lib.DeviceLoadXclbin(dev.device, setup->image);
	if (r == EBUSY || r == -EBUSY)
		return fail(VFUN_R_DEVICE_BUSY, text, "the device is in use with another xclbin");
	if (r || !errno)
		return fail(
		    VFUN_R_IMAGE, text, "the device doesn't take the xclbin: it is wrong, or another is in use there");
	return VFUN_OK;
}

static enum vfun_reason
open_device(const struct backend_setup *setup, char text[BACKEND_TEXT])
{
	const struct xrt_desc *d = dev.desc = setup->description;
	const char *missing = xrt_lib_load(&dev.lib);
	unsigned char uuid[16];
	enum vfun_reason reason;

	if (missing)
		return fail(VFUN_R_LIBRARY, text, missing);
	dev.device =
	    strchr(d->device, ':') ? dev.lib.DeviceOpenByBDF(d->device) : dev.lib.DeviceOpen((unsigned)atoi(d->device));
	if (!dev.device)
		return fail(VFUN_R_NO_DEVICE, text, "the device can't be opened");
	reason = load(setup, uuid, text);
	if (reason)
		return reason;
	dev.kernel = dev.lib.PLKernelOpen(dev.device, uuid, d->kernel);
	return dev.kernel ? VFUN_OK : fail(VFUN_R_IMAGE, text, "the xclbin has no such kernel, or it can't be opened");
}

/* All zeros on the device as well, and what is written there comes back; host memory is all zeros. 0 or -errno. */
static int
clear_and_prove(xrt_handle bo, uint8_t *host, uint64_t size)
{
	volatile uint64_t *word = (volatile uint64_t *)(void *)host;
	int ok;

	*word = GUARD;
	ok = OK(dev.lib.BOSync(bo, XRT_TO_DEVICE, size, 0));
	*word = 0;
	ok = ok && OK(dev.lib.BOSync(bo, XRT_FROM_DEVICE, sizeof(*word), 0)) && *word == GUARD;
	*word = 0;
	return ok && OK(dev.lib.BOSync(bo, XRT_TO_DEVICE, sizeof(*word), 0)) ? 0 : -EIO;
}

/* The device's buffer for an arena, in the bank that the argument needs. 0 or -errno. */
static int
arena_for(struct arena **found, int arg, uint8_t *own, uint64_t size)
{
	struct arena *a = &dev.arena[dev.arenas];
	int bank = dev.lib.KernelArgGroupId(dev.kernel, arg);

	for (unsigned i = 0; i < dev.arenas; i++)
		if (dev.arena[i].own == own && dev.arena[i].bank == bank) {
			*found = &dev.arena[i];
			return 0;
		}
	*a = (struct arena){ .own = own, .host = own, .size = size, .bank = bank };
	a->bo = dev.lib.BOAllocUserPtr(dev.device, own, size, 0, (uint32_t)bank);
	if (!a->bo) {
		dev.copies = 1;
		a->bo = dev.lib.BOAlloc(dev.device, size, 0, (uint32_t)bank);
		a->host = a->bo ? dev.lib.BOMap(a->bo) : NULL;
		if (a->host)
			memset(a->host, 0, size);
	}
	if (!a->host)
		return -ENOMEM;
	dev.arenas++;
	*found = a;
	return clear_and_prove(a->bo, a->host, size);
}

static int
init_arenas(struct xrt_state *s, const struct backend_setup *setup)
{
	const struct xrt_desc *d = dev.desc;

	int r = 0;

	for (int i = 0; !r && i < d->nargs; i++) {
		const struct xrt_arg *a = &d->arg[i];

		if (a->type == XRT_IN && setup->out_size)
			r = arena_for(&s->in[i].arena, i, setup->out_arena, setup->out_size);
		if (a->type >= XRT_INOUT && setup->in_size)
			r = arena_for(&s->out[i].arena, i, setup->in_arena, setup->in_size);
	}
	return r;
}

static uint64_t
aligned(uint64_t n)
{
	return (n + XRT_ALIGN - 1) & ~(uint64_t)(XRT_ALIGN - 1);
}

static volatile uint64_t *
guard(const struct xrt_state *s)
{
	return (volatile uint64_t *)(void *)(s->scratch_host + s->scratch_size);
}

/* All parts of a result of fixed length, in one buffer: banks may differ, then there is none. */
static int
init_scratch(struct xrt_state *s)
{
	const struct xrt_desc *d = dev.desc;
	uint64_t at = 0;
	uint64_t all;
	int bank = -1;

	for (int i = 0; i < d->nargs; i++) {
		if (d->arg[i].type < XRT_INOUT)
			continue;
		if (bank >= 0 && bank != dev.lib.KernelArgGroupId(dev.kernel, i))
			return 0;
		bank = dev.lib.KernelArgGroupId(dev.kernel, i);
		s->scratch_size = aligned(s->scratch_size) + d->arg[i].bytes;
	}
	if (!s->scratch_size || !xrt_fixed_result(d))
		return 0;
	s->scratch_size = aligned(s->scratch_size);
	all = (s->scratch_size + sizeof(uint64_t) + 4095) & ~4095ull;
	s->scratch = dev.lib.BOAlloc(dev.device, all, 0, (uint32_t)bank);
	s->scratch_host = s->scratch ? dev.lib.BOMap(s->scratch) : NULL;
	if (!s->scratch_host)
		return -ENOMEM;
	memset(s->scratch_host, 0, all);
	if (clear_and_prove(s->scratch, s->scratch_host, all))
		return -EIO;
	*guard(s) = GUARD;
	if (!OK(dev.lib.BOSync(s->scratch, XRT_TO_DEVICE, sizeof(uint64_t), s->scratch_size)))
		return -EIO;
	for (int i = 0; i < d->nargs; i++) {
		if (d->arg[i].type < XRT_INOUT)
			continue;
		s->scratch_part[i] = dev.lib.BOSubAlloc(s->scratch, d->arg[i].bytes, at);
		if (!s->scratch_part[i])
			return -ENOMEM;
		at = aligned(at + d->arg[i].bytes);
	}
	return 0;
}

static int
init_measure(struct xrt_state *s)
{
	s->launch = calloc(LAUNCHES_MAX, sizeof(*s->launch));
	while (s->launch && s->queued < DEPTH_MAX && (s->queue[s->queued] = dev.lib.RunOpen(dev.kernel)))
		s->queued++;
	return s->launch && s->queued == DEPTH_MAX ? 0 : -ENOMEM;
}

enum vfun_reason
xrt_init(const struct backend_setup *setup, void **state, char text[BACKEND_TEXT])
{
	struct xrt_state *s = calloc(1, sizeof(*s));
	enum vfun_reason reason = VFUN_OK;
	int r;

	if (!s)
		return fail(VFUN_R_NO_RESOURCE, text, "no memory");
	*state = s;
	if (!dev.users++)
		reason = open_device(setup, text);
	if (reason)
		return reason;
	s->run = dev.lib.RunOpen(dev.kernel);
	if (!s->run)
		return fail(VFUN_R_DEVICE, text, "the kernel can't be made ready to run");
	r = init_arenas(s, setup);
	if (!r)
		r = init_scratch(s);
	if (r == -EIO)
		return fail(VFUN_R_DEVICE, text, "what is written to the device's memory doesn't come back");
	if (r)
		return fail(VFUN_R_NO_RESOURCE, text, "the device has no memory for the buffers");
	*setup->copies = dev.copies;
	if (dev.desc->measure && init_measure(s))
		return fail(VFUN_R_NO_RESOURCE, text, "no memory");
	return VFUN_OK;
}

/* One call */

static int
set_scalars(const struct backend_call *call, const struct xrt_desc *d, uint64_t share, uint64_t value[XRT_ARGS_MAX])
{
	unsigned next = 0;

	for (unsigned i = 0; i < d->nargs; i++) {
		const struct xrt_arg *a = &d->arg[i];

		if (a->type != XRT_SCALAR)
			continue;
		if (a->elements)
			value[i] = share / a->elements;
		else
			value[i] = next < call->nargs ? call->arg[next++] : a->def;
		if (value[i] < a->min || value[i] > a->max)
			return -EINVAL;
	}
	return 0;
}

/* Where each buffer of the call is. 0, -EINVAL, or -ENOSPC with res->need. */
static int
lay_out(struct xrt_state *s, const struct backend_call *call, struct layout *l, struct backend_result *res)
{
	const struct xrt_desc *d = dev.desc;
	uint64_t in = 0, out = 0, out_off = 0;

	if (xrt_shares(d, call->in_len, &l->shares))
		return -EINVAL;
	l->in_place = d->res_kind != VFUN_KIND_INT && l->shares.out && call->out_len >= l->shares.out;
	if (!l->in_place && l->shares.out && !s->scratch) {
		res->need = l->shares.out;
		return -ENOSPC;
	}
	for (unsigned i = 0; i < d->nargs; i++) {
		const struct xrt_arg *a = &d->arg[i];
		struct part *p = &l->part[i];

		if (a->type == XRT_SCALAR)
			continue;
		p->len = a->bytes ? a->bytes : l->shares.share;
		if (a->type == XRT_IN) {
			p->arena = s->in[i].arena;
			p->off = (uint64_t)((const volatile uint8_t *)call->in - p->arena->own) + in;
		} else if (l->in_place) {
			p->arena = s->out[i].arena;
			out_off = (uint64_t)(call->out - p->arena->own);
			p->off = out_off + aligned(out);
		} else {
			p->off = aligned(out);
		}
		if (a->type >= XRT_INOUT)
			out = aligned(out) + p->len;
		if (a->type <= XRT_INOUT)
			in += p->len;
	}
	return out_off % XRT_ALIGN ? -EINVAL : 0;
}

/* The buffer of an argument, as XRT has it: the same as last time, most often. NULL: no memory. */
static xrt_handle
buffer(struct xrt_state *s, unsigned i, const struct part *p)
{
	struct place *at = dev.desc->arg[i].type == XRT_IN ? &s->in[i] : &s->out[i];
	xrt_handle sub;

	if (!p->arena)
		return s->scratch_part[i];
	if (at->sub && at->off == p->off && at->len == p->len)
		return at->sub;
	sub = dev.lib.BOSubAlloc(p->arena->bo, p->len, p->off);
	if (!sub)
		return NULL;
	if (at->sub)
		(void)dev.lib.BOFree(at->sub);
	at->sub = sub;
	at->off = p->off;
	at->len = p->len;
	return sub;
}

/* To the device. `src`: where the argument's part of the input is, for INOUT. */
static int
bring(struct xrt_state *s, unsigned i, const struct part *p, const volatile uint8_t *src)
{
	uint8_t *host = p->arena ? p->arena->host + p->off : s->scratch_host + p->off;
	xrt_handle bo = p->arena ? p->arena->bo : s->scratch;

	if (dev.desc->arg[i].type == XRT_INOUT)
		memcpy(host, (const void *)(uintptr_t)src, p->len);
	else if (p->arena->host != p->arena->own)
		memcpy(host, p->arena->own + p->off, p->len);
	return OK(dev.lib.BOSync(bo, XRT_TO_DEVICE, p->len, p->off)) ? 0 : -ENODEV;
}

/* The result, from the device. */
static int
fetch(struct xrt_state *s, const struct layout *l)
{
	const struct xrt_desc *d = dev.desc;

	if (!l->in_place && s->scratch) {
		*guard(s) = 0;
		return OK(dev.lib.BOSync(s->scratch, XRT_FROM_DEVICE, s->scratch_size + sizeof(uint64_t), 0)) &&
			       *guard(s) == GUARD
			   ? 0
			   : -ENODEV;
	}
	for (unsigned i = 0; i < d->nargs; i++) {
		const struct part *p = &l->part[i];

		if (d->arg[i].type < XRT_INOUT)
			continue;
		if (!OK(dev.lib.BOSync(p->arena->bo, XRT_FROM_DEVICE, p->len, p->off)))
			return -ENODEV;
		if (p->arena->host != p->arena->own)
			memcpy(p->arena->own + p->off, p->arena->host + p->off, p->len);
	}
	return 0;
}

static int
set_arguments(struct xrt_state *s, xrt_handle run, const struct layout *l, const uint64_t value[XRT_ARGS_MAX])
{
	const struct xrt_desc *d = dev.desc;
	int ok = 1;

	for (int i = 0; ok && i < d->nargs; i++) {
		const struct xrt_arg *a = &d->arg[i];
		xrt_handle bo;

		if (a->type == XRT_SCALAR && a->size == 8) {
			ok = OK(dev.lib.RunSetArg(run, i, value[i]));
		} else if (a->type == XRT_SCALAR) {
			ok = OK(dev.lib.RunSetArg(run, i, (uint32_t)value[i]));
		} else {
			bo = buffer(s, (unsigned)i, &l->part[i]);
			ok = bo != NULL;
			if (ok && (run != s->run || s->now[i] != bo)) {
				ok = OK(dev.lib.RunSetArg(run, i, bo));
				s->now[i] = run == s->run ? bo : NULL;
			}
		}
	}
	return ok ? 0 : -ENODEV;
}

/* Start, with everything before it. */
static int
start(struct xrt_state *s, const struct backend_call *call, const struct layout *l, const uint64_t value[XRT_ARGS_MAX])
{
	const struct xrt_desc *d = dev.desc;
	const volatile uint8_t *src = call->in;
	int r = set_arguments(s, s->run, l, value);

	for (unsigned i = 0; !r && i < d->nargs; i++) {
		if (d->arg[i].type != XRT_IN && d->arg[i].type != XRT_INOUT)
			continue;
		r = bring(s, i, &l->part[i], src);
		src += l->part[i].len;
	}
	return r ? r : OK(dev.lib.RunStart(s->run)) ? 0 : -ENODEV;
}

static int
complete(struct xrt_state *s, xrt_handle run, const struct layout *l)
{
	return dev.lib.RunWait(run) == XRT_COMPLETED ? fetch(s, l) : -ENODEV;
}

static int
put_scratch(const struct xrt_state *s, const struct layout *l, struct backend_result *res)
{
	uint64_t len = l->shares.out;

	if (dev.desc->res_kind == VFUN_KIND_INT)
		while (len > 1 && !s->scratch_host[len - 1])
			len--;
	return backend_put(res, s->scratch_host, len);
}

static uint64_t
now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static int
earlier(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

/* measure = yes: XRT's own loop, in this very process, for vfun bench. The call's first two arguments are the number of
 * launches and how many of them are queued at a time; the kernel's follow. The result: ns of the median launch and of
 * the 99th in a hundred (one at a time only), of all together, and 1 if arenas are copied. */
static int
measure(struct xrt_state *s, const struct backend_call *call, struct backend_result *res)
{
	uint64_t n = call->nargs > 0 ? call->arg[0] : 0;
	uint64_t depth = call->nargs > 1 ? call->arg[1] : 0;
	struct backend_call one = *call;
	uint64_t value[XRT_ARGS_MAX] = { 0 };
	struct layout l = { .in_place = 0 };
	uint64_t result[4] = { 0 };
	uint64_t began;
	int r;

	if (n < 1 || n > LAUNCHES_MAX || depth < 1 || depth > s->queued)
		return -EINVAL;
	one.arg += 2;
	one.nargs -= 2;
	r = lay_out(s, &one, &l, res);
	if (!r)
		r = set_scalars(&one, dev.desc, l.shares.share, value);
	began = now_ns();
	for (uint64_t i = 0; !r && depth == 1 && i < n; i++) {
		uint64_t launched = now_ns();

		r = start(s, &one, &l, value);
		if (!r)
			r = complete(s, s->run, &l);
		s->launch[i] = now_ns() - launched;
	}
	for (uint64_t i = 0; !r && depth > 1 && i < n + depth; i++) {
		xrt_handle run = s->queue[i % depth];

		if (i >= depth)
			r = complete(s, run, &l);
		if (!r && i < n)
			r = set_arguments(s, run, &l, value);
		if (!r && i < n && !OK(dev.lib.RunStart(run)))
			r = -ENODEV;
	}
	result[2] = now_ns() - began;
	if (r)
		return r;
	if (depth == 1) {
		qsort(s->launch, n, sizeof(*s->launch), earlier);
		result[0] = s->launch[n / 2];
		result[1] = s->launch[n * 99 / 100];
	}
	result[3] = (uint64_t)dev.copies;
	return backend_put(res, result, sizeof(result));
}

int
xrt_begin(void *state, const struct backend_call *call, struct backend_result *res)
{
	struct xrt_state *s = state;
	uint64_t value[XRT_ARGS_MAX] = { 0 };
	int r;

	if (dev.desc->measure)
		return 0;
	s->layout.in_place = 0;
	memset(s->layout.part, 0, sizeof(s->layout.part));
	r = lay_out(s, call, &s->layout, res);
	if (!r)
		r = set_scalars(call, dev.desc, s->layout.shares.share, value);
	return r ? r : start(s, call, &s->layout, value);
}

int
xrt_finish(void *state, const struct backend_call *call, struct backend_result *res)
{
	struct xrt_state *s = state;
	const struct layout *l = &s->layout;
	int r = dev.desc->measure ? measure(s, call, res) : complete(s, s->run, l);

	if (r || dev.desc->measure || !l->shares.out)
		return r;
	if (!l->in_place)
		return put_scratch(s, l, res);
	res->bulk = 1;
	res->len = l->shares.out;
	return 0;
}

/* What earlier calls left: results, in the scratch and on the device. Arenas are the client's own. */
void
xrt_reset(void *state)
{
	struct xrt_state *s = state;

	if (!s->scratch)
		return;
	memset(s->scratch_host, 0, s->scratch_size);
	(void)dev.lib.BOSync(s->scratch, XRT_TO_DEVICE, s->scratch_size, 0);
}

static void
free_buffer(xrt_handle bo)
{
	if (bo)
		(void)dev.lib.BOFree(bo);
}

void
xrt_exit(void *state)
{
	struct xrt_state *s = state;

	for (unsigned i = 0; i < XRT_ARGS_MAX; i++) {
		free_buffer(s->in[i].sub);
		free_buffer(s->out[i].sub);
		free_buffer(s->scratch_part[i]);
	}
	free_buffer(s->scratch);
	for (unsigned i = 0; i < s->queued; i++)
		(void)dev.lib.RunClose(s->queue[i]);
	if (s->run)
		(void)dev.lib.RunClose(s->run);
	free(s->launch);
	free(s);
	if (--dev.users)
		return;
	for (unsigned i = 0; i < dev.arenas; i++)
		free_buffer(dev.arena[i].bo);
	if (dev.kernel)
		(void)dev.lib.KernelClose(dev.kernel);
	if (dev.device)
		(void)dev.lib.DeviceClose(dev.device);
}
