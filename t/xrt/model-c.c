/* SPDX-License-Identifier: MIT
 *
 * model-c.c - the test device: its kernels in C
 *
 * The same arguments and the same answers as the Verilog ones in rtl/: 2048 bits, all of them 1 if n is out of range.
 * A step is one repetition, or one block of a vector.
 */
#include <string.h>
#include "model.h"

#define LIMBS 32
#define BLOCK 4096

enum { FACTORIAL, FIBONACCI, VADD };

const char *const kernels_kind = "c";

static struct run {
	uint64_t a[4]; /* the arguments, or the three addresses of vadd and its count */
	uint64_t answer[LIMBS];
} runs[KERNELS];

static void
factorial(uint64_t n, uint64_t r[LIMBS])
{
	memset(r, n > 300 ? 0xff : 0, LIMBS * sizeof(*r));
	if (n > 300)
		return;
	r[0] = 1;
	for (uint64_t k = 2; k <= n; k++) {
		unsigned __int128 carry = 0;

		for (int i = 0; i < LIMBS; i++) {
			carry += (unsigned __int128)r[i] * k;
			r[i] = (uint64_t)carry;
			carry >>= 64;
		}
	}
}

static void
fibonacci(uint64_t n, uint64_t r[LIMBS])
{
	uint64_t next[LIMBS] = { 1 };

	memset(r, n > 2900 ? 0xff : 0, LIMBS * sizeof(*r));
	if (n > 2900)
		return;
	while (n--) {
		unsigned __int128 carry = 0;

		for (int i = 0; i < LIMBS; i++) {
			carry += (unsigned __int128)r[i] + next[i];
			r[i] = next[i];
			next[i] = (uint64_t)carry;
			carry >>= 64;
		}
	}
}

/* One number's kernel: a[0] is n, a[1] the repetitions, a[2] where the answer goes. */
static bool
step_number(unsigned int kernel)
{
	struct run *r = &runs[kernel];

	(kernel == FACTORIAL ? factorial : fibonacci)(r->a[0], r->answer);
	if (r->a[1] > 1) {
		r->a[1]--;
		return false;
	}
	bus_write(kernel, r->a[2], r->answer, sizeof(r->answer));
	return true;
}

static bool
step_vadd(void)
{
	struct run *r = &runs[VADD];
	uint32_t a[BLOCK], b[BLOCK];
	uint32_t n = r->a[3] < BLOCK ? r->a[3] : BLOCK;

	if (n) {
		bus_read(VADD, r->a[0], a, n * 4);
		bus_read(VADD, r->a[1], b, n * 4);
		for (uint32_t i = 0; i < n; i++)
			a[i] += b[i];
		bus_write(VADD, r->a[2], a, n * 4);
	}
	for (int i = 0; i < 3; i++)
		r->a[i] += n * 4;
	r->a[3] -= n;
	return !r->a[3];
}

void
kernels_start(unsigned int kernel, const uint32_t regs[REG_WORDS])
{
	struct run *r = &runs[kernel];

	for (int i = 0; i < 3; i++)
		r->a[i] = regs[4 + 2 * i] | (uint64_t)regs[5 + 2 * i] << 32;
	r->a[3] = regs[10];
}

bool
kernels_step(unsigned int kernel, uint64_t *cycles)
{
	*cycles = 0;
	return kernel == VADD ? step_vadd() : step_number(kernel);
}

void
kernels_reset(unsigned int kernel)
{
	memset(&runs[kernel], 0, sizeof(runs[kernel]));
}
