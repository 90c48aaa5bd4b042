/* SPDX-License-Identifier: MIT
 *
 * domain.c - `vfun domain`: a libvirt domain gets its share, loses it, is listed, shows its XML
 *
 * libvirt and libxml2 are shared libraries, which a static executable can't use. So this part only reads the command
 * line, and executes the host half (command.c), which finds what it is to do at descriptor DOMAIN_ASK_FD.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../common/cli.h"
#include "../common/conf.h"
#include "../common/fd.h"
#include "../common/half.h"
#include "../roles.h"
#include "domain.h"

#define INSTANCES_MAX 256

extern char **environ;

/* For /etc/libvirt/hooks/qemu. A hook must not ask libvirt, which waits for it, so it looks at what it is given. */
static const char hook[] =
    "#!/bin/sh\n"
    "# Made by `vfun domain hook`: /etc/libvirt/hooks/qemu, or a file in /etc/libvirt/hooks/qemu.d.\n"
    "#\n"
    "# A domain whose vfund isn't there can't start; QEMU's own words for it say nothing about vfun. This says it in "
    "a\n"
    "# sentence, after a while, since vfund may be starting at the same time.\n"
    "#\n"
    "#\tqemu DOMAIN prepare begin -\t<definition\n"
    "[ \"$2\" = prepare ] || exit 0\n"
    "wanted=$(sed -n \"s/.*[='\\\"]\\(\\/[^'\\\",]*\\/vmcli\\/[-0-9a-f]*\\/share\\.sock\\).*/\\1/p\" | head -n 1)\n"
    "[ -n \"$wanted\" ] || exit 0\n"
    "for i in 1 2 3 4 5 6 7 8 9 10; do\n"
    "\t[ -S \"$wanted\" ] && exit 0\n"
    "\tsleep 0.5\n"
    "done\n"
    "echo \"vfun: $1 has a share of vfund, but nobody listens at $wanted: start vfund, or: vfun domain detach $1\" "
    ">&2\n"
    "exit 1\n";

static int
usage(void)
{
	fputs("usage: vfun domain attach DOMAIN [--live] [--config] [--fix] [--path auto|dax|ivshmem|copy]\n"
	      "                          [--functions 'NAME ...'] [--instances N] [--memory SIZE] [--unit]\n"
	      "       vfun domain detach DOMAIN [--live] [--config]\n"
	      "       vfun domain list\n"
	      "       vfun domain xml DOMAIN\n"
	      "       vfun domain hook\n"
	      "each with [--connect URI] [--run DIR] [-c FILE]\n"
	      "See vfun-domain(1).\n",
	    stdout);
	return cli_flush("domain");
}

static int
wrong(const char *what, const char *value)
{
	fprintf(stderr, "vfun domain: %s: '%s' won't do\n", what, value);
	return -1;
}

static int
copy(char *to, size_t room, const char *what, const char *value)
{
	return snprintf(to, room, "%s", value) >= (int)room ? wrong(what, value) : 0;
}

/* The names, with one blank between them. */
static int
take_functions(struct domain_ask *a, const char *value)
{
	char names[VIRTD_FUNCTIONS_MAX];
	char *save = NULL;

	if (copy(names, sizeof(names), "--functions", value))
		return -1;
	a->functions[0] = '\0';
	for (char *s = strtok_r(names, " \t\n,", &save); s; s = strtok_r(NULL, " \t\n,", &save)) {
		if (!conf_name_ok(s))
			return wrong("--functions", s);
		if (a->functions[0])
			strcat(a->functions, " ");
		strcat(a->functions, s);
	}
	return a->functions[0] ? 0 : wrong("--functions", value);
}

static int
take_path(struct domain_ask *a, const char *value)
{
	static const char *const names[] = { "auto", "dax", "ivshmem", "copy" };

	for (a->path = 0; a->path < 4; a->path++)
		if (!strcmp(value, names[a->path]))
			return 0;
	return wrong("--path", value);
}

static int
take_instances(struct domain_ask *a, const char *value)
{
	uint64_t n;

	if (cli_u64(value, &n) || n < 1 || n > INSTANCES_MAX)
		return wrong("--instances", value);
	a->instances = (uint32_t)n;
	return 0;
}

/* CLI_GO_ON, or an exit status. */
static int
parse(struct domain_ask *a, int argc, char **argv, const char **run, const char **conf)
{
	static const struct option options[] = { { "live", no_argument, NULL, 'l' },
		{ "config", no_argument, NULL, 'd' }, { "fix", no_argument, NULL, 'f' },
		{ "unit", no_argument, NULL, 'u' }, { "path", required_argument, NULL, 'p' },
		{ "functions", required_argument, NULL, 'F' }, { "instances", required_argument, NULL, 'i' },
		{ "memory", required_argument, NULL, 'm' }, { "connect", required_argument, NULL, 'C' },
		{ "run", required_argument, NULL, 'r' }, { "help", no_argument, NULL, 'h' }, { NULL, 0, NULL, 0 } };
	int c;
	int r = 0;

	cli_begin(argv, "domain");
	while (!r && (c = getopt_long(argc, argv, "c:", options, NULL)) != -1) {
		if (c == 'c')
			*conf = optarg;
		else if (c == 'l')
			a->where |= DOMAIN_LIVE;
		else if (c == 'd')
			a->where |= DOMAIN_CONFIG;
		else if (c == 'f')
			a->fix = 1;
		else if (c == 'u')
			a->unit = 1;
		else if (c == 'p')
			r = take_path(a, optarg);
		else if (c == 'F')
			r = take_functions(a, optarg);
		else if (c == 'i')
			r = take_instances(a, optarg);
		else if (c == 'm')
			r = cli_size(optarg, &a->memory) || a->memory < 1u << 20 ? wrong("--memory", optarg) : 0;
		else if (c == 'C')
			r = copy(a->uri, sizeof(a->uri), "--connect", optarg);
		else if (c == 'r')
			*run = optarg;
		else
			return c == 'h' ? usage() : EXIT_USAGE;
	}
	return r ? EXIT_USAGE : CLI_GO_ON;
}

/* The run folder, from / on, since it becomes part of definitions. 0 or -1. */
static int
complete_run(struct domain_ask *a, const char *opt)
{
	const char *run = conf_run(opt);
	char cwd[PATH_MAX] = "";

	if (!run || (run[0] != '/' && !getcwd(cwd, sizeof(cwd)))) {
		fputs("vfun domain: no run folder is known: use --run DIR\n", stderr);
		return -1;
	}
	if (snprintf(a->run, sizeof(a->run), "%s%s%s", cwd, cwd[0] ? "/" : "", run) >= (int)sizeof(a->run))
		return wrong("--run", run);
	return 0;
}

/* What vfund will give at most; where its vfun.conf can't be read from here, it says so itself later. */
static void
find_bound(struct domain_ask *a, const char *path)
{
	static struct conf conf;

	if (conf_load(&conf, conf_path(path), NULL, NULL) == 0 && conf.connect[0])
		a->memory_max = conf.vm[CONF_LIBVIRT].memory;
}

/* In place of this process; returns only a failure. */
static int
execute_half(const struct domain_ask *a)
{
	char *const argv[] = { (char *)"vfun-half", (char *)"domain", NULL };
	int half = half_open("/tmp");
	int ask = memfd_create("vfun-domain", MFD_CLOEXEC);
	int r = half < 0 ? half : ask < 0 ? -errno : fd_write_all(ask, a, sizeof(*a));

	/* First out of the way of the number that is wanted. */
	if (!r && (half = fcntl(half, F_DUPFD_CLOEXEC, DOMAIN_ASK_FD + 2)) < 0)
		r = -errno;
	if (!r && (ask = fcntl(ask, F_DUPFD_CLOEXEC, DOMAIN_ASK_FD + 2)) < 0)
		r = -errno;
	if (!r && dup2(ask, DOMAIN_ASK_FD) < 0)
		r = -errno;
	if (!r) {
		execveat(half, "", argv, environ, AT_EMPTY_PATH);
		r = -errno;
	}
	if (r == -ENOENT)
		fputs("vfun domain: this host has no shared C library (glibc), so no libvirt either\n", stderr);
	else
		fprintf(stderr, "vfun domain: the host half can't be executed: %s\n", strerror(-r));
	return r == -ENOENT ? EXIT_NO_LIBVIRT : EXIT_SYSTEM;
}

static const struct {
	const char *name;
	enum domain_command command;
	int domain; /* 1: it takes one */
} commands[] = {
	{ "attach", DOMAIN_ATTACH, 1 },
	{ "detach", DOMAIN_DETACH, 1 },
	{ "list", DOMAIN_LIST, 0 },
	{ "xml", DOMAIN_XML, 1 },
};

int
role_domain(int argc, char **argv)
{
	static struct domain_ask a;
	const char *conf = NULL;
	const char *run = NULL;
	unsigned domain = 0;
	int r = parse(&a, argc, argv, &run, &conf);

	if (r != CLI_GO_ON)
		return r;
	if (argc - optind == 1 && !strcmp(argv[optind], "hook")) {
		fputs(hook, stdout);
		return cli_flush("domain");
	}
	for (size_t i = 0; optind < argc && i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (strcmp(argv[optind], commands[i].name))
			continue;
		a.command = commands[i].command;
		domain = (unsigned)commands[i].domain;
	}
	if (optind == argc)
		return cli_wrong("domain", "attach, detach, list, xml or hook");
	if (!a.command)
		return cli_wrong("domain", "'%s' is not attach, detach, list, xml or hook", argv[optind]);
	if (argc - optind < 1 + (int)domain)
		return cli_wrong("domain", "%s which domain?", argv[optind]);
	if (argc - optind > 1 + (int)domain)
		return cli_wrong("domain", "'%s' is one argument too many", argv[argc - 1]);
	if (a.fix && a.where == DOMAIN_LIVE) {
		fputs("vfun domain: --fix changes the persistent definition: add --config\n", stderr);
		return EXIT_USAGE;
	}
	if (domain && copy(a.domain, sizeof(a.domain), "DOMAIN", argv[optind + 1]))
		return EXIT_USAGE;
	if (!a.where)
		a.where = DOMAIN_CONFIG;
	find_bound(&a, conf);
	return complete_run(&a, run) ? EXIT_USAGE : execute_half(&a);
}
