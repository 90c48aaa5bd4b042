/* SPDX-License-Identifier: MIT
 *
 * command.c - QEMU's command line for the throw-away VM
 *
 * Nothing that the guest doesn't need: no display, no network unless asked for, no disk, no default device; two ISA
 * serial ports, which every kernel has built in, and the share's device. The machine type is one whose QEMU default
 * devices are few; where there is a share, qemu.h says which, because a vhost-user device needs memory that it can
 * share.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../common/conf.h"
#include "../common/guest.h"
#include "../common/qemu.h"
#include "../roles.h"
#include "vm.h"

/* panic=-1 and reboot=t (a triple fault) with QEMU's -no-reboot: however the guest ends, QEMU ends at once.
 * tsc=reliable: under TCG the watchdog of clocks would find it unstable. mitigations=off: the guest runs one command of
 * ours. */
#define KERNEL_ARGS "console=ttyS0 rdinit=/init panic=-1 reboot=t tsc=reliable mitigations=off"

__attribute__((format(printf, 2, 3))) static void
arg(struct command *c, const char *fmt, ...)
{
	va_list ap;

	if (c->argc == COMMAND_MAX)
		return;
	va_start(ap, fmt);
	if (vasprintf(&c->argv[c->argc], fmt, ap) < 0)
		c->argv[c->argc] = NULL;
	else
		c->argc++;
	va_end(ap);
}

int
command_can_kvm(void)
{
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

static int
check_conf(const struct vm_options *o)
{
	static struct conf conf;
	const char *path = conf_path(o->conf);
	int r = conf_load(&conf, path, NULL, NULL);

	if (r) {
		fprintf(stderr, "vfun vm: %s: %s: see `vfun daemon -n -c %s`\n", path,
		    r < 0 ? strerror(-r) : "has faults", path);
		return EXIT_SYSTEM;
	}
	if (conf_vm_index(&conf, o->vm) >= 0)
		return 0;
	fprintf(stderr, "vfun vm: %s has no section [vm %s]: see --vm\n", path, o->vm);
	return EXIT_USAGE;
}

/* Where vfund has this VM's share. 0, or an exit status after having said why. */
static int
find_socket(const struct vm_options *o, char *socket, size_t room)
{
	const char *run = conf_run(o->run);
	struct stat st;
	int r = o->conf ? check_conf(o) : 0;

	if (r)
		return r;
	if (!run) {
		fprintf(stderr, "vfun vm: no run folder: give --run DIR, or set VFUN_RUN_DIR\n");
		return EXIT_NO_VFUND;
	}
	if (snprintf(socket, room, "%s/vmcli/%s/share.sock", run, o->vm) >= (int)room) {
		fprintf(stderr, "vfun vm: %s: too long for a socket's path\n", run);
		return EXIT_USAGE;
	}
	if (!stat(socket, &st) && S_ISSOCK(st.st_mode))
		return 0;
	fprintf(stderr,
	    "vfun vm: no share of VM '%s' at %s: start vfund with a [vm %s], or see --run, --vm, --path none\n", o->vm,
	    socket, o->vm);
	return EXIT_NO_VFUND;
}

/* The VM's ivshmem memory, beside its socket, as a device, also where there is DAX, which clients prefer. 0, or an exit
 * status. */
static int
add_ivshmem(struct qemu_args *args, const struct vm_options *o, const struct qemu *q)
{
	char path[PATH_MAX];
	struct stat st;
	int r;

	if (o->path == VM_PATH_DAX || o->path == VM_PATH_COPY)
		return 0;
	snprintf(path, sizeof(path), "%s/vmcli/%s/ivshmem", conf_run(o->run), o->vm);
	if (q->ivshmem && !stat(path, &st)) {
		r = qemu_ivshmem_args(args, path, (uint64_t)st.st_size);
		if (!r)
			return 0;
		fprintf(stderr, "vfun vm: %s: %s\n", path, strerror(-r));
		return EXIT_USAGE;
	}
	if (o->path != VM_PATH_IVSHMEM)
		return 0;
	if (!q->ivshmem)
		fprintf(stderr, "vfun vm: this QEMU has no ivshmem-plain: see --qemu, or take --path copy\n");
	else
		fprintf(stderr, "vfun vm: %s: %s: set `ivshmem` in [vm %s] of vfun.conf, or take --path copy\n", path,
		    strerror(errno), o->vm);
	return EXIT_NO_PATH;
}

/* The share's device, and the machine that goes with it. */
static int
add_share(struct command *c, const struct vm_options *o)
{
	static struct qemu_args args;
	char socket[108];
	struct qemu q;
	int r = find_socket(o, socket, sizeof(socket));

	if (r)
		return r;
	r = qemu_detect(&q, o->qemu);
	if (r) {
		fprintf(stderr, "vfun vm: %s: %s: install qemu-system-x86, or name another with --qemu\n",
		    o->qemu ? o->qemu : QEMU_DEFAULT, r == -ENODEV ? "has no device for a share" : strerror(-r));
		return EXIT_SYSTEM;
	}
	if (o->path == VM_PATH_DAX && q.form != QEMU_DAX) {
		fprintf(stderr,
		    "vfun vm: QEMU %u.%u has no DAX for a share, 11.1 has: see --qemu, or take another --path\n",
		    q.major, q.minor);
		return EXIT_NO_PATH;
	}
	if (o->path == VM_PATH_COPY || o->path == VM_PATH_IVSHMEM)
		q.form = QEMU_PLAIN;
	r = qemu_share_args(&args, &q, o->memory, socket);
	if (r) {
		fprintf(stderr, "vfun vm: %s: %s\n", socket, strerror(-r));
		return EXIT_USAGE;
	}
	r = add_ivshmem(&args, o, &q);
	if (r)
		return r;
	for (int i = 0; i < args.argc; i++)
		arg(c, "%s", args.argv[i]);
	return 0;
}

static void
add_port(struct command *c, const char *name, int fd)
{
	arg(c, "-chardev");
	arg(c, "socket,id=%s,fd=%d", name, fd);
	arg(c, "-serial");
	arg(c, "chardev:%s", name);
}

/* QEMU's own user networking: needs no privileges and nothing on the host, and the guest gets where this user would. */
static void
add_network(struct command *c, int wanted)
{
	if (!wanted) {
		arg(c, "-net");
		arg(c, "none");
		return;
	}
	arg(c, "-netdev");
	arg(c, "user,id=net,net=" GUEST_NET ",ipv6=off");
	arg(c, "-device");
	arg(c, "virtio-net-pci,netdev=net,romfile=");
}

int
command_make(
    struct command *c, const struct vm_options *o, const struct kernel *k, int image, int console, int port, int kvm)
{
	int r;

	memset(c, 0, sizeof(*c));
	arg(c, "%s", o->qemu ? o->qemu : QEMU_DEFAULT);
	if (o->path != VM_PATH_NONE) {
		r = add_share(c, o);
		if (r)
			return r;
	} else {
		arg(c, "-machine");
		arg(c, "q35");
		arg(c, "-m");
		arg(c, "%lluM", (unsigned long long)(o->memory >> 20));
	}
	arg(c, "-accel");
	arg(c, "%s", kvm ? "kvm" : "tcg,thread=multi");
	arg(c, "-cpu");
	arg(c, "%s", kvm ? "host" : "max");
	arg(c, "-smp");
	arg(c, "%u", o->cpus);
	arg(c, "-nodefaults");
	arg(c, "-no-user-config");
	arg(c, "-nographic");
	arg(c, "-no-reboot");
	add_network(c, o->net);
	add_port(c, "console", console);
	add_port(c, "port", port);
	arg(c, "-kernel");
	arg(c, "%s", k->image);
	arg(c, "-initrd");
	arg(c, "/proc/self/fd/%d", image);
	arg(c, "-append");
	arg(c, "%s%s", KERNEL_ARGS, o->console ? "" : " quiet");
	for (unsigned i = 0; i < o->qemu_args; i++)
		arg(c, "%s", o->qemu_arg[i]);
	if (c->argc == COMMAND_MAX) {
		fprintf(stderr, "vfun vm: too many arguments for QEMU\n");
		return EXIT_USAGE;
	}
	return 0;
}

void
command_free(struct command *c)
{
	while (c->argc > 0)
		free(c->argv[--c->argc]);
}
