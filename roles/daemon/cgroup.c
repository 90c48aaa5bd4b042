/* SPDX-License-Identifier: MIT
 *
 * cgroup.c - the launcher's cgroups: what a service may take of processors, memory and processes
 *
 * Theory of operation
 *
 * An rlimit bounds a process's address space; a cgroup bounds what is really taken, the memory of the regions included,
 * and processor time. Only cgroup v2 is used, and only where it may be:
 *
 *   OWN/               the cgroup that vfund was started in
 *   OWN/vfund-HASH/    vfund, its engine and its shares, without limits
 *   OWN/vfund-HASH.N/  the service of instance N
 *
 * A cgroup other than the root that hands controllers on to its children may hold no process itself. So vfund moves
 * into a child first, and whatever else is in OWN makes it impossible: then vfund moves back.
 *
 * HASH is that of the run folder, of which there is one vfund at a time (rundir.c): a group of that name which is there
 * at the start was left by one that was killed, and is removed.
 *
 * OWN must be delegated. Root can write anywhere, but where systemd runs, cgroups are systemd's to arrange, except
 * those that it has marked by an extended attribute (Delegate=yes). A user's manager doesn't always mark them; what a
 * user may write to was handed to that user, which the files' owner says. Where systemd doesn't run, as in a container,
 * being allowed to write is what there is.
 *
 * Where any of this is missing, one line of log says so and why; the service's rlimits hold in any case.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "../common/fd.h"
#include "../common/log.h"
#include "launcher.h"

#define REMOVE_TRIES 1000 /* ms: a process that was killed leaves its group a moment later */
#define CPU_PERIOD_US 100000u

enum { CPU, MEMORY, PIDS, CONTROLLERS };
static const char *const controller[CONTROLLERS] = { "cpu", "memory", "pids" };

static int own = -1;	       /* OWN; -1: there are no limits */
static unsigned have, enabled; /* bit i: controller[i] is there; it is, because of us */
static char own_path[PATH_MAX + 32];
static char self[32]; /* vfund-HASH */

static int
write_at(const char *name, const char *text)
{
	int fd = openat(own, name, O_WRONLY | O_CLOEXEC);
	int r;

	if (fd < 0)
		return -errno;
	r = fd_write_all(fd, text, strlen(text));
	close(fd);
	return r;
}

/* Does a file of words in OWN have this one? */
static int
has_word(const char *name, const char *word)
{
	char text[512];
	char *save = NULL;
	int fd = openat(own, name, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);
	char *w;

	if (fd >= 0)
		close(fd);
	text[n > 0 ? n : 0] = '\0';
	for (w = strtok_r(text, " \n", &save); w && strcmp(w, word); w = strtok_r(NULL, " \n", &save))
		;
	return w != NULL;
}

static int
is_cgroup2(const char *path)
{
	struct statfs fs;

	return statfs(path, &fs) == 0 && fs.f_type == CGROUP2_SUPER_MAGIC;
}

/* Opens OWN. NULL, or why there is none. */
static const char *
open_own(void)
{
	const char *top = is_cgroup2("/sys/fs/cgroup") ? "/sys/fs/cgroup" : "/sys/fs/cgroup/unified";
	FILE *f = fopen("/proc/self/cgroup", "re");
	char line[PATH_MAX];
	int found = 0;

	while (f && !found && fgets(line, sizeof(line), f))
		found = !strncmp(line, "0::/", 4);
	if (f)
		fclose(f);
	if (!found || !is_cgroup2(top))
		return "no cgroup v2 is mounted below /sys/fs/cgroup";
	line[strcspn(line, "\n")] = '\0';
	if (!strncmp(line + 3, "/..", 3))
		return "vfund's cgroup is outside of its cgroup namespace";
	snprintf(own_path, sizeof(own_path), "%s%s", top, strcmp(line, "0::/") ? line + 3 : "");
	own = open(own_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return own < 0 ? strerror(errno) : NULL;
}

static int
delegated(void)
{
	static const char *const mark[] = { "user.delegate", "trusted.delegate" };
	struct stat st;
	char value = 0;

	if (access("/run/systemd/system", F_OK) < 0)
		return 1;
	for (int i = 0; i < 2; i++)
		if (fgetxattr(own, mark[i], &value, 1) == 1 && value == '1')
			return 1;
	return geteuid() && fstatat(own, "cgroup.subtree_control", &st, 0) == 0 && st.st_uid == geteuid();
}

/* Remove a group; whoever is still in it is killed, and waited for if he doesn't go at once. 0 or -errno. */
static int
remove_group(const char *name)
{
	const struct timespec tick = { .tv_nsec = 1000000 };
	char kill[NAME_MAX + 16];

	for (int i = 0; unlinkat(own, name, AT_REMOVEDIR) < 0; i++) {
		if (errno != EBUSY || i == REMOVE_TRIES)
			return -errno;
		snprintf(kill, sizeof(kill), "%s/cgroup.kill", name);
		(void)write_at(kill, "1"); /* before Linux 5.14 they have to end by themselves */
		nanosleep(&tick, NULL);
	}
	return 0;
}

/* Remove all groups of services of this run folder. Returns how many groups in OWN are others'. */
static unsigned
sweep(void)
{
	DIR *dir = fdopendir(openat(own, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	size_t len = strlen(self);
	unsigned others = 0;
	struct dirent *e;

	while (dir && (e = readdir(dir))) {
		int ours = !strncmp(e->d_name, self, len);

		if (ours && e->d_name[len] == '.' && isdigit((unsigned char)e->d_name[len + 1])) {
			int r = remove_group(e->d_name);

			if (r)
				log_warn("cgroup %s/%s can't be removed: %s", own_path, e->d_name, strerror(-r));
		}
		others += !ours && e->d_type == DT_DIR && e->d_name[0] != '.';
	}
	if (dir)
		closedir(dir);
	return others;
}

static void
switch_controllers(unsigned which, char sign)
{
	for (unsigned i = 0; i < CONTROLLERS; i++) {
		char text[16];

		snprintf(text, sizeof(text), "%c%s", sign, controller[i]);
		if (which >> i & 1)
			(void)write_at("cgroup.subtree_control", text); /* what came of it is looked at */
	}
}

/* Out of the way of the controllers. 0 or -errno; *again: a predecessor was killed here. */
static int
move_down(int *again)
{
	char procs[64];
	int r = mkdirat(own, self, 0755) < 0 ? -errno : 0;

	*again = r == -EEXIST;
	if (r && !*again)
		return r;
	snprintf(procs, sizeof(procs), "%s/cgroup.procs", self);
	return write_at(procs, "0");
}

/* What others have begun to use stays on. */
static void
move_back(unsigned others)
{
	int r;

	if (!others)
		switch_controllers(enabled, '-');
	r = write_at("cgroup.procs", "0");
	if (!r)
		r = remove_group(self);
	if (r)
		log_warn("cgroup %s/%s is left: %s", own_path, self, strerror(-r));
	close(own);
	own = -1;
	have = enabled = 0;
}

/* NULL, or why there are no limits. */
static const char *
try_start(void)
{
	const char *why = open_own();
	unsigned before = 0;
	unsigned there = 0;
	int again = 0;
	int r;

	if (why)
		return why;
	for (unsigned i = 0; i < CONTROLLERS; i++) {
		there |= (unsigned)has_word("cgroup.controllers", controller[i]) << i;
		before |= (unsigned)has_word("cgroup.subtree_control", controller[i]) << i;
	}
	if (!there)
		why = "it has none of the controllers cpu, memory and pids";
	else if (!delegated())
		why = "systemd doesn't delegate it: set Delegate=yes in vfund's unit";
	else if ((r = move_down(&again)) != 0)
		why = strerror(-r);
	if (why) {
		(void)unlinkat(own, self, AT_REMOVEDIR);
		close(own);
		own = -1;
		return why;
	}
	sweep();
	switch_controllers(there & ~before, '+');
	for (unsigned i = 0; i < CONTROLLERS; i++)
		have |= (unsigned)has_word("cgroup.subtree_control", controller[i]) << i;
	enabled = again ? have : have & ~before;
	if (have)
		return NULL;
	move_back(1);
	return "its controllers can't be handed on: other processes are in it";
}

static void
list(unsigned which, char text[32])
{
	text[0] = '\0';
	for (unsigned i = 0; i < CONTROLLERS; i++)
		if (which >> i & 1)
			strcat(strcat(text, " "), controller[i]);
}

void
cgroup_start(const struct launcher *l)
{
	const unsigned all = (1u << CONTROLLERS) - 1;
	uint64_t hash = 14695981039346656037u; /* FNV-1a */
	const char *why;
	char yes[32], no[32];

	for (const char *p = l->run; *p; p++)
		hash = (hash ^ (uint8_t)*p) * 1099511628211u;
	snprintf(self, sizeof(self), "vfund-%016llx", (unsigned long long)hash);
	why = try_start();
	list(have, yes);
	list(all & ~have, no);
	if (why)
		log_info(
		    "services have no limits by cgroup, only rlimits: %s%s%s", own_path, own_path[0] ? ": " : "", why);
	else
		log_info("services have limits by cgroup in %s:%s%s%s", own_path, yes,
		    no[0] ? "; not available there:" : "", no);
	for (unsigned i = 0; i < l->conf->functions; i++)
		if (l->conf->function[i].cpu < 100 && !(have & 1u << CPU))
			log_warn("[function %s]: its cpu limit can't be kept here", l->conf->function[i].name);
}

void
cgroup_end(void)
{
	if (own >= 0)
		move_back(sweep());
}

/* A file of the group of instance `id`, or with an empty one the group itself. */
static const char *
file_of(uint64_t id, const char *file)
{
	static char path[96];

	snprintf(path, sizeof(path), "%s.%llu%s%s", self, (unsigned long long)id, *file ? "/" : "", file);
	return path;
}

/* A service is one process with so many threads, and never has another. */
static int
set_limits(uint64_t id, const struct svc_start *start, uint32_t cpu)
{
	char text[48];
	int r = 0;

	snprintf(text, sizeof(text), "%u", svc_threads(start));
	if (have & 1u << PIDS)
		r = write_at(file_of(id, "pids.max"), text);
	snprintf(text, sizeof(text), "%llu", (unsigned long long)start->memory_max);
	if (!r && have & 1u << MEMORY)
		r = write_at(file_of(id, "memory.max"), text);
	snprintf(text, sizeof(text), "%u %u", start->workers * cpu * (CPU_PERIOD_US / 100), CPU_PERIOD_US);
	if (!r && have & 1u << CPU && cpu < 100)
		r = write_at(file_of(id, "cpu.max"), text);
	return r;
}

int
cgroup_add(uint64_t id, const struct svc_start *start, uint32_t cpu, pid_t pid)
{
	char text[16];
	int r;

	if (own < 0)
		return 0;
	r = mkdirat(own, file_of(id, ""), 0755) < 0 ? -errno : 0;
	if (!r)
		r = set_limits(id, start, cpu);
	snprintf(text, sizeof(text), "%d", (int)pid);
	if (!r)
		r = write_at(file_of(id, "cgroup.procs"), text);
	if (r)
		log_err("instance %llu: its cgroup can't be made: %s", (unsigned long long)id, strerror(-r));
	return r;
}

void
cgroup_remove(uint64_t id)
{
	int r = own < 0 ? 0 : remove_group(file_of(id, ""));

	if (r && r != -ENOENT)
		log_warn("instance %llu: its cgroup can't be removed: %s", (unsigned long long)id, strerror(-r));
}

int
cgroup_oom(uint64_t id)
{
	char text[512];
	const char *at;
	int fd = own < 0 ? -1 : openat(own, file_of(id, "memory.events"), O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);

	if (fd >= 0)
		close(fd);
	text[n > 0 ? n : 0] = '\0';
	at = strstr(text, "\noom_kill ");
	return at && atoi(at + 10) > 0;
}
