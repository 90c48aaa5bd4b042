/* SPDX-License-Identifier: MIT
 *
 * runtime-f90.c - runtime.f90's main()
 */
#include "../../proto/vfun.h"

int thing(int n); /* 0: wrong, 1: right, 2: there are no more */

static int
call(void *state, const struct vfun_incoming *in, struct vfun_outgoing *out)
{
	int r = thing((int)in->arg[0]);

	(void)state;
	if (r == 2)
		return vfun_result_put(out, "all", 3);
	return r ? vfun_result_put(out, "done", 4) : vfun_refuse(out, "it came out wrong");
}

int
main(int argc, char **argv)
{
	static const struct vfun_program program = { .size = sizeof(program),
		.signature = "n u64 -> out u8[*]",
		.summary = "the Fortran library",
		.call = call };

	return vfun_serve(&program, argc, argv);
}
