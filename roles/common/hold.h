/* SPDX-License-Identifier: MIT
 *
 * hold.h - what vfund's launcher and vfun-hold have to agree on: vfun-hold VM UID GID OPTIONAL LABEL, and these
 * descriptors
 */
#ifndef COMMON_HOLD_H
#define COMMON_HOLD_H

#define HOLD_MEMORY_FD 3
#define HOLD_READY_FD 4 /* a pipe's, closed when QEMU may open the other one */

#endif
