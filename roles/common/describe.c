/* SPDX-License-Identifier: MIT
 *
 * describe.c - what clients are told about a function of vfun.conf
 */
#include <stdio.h>
#include <string.h>

#include "../../backends/backend.h"
#include "../../proto/signature.h"
#include "conf.h"

int
conf_is_hardware(const struct conf_function *f)
{
	return !strcmp(f->backend, backend_xrt.name);
}

int
conf_is_program(const struct conf_function *f)
{
	return !strcmp(f->backend, backend_program.name);
}

const struct backend_function *
conf_function_of(const struct conf_function *f, struct xrt_texts *texts, struct backend_function *made)
{
	const struct backend *b = backend_find(f->backend);

	if (conf_is_program(f)) {
		*made = (struct backend_function){
			.name = f->name, .summary = f->program.summary, .signature = f->signature
		};
		return made;
	}
	if (!conf_is_hardware(f))
		return b ? backend_function(b, f->name) : NULL;
	xrt_function(&f->xrt, f->name, texts, made);
	return made;
}

uint32_t
conf_workers(const struct conf_function *f, uint32_t version, uint32_t slots)
{
	/* Version 1.0 knows one sleeper, and one order of requests. */
	if (version < 0x0101)
		return 1;
	return f->workers < slots ? f->workers : slots;
}

uint32_t
conf_features(const struct conf_function *f)
{
	return conf_is_program(f) ? f->program.features
				  : VFUN_FEATURE_CANCEL | VFUN_FEATURE_LIMIT | VFUN_FEATURE_ORDERED;
}

void
conf_describe(const struct conf_function *f, struct vfun_function_info *info)
{
	struct vfun_signature s;
	struct xrt_texts texts = { .summary = "" };
	struct backend_function made;
	const struct backend_function *fn = conf_function_of(f, &texts, &made);
	char fault[VFUN_TEXT_MAX];

	*info =
	    (struct vfun_function_info){ .target = conf_is_hardware(f) ? VFUN_TARGET_HARDWARE : VFUN_TARGET_SOFTWARE,
		    .software_ok = f->fallback[0] != '\0' };
	strcpy(info->name, f->name);
	strcpy(info->backend, f->backend);
	snprintf(info->summary, sizeof(info->summary), "%s", fn->summary);
	if (!vfun_signature_parse(&s, f->signature, fault)) {
		info->arg_kind = vfun_signature_arg_kind(&s);
		info->res_kind = vfun_signature_res_kind(&s);
	}
}

/* What only an administrator is told. Bytes of it. */
static int
program(const struct program_desc *d, char text[CONF_ABOUT_MAX])
{
	return snprintf(text, CONF_ABOUT_MAX,
	    "program: %s\nsystem calls: computing, memory and words only%s%s\nfiles: %s\n", d->path,
	    d->syscalls[0] ? "; and " : "", d->syscalls, d->files[0] ? d->files : "none");
}

/* What an administrator has set, and a client can run into. */
static void
limits(const struct conf_function *f, char *text, size_t size)
{
	int n = snprintf(text, size, "arena: at most %llu bytes each way\nslots: at most %u\n",
	    (unsigned long long)f->arena_max, f->slots_max);

	if (conf_is_hardware(f))
		n += snprintf(text + n, size - (size_t)n,
		    "queue: %u calls\ncall: at most %u ms\nsoftware in its place: %s\n", f->queue, f->xrt.timeout_ms,
		    f->fallback[0] ? f->fallback : "none");
	else
		n += snprintf(text + n, size - (size_t)n, "workers: %u\n", f->workers);
	if (f->program.limit_ms)
		n += snprintf(text + n, size - (size_t)n, "call: at most %u ms\n", f->program.limit_ms);
	snprintf(text + n, size - (size_t)n,
	    "memory: %llu bytes beside regions and results\ncpu: %u %% of a processor%s\n",
	    (unsigned long long)f->overhead, f->cpu, f->cpu == 100 ? ", as all have" : "");
}

void
conf_about(const struct conf_function *f, const struct vfun_ask *ask, int admin, char text[CONF_ABOUT_MAX])
{
	const struct backend_function *software = backend_function(&backend_software, f->fallback);
	int n = 0;

	if (ask->what == VFUN_ABOUT_SIGNATURE) {
		snprintf(text, CONF_ABOUT_MAX, "%s",
		    software && ask->target == VFUN_TARGET_SOFTWARE ? software->signature : f->signature);
		return;
	}
	if (admin && conf_is_program(f))
		n = program(&f->program, text);
	limits(f, text + n, CONF_ABOUT_MAX - (size_t)n);
}
