/* SPDX-License-Identifier: MIT
 *
 * control.c - the engine's control messages: the same for guests and host, except for who asks
 *
 * A message is checked as a whole first (size by the caller; magic, type, version here), then each handler checks the
 * fields it uses, on this process's own copy. A nack carries a reason code and one sentence that says what is wrong and
 * what to do.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "../../proto/plain.h"
#include "../common/log.h"
#include "../roles.h"
#include "engine.h"
#include "rate.h"

#define SLOTS_DEFAULT 16u

void
control_reply_init(struct vfun_msg *m, const struct asker *who, uint16_t type, enum vfun_reason reason)
{
	memset(m, 0, sizeof(*m));
	m->magic = VFUN_MSG_MAGIC;
	m->type = (uint16_t)(type | VFUN_MSG_REPLY);
	m->version = VFUN_VERSION;
	m->tag = who->tag;
	m->reason = (uint16_t)reason;
}

static void
nack(const struct asker *who, uint16_t type, enum vfun_reason reason, uint16_t flags, const char *fmt, va_list ap)
{
	struct vfun_msg m;
	char name[VFUN_NAME_MAX];

	control_reply_init(&m, who, type, reason);
	m.flags = flags;
	vsnprintf(m.text, sizeof(m.text), fmt, ap);
	plain_text(m.text); /* which may repeat what was asked for */
	if (reason != VFUN_R_END) {
		clients_name(who, name);
		log_debug("%s: nack %u: %s", name, reason, m.text);
	}
	clients_reply(who, &m);
}

void
control_nack(const struct asker *who, uint16_t type, enum vfun_reason reason, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	nack(who, type, reason, 0, fmt, ap);
	va_end(ap);
}

void
control_nack_flags(
    const struct asker *who, uint16_t type, enum vfun_reason reason, uint16_t flags, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	nack(who, type, reason, flags, fmt, ap);
	va_end(ap);
}

/* The data paths that there are for a VM, the host, or a net client. */
static uint32_t
paths_of(uint32_t vm)
{
	const struct engine_vm *v;

	if (vm >= CONF_HOST)
		return vm == CONF_HOST ? VFUN_PATH_HOST : VFUN_PATH_NET;
	v = &engine.st->vm[vm];
	return VFUN_PATH_COPY | (v->dax ? VFUN_PATH_DAX : 0) | (v->bar ? VFUN_PATH_IVSHMEM : 0);
}

static uint32_t
power_of_two(uint32_t n)
{
	uint32_t p = 1;

	while (p < n)
		p <<= 1;
	return p;
}

/* There is no function of this name (-1), or not for this client. */
static void
not_to_be_had(const struct asker *who, uint16_t type, const char *name, int function)
{
	if (function < 0)
		control_nack(
		    who, type, VFUN_R_UNKNOWN, "there is no function '%.*s': see vfun list", VFUN_NAME_MAX - 1, name);
	else
		control_nack(who, type, VFUN_R_DENIED, "vfun.conf doesn't give %s to this client", name);
}

static uint64_t
round_up(uint64_t n)
{
	return (n + VFUN_PAGE - 1) & ~(uint64_t)(VFUN_PAGE - 1);
}

/* The first field that is outside its range; NULL: none is. */
static const char *
out_of_range(const struct vfun_negotiate *n)
{
	if (!memchr(n->function, 0, sizeof(n->function)))
		return "function (no end)";
	if (n->version_min > n->version_max)
		return "version_min (above version_max)";
	if (n->target > VFUN_TARGET_HARDWARE)
		return "target";
	return n->wait > VFUN_WAIT_PARK ? "wait" : NULL;
}

/* Check a NEGOTIATE against vfun.conf. 1, or 0 after a nack. */
static int
negotiable(const struct asker *who, const struct vfun_negotiate *n, int function, uint32_t slots)
{
	const struct conf *conf = &engine.st->conf;
	const struct conf_function *f;

	if (n->version_min > VFUN_VERSION || n->version_max < VFUN_VERSION_OLDEST) {
		control_nack(who, VFUN_MSG_NEGOTIATE, VFUN_R_VERSION,
		    "vfund speaks protocol versions %u.%u to %u.%u, the client %u.%u to %u.%u",
		    VFUN_VERSION_OLDEST >> 8, VFUN_VERSION_OLDEST & 0xff, VFUN_VERSION >> 8, VFUN_VERSION & 0xff,
		    n->version_min >> 8, n->version_min & 0xff, n->version_max >> 8, n->version_max & 0xff);
		return 0;
	}
	if (function < 0 || !(conf->vm[who->vm].functions >> function & 1)) {
		not_to_be_had(who, VFUN_MSG_NEGOTIATE, n->function, function);
		return 0;
	}
	f = &conf->function[function];
	if (slots > f->slots_max || n->out_arena > f->arena_max || n->in_arena > f->arena_max) {
		control_nack(who, VFUN_MSG_NEGOTIATE, VFUN_R_TOO_LARGE,
		    "%s has at most %u slots and %llu bytes of arena per direction", f->name, f->slots_max,
		    (unsigned long long)f->arena_max);
		return 0;
	}
	if (vfun_region_size(slots, round_up(n->out_arena)) + vfun_region_size(slots, round_up(n->in_arena)) >
	    instances_memory_max(who)) {
		control_nack(who, VFUN_MSG_NEGOTIATE, VFUN_R_TOO_LARGE,
		    "vfun.conf gives this client %llu bytes of memory, all instances together",
		    (unsigned long long)instances_memory_max(who));
		return 0;
	}
	if (n->target == VFUN_TARGET_HARDWARE && !conf_is_hardware(f)) {
		control_nack_flags(who, VFUN_MSG_NEGOTIATE, VFUN_R_NO_HARDWARE, VFUN_F_SOFTWARE_OK,
		    "%s has no hardware here; software would be granted", f->name);
		return 0;
	}
	if (n->target == VFUN_TARGET_SOFTWARE && conf_is_hardware(f) && !f->fallback[0]) {
		control_nack(who, VFUN_MSG_NEGOTIATE, VFUN_R_NO_SOFTWARE, "%s is hardware only", f->name);
		return 0;
	}
	return 1;
}

/* What the features of the client and of the function have in common. */
static uint32_t
features_of(const struct asker *who, const struct vfun_negotiate *n, const struct conf_function *f)
{
	uint64_t host = who->vm == CONF_HOST ? VFUN_FEATURE_EVENTFD : 0;

	return n->version_max < 0x0104 ? 0 : (uint32_t)(n->features & (conf_features(f) | host));
}

/* The part of a grant that version 1.4 added. */
static void
add_limits(const struct asker *who, const struct grant *g, struct vfun_grant *to)
{
	const struct conf *conf = &engine.st->conf;
	const struct conf_function *f = &conf->function[g->function];

	if (g->version < 0x0104)
		return;
	to->slots_max = (uint16_t)f->slots_max;
	to->call_ms = g->target == VFUN_TARGET_HARDWARE ? f->xrt.timeout_ms : f->program.limit_ms;
	to->features = g->features;
	to->arena_max = f->arena_max;
	to->memory_max = instances_memory_max(who);
	to->instances_max = conf->vm[who->vm].instances;
	instances_left(who, &to->instances_left, &to->memory_left);
	to->grant_s = GRANT_SECONDS;
}

static void
negotiate(const struct asker *who, const struct vfun_msg *msg)
{
	const struct vfun_negotiate *n = &msg->body.negotiate;
	const struct conf_function *f;
	struct vfun_function_info what;
	const char *wrong = out_of_range(n);
	uint32_t slots = power_of_two(n->slots ? n->slots : SLOTS_DEFAULT);
	struct vfun_msg m;
	struct grant *g;
	int function;

	if (wrong) {
		control_nack(who, VFUN_MSG_NEGOTIATE, VFUN_R_MALFORMED, "NEGOTIATE: outside its range: %s", wrong);
		return;
	}
	function = conf_function_index(&engine.st->conf, n->function);
	if (!n->slots && function >= 0 && slots > engine.st->conf.function[function].slots_max)
		slots = engine.st->conf.function[function].slots_max;
	if (!negotiable(who, n, function, slots))
		return;
	f = &engine.st->conf.function[function];
	g = grant_new(who);
	if (!g) {
		control_nack(
		    who, VFUN_MSG_NEGOTIATE, VFUN_R_NO_RESOURCE, "too many grants are open: activate them, or close");
		return;
	}
	*g = (struct grant){ .who = *who,
		.since = rate_ms(),
		.function = (uint32_t)function,
		.slots = slots,
		.out_arena = round_up(n->out_arena),
		.in_arena = round_up(n->in_arena),
		.spin_us = n->wait == VFUN_WAIT_PARK ? 0 : f->spin_us,
		.version = n->version_max < VFUN_VERSION ? n->version_max : VFUN_VERSION,
		.target = conf_is_hardware(f) && n->target != VFUN_TARGET_SOFTWARE ? VFUN_TARGET_HARDWARE
										   : VFUN_TARGET_SOFTWARE,
		.features = features_of(who, n, f) };
	g->number = ++engine.st->next_grant;
	conf_describe(f, &what);
	control_reply_init(&m, who, VFUN_MSG_NEGOTIATE, VFUN_OK);
	m.body.grant = (struct vfun_grant){
		.grant = g->number,
		.out_arena = g->out_arena,
		.in_arena = g->in_arena,
		.version = (uint16_t)g->version,
		.slots = (uint16_t)slots,
		.target = (uint8_t)g->target,
		.arg_kind = what.arg_kind,
		.res_kind = what.res_kind,
		.software_ok = g->version >= 0x0102 && g->target == VFUN_TARGET_HARDWARE && what.software_ok,
		.spin_us = g->spin_us,
	};
	/* Bytes that a version doesn't know are 0 for it. */
	if (g->version >= 0x0101) {
		m.body.grant.paths = paths_of(who->vm);
		m.body.grant.bar = who->vm == CONF_HOST ? 0 : engine.st->vm[who->vm].bar;
		m.body.grant.workers = (uint16_t)conf_workers(f, g->version, slots);
	}
	add_limits(who, g, &m.body.grant);
	clients_reply(who, &m);
}

static void
activate(const struct asker *who, const struct vfun_msg *msg)
{
	struct grant *g;

	if (instance_repeated(who))
		return;
	g = grant_find(who, msg->body.activate.grant);
	if (!g)
		control_nack(who, VFUN_MSG_ACTIVATE, VFUN_R_NO_GRANT,
		    "no such grant here, or it is older than %u seconds: negotiate again, on the same connection",
		    GRANT_SECONDS);
	else if (engine.st->conf.vm[who->vm].functions >> g->function & 1)
		instance_activate(who, g, msg->body.activate.paths);
	else /* vfun.conf was read again since */
		not_to_be_had(who, VFUN_MSG_ACTIVATE, engine.st->conf.function[g->function].name, (int)g->function);
}

static int
released_already(const struct asker *who)
{
	/* Requests are repeated by shares that were replaced; on the host nobody repeats one. */
	for (unsigned i = 0; who->vm != CONF_HOST && i < 64; i++) {
		const struct asker *a = &engine.st->released[i];

		if (a->handle && a->vm == who->vm && a->handle == who->handle && a->req == who->req)
			return 1;
	}
	return 0;
}

static void
release(const struct asker *who, const struct vfun_msg *msg)
{
	struct instance *in = instance_find(msg->body.release.instance);
	struct vfun_msg m;

	if (in && instance_visible(in, who)) {
		instance_release(in, who);
	} else if (released_already(who)) {
		control_reply_init(&m, who, VFUN_MSG_RELEASE, VFUN_OK);
		clients_reply(who, &m);
	} else {
		control_nack(who, VFUN_MSG_RELEASE, VFUN_R_NO_INSTANCE,
		    "there is no instance %llu of this client's: see vfun status",
		    (unsigned long long)msg->body.release.instance);
	}
}

static void
list(const struct asker *who, const struct vfun_msg *msg)
{
	const struct conf *conf = &engine.st->conf;
	struct vfun_msg m;

	for (uint64_t i = msg->body.query.position; i < conf->functions; i++) {
		const struct conf_function *f = &conf->function[i];

		if (f->withdrawn || (!who->admin && !(conf->vm[who->vm].functions >> i & 1)))
			continue;
		control_reply_init(&m, who, VFUN_MSG_LIST, VFUN_OK);
		conf_describe(f, &m.body.function);
		m.body.function.next = i + 1;
		clients_reply(who, &m);
		return;
	}
	control_nack(who, VFUN_MSG_LIST, VFUN_R_END, "that was all");
}

/* A part of a text about a function. */
static void
about(const struct asker *who, const struct vfun_msg *msg)
{
	const struct vfun_ask *ask = &msg->body.ask;
	const struct conf *conf = &engine.st->conf;
	char text[CONF_ABOUT_MAX];
	struct vfun_msg m;
	struct vfun_part *part = &m.body.part;
	uint32_t rest;
	int function;

	if (!memchr(ask->function, 0, sizeof(ask->function)) || ask->what > VFUN_ABOUT_LIMITS ||
	    ask->target > VFUN_TARGET_HARDWARE) {
		control_nack(who, VFUN_MSG_SIGNATURE, VFUN_R_MALFORMED, "SIGNATURE: outside its range: %s",
		    ask->what > VFUN_ABOUT_LIMITS	 ? "what"
		    : ask->target > VFUN_TARGET_HARDWARE ? "target"
							 : "function (no end)");
		return;
	}
	function = conf_function_index(conf, ask->function);
	if (function < 0 || (!who->admin && !(conf->vm[who->vm].functions >> function & 1))) {
		not_to_be_had(who, VFUN_MSG_SIGNATURE, ask->function, function);
		return;
	}
	conf_about(&conf->function[function], ask, (int)who->admin, text);
	control_reply_init(&m, who, VFUN_MSG_SIGNATURE, VFUN_OK);
	part->total = (uint32_t)strlen(text);
	rest = ask->offset < part->total ? part->total - ask->offset : 0;
	memcpy(part->text, text + part->total - rest, rest < sizeof(part->text) ? rest : sizeof(part->text));
	clients_reply(who, &m);
}

static void
status(const struct asker *who, const struct vfun_msg *msg)
{
	struct vfun_msg m;

	for (uint64_t i = msg->body.query.position; i < ENGINE_INSTANCES; i++) {
		const struct instance *in = &engine.st->instance[i];
		struct vfun_instance_info *info = &m.body.instance;

		if (!in->number || !instance_visible(in, who))
			continue;
		control_reply_init(&m, who, VFUN_MSG_STATUS, VFUN_OK);
		*info = (struct vfun_instance_info){ .next = i + 1,
			.instance = in->number,
			.since = in->since,
			.memory = in->out_size + in->in_size,
			.pid = who->vm == CONF_HOST ? in->pid : 0,
			.uid = in->who.uid,
			.target = (uint8_t)in->target,
			.state = (uint8_t)in->state,
			.slots = (uint16_t)in->slots,
			.paths = in->paths };
		strcpy(m.text, in->why);
		clients_name(&in->who, info->client);
		strcpy(info->function, engine.st->conf.function[in->function].name);
		clients_reply(who, &m);
		return;
	}
	control_nack(who, VFUN_MSG_STATUS, VFUN_R_END, "that was all");
}

static void
info(const struct asker *who)
{
	const struct engine_state *st = engine.st;
	struct vfun_msg m;
	struct vfun_info *i = &m.body.info;

	control_reply_init(&m, who, VFUN_MSG_INFO, VFUN_OK);
	i->since = st->since;
	for (unsigned k = 0; k < ENGINE_INSTANCES; k++)
		i->instances += st->instance[k].number && instance_visible(&st->instance[k], who);
	strcpy(i->release, VFUN_RELEASE);
	clients_name(who, i->client);
	i->admin = (uint8_t)who->admin;
	if (who->vm == CONF_HOST) {
		i->pid = st->daemon_pid;
		for (unsigned k = 0; k < CONF_VMS_MAX; k++)
			i->vms += st->vm[k].connected != 0;
	}
	clients_reply(who, &m);
}

/* Who waits for the end of a reload; handle 0: nobody. Not kept: who asked an engine that was replaced asks again. */
static struct asker reloader;

static void
reload(const struct asker *who)
{
	struct keep_msg msg = { .type = KEEP_RELOAD };
	int r;

	if (!who->admin) {
		control_nack(
		    who, VFUN_MSG_RELOAD, VFUN_R_DENIED, "only vfund's administrator may have it read vfun.conf");
		return;
	}
	r = keep_rpc(&engine.keep, &msg);
	if (r)
		control_nack(who, VFUN_MSG_RELOAD, VFUN_R_NO_RESOURCE, "vfun.conf can't be read again now: %s",
		    r == -EBUSY ? "somebody else has just asked for it" : strerror(-r));
	else
		reloader = *who;
}

void
control_reloaded(const struct keep_service *how)
{
	struct vfun_msg m;

	if (!reloader.handle)
		return;
	control_reply_init(&m, &reloader, VFUN_MSG_RELOAD, how->reason);
	snprintf(m.text, sizeof(m.text), "%.*s", (int)sizeof(how->text) - 1, how->text);
	clients_reply(&reloader, &m);
	reloader.handle = 0;
}

void
control_message(const struct asker *who, const struct vfun_msg *msg)
{
	if (msg->magic != VFUN_MSG_MAGIC) {
		control_nack(who, 0, VFUN_R_MALFORMED, "not a vfun message");
		return;
	}
	if (msg->version >> 8 != VFUN_VERSION >> 8) {
		control_nack(who, msg->type & 0x7fff, VFUN_R_VERSION, "vfund speaks protocol version %u, not %u",
		    VFUN_VERSION >> 8, msg->version >> 8);
		return;
	}
	if (engine.st->stopping && (msg->type == VFUN_MSG_NEGOTIATE || msg->type == VFUN_MSG_ACTIVATE)) {
		control_nack(who, msg->type, VFUN_R_SHUTDOWN, "vfund is going down");
		return;
	}
	switch (msg->type) {
	case VFUN_MSG_NEGOTIATE:
		negotiate(who, msg);
		break;
	case VFUN_MSG_ACTIVATE:
		activate(who, msg);
		break;
	case VFUN_MSG_RELEASE:
		release(who, msg);
		break;
	case VFUN_MSG_LIST:
		list(who, msg);
		break;
	case VFUN_MSG_STATUS:
		status(who, msg);
		break;
	case VFUN_MSG_INFO:
		info(who);
		break;
	case VFUN_MSG_RELOAD:
		reload(who);
		break;
	case VFUN_MSG_SIGNATURE:
		about(who, msg);
		break;
	default:
		control_nack(who, msg->type & 0x7fff, VFUN_R_MALFORMED, "there is no message of type %u", msg->type);
	}
}
