/* SPDX-License-Identifier: MIT
 *
 * process.c - what the kernel says of a service's process: which one it is, its memory, what it has read and written
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../roles.h"
#include "bench.h"

pid_t
process_of(const struct bench *b, const struct endpoint *e)
{
	int fd = b->in_guest ? -1 : vfun_control_open(b->run, 1);
	struct vfun_msg msg = { .type = VFUN_MSG_STATUS };
	pid_t pid = 0;

	while (fd >= 0 && !pid && !vfun_control(fd, &msg, 0) && !msg.reason) {
		struct vfun_instance_info i = msg.body.instance;

		if (i.instance == vfun_activated(e->v)->instance)
			pid = (pid_t)i.pid;
		msg = (struct vfun_msg){ .type = VFUN_MSG_STATUS };
		msg.body.query.position = i.next;
	}
	if (fd >= 0)
		close(fd);
	return pid;
}

double
process_sum(pid_t pid, const char *file, const char *key)
{
	char path[64];
	char line[256];
	double sum = -1;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, file);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, key, strlen(key)))
			sum = (sum < 0 ? 0 : sum) + strtod(line + strcspn(line, "0123456789"), NULL);
	if (f)
		fclose(f);
	return sum;
}

/* Whatever was resident at the most, without what is mapped of files and memfds: that is resident still. */
double
process_private_peak(pid_t pid)
{
	double peak = process_sum(pid, "status", "VmHWM");
	double shared = process_sum(pid, "status", "RssShmem") + process_sum(pid, "status", "RssFile");

	return peak < 0 ? -1 : peak > shared ? (peak - shared) * 1024 : 0;
}

double
process_moved(pid_t pid)
{
	double in = process_sum(pid, "io", "rchar");

	return in < 0 ? -1 : in + process_sum(pid, "io", "wchar");
}
