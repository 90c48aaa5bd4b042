/* SPDX-License-Identifier: MIT
 *
 * rules.c - what a child may ask of the launcher: who, which slot, which descriptor
 *
 * One table for all requests of keep.h. A child that was taken over may ask for anything; what isn't in the table is
 * refused before anything is done. What the launcher put into a slot itself (a listening socket, a folder, the
 * connection of a QEMU) is in no range that may be stored to or dropped, so that it also is what a successor finds.
 *
 * On the other channels: imsg.h's messages carry no descriptors towards the engine; a service sends its regions once,
 * and rules_regions() says what they must be; the watcher (virtd.h) sends none, and vfun-hold (hold.h) says nothing.
 * fd_recv() refuses more than that.
 *
 * A descriptor's type is what the kernel calls it: fstat() would ask whoever serves a file, and may wait for it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../common/slots.h"
#include "launcher.h"

#define EVENTFD "anon_inode:[eventfd]"

enum who { ENGINE = 1, SHARE = 2, NET = 4 };

/* What must be attached. ANYTHING: it is only closed. */
enum kind { NOTHING, ANYTHING, CONNECTION, STREAM, EVENT, MEMORY, MEMORY_OR_EVENT };

static const struct rule {
	uint32_t type;
	unsigned who;
	uint32_t first, end; /* slots; none: 0, 0 */
	enum kind kind;
} rules[] = {
	{ KEEP_STORE, ENGINE, SLOT_CONNS, SLOT_CONNS + ENGINE_CONNS, CONNECTION },
	{ KEEP_DROP, ENGINE, SLOT_CONNS, SLOT_CONNS + ENGINE_CONNS, NOTHING },
	{ KEEP_STORE, SHARE, SLOT_BACK, SLOT_BACK + 1, STREAM },
	{ KEEP_STORE, SHARE, SLOT_KICK, SLOT_REGION, EVENT },
	{ KEEP_STORE, SHARE, SLOT_REGION, SLOT_INSTANCE, MEMORY },
	{ KEEP_STORE, SHARE, SLOT_INSTANCE, SLOT_END, MEMORY_OR_EVENT },
	{ KEEP_DROP, SHARE, SLOT_BACK, SLOT_END, NOTHING },
	{ KEEP_COMMIT, SHARE, SLOT_FRONT, SLOT_BACK + 1, NOTHING },
	{ KEEP_CLOSE, ENGINE | SHARE, 0, 0, ANYTHING },
	{ KEEP_UP, ENGINE | SHARE | NET, 0, 0, NOTHING },
	{ KEEP_LAUNCH, ENGINE, 0, 0, NOTHING },
	{ KEEP_KILL, ENGINE, 0, 0, NOTHING },
	{ KEEP_GIVE, ENGINE, 0, 0, NOTHING },
	{ KEEP_FREE, ENGINE, 0, 0, NOTHING },
	{ KEEP_RELOAD, ENGINE, 0, 0, NOTHING },
};

static int
is_socket(int fd, int type)
{
	int domain, is;
	socklen_t len = sizeof(is);

	if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) < 0 || domain != AF_UNIX)
		return 0;
	len = sizeof(is);
	return getsockopt(fd, SOL_SOCKET, SO_TYPE, &is, &len) == 0 && is == type;
}

/* What /proc calls it: a file by its path, which begins with '/', other things by their kind. */
static int
is_called(int fd, const char *name, size_t len)
{
	char path[32], target[32];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, target, sizeof(target));
	return n >= (ssize_t)len && !memcmp(target, name, len);
}

static int
is_event(int fd)
{
	return is_called(fd, EVENTFD, sizeof(EVENTFD) - 1);
}

/* Guest memory may lie in a file of any file system. */
static int
is_memory(int fd)
{
	return fcntl(fd, F_GET_SEALS) >= 0 || is_called(fd, "/", 1);
}

static int
fits(enum kind kind, const int *fds, int nfds)
{
	if (nfds != (kind != NOTHING))
		return 0;
	switch (kind) {
	case NOTHING:
	case ANYTHING:
		return 1;
	case CONNECTION:
		return is_socket(fds[0], SOCK_SEQPACKET);
	case STREAM:
		return is_socket(fds[0], SOCK_STREAM);
	case EVENT:
		return is_event(fds[0]);
	case MEMORY:
		return is_memory(fds[0]);
	case MEMORY_OR_EVENT:
		return is_memory(fds[0]) || is_event(fds[0]);
	}
	return 0;
}

static unsigned
who_is(const struct kept *k)
{
	return k == &k->l->engine ? ENGINE : k == &k->l->net ? NET : SHARE;
}

int
rules_check(const struct kept *k, const struct keep_msg *msg, const int *fds, int nfds)
{
	for (unsigned i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
		const struct rule *r = &rules[i];

		if (r->type != msg->type || !(r->who & who_is(k)) ||
		    (r->end && (msg->slot < r->first || msg->slot >= r->end)))
			continue;
		/* What goes along with a commit are an instance's regions, for the DAX window. */
		if (msg->type == KEEP_COMMIT && msg->with &&
		    (msg->with - 1 < SLOT_INSTANCE || msg->with - 1 >= SLOT_END))
			return -EPERM;
		return fits(r->kind, fds, nfds) ? 0 : -EPERM;
	}
	return -EPERM;
}

int
rules_regions(const int fds[3])
{
	return fcntl(fds[0], F_GET_SEALS) >= 0 && fcntl(fds[1], F_GET_SEALS) >= 0 && is_event(fds[2]) ? 0 : -EPERM;
}
