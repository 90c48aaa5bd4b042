/* SPDX-License-Identifier: MIT
 *
 * view.h - what a service with a device sees of the host: libraries, and the device; or a program: libraries and files
 */
#ifndef SERVICE_VIEW_H
#define SERVICE_VIEW_H

#include "../../backends/program.h"
#include "../../backends/xrt/xrt.h"
#include "../common/view.h"

/* For this device, before the process confines itself. 0, or -ENODEV and v->lacking. */
int view_make(struct view *v, const struct xrt_desc *d);

/* For a program, which `fd` is open for reading: its files, and libraries if it is dynamically linked. 0, or -ENOENT
 * and v->lacking. */
int view_program(struct view *v, const struct program_desc *d, int fd);

#endif
