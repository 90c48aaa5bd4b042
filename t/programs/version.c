/* SPDX-License-Identifier: MIT
 *
 * version.c - a program that says which one it is: VERSION, given when it is compiled
 */
#include "../../proto/vfun.h"

static int
call(void *state, const struct vfun_incoming *in, struct vfun_outgoing *out)
{
	(void)state;
	(void)in;
	*(uint64_t *)out->array[0].data = VERSION;
	return 0;
}

int
main(int argc, char **argv)
{
	static const struct vfun_program version = {
		.size = sizeof(version), .signature = "n u64 -> version u64", .summary = "which one it is", .call = call
	};

	return vfun_serve(&version, argc, argv);
}
