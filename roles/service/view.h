/* SPDX-License-Identifier: MIT
 *
 * view.h - what a service with a device sees of the host: libraries, and the device; or a program: libraries and files
 */
#ifndef SERVICE_VIEW_H
#define SERVICE_VIEW_H

#include <sys/types.h>

#include "../../backends/program.h"
#include "../../backends/xrt/xrt.h"
#include "../common/sandbox.h"

#define VIEW_MAX 32

struct view {
	struct sandbox_view list[VIEW_MAX];
	unsigned n;
	gid_t gid;		  /* whose device it is, if a group's; 0: none */
	const char *lacking;	  /* a sentence: what there isn't */
	char text[VIEW_MAX][128]; /* paths that were put together */
	char files[512];
};

/* For this device, before the process confines itself. 0, or -ENODEV and v->lacking. */
int view_make(struct view *v, const struct xrt_desc *d);

/* For a program, which `fd` is open for reading: its files, and libraries if it is dynamically linked. 0, or -ENOENT
 * and v->lacking. */
int view_program(struct view *v, const struct program_desc *d, int fd);

#endif
