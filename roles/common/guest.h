/* SPDX-License-Identifier: MIT
 *
 * guest.h - what `vfun vm` and its guest's pid 1, `vfun init`, have to agree on
 *
 * Both are always the same executable, so none of this needs a version.
 *
 * In: the initramfs holds GUEST_SPEC, a sequence of "key=value" strings, each ended by a NUL, in this order within a
 * key: "module" (a file to load), "share" (1: mount it), "net" (1: configure the network device), "env" (K=V), and
 * "arg" (a word of the command) or "script" (a file to follow). GUEST_STDIN, if there, becomes the command's standard
 * input.
 *
 * Out: the second serial port carries GUEST_HELLO and then frames: struct guest_frame and `len` bytes. What precedes
 * the greeting is noise of firmware and kernel probing the port. The host is not confined by this: a guest may send
 * what it likes, so lengths and types are checked.
 */
#ifndef COMMON_GUEST_H
#define COMMON_GUEST_H

#include <stdint.h>

#define GUEST_SPEC "/vm.spec"
#define GUEST_STDIN "/vm.stdin"
#define GUEST_SCRIPT "/vm.script"
#define GUEST_MODULES "/modules"
#define GUEST_PORT "/dev/ttyS1"
#define GUEST_SHARE "/run/vfun" /* where clients look for `control` */
/* The network, where there is one: QEMU's user networking, in which the host is 10.0.2.2. */
#define GUEST_NET "10.0.2.0/24"
#define GUEST_ADDRESS 0x0a00020fu /* 10.0.2.15 */
#define GUEST_NETMASK 0xffffff00u
#define GUEST_HELLO "\nvfun-vm\n"

enum guest_type {
	GUEST_STDOUT = 1, /* bytes */
	GUEST_STDERR = 2, /* bytes */
	GUEST_EXIT = 3,	  /* one byte, the command's exit status, 128 + n if signal n ended it; the last frame */
	GUEST_FAIL = 4,	  /* one byte, enum vfun_exit, and a sentence: the command was not run; the last frame */
};

struct guest_frame {
	uint8_t type;
	uint8_t len_low;
	uint8_t len_high;
};

_Static_assert(sizeof(struct guest_frame) == 3, "no padding");

#define GUEST_DATA_MAX 65535u

#endif
