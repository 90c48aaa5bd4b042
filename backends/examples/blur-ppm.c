/* SPDX-License-Identifier: MIT
 *
 * blur-ppm.c - a guest's program for blur: a picture as PPM (P6) on standard input, and blurred on standard output
 *
 *	blur-ppm RADIUS <picture.ppm >blurred.ppm
 *
 * The picture is read into the arena and written from there: vfun copies nothing.
 */
#include <stdio.h>
#include <stdlib.h>
#include <vfun.h>

#define SIDE_MAX 16384u
#define TIMEOUT_NS 60000000000ull

static int
say(const char *what)
{
	fprintf(stderr, "blur-ppm: %s\n", what);
	return 1;
}

static int
blur(struct vfun *v, unsigned width, unsigned height, unsigned radius)
{
	const uint64_t arg[3] = { width, height, radius };
	const uint64_t len = (uint64_t)width * height * 3;
	struct vfun_buffer frame, blurred;
	struct vfun_result result;
	struct vfun_bulk bulk;

	if (vfun_input(v, &frame, len) || vfun_room(v, &blurred, len))
		return say(vfun_text(v));
	if (fread(frame.data, 1, len, stdin) != len)
		return say("the picture ends too soon");
	bulk = (struct vfun_bulk){ frame.off, frame.len, blurred.off, blurred.len };
	if (vfun_call(v, VFUN_CMD_GET, arg, 3, &bulk, &result, TIMEOUT_NS) || result.reason)
		return say(vfun_text(v));
	printf("P6\n%u %u\n255\n", width, height);
	fwrite(vfun_result_data(&result, &blurred), 1, result.len, stdout);
	return fflush(stdout) || ferror(stdout) ? say("standard output can't be written") : 0;
}

int
main(int argc, char **argv)
{
	struct vfun_options o = { .size = sizeof(o) };
	unsigned width, height;
	struct vfun *v;
	int r;

	if (argc != 2 || scanf("P6 %u %u 255", &width, &height) != 2 || getchar() == EOF || !width || !height ||
	    width > SIDE_MAX || height > SIDE_MAX)
		return say("usage: blur-ppm RADIUS, and a picture as PPM (P6, 255) on standard input");
	o.out_arena = o.in_arena = (uint64_t)width * height * 3;
	r = vfun_open(&v, "blur", &o);
	r = r ? say(vfun_text(v)) : blur(v, width, height, (unsigned)strtoul(argv[1], NULL, 10));
	return vfun_close(v, NULL) || r;
}
