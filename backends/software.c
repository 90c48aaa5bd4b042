/* SPDX-License-Identifier: MIT
 *
 * software.c - the software backend: functions computed by the host's CPU
 *
 * factorial and fibonacci are the paper's (section 4.2), but exact: numbers of any length, computed limb by limb with
 * GMP's mpn functions in a private buffer that init() allocated, so that a call allocates nothing and its work is
 * bounded by the room the caller gave for the result. sha256 is nettle's, zstd is libzstd's with a static workspace.
 *
 * What takes long is done in pieces, of about a millisecond at most, between which vfun_stopped() is asked.
 *
 * Each function takes a repetition count, as the paper's experiment does: the work is done so many times. The library
 * calls are opaque to the compiler, and an empty asm that claims to change the input forbids it to merge repetitions.
 */
#include <errno.h>
#include <gmp.h>
#include <nettle/sha2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#define ZSTD_STATIC_LINKING_ONLY
#include <zstd.h>

#include "backend.h"

struct software {
	mp_limb_t *a; /* limbs_max + 1 limbs each */
	mp_limb_t *b;
	mp_size_t limbs_max; /* what fits the largest result room */
	void *work;	     /* zstd's */
	size_t work_size;
	uint8_t *buf; /* zstd's output, buf_size bytes */
	size_t buf_size;
};

#define OPAQUE(x) __asm__ volatile("" : "+r"(x) : : "memory")
#define PIECE (1u << 20) /* bytes */
#define REPS_PIECE 64u	 /* repetitions of something short */
#define STEPS 1024u	 /* steps of a number that grows */

/* After repetition i: may the call be given up? */
static int
stopped(const struct backend_call *call, uint64_t i)
{
	return i % REPS_PIECE == REPS_PIECE - 1 ? vfun_stopped(call->stop) : 0;
}

/* Limbs that a result may have in this call: what fits the room (or the slot), never more than the buffers. */
static mp_size_t
limbs_allowed(const struct software *s, const struct backend_call *call)
{
	uint64_t bytes = call->out_len > VFUN_PAYLOAD ? call->out_len : VFUN_PAYLOAD;
	uint64_t limbs = (bytes + sizeof(mp_limb_t) - 1) / sizeof(mp_limb_t);

	return limbs > (uint64_t)s->limbs_max ? s->limbs_max : (mp_size_t)limbs;
}

/* The number in limbs[0..n) as little-endian bytes without leading zeros; 0 is one zero byte. */
static int
put_number(struct backend_result *res, const mp_limb_t *limbs, mp_size_t n)
{
	const uint8_t *bytes = (const uint8_t *)limbs;
	uint64_t len = (uint64_t)n * sizeof(mp_limb_t);

	while (len > 1 && !bytes[len - 1])
		len--;
	return backend_put(res, bytes, len);
}

/* n! by n-1 multiplications with one limb. Small factors are gathered into one limb first: it is the same product, and
 * a multiplication costs the same for a full limb. Returns limbs; 0 when it would be more than max; or what
 * vfun_stopped() says. */
static mp_size_t
factorial_once(mp_limb_t *r, mp_size_t max, uint64_t n, const struct vfun_stop *stop)
{
	mp_limb_t gathered = 1;
	mp_size_t len = 1;
	unsigned steps = 0;

	r[0] = 1;
	for (uint64_t i = 2; i <= n; i++) {
		mp_limb_t product;
		mp_limb_t carry;

		if (i < n && !__builtin_mul_overflow(gathered, (mp_limb_t)i, &product)) {
			gathered = product;
			continue;
		}
		carry = mpn_mul_1(r, r, len, gathered);
		if (carry)
			r[len++] = carry;
		if (len > max)
			return 0;
		gathered = i;
		if (++steps % STEPS == 0 && vfun_stopped(stop))
			return vfun_stopped(stop);
	}
	if (gathered > 1) {
		mp_limb_t carry = mpn_mul_1(r, r, len, gathered);

		if (carry)
			r[len++] = carry;
	}
	return len > max ? 0 : len;
}

static int
run_factorial(void *state, const struct backend_call *call, struct backend_result *res)
{
	struct software *s = state;
	uint64_t n = call->arg[0];
	uint64_t reps = call->arg[1];
	mp_size_t max = limbs_allowed(s, call);
	mp_size_t len = 1;
	int r = 0;

	for (uint64_t i = 0; i < reps && len > 0 && !r; i++) {
		OPAQUE(n);
		len = factorial_once(s->a, max, n, call->stop);
		r = stopped(call, i);
	}
	if (r || len < 0)
		return r ? r : (int)len;
	return len ? put_number(res, s->a, len) : -ENOSPC;
}

/* F(n) by n-1 additions; F(0) = 0, F(1) = 1. The larger of two neighbours ends in *r. As factorial_once(). */
static mp_size_t
fibonacci_once(struct software *s, mp_size_t max, uint64_t n, mp_limb_t **r, const struct vfun_stop *stop)
{
	mp_limb_t *x = s->a; /* F(i - 1) */
	mp_limb_t *y = s->b; /* F(i) */
	mp_size_t len = 1;

	x[0] = 0;
	y[0] = n ? 1 : 0;
	for (uint64_t i = 1; i < n; i++) {
		mp_limb_t *t = x;
		mp_limb_t carry = mpn_add_n(x, x, y, len);

		if (carry) {
			x[len] = carry;
			y[len++] = 0;
		}
		if (len > max)
			return 0;
		x = y;
		y = t;
		if (i % STEPS == 0 && vfun_stopped(stop))
			return vfun_stopped(stop);
	}
	*r = y;
	return len;
}

static int
run_fibonacci(void *state, const struct backend_call *call, struct backend_result *res)
{
	struct software *s = state;
	uint64_t n = call->arg[0];
	uint64_t reps = call->arg[1];
	mp_size_t max = limbs_allowed(s, call);
	mp_limb_t *number = s->a;
	mp_size_t len = 1;
	int r = 0;

	for (uint64_t i = 0; i < reps && len > 0 && !r; i++) {
		OPAQUE(n);
		len = fibonacci_once(s, max, n, &number, call->stop);
		r = stopped(call, i);
	}
	if (r || len < 0)
		return r ? r : (int)len;
	return len ? put_number(res, number, len) : -ENOSPC;
}

/* The digest is made of bytes that are read once each, in place: a guest that changes them meanwhile gets another
 * digest. */
static int
run_sha256(void *state, const struct backend_call *call, struct backend_result *res)
{
	uint8_t digest[SHA256_DIGEST_SIZE];
	const uint8_t *in = (const uint8_t *)(uintptr_t)call->in;
	uint64_t reps = call->arg[0];
	int r = 0;

	(void)state;
	for (uint64_t i = 0; i < reps && !r; i++) {
		uint64_t left = call->in_len;
		struct sha256_ctx ctx;

		sha256_init(&ctx);
		for (; left > PIECE && !r; left -= PIECE) {
			sha256_update(&ctx, PIECE, in + call->in_len - left);
			r = vfun_stopped(call->stop);
		}
		sha256_update(&ctx, left, in + call->in_len - left);
		sha256_digest(&ctx, sizeof(digest), digest);
		r = r ? r : stopped(call, i);
	}
	return r ? r : backend_put(res, digest, sizeof(digest));
}

static uint64_t
sum_of(const uint8_t *in, uint64_t len)
{
	uint64_t word;
	uint64_t sum = 0;
	uint64_t at = 0;

	for (; at + sizeof(word) <= len; at += sizeof(word)) {
		memcpy(&word, in + at, sizeof(word));
		sum += word;
	}
	word = 0;
	memcpy(&word, in + at, len - at);
	return sum + word;
}

/* The sum of the input's 64-bit words, the last one filled with zeros, mod 2^64: what reading the data costs, and
 * nothing else. */
static int
run_checksum(void *state, const struct backend_call *call, struct backend_result *res)
{
	const uint8_t *in = (const uint8_t *)(uintptr_t)call->in;
	uint64_t reps = call->arg[0];
	uint64_t sum = 0;
	int r = 0;

	(void)state;
	for (uint64_t i = 0; i < reps && !r; i++) {
		uint64_t left = call->in_len;

		OPAQUE(in);
		sum = 0;
		for (; left > PIECE && !r; left -= PIECE) {
			sum += sum_of(in + call->in_len - left, PIECE);
			r = vfun_stopped(call->stop);
		}
		sum += sum_of(in + call->in_len - left, left);
		r = r ? r : stopped(call, i);
	}
	return r ? r : put_number(res, &(mp_limb_t){ sum }, 1);
}

/* One frame. The streaming interface in its buffered mode copies each input byte once into its own window before it
 * looks at it, and output leaves through a private buffer: libzstd reads its own output back, and input more than once.
 * ZSTD_e_end is given without input, since with all of it libzstd would take a short cut that works on the caller's
 * memory. The strategy is the default level's for any size; the Makefile links no other. */
static int
compress_once(struct software *s, const struct backend_call *call, struct backend_result *res)
{
	ZSTD_CCtx *z = ZSTD_initStaticCStream(s->work, s->work_size);
	ZSTD_inBuffer in = { .src = (const void *)(uintptr_t)call->in, .size = call->in_len, .pos = 0 };
	size_t left = 1;

	if (!z || ZSTD_isError(ZSTD_CCtx_setParameter(z, ZSTD_c_compressionLevel, ZSTD_CLEVEL_DEFAULT)) ||
	    ZSTD_isError(ZSTD_CCtx_setParameter(z, ZSTD_c_strategy, ZSTD_dfast)) ||
	    ZSTD_isError(ZSTD_CCtx_setParameter(z, ZSTD_c_checksumFlag, 1)) ||
	    ZSTD_isError(ZSTD_CCtx_setPledgedSrcSize(z, call->in_len)))
		return -EIO;
	while (left) {
		ZSTD_outBuffer out = { .dst = s->buf, .size = s->buf_size, .pos = 0 };
		int end = in.pos == in.size;
		int r;

		left = ZSTD_compressStream2(z, &out, &in, end ? ZSTD_e_end : ZSTD_e_continue);
		if (ZSTD_isError(left))
			return -EIO;
		if (!end)
			left = 1;
		r = vfun_stopped(call->stop);
		if (r)
			return r;
		r = backend_put(res, s->buf, out.pos);
		if (r) {
			res->need = ZSTD_compressBound(call->in_len);
			return r;
		}
	}
	return 0;
}

static int
run_zstd(void *state, const struct backend_call *call, struct backend_result *res)
{
	struct software *s = state;
	uint64_t reps = call->arg[0];
	int r = 0;

	for (uint64_t i = 0; i < reps && !r; i++) {
		res->len = 0;
		res->bulk = 0;
		r = compress_once(s, call, res);
	}
	return r;
}

/* arg[0] rounds: wait until the first word of the input is 1, 2, 3, ...; answer each with the same in the first word of
 * the room. Nothing else happens between the two lines, so a round is what the memory itself takes. Ends early, with
 * the number of rounds made, when the other side falls silent for a second. */
static int
run_pingpong(void *state, const struct backend_call *call, struct backend_result *res)
{
	const volatile uint32_t *in = (const volatile uint32_t *)(const volatile void *)call->in;
	volatile uint32_t *out = (volatile uint32_t *)(volatile void *)call->out;
	uint64_t done = 0;

	(void)state;
	if (call->in_len < VFUN_LINE || call->out_len < VFUN_LINE || ((uintptr_t)in | (uintptr_t)out) % VFUN_LINE)
		return -EINVAL;
	for (uint32_t i = 1; done < call->arg[0]; i++, done++) {
		time_t until = 0;

		for (uint32_t spins = 1; __atomic_load_n(in, __ATOMIC_ACQUIRE) != i; spins++) {
			struct timespec now;

			vfun_relax();
			if (spins & 0xffff)
				continue;
			if (vfun_stopped(call->stop))
				return vfun_stopped(call->stop);
			clock_gettime(CLOCK_MONOTONIC, &now);
			if (!until)
				until = now.tv_sec + 2;
			else if (now.tv_sec >= until)
				return backend_put(res, &done, sizeof(done));
		}
		__atomic_store_n(out, i, __ATOMIC_RELEASE);
	}
	return backend_put(res, &done, sizeof(done));
}

#define REPS "reps u64 1.. default 1"

static const struct backend_function functions[] = {
	{ "factorial", "n!, exact", "n u64, " REPS " -> int", 1, run_factorial },
	{ "fibonacci", "the n-th Fibonacci number, exact", "n u64, " REPS " -> int", 1, run_fibonacci },
	{ "sha256", "SHA-256 digest", "data u8[*], " REPS " -> digest hex[32]", 1, run_sha256 },
	{ "checksum", "sum of its 64-bit words", "data u8[*], " REPS " -> int", 1, run_checksum },
	{ "zstd", "compress into one zstd frame", "data u8[*], " REPS " -> frame u8[*]", 1, run_zstd },
	{ "pingpong", "raw cache-line ping-pong, for vfun bench", "rounds u64 0..4294967295, line u8[*] -> done u64", 0,
	    run_pingpong },
	{ NULL, NULL, NULL, 0, NULL },
};

static void
software_exit(void *state)
{
	struct software *s = state;

	if (!s)
		return;
	free(s->a);
	free(s->b);
	free(s->work);
	free(s->buf);
	free(s);
}

static enum vfun_reason
software_init(const struct backend_setup *setup, void **state, char text[BACKEND_TEXT])
{
	const struct backend_function *fn = setup->fn;
	uint64_t result_max = setup->result_max;
	struct software *s = calloc(1, sizeof(*s));
	int ok = s != NULL;

	if (ok && (fn->run == run_factorial || fn->run == run_fibonacci)) {
		if (result_max < VFUN_PAYLOAD)
			result_max = VFUN_PAYLOAD;
		s->limbs_max = (mp_size_t)(result_max / sizeof(mp_limb_t));
		s->a = calloc((size_t)s->limbs_max + 1, sizeof(*s->a));
		s->b = calloc((size_t)s->limbs_max + 1, sizeof(*s->b));
		ok = s->a && s->b;
	} else if (ok && fn->run == run_zstd) {
		s->work_size = ZSTD_estimateCStreamSize(ZSTD_CLEVEL_DEFAULT);
		s->buf_size = ZSTD_CStreamOutSize();
		s->work = malloc(s->work_size);
		s->buf = malloc(s->buf_size);
		ok = s->work && s->buf;
	}
	if (!ok) {
		software_exit(s);
		snprintf(text, BACKEND_TEXT, "no memory for the function");
		return VFUN_R_NO_RESOURCE;
	}
	*state = s;
	return VFUN_OK;
}

/* No function keeps anything between calls. */
static void
software_reset(void *state)
{
	(void)state;
}

/* Computing needs no system call. */
static const struct backend_syscall none[] = { { .why = NULL } };

const struct backend backend_software = {
	.name = "software",
	.functions = functions,
	.setting_up = none,
	.serving = none,
	.init = software_init,
	.reset = software_reset,
	.exit = software_exit,
};
