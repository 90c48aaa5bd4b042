/* SPDX-License-Identifier: MIT
 *
 * compare.h - what an example has beside its function: `PROGRAM --compare`, see compare.c
 */
#ifndef EXAMPLES_COMPARE_H
#define EXAMPLES_COMPARE_H

#include <vfun.h>

/* A call to be measured: its arguments and the shapes of its arrays, whose memory is compare()'s. All elements of an
 * input are f32, or u8 where `element` is 1. The last of several steps is what is measured, those before it prepare. */
struct step {
	enum vfun_cmd cmd;
	uint64_t arg[3];
	unsigned nargs;
	unsigned element; /* bytes; of results as well */
	struct vfun_array in;
	struct vfun_array out;
};

/* 1: the program was started as PROGRAM --compare. */
int wants_compare(int argc, char **argv);

/* An exit status. */
int compare(const char *function, const struct vfun_program *p, const struct step *steps, unsigned n);

#endif
