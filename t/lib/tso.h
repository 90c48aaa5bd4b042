/* SPDX-License-Identifier: MIT
 *
 * tso.h - a store buffer for tests: atomic stores that other threads see later, as far as the memory model lets them
 *
 * Included before proto/channel.c and proto/serve.c (-include). x86 lets a load overtake an earlier store to another
 * place; that is all it changes, and real processors do it too rarely for a test that waits for it. Here each thread
 * has a queue of stores that leave it, in order, some random number of atomic operations later, and at once where the
 * code has a full barrier: a fence, a store or a read-modify-write that is sequentially consistent or locked, a system
 * call. What goes wrong because a barrier is missing then goes wrong within a few calls.
 *
 * Plain stores are not delayed, which the model allows as well; that nothing reads them early is the thread sanitizer's
 * business.
 */
#ifndef TSO_H
#define TSO_H

#include <sched.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#define TSO_STORES 8u

struct tso_store {
	void *at;
	uint64_t value;
	unsigned size;
};

static __thread struct {
	struct tso_store store[TSO_STORES];
	unsigned n;
	uint32_t x;
} tso;

static inline void
tso_leave(void)
{
	struct tso_store s = tso.store[0];

	memmove(&tso.store[0], &tso.store[1], --tso.n * sizeof(s));
	if (s.size == 8)
		__atomic_store_n((uint64_t *)s.at, s.value, __ATOMIC_RELEASE);
	else
		__atomic_store_n((uint32_t *)s.at, (uint32_t)s.value, __ATOMIC_RELEASE);
}

static inline void
tso_barrier(void)
{
	while (tso.n)
		tso_leave();
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

/* The kernel's own barriers come a little later than the call: what waits until then waits long enough to matter. */
static inline void
tso_enter_kernel(void)
{
	for (volatile uint32_t i = tso.n ? tso.x >> 18 : 0; i > 0; i--)
		;
	tso_barrier();
}

/* Time passes: a store leaves, or others have their turn while it waits. */
static inline void
tso_step(void)
{
	tso.x = tso.x * 1664525u + 1013904223u;
	if (tso.n && tso.x >> 28 == 0)
		tso_leave();
	else if (tso.n && tso.x >> 28 == 1)
		sched_yield();
}

static inline void
tso_put(void *at, unsigned size, uint64_t value, int order)
{
	if (tso.n == TSO_STORES)
		tso_leave();
	tso.store[tso.n++] = (struct tso_store){ at, value, size };
	if (order == __ATOMIC_SEQ_CST)
		tso_barrier();
}

#ifdef TSO_REPLACE
_Static_assert(sizeof(int) == 4, "int");
#define __atomic_store_n(p, v, order) tso_put((void *)(p), sizeof(*(p)), (uint64_t)(v), order)
#define __atomic_load_n(p, order) (tso_step(), __atomic_load_n(p, order))
#define __atomic_fetch_add(p, v, order) (tso_barrier(), __atomic_fetch_add(p, v, order))
#define __atomic_fetch_or(p, v, order) (tso_barrier(), __atomic_fetch_or(p, v, order))
#define __atomic_add_fetch(p, v, order) (tso_barrier(), __atomic_add_fetch(p, v, order))
#define __atomic_exchange_n(p, v, order) (tso_barrier(), __atomic_exchange_n(p, v, order))
#define __atomic_fetch_and(p, v, order) (tso_barrier(), __atomic_fetch_and(p, v, order))
#define __atomic_thread_fence(order) tso_barrier()
#define syscall(...) (tso_enter_kernel(), syscall(__VA_ARGS__))
#endif
#endif
