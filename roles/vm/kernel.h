/* SPDX-License-Identifier: MIT
 *
 * kernel.h - a kernel image, and the modules without which it finds no share and no network
 */
#ifndef VM_KERNEL_H
#define VM_KERNEL_H

#include <limits.h>

#define KERNEL_MODULES_MAX 24

struct kernel {
	char image[PATH_MAX];
	char release[128];		  /* 6.1.0-56-cloud-amd64 */
	char folder[PATH_MAX];		  /* of its modules; "" if there is none */
	char *module[KERNEL_MODULES_MAX]; /* paths below `folder`, in the order in which to load them */
	unsigned modules;
};

/* Choose (NULL: the newest cloud kernel in /boot, else the newest kernel) and look into it. 0, or an exit status after
 * having said why. */
int kernel_find(struct kernel *k, const char *image);

/* Find its modules for a share, and for a network device, with what they depend on; `dir` contains lib/modules/RELEASE,
 * or is RELEASE's folder itself; NULL: look beside the image, then in /lib/modules. What is neither there nor known to
 * be built in is taken for built in: the guest will say if it isn't. 0, or an exit status after having said why. */
int kernel_modules(struct kernel *k, const char *dir, int share, int network);

void kernel_free(struct kernel *k);

#endif
