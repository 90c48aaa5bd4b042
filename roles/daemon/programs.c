/* SPDX-License-Identifier: MIT
 *
 * programs.c - functions that are executables of the administrator's: may they be, what do they say of themselves, are
 * they what they said
 *
 * A program is opened folder by folder, none of which anybody but root or vfund's user may write to, and copied: what
 * becomes of the file afterwards is for the next reload. Then it is asked for its signature and summary (--describe),
 * in the sandbox of a service, with a time limit. What it says when it is ready to serve has to be the same.
 */
#include <stdlib.h>
#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../backends/backend.h"
#include "../../proto/plain.h"
#include "../../proto/signature.h"
#include "../common/fd.h"
#include "../common/half.h"
#include "../common/trusted.h"
#include "launcher.h"

#define WHY_MAX TRUSTED_WHY

struct answer {
	char text[VFUN_SIGNATURE_MAX + VFUN_SUMMARY_MAX + 64];
	size_t len;
	int late;
	int status;
	struct svc_ready ready; /* the service's refusal, if it got so far; reason 0: none */
	int refused;		/* the system call that it ended for; -1: none */
};

static const char *
executable(int fd, const struct stat *st)
{
	unsigned char magic[EI_NIDENT] = "";

	if (!S_ISREG(st->st_mode))
		return "is not a file";
	if (!(st->st_mode & (geteuid() ? 0100 : 0001)))
		return "is not executable by everybody: chmod 755";
	if (pread(fd, magic, sizeof(magic), 0) != (ssize_t)sizeof(magic) || memcmp(magic, ELFMAG, SELFMAG) ||
	    magic[EI_CLASS] != ELFCLASS64)
		return "is not an executable of this machine's (a script isn't one)";
	return NULL;
}

/* Open it. A descriptor, or -1 with a sentence. */
static int
open_program(const char *path, char why[WHY_MAX])
{
	int fd = trusted_open(path, O_RDONLY | O_NONBLOCK, 1, why);
	struct stat st;
	const char *fault;

	if (fd < 0)
		return -1;
	fault = fstat(fd, &st) < 0 ? strerror(errno) : executable(fd, &st);
	if (!fault)
		return fd;
	snprintf(why, WHY_MAX, "%s %s", path, fault);
	close(fd);
	return -1;
}

/* What it will see of the host, as far as it is there by now. 0, or -1 with a sentence. */
static int
check_files(const struct program_desc *d, char why[WHY_MAX])
{
	char files[sizeof(d->files)];
	char *save = NULL;

	memcpy(files, d->files, sizeof(files));
	for (char *s = strtok_r(files, " \t,", &save); s; s = strtok_r(NULL, " \t,", &save)) {
		char fault[TRUSTED_WHY];
		int fd = trusted_open(s, O_PATH, 1, fault);

		if (fd >= 0) {
			close(fd);
		} else if (fd != -ENOENT) {
			snprintf(why, WHY_MAX, "files: %.390s", fault);
			return -1;
		}
	}
	return 0;
}

/* Start a service that is only to say what it is. Its pid, or -errno. */
static pid_t
start(struct launcher *l, const struct conf_function *f, const int fds[2], int sock, int other, int *pidfd)
{
	struct svc_start st = { .slots = 1,
		.workers = 1,
		.describe = 1,
		.memory_max = f->overhead,
		.optional = l->conf->optional,
		.program = f->program };
	pid_t pid =
	    launcher_spawn(l, (const char *const[]){ "vfun-service", f->name, "vfund", NULL }, &other, 1, pidfd);
	int r;

	if (pid < 0)
		return pid;
	strcpy(st.function, f->name);
	strcpy(st.backend, f->backend);
	strcpy(st.client, "vfund");
	if (l->system_mode)
		st.uid = l->conf->uid_base + UID_DESCRIBE;
	r = fd_send(sock, &st, sizeof(st), fds, 2);
	if (r)
		kill(pid, SIGKILL);
	return pid;
}

/* Until it has said everything, or the time is over. */
static void
listen_to(struct answer *a, int in, int64_t until)
{
	while (a->len < sizeof(a->text) - 1) {
		struct pollfd p = { .fd = in, .events = POLLIN };
		int64_t left = until - launcher_ms();
		ssize_t n;

		if (left <= 0 || (poll(&p, 1, (int)left) == 0)) {
			a->late = 1;
			return;
		}
		n = read(in, a->text + a->len, sizeof(a->text) - 1 - a->len);
		if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN))
			return;
		a->len += n > 0 ? (size_t)n : 0;
	}
}

/* Its service's word, or its own: why it couldn't say more. */
static void
hear(struct answer *a, int sock)
{
	long n = fd_recv(sock, &a->ready, sizeof(a->ready), NULL, 0, NULL);

	/* That is as long as a svc_ready. */
	a->refused = refused_call(&a->ready, n);
	if (a->refused >= 0 || n != (long)sizeof(a->ready))
		a->ready.reason = 0;
}

/* Ask it. 0 or -errno. */
static int
ask(struct launcher *l, const struct conf_function *f, int program, struct answer *a)
{
	int sock[2] = { -1, -1 };
	int out[2] = { -1, -1 };
	int pidfd = -1;
	pid_t pid;
	int r = 0;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sock) < 0 || pipe2(out, O_CLOEXEC | O_NONBLOCK) < 0)
		r = -errno;
	pid = r ? r : start(l, f, (const int[]){ out[1], program }, sock[0], sock[1], &pidfd);
	if (out[1] >= 0)
		close(out[1]);
	if (sock[1] >= 0)
		close(sock[1]);
	if (pid > 0) {
		listen_to(a, out[0], launcher_ms() + f->timeout_ms);
		/* Who goes on after its last word has said what there was to say. */
		if (a->late)
			kill(pid, SIGKILL);
		if (launcher_collect(pid, pidfd, &a->status)) {
			a->late = 1;
			kill(pid, SIGKILL);
			(void)launcher_collect(pid, pidfd, &a->status);
		}
		close(pidfd);
		hear(a, sock[0]);
	}
	if (out[0] >= 0)
		close(out[0]);
	if (sock[0] >= 0)
		close(sock[0]);
	return pid < 0 ? (int)pid : 0;
}

/* Cut the next line off. Never NULL. */
static char *
line(char **at)
{
	char *s = *at;
	char *end = s + strcspn(s, "\n");

	*at = end + (*end != '\0');
	*end = '\0';
	return s;
}

/* Does this text mean the same? */
static int
means(const char *text, const struct vfun_signature *s)
{
	struct vfun_signature other;
	char fault[VFUN_TEXT_MAX];

	return !vfun_signature_parse(&other, text, fault) && !memcmp(&other, s, sizeof(other));
}

/* What it said, into the description. 0, or -1 with a sentence. */
static int
understand(struct conf_function *f, struct answer *a, char why[WHY_MAX])
{
	char *at = a->text;
	const char *signature = line(&at);
	const char *summary = line(&at);
	const char *features = line(&at);
	struct vfun_signature parsed;
	char fault[VFUN_TEXT_MAX];

	if (a->late)
		snprintf(why, WHY_MAX, "it has not answered --describe within %u ms (ready-timeout)", f->timeout_ms);
	else if (a->ready.reason)
		snprintf(why, WHY_MAX, "%.*s", (int)sizeof(a->ready.text) - 1, a->ready.text);
	else if (WIFSIGNALED(a->status) && WTERMSIG(a->status) == SIGSYS)
		refused_sentence("asked --describe it", a->refused, why);
	else if (!WIFEXITED(a->status) || WEXITSTATUS(a->status))
		snprintf(why, WHY_MAX, "asked --describe it ended: %s %d%s%.100s",
		    WIFSIGNALED(a->status) ? "signal" : "status",
		    WIFSIGNALED(a->status) ? WTERMSIG(a->status) : WEXITSTATUS(a->status), signature[0] ? ": " : "",
		    signature);
	else if (vfun_signature_parse(&parsed, signature, fault))
		snprintf(why, WHY_MAX, "to --describe it says '%.60s', which is no signature: %s", signature, fault);
	else if (f->signature[0] && !means(f->signature, &parsed))
		snprintf(
		    why, WHY_MAX, "signature: vfun.conf says '%.120s', the program '%.120s'", f->signature, signature);
	else {
		strcpy(f->signature, signature);
		snprintf(f->program.summary, sizeof(f->program.summary), "%s", summary);
		plain_text(f->program.summary);
		/* Of programs built with an older library there is no such line. */
		f->program.features = 0;
		if (!strncmp(features, "features ", 9))
			f->program.features = (uint32_t)strtoul(features + 9, NULL, 10) & VFUN_FEATURES_KNOWN &
					      ~(uint32_t)VFUN_FEATURE_EVENTFD;
		return 0;
	}
	return -1;
}

/* One function: 0 and its program, or -1 with a sentence. */
static int
load(struct launcher *l, struct conf_function *f, int *program, char why[WHY_MAX])
{
	struct answer a = { .len = 0 };
	int fd = check_files(&f->program, why) ? -1 : open_program(f->program.path, why);
	int r;

	if (fd < 0)
		return -1;
	*program = half_copy(fd, l->run ? l->run : "/tmp");
	close(fd);
	r = *program < 0 ? *program : ask(l, f, *program, &a);
	if (r)
		snprintf(why, WHY_MAX, "it can't be asked what it is: %s", strerror(-r));
	r = r ? -1 : understand(f, &a, why);
	if (r && *program >= 0)
		close(*program);
	if (r)
		*program = -1;
	return r;
}

int
programs_load(
    struct launcher *l, struct conf *conf, int program[CONF_FUNCTIONS_MAX], conf_complain *complain, void *arg)
{
	int faults = 0;

	for (unsigned i = 0; i < CONF_FUNCTIONS_MAX; i++)
		program[i] = -1;
	for (unsigned i = 0; i < conf->functions; i++) {
		struct conf_function *f = &conf->function[i];
		char text[WHY_MAX + 2 * CONF_PATH_MAX];
		char why[WHY_MAX] = "";

		if (!conf_is_program(f) || !load(l, f, &program[i], why))
			continue;
		snprintf(text, sizeof(text), "[function %s]: program %s: %s", f->name, f->program.path, why);
		complain(arg, f->line, text);
		faults++;
	}
	return faults;
}

/* How many filters of system calls this thread has: a file of /proc's. -1: unknown. */
static int
filters(const char *path)
{
	FILE *f = fopen(path, "re");
	char text[128];
	int n = -1;

	while (f && fgets(text, sizeof(text), f))
		if (!strncmp(text, "Seccomp_filters:", 16))
			n = atoi(text + 16);
	if (f)
		fclose(f);
	return n;
}

/* Has each of its threads loaded the second one as well? */
static int
narrowed(pid_t pid)
{
	int want = filters("/proc/self/status") + 2;
	char path[320];
	struct dirent *e;
	int ok = 1;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	dir = opendir(path);
	if (!dir)
		return 0;
	while (ok && (e = readdir(dir))) {
		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/proc/%d/task/%s/status", (int)pid, e->d_name);
		ok = filters(path) >= want;
	}
	closedir(dir);
	return ok;
}

enum vfun_reason
program_ready(const struct service *s, struct vfun_program_ready *ready, long n, char text[VFUN_TEXT_MAX])
{
	ready->text[sizeof(ready->text) - 1] = ready->signature[sizeof(ready->signature) - 1] = '\0';
	if (n != (long)sizeof(*ready) || ready->magic != VFUN_PROGRAM_MAGIC) {
		snprintf(text, VFUN_TEXT_MAX, "%s doesn't say that it is ready as vfun.h wants it", s->fn->name);
		return VFUN_R_START_FAILED;
	}
	if (ready->reason) {
		plain_text(ready->text);
		snprintf(text, VFUN_TEXT_MAX, "%s", ready->text);
		return ready->reason < VFUN_R_SLOT_COMMAND ? ready->reason : VFUN_R_START_FAILED;
	}
	if (strcmp(ready->signature, s->signature)) {
		snprintf(
		    text, VFUN_TEXT_MAX, "the signature of %s isn't the one that it gave to --describe", s->fn->name);
		return VFUN_R_START_FAILED;
	}
	if (narrowed(s->pid))
		return VFUN_OK;
	snprintf(text, VFUN_TEXT_MAX, "%s would serve without its second list of system calls", s->fn->name);
	return VFUN_R_START_FAILED;
}

enum vfun_reason
program_end(const struct service *s, int status, char text[VFUN_TEXT_MAX])
{
	if (WIFEXITED(status) && WEXITSTATUS(status) == SVC_EXIT_LATE) {
		snprintf(text, VFUN_TEXT_MAX, "a call of %s took longer than %u ms (vfun.conf: call-timeout)",
		    s->fn->name, s->fn->program.limit_ms);
		return VFUN_R_LATE;
	}
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS)
		refused_sentence(s->fn->name, s->refused, text);
	else
		snprintf(text, VFUN_TEXT_MAX, "%s %s: %s %d%s%.50s", s->fn->name,
		    WIFSIGNALED(status) ? "crashed" : "ended", WIFSIGNALED(status) ? "signal" : "status",
		    WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), s->words.last[0] ? ": " : "",
		    s->words.last);
	return VFUN_R_GONE;
}
