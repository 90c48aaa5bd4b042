/* SPDX-License-Identifier: MIT
 *
 * endpoint.c - where calls go: instances by every path that there is, and the backend in this very process
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "../common/cli.h"
#include "../roles.h"
#include "bench.h"

/* Paths by place, best first. The client library knows names that it doesn't know for certain to work. */
static const char *const on_host[] = { "host", "net", NULL };
static const char *const in_guest[] = { "dax", "ivshmem", "copy", "net", NULL };

#define PATHS_MAX 16

int
endpoint_path(const char *name, enum vfun_path *path)
{
	for (unsigned i = 0; i < PATHS_MAX; i++) {
		const char *known = vfun_path_name((enum vfun_path)i);

		if (strcmp(known, "?") != 0 && !strcmp(known, name)) {
			*path = (enum vfun_path)i;
			return 0;
		}
	}
	return -ENOENT;
}

int
endpoint_open(struct bench *b, struct endpoint *e, const char *name, const char *function, struct vfun_options o)
{
	const char *where = b->in_guest ? "guest" : "host";
	int r;

	if (endpoint_path(name, &o.path))
		return 0;
	if (o.path == VFUN_PATH_IS_NET && !getenv("VFUN_SERVER")) {
		note(&b->left_out, "%s, net, %s: set VFUN_SERVER and VFUN_KEY_FILE", where, function);
		return 0;
	}
	o.size = sizeof(o);
	o.run = b->run;
	r = vfun_open(&e->v, function, &o);
	if (!r) {
		e->where = where;
		e->path = vfun_path_name(vfun_path(e->v));
		e->mapped = vfun_out_arena(e->v) != NULL && strcmp(e->path, "net") != 0;
		return 1;
	}
	note(&b->left_out, "%s, %s, %s: %s", where, name, function, vfun_text(e->v));
	vfun_close(e->v, NULL);
	e->v = NULL;
	if (r == -ENODEV || r == -EACCES || r == -ENOENT)
		return 0;
	return -bench_fail(cli_status(r), "%s", b->left_out.text[b->left_out.n - 1]);
}

int
endpoints_open(struct bench *b, struct endpoint *e, unsigned max, const char *function, const struct vfun_options *o)
{
	const char *const only[] = { b->path, NULL };
	const char *const *name = b->path ? only : b->in_guest ? in_guest : on_host;
	unsigned n = 0;

	memset(e, 0, max * sizeof(*e));
	for (; *name && n < max; name++) {
		int r = endpoint_open(b, &e[n], *name, function, *o);

		if (r < 0) {
			endpoints_close(e, n);
			return r;
		}
		n += (unsigned)r;
	}
	return (int)n;
}

void
endpoints_close(struct endpoint *e, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		vfun_close(e[i].v, NULL);
}

/* In this process */

int
local_open(struct local *l, const char *function)
{
	struct backend_setup setup = { .result_max = VFUN_PAYLOAD };
	char text[BACKEND_TEXT];

	l->state = NULL;
	l->fn = setup.fn = backend_function(&backend_software, function);
	return !l->fn ? -ENOENT : backend_software.init(&setup, &l->state, text) ? -ENOMEM : 0;
}

void
local_close(struct local *l)
{
	backend_software.exit(l->state);
	l->state = NULL;
}

int
local_call(
    struct local *l, const uint64_t *arg, unsigned nargs, const void *in, uint64_t in_len, struct backend_result *res)
{
	const struct backend_call call = { .arg = arg, .nargs = nargs, .in = in, .in_len = in_len };

	res->room = NULL;
	res->room_len = res->len = res->need = 0;
	res->bulk = 0;
	return l->fn->run(l->state, &call, res);
}
