/* SPDX-License-Identifier: MIT
 *
 * backend.c - the list of backends, and growing results
 */
#include <errno.h>
#include <string.h>

#include "backend.h"

/* The host half has no functions of its own: software runs without it. */
static const struct backend *const backends[] = {
#ifndef VFUN_HOST_HALF
	&backend_software,
	&backend_program,
#endif
	&backend_xrt,
	&backend_xrt_emulated,
};

const struct backend *
backend_find(const char *name)
{
	for (size_t i = 0; i < sizeof(backends) / sizeof(backends[0]); i++)
		if (!strcmp(backends[i]->name, name))
			return backends[i];
	return NULL;
}

const struct backend_function *
backend_function(const struct backend *b, const char *name)
{
	for (const struct backend_function *f = b->functions; f && f->name; f++)
		if (!strcmp(f->name, name))
			return f;
	return NULL;
}

int
backend_put(struct backend_result *res, const void *data, uint64_t len)
{
	if (!res->bulk && len <= sizeof(res->inline_bytes) - res->len) {
		memcpy(res->inline_bytes + res->len, data, len);
		res->len += len;
		return 0;
	}
	if (res->len > res->room_len || len > res->room_len - res->len) {
		res->need = res->len + len;
		return -ENOSPC;
	}
	if (!res->bulk) {
		memcpy(res->room, res->inline_bytes, res->len);
		res->bulk = 1;
	}
	memcpy(res->room + res->len, data, len);
	res->len += len;
	return 0;
}
