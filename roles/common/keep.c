/* SPDX-License-Identifier: MIT
 *
 * keep.c - the child's side of keep.h
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fd.h"
#include "keep.h"
#include "log.h"

static int
start_state(struct keep *k, const struct keep_msg *msg, int fd, size_t state_size)
{
	void *p;

	if (state_size > msg->u.start.state_size)
		return -EPROTO;
	p = mmap(NULL, state_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		return -errno;
	k->start = msg->u.start;
	k->start.name[sizeof(k->start.name) - 1] = '\0';
	k->state = p;
	return 0;
}

int
keep_start(struct keep *k, size_t state_size, void (*alive)(const struct keep_service *))
{
	memset(k, 0, sizeof(*k));
	k->rpc = KEEP_FD_RPC;
	k->events = KEEP_FD_EVENTS;
	for (int i = 0; i < KEEP_SLOTS; i++)
		k->fds[i] = -1;
	for (;;) {
		struct keep_msg msg;
		int fds[3] = { -1, -1, -1 };
		int nfds;
		int r = keep_event(k, &msg, fds, &nfds);

		if (r <= 0)
			return r ? r : -EPIPE;
		switch (msg.type) {
		case KEEP_START:
			r = nfds == 1 ? start_state(k, &msg, fds[0], state_size) : -EPROTO;
			break;
		case KEEP_FD:
			r = nfds == 1 && msg.slot < KEEP_SLOTS ? 0 : -EPROTO;
			if (!r) {
				k->fds[msg.slot] = fds[0];
				nfds = 0;
			}
			break;
		case KEEP_SERVICE_ALIVE:
			r = alive ? 0 : -EPROTO;
			if (alive)
				alive(&msg.u.service);
			break;
		case KEEP_GO:
			k->commits = msg.commits;
			/* From here on events are read when epoll says so. */
			if (fcntl(k->events, F_SETFL, O_NONBLOCK) < 0)
				return -errno;
			return k->state ? 0 : -EPROTO;
		default:
			r = -EPROTO;
		}
		for (int i = 0; i < nfds; i++)
			close(fds[i]);
		if (r < 0)
			return r;
	}
}

int
keep_rpc(struct keep *k, struct keep_msg *msg)
{
	uint32_t type = msg->type;
	long n;
	int r = fd_send(k->rpc, msg, sizeof(*msg), NULL, 0);

	if (r)
		return r;
	n = fd_recv(k->rpc, msg, sizeof(*msg), NULL, 0, NULL);
	if (n < 0)
		return (int)n;
	if (n != (long)sizeof(*msg) || msg->type != type)
		return -EPROTO;
	return msg->err;
}

int
keep_store(struct keep *k, uint32_t slot, int fd)
{
	struct keep_msg msg = { .type = KEEP_STORE, .slot = slot };
	long n;
	int r;

	if (slot >= KEEP_SLOTS)
		return -EINVAL;
	r = fd_send(k->rpc, &msg, sizeof(msg), &fd, 1);
	if (r)
		return r;
	n = fd_recv(k->rpc, &msg, sizeof(msg), NULL, 0, NULL);
	if (n != (long)sizeof(msg))
		return n < 0 ? (int)n : -EPROTO;
	if (msg.err)
		return msg.err;
	if (k->fds[slot] >= 0 && k->fds[slot] != fd)
		close(k->fds[slot]);
	k->fds[slot] = fd;
	return 0;
}

int
keep_drop(struct keep *k, uint32_t slot)
{
	struct keep_msg msg = { .type = KEEP_DROP, .slot = slot };

	if (slot >= KEEP_SLOTS || k->fds[slot] < 0)
		return 0;
	close(k->fds[slot]);
	k->fds[slot] = -1;
	return keep_rpc(k, &msg);
}

void
keep_close(struct keep *k, int fd)
{
	struct keep_msg msg = { .type = KEEP_CLOSE };

	/* Without a launcher this process ends, and that closes it. */
	if (fd_send(k->rpc, &msg, sizeof(msg), &fd, 1))
		return;
	close(fd);
	(void)fd_recv(k->rpc, &msg, sizeof(msg), NULL, 0, NULL);
}

int
keep_commit(struct keep *k, uint32_t slot, uint32_t consume, const void *data, uint32_t len, int with)
{
	struct keep_msg msg = {
		.type = KEEP_COMMIT, .slot = slot, .consume = consume, .len = len, .with = (uint32_t)(with + 1)
	};
	int r;

	if (len > KEEP_DATA_MAX)
		return -EMSGSIZE;
	if (len)
		memcpy(msg.u.data, data, len);
	r = keep_rpc(k, &msg);
	k->commits = msg.commits;
	return r;
}

int
keep_event(struct keep *k, struct keep_msg *msg, int fds[3], int *nfds)
{
	long n = fd_recv(k->events, msg, sizeof(*msg), fds, 3, nfds);

	if (n <= 0)
		return (int)n;
	if (n != (long)sizeof(*msg)) {
		for (int i = 0; i < *nfds; i++)
			close(fds[i]);
		log_err("a message of %ld bytes from the launcher instead of %zu", n, sizeof(*msg));
		return -EPROTO;
	}
	return 1;
}
