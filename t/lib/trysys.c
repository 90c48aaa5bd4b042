/* SPDX-License-Identifier: MIT
 *
 * trysys.c - every system call number of this processor, tried from inside each of a role's filters
 *
 * Compiled once per role: ROLE_FILE is the role's source, whose lists are its own business (static), and is included
 * here; for a service BACKEND may name a backend, whose lists are added. For each list and each number a process of its own loads the filter and makes the call, with arguments that
 * make it fail at once. What is on the list must return; everything else must end in SIGSYS. The same for arguments:
 * each allowed value returns, others don't. Says one line per list, "ok NAME allowed killed, arguments allowed killed",
 * or what is wrong.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include ROLE_FILE

#ifdef BACKEND
static struct sandbox_call backend_setup_list[BACKEND_CALLS_MAX + 1], backend_serving_list[BACKEND_CALLS_MAX + 1];
#define MORE_SETUP backend_calls(BACKEND.setting_up, backend_setup_list)
#define MORE_SERVING backend_calls(BACKEND.serving, backend_serving_list)
#else
#define MORE_SETUP NULL
#define MORE_SERVING NULL
#endif

#define NUMBERS 600	/* more than there are */
#define X32 0x40000000L /* the x32 ABI's bit */
/* uretprobe and uprobe: newer kernels pass them by every filter, since the kernel itself puts them where a probe was
 * set; made by anybody else they fail or end in SIGILL. */
#define PASSED_BY(nr) ((nr) == 335 || (nr) == 336)

/* What a process that makes this call ends with: 0 it returned, -1 SIGSYS, -2 anything else. */
static int
outcome(const struct sandbox_call *list, const struct sandbox_call *more, long nr, unsigned arg, uint64_t value)
{
	uint64_t a[6] = { (uint64_t)-1, 0, 0, 0, 0, 0 };
	pid_t pid;
	int status;

	fflush(stdout);
	pid = fork();
	if (pid < 0)
		exit(2);
	if (pid == 0) {
		if (arg < 6)
			a[arg] = value;
		if (sandbox_syscalls(list, more))
			_exit(3);
		/* Not by libc's syscall(): nothing but this one call happens. exit and exit_group return nowhere,
		 * which is fine. */
		if (nr == SYS_exit_group || nr == SYS_exit)
			a[0] = 0;
		syscall(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
		syscall(SYS_exit_group, 0);
	}
	if (waitpid(pid, &status, 0) != pid)
		exit(2);
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS)
		return -1;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -2;
}

static const struct sandbox_call *
find(const struct sandbox_call *list, long nr)
{
	for (; list && list->why; list++)
		if (list->nr == nr)
			return list;
	return NULL;
}

/* Does any entry of the list for c's call allow this value of its argument? */
static int
allows(const struct sandbox_call *list, const struct sandbox_call *c, uint64_t value)
{
	for (; list && list->why; list++) {
		if (list->nr == c->nr && !list->n)
			return 1;
		for (unsigned i = 0; list->nr == c->nr && i < list->n; i++)
			if (list->arg == c->arg && (value & list->mask) == list->value[i])
				return 1;
	}
	return 0;
}

static unsigned values_returned, values_killed;

static int
try_value(const struct sandbox_call *list, const struct sandbox_call *more, const struct sandbox_call *c, uint64_t value)
{
	int want = allows(list, c, value) || allows(more, c, value) ? 0 : -1;
	int got = outcome(list, more, c->nr, c->arg, value);

	values_returned += got == 0;
	values_killed += got == -1;
	return got == want ? 0
			   : printf("%s with argument %u 0x%llx: %s\n", c->name, c->arg + 1, (unsigned long long)value,
				 got == -1  ? "killed"
				 : got == 0 ? "returned"
					    : "something else");
}

/* Small values, and those that differ from an allowed one in one bit. */
static int
try_arguments(const struct sandbox_call *list, const struct sandbox_call *more, const struct sandbox_call *c)
{
	int bad = 0;

	for (uint64_t v = 0; v < 128; v++)
		bad += try_value(list, more, c, v);
	for (unsigned i = 0; i < c->n; i++) {
		bad += try_value(list, more, c, c->value[i]);
		for (unsigned bit = 0; bit < 32; bit++)
			bad += try_value(list, more, c, c->value[i] ^ 1ull << bit);
	}
	return bad;
}

/* Memory that is shared and nobody's is in no limit. */
static int
try_mmap(const struct sandbox_call *list, const struct sandbox_call *more)
{
	const struct sandbox_call *c = find(list, SYS_mmap);

	if (!c || !c->none || find(more, SYS_mmap))
		return 0;
	return (outcome(list, more, SYS_mmap, 3, 0x21) != -1 || outcome(list, more, SYS_mmap, 3, 0x1) ||
		   outcome(list, more, SYS_mmap, 3, 0x4022))
		   ? printf("mmap: shared and anonymous isn't what is killed\n")
		   : 0;
}

static int
try_list(const char *name, const struct sandbox_call *list, const struct sandbox_call *more)
{
	unsigned allowed = 0, killed = 0;
	int bad = 0;

	values_returned = values_killed = 0;
	for (long nr = 0; nr < NUMBERS; nr++) {
		const struct sandbox_call *c = find(list, nr);
		int want;
		int got;

		if (PASSED_BY(nr))
			continue;
		if (!c)
			c = find(more, nr);
		want = c ? 0 : -1;
		got = outcome(list, more, nr, c && c->n ? c->arg : 6, c && c->n ? c->value[0] : 0);
		if (got != want)
			bad += printf("%s: system call %ld (%s): %s\n", name, nr, c ? c->name : "not listed",
			    got == -1  ? "killed"
			    : got == 0 ? "returned"
				       : "something else");
		allowed += got == 0;
		killed += got == -1;
	}
	bad += try_mmap(list, more);
	for (const struct sandbox_call *c = list; c->why; c++)
		if (c->n)
			bad += try_arguments(list, more, c);
	for (const struct sandbox_call *c = more; c && c->why; c++)
		if (c->n)
			bad += try_arguments(list, more, c);
	for (long nr = 0; nr < NUMBERS; nr += 13)
		if (outcome(list, more, nr | X32, 6, 0) != -1)
			bad += printf("%s: x32 system call %ld is not killed\n", name, nr);
	if (!bad)
		printf("ok %s %u %u, arguments %u %u\n", name, allowed, killed, values_returned, values_killed);
	return bad != 0;
}

int
main(void)
{
	int bad = 0;

#ifdef SETUP_LIST
	bad |= try_list("setup", SETUP_LIST, MORE_SETUP);
#endif
	bad |= try_list("serving", SERVING_LIST, MORE_SERVING);
	return bad;
}
