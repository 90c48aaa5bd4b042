/* SPDX-License-Identifier: MIT
 *
 * args.c - `vfun share --qemu-args`: what a VM's QEMU command line and its guest's mount need
 */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../common/cli.h"
#include "../common/conf.h"
#include "../common/log.h"
#include "../common/qemu.h"
#include "../roles.h"
#include "share.h"

#define MEMORY_DEFAULT "1G"

struct args {
	const char *vm, *conf, *run, *qemu, *memory;
	int lines;
};

static int
usage(void)
{
	puts("usage: vfun share --qemu-args VM [-c CONF] [--run DIR] [--qemu BINARY] [--memory SIZE] "
	     "[--format=shell|lines]\n"
	     "The share itself is started by vfund. See vfun-share(8).");
	return cli_flush("share");
}

/* CLI_GO_ON, or an exit status. */
static int
args_parse(struct args *a, int argc, char **argv)
{
	static const struct option options[] = { { "qemu-args", required_argument, NULL, 'a' },
		{ "run", required_argument, NULL, 'r' }, { "qemu", required_argument, NULL, 'q' },
		{ "memory", required_argument, NULL, 'm' }, { "format", required_argument, NULL, 'f' },
		{ "help", no_argument, NULL, 'h' }, { NULL, 0, NULL, 0 } };
	int c;

	cli_begin(argv, "share");
	*a = (struct args){ .qemu = QEMU_DEFAULT, .memory = MEMORY_DEFAULT };
	while ((c = getopt_long(argc, argv, "c:", options, NULL)) != -1) {
		switch (c) {
		case 'a':
			a->vm = optarg;
			break;
		case 'c':
			a->conf = optarg;
			break;
		case 'r':
			a->run = optarg;
			break;
		case 'q':
			a->qemu = optarg;
			break;
		case 'm':
			a->memory = optarg;
			break;
		case 'f':
			a->lines = !strcmp(optarg, "lines");
			if (!a->lines && strcmp(optarg, "shell"))
				return cli_wrong("share", "--format: '%s' is not shell or lines", optarg);
			break;
		case 'h':
			return usage();
		default: /* getopt has said why */
			return EXIT_USAGE;
		}
	}
	if (optind != argc)
		return cli_wrong("share", "'%s' is one argument too many", argv[optind]);
	return a->vm ? CLI_GO_ON : cli_wrong("share", "no VM named (the share itself is started by vfund)");
}

static void
complain(void *arg, int line, const char *fault)
{
	log_err("%s:%d: %s", (const char *)arg, line, fault);
}

/* Is there such a VM, and how large is its ivshmem memory? EXIT_OK or an exit status. */
static int
vm_known(const struct args *a, uint64_t *ivshmem)
{
	static struct conf conf;
	const char *path = conf_path(a->conf);
	int r;
	int i;

	if (!path) {
		log_err("no place for vfun.conf is known: use -c FILE");
		return EXIT_USAGE;
	}
	r = conf_load(&conf, path, complain, (void *)(uintptr_t)path);
	if (r < 0)
		log_err("%s: %s", path, strerror(-r));
	if (r)
		return EXIT_USAGE;
	i = conf_vm_index(&conf, a->vm);
	if (i < 0) {
		log_err("%s has no section [vm %s]", path, a->vm);
		return EXIT_USAGE;
	}
	*ivshmem = conf.vm[i].ivshmem;
	return EXIT_OK;
}

/* One argument, quoted for a shell where it needs to be. */
static void
put_quoted(const char *arg)
{
	if (arg[strspn(arg, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./,:=+@")] == '\0') {
		fputs(arg, stdout);
		return;
	}
	putchar('\'');
	for (; *arg; arg++) {
		if (*arg == '\'')
			fputs("'\\''", stdout);
		else
			putchar(*arg);
	}
	putchar('\'');
}

static void
print_args(const struct qemu *q, const struct qemu_args *qa, int ivshmem, int lines)
{
	if (lines) {
		for (int i = 0; i < qa->argc; i++)
			puts(qa->argv[i]);
		return;
	}
	printf("# QEMU %u.%u: %s\n", q->major, q->minor,
	    q->form == QEMU_DAX ? "shared memory (DAX)"
	    : ivshmem		? "shared memory (ivshmem)"
				: "read and write only; DAX needs QEMU 11.1, ivshmem a line in vfun.conf");
	for (int i = 0; i < qa->argc; i += 2) {
		printf("    %s ", qa->argv[i]);
		put_quoted(qa->argv[i + 1]);
		puts(i + 2 < qa->argc ? " \\" : "");
	}
	puts("# in the guest: mount -t virtiofs " QEMU_TAG " /run/vfun");
}

/* One of the VM's files, the socket or the ivshmem memory, as a path that holds wherever QEMU is started. 0 or -1. */
static int
vm_path(char *path, size_t room, const struct args *a, const char *name)
{
	const char *run = conf_run(a->run);
	char cwd[PATH_MAX] = "";
	int n;

	if (!run || (run[0] != '/' && !getcwd(cwd, sizeof(cwd))))
		return -1;
	n = snprintf(path, room, "%s%s%s/vmcli/%s/%s", cwd, cwd[0] ? "/" : "", run, a->vm, name);
	return n < 0 || (size_t)n >= room ? -1 : 0;
}

int
share_args(int argc, char **argv)
{
	struct args a;
	struct qemu q;
	struct qemu_args qa;
	char socket[512];
	char bar[512];
	uint64_t memory;
	uint64_t ivshmem;
	int r;

	r = args_parse(&a, argc, argv);
	if (r != CLI_GO_ON)
		return r;
	if (cli_size(a.memory, &memory) || !memory || memory % (1u << 20)) {
		log_err("--memory %s: a size like 512M or 2G is wanted", a.memory);
		return EXIT_USAGE;
	}
	r = vm_known(&a, &ivshmem);
	if (r)
		return r;
	if (vm_path(socket, sizeof(socket), &a, "share.sock") || vm_path(bar, sizeof(bar), &a, "ivshmem")) {
		log_err("no usable run folder: use --run DIR");
		return EXIT_USAGE;
	}
	r = qemu_detect(&q, a.qemu);
	if (r) {
		log_err("%s: %s", a.qemu,
		    r == -ENODEV ? "isn't a QEMU with a vhost-user file system device" : strerror(-r));
		return EXIT_SYSTEM;
	}
	ivshmem = q.form == QEMU_DAX || !q.ivshmem ? 0 : ivshmem;
	r = qemu_share_args(&qa, &q, memory, socket);
	if (!r && ivshmem)
		r = qemu_ivshmem_args(&qa, bar, ivshmem);
	if (r) {
		log_err("%s: %s", socket, strerror(-r));
		return EXIT_SYSTEM;
	}
	print_args(&q, &qa, ivshmem != 0, a.lines);
	return fflush(stdout) || ferror(stdout) ? EXIT_SYSTEM : EXIT_OK;
}
