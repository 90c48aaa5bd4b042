/* SPDX-License-Identifier: MIT
 *
 * remote.c - how control messages of net clients reach the engine: one channel to the net process
 *
 * The net process knows who is at the other end of a connection, because it has seen the proof; here each of them is a
 * client like a VM, with its own quotas, and a connection is to it what a control handle is to a share, and the lease
 * of what was activated by it.
 *
 * Either side may be replaced. A new net process has no connections, so everything that the old one's clients had is
 * over; it is recognised by its pid. A new engine is told again which connections have ended lately, and asks again for
 * what it holds.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "../common/fd.h"
#include "../common/log.h"
#include "engine.h"
#include "rate.h"

static void
all_over(void)
{
	for (uint32_t i = CONF_NET; i < CONF_NET + engine.st->conf.nets; i++) {
		grants_drop(i, 0);
		instances_of_vm_over(i);
	}
}

static void
channel_closed(void)
{
	if (engine.net.fd < 0)
		return;
	loop_del(&engine.loop, &engine.net);
	clients_discard(engine.net.fd);
	engine.net.fd = -1;
}

static void
on_net(struct loop_src *src, uint32_t events)
{
	struct imsg im;
	struct asker who;
	long n;

	/* The net process has a budget for each client; this one is for all of it, in case it is no longer itself. */
	if (!(events & EPOLLHUP) && !rate_take(CONF_NET, 0, 1)) {
		clients_pause(src);
		return;
	}
	n = fd_recv(src->fd, &im, sizeof(im), NULL, 0, NULL);
	if (n == -EAGAIN)
		return;
	if (n != (long)sizeof(im)) {
		channel_closed();
		return;
	}
	who = (struct asker){ .vm = im.client, .handle = im.handle, .req = im.req, .tag = im.msg.tag };
	if (im.client < CONF_NET || im.client >= CONF_NET + engine.st->conf.nets || !im.handle) {
		if (rate_lines())
			log_warn("the net process speaks for client %u, which there isn't", im.client);
	} else if (im.type == IM_REQUEST) {
		control_message(&who, &im.msg);
	} else if (im.type == IM_CLOSED) {
		grants_drop(im.client, im.handle);
		instances_of_handle_over(im.client, im.handle);
	} else if (im.type == IM_FREE) {
		instance_free(im.client, im.instance);
	} else {
		if (rate_lines())
			log_warn("the net process sent a message of type %u", im.type);
	}
}

void
remote_channel(int fd, uint32_t pid)
{
	channel_closed();
	if (engine.st->net_pid != pid)
		all_over();
	engine.st->net_pid = pid;
	engine.net = (struct loop_src){ .fd = fd, .fn = on_net };
	if (loop_add(&engine.loop, &engine.net, EPOLLIN)) {
		clients_discard(fd);
		engine.net.fd = -1;
		return;
	}
	for (uint32_t i = CONF_NET; i < CONF_NET + engine.st->conf.nets; i++)
		instances_hide(i);
}

void
remote_gone(void)
{
	channel_closed();
	engine.st->net_pid = 0;
	all_over();
}
