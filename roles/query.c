/* SPDX-License-Identifier: MIT
 *
 * query.c - vfun list, vfun status, vfun release, vfun reload: see and undo, in a guest and on the host
 *
 * On the host an administrator (who may open <run>/admin/socket) sees and ends everything, others their own.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "../proto/plain.h"
#include "common/cli.h"
#include "roles.h"

#define LIMITS_MAX 2048

struct query {
	const char *role;
	int ends;  /* 1: its arguments are instances, to be ended */
	int lists; /* 1: functions, of which there is more to say */
	const char *run;
	int json;
	int verbose;
	int fd;
	int printed; /* at least one entry */
};

static int
complain(const struct query *q, int err)
{
	if (err == -ENOENT)
		fprintf(stderr,
		    "vfun %s: no vfund and no share here: start vfund, mount the share, or give --run DIR\n", q->role);
	else if (err == -ECONNREFUSED)
		fprintf(stderr,
		    "vfun %s: the share refuses the mount: mount it without -o dax, DAX is used all the same\n",
		    q->role);
	else if (err == -EROFS)
		fprintf(stderr,
		    "vfun %s: the mount is read-only for this process: add ReadWritePaths=/run/vfun to its systemd "
		    "unit\n",
		    q->role);
	else
		fprintf(stderr, "vfun %s: vfund: %s\n", q->role, strerror(-err));
	return cli_status(err);
}

static int
usage(const struct query *q)
{
	printf("usage: vfun %s %s\nSee vfun-list(1).\n", q->role,
	    q->ends    ? "[--run DIR] INSTANCE ..."
	    : q->lists ? "[-jv] [--run DIR]"
		       : "[-j] [--run DIR]");
	return cli_flush(q->role);
}

/* Options, then the connection. CLI_GO_ON, or an exit status. */
static int
begin(struct query *q, int argc, char **argv)
{
	static const struct option options[] = { { "verbose", no_argument, NULL, 'v' },
		{ "json", no_argument, NULL, 'j' }, { "run", required_argument, NULL, 'r' },
		{ "help", no_argument, NULL, 'h' }, { NULL, 0, NULL, 0 } };
	const char *letters = q->ends ? "+" : q->lists ? "+jv" : "+j";
	int c;

	cli_begin(argv, q->role);
	while ((c = getopt_long(argc, argv, letters, options + (q->lists ? 0 : 1 + q->ends), NULL)) != -1) {
		if (c == 'r')
			q->run = optarg;
		else if (c == 'j')
			q->json = 1;
		else if (c == 'v')
			q->verbose = 1;
		else
			return c == 'h' ? usage(q) : EXIT_USAGE;
	}
	if (q->ends && optind == argc)
		return cli_wrong(q->role, "no instance named");
	if (!q->ends && optind != argc)
		return cli_wrong(q->role, "'%s' is one argument too many", argv[optind]);
	q->fd = vfun_control_open(q->run, 1);
	return q->fd < 0 ? complain(q, q->fd == -EACCES ? -ENOENT : q->fd) : CLI_GO_ON;
}

/* Walk a list: `print` for each entry, with how many came before it. 0, or an exit status. */
static int
walk(struct query *q, uint16_t type, void (*print)(const struct query *, const struct vfun_msg *, unsigned))
{
	uint64_t position = 0;

	for (unsigned n = 0;; n++) {
		struct vfun_msg msg = { .type = type };
		int r;

		msg.body.query.position = position;
		r = vfun_control(q->fd, &msg, 0);
		if (r)
			return complain(q, r);
		if (msg.reason == VFUN_R_END)
			return EXIT_OK;
		if (msg.reason) {
			fprintf(stderr, "vfun %s: %s\n", q->role, msg.text);
			return EXIT_REFUSED;
		}
		print(q, &msg, n);
		q->printed = 1;
		/* `next` leads both kinds of entry. */
		if (msg.body.function.next <= position)
			return complain(q, -EPROTO);
		position = msg.body.function.next;
	}
}

/* The host's clock and a guest's needn't agree. */
static uint64_t
seconds_since(uint64_t since)
{
	uint64_t now = (uint64_t)time(NULL);

	return now > since ? now - since : 0;
}

/* A text about a function; an older vfund has none, and then it is empty. */
static void
ask_about(const struct query *q, const char *function, enum vfun_about what, char *text, size_t size)
{
	struct vfun_ask ask = { .what = what };

	snprintf(ask.function, sizeof(ask.function), "%s", function);
	if (vfun_about(q->fd, &ask, text, size, 0))
		text[0] = '\0';
}

static void
print_limits(const char *text)
{
	while (*text) {
		size_t len = strcspn(text, "\n");

		printf("    %.*s\n", (int)len, text);
		text += len + (text[len] == '\n');
	}
}

static void
print_function(const struct query *q, const struct vfun_msg *msg, unsigned n)
{
	struct vfun_function_info f = msg->body.function;
	char signature[VFUN_SIGNATURE_MAX];
	char limits[LIMITS_MAX] = "";

	f.name[sizeof(f.name) - 1] = f.backend[sizeof(f.backend) - 1] = f.summary[sizeof(f.summary) - 1] = '\0';
	plain_text(f.name);
	plain_text(f.backend);
	plain_text(f.summary);
	ask_about(q, f.name, VFUN_ABOUT_SIGNATURE, signature, sizeof(signature));
	if (q->verbose)
		ask_about(q, f.name, VFUN_ABOUT_LIMITS, limits, sizeof(limits));
	if (!q->json) {
		printf("%-16s %-9s %-9s %s\n", f.name, f.backend, cli_target_name(f.target), f.summary);
		if (signature[0])
			printf("  %s\n", signature);
		print_limits(limits);
		return;
	}
	printf("%s{\"name\":", n ? "," : "[");
	cli_json_string(stdout, f.name);
	printf(",\"backend\":");
	cli_json_string(stdout, f.backend);
	printf(",\"target\":\"%s\",\"summary\":", cli_target_name(f.target));
	cli_json_string(stdout, f.summary);
	printf(",\"signature\":");
	cli_json_string(stdout, signature);
	if (q->verbose) {
		printf(",\"limits\":");
		cli_json_string(stdout, limits);
	}
	printf("}");
}

int
role_list(int argc, char **argv)
{
	struct query q = { .role = "list", .lists = 1, .fd = -1 };
	int r = begin(&q, argc, argv);

	if (r != CLI_GO_ON)
		return r;
	r = walk(&q, VFUN_MSG_LIST, print_function);
	close(q.fd);
	if (q.json && !r)
		printf(q.printed ? "]\n" : "[]\n");
	return r ? r : cli_flush("list");
}

static const char *
state_name(unsigned state)
{
	static const char *const names[] = { "?", "starting", "active", "ending" };

	return state < sizeof(names) / sizeof(names[0]) ? names[state] : "?";
}

/* The best path that it offers, which is what a client takes unless it is told otherwise. */
static const char *
path_name(uint32_t paths)
{
	return paths & VFUN_PATH_HOST	   ? "host"
	       : paths & VFUN_PATH_DAX	   ? "dax"
	       : paths & VFUN_PATH_IVSHMEM ? "ivshmem"
	       : paths & VFUN_PATH_COPY	   ? "copy"
	       : paths & VFUN_PATH_NET	   ? "net"
					   : "-";
}

static void
print_instance(const struct query *q, const struct vfun_msg *msg, unsigned n)
{
	struct vfun_instance_info i = msg->body.instance;

	i.client[sizeof(i.client) - 1] = i.function[sizeof(i.function) - 1] = '\0';
	plain_text(i.client);
	plain_text(i.function);
	if (!q->json) {
		if (n == 0)
			printf("%-9s %-16s %-16s %-9s %-8s %-7s %10s %8s %8s %6s\n", "INSTANCE", "CLIENT", "FUNCTION",
			    "TARGET", "STATE", "PATH", "MEMORY", "SECONDS", "PID", "UID");
		printf("%-9" PRIu64 " %-16s %-16s %-9s %-8s %-7s %10" PRIu64 " %8" PRIu64 " %8" PRIu32 " %6" PRIu32
		       "\n",
		    i.instance, i.client, i.function, cli_target_name(i.target), state_name(i.state),
		    path_name(i.paths), i.memory, seconds_since(i.since), i.pid, i.uid);
		return;
	}
	printf("%s{\"instance\":%" PRIu64 ",\"client\":", n ? "," : "[", i.instance);
	cli_json_string(stdout, i.client);
	printf(",\"function\":");
	cli_json_string(stdout, i.function);
	printf(",\"target\":\"%s\",\"state\":\"%s\",\"path\":\"%s\",\"memory\":%" PRIu64 ",\"since\":%" PRIu64
	       ",\"pid\":%" PRIu32 ",\"uid\":%" PRIu32 ",\"slots\":%u}",
	    cli_target_name(i.target), state_name(i.state), path_name(i.paths), i.memory, i.since, i.pid, i.uid,
	    i.slots);
}

static int
print_info(const struct query *q)
{
	struct vfun_msg msg = { .type = VFUN_MSG_INFO };
	struct vfun_info *i = &msg.body.info;
	int r = vfun_control(q->fd, &msg, 0);

	if (r)
		return complain(q, r);
	i->release[sizeof(i->release) - 1] = i->client[sizeof(i->client) - 1] = '\0';
	plain_text(i->release);
	plain_text(i->client);
	if (q->json) {
		printf("{\"release\":");
		cli_json_string(stdout, i->release);
		printf(",\"client\":");
		cli_json_string(stdout, i->client);
		printf(",\"pid\":%" PRIu64 ",\"since\":%" PRIu64 ",\"vms\":%" PRIu32 ",\"admin\":%s,\"instances\":",
		    i->pid, i->since, i->vms, i->admin ? "true" : "false");
		return EXIT_OK;
	}
	printf("vfund %s", i->release);
	if (i->pid)
		printf(", pid %" PRIu64, i->pid);
	printf(", for %" PRIu64 " s", seconds_since(i->since));
	if (i->pid)
		printf(", %" PRIu32 " VM%s connected", i->vms, i->vms == 1 ? "" : "s");
	printf(", %" PRIu32 " instance%s; you are %s%s\n", i->instances, i->instances == 1 ? "" : "s", i->client,
	    i->admin ? " (administrator)" : "");
	return EXIT_OK;
}

int
role_status(int argc, char **argv)
{
	struct query q = { .role = "status", .fd = -1 };
	int r = begin(&q, argc, argv);

	if (r != CLI_GO_ON)
		return r;
	r = print_info(&q);
	if (!r)
		r = walk(&q, VFUN_MSG_STATUS, print_instance);
	close(q.fd);
	if (q.json && !r)
		printf(q.printed ? "]}\n" : "[]}\n");
	return r ? r : cli_flush("status");
}

int
role_release(int argc, char **argv)
{
	struct query q = { .role = "release", .ends = 1, .fd = -1 };
	int status = begin(&q, argc, argv);

	if (status != CLI_GO_ON)
		return status;
	status = EXIT_OK;
	for (int i = optind; !status && i < argc; i++) {
		struct vfun_msg msg = { .type = VFUN_MSG_RELEASE };
		int r = cli_u64(argv[i], &msg.body.release.instance);

		if (r) {
			fprintf(stderr, "vfun %s: '%s' is not the number of an instance: see vfun status\n", q.role,
			    argv[i]);
			status = EXIT_USAGE;
			break;
		}
		r = vfun_control(q.fd, &msg, 0);
		if (r) {
			status = complain(&q, r);
		} else if (msg.reason) {
			fprintf(stderr, "vfun %s: %s\n", q.role, msg.text);
			status = EXIT_REFUSED;
		}
	}
	close(q.fd);
	return status;
}

#define RELOAD_MS 600000 /* programs may take their time to say what they are */

int
role_reload(int argc, char **argv)
{
	struct query q = { .role = "reload", .fd = -1 };
	struct vfun_msg msg = { .type = VFUN_MSG_RELOAD };
	int r = begin(&q, argc, argv);

	if (r != CLI_GO_ON)
		return r;
	r = vfun_control(q.fd, &msg, RELOAD_MS);
	close(q.fd);
	if (r)
		return complain(&q, r);
	msg.text[sizeof(msg.text) - 1] = '\0';
	if (msg.reason) {
		fprintf(stderr, "vfun reload: %s\n", msg.text);
		return EXIT_REFUSED;
	}
	printf("reloaded: %s\n", msg.text);
	return cli_flush("reload");
}
