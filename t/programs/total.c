/* SPDX-License-Identifier: MIT
 *
 * total.c - a program with state: the sum of what was set, and how often
 */
#include <stdlib.h>

#include "../../proto/vfun.h"

static int
init(void **state, uint64_t result_max)
{
	(void)result_max;
	*state = calloc(2, sizeof(uint64_t));
	return *state ? 0 : -12; /* ENOMEM */
}

static int
call(void *state, const struct vfun_incoming *in, struct vfun_outgoing *out)
{
	uint64_t *total = state;

	if (in->cmd == VFUN_CMD_SET) {
		if (in->arg[0] == 13)
			return vfun_refuse(out, "add: 13 brings bad luck");
		total[0] += in->arg[0];
		total[1]++;
		return 0;
	}
	*(uint64_t *)out->array[0].data = total[0] * in->arg[0];
	*(uint64_t *)out->array[1].data = total[1];
	return 0;
}

static void
reset(void *state)
{
	uint64_t *total = state;

	total[0] = total[1] = 0;
}

int
main(int argc, char **argv)
{
	static const struct vfun_program total = { .size = sizeof(total),
		.signature = "set add u64 0..100; get times u64 1..10 default 1 -> sum u64, sets u64",
		.summary = "the sum of what was set",
		.init = init,
		.call = call,
		.reset = reset };

	return vfun_serve(&total, argc, argv);
}
