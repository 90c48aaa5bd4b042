/* SPDX-License-Identifier: MIT
 *
 * fft2.c - a vFunction: two-dimensional discrete Fourier transforms of 256 x 256 complex numbers, any number at a time
 *
 * Computed by FFTW, whose plans are made before the first call. It uses the processor's vectors for memory that is
 * aligned for them; for a client whose isn't there is a second plan.
 *
 * The numbers lie in the client's memory, which he may change at any moment: he gets wrong numbers then, since FFTW
 * decides nothing by them, and leaves its input alone.
 */
#include <errno.h>
#include <fftw3.h>

#include "compare.h"

#define SIDE 256
#define PLANE ((uint64_t)SIDE * SIDE) /* complex numbers */

struct fft {
	fftwf_plan aligned;
	fftwf_plan any;
};

static int
init(void **state, uint64_t result_max)
{
	struct fft *f = fftwf_malloc(sizeof(*f));
	fftwf_complex *from = fftwf_alloc_complex(PLANE);
	fftwf_complex *to = fftwf_alloc_complex(PLANE);

	(void)result_max;
	*state = f;
	if (!f || !from || !to)
		return -ENOMEM;
	f->aligned = fftwf_plan_dft_2d(SIDE, SIDE, from, to, FFTW_FORWARD, FFTW_ESTIMATE);
	f->any = fftwf_plan_dft_2d(SIDE, SIDE, from, to, FFTW_FORWARD, FFTW_ESTIMATE | FFTW_UNALIGNED);
	fftwf_free(from);
	fftwf_free(to);
	return f->aligned && f->any ? 0 : -ENOMEM;
}

static int
call(void *state, const struct vfun_incoming *in, struct vfun_outgoing *out)
{
	const struct fft *f = state;
	fftwf_complex *from = in->array[0].data;
	fftwf_complex *to = out->array[0].data;
	const int aligned = !fftwf_alignment_of((float *)from) && !fftwf_alignment_of((float *)to);

	for (uint64_t i = 0; i < in->array[0].dim[0]; i++)
		fftwf_execute_dft(aligned ? f->aligned : f->any, from + i * PLANE, to + i * PLANE);
	return 0;
}

static const struct vfun_program fft2 = {
	.size = sizeof(fft2),
	.signature = "planes f32[n,256,256,2] -> spectra f32[n,256,256,2]",
	.summary = "2-D FFTs of 256 x 256 complex numbers",
	.init = init,
	.call = call,
};

int
main(int argc, char **argv)
{
	static const struct step batch = { .cmd = VFUN_CMD_GET,
		.in = { .n = 16 * PLANE * 2, .dim = { 16, SIDE, SIDE, 2 }, .dims = 4 },
		.out = { .n = 16 * PLANE * 2, .dim = { 16, SIDE, SIDE, 2 }, .dims = 4 },
		.element = sizeof(float) };

	return wants_compare(argc, argv) ? compare("fft2", &fft2, &batch, 1) : vfun_serve(&fft2, argc, argv);
}
