/* SPDX-License-Identifier: MIT
 *
 * half.c - for t/locale.t: half of a number, by a program that sets its locale, as ported programs do: one of
 * HALF_LOCPATH, where 1.5 is 1,5 and Latin-1's e with an accent is a letter
 */
#include <ctype.h>
#include <locale.h>
#include <stdlib.h>

#include "../../proto/vfun.h"

static int
half(void *state, const struct vfun_incoming *in, struct vfun_outgoing *out)
{
	(void)state;
	if (vfun_f64(in->arg[0]) == 0)
		return vfun_refuse(out, "x: 0.5 or more");
	*(double *)out->array[0].data = vfun_f64(in->arg[0]) / 2;
	return 0;
}

int
main(int argc, char **argv)
{
	static const struct vfun_program program = {
		.size = sizeof(program),
		.signature = "x f64 -1.5..1.5 default 0.5 -> y f64[1]",
		.summary = "half of a number",
		.call = half,
	};

	setenv("LOCPATH", HALF_LOCPATH, 1);

	if (!setlocale(LC_ALL, "de_DE") || !isalpha(0xe9))
		return 3;
	return vfun_serve(&program, argc, argv);
}
