/* SPDX-License-Identifier: MIT
 *
 * give.c - an instance's regions go from the launcher to whom they belong, and to nobody else
 *
 * The engine decides who gets a vFunction, but never holds a region: who takes it over gets into no client's memory.
 * For whom a service is started is settled by KEEP_LAUNCH: a connection on the host, a VM, or the network. KEEP_GIVE
 * then sends the regions there, however often the engine asks: to the same connection (not to another one in its slot),
 * to the VM's share, or to the net process.
 *
 * On the host datain is read only: its client gets a descriptor of its own that was opened so, and the memory's mode
 * lets no other user open it again for writing (regions.c).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../common/fd.h"
#include "launcher.h"

/* A number that no other socket ever has; 0: this is no connection of a client. */
static uint64_t
connection(const struct launcher *l, uint32_t slot)
{
	uint64_t cookie;
	int type;
	socklen_t len = sizeof(type);
	int fd = slot < KEEP_SLOTS ? l->engine.fds[slot] : -1;

	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0 || type != SOCK_SEQPACKET)
		return 0;
	len = sizeof(cookie);
	return getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &len) < 0 ? 0 : cookie;
}

int
give_settle(struct service *s, const struct keep_launch *req)
{
	s->pollable = (req->features & VFUN_FEATURE_EVENTFD) != 0;
	if (s->vm != CONF_HOST)
		return 0;
	s->conn = req->conn;
	s->cookie = connection(s->l, s->conn);
	return s->cookie ? 0 : -EINVAL;
}

static int
read_only(int fd)
{
	char path[32];
	int ro;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	ro = open(path, O_RDONLY | O_CLOEXEC);
	return ro < 0 ? -errno : ro;
}

/* The engine's words, so with its credentials. */
static int
to_host(struct service *s, const struct vfun_msg *reply)
{
	const struct launcher *l = s->l;
	const struct keep_start *e = &l->engine.start;
	const struct ucred engine = {
		.pid = getpid(), .uid = l->system_mode ? e->uid : getuid(), .gid = l->system_mode ? e->gid : getgid()
	};
	int fds[3] = { s->regions[0], -1, s->regions[2] };
	int r;

	if (connection(l, s->conn) != s->cookie)
		return -ENOTCONN;
	fds[1] = read_only(s->regions[1]);
	if (fds[1] < 0)
		return fds[1];
	r = fd_send_as(l->engine.fds[s->conn], reply, sizeof(*reply), fds, s->pollable ? 3 : 2, &engine);
	close(fds[1]);
	return r;
}

/* A share that isn't there now gets it when the engine shows its successor everything. */
static void
to_child(struct service *s, const struct keep_add *add)
{
	struct keep_msg msg = { .type = KEEP_ADD, .u.add = *add };

	(void)kept_event(s->vm < CONF_HOST ? &s->l->vm[s->vm].share : &s->l->net, &msg, s->regions, 3);
}

int
give_regions(struct launcher *l, struct keep_give *g)
{
	struct service *s = services_find(l, g->add.id);

	if (!s || s->regions[2] < 0)
		return -ESRCH;
	g->add.out_size = s->size[0];
	g->add.in_size = s->size[1];
	g->add.out_off = s->off[0];
	g->add.in_off = s->off[1];
	s->given = 1;
	if (s->vm == CONF_HOST)
		return to_host(s, &g->reply);
	to_child(s, &g->add);
	return 0;
}
