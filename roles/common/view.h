/* SPDX-License-Identifier: MIT
 *
 * view.h - what a confined process sees of the host, put together: libraries, for one that needs them, and more
 */
#ifndef COMMON_VIEW_H
#define COMMON_VIEW_H

#include <sys/types.h>

#include "sandbox.h"

#define VIEW_MAX 32

struct view {
	struct sandbox_view list[VIEW_MAX];
	unsigned n;
	gid_t gid;		  /* whose device it is, if a group's; 0: none */
	const char *lacking;	  /* a sentence: what there isn't */
	char text[VIEW_MAX][128]; /* paths that were put together */
	char files[512];
};

/* The strings stay the caller's. */
void view_add(struct view *v, enum sandbox_view_kind kind, const char *path, const char *source);

/* A path of the host at the same place, if it is there: a link stays one. */
void view_add_files(struct view *v, const char *path);

/* The host's folders of libraries. */
void view_add_libraries(struct view *v);

#endif
