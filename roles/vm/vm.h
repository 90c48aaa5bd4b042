/* SPDX-License-Identifier: MIT
 *
 * vm.h - what the files of `vfun vm` share: the command line, and who does which part
 */
#ifndef VM_VM_H
#define VM_VM_H

#include <stdint.h>
#include <sys/types.h>

#include "kernel.h"

#define VM_ADDS_MAX 64

enum vm_path {
	VM_PATH_AUTO, /* dax where QEMU has it, else ivshmem where the VM has it, else copy */
	VM_PATH_DAX,
	VM_PATH_IVSHMEM,
	VM_PATH_COPY,
	VM_PATH_NONE, /* no share at all */
};

enum vm_accel {
	VM_ACCEL_AUTO, /* KVM where it works, else emulation */
	VM_ACCEL_KVM,
	VM_ACCEL_TCG,
};

struct vm_options {
	const char *kernel;
	const char *modules;
	const char *qemu;
	uint64_t memory; /* bytes, a multiple of 1 MiB */
	unsigned cpus;
	const char *vm;
	const char *run;
	const char *conf;
	enum vm_path path;
	enum vm_accel accel;
	const char *add[VM_ADDS_MAX]; /* FILE[:PATH] */
	unsigned adds;
	const char *env[VM_ADDS_MAX]; /* K=V */
	unsigned envs;
	const char *qemu_arg[VM_ADDS_MAX];
	unsigned qemu_args;
	double timeout; /* seconds, 0: none */
	const char *console;
	const char *script;
	const char *in; /* standard input of the command */
	const char *pidfile;
	int show_args;
	int net;	/* a network device */
	char **command; /* NULL-terminated */
};

/* image.c: a memfd with the initramfs. The descriptor, or -1 after having said why. */
int image_make(const struct vm_options *o, const struct kernel *k);

/* command.c: QEMU's command line. */
#define COMMAND_MAX 128

struct command {
	char *argv[COMMAND_MAX + 1];
	int argc;
};

/* May this user open /dev/kvm? That is not to say that it works. */
int command_can_kvm(void);

/* A QEMU that has the parts: initramfs on descriptor `image`, kernel console and frames on the sockets `console` and
 * `port`; kvm: by KVM, else emulated. 0, or an exit status after having said why. */
int command_make(
    struct command *c, const struct vm_options *o, const struct kernel *k, int image, int console, int port, int kvm);
void command_free(struct command *c);

/* guest.c: run it. The exit status of the whole. */
int guest_run(const struct vm_options *o, const struct kernel *k);

#endif
