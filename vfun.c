/* SPDX-License-Identifier: MIT
 *
 * vfun.c - one executable, many roles: the dispatch table
 *
 * The role is the name the program was called by (vfund, vfun-service, ...: a link or argv[0]), else the first
 * argument. As pid 1 of an initramfs the kernel calls it /init, which is a role too.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "roles/common/cli.h"
#include "roles/roles.h"

static const struct role {
	const char *name;  /* vfun NAME, and vfun-NAME as argv[0] */
	const char *alias; /* another argv[0], or NULL */
	int (*run)(int argc, char **argv);
	const char *help; /* NULL: not for people */
} roles[] = {
	{ "call", NULL, role_call, "call a function: vfun call factorial 51" },
	{ "list", NULL, role_list, "functions that you may have" },
	{ "status", NULL, role_status, "instances, and vfund itself" },
	{ "release", NULL, role_release, "end an instance" },
	{ "reload", NULL, role_reload, "have vfund read vfun.conf again" },
	{ "bench", NULL, role_bench, "measure: the paper's experiment, and the limits beside it" },
	{ "daemon", "vfund", role_daemon, "the host's daemon: registers, launches, watches, releases" },
	{ "share", NULL, role_share, "a VM's virtiofs device (started by vfund); --qemu-args VM" },
	{ "domain", NULL, role_domain, "libvirt: give a domain its functions, take them away, show its XML" },
	{ "vm", NULL, role_vm, "run a command in a throw-away VM made of a kernel and this file" },
	{ "service", NULL, role_service, NULL },
	{ "engine", NULL, role_engine, NULL },
	{ "net", NULL, role_net, NULL },
	{ "hold", NULL, role_hold, NULL },
	{ "init", "init", role_init, NULL },
};

#define NROLES (sizeof(roles) / sizeof(roles[0]))

static const struct role *
find(const char *name)
{
	for (size_t i = 0; i < NROLES; i++)
		if (!strcmp(name, roles[i].name))
			return &roles[i];
	return NULL;
}

static const struct role *
find_argv0(const char *argv0)
{
	const char *base = strrchr(argv0, '/');

	base = base ? base + 1 : argv0;
	if (!strncmp(base, "vfun-", 5))
		return find(base + 5);
	for (size_t i = 0; i < NROLES; i++)
		if (roles[i].alias && !strcmp(base, roles[i].alias))
			return &roles[i];
	return NULL;
}

static int
usage(FILE *to, int status)
{
	fprintf(to, "usage: vfun ROLE [ARGUMENT ...]\n");
	for (size_t i = 0; i < NROLES; i++)
		if (roles[i].help)
			fprintf(to, "  %-8s %s\n", roles[i].name, roles[i].help);
	fprintf(to, "See vfun(1).\n");
	return status;
}

/* Descriptors 0 to 2 may be closed. What a role opens must not get these numbers: messages would go there. Read and
 * write fail as they would without, since /dev/null is opened the other way round. */
static void
occupy_standard(void)
{
	for (int fd = 0; fd <= STDERR_FILENO; fd++)
		if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd)
			return;
}

int
main(int argc, char **argv)
{
	const struct role *role = argc > 0 ? find_argv0(argv[0]) : NULL;

	occupy_standard();
	/* A file that grows too long is an error like a full disk, not the end. */
	signal(SIGXFSZ, SIG_IGN);
	if (role) {
		/* vfund starts its children from a descriptor, which leaves them nameless in ps(1). */
		if (!strchr(argv[0], '/'))
			(void)prctl(PR_SET_NAME, argv[0], 0, 0, 0);
		return role->run(argc, argv);
	}
	if (argc < 2)
		return usage(stderr, EXIT_USAGE);
	role = find(argv[1]);
	if (role)
		return role->run(argc - 1, argv + 1);
	if (!strcmp(argv[1], "--version")) {
		puts("vfun " VFUN_RELEASE);
		return cli_flush("--version");
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "help"))
		return usage(stdout, EXIT_OK) | cli_flush("--help");
	fprintf(stderr, "vfun: '%s' is not a role of vfun: see vfun --help\n", argv[1]);
	return EXIT_USAGE;
}
