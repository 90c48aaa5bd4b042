/* SPDX-License-Identifier: MIT
 *
 * launch.c - an engine that was taken over asks for more services than there may be
 *
 *   launch    roles/daemon/services.c as the launcher of three processes that do nothing. Says "ok", or what went
 * wrong.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../backends/backend.h"
#include "../../roles/common/fd.h"
#include "../../roles/common/log.h"
#include "../../roles/common/sandbox.h"
#include "../../roles/daemon/launcher.h"

static struct conf conf = { .functions = 1,
	.instances = 3,
	.memory = 10 << 20,
	.uid_base = 100000,
	.function = {
	    { .name = "factorial", .slots_max = 64, .arena_max = 64 << 20, .workers = 1, .timeout_ms = 60000 } } };
static struct launcher l = { .conf = &conf, .system_mode = 1 };
static int told; /* the last service's end of its socket */

static void
want(int ok, const char *what)
{
	if (ok)
		return;
	printf("not as it should be: %s\n", what);
	exit(1);
}

/* ---- what services.c needs of the rest ---- */

const struct backend backend_software = { .name = "software" };
const struct backend backend_program = { .name = "program" };
const struct backend backend_xrt = { .name = "xrt" };
const struct backend backend_xrt_emulated = { .name = "xrt-emulated" };

int
conf_is_hardware(const struct conf_function *fn)
{
	(void)fn;
	return 0;
}

uint32_t
conf_features(const struct conf_function *fn)
{
	(void)fn;
	return 0;
}

uint32_t
conf_workers(const struct conf_function *fn, uint32_t version, uint32_t slots)
{
	(void)fn;
	(void)version;
	(void)slots;
	return 1;
}

uint32_t
conf_account(const struct conf *c, uint32_t uid)
{
	(void)c;
	return uid;
}

int
sandbox_call_name(int nr, char name[SANDBOX_NAME])
{
	(void)nr;
	(void)name;
	return -1;
}

int
conf_is_program(const struct conf_function *fn)
{
	(void)fn;
	return 0;
}

enum vfun_reason
program_ready(const struct service *s, struct vfun_program_ready *ready, long n, char text[VFUN_TEXT_MAX])
{
	(void)s;
	(void)ready;
	(void)n;
	(void)text;
	return VFUN_R_START_FAILED;
}

enum vfun_reason
program_end(const struct service *s, int status, char text[VFUN_TEXT_MAX])
{
	(void)s;
	(void)status;
	(void)text;
	return VFUN_R_GONE;
}

int
words_begin(struct service *s, int fd)
{
	(void)s;
	(void)fd;
	return -1;
}

void
words_again(struct service *s)
{
	(void)s;
}

void
words_end(struct service *s)
{
	(void)s;
}

void
crashes_count(const struct service *s)
{
	(void)s;
}

int
crashes_wait(const struct service *s)
{
	(void)s;
	return 0;
}

int64_t
launcher_ms(void)
{
	return 1;
}

pid_t
launcher_spawn(struct launcher *launcher, const char *const argv[], const int *fds, int nfds, int *pidfd)
{
	pid_t pid = fork();

	(void)launcher;
	(void)argv;
	(void)nfds;
	if (!pid)
		for (;;)
			pause();
	told = dup(fds[0]);
	*pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	return pid;
}

int
launcher_collect(pid_t pid, int pidfd, int *status)
{
	(void)pidfd;
	return waitpid(pid, status, 0) == pid ? 0 : -ECHILD;
}

int
kept_event(struct kept *k, const struct keep_msg *msg, const int *fds, int nfds)
{
	(void)k;
	(void)msg;
	(void)fds;
	(void)nfds;
	return 0;
}

int
give_settle(struct service *s, const struct keep_launch *req)
{
	(void)s;
	(void)req;
	return 0;
}

int
rules_regions(const int fds[3])
{
	(void)fds;
	return 0;
}

void
closer_put(struct launcher *launcher, int fd, const struct kept *k)
{
	(void)launcher;
	(void)k;
	if (fd >= 0)
		close(fd);
}

void
label_memory(const struct vm *vm, int fd, const char *what)
{
	(void)vm;
	(void)fd;
	(void)what;
}

uint64_t
bar_take(struct vm *vm, uint64_t id, uint64_t len)
{
	(void)vm;
	(void)id;
	(void)len;
	return 0;
}

void
bar_free(struct launcher *launcher, uint64_t id)
{
	(void)launcher;
	(void)id;
}

int
cgroup_add(uint64_t id, const struct svc_start *start, uint32_t cpu, pid_t pid)
{
	(void)id;
	(void)start;
	(void)cpu;
	(void)pid;
	return 0;
}

void
cgroup_remove(uint64_t id)
{
	(void)id;
}

int
cgroup_oom(uint64_t id)
{
	(void)id;
	return 0;
}

/* ---- the engine ---- */

/* The uid of a new service with an arena of so many MiB each way, or -errno. */
static long
launch(uint64_t id, uint64_t mib)
{
	struct keep_launch req = {
		.id = id, .out_arena = mib << 20, .in_arena = mib << 20, .slots = 1, .target = VFUN_TARGET_SOFTWARE
	};
	struct svc_start start;
	int r = services_launch(&l, &req);

	if (r)
		return r;
	want(fd_recv(told, &start, sizeof(start), NULL, 0, NULL) == (long)sizeof(start), "its orders");
	close(told);
	return start.uid;
}

static void
end(uint64_t id)
{
	want(services_kill(&l, id) == 0, "ending a service");
	while (services_find(&l, id))
		want(loop_once(&l.loop, 10000) == 1, "its end is seen");
}

int
main(void)
{
	log_init("launcher", 0);
	want(loop_init(&l.loop) == 0, "a loop");
	want(launch(1, 1) == 101024, "the first service's uid");
	/* Were it made of the instance's number, it would be the first one's. */
	want(launch(60001, 1) == 101025, "another uid for one that is 60000 further on");
	want(launch(3, 4) == -EDQUOT, "no more memory than vfund may have");
	want(launch(3, 2) == 101026, "as much as it may");
	want(launch(4, 0) == -EDQUOT, "no more services than there may be");
	want(launch(1, 0) == -EINVAL, "no service twice");
	end(60001);
	want(launch(5, 0) == 101025, "who ends makes room, and leaves his uid");
	services_end(&l);
	printf("ok\n");
	return 0;
}
