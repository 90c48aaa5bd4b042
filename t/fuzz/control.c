/* SPDX-License-Identifier: MIT
 *
 * control.c - fuzz target: control messages to vfund's engine
 *
 * Real: the engine (engine.c, clients.c, control.c, instances.c). Played here: the launcher with its services, users of
 * the host, and VMs with their shares. The input chooses who asks what, which descriptor the engine looks at next, when
 * services get ready, fail or die, when clients and VMs go, and when engine or a share is killed, an engine also in the
 * middle of what it does.
 *
 * After each step the tables must be consistent, quotas kept, and nobody may have seen or ended what is another's. At
 * the end everything under way is delivered: then each request has had exactly one answer, and after everybody has left
 * nothing is left.
 */
#include <setjmp.h>

#include "fuzz.h"
#include "sys.h"

#include "../../roles/daemon/engine.c"
#include "../../roles/common/fd.h"
#include "../../roles/daemon/rate.h"

#define HOSTS 6
#define VMS 2
#define HANDLES 4
#define REQUESTS 128
#define SERVICES 256

/* A request and what became of it. */
struct request {
	int used;
	uint32_t vm, handle, uid, admin;
	uint64_t req;
	uint32_t sent;	  /* into the engine's present channel */
	int answers, lax; /* lax: somebody died over it, it may be answered twice */
	int again;	  /* said again by a share's successor */
	struct vfun_msg msg;
};

struct host {
	struct sys_file *sock; /* NULL: not connected */
	uint32_t uid, admin;
	uint32_t handle; /* this file's own, names the client in `request` */
};

struct guest {
	int connected;
	struct sys_file *channel; /* the engine's end; NULL: none */
	uint32_t next_handle;
	struct {
		uint32_t number; /* 0: not open */
		uint32_t uid;
	} handle[HANDLES];
	uint32_t closed[512];
	unsigned nclosed;
	uint64_t shown[SERVICES];
	unsigned nshown;
	uint64_t closing[SERVICES]; /* taken away, but files of it are still open */
	unsigned nclosing;
};

/* HELD: the launcher has its memory, and nothing else of it. */
enum service_state { NOT_THERE, STARTING, READY, DYING, HELD };

struct svc {
	enum service_state state;
	int failed_told;
	struct request owner; /* who asked for it */
	uint64_t memory;
	int place;	       /* it has a piece of the BAR */
	int given;	       /* its client may have the regions */
	uint32_t conn;	       /* on the host: the slot of its client's connection, */
	struct sys_file *sock; /* and which one that was */
	int unwanted;	       /* KEEP_FREE came while it lived */
	unsigned life;	       /* of the VM */
	int out_of_use;	       /* the share has said so, or its host client */
};

static struct {
	struct input in;
	struct host host[HOSTS];
	struct guest vm[VMS];
	struct request request[REQUESTS];
	struct svc service[SERVICES]; /* by id */
	uint64_t launched;
	struct sys_file *region; /* stands for every service's files */
	struct sys_file *events; /* the launcher's events */
	struct sys_file *control, *admin;
	struct sys_file *kept[KEEP_SLOTS];
	struct host *connecting;
	struct request *current; /* what the engine is looking at */
	uint32_t next_tag, next_handle;
	unsigned lives[VMS];	    /* how often the VM was started */
	int greedy;		    /* budgets are used up */
	int asked;		    /* the engine owes the launcher an answer */
	struct sys_file *trap;	    /* what can't be closed */
	unsigned deaths;	    /* of engines */
	uint64_t grant_owner[1024]; /* vm << 32 | handle */
	unsigned mortal;	    /* the engine dies at that many calls from now; 0: it doesn't */
	jmp_buf death;
} g;

static struct engine_state *state;

void
sys_exit(int status)
{
	(void)status;
	abort();
}

static void
mortal(void)
{
	if (g.mortal && !--g.mortal)
		longjmp(g.death, 1);
}

static void share_free(uint32_t vm, uint64_t id);

/* ---- requests ---- */

UNSEEN static struct request *
request_find(uint32_t vm, uint32_t handle, uint64_t req)
{
	for (unsigned i = 0; i < REQUESTS; i++) {
		struct request *r = &g.request[i];

		if (r->used && r->vm == vm && r->handle == handle && r->req == req)
			return r;
	}
	return NULL;
}

static struct request *
request_new(uint32_t vm, uint32_t handle, uint32_t uid, uint32_t admin, const struct vfun_msg *msg)
{
	for (unsigned i = 0; i < REQUESTS; i++) {
		struct request *r = &g.request[i];

		if (r->used)
			continue;
		*r = (struct request){
			.used = 1, .vm = vm, .handle = handle, .uid = uid, .admin = admin, .req = ++g.next_tag
		};
		r->msg = *msg;
		r->msg.tag = (uint32_t)r->req;
		return r;
	}
	return NULL;
}

static void
requests_void(uint32_t vm, uint32_t handle)
{
	for (unsigned i = 0; i < REQUESTS; i++)
		if (g.request[i].vm == vm && (!handle || g.request[i].handle == handle))
			g.request[i].used = 0;
}

/* What was never launched has no owner here: an engine died in between. */
static int
may(const struct request *r, const struct svc *s)
{
	return !s->owner.used || r->admin ||
	       (r->vm == s->owner.vm && (r->uid == s->owner.uid || (r->vm != CONF_HOST && r->uid == 0)));
}

/* A text about a function that this client may have, from the offset that it asked for. */
static void
check_part(const struct request *r, const struct vfun_part *p)
{
	const struct vfun_ask *ask = &r->msg.body.ask;
	int function = conf_function_index(&state->conf, ask->function);
	char text[CONF_ABOUT_MAX];
	uint32_t here;

	CHECK(function >= 0 && (r->admin || state->conf.vm[r->vm].functions >> function & 1),
	    "a function it mustn't have");
	conf_about(&state->conf.function[function], ask, r->admin, text);
	CHECK(p->total == strlen(text) && p->total < sizeof(text), "%u bytes", p->total);
	here = ask->offset < p->total ? p->total - ask->offset : 0;
	here = here < sizeof(p->text) ? here : sizeof(p->text);
	CHECK(!memcmp(p->text, text + (here ? ask->offset : 0), here), "the part at %u", ask->offset);
	for (uint32_t i = here; i < sizeof(p->text); i++)
		CHECK(!p->text[i], "behind its end");
}

/* The engine answers: is it what was asked, and does it tell only what this client may know? */
static void
check_reply(struct request *r, const struct vfun_msg *m, int nfds)
{
	struct svc *s = NULL;

	CHECK(r, "an answer to nobody: tag %u, type %x", m->tag, m->type);
	CHECK(!r->answers || r->lax, "type %u is answered twice", r->msg.type);
	CHECK(m->magic == VFUN_MSG_MAGIC && m->version == VFUN_VERSION && m->tag == r->msg.tag, "header");
	CHECK(memchr(m->text, 0, sizeof(m->text)), "text");
	CHECK(m->type & VFUN_MSG_REPLY, "not a reply");
	r->answers++;
	if (m->reason) {
		CHECK(!nfds, "a nack with descriptors");
		return;
	}
	CHECK(m->type == (r->msg.type | VFUN_MSG_REPLY), "type %x answers %x", m->type, r->msg.type);
	switch (r->msg.type) {
	case VFUN_MSG_NEGOTIATE:
		CHECK(m->body.grant.grant, "grant");
		CHECK(m->body.grant.out_arena >= r->msg.body.negotiate.out_arena &&
			  m->body.grant.in_arena >= r->msg.body.negotiate.in_arena &&
			  m->body.grant.slots >= r->msg.body.negotiate.slots && m->body.grant.slots <= 256,
		    "less was granted than asked for");
		CHECK(m->body.grant.bar == (r->vm == 0 ? 77 : 0), "BAR");
		g.grant_owner[m->body.grant.grant % 1024] = (uint64_t)r->vm << 32 | r->handle;
		break;
	case VFUN_MSG_ACTIVATE:
		CHECK(m->body.active.instance < SERVICES, "instance");
		s = &g.service[m->body.active.instance];
		CHECK(s->owner.vm == r->vm && s->owner.handle == r->handle, "another's instance");
		CHECK(!(m->body.active.paths & VFUN_PATH_IVSHMEM) == !s->place && !m->body.active.out_off == !s->place,
		    "place");
		CHECK(nfds == (r->vm == CONF_HOST ? 2 : 0), "%d descriptors", nfds);
		return;
	case VFUN_MSG_RELEASE:
		CHECK(r->msg.body.release.instance < SERVICES, "instance");
		CHECK(may(r, &g.service[r->msg.body.release.instance]), "another's instance is released");
		CHECK(g.service[r->msg.body.release.instance].state == NOT_THERE ||
			  g.service[r->msg.body.release.instance].state == DYING ||
			  g.service[r->msg.body.release.instance].state == HELD,
		    "released, but still there");
		break;
	case VFUN_MSG_STATUS:
		CHECK(m->body.instance.instance < SERVICES, "instance");
		CHECK(may(r, &g.service[m->body.instance.instance]), "another's instance is shown");
		break;
	case VFUN_MSG_SIGNATURE:
		check_part(r, &m->body.part);
		break;
	case VFUN_MSG_INFO:
		CHECK(
		    m->body.info.admin == r->admin && (r->vm == CONF_HOST || (!m->body.info.pid && !m->body.info.vms)),
		    "info");
		break;
	}
	CHECK(!nfds, "descriptors");
}

/* Unasked: an instance of this connection has ended. */
static void
check_gone(const struct host *h, const struct vfun_msg *m, int nfds)
{
	uint64_t id = m->body.release.instance;

	CHECK(!m->tag && m->reason && !nfds, "GONE");
	CHECK(id < SERVICES && g.service[id].owner.vm == CONF_HOST && g.service[id].owner.handle == h->handle,
	    "another's instance has ended");
	CHECK(g.service[id].state == HELD, "it lives");
}

/* The share says IM_FREE: at once for what it doesn't know, otherwise when the input lets it. */
static void
taken_away(uint32_t vm, uint64_t id)
{
	struct guest *v = &g.vm[vm];

	for (unsigned i = 0; i < v->nclosing; i++)
		if (v->closing[i] == id)
			return;
	for (unsigned i = 0; i < v->nshown; i++)
		if (v->shown[i] == id) {
			v->shown[i] = v->shown[--v->nshown];
			v->closing[v->nclosing++] = id;
			return;
		}
	share_free(vm, id);
}

/* To a share. */
static void
check_imsg(uint32_t vm, const struct imsg *im, int nfds)
{
	switch (im->type) {
	case IM_REPLY:
		/* A share has answered for itself what went with an engine. */
		if (g.deaths && !request_find(vm, im->handle, im->req))
			break;
		check_reply(request_find(vm, im->handle, im->req), &im->msg, nfds);
		break;
	case IM_DEL:
		taken_away(vm, im->instance);
		break;
	default:
		CHECK(0, "type %u to a share", im->type);
	}
}

int
sys_sent(struct sys_file *f, const void *msg, size_t len, struct sys_file **files, int n)
{
	struct host *h = f->owner;

	(void)files;
	mortal();
	if (h >= g.host && h < g.host + HOSTS) {
		struct request *r = request_find(CONF_HOST, h->handle, ((const struct vfun_msg *)msg)->tag);

		CHECK(len == sizeof(struct vfun_msg), "%zu bytes", len);
		if (((const struct vfun_msg *)msg)->type == (VFUN_MSG_GONE | VFUN_MSG_REPLY))
			check_gone(h, msg, n);
		else
			check_reply(r, msg, n);
	} else {
		uint32_t vm = (uint32_t)((struct guest *)f->owner - g.vm);

		CHECK(vm < VMS && len == sizeof(struct imsg), "%zu bytes", len);
		if (g.vm[vm].channel == f)
			check_imsg(vm, msg, n);
	}
	mortal();
	return 0;
}

/* ---- the launcher ---- */

static void
event(const struct keep_msg *msg, struct sys_file *file)
{
	sys_push(g.events, msg, sizeof(*msg), &file, file ? 1 : 0);
}

static void
engine_ask(void)
{
	g.asked = 1;
	event(&(struct keep_msg){ .type = KEEP_ASK }, NULL);
}

static void
service_event(uint64_t id, uint32_t type, enum vfun_reason reason)
{
	struct keep_msg msg = { .type = type, .u.service = { .id = id, .pid = 7, .reason = (uint16_t)reason } };

	msg.u.service.held = type == KEEP_SERVICE_EXIT && g.service[id].state == HELD;
	strcpy(msg.u.service.text, "so it is");
	event(&msg, NULL);
}

static void
service_exit(uint64_t id, enum vfun_reason reason)
{
	struct svc *s = &g.service[id];

	if (s->state == STARTING && reason && !s->failed_told)
		service_event(id, KEEP_SERVICE_FAILED, VFUN_R_START_FAILED);
	s->state = s->given && !s->unwanted ? HELD : NOT_THERE;
	service_event(id, KEEP_SERVICE_EXIT, reason);
}

static int
launch(const struct keep_launch *l)
{
	const struct conf_function *f = &state->conf.function[l->function];
	uint64_t owner;

	CHECK(g.current && g.current->msg.type == VFUN_MSG_ACTIVATE, "a launch that nobody asked for");
	CHECK(l->function < state->conf.functions && l->id, "function");
	CHECK(l->slots && !(l->slots & (l->slots - 1)) && l->slots <= f->slots_max, "slots");
	CHECK(l->out_arena <= f->arena_max && l->in_arena <= f->arena_max, "arena");
	CHECK(!(l->out_arena % 4096) && !(l->in_arena % 4096) && l->spin_us <= f->spin_us, "arena, spin");
	CHECK(state->conf.vm[g.current->vm].functions >> l->function & 1, "a function this client mustn't have");
	CHECK(l->vm == g.current->vm, "another's instance");
	CHECK(l->vm != CONF_HOST || (l->conn < KEEP_SLOTS && g.kept[l->conn]), "connection");
	/* 0: an engine died before it could tell of the grant. */
	owner = g.grant_owner[g.current->msg.body.activate.grant % 1024];
	CHECK(!owner || owner == ((uint64_t)g.current->vm << 32 | g.current->handle), "another's grant");
	CHECK(
	    l->bar == KEEP_BAR_NO || (l->vm == g.current->vm && g.current->msg.body.activate.paths & VFUN_PATH_IVSHMEM),
	    "a place that nobody asked for");
	CHECK(l->bar != KEEP_BAR_MUST || l->vm == 0, "a VM without BAR");
	if (l->id >= SERVICES || in_u8(&g.in) == 0xfe)
		return l->bar == KEEP_BAR_MUST ? -ENOSPC : -ENOMEM;
	CHECK(!g.service[l->id].owner.used, "instance %llu again", (unsigned long long)l->id);
	g.service[l->id] = (struct svc){ .state = STARTING,
		.owner = *g.current,
		.place = l->bar && l->vm == 0,
		.conn = l->conn,
		.sock = l->vm == CONF_HOST ? g.kept[l->conn] : NULL,
		.life = g.current->vm == CONF_HOST ? 0 : g.lives[g.current->vm],
		.memory = vfun_region_size(l->slots, l->out_arena) + vfun_region_size(l->slots, l->in_arena) };
	g.launched = l->id;
	return 0;
}

/* May its client still read what it answered? */
UNSEEN static int
leased(const struct svc *s)
{
	const struct request *r = &s->owner;

	if (s->out_of_use)
		return 0;
	if (r->vm < VMS)
		return g.vm[r->vm].connected && g.lives[r->vm] == s->life;
	for (unsigned i = 0; i < HOSTS; i++)
		/* One that doesn't read its replies is cut off, and one that sends descriptors. */
		if (g.host[i].sock && g.host[i].handle == r->handle && !g.host[i].sock->eof && !g.host[i].sock->full &&
		    !(g.host[i].sock->head && g.host[i].sock->head->nfiles))
			return 1;
	return 0;
}

/* Its memory goes, now or with its service. */
static void
free_service(uint64_t id)
{
	struct svc *s = &g.service[id < SERVICES ? id : 0];

	/* An engine that died before it asked for the launch: the launcher ignores what it doesn't know. */
	if (id >= SERVICES || !s->owner.used || s->state == NOT_THERE)
		return;
	CHECK(!leased(s), "freed under its client");
	s->unwanted = 1;
	s->state = s->state == HELD ? NOT_THERE : DYING;
}

/* To whom it belongs, and nobody else. */
static int
give(struct keep_give *give_)
{
	uint64_t id = give_->add.id;
	struct svc *s = &g.service[id < SERVICES ? id : 0];
	struct guest *v;

	if (id >= SERVICES || (s->state != READY && s->state != DYING))
		return -ESRCH;
	s->given = 1;
	give_->add.out_off = s->place ? 4096 : 0;
	give_->add.in_off = s->place ? 8192 : 0;
	if (s->owner.vm == CONF_HOST) {
		struct sys_file *sock = g.kept[s->conn];

		if (!sock || sock != s->sock)
			return -ENOTCONN;
		return sock->full ? -EAGAIN : sys_sent(sock, &give_->reply, sizeof(give_->reply), NULL, 2);
	}
	CHECK(s->owner.uid == give_->add.uid && s->owner.handle == give_->add.handle, "another's instance is given");
	v = &g.vm[s->owner.vm];
	for (unsigned i = 0; i < v->nshown; i++)
		if (v->shown[i] == id)
			return 0;
	CHECK(v->nshown < SERVICES, "too many");
	if (v->connected)
		v->shown[v->nshown++] = id;
	return 0;
}

int
keep_rpc(struct keep *k, struct keep_msg *msg)
{
	uint64_t id = msg->u.service.id;
	int r = 0;

	(void)k;
	mortal();
	if (msg->type == KEEP_LAUNCH) {
		r = launch(&msg->u.launch);
	} else if (msg->type == KEEP_GIVE) {
		r = give(&msg->u.give);
	} else if (msg->type == KEEP_FREE) {
		free_service(id);
	} else if (msg->type == KEEP_UP) {
		g.asked = 0;
	} else {
		CHECK(msg->type == KEEP_KILL, "request %u", msg->type);
		if (g.current && g.current->msg.type == VFUN_MSG_RELEASE && g.current->msg.body.release.instance == id)
			CHECK(id < SERVICES && g.service[id].owner.used && may(g.current, &g.service[id]),
			    "another's instance is killed");
		r = id >= SERVICES || g.service[id].state == NOT_THERE || g.service[id].state == HELD ? -ESRCH : 0;
		if (!r)
			g.service[id].state = DYING;
	}
	mortal();
	return r;
}

int
keep_store(struct keep *k, uint32_t slot, int fd)
{
	mortal();
	CHECK(slot < KEEP_SLOTS && !g.kept[slot] && k->fds[slot] < 0, "slot %u", slot);
	if (in_u8(&g.in) == 0xfd)
		return -ENOMEM;
	g.kept[slot] = sys_file_get(sys_file_of(fd));
	mortal();
	k->fds[slot] = fd;
	return 0;
}

void
keep_close(struct keep *k, int fd)
{
	(void)k;
	mortal();
	sys_hand_over(fd);
	mortal();
}

int
keep_drop(struct keep *k, uint32_t slot)
{
	if (k->fds[slot] < 0)
		return 0;
	sys_close(k->fds[slot]);
	k->fds[slot] = -1;
	mortal();
	sys_file_put(g.kept[slot]);
	g.kept[slot] = NULL;
	mortal();
	return 0;
}

int
keep_event(struct keep *k, struct keep_msg *msg, int fds[3], int *nfds)
{
	long n = fd_recv(k->events, msg, sizeof(*msg), fds, 3, nfds);

	return n <= 0 ? (int)n : 1;
}

int
keep_start(struct keep *k, size_t state_size, void (*alive_fn)(const struct keep_service *))
{
	(void)k;
	(void)state_size;
	(void)alive_fn;
	abort();
}

int
sys_accept(int fd)
{
	struct host *h = g.connecting;

	(void)fd;
	if (!h) {
		errno = EAGAIN;
		return -1;
	}
	g.connecting = NULL;
	return sys_fd(h->sock);
}

int
sys_peer(int fd, void *cred, socklen_t *len)
{
	const struct host *h = sys_file_of(fd)->owner;
	struct ucred *c = cred;

	*len = sizeof(*c);
	*c = (struct ucred){ .pid = 5, .uid = h->uid, .gid = h->uid };
	return 0;
}

/* ---- rate.c: who asks too much waits, which is all the same here ---- */

int64_t
rate_ms(void)
{
	return (int64_t)sys_ms;
}

int
rate_take(uint32_t vm, uint32_t uid, unsigned cost)
{
	CHECK(vm < VMS || vm == CONF_HOST, "vm %u", vm);
	(void)uid;
	(void)cost;
	return !g.greedy;
}

int
rate_lines(void)
{
	return !g.greedy;
}

int
rate_line(uint32_t vm, uint32_t uid)
{
	CHECK(vm < VMS || vm == CONF_HOST, "vm %u", vm);
	(void)uid;
	return g.greedy ? 2 : 1;
}

/* ---- records ---- */

void
record_write(const struct instance *in)
{
	CHECK(in->state == VFUN_INSTANCE_ACTIVE, "record of what isn't active");
}

void
record_remove(const struct instance *in)
{
	CHECK(in->number, "record of nobody");
}

/* ---- life of the engine ---- */

static void
engine_start(void)
{
	memset(&engine, 0, sizeof(engine));
	engine.st = state;
	engine.keep.state = state;
	for (unsigned i = 0; i < KEEP_SLOTS; i++)
		engine.keep.fds[i] = g.kept[i] ? sys_fd(g.kept[i]) : -1;
	engine.keep.events = sys_fd(g.events);
	for (unsigned i = 0; i < CONF_VMS_MAX; i++)
		engine.share[i].fd = -1;
	for (unsigned i = 0; i < ENGINE_CONNS; i++)
		engine.conn[i].fd = -1;
	knowns = 0;
	for (uint64_t id = 1; id < SERVICES; id++)
		if (g.service[id].state != NOT_THERE)
			on_alive(&(struct keep_service){ .id = id, .held = g.service[id].state == HELD });
	engine.events = (struct loop_src){ .fd = engine.keep.events, .fn = on_event };
	CHECK(!loop_add(&engine.loop, &engine.events, EPOLLIN), "events");
	CHECK(!clients_start(), "start");
	instances_take_over(known, knowns);
}

static void share_connect(uint32_t vm, int repeat_answered);

/* Killed and replaced. */
static void
engine_replace(void)
{
	g.mortal = 0;
	g.deaths++;
	sys_died();
	while (g.events->head)
		sys_pop(g.events);
	/* What is half done may be done again: a host's request is consumed only afterwards. */
	for (unsigned i = 0; i < REQUESTS; i++)
		if (g.request[i].used && g.request[i].vm == CONF_HOST)
			g.request[i].lax = 1;
	/* Shares answer for themselves what the engine took along. */
	for (unsigned i = 0; i < REQUESTS; i++)
		if (g.request[i].vm != CONF_HOST && g.request[i].sent)
			g.request[i].used = 0;
	g.current = NULL;
	g.asked = 0;
	engine_start();
	for (uint32_t vm = 0; vm < VMS; vm++)
		if (g.vm[vm].connected)
			share_connect(vm, 0);
		else /* its predecessor may not have heard of it */
			event(&(struct keep_msg){ .type = KEEP_PEER_GONE, .u.peer.vm = vm }, NULL);
}

/* The engine looks at one descriptor. */
static void
run(struct loop_src *src)
{
	if (src && src->fd >= 0)
		src->fn(src, sys_file_of(src->fd)->eof ? EPOLLIN | EPOLLHUP : EPOLLIN);
	if (state->stopping)
		(void)instances_stop();
	g.current = NULL;
}

static struct loop_src *
source(struct sys_file *f)
{
	return f ? f->src : NULL;
}

/* ---- clients on the host ---- */

static int
host_alive(const struct host *h)
{
	return h->sock && h->sock->refs > 1;
}

static void
host_forget(struct host *h)
{
	requests_void(CONF_HOST, h->handle);
	sys_file_put(h->sock);
	memset(h, 0, sizeof(*h));
}

/* The engine may have cut somebody off. */
static void
hosts_check(void)
{
	for (unsigned i = 0; i < HOSTS; i++)
		if (g.host[i].sock && !host_alive(&g.host[i]))
			host_forget(&g.host[i]);
}

static void
host_connect(struct host *h, uint8_t how)
{
	if (h->sock)
		return;
	*h = (struct host){ .uid = how & 1   ? 1000
				   : how & 2 ? 1001
					     : 0,
		.admin = how >> 2 & 1,
		.handle = ++g.next_handle };
	h->sock = sys_file_new(SYS_SOCKET, 0);
	h->sock->owner = h;
	h->sock->outside = 1;
	g.connecting = h;
	run(h->admin ? &engine.admin : &engine.control);
	g.connecting = NULL;
	clients_resume();
}

/* The connection that activated it releases it. */
static void
let_go_of(const struct request *r)
{
	uint64_t id = r->msg.body.release.instance;

	if (id < SERVICES && g.service[id].owner.vm == CONF_HOST && g.service[id].owner.handle == r->handle)
		g.service[id].out_of_use = 1;
}

static void
host_run(struct host *h)
{
	if (!h->sock)
		return;
	if (h->sock->head && h->sock->head->len == sizeof(struct vfun_msg))
		g.current = request_find(
		    CONF_HOST, h->handle, ((const struct vfun_msg *)(const void *)h->sock->head->bytes)->tag);
	if (g.current && g.current->msg.type == VFUN_MSG_RELEASE)
		let_go_of(g.current);
	run(source(h->sock));
}

/* ---- VMs ---- */

static void
share_say(uint32_t vm, const struct imsg *im)
{
	if (g.vm[vm].channel)
		sys_push(g.vm[vm].channel, im, sizeof(*im), NULL, 0);
}

static void
share_free(uint32_t vm, uint64_t id)
{
	if (id < SERVICES)
		g.service[id].out_of_use = 1;
	share_say(vm, &(struct imsg){ .type = IM_FREE, .instance = id });
}

/* The last files of what was taken away first are closed. */
static void
files_close(uint32_t vm)
{
	struct guest *v = &g.vm[vm];
	uint64_t id = v->closing[0];

	if (!v->nclosing)
		return;
	v->nclosing--;
	memmove(v->closing, v->closing + 1, v->nclosing * sizeof(v->closing[0]));
	share_free(vm, id);
}

static void
share_request(struct request *r)
{
	struct imsg im = {
		.type = IM_REQUEST, .handle = r->handle, .req = r->req, .uid = r->uid, .gid = r->uid, .msg = r->msg
	};

	if (!g.vm[r->vm].channel)
		return;
	r->sent = 1;
	share_say(r->vm, &im);
}

/* A new channel: the launcher tells both; the share says at once what this engine hasn't been told. */
static void
share_connect(uint32_t vm, int repeat_answered)
{
	struct guest *v = &g.vm[vm];
	struct keep_msg msg = { .type = KEEP_PEER, .u.peer = { .vm = vm, .pid = 9, .bar = vm == 0 ? 77 : 0 } };

	if (v->channel) {
		v->channel->eof = 1;
		v->channel->owner = v;
		sys_file_put(v->channel);
	}
	v->channel = sys_file_new(SYS_SOCKET, 0);
	v->channel->owner = v;
	v->channel->outside = 1;
	event(&msg, v->channel);
	for (unsigned i = 0; i < REQUESTS; i++) {
		struct request *r = &g.request[i];

		if (!r->used || r->vm != vm || (r->answers && !repeat_answered))
			continue;
		r->answers = 0;
		r->again = r->lax = 1;
		share_request(r);
	}
	for (unsigned i = 0; i < v->nclosed; i++)
		share_say(vm, &(struct imsg){ .type = IM_CLOSED, .handle = v->closed[i] });
}

static void
vm_start(uint32_t vm)
{
	struct guest *v = &g.vm[vm];

	if (v->connected)
		return;
	memset(v, 0, sizeof(*v));
	v->connected = 1;
	g.lives[vm]++;
	share_connect(vm, 0);
}

static void
vm_gone(uint32_t vm)
{
	struct guest *v = &g.vm[vm];
	struct keep_msg msg = { .type = KEEP_PEER_GONE, .u.peer.vm = vm };

	if (!v->connected)
		return;
	requests_void(vm, 0);
	v->channel->eof = 1;
	sys_file_put(v->channel);
	memset(v, 0, sizeof(*v));
	event(&msg, NULL);
}

static void
handle_open(uint32_t vm, unsigned i, uint32_t uid)
{
	struct guest *v = &g.vm[vm];

	if (!v->connected || v->handle[i].number)
		return;
	v->handle[i].number = ++v->next_handle;
	v->handle[i].uid = uid;
}

static void
handle_close(uint32_t vm, unsigned i)
{
	struct guest *v = &g.vm[vm];
	uint32_t number = v->handle[i].number;

	/* A guest's kernel closes a file when nothing is under way in it. */
	for (unsigned k = 0; number && k < REQUESTS; k++)
		if (g.request[k].used && g.request[k].vm == vm && g.request[k].handle == number &&
		    !g.request[k].answers)
			return;
	if (!number || v->nclosed == 512)
		return;
	requests_void(vm, number);
	v->handle[i].number = 0;
	v->closed[v->nclosed++] = number;
	share_say(vm, &(struct imsg){ .type = IM_CLOSED, .handle = number });
	for (uint64_t id = 1; id < SERVICES; id++)
		if (g.service[id].owner.used && g.service[id].owner.vm == vm && g.service[id].owner.handle == number)
			share_say(vm, &(struct imsg){ .type = IM_LEASE_END, .instance = id });
}

static void
share_run(uint32_t vm)
{
	struct guest *v = &g.vm[vm];
	const struct imsg *im;

	if (!v->channel)
		return;
	if (v->channel->head && source(v->channel)) {
		im = (const void *)v->channel->head->bytes;
		if (im->type == IM_REQUEST)
			g.current = request_find(vm, im->handle, im->req);
	}
	run(source(v->channel));
}

/* A share that was taken over, and goes at once. */
static void
share_trap(uint32_t vm)
{
	const struct imsg im = { .type = IM_CLOSED };

	if (!g.vm[vm].channel || state->no_rights)
		return;
	sys_push(g.vm[vm].channel, &im, sizeof(im), &g.trap, 1);
	share_run(vm);
	vm_gone(vm);
}

/* ---- what the input says ---- */

static void
message(struct vfun_msg *m)
{
	static const char *const names[] = { "factorial", "sha256", "zstd", "nothing" };
	uint8_t shape = in_u8(&g.in);
	struct vfun_negotiate *n = &m->body.negotiate;

	memset(m, 0, sizeof(*m));
	m->magic = VFUN_MSG_MAGIC;
	m->version = VFUN_VERSION;
	m->type = shape & 7;
	if (m->type == 7) {
		in_bytes(&g.in, m, in_u8(&g.in));
		return;
	}
	if (!m->type)
		m->type = VFUN_MSG_SIGNATURE;
	switch (m->type) {
	case VFUN_MSG_SIGNATURE:
		strcpy(m->body.ask.function, names[shape >> 3 & 3]);
		m->body.ask.what = shape >> 5 & 3;
		m->body.ask.offset = shape & 0x80 ? in_u8(&g.in) * 0x01010101u : in_u8(&g.in);
		break;
	case VFUN_MSG_NEGOTIATE:
		strcpy(n->function, names[shape >> 3 & 3]);
		n->version_min = n->version_max = VFUN_VERSION;
		n->slots = in_u8(&g.in);
		n->out_arena = in_small(&g.in) * 1024;
		n->in_arena = in_small(&g.in) * 1024;
		if (shape & 0x80)
			in_bytes(&g.in, (uint8_t *)n + in_u8(&g.in) % (sizeof(*n) - 8), 8);
		break;
	case VFUN_MSG_ACTIVATE:
		m->body.activate.grant = shape & 0x80 ? in_small(&g.in) : state->next_grant - (shape >> 3);
		break;
	case VFUN_MSG_RELEASE:
		m->body.release.instance = shape & 0x80 ? in_small(&g.in) : state->next_instance - (shape >> 3);
		break;
	default:
		m->body.query.position = in_small(&g.in);
	}
}

static void
ask(uint8_t who)
{
	struct vfun_msg m;
	struct request *r;
	struct host *h;
	uint32_t vm = who & 1;
	unsigned i = who >> 1 & 3;

	message(&m);
	if (who & 0x80) {
		h = &g.host[(who & 0x7f) % HOSTS];
		r = h->sock ? request_new(CONF_HOST, h->handle, h->uid, h->admin, &m) : NULL;
		if (r)
			sys_push(h->sock, &r->msg, sizeof(r->msg), &g.trap, !state->no_rights && who & 0x20 ? 1 : 0);
		if (r && !(who & 0x40))
			host_run(h);
		return;
	}
	if (!g.vm[vm].connected || !g.vm[vm].handle[i].number)
		return;
	/* Into the BAR, if there is room, or by all means. */
	if (m.type == VFUN_MSG_ACTIVATE)
		m.body.activate.paths |= (who & 0x10 ? VFUN_PATH_IVSHMEM : 0) | (who & 0x20 ? VFUN_PATH_COPY : 0);
	/* Any process of the VM may ask through an inherited file. */
	r = request_new(vm, g.vm[vm].handle[i].number, who & 8 ? 1002 : g.vm[vm].handle[i].uid, 0, &m);
	if (r)
		share_request(r);
	if (!(who & 0x40))
		share_run(vm);
}

static void
service_step(uint8_t how)
{
	uint64_t id = g.launched - (how >> 4);
	struct svc *s = &g.service[id < SERVICES ? id : 0];

	if (id >= SERVICES || s->state == NOT_THERE || s->state == HELD)
		return;
	if (s->state == DYING) {
		service_exit(id, VFUN_OK);
		return;
	}
	switch (how & 3) {
	case 0:
	case 1:
		if (s->state != STARTING || s->failed_told)
			break;
		s->state = READY;
		service_event(id, KEEP_SERVICE_READY, VFUN_OK);
		break;
	case 2:
		if (s->state == STARTING) {
			s->failed_told = 1;
			service_event(id, KEEP_SERVICE_FAILED, VFUN_R_TIMEOUT);
			s->state = DYING;
			break;
		}
		/* fallthrough */
	case 3:
		service_exit(id, VFUN_R_GONE);
		break;
	}
}

/* A message that isn't one, from the host. */
static void
garbage(struct host *h)
{
	uint8_t bytes[300] = { 0 };
	unsigned len = 1 + in_u8(&g.in);
	struct request *r;
	struct vfun_msg m = { 0 };

	if (!h->sock || len == sizeof(m) || request_find(CONF_HOST, h->handle, 0))
		return;
	r = request_new(CONF_HOST, h->handle, h->uid, h->admin, &m);
	if (!r)
		return;
	r->req = 0;
	r->msg.tag = 0;
	sys_push(h->sock, bytes, len, NULL, 0);
}

static void
step(void)
{
	uint8_t what = in_u8(&g.in);
	uint8_t arg = in_u8(&g.in);

	switch (what % 16) {
	case 0:
	case 1:
	case 2:
		ask(arg);
		break;
	case 3:
		host_connect(&g.host[arg % HOSTS], arg >> 4);
		break;
	case 4:
		if (g.host[arg % HOSTS].sock) {
			requests_void(CONF_HOST, g.host[arg % HOSTS].handle);
			g.host[arg % HOSTS].sock->eof = 1;
			while (host_alive(&g.host[arg % HOSTS]) && source(g.host[arg % HOSTS].sock)) {
				while (g.host[arg % HOSTS].sock->head)
					sys_pop(g.host[arg % HOSTS].sock);
				host_run(&g.host[arg % HOSTS]);
			}
		}
		break;
	case 5:
		host_run(&g.host[arg % HOSTS]);
		break;
	case 6:
		share_run(arg % VMS);
		break;
	case 7:
	case 8:
		run(&engine.events);
		break;
	case 9:
		service_step(arg);
		break;
	case 10:
		vm_start(arg % VMS);
		run(&engine.events);
		break;
	case 11:
		if (arg & 0x80)
			handle_close(arg % VMS, arg >> 1 & 3);
		else
			handle_open(arg % VMS, arg >> 1 & 3, arg & 8 ? 1000 : arg & 16 ? 1001 : 0);
		break;
	case 12: /* a share is killed: requests whose answers it had may be repeated */
		if (g.vm[arg % VMS].connected)
			share_connect(arg % VMS, arg >> 7);
		else
			vm_start(arg % VMS);
		break;
	case 13:
		if (arg & 0x80)
			engine_replace();
		else
			g.mortal = 1 + (arg & 0x3f);
		break;
	case 14:
		if (arg & 0x80)
			garbage(&g.host[arg % HOSTS]);
		else if (arg & 0x20)
			share_trap(arg % VMS);
		else if (g.host[arg % HOSTS].sock)
			g.host[arg % HOSTS].sock->full = arg >> 6 & 1;
		break;
	case 15:
		if (arg & 0x80)
			vm_gone(arg % VMS);
		else if (arg & 0x40 && arg < 0x7e)
			g.greedy = arg & 1;
		else if (arg == 0x7e)
			engine_ask();
		else if (arg == 0x7f)
			event(&(struct keep_msg){ .type = KEEP_STOP }, NULL);
		else
			files_close(arg % VMS);
		break;
	}
}

/* ---- what must hold ---- */

UNSEEN static int
handle_known(const struct asker *who)
{
	/* An engine that died over it is told again. */
	if (who->vm != CONF_HOST)
		return state->vm[who->vm].connected || g.events->head;
	for (unsigned i = 0; i < ENGINE_CONNS; i++)
		if (state->conn[i].number == who->handle)
			return 1;
	return 0;
}

UNSEEN static void
check_instances(void)
{
	unsigned ordinary = 0, all = 0;

	for (unsigned i = 0; i < ENGINE_INSTANCES; i++) {
		const struct instance *in = &state->instance[i];
		unsigned same = 0;
		uint64_t memory = 0;

		if (!in->number)
			continue;
		all++;
		ordinary += in->who.vm == CONF_HOST && in->who.uid && !in->who.admin;
		CHECK(in->state >= VFUN_INSTANCE_STARTING && in->state <= VFUN_INSTANCE_ENDING, "state %u", in->state);
		CHECK(in->function < state->conf.functions && in->who.vm <= CONF_VMS_MAX, "function, VM");
		CHECK(in->state == VFUN_INSTANCE_ENDING || handle_known(&in->who), "instance without owner");
		CHECK(in->number < SERVICES && g.service[in->number].owner.vm == in->who.vm, "owner");
		for (unsigned k = 0; k < ENGINE_INSTANCES; k++) {
			const struct instance *o = &state->instance[k];

			CHECK(k == i || o->number != in->number, "the same instance twice");
			if (!o->number || o->who.vm != in->who.vm ||
			    (o->who.vm == CONF_HOST && o->who.uid != in->who.uid))
				continue;
			same++;
			memory += o->out_size + o->in_size;
		}
		CHECK(same <= state->conf.vm[in->who.vm].instances, "%u instances", same);
		CHECK(memory <= state->conf.vm[in->who.vm].memory, "memory");
	}
	CHECK(all <= state->conf.instances, "%u instances", all);
	CHECK(ordinary <= state->conf.vm[CONF_HOST].total_instances, "%u instances of users", ordinary);
}

UNSEEN static void
check_grants(void)
{
	for (unsigned i = 0; i < ENGINE_GRANTS; i++) {
		const struct grant *n = &state->grant[i];
		unsigned each = 0;

		if (!n->number)
			continue;
		CHECK(handle_known(&n->who), "grant of nobody");
		for (unsigned k = 0; k < ENGINE_GRANTS; k++)
			each += state->grant[k].number && state->grant[k].who.vm == n->who.vm &&
				state->grant[k].who.handle == n->who.handle;
		CHECK(each <= ENGINE_GRANTS_EACH, "%u grants", each);
		CHECK(n->since <= rate_ms(), "a grant of tomorrow");
	}
}

/* Descriptors: connections, channels, listening sockets, events. */
UNSEEN static void
check_descriptors(void)
{
	unsigned want = 3 + engine.waiters;

	for (unsigned i = 0; i < ENGINE_CONNS; i++) {
		want += state->conn[i].number != 0;
		CHECK(!state->conn[i].number == (engine.conn[i].fd < 0), "connection %u", i);
	}
	for (unsigned i = 0; i < CONF_VMS_MAX; i++)
		want += engine.share[i].fd >= 0;
	CHECK(sys_fds() == want, "%u descriptors instead of %u", sys_fds(), want);
}

static void
check_all(void)
{
	hosts_check();
	check_instances();
	check_grants();
	check_descriptors();
}

/* Everything under way arrives. */
UNSEEN static void
settle(void)
{
	int more;

	g.mortal = 0;
	g.greedy = 0;
	sys_ms += 1000;
	do {
		more = clients_timeout() == 0;
		clients_resume();
		while (g.events->head) {
			run(&engine.events);
			more = 1;
		}
		for (unsigned i = 0; i < HOSTS; i++)
			while (
			    g.host[i].sock && (g.host[i].sock->head || g.host[i].sock->eof) && source(g.host[i].sock)) {
				host_run(&g.host[i]);
				hosts_check();
				more = 1;
			}
		for (uint32_t vm = 0; vm < VMS; vm++)
			for (; g.vm[vm].nclosing; more = 1)
				files_close(vm);
		for (uint32_t vm = 0; vm < VMS; vm++)
			while (g.vm[vm].channel && g.vm[vm].channel->head) {
				CHECK(source(g.vm[vm].channel), "a share that the engine doesn't listen to");
				share_run(vm);
				more = 1;
			}
		for (uint64_t id = 1; id < SERVICES; id++) {
			struct svc *s = &g.service[id];

			if (s->state == DYING) {
				service_exit(id, VFUN_OK);
				more = 1;
			} else if (s->state == STARTING) {
				s->state = READY;
				service_event(id, KEEP_SERVICE_READY, VFUN_OK);
				more = 1;
			}
		}
	} while (more);
	check_all();
	CHECK(!g.asked, "the engine owes an answer");
	for (unsigned i = 0; i < REQUESTS; i++) {
		const struct request *r = &g.request[i];

		CHECK(!r->used || r->answers, "a request of type %u of vm %u handle %u was never answered", r->msg.type,
		    r->vm, r->handle);
	}
}

UNSEEN static void
leave(void)
{
	for (unsigned i = 0; i < HOSTS; i++)
		if (g.host[i].sock) {
			requests_void(CONF_HOST, g.host[i].handle);
			g.host[i].sock->eof = 1;
		}
	for (uint32_t vm = 0; vm < VMS; vm++)
		vm_gone(vm);
	settle();
	for (unsigned i = 0; i < ENGINE_INSTANCES; i++)
		CHECK(!state->instance[i].number, "an instance is left");
	for (unsigned i = 0; i < ENGINE_GRANTS; i++)
		CHECK(!state->grant[i].number, "a grant is left");
	for (unsigned i = 0; i < ENGINE_CONNS; i++)
		CHECK(!state->conn[i].number, "a connection is left");
	for (uint64_t id = 1; id < SERVICES; id++)
		CHECK(g.service[id].state == NOT_THERE, "a service is left, or its memory");
}

static void
set_up(void)
{
	struct conf *c = &state->conf;

	memset(state, 0, sizeof(*state));
	c->functions = 3;
	for (unsigned i = 0; i < 3; i++) {
		static const char *const names[] = { "factorial", "sha256", "zstd" };

		c->function[i] = (struct conf_function){
			.backend = "software", .spin_us = 50, .arena_max = 64 << 10, .slots_max = 64, .timeout_ms = 1
		};
		strcpy(c->function[i].name, names[i]);
		memset(c->function[i].signature, 'a' + (int)i, i ? VFUN_SIGNATURE_MAX - i : 5);
	}
	c->vms = VMS;
	for (unsigned i = 0; i <= CONF_VMS_MAX; i++)
		c->vm[i] = (struct conf_vm){
			.functions = i == 1 ? 3 : 7, .memory = 256 << 10, .instances = 4, .window = 2 << 20
		};
	c->vm[0].ivshmem = 128 << 10;
	strcpy(c->vm[0].name, "a");
	strcpy(c->vm[1].name, "b");
	strcpy(c->vm[CONF_HOST].name, "host");
	c->vm[CONF_HOST].total_instances = 5;
	c->vm[CONF_HOST].total_memory = 384 << 10;
	c->memory = 512 << 10;
	c->instances = 7;
	g.events = sys_file_new(SYS_SOCKET, 0);
	g.region = sys_file_new(SYS_MEMORY, 0);
	g.trap = sys_file_new(SYS_MEMORY, 0);
	g.trap->waits = 1;
	g.kept[SLOT_CONTROL] = sys_file_new(SYS_SOCKET, 0);
	g.kept[SLOT_ADMIN] = sys_file_new(SYS_SOCKET, 0);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	memset(&g, 0, sizeof(g));
	if (!state)
		state = malloc(sizeof(*state));
	CHECK(state, "memory");
	g.in = (struct input){ data, size };
	sys_start();
	set_up();
	/* By the last byte, so that the others mean what they did before there was this. */
	state->no_rights = size && data[size - 1] == 0xff;
	engine_start();
	while (g.in.left) {
		if (setjmp(g.death))
			engine_replace();
		else
			step();
		check_all();
	}
	settle();
	leave();
	for (unsigned i = 0; i < KEEP_SLOTS; i++)
		if (g.kept[i])
			sys_file_put(g.kept[i]);
	sys_file_put(g.events);
	sys_file_put(g.region);
	sys_file_put(g.trap);
	sys_end();
	return 0;
}
