/* SPDX-License-Identifier: MIT
 *
 * vm.c - `vfun vm`: run a command in a throw-away VM made of a kernel and this very file
 *
 *	vfun vm -- vfun call factorial 51
 *
 * Find a kernel and the modules it needs (kernel.c), write an initramfs (image.c), compose QEMU's command line
 * (command.c), run it and pass on what the command in the guest says and its exit status (guest.c). Pid 1 of the guest
 * is the role init.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../common/cli.h"
#include "../common/conf.h"
#include "../roles.h"
#include "vm.h"

#define CPUS_MAX 64
#define MEMORY_MAX (1ull << 40)
#define MEMORY_MIN (128ull << 20) /* a cloud kernel and this executable, unpacked */

enum {
	OPT_KERNEL = 256,
	OPT_MODULES,
	OPT_QEMU,
	OPT_MEMORY,
	OPT_CPUS,
	OPT_VM,
	OPT_RUN,
	OPT_PATH,
	OPT_ADD,
	OPT_ENV,
	OPT_TIMEOUT,
	OPT_CONSOLE,
	OPT_SHOW,
	OPT_SCRIPT,
	OPT_STDIN,
	OPT_PIDFILE,
	OPT_QEMU_ARG,
	OPT_ACCEL,
	OPT_NET,
	OPT_HELP
};

static const struct option options[] = {
	{ "kernel", required_argument, NULL, OPT_KERNEL },
	{ "modules", required_argument, NULL, OPT_MODULES },
	{ "qemu", required_argument, NULL, OPT_QEMU },
	{ "memory", required_argument, NULL, OPT_MEMORY },
	{ "cpus", required_argument, NULL, OPT_CPUS },
	{ "vm", required_argument, NULL, OPT_VM },
	{ "run", required_argument, NULL, OPT_RUN },
	{ "path", required_argument, NULL, OPT_PATH },
	{ "add", required_argument, NULL, OPT_ADD },
	{ "accel", required_argument, NULL, OPT_ACCEL },
	{ "env", required_argument, NULL, OPT_ENV },
	{ "timeout", required_argument, NULL, OPT_TIMEOUT },
	{ "console", required_argument, NULL, OPT_CONSOLE },
	{ "keep-qemu-args", no_argument, NULL, OPT_SHOW },
	{ "script", required_argument, NULL, OPT_SCRIPT },
	{ "stdin", required_argument, NULL, OPT_STDIN },
	{ "pidfile", required_argument, NULL, OPT_PIDFILE },
	{ "qemu-arg", required_argument, NULL, OPT_QEMU_ARG },
	{ "net", no_argument, NULL, OPT_NET },
	{ "help", no_argument, NULL, OPT_HELP },
	{ NULL, 0, NULL, 0 },
};

static int
usage(void)
{
	printf("usage: vfun vm [OPTION ...] -- COMMAND [ARGUMENT ...]\n"
	       "       vfun vm [OPTION ...] --script FILE\n"
	       "  --kernel FILE       kernel image (default: newest cloud kernel in /boot)\n"
	       "  --modules DIR       where its lib/modules is\n"
	       "  --qemu BIN          qemu-system-x86_64\n"
	       "  --memory SIZE       512M\n"
	       "  --cpus N            1\n"
	       "  --accel WHAT        kvm or tcg (default: kvm where it works)\n"
	       "  --vm NAME           which VM of vfun.conf it is (demo)\n"
	       "  --run DIR           vfund's run folder\n"
	       "  -c FILE             vfun.conf, to check NAME against\n"
	       "  --path PATH         dax, ivshmem, copy, or none: no share\n"
	       "  --add FILE[:PATH]   put a file into the guest\n"
	       "  --env K=V           set a variable of the command's environment\n"
	       "  --stdin FILE        the command's standard input (- is this one's, all of it)\n"
	       "  --timeout SECONDS   end with status 5 after that\n"
	       "  --console FILE      the kernel's messages (- is standard error)\n"
	       "  --net               a network: the host's own 127.0.0.1 is 10.0.2.2 there\n"
	       "  --pidfile FILE      write QEMU's pid, as long as it runs\n"
	       "  --qemu-arg ARG      one more argument for QEMU\n"
	       "  --keep-qemu-args    show QEMU's command line\n"
	       "See vfun-vm(1).\n");
	return cli_flush("vm");
}

/* "512M", "1G"; whole mebibytes. */
static int
parse_memory(const char *s, uint64_t *bytes)
{
	return cli_size(s, bytes) || *bytes < MEMORY_MIN || *bytes > MEMORY_MAX || *bytes % (1u << 20) ? -1 : 0;
}

static int
parse_accel(const char *s, enum vm_accel *accel)
{
	*accel = strcmp(s, "kvm") ? VM_ACCEL_TCG : VM_ACCEL_KVM;
	return *accel == VM_ACCEL_TCG && strcmp(s, "tcg") ? -1 : 0;
}

static int
parse_path(const char *s, enum vm_path *path)
{
	static const char *const names[] = {
		[VM_PATH_DAX] = "dax", [VM_PATH_IVSHMEM] = "ivshmem", [VM_PATH_COPY] = "copy", [VM_PATH_NONE] = "none"
	};

	for (int i = VM_PATH_DAX; i <= VM_PATH_NONE; i++)
		if (!strcmp(s, names[i])) {
			*path = (enum vm_path)i;
			return 0;
		}
	return -1;
}

/* One more of a repeated option. */
static int
append(const char **list, unsigned *n, const char *s)
{
	if (*n == VM_ADDS_MAX)
		return cli_wrong("vm", "too many of them: '%s'", s);
	list[(*n)++] = s;
	return 0;
}

static int
set_number(struct vm_options *o, int opt, const char *s)
{
	char *end;
	double d = strtod(s, &end);
	int bad = end == s || *end || !(d > 0);

	if (opt == OPT_TIMEOUT) {
		o->timeout = d;
		return bad || d > 1e6 ? cli_wrong("vm", "--timeout: '%s' is not a number of seconds", s) : 0;
	}
	o->cpus = bad || d > CPUS_MAX ? 0 : (unsigned)d;
	return o->cpus && o->cpus == d ? 0 : cli_wrong("vm", "--cpus: '%s' is not a number from 1 to 64", s);
}

/* 0, or an exit status after having said why. */
static int
set_option(struct vm_options *o, int opt, const char *s)
{
	switch (opt) {
	case OPT_MEMORY:
		return parse_memory(s, &o->memory)
			   ? cli_wrong("vm", "--memory: '%s' is not a size from 128M to 1024G", s)
			   : 0;
	case OPT_CPUS:
	case OPT_TIMEOUT:
		return set_number(o, opt, s);
	case OPT_PATH:
		return parse_path(s, &o->path) ? cli_wrong("vm", "--path: '%s' is not dax, ivshmem, copy or none", s)
					       : 0;
	case OPT_ACCEL:
		return parse_accel(s, &o->accel) ? cli_wrong("vm", "--accel: '%s' is not kvm or tcg", s) : 0;
	case OPT_VM:
		o->vm = s;
		return conf_name_ok(s) || conf_uuid_ok(s) ? 0 : cli_wrong("vm", "--vm: '%s' is not a VM's name", s);
	case OPT_ENV:
		return strchr(s, '=') && s[0] != '=' ? append(o->env, &o->envs, s)
						     : cli_wrong("vm", "--env: '%s' is not K=V", s);
	case OPT_ADD:
		return append(o->add, &o->adds, s);
	case OPT_QEMU_ARG:
		return append(o->qemu_arg, &o->qemu_args, s);
	case OPT_KERNEL:
		o->kernel = s;
		return 0;
	case OPT_MODULES:
		o->modules = s;
		return 0;
	case OPT_QEMU:
		o->qemu = s;
		return 0;
	case OPT_RUN:
		o->run = s;
		return 0;
	case 'c':
		o->conf = s;
		return 0;
	case OPT_CONSOLE:
		o->console = s;
		return 0;
	case OPT_SCRIPT:
		o->script = s;
		return 0;
	case OPT_STDIN:
		o->in = s;
		return 0;
	case OPT_PIDFILE:
		o->pidfile = s;
		return 0;
	case OPT_SHOW:
		o->show_args = 1;
		return 0;
	case OPT_NET:
		o->net = 1;
		return 0;
	default: /* getopt has said why */
		return EXIT_USAGE;
	}
}

int
role_vm(int argc, char **argv)
{
	struct vm_options o = { .memory = 512ull << 20, .cpus = 1, .vm = "demo" };
	const char *accel = getenv("VFUN_ACCEL");
	struct kernel k;
	int opt, r;

	cli_begin(argv, "vm");
	r = accel && *accel ? set_option(&o, OPT_ACCEL, accel) : 0;
	if (r)
		return r;
	while ((opt = getopt_long(argc, argv, "+c:", options, NULL)) >= 0) {
		if (opt == OPT_HELP)
			return usage();
		r = set_option(&o, opt, optarg);
		if (r)
			return r;
	}
	o.command = argv + optind;
	if (!o.command[0] && !o.script)
		return cli_wrong("vm", "no command");
	if (o.command[0] && o.script)
		return cli_wrong("vm", "'%s': a command or --script, not both", o.command[0]);
	r = kernel_find(&k, o.kernel);
	if (!r && (o.path != VM_PATH_NONE || o.net))
		r = kernel_modules(&k, o.modules, o.path != VM_PATH_NONE, o.net);
	if (!r)
		r = guest_run(&o, &k);
	kernel_free(&k);
	return r;
}
