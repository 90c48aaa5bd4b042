/* SPDX-License-Identifier: MIT
 *
 * kept.c - fuzz target: what a child that was taken over asks of the launcher
 *
 * Real: kept.c, rules.c, and the kernel's descriptors. Played here: the child, which is the engine, a share or the net
 * process, and what closes descriptors. The input chooses who asks for what, and sends which descriptors along.
 *
 * After each request: what is kept is of the type that belongs there, what the launcher put into a slot itself is still
 * there, and nothing was written to any socket but a share's two. At the end each descriptor that came was closed once.
 */
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "fuzz.h"

#include "../../roles/common/slots.h"
#include "../../roles/daemon/kept.c"

enum { EVENT, MEMORY, PLAIN, FOLDER, PACKETS, STREAM, DATAGRAMS, TCP, PIPE, EPOLL, THINGS };

static struct launcher l;
static int thing[THINGS];
static int heard; /* the other end of PACKETS, DATAGRAMS: nobody may write there */
static int heard_too;

/* ---- the rest of the launcher ---- */

void
closer_put(struct launcher *launcher, int fd, const struct kept *k)
{
	(void)launcher;
	(void)k;
	if (fd < 0)
		return;
	CHECK(close(fd) == 0, "descriptor %d is closed twice", fd);
}

unsigned
closer_pending(const struct launcher *launcher, const struct kept *k)
{
	(void)launcher;
	(void)k;
	return 0;
}

void
closer_left(struct launcher *launcher, pid_t pid)
{
	(void)launcher;
	(void)pid;
}

int64_t
launcher_ms(void)
{
	return 1;
}

pid_t
launcher_spawn(struct launcher *launcher, const char *const argv[], const int *fds, int nfds, int *pidfd)
{
	(void)launcher;
	(void)argv;
	(void)fds;
	(void)nfds;
	(void)pidfd;
	abort();
}

int
launcher_collect(pid_t pid, int pidfd, int *status)
{
	(void)pid;
	(void)pidfd;
	(void)status;
	abort();
}

static int
request(struct kept *k, struct keep_msg *msg)
{
	CHECK(k == &l.engine && msg->type >= KEEP_LAUNCH && msg->type != KEEP_UP && msg->type != KEEP_CLOSE,
	    "request %u isn't this child's", msg->type);
	return -ESRCH;
}

/* ---- the child ---- */

static void
make_things(void)
{
	int pair[2];

	thing[EVENT] = eventfd(0, 0);
	thing[MEMORY] = memfd_create("m", 0);
	thing[PLAIN] = open("/proc/self/exe", O_RDONLY);
	thing[FOLDER] = open("/", O_RDONLY | O_DIRECTORY);
	thing[TCP] = socket(AF_INET, SOCK_STREAM, 0);
	thing[EPOLL] = epoll_create1(0);
	CHECK(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair), "a pair");
	thing[PACKETS] = pair[0];
	heard = pair[1];
	CHECK(!socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, pair), "a pair");
	thing[DATAGRAMS] = pair[0];
	heard_too = pair[1];
	CHECK(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), "a pair");
	thing[STREAM] = pair[0];
	CHECK(!pipe2(pair, O_NONBLOCK), "a pipe");
	thing[PIPE] = pair[0];
}

/* Where which of them may be. */
static int
belongs(const struct kept *k, uint32_t slot, int what)
{
	if (k == &l.engine)
		return slot >= SLOT_CONNS && slot < SLOT_CONNS + ENGINE_CONNS && what == PACKETS;
	if (k == &l.net || slot == SLOT_FRONT || slot >= SLOT_END)
		return 0;
	if (slot == SLOT_BACK)
		return what == STREAM;
	if (slot < SLOT_REGION)
		return what == EVENT;
	return what == MEMORY || what == PLAIN || what == FOLDER || (slot >= SLOT_INSTANCE && what == EVENT);
}

static void
ask(struct kept *k, struct input *in, int sock)
{
	uint8_t shape = in_u8(in);
	uint8_t what = in_u8(in);
	struct keep_msg msg = { .type = shape & 31, .slot = in_u8(in) };
	int nfds = shape >> 5 & 3;
	int fds[4] = { thing[what % THINGS], thing[(what >> 4) % THINGS], thing[EVENT], thing[EVENT] };
	int first = k->fds[0];
	char byte;
	int r;

	msg.slot |= (uint32_t)(in_u8(in) & 7) << 8;
	msg.with = in_u8(in) * 8u;
	msg.consume = in_u8(in) & 3;
	msg.len = in_u8(in);
	if (shape & 0x80)
		nfds++;
	CHECK(!fd_send(sock, &msg, sizeof(msg), fds, nfds), "sending");
	r = serve_one(k);
	if (r < 0) {
		fd_skip(k->rpc.fd);
		CHECK(nfds > 3, "a request of %d descriptors ends the child: %d", nfds, r);
		return;
	}
	CHECK(fd_recv(sock, &msg, sizeof(msg), NULL, 0, NULL) == (long)sizeof(msg), "no answer");
	if (msg.type == KEEP_STORE)
		CHECK((msg.err == 0) == (nfds == 1 && belongs(k, msg.slot, what % THINGS)), "slot %u takes %d, err %d",
		    msg.slot, what % THINGS, msg.err);
	CHECK(k->fds[0] == first && fcntl(first, F_GETFD) >= 0, "what the launcher put there");
	CHECK(recv(heard, &byte, 1, 0) < 0 && recv(heard_too, &byte, 1, 0) < 0, "the launcher spoke to somebody");
}

static void
begin(struct kept *k, int sock[2])
{
	CHECK(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, sock), "a pair");
	k->l = &l;
	k->rpc.fd = sock[0];
	k->request = k == &l.engine ? request : NULL;
	k->commits = 0;
	for (int i = 0; i < KEEP_SLOTS; i++)
		k->fds[i] = -1;
	k->fds[0] = fcntl(thing[STREAM], F_DUPFD, 3);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct kept *const children[] = { &l.engine, &l.vm[0].share, &l.net };
	struct input in = { data, size };
	struct kept *k = children[in_u8(&in) % 3];
	int sock[2];
	int before, after;

	if (!thing[TCP])
		make_things();
	before = fcntl(thing[EVENT], F_DUPFD, 3);
	close(before);
	begin(k, sock);
	while (in.left)
		ask(k, &in, sock[1]);
	for (int i = 0; i < KEEP_SLOTS; i++)
		put_away(k, &k->fds[i]);
	close(sock[0]);
	close(sock[1]);
	after = fcntl(thing[EVENT], F_DUPFD, 3);
	close(after);
	CHECK(after == before, "a descriptor is left, or one too many was closed");
	return 0;
}
