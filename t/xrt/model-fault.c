/* SPDX-License-Identifier: MIT
 *
 * model-fault.c - the test device: what goes wrong, as a file says
 *
 * A missing or an empty file: nothing. Otherwise a word, and for some a number:
 *
 *	slow MS        a run takes that much longer
 *	hang           a run never ends, until its client goes
 *	die            the process ends when a run starts, as if killed; the socket stays
 *	die-load       the same when an xclbin is loaded
 *	bad-sync       a synchronisation moves nothing, and its answer says so
 *	garbage        a synchronisation's answer can't be decoded
 *	refuse-load    an xclbin is not taken
 *	fail-alloc     no buffer is given
 *	no-write       a run ends without having written anything
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "model.h"

static const char *const words[] = {
	[FAULT_SLOW] = "slow",
	[FAULT_HANG] = "hang",
	[FAULT_DIE] = "die",
	[FAULT_DIE_LOAD] = "die-load",
	[FAULT_BAD_SYNC] = "bad-sync",
	[FAULT_GARBAGE] = "garbage",
	[FAULT_REFUSE_LOAD] = "refuse-load",
	[FAULT_FAIL_ALLOC] = "fail-alloc",
	[FAULT_NO_WRITE] = "no-write",
};

static const char *path;

void
fault_from(const char *file)
{
	path = file;
}

enum fault
fault_now(unsigned int *number)
{
	char text[64] = "", word[sizeof(text)] = "";
	int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	ssize_t n;

	*number = 0;
	if (fd < 0)
		return FAULT_NONE;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (n <= 0 || sscanf(text, "%63s %u", word, number) < 1)
		return FAULT_NONE;
	for (unsigned int i = FAULT_SLOW; i < sizeof(words) / sizeof(*words); i++) {
		if (!strcmp(word, words[i]))
			return (enum fault)i;
	}
	say("fault '%s' is unknown", word);
	return FAULT_NONE;
}
