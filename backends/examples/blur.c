/* SPDX-License-Identifier: MIT
 *
 * blur.c - a vFunction: box blur of a frame of RGB pixels, each the mean of the square of 2 * radius + 1 pixels around
 * it
 *
 * Rows first, then columns, each by a running sum, so that the time doesn't depend on the radius. At the edges the
 * square is cut off.
 *
 * The frame lies in the client's memory, which he may change at any moment. He gets a wrong picture then and nothing
 * else: no decision depends on a pixel. Width, height and radius are copies, and vfun has seen to it that they are in
 * range and that the arrays are as large as they say.
 */
#include <errno.h>
#include <stdlib.h>

#include "compare.h"

#define CHANNELS 3u
#define WIDTH_MAX 16384u

struct blur {
	uint8_t *rows; /* the frame after the first pass */
	uint64_t size;
	uint32_t sum[WIDTH_MAX * CHANNELS]; /* of each column */
};

static int
init(void **state, uint64_t result_max)
{
	struct blur *b = malloc(sizeof(*b));

	*state = b;
	if (!b)
		return -ENOMEM;
	b->rows = malloc(result_max);
	b->size = result_max;
	return b->rows ? 0 : -ENOMEM;
}

/* A row of `width` pixels, one channel of it. */
static void
blur_row(const uint8_t *in, uint8_t *out, uint32_t width, uint32_t radius)
{
	uint32_t sum = 0, n = 0;

	for (uint32_t x = 0; x < radius && x < width; x++, n++)
		sum += in[x * CHANNELS];
	for (uint32_t x = 0; x < width; x++) {
		if (x + radius < width) {
			sum += in[(x + radius) * CHANNELS];
			n++;
		}
		if (x > radius) {
			sum -= in[(x - radius - 1) * CHANNELS];
			n--;
		}
		out[x * CHANNELS] = (uint8_t)(sum / n);
	}
}

/* All columns at once, from b->rows. */
static void
blur_columns(struct blur *b, uint8_t *out, uint64_t line, uint32_t height, uint32_t radius)
{
	uint32_t n = 0;

	for (uint64_t i = 0; i < line; i++)
		b->sum[i] = 0;
	for (uint32_t y = 0; y < radius && y < height; y++, n++)
		for (uint64_t i = 0; i < line; i++)
			b->sum[i] += b->rows[y * line + i];
	for (uint32_t y = 0; y < height; y++) {
		const uint8_t *enters = y + radius < height ? b->rows + (y + radius) * line : NULL;
		const uint8_t *leaves = y > radius ? b->rows + (y - radius - 1) * line : NULL;
		uint64_t inverse;

		n += (enters ? 1u : 0u) - (leaves ? 1u : 0u);
		inverse = (1ull << 32) / n + 1; /* exact for sums of so few */
		for (uint64_t i = 0; enters && i < line; i++)
			b->sum[i] += enters[i];
		for (uint64_t i = 0; leaves && i < line; i++)
			b->sum[i] -= leaves[i];
		for (uint64_t i = 0; i < line; i++)
			out[y * line + i] = (uint8_t)(b->sum[i] * inverse >> 32);
	}
}

static int
call(void *state, const struct vfun_incoming *in, struct vfun_outgoing *out)
{
	struct blur *b = state;
	const uint32_t width = (uint32_t)in->arg[0], height = (uint32_t)in->arg[1], radius = (uint32_t)in->arg[2];
	const uint64_t line = (uint64_t)width * CHANNELS;
	const uint8_t *frame = in->array[0].data;

	if (line * height > b->size)
		return vfun_refuse(out, "frame: larger than this instance was opened for");
	for (uint32_t y = 0; y < height; y++)
		for (uint32_t c = 0; c < CHANNELS; c++)
			blur_row(frame + y * line + c, b->rows + y * line + c, width, radius);
	blur_columns(b, out->array[0].data, line, height, radius);
	return 0;
}

static const struct vfun_program blur = {
	.size = sizeof(blur),
	.signature = "width u32 1..16384, height u32 1..16384, radius u32 1..64, frame u8[height,width,3] -> blurred "
		     "u8[height,width,3]",
	.summary = "box blur of a frame of RGB pixels",
	.init = init,
	.call = call,
	.threads = 1,
};

int
main(int argc, char **argv)
{
	static const struct step hd = { .cmd = VFUN_CMD_GET,
		.arg = { 1280, 720, 8 },
		.nargs = 3,
		.in = { .n = 1280 * 720 * 3, .dim = { 720, 1280, 3 }, .dims = 3 },
		.out = { .n = 1280 * 720 * 3, .dim = { 720, 1280, 3 }, .dims = 3 },
		.element = 1 };

	return wants_compare(argc, argv) ? compare("blur", &blur, &hd, 1) : vfun_serve(&blur, argc, argv);
}
