/* SPDX-License-Identifier: MIT
 *
 * daemon.c - vfun daemon, vfund: command line and preparations
 *
 * The life of vfund is one sequence: read vfun.conf, make the run folder, start the launcher's loop, which starts the
 * engine; on SIGTERM everything is released in order and the run folder removed. It stays in the foreground: service
 * managers want it so.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "../../proto/plain.h"
#include "../common/cli.h"
#include "../common/conf.h"
#include "../common/half.h"
#include "../common/log.h"
#include "../common/sandbox.h"
#include "../roles.h"
#include "engine.h"
#include "launcher.h"

#define FILES_WANTED 4096
#define FILES_NEEDED 32u /* to start; and for each VM */
#define FILES_VM 2u

static int
usage(void)
{
	printf(
	    "usage: vfun daemon [-nv] [-c FILE] [--run DIR] [--state DIR]\n"
	    "  -c FILE    configuration (default /etc/vfun.conf, see vfun.conf(5))\n"
	    "  -n         only check the configuration: exit 0, or name each fault and exit 2\n"
	    "  --run DIR  sockets and records (default $VFUN_RUN_DIR, /run/vfun, or $XDG_RUNTIME_DIR/vfun)\n"
	    "  --state DIR  what outlives vfund (default /var/lib/vfun or the user's; none with another run folder)\n"
	    "  -v         say more\n"
	    "See vfund(8).\n");
	return cli_flush("daemon");
}

static void
complain(void *arg, int line, const char *fault)
{
	const char *path = arg;
	char text[1024];

	snprintf(text, sizeof(text), "%s", fault);
	plain_text(text);
	if (line)
		fprintf(stderr, "%s:%d: %s\n", path, line, text);
	else
		fprintf(stderr, "%s: %s\n", path, text);
}

int
daemon_load(struct launcher *l, struct conf *conf, int program[CONF_FUNCTIONS_MAX], const char *path, int check,
    conf_complain *tell, void *arg)
{
	int n = conf_load(conf, path, tell, arg);

	if (n >= 0)
		n += uids_claim(l, conf, check, tell, arg);
	if (n >= 0 && l->system_mode)
		n += names_read(conf, tell, arg);
	if (!n)
		n = nets_check(conf, tell, arg);
	if (!n)
		n = xclbins_check(conf, tell, arg);
	if (!n)
		n = programs_load(l, conf, program, tell, arg);
	return n;
}

static int
load(struct launcher *l, struct conf *conf, const char *path, int check)
{
	int n = daemon_load(l, conf, l->program, path, check, complain, (void *)(uintptr_t)path);

	if (n < 0)
		fprintf(stderr, "vfun daemon: can't read %s: %s\n", path, strerror(-n));
	else if (n > 0)
		fprintf(stderr, "%s: %d fault%s\n", path, n, n == 1 ? "" : "s");
	return n ? EXIT_USAGE : EXIT_OK;
}

/* The launcher holds every VM's and instance's descriptors. What can't start for want of them must not try: emptying
 * the run folder takes some as well. 0, or an exit status. */
static int
raise_file_limit(struct launcher *l)
{
	const struct conf *conf = l->conf;
	unsigned need = FILES_NEEDED + FILES_VM * conf->vms;
	struct rlimit rl;

	if (getrlimit(RLIMIT_NOFILE, &rl) < 0)
		return 0;
	if (rl.rlim_max < need) {
		log_err("only %llu files may be open, and with %u VM%s it takes %u (ulimit -n)",
		    (unsigned long long)rl.rlim_max, conf->vms, conf->vms == 1 ? "" : "s", need);
		return EXIT_SYSTEM;
	}
	l->reserves = rl.rlim_max - need < RESERVE_MAX ? (unsigned)rl.rlim_max - need : RESERVE_MAX;
	rl.rlim_cur = rl.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &rl) < 0 || rl.rlim_max < FILES_WANTED)
		log_warn("only %llu files may be open: many instances, or many VMs, will be refused (ulimit -n)",
		    (unsigned long long)rl.rlim_max);
	return 0;
}

static int
start(struct launcher *l, const char *run, const char *state)
{
	struct rundir rd;
	int r = raise_file_limit(l);

	if (r)
		return r;
	r = rundir_make(l, run, &rd);
	if (r)
		return r;
	remember_open(l, state);
	l->half = half_open(l->run);
	if (l->half < 0)
		log_warn(
		    "the host half can't be executed here, functions in hardware won't start: %s", strerror(-l->half));
	r = loop_init(&l->loop);
	if (!r)
		r = kept_init(&l->engine);
	if (r) {
		log_err("can't start: %s", strerror(-r));
		rundir_remove(l);
		return EXIT_SYSTEM;
	}
	r = engine_prepare(&l->engine, l, &rd);
	if (!r && nets_prepare(l))
		r = EXIT_SYSTEM;
	if (!r && l->system_mode && sandbox_launcher(l->conf->connect[0] != '\0')) {
		log_err("the launcher's capabilities can't be reduced");
		r = EXIT_SYSTEM;
	}
	if (!r) {
		cgroup_start(l);
		r = launcher_run(l);
		cgroup_end();
	}
	rundir_remove(l);
	return r;
}

int
role_daemon(int argc, char **argv)
{
	static const struct option options[] = { { "run", required_argument, NULL, 'r' },
		{ "state", required_argument, NULL, 's' }, { "help", no_argument, NULL, 'h' }, { NULL, 0, NULL, 0 } };
	static struct conf conf;
	static struct launcher l;
	const char *path = NULL;
	const char *state = NULL;
	const char *run = NULL;
	int check = 0;
	int c;
	int r;

	cli_begin(argv, "daemon");
	while ((c = getopt_long(argc, argv, "+c:nv", options, NULL)) != -1) {
		if (c == 'c')
			path = optarg;
		else if (c == 'n')
			check = 1;
		else if (c == 'r')
			run = optarg;
		else if (c == 's')
			state = optarg;
		else if (c == 'v')
			l.verbose = 1;
		else
			return c == 'h' ? usage() : EXIT_USAGE;
	}
	if (optind != argc)
		return cli_wrong("daemon", "'%s' is one argument too many", argv[optind]);
	log_init("vfund", l.verbose);
	path = conf_path(path);
	l.self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	if (l.self < 0) {
		log_err("can't open /proc/self/exe: %s", strerror(errno));
		return EXIT_SYSTEM;
	}
	l.conf = &conf;
	l.system_mode = geteuid() == 0;
	r = load(&l, &conf, path, check);
	if (r || check) {
		uids_release(&l);
		return r;
	}
	state = conf_state(state, run);
	run = conf_run(run);
	if (!run) {
		log_err("no place for sockets: set --run DIR or $XDG_RUNTIME_DIR");
		return EXIT_USAGE;
	}
	l.conf_path = path;
	log_never_wait();
	r = start(&l, run, state);
	uids_release(&l);
	return r;
}
