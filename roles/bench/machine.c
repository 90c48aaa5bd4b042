/* SPDX-License-Identifier: MIT
 *
 * machine.c - what the figures depend on, and what makes them doubtful
 *
 * Nothing here is needed to measure: what can't be found out stays empty. The figures of a call tell mostly about the
 * processor and about who else uses it, so both are said beside them.
 */
#if defined(__x86_64__)
#include <cpuid.h>
#endif
#include <dirent.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../common/qemu.h"
#include "../common/numbers.h"
#include "bench.h"

#define STOLEN_MAX 0.02 /* of all processor time */
#define BUSY_MAX 0.25	/* of a core, by others */
#define NOISE_MAX 1.25	/* between the quarter points */

/* The value after "key<blanks>:<blanks>" in a file, or its first line without a key; "" if there is none. */
static void
look_up(const char *path, const char *key, char *value, size_t room)
{
	FILE *f = fopen(path, "re");
	char line[512];
	size_t n = key ? strlen(key) : 0;

	*value = '\0';
	while (f && fgets(line, sizeof(line), f)) {
		char *v = line + n;

		line[strcspn(line, "\n")] = '\0';
		if (key && strncmp(line, key, n) != 0)
			continue;
		v += key ? strspn(v, " \t:") : 0;
		snprintf(value, room, "%.*s", (int)room - 1, v);
		break;
	}
	if (f)
		fclose(f);
}

/* What the processor says that it is virtualized by. */
static void
look_below(char *name, size_t room)
{
	*name = '\0';
#if defined(__x86_64__)
	unsigned a;
	unsigned id[4] = { 0 };

	if (!__get_cpuid(1, &a, &id[0], &id[1], &id[2]) || !(id[1] & 1u << 31))
		return;
	__cpuid(0x40000000, a, id[0], id[1], id[2]);
	id[3] = 0;
	if (!memcmp(id, "TCGTCGTCGTCG", 12))
		snprintf(name, room, "TCG");
	else if (!memcmp(id, "KVMKVMKVM", 9))
		snprintf(name, room, "KVM");
	else
		snprintf(name, room, "%.12s", (const char *)id);
#else
	(void)room;
#endif
}

static void
look_frequency(char *s, size_t room)
{
	static const char dir[] = "/sys/devices/system/cpu/cpu0/cpufreq/";
	char path[128];
	char governor[32];
	char lowest[32];
	char highest[32];

	*s = '\0';
	snprintf(path, sizeof(path), "%sscaling_governor", dir);
	look_up(path, NULL, governor, sizeof(governor));
	snprintf(path, sizeof(path), "%sscaling_min_freq", dir);
	look_up(path, NULL, lowest, sizeof(lowest));
	snprintf(path, sizeof(path), "%sscaling_max_freq", dir);
	look_up(path, NULL, highest, sizeof(highest));
	if (*governor)
		snprintf(s, room, "%s, %ld to %ld MHz", governor, atol(lowest) / 1000, atol(highest) / 1000);
}

/* One process's clock ticks, with those of children that it has waited for; and its parent. */
static int
read_process(const char *pid, pid_t *parent, uint64_t *ticks)
{
	uint64_t t[14];
	char path[300];
	char text[1024] = "";
	const char *at;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%s/stat", pid);
	f = fopen(path, "re");
	if (!f)
		return -1;
	at = fgets(text, sizeof(text), f) ? strrchr(text, ')') : NULL;
	fclose(f);
	/* ppid comes first; utime, stime, cutime and cstime are ten behind it: proc(5) */
	if (!at || numbers(at, t, 14) != 14)
		return -1;
	*parent = (int)t[0];
	*ticks = t[10] + t[11] + t[12] + t[13];
	return 0;
}

#define PROCESSES_MAX 4096

/* Clock ticks that a process and its descendants have used: what others are is what is left. A child's number may be
 * lower than its parent's, so it is gone through until no further one is found. */
static uint64_t
family_ticks(pid_t head)
{
	static struct {
		pid_t pid;
		pid_t parent;
		uint64_t ticks;
		int ours;
	} p[PROCESSES_MAX];
	DIR *dir = opendir("/proc");
	struct dirent *d;
	unsigned n = 0;
	uint64_t sum = 0;
	int more = 1;

	while (dir && n < PROCESSES_MAX && (d = readdir(dir))) {
		p[n].pid = atoi(d->d_name);
		p[n].ours = p[n].pid == head;
		if (p[n].pid > 0 && !read_process(d->d_name, &p[n].parent, &p[n].ticks))
			n++;
	}
	if (dir)
		closedir(dir);
	while (more) {
		more = 0;
		for (unsigned i = 0; i < n; i++)
			for (unsigned k = 0; !p[i].ours && k < n; k++)
				more |= p[i].ours = p[k].ours && p[k].pid == p[i].parent;
	}
	for (unsigned i = 0; i < n; i++)
		sum += p[i].ours ? p[i].ticks : 0;
	return sum;
}

/* vfund's as well, where it isn't one of this run's family. */
static uint64_t
own_ticks(const struct bench *b)
{
	struct vfun_msg msg = { .type = VFUN_MSG_INFO };
	uint64_t sum = family_ticks(b->family);
	int fd = b->in_guest || b->family != getpid() ? -1 : vfun_control_open(b->run, 1);

	if (fd >= 0 && !vfun_control(fd, &msg, 0) && !msg.reason && msg.body.info.pid)
		sum += family_ticks((pid_t)msg.body.info.pid);
	if (fd >= 0)
		close(fd);
	return sum;
}

/* Clock ticks of all cores since boot: all, idle, stolen. */
static int
read_ticks(uint64_t *all, uint64_t *idle, uint64_t *stolen)
{
	FILE *f = fopen("/proc/stat", "re");
	char line[256];
	uint64_t t[8];
	unsigned n = f && fgets(line, sizeof(line), f) ? numbers(line, t, 8) : 0;

	if (f)
		fclose(f);
	if (n != 8)
		return -1;
	*all = t[0] + t[1] + t[2] + t[3] + t[4] + t[5] + t[6] + t[7];
	*idle = t[3] + t[4];
	*stolen = t[7]; /* neither idle nor used by anybody here */
	return 0;
}

void
machine_begin(struct bench *b)
{
	struct machine *m = &b->machine;
	uint64_t idle;
	struct utsname u;
	cpu_set_t set;

	look_up("/proc/cpuinfo", "model name", m->cpu, sizeof(m->cpu));
	look_up("/proc/self/status", "Cpus_allowed_list", m->cores, sizeof(m->cores));
	m->cores_n = sched_getaffinity(0, sizeof(set), &set) ? 1 : (unsigned)CPU_COUNT(&set);
	if (!uname(&u))
		snprintf(m->kernel, sizeof(m->kernel), "%s", u.release);
	look_below(m->virtual, sizeof(m->virtual));
	look_frequency(m->frequency, sizeof(m->frequency));
	if (!read_ticks(&m->all, &idle, &m->stolen))
		m->busy = m->all - idle - m->stolen;
	b->family = b->family ? b->family : getpid();
	m->own = own_ticks(b);
}

/* Cores that others used during the run, on average. */
static double
others(const struct bench *b, uint64_t all, uint64_t busy)
{
	const struct machine *m = &b->machine;
	double used = (double)(busy - m->busy) - (double)(own_ticks(b) - m->own);

	return all > m->all && used > 0 ? used / (double)(all - m->all) * (double)sysconf(_SC_NPROCESSORS_ONLN) : 0;
}

void
machine_end(struct bench *b, unsigned spinning)
{
	struct machine *m = &b->machine;
	double cores = (double)sysconf(_SC_NPROCESSORS_ONLN);
	uint64_t all;
	uint64_t idle;
	uint64_t stolen;
	double busy;

	/* What a guest's client waits for runs on the host's processors. */
	if (b->in_guest && spinning > 1)
		spinning = 1;
	if (!b->in_guest && m->cores_n < spinning)
		note(&b->warnings, "%u parties spin and there %s %u core%s: what is measured is the scheduler",
		    spinning, m->cores_n == 1 ? "is" : "are", m->cores_n, m->cores_n == 1 ? "" : "s");
	if (!m->all || read_ticks(&all, &idle, &stolen) || all <= m->all)
		all = 0;
	busy = all ? others(b, all, all - idle - stolen) : 0;
	if (busy > BUSY_MAX && cores - busy < spinning + BUSY_MAX)
		note(&b->warnings, "other programs kept %.1f of %.0f cores busy", busy, cores);
	if (all && (double)(stolen - m->stolen) > STOLEN_MAX * (double)(all - m->all))
		note(&b->warnings, "the machine below took %.0f %% of the processors' time away",
		    100 * (double)(stolen - m->stolen) / (double)(all - m->all));
	if (*m->frequency && strncmp(m->frequency, "performance", 11) != 0)
		note(&b->warnings, "the processors' frequency is scaled (%s)", m->frequency);
	if (!strcmp(m->accel, "TCG"))
		note(&b->warnings,
		    "the guest's processor is emulated (TCG): its own instructions take a multiple of the usual time");
}

void
machine_noise(struct bench *b, const char *what, double low, double high)
{
	if (low > 0 && high > NOISE_MAX * low)
		note(&b->warnings, "noisy: the middle half of all %s differ by %.0f %%", what, 100 * (high / low - 1));
}

void
machine_spread(struct bench *b, const char *what, double *x, unsigned n)
{
	stats_median(x, n);
	if (n > 3)
		machine_noise(b, what, x[n / 4], x[n - 1 - n / 4]);
}

/* The first line of `qemu --version`. */
void
machine_qemu(struct machine *m, const char *binary)
{
	char *argv[] = { (char *)(binary ? binary : QEMU_DEFAULT), (char *)"--version", NULL };
	char line[128] = "";
	char *version;
	FILE *f;
	pid_t pid;
	int p[2];

	if (pipe(p))
		return;
	pid = fork();
	if (!pid) {
		dup2(p[1], STDOUT_FILENO);
		close(p[0]);
		close(p[1]);
		execvp(argv[0], argv);
		_exit(127);
	}
	close(p[1]);
	f = fdopen(p[0], "r");
	if (f && fgets(line, sizeof(line), f) && (version = strstr(line, "version ")))
		snprintf(m->qemu, sizeof(m->qemu), "QEMU %.*s", (int)strcspn(version + 8, " \n"), version + 8);
	if (f)
		fclose(f);
	else
		close(p[0]);
	if (pid > 0)
		waitpid(pid, NULL, 0);
}
