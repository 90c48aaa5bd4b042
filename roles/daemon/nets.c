/* SPDX-License-Identifier: MIT
 *
 * nets.c - the launcher's side of the network: keys, the listening socket, and the one process that reads from it
 *
 * The keys are read here, since only their owner may read them; they go into the net process's state and to nobody
 * else. The launcher never accepts a connection and reads nothing that comes from one.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../common/fd.h"
#include "../common/log.h"
#include "../common/netd.h"
#include "launcher.h"

/* A peer that is gone without a word is noticed after about a minute. */
#define PROBE_AFTER_S 30
#define PROBE_EVERY_S 10
#define PROBES 3
#define UNACKED_MS 60000

int
nets_check(const struct conf *conf, conf_complain *complain, void *arg)
{
	int faults = 0;

	for (unsigned i = 0; conf->listen[0] && i < conf->nets; i++) {
		const struct conf_vm *client = &conf->vm[CONF_NET + i];
		struct net_key key;
		const char *fault = net_key_read(&key, client->key_file);
		char text[CONF_PATH_MAX + 200];

		if (!fault && strcmp(key.client, client->name))
			fault = "holds the key of another name";
		explicit_bzero(&key, sizeof(key));
		if (!fault)
			continue;
		snprintf(text, sizeof(text), "[net-client %s]: key-file %s: %s", client->name, client->key_file, fault);
		complain(arg, client->line, text);
		faults++;
	}
	return faults;
}

static int
set_option(int fd, int level, int option, int value)
{
	return setsockopt(fd, level, option, &value, sizeof(value));
}

static int
listen_on(const char *address)
{
	struct sockaddr_storage sa;
	socklen_t len;
	int fd = -1;

	if (net_address(address, &sa, &len) == 0)
		fd = socket(sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd >= 0 && set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1) == 0 &&
	    set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1) == 0 &&
	    set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, PROBE_AFTER_S) == 0 &&
	    set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, PROBE_EVERY_S) == 0 &&
	    set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, PROBES) == 0 &&
	    set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, UNACKED_MS) == 0 &&
	    set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1) == 0 && bind(fd, (struct sockaddr *)&sa, len) == 0 &&
	    listen(fd, 64) == 0)
		return fd;
	log_err("can't listen on %s: %s", address, strerror(errno));
	if (fd >= 0)
		close(fd);
	return -1;
}

/* The state that the process starts with. */
static int
write_state(const struct kept *k, const struct conf *conf)
{
	static struct netd_state st;
	int bad = 0;

	st.clients = conf->nets;
	st.connections = conf->net_connections;
	st.idle_ms = conf->net_idle * 1000;
	for (unsigned i = 0; !bad && i < conf->nets; i++) {
		const struct conf_vm *client = &conf->vm[CONF_NET + i];

		bad =
		    net_key_read(&st.client[i].key, client->key_file) || strcmp(st.client[i].key.client, client->name);
		if (bad)
			log_err("[net-client %s]: %s has changed while vfund started", client->name, client->key_file);
		st.client[i].connections = client->connections;
	}
	if (!bad && pwrite(k->state, &st, sizeof(st), 0) != (ssize_t)sizeof(st)) {
		log_err("the net process's state can't be written: %s", strerror(errno));
		bad = 1;
	}
	explicit_bzero(&st, sizeof(st));
	return bad ? -EIO : 0;
}

/* A new channel between the engine and the net process. */
static void
introduce(struct launcher *l)
{
	struct keep_msg msg = { .type = KEEP_PEER, .u.peer = { .vm = CONF_NET, .pid = (uint32_t)l->net.pid } };
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0) {
		log_err("the net process has no channel to the engine: %s", strerror(errno));
		return;
	}
	(void)fd_no_rights(pair[1]);
	if (kept_event(&l->net, &msg, &pair[0], 1) == 0)
		(void)kept_event(&l->engine, &msg, &pair[1], 1);
	closer_put(l, pair[0], &l->net);
	closer_put(l, pair[1], &l->net);
}

static void
started(struct kept *net)
{
	introduce(net->l);
}

static void
ended(struct kept *net)
{
	struct keep_msg msg = { .type = KEEP_PEER_GONE, .u.peer = { .vm = CONF_NET } };

	log_err("the net process is gone: nobody is served at %s", net->l->conf->listen);
	(void)kept_event(&net->l->engine, &msg, NULL, 0);
}

int
nets_prepare(struct launcher *l)
{
	struct kept *k = &l->net;
	int r;

	k->state = -1;
	if (!l->conf->listen[0])
		return 0;
	r = kept_init(k);
	if (r) {
		log_err("the net process's state: %s", strerror(-r));
		return r;
	}
	k->l = l;
	k->role = "vfun-net";
	k->name = "net";
	k->client = CONF_NET;
	k->started = started;
	k->ended = ended;
	k->start.verbose = (uint32_t)l->verbose;
	k->start.optional = l->conf->optional;
	k->start.uid = k->start.gid = l->system_mode ? l->conf->uid_base + UID_NET : 0;
	k->fds[NETD_LISTEN] = listen_on(l->conf->listen);
	if (k->fds[NETD_LISTEN] < 0)
		return -EADDRNOTAVAIL;
	return write_state(k, l->conf);
}

int
nets_start(struct launcher *l)
{
	return l->net.state < 0 ? 0 : kept_start(&l->net);
}

void
nets_introduce(struct launcher *l)
{
	struct keep_msg gone = { .type = KEEP_PEER_GONE, .u.peer = { .vm = CONF_NET } };

	if (l->net.state >= 0 && l->net.pid)
		introduce(l);
	else if (l->net.state < 0)
		(void)kept_event(&l->engine, &gone, NULL, 0);
}

void
nets_end(struct launcher *l)
{
	kept_end(&l->net);
}
