/* SPDX-License-Identifier: MIT
 *
 * instances.c - the engine's instances, from ACTIVATE to the last trace (state machine: engine.h)
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "../common/log.h"
#include "engine.h"
#include "rate.h"

#define FOR_EACH(in)                                                                                                   \
	for (struct instance *in = engine.st->instance; in < engine.st->instance + ENGINE_INSTANCES; in++)             \
		if (in->number)

struct instance *
instance_find(uint64_t number)
{
	FOR_EACH(in)
	if (in->number == number)
		return in;
	return NULL;
}

/* The same user of the same VM (or host). */
int
instance_same_owner(const struct instance *in, const struct asker *who)
{
	return in->who.vm == who->vm && in->who.uid == who->uid;
}

/* Root of a VM is that VM's administrator, within it. */
int
instance_visible(const struct instance *in, const struct asker *who)
{
	return who->admin || instance_same_owner(in, who) ||
	       (who->vm != CONF_HOST && in->who.vm == who->vm && who->uid == 0);
}

void
instance_folder(const struct instance *in, char folder[VFUN_FOLDER_MAX])
{
	snprintf(folder, VFUN_FOLDER_MAX, "%s.%llu", engine.st->conf.function[in->function].name,
	    (unsigned long long)in->number);
}

static void
forget(struct instance *in)
{
	memset(in, 0, sizeof(*in));
}

static void say(const struct instance *in, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* A line of log that clients can cause as often as they like: so many a minute, and then no more. */
static void
say(const struct instance *in, const char *fmt, ...)
{
	int may = rate_line(in->who.vm, in->who.account);
	char client[VFUN_NAME_MAX];
	char text[256];
	va_list ap;

	if (!may)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	clients_name(&in->who, client);
	log_info("instance %llu of %s (%s) %s", (unsigned long long)in->number, client,
	    engine.st->conf.function[in->function].name, text);
	if (may > 1)
		log_warn("%s has caused %d lines within a minute: no more of it for now", client, RATE_LINES);
}

/* What is held now, for quotas. */
struct held {
	unsigned instances;
	uint64_t memory;
};

static void
add(struct held *h, const struct instance *in)
{
	h->instances++;
	h->memory += in->out_size + in->in_size;
}

/* A user of the host who is none of those that have everything. */
static int
is_ordinary(const struct asker *who)
{
	return who->vm == CONF_HOST && who->uid && !who->admin;
}

static void
usage_of(const struct asker *who, struct held *client, struct held *host, struct held *all)
{
	*client = *host = *all = (struct held){ 0 };
	FOR_EACH(in)
	{
		add(all, in);
		if (is_ordinary(&in->who))
			add(host, in);
		if (in->who.vm == who->vm && (who->vm != CONF_HOST || in->who.account == who->account))
			add(client, in);
	}
}

static uint64_t
least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

uint64_t
instances_memory_max(const struct asker *who)
{
	const struct conf *conf = &engine.st->conf;
	const struct conf_vm *quota = &conf->vm[who->vm];

	return least(quota->memory, is_ordinary(who) ? least(quota->total_memory, conf->memory) : conf->memory);
}

static uint64_t
room(uint64_t limit, uint64_t held)
{
	return limit > held ? limit - held : 0;
}

void
instances_left(const struct asker *who, uint32_t *instances, uint64_t *memory)
{
	const struct conf *conf = &engine.st->conf;
	const struct conf_vm *quota = &conf->vm[who->vm];
	struct held client, host, all;

	usage_of(who, &client, &host, &all);
	*instances = (uint32_t)least(room(quota->instances, client.instances), room(conf->instances, all.instances));
	*memory = least(room(quota->memory, client.memory), room(conf->memory, all.memory));
	if (is_ordinary(who)) {
		*instances = (uint32_t)least(*instances, room(quota->total_instances, host.instances));
		*memory = least(*memory, room(quota->total_memory, host.memory));
	}
}

/* NULL, or what there isn't enough of. */
static const char *
lacking(const struct asker *who, uint64_t size)
{
	const struct conf *conf = &engine.st->conf;
	const struct conf_vm *quota = &conf->vm[who->vm];
	struct held client, host, all;

	usage_of(who, &client, &host, &all);
	if (client.instances >= quota->instances)
		return "this client has as many instances as vfun.conf allows";
	if (client.memory + size > quota->memory)
		return "this client's memory quota in vfun.conf is used up";
	if (all.instances >= conf->instances || all.instances >= ENGINE_INSTANCES)
		return "vfund has as many instances as vfun.conf allows";
	if (all.memory + size > conf->memory)
		return "vfund's memory limit in vfun.conf is reached";
	if (is_ordinary(who) && host.instances >= quota->total_instances)
		return "the users of this host have as many instances as vfun.conf allows them together";
	if (is_ordinary(who) && host.memory + size > quota->total_memory)
		return "the users of this host have used up the memory that vfun.conf allows them together";
	return NULL;
}

static uint64_t
now_s(void)
{
	return (uint64_t)time(NULL);
}

static struct instance *
new_instance(const struct asker *who, const struct grant *g)
{
	struct engine_state *st = engine.st;
	struct instance *in = st->instance;
	uint64_t session = 0;

	while (in->number)
		in++; /* lacking() made sure that there is one */
	/* Before the pool is initialised, early in boot, the clock must do: a session only tells restarts apart. */
	if (getrandom(&session, sizeof(session), GRND_NONBLOCK) != (ssize_t)sizeof(session))
		session = now_s() * 1000003u + st->next_instance;
	*in = (struct instance){ .state = VFUN_INSTANCE_STARTING,
		.function = g->function,
		.who = *who,
		.session = session,
		.out_size = vfun_region_size(g->slots, g->out_arena),
		.in_size = vfun_region_size(g->slots, g->in_arena),
		.since = now_s(),
		.slots = g->slots,
		.target = g->target,
		.features = g->features };
	if (who->vm == CONF_HOST)
		clients_name(who, in->client);
	else
		snprintf(in->client, sizeof(in->client), "%s", st->conf.vm[who->vm].id);
	in->number = ++st->next_instance;
	return in;
}

/* Who asks for ivshmem and nothing else gets that or nothing: can it ever? */
static int
never_fits(const struct asker *who, enum keep_bar bar, uint64_t size)
{
	return bar == KEEP_BAR_MUST &&
	       (!engine.st->vm[who->vm].bar || size + VFUN_PAGE > engine.st->conf.vm[who->vm].ivshmem);
}

static enum keep_bar
wants_bar(const struct asker *who, uint32_t paths)
{
	if (who->vm >= CONF_HOST || !(paths & VFUN_PATH_IVSHMEM))
		return KEEP_BAR_NO;
	return paths == VFUN_PATH_IVSHMEM ? KEEP_BAR_MUST : KEEP_BAR_TRY;
}

static void
not_started(const struct asker *who, int err)
{
	if (err == -ENOSPC)
		control_nack(who, VFUN_MSG_ACTIVATE, VFUN_R_NO_RESOURCE, "this VM's ivshmem memory has no room left");
	else if (err == -ESTALE)
		control_nack(
		    who, VFUN_MSG_ACTIVATE, VFUN_R_LOST, "vfun.conf was read again meanwhile: negotiate again");
	else if (err == -ECANCELED)
		control_nack(who, VFUN_MSG_ACTIVATE, VFUN_R_CRASHING,
		    "the function's program has crashed too often within a minute: see vfund's log");
	else
		control_nack(
		    who, VFUN_MSG_ACTIVATE, VFUN_R_NO_RESOURCE, "the service can't be started: %s", strerror(-err));
}

void
instance_activate(const struct asker *who, struct grant *g, uint32_t paths)
{
	struct keep_msg msg = { .type = KEEP_LAUNCH };
	uint64_t size = vfun_region_size(g->slots, g->out_arena) + vfun_region_size(g->slots, g->in_arena);
	enum keep_bar bar = wants_bar(who, paths);
	const char *lack = lacking(who, size);
	struct instance *in;
	int r;

	if (lack) {
		control_nack(who, VFUN_MSG_ACTIVATE, VFUN_R_NO_RESOURCE, "%s", lack);
		return;
	}
	if (never_fits(who, bar, size)) {
		control_nack(who, VFUN_MSG_ACTIVATE, VFUN_R_TOO_LARGE,
		    "this VM's ivshmem memory can't hold %llu bytes: see vfun.conf(5)", (unsigned long long)size);
		return;
	}
	in = new_instance(who, g);
	msg.u.launch = (struct keep_launch){ .id = in->number,
		.session = in->session,
		.out_arena = g->out_arena,
		.in_arena = g->in_arena,
		.slots = g->slots,
		.spin_us = g->spin_us,
		.function = g->function,
		.vm = who->vm,
		.conn = clients_slot(who),
		.bar = bar,
		.version = g->version,
		.target = g->target,
		.features = g->features };
	clients_name(who, msg.u.launch.client);
	g->number = 0; /* a grant is good for one ACTIVATE */
	r = keep_rpc(&engine.keep, &msg);
	if (r) {
		not_started(who, r);
		forget(in);
	}
}

/* Where it is hardware that isn't there, and software could take its place, the client is told. */
static void
refuse(struct instance *in, enum vfun_reason reason, const char *text)
{
	const struct conf_function *f = &engine.st->conf.function[in->function];
	uint16_t flags = in->target == VFUN_TARGET_HARDWARE && f->fallback[0] ? VFUN_F_SOFTWARE_OK : 0;

	control_nack_flags(&in->who, VFUN_MSG_ACTIVATE, reason, flags, "%.*s", VFUN_TEXT_MAX - 1, text);
	in->answered = 1;
}

/* The launcher gives the regions to whom they belong. On the host that is the reply to ACTIVATE. */
static int
give(const struct instance *in, struct keep_give *g)
{
	struct keep_msg msg = { .type = KEEP_GIVE, .u.give = *g };
	int r;

	msg.u.give.add.id = in->number;
	msg.u.give.add.handle = in->who.handle;
	msg.u.give.add.uid = in->who.uid;
	msg.u.give.add.gid = in->who.gid;
	instance_folder(in, msg.u.give.add.folder);
	r = keep_rpc(&engine.keep, &msg);
	*g = msg.u.give;
	return r;
}

static uint32_t
paths_of(const struct instance *in, uint64_t place)
{
	if (in->who.vm >= CONF_HOST)
		return in->who.vm == CONF_HOST ? VFUN_PATH_HOST : VFUN_PATH_NET;
	if (place)
		return VFUN_PATH_COPY | VFUN_PATH_IVSHMEM;
	return VFUN_PATH_COPY | (engine.st->vm[in->who.vm].dax ? VFUN_PATH_DAX : 0);
}

static void
fill_reply(const struct instance *in, struct vfun_msg *m)
{
	control_reply_init(m, &in->who, VFUN_MSG_ACTIVATE, VFUN_OK);
	m->body.active = (struct vfun_active){ .instance = in->number,
		.session = in->session,
		.out_size = in->out_size,
		.in_size = in->in_size,
		.paths = in->paths };
	instance_folder(in, m->body.active.folder);
}

/* Hand an active instance to its owner. */
static void
ack_activate(struct instance *in)
{
	struct keep_give g = { .reply.type = 0 };
	int r;

	in->paths = paths_of(in, 0);
	fill_reply(in, &g.reply);
	r = give(in, &g);
	if (r == -ESRCH) {
		refuse(in, VFUN_R_START_FAILED, "the regions are gone");
		instance_release(in, NULL);
		return;
	}
	in->answered = 1;
	if (in->who.vm != CONF_HOST) {
		in->paths = paths_of(in, g.add.out_off);
		fill_reply(in, &g.reply);
		g.reply.body.active.out_off = g.add.out_off;
		g.reply.body.active.in_off = g.add.in_off;
		clients_reply(&in->who, &g.reply);
	} else if (r) {
		clients_cut_off(&in->who);
	}
}

int
instance_repeated(const struct asker *who)
{
	if (who->vm == CONF_HOST)
		return 0;
	FOR_EACH(in)
	{
		if (in->held || in->who.vm != who->vm || in->who.handle != who->handle || in->who.req != who->req)
			continue;
		in->who.tag = who->tag;
		if (in->state == VFUN_INSTANCE_ACTIVE)
			ack_activate(in);
		else
			in->answered = 0; /* by whatever becomes of it */
		return 1;
	}
	return 0;
}

static int
same_request(const struct asker *a, const struct asker *b)
{
	return a->vm == b->vm && a->handle == b->handle && a->req == b->req;
}

static void
ack_release(const struct asker *waiter)
{
	struct vfun_msg m;

	control_reply_init(&m, waiter, VFUN_MSG_RELEASE, VFUN_OK);
	clients_reply(waiter, &m);
}

/* To the share, or the net process: the service has ended. It says IM_FREE when nobody reads its answers any more. */
static void
hide(const struct instance *in)
{
	struct imsg im = { .type = IM_DEL, .instance = in->number, .handle = in->unclaimed ? 0 : in->who.handle };

	clients_to_share(in->who.vm, &im);
}

/* The last trace. */
static void
end(struct instance *in)
{
	struct keep_msg msg = { .type = KEEP_FREE, .u.service.id = in->number };

	if (in->held)
		(void)keep_rpc(&engine.keep, &msg);
	forget(in);
}

/* End the service; if nobody reads its answers any more, its memory goes with it. */
static void
end_service(struct instance *in)
{
	struct keep_msg msg = { .type = in->over ? KEEP_FREE : KEEP_KILL, .u.service.id = in->number };

	if (in->state == VFUN_INSTANCE_ENDING && !in->over)
		return;
	in->state = VFUN_INSTANCE_ENDING;
	/* Not there any more: its exit has been told, or is on its way. */
	(void)keep_rpc(&engine.keep, &msg);
}

/* Nobody is there any more who could read its answers, or be answered. */
static void
lease_over(struct instance *in)
{
	in->over = 1;
	if (in->held)
		end(in);
	else
		end_service(in);
}

/* Does the one who asks for its release let go of it thereby? A net client gets every answer in any case. */
static void
let_go(struct instance *in, const struct asker *who)
{
	if (in->who.vm != who->vm || in->who.handle != who->handle)
		return;
	if (who->vm == CONF_HOST)
		in->over = 1;
	else if (who->vm < CONF_HOST)
		in->unclaimed = 1;
}

static void
release_held(struct instance *in)
{
	if (in->over)
		end(in);
	else if (in->unclaimed)
		hide(in);
}

void
instance_release(struct instance *in, const struct asker *waiter)
{
	if (waiter)
		let_go(in, waiter);
	if (in->held) {
		release_held(in);
		if (waiter)
			ack_release(waiter);
		return;
	}
	if (waiter && in->waiter.handle && !same_request(waiter, &in->waiter))
		ack_release(waiter); /* it is ending already, for somebody else */
	else if (waiter)
		in->waiter = *waiter;
	end_service(in);
}

/* Is there somebody who may still read what the service answered? */
static int
leased(const struct instance *in)
{
	const struct engine_state *st = engine.st;

	if (in->over)
		return 0;
	return in->who.vm == CONF_HOST || (in->who.vm >= CONF_NET ? st->net_pid : st->vm[in->who.vm].connected);
}

/* To a client that sleeps in poll(2) and didn't ask for the end itself. */
static void
tell_holder(const struct instance *in, enum vfun_reason reason)
{
	struct asker who = in->who;
	struct vfun_msg m;

	if (!(in->features & VFUN_FEATURE_EVENTFD) || in->who.vm != CONF_HOST)
		return;
	who.tag = 0;
	control_reply_init(&m, &who, VFUN_MSG_GONE, reason ? reason : VFUN_R_GONE);
	m.body.release.instance = in->number;
	strcpy(m.text, in->why);
	clients_reply(&who, &m);
}

/* The service is gone; `held`: the launcher has its answers. */
static void
ended(struct instance *in, enum vfun_reason reason, const char *text, int held)
{
	struct engine_state *st = engine.st;

	record_remove(in);
	if (!in->answered)
		refuse(in, VFUN_R_START_FAILED, "it was ended while starting");
	say(in, "%s%s", reason ? "lost: " : "released", reason ? text : "");
	in->state = VFUN_INSTANCE_ENDING;
	in->held = (uint32_t)held;
	snprintf(in->why, sizeof(in->why), "%s", reason ? text : "it was released");
	if (in->waiter.handle) {
		st->released[st->released_at++ % 64] = in->waiter;
		ack_release(&in->waiter);
		in->waiter.handle = 0;
	}
	if (in->who.vm != CONF_HOST)
		hide(in);
	if (!held || !leased(in))
		end(in);
	else
		tell_holder(in, reason); /* last: one that doesn't read is cut off, and lets go thereby */
}

void
instances_event(const struct keep_msg *msg)
{
	const struct keep_service *s = &msg->u.service;
	struct instance *in = instance_find(s->id);

	if (!in)
		return; /* released before this was told */
	switch (msg->type) {
	case KEEP_SERVICE_READY:
		if (in->state != VFUN_INSTANCE_STARTING)
			break;
		in->pid = s->pid;
		in->state = VFUN_INSTANCE_ACTIVE;
		record_write(in);
		say(in, "active, pid %u, %llu bytes%.*s", in->pid, (unsigned long long)(in->out_size + in->in_size),
		    (int)sizeof(s->text) - 1, s->text);
		ack_activate(in);
		break;
	case KEEP_SERVICE_FAILED:
		if (!in->answered)
			refuse(in, s->reason, s->text);
		in->state = VFUN_INSTANCE_ENDING;
		break;
	case KEEP_SERVICE_EXIT:
		ended(in, s->reason, s->text, s->held != 0);
		break;
	}
}

void
instance_lease_over(uint32_t vm, uint64_t number)
{
	struct instance *in = instance_find(number);

	if (in && in->who.vm == vm && !in->held) {
		instance_release(in, NULL);
	} else {
		/* The share missed that it is gone: tell it again. */
		struct imsg im = { .type = IM_DEL, .instance = number };

		clients_to_share(vm, &im);
	}
}

void
instance_free(uint32_t vm, uint64_t number)
{
	struct instance *in = instance_find(number);

	if (in && in->who.vm == vm && in->held)
		end(in);
}

void
instances_of_handle_over(uint32_t vm, uint32_t handle)
{
	FOR_EACH(in)
	if (in->who.vm == vm && in->who.handle == handle)
		lease_over(in);
}

void
instances_of_vm_over(uint32_t vm)
{
	FOR_EACH(in)
	if (in->who.vm == vm) {
		/* Nobody is there to be answered, and the VM's next life uses the same numbers. */
		in->answered = 1;
		in->who.handle = 0;
		if (in->waiter.vm == vm)
			in->waiter.handle = 0;
		lease_over(in);
	}
}

void
instances_hide(uint32_t vm)
{
	FOR_EACH(in)
	if (in->who.vm == vm && in->held)
		hide(in);
}

void
instances_show(uint32_t vm)
{
	FOR_EACH(in)
	{
		struct keep_give g = { .reply.type = 0 };

		if (in->who.vm == vm && in->state == VFUN_INSTANCE_ACTIVE)
			(void)give(in, &g);
	}
}

/* What the launcher knows of service `number`, or NULL. */
static const struct keep_service *
known_as(const struct keep_service *known, unsigned n, uint64_t number)
{
	for (unsigned i = 0; i < n; i++)
		if (known[i].id == number)
			return &known[i];
	return NULL;
}

/* A service of which the old engine had not seen the last. An activation under way is given up, since the service may
 * have got ready unseen: the client is told to ask again. */
static void
take_over(struct instance *in, const struct keep_service *s)
{
	int lives = s && !s->held;

	/* On the host the reply may come twice, and the client tells by the tag; a share has given up on it. */
	if (in->state == VFUN_INSTANCE_ACTIVE && !in->answered && lives) {
		if (in->who.vm == CONF_HOST)
			ack_activate(in);
		else
			instance_release(in, NULL);
		return;
	}
	if (in->state == VFUN_INSTANCE_STARTING)
		refuse(in, VFUN_R_LOST, "vfund's engine was replaced: ask again");
	if (!lives) {
		ended(in, VFUN_R_GONE, "it ended while the engine was replaced", s != NULL);
	} else if (in->state != VFUN_INSTANCE_ACTIVE) {
		in->state = VFUN_INSTANCE_STARTING;
		instance_release(in, NULL);
	}
}

/* A new engine: what the old one had begun. Whatever the launcher has and no instance is of is given back. */
void
instances_take_over(const struct keep_service *known, unsigned n)
{
	FOR_EACH(in)
	{
		const struct keep_service *s = known_as(known, n, in->number);

		if (!in->held)
			take_over(in, s);
		else if (!s)
			forget(in);
		else if (in->over)
			end(in);
		/* else its share, its connection, or its VM's end will tell */
	}
	for (unsigned i = 0; i < n; i++) {
		struct keep_msg msg = { .type = KEEP_FREE, .u.service.id = known[i].id };

		if (!instance_find(known[i].id))
			(void)keep_rpc(&engine.keep, &msg);
	}
}

unsigned
instances_stop(void)
{
	unsigned left = 0;

	FOR_EACH(in)
	{
		if (!in->held)
			end_service(in);
		/* A net client's answers are sent before the net process ends; others have theirs in memory. */
		left += !in->held || in->who.vm >= CONF_NET;
	}
	return left;
}
