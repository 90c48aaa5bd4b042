/* SPDX-License-Identifier: MIT
 *
 * conf.c - vfun.conf(5), read through libinih
 *
 * libinih hands over (section, key, value). What may be written is one table of keys per kind of section, which is also
 * all that there is to change when a key is added. A fault is reported and the reading goes on, so that `vfun daemon
 * -n` shows all of them at once. Names of functions in a VM's section are resolved at the end, since they may be
 * defined further down.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../backends/backend.h"
#include "../../proto/netauth.h"
#include "../../proto/serve.h"
#include "../../proto/signature.h"
#include "cli.h"
#include "conf.h"
#include "sandbox.h"

#define CONF_FILE_MAX (1 << 20)
#define CONF_LINE_MAX 199 /* libinih's default buffer, without the NUL */
#define BLANKS " \t\n\v\f\r"

/* A VM's list of functions, as written, until the end of the file. */
struct wanted {
	int line;
	char names[4 * CONF_LINE_MAX];
};

/* The section that is being read: its keys, where their values go, NULL for a section that is a fault itself. */
struct section {
	const struct key *keys;
	void *base;
	struct wanted *wanted;
	char last[64]; /* the key before this one */
};

struct reading {
	struct conf *conf;
	conf_complain *complain;
	void *arg;
	FILE *file;
	int line;
	int bytes;   /* read so far */
	int goes_on; /* a line that starts with a blank belongs to the key before it */
	int faults;
	struct section section;
	struct wanted wanted[CONF_CLIENTS];
};

static void fault(struct reading *r, int line, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

static void
fault(struct reading *r, int line, const char *fmt, ...)
{
	char text[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	r->faults++;
	if (r->complain)
		r->complain(r->arg, line, text);
}

int
conf_name_ok(const char *s)
{
	size_t n = strlen(s);

	if (n == 0 || n >= VFUN_NAME_MAX || !isalpha((unsigned char)s[0]))
		return 0;
	for (size_t i = 0; i < n; i++)
		if (!isalnum((unsigned char)s[i]) && !strchr("_-.", s[i]))
			return 0;
	return 1;
}

int
conf_uuid_ok(const char *s)
{
	for (unsigned i = 0; i < 36; i++)
		if (i == 8 || i == 13 || i == 18 || i == 23 ? s[i] != '-' : !isxdigit((unsigned char)s[i]))
			return 0;
	return s[36] == '\0';
}

enum key_type {
	KEY_NAME,
	KEY_USER,
	KEY_U32,
	KEY_U64,
	KEY_POWER,
	KEY_POWER_OR_0,
	KEY_POWER32,
	KEY_BOOL,
	KEY_FUNCTIONS,
	KEY_STAGES,
	KEY_ADDRESS,
	KEY_PATH,
	KEY_WORD,
	KEY_URI,
	KEY_RESULT,
	KEY_ARGUMENTS,
	KEY_CALLS,
	KEY_LIST,
};

struct key {
	const char *name;
	enum key_type type;
	size_t offset; /* in the section's struct */
	uint64_t min;
	uint64_t max;
};

#define GIB (1ull << 30)
#define HARDWARE_QUEUE 4
#define HARDWARE_OVERHEAD GIB /* XRT's libraries, threads and buffers */
#define PROGRAM_OVERHEAD (256u << 20)

static const struct key vfund_keys[] = {
	{ "user", KEY_NAME, offsetof(struct conf, user), 0, 31 },
	{ "group", KEY_NAME, offsetof(struct conf, group), 0, 31 },
	{ "uid-base", KEY_U32, offsetof(struct conf, uid_base), 100000, UINT32_MAX - 131072u },
	{ "instances", KEY_U32, offsetof(struct conf, instances), 1, 1024 },
	{ "memory", KEY_U64, offsetof(struct conf, memory), 1 << 20, 1024 * GIB },
	{ "optional-stages", KEY_STAGES, offsetof(struct conf, optional), 0, 0 },
	{ NULL, KEY_NAME, 0, 0, 0 },
};

static const struct key function_keys[] = {
	{ "backend", KEY_NAME, offsetof(struct conf_function, backend), 0, 15 },
	{ "spin", KEY_U32, offsetof(struct conf_function, spin_us), 0, 1000000 },
	{ "arena", KEY_U64, offsetof(struct conf_function, arena_max), 0, 64 * GIB },
	{ "slots", KEY_POWER32, offsetof(struct conf_function, slots_max), 1, VFUN_SLOTS_MAX },
	{ "workers", KEY_POWER32, offsetof(struct conf_function, workers), 1, SERVE_WORKERS_MAX },
	{ "queue", KEY_POWER32, offsetof(struct conf_function, queue), 1, SERVE_QUEUE_MAX },
	{ "ready-timeout", KEY_U32, offsetof(struct conf_function, timeout_ms), 1, 600000 },
	{ "cpu", KEY_U32, offsetof(struct conf_function, cpu), 1, 100 },
	{ "overhead", KEY_U64, offsetof(struct conf_function, overhead), 32 << 20, 64 * GIB },
	{ "signature", KEY_LIST, offsetof(struct conf_function, signature), 0, VFUN_SIGNATURE_MAX - 1 },
	{ "xclbin", KEY_PATH, offsetof(struct conf_function, xrt.xclbin), 0, 199 },
	{ "kernel", KEY_WORD, offsetof(struct conf_function, xrt.kernel), 0, 63 },
	{ "device", KEY_WORD, offsetof(struct conf_function, xrt.device), 0, 15 },
	{ "emulated", KEY_PATH, offsetof(struct conf_function, xrt.emulated), 0, 99 },
	{ "arguments", KEY_ARGUMENTS, offsetof(struct conf_function, xrt), 0, 0 },
	{ "result", KEY_RESULT, offsetof(struct conf_function, xrt.res_kind), 0, 0 },
	{ "timeout", KEY_U32, offsetof(struct conf_function, xrt.timeout_ms), 10, 3600000 },
	{ "fallback", KEY_NAME, offsetof(struct conf_function, fallback), 0, VFUN_NAME_MAX - 1 },
	{ "measure", KEY_BOOL, offsetof(struct conf_function, xrt.measure), 0, 0 },
	{ "program", KEY_PATH, offsetof(struct conf_function, program.path), 0, 199 },
	{ "syscalls", KEY_CALLS, offsetof(struct conf_function, program.syscalls), 0, 511 },
	{ "files", KEY_LIST, offsetof(struct conf_function, program.files), 0, 511 },
	{ "call-timeout", KEY_U32, offsetof(struct conf_function, program.limit_ms), 0, 3600000 },
	{ NULL, KEY_NAME, 0, 0, 0 },
};

static const struct key host_keys[] = {
	{ "functions", KEY_FUNCTIONS, 0, 0, 0 },
	{ "instances", KEY_U32, offsetof(struct conf_vm, instances), 0, 1024 },
	{ "memory", KEY_U64, offsetof(struct conf_vm, memory), 0, 1024 * GIB },
	{ "total-instances", KEY_U32, offsetof(struct conf_vm, total_instances), 1, 1024 },
	{ "total-memory", KEY_U64, offsetof(struct conf_vm, total_memory), 1 << 20, 1024 * GIB },
	{ NULL, KEY_NAME, 0, 0, 0 },
};

static const struct key vm_keys[] = {
	{ "functions", KEY_FUNCTIONS, 0, 0, 0 },
	{ "instances", KEY_U32, offsetof(struct conf_vm, instances), 0, 256 },
	{ "memory", KEY_U64, offsetof(struct conf_vm, memory), 0, 1024 * GIB },
	{ "window", KEY_POWER, offsetof(struct conf_vm, window), 2 << 20, 64 * GIB },
	{ "ivshmem", KEY_POWER_OR_0, offsetof(struct conf_vm, ivshmem), 1 << 20, 64 * GIB },
	{ "direct-io", KEY_BOOL, offsetof(struct conf_vm, direct_io), 0, 0 },
	{ NULL, KEY_NAME, 0, 0, 0 },
};

static const struct key libvirt_keys[] = {
	{ "connect", KEY_URI, offsetof(struct conf, connect), 0, 99 },
	{ "watcher", KEY_NAME, offsetof(struct conf, watcher), 0, 31 },
	{ "user", KEY_USER, offsetof(struct conf, qemu.user), 0, 31 },
	{ "group", KEY_USER, offsetof(struct conf, qemu.group), 0, 31 },
	{ "functions", KEY_FUNCTIONS, 0, 0, 0 },
	{ "instances", KEY_U32, offsetof(struct conf, vm[CONF_LIBVIRT].instances), 0, 256 },
	{ "memory", KEY_U64, offsetof(struct conf, vm[CONF_LIBVIRT].memory), 0, 1024 * GIB },
	{ "window", KEY_POWER, offsetof(struct conf, vm[CONF_LIBVIRT].window), 2 << 20, 64 * GIB },
	{ NULL, KEY_NAME, 0, 0, 0 },
};

static const struct key net_keys[] = {
	{ "listen", KEY_ADDRESS, offsetof(struct conf, listen), 0, 63 },
	{ "connections", KEY_U32, offsetof(struct conf, net_connections), 1, 256 },
	{ "idle", KEY_U32, offsetof(struct conf, net_idle), 1, 86400 },
	{ NULL, KEY_NAME, 0, 0, 0 },
};

static const struct key net_client_keys[] = {
	{ "key-file", KEY_PATH, offsetof(struct conf_vm, key_file), 0, CONF_PATH_MAX - 1 },
	{ "functions", KEY_FUNCTIONS, 0, 0, 0 },
	{ "instances", KEY_U32, offsetof(struct conf_vm, instances), 0, 256 },
	{ "memory", KEY_U64, offsetof(struct conf_vm, memory), 0, 1024 * GIB },
	{ "connections", KEY_U32, offsetof(struct conf_vm, connections), 1, 256 },
	{ NULL, KEY_NAME, 0, 0, 0 },
};

static void
set_number(struct reading *r, const struct key *k, void *base, const char *value)
{
	uint64_t n = 0;
	char *at = (char *)base + k->offset;

	if (cli_size(value, &n) < 0)
		fault(r, r->line, "%s: '%s' is not a number (K, M and G may follow one)", k->name, value);
	else if ((n < k->min || n > k->max) && (n || k->type != KEY_POWER_OR_0))
		fault(r, r->line, "%s: %s is not between %llu and %llu", k->name, value, (unsigned long long)k->min,
		    (unsigned long long)k->max);
	else if (k->type != KEY_U32 && k->type != KEY_U64 && (n & (n - 1)))
		fault(r, r->line, "%s: %s is not a power of two", k->name, value);
	else if (k->type == KEY_U64 || k->type == KEY_POWER || k->type == KEY_POWER_OR_0)
		*(uint64_t *)(void *)at = n;
	else
		*(uint32_t *)(void *)at = (uint32_t)n;
}

/* Add to a list of functions; a list may go on in indented lines, which libinih gives as the same key once more. */
static void
add_functions(struct reading *r, struct wanted *wanted, const char *value)
{
	size_t at = strlen(wanted->names);

	wanted->line = r->line;
	if (snprintf(wanted->names + at, sizeof(wanted->names) - at, " %s", value) >= (int)(sizeof(wanted->names) - at))
		fault(r, r->line, "functions: the list is too long");
}

static void
add_stages(struct reading *r, uint32_t *optional, const char *value)
{
	char names[CONF_LINE_MAX + 1];
	char *save = NULL;

	snprintf(names, sizeof(names), "%s", value);
	for (char *s = strtok_r(names, " \t,", &save); s; s = strtok_r(NULL, " \t,", &save)) {
		uint32_t bit = sandbox_stage(s);

		if (!bit)
			fault(r, r->line, "optional-stages: there is no stage '%s': see vfund(8)", s);
		*optional |= bit;
	}
}

static void
set_text(struct reading *r, const struct key *k, void *base, const char *value)
{
	struct sockaddr_storage sa;
	socklen_t len;

	if (strlen(value) > k->max || (k->type == KEY_ADDRESS && net_address(value, &sa, &len)))
		fault(r, r->line, "%s: '%s' is not ADDRESS:PORT or [ADDRESS]:PORT, in numbers", k->name, value);
	else if (k->type == KEY_PATH && value[0] != '/')
		fault(r, r->line, "%s: '%s' is not a file's name from / on", k->name, value);
	else if (k->type == KEY_URI && !strstr(value, "://"))
		fault(r, r->line, "%s: '%s' is not libvirt's URI, as qemu:///system", k->name, value);
	else if (k->type == KEY_WORD && (!value[0] || strpbrk(value, " \t/")))
		fault(r, r->line, "%s: '%s' is not one word", k->name, value);
	else
		strcpy((char *)base + k->offset, value);
}

static void
set_result(struct reading *r, uint8_t *kind, const char *value)
{
	if (!strcmp(value, "int"))
		*kind = VFUN_KIND_INT;
	else if (!strcmp(value, "bytes"))
		*kind = VFUN_KIND_BYTES;
	else if (!strcmp(value, "hex"))
		*kind = VFUN_KIND_HEX;
	else
		fault(r, r->line, "result: '%s' is neither int nor bytes nor hex", value);
}

static void
add_arguments(struct reading *r, struct xrt_desc *d, const char *value)
{
	char why[BACKEND_TEXT];

	if (xrt_arguments(d, value, why))
		fault(r, r->line, "arguments: %s", why);
}

/* Text that may go on in further lines; one blank in between. */
static void
add_text(struct reading *r, const struct key *k, char *text, const char *value)
{
	size_t at = strlen(text);

	if (at + strlen(value) + 1 > k->max)
		fault(r, r->line, "%s: longer than %llu characters", k->name, (unsigned long long)k->max);
	else
		sprintf(text + at, "%s%s", at ? " " : "", value);
}

/* System calls, by name. */
static void
add_calls(struct reading *r, const struct key *k, char *text, const char *value)
{
	char names[CONF_LINE_MAX + 1];
	char *save = NULL;

	snprintf(names, sizeof(names), "%s", value);
	for (char *s = strtok_r(names, " \t,", &save); s; s = strtok_r(NULL, " \t,", &save))
		if (sandbox_call_number(s) < 0)
			fault(r, r->line, "syscalls: there is no system call '%s'", s);
		else
			add_text(r, k, text, s);
}

static void
set_key(struct reading *r, struct section *s, const char *name, const char *value)
{
	const struct key *k = s->keys;
	int again = !strcmp(s->last, name);

	snprintf(s->last, sizeof(s->last), "%s", name);
	while (k->name && strcmp(k->name, name))
		k++;
	if (!k->name) {
		fault(r, r->line, "'%s' is not a key of this section", name);
		return;
	}
	if (again && k->type != KEY_FUNCTIONS && k->type != KEY_STAGES && k->type != KEY_ARGUMENTS &&
	    k->type != KEY_CALLS && k->type != KEY_LIST) {
		fault(r, r->line, "%s: a second value, or a line that goes on", name);
		return;
	}
	switch (k->type) {
	case KEY_NAME:
	case KEY_USER:
		if (strlen(value) > k->max ||
		    (!conf_name_ok(value + (value[0] == '_')) &&
			(k->type != KEY_USER || strspn(value, "0123456789") != strlen(value))))
			fault(r, r->line, "%s: '%s' is not a name", name, value);
		else
			strcpy((char *)s->base + k->offset, value);
		/* Whether there is such a user is for vfund to say. */
		if (k->offset == offsetof(struct conf, user) && s->keys == vfund_keys)
			r->conf->user_line = r->line;
		break;
	case KEY_BOOL:
		if (strcmp(value, "yes") && strcmp(value, "no"))
			fault(r, r->line, "%s: '%s' is neither yes nor no", name, value);
		else
			*(uint32_t *)(void *)((char *)s->base + k->offset) = !strcmp(value, "yes");
		break;
	case KEY_FUNCTIONS:
		if (s->wanted)
			add_functions(r, s->wanted, value);
		break;
	case KEY_RESULT:
		set_result(r, (uint8_t *)s->base + k->offset, value);
		break;
	case KEY_ARGUMENTS:
		add_arguments(r, (struct xrt_desc *)(void *)((char *)s->base + k->offset), value);
		break;
	case KEY_CALLS:
		add_calls(r, k, (char *)s->base + k->offset, value);
		break;
	case KEY_LIST:
		add_text(r, k, (char *)s->base + k->offset, value);
		break;
	case KEY_ADDRESS:
	case KEY_PATH:
	case KEY_WORD:
	case KEY_URI:
		set_text(r, k, s->base, value);
		break;
	case KEY_STAGES:
		add_stages(r, (uint32_t *)(void *)((char *)s->base + k->offset), value);
		break;
	default:
		set_number(r, k, s->base, value);
	}
}

/* The VM of this name, made if it is new. NULL after a fault. */
static struct conf_vm *
vm_section(struct reading *r, const char *name)
{
	struct conf *c = r->conf;
	int i = conf_vm_index(c, name);

	if (i >= 0)
		return &c->vm[i];
	if (!conf_name_ok(name) || !strncmp(name, "uid-", 4)) {
		fault(r, r->line,
		    "[vm %s]: not a name for a VM: a letter, then letters, digits, '_', '-' or '.', 31 at most, and "
		    "not uid-...",
		    name);
		return NULL;
	}
	if (conf_net_index(c, name) >= 0) {
		fault(r, r->line, "[vm %s]: there is a [net-client] of this name", name);
		return NULL;
	}
	if (c->vms == CONF_VMS_MAX) {
		fault(r, r->line, "[vm %s]: more than %d VMs", name, CONF_VMS_MAX);
		return NULL;
	}
	strcpy(c->vm[c->vms].name, name);
	return &c->vm[c->vms++];
}

/* The net client of this name, likewise. One name is one client: it stands in records and in `vfun status`. */
static struct conf_vm *
net_section(struct reading *r, const char *name)
{
	struct conf *c = r->conf;
	int i = conf_net_index(c, name);

	if (i >= 0)
		return &c->vm[i];
	if (!conf_name_ok(name) || !strncmp(name, "uid-", 4) || conf_vm_index(c, name) >= 0) {
		fault(r, r->line, "[net-client %s]: not a name for a client: as a VM's, see vfun.conf(5), and no VM's",
		    name);
		return NULL;
	}
	if (c->nets == CONF_NETS_MAX) {
		fault(r, r->line, "[net-client %s]: more than %d of them", name, CONF_NETS_MAX);
		return NULL;
	}
	c->vm[CONF_NET + c->nets].line = r->line;
	strcpy(c->vm[CONF_NET + c->nets].name, name);
	return &c->vm[CONF_NET + c->nets++];
}

static struct conf_function *
function_section(struct reading *r, const char *name)
{
	struct conf *c = r->conf;
	int i = conf_function_index(c, name);

	if (i >= 0)
		return &c->function[i];
	if (!conf_name_ok(name)) {
		fault(r, r->line,
		    "[function %s]: not a name for a function: a letter, then letters, digits, '_', '-' or '.', 31 at "
		    "most",
		    name);
		return NULL;
	}
	if (c->functions == CONF_FUNCTIONS_MAX) {
		fault(r, r->line, "[function %s]: more than %d functions", name, CONF_FUNCTIONS_MAX);
		return NULL;
	}
	strcpy(c->function[c->functions].name, name);
	c->function[c->functions].line = r->line;
	return &c->function[c->functions++];
}

/* A new section begins, whether or not a key follows. */
static void
begin_section(struct reading *r, const char *name)
{
	struct conf *c = r->conf;
	struct section *s = &r->section;

	memset(s, 0, sizeof(*s));
	if (!strcmp(name, "vfund")) {
		*s = (struct section){ .keys = vfund_keys, .base = c };
	} else if (!strcmp(name, "host")) {
		*s = (struct section){ .keys = host_keys, .base = &c->vm[CONF_HOST], .wanted = &r->wanted[CONF_HOST] };
	} else if (!strncmp(name, "function ", 9)) {
		*s = (struct section){ .keys = function_keys, .base = function_section(r, name + 9) };
	} else if (!strncmp(name, "vm ", 3)) {
		struct conf_vm *vm = vm_section(r, name + 3);

		*s = (struct section){ .keys = vm_keys, .base = vm, .wanted = vm ? &r->wanted[vm - c->vm] : NULL };
	} else if (!strcmp(name, "libvirt")) {
		*s = (struct section){ .keys = libvirt_keys, .base = c, .wanted = &r->wanted[CONF_LIBVIRT] };
	} else if (!strcmp(name, "net")) {
		*s = (struct section){ .keys = net_keys, .base = c };
	} else if (!strncmp(name, "net-client ", 11)) {
		struct conf_vm *vm = net_section(r, name + 11);

		*s = (struct section){
			.keys = net_client_keys, .base = vm, .wanted = vm ? &r->wanted[vm - c->vm] : NULL
		};
	} else {
		fault(r, r->line,
		    "[%s] is not a section: [vfund], [host], [function NAME], [vm NAME], [libvirt], [net] and "
		    "[net-client NAME] are",
		    name);
	}
}

/* libinih's callback. Always 1: faults are ours to count; what ini_parse_stream() returns is then its own syntax
 * errors. */
static int
on_key(void *arg, const char *section, const char *name, const char *value)
{
	struct reading *r = arg;

	if (!*section)
		fault(r, r->line, "'%s' stands before the first section", name);
	else if (r->section.base)
		set_key(r, &r->section, name, value);
	return 1;
}

/* A line, whole or not: it is read to its end. Returns its length without that, -1 at the end of the file. */
static int
get_line(struct reading *r, char *buf, int size, int *nul)
{
	int n = 0;
	int c = 0;

	*nul = 0;
	while (c != '\n' && r->bytes < CONF_FILE_MAX && (c = getc(r->file)) != EOF) {
		r->bytes++;
		*nul |= c == '\0';
		if (n < size - 1)
			buf[n] = (char)c;
		n++;
	}
	buf[n < size ? n : size - 1] = '\0';
	return n ? n - (c == '\n') : -1;
}

/* The first of these characters, or the blank-and-semicolon of a comment, or the end: as libinih looks for them. */
static const char *
find_any(const char *s, const char *any)
{
	int blank = 0;

	for (; *s && !strchr(any, *s) && !(blank && *s == ';'); s++)
		blank = isspace((unsigned char)*s);
	return s;
}

static int
section_line(struct reading *r, const char *s)
{
	const char *end = find_any(s, "]");
	const char *rest = end + (*end != '\0');
	char name[CONF_LINE_MAX + 1];

	if (*end != ']')
		return -1;
	rest += strspn(rest, BLANKS);
	if (*rest && (*rest != ';' || rest == end + 1))
		fault(r, r->line, "'%.*s' stands after the section's name", (int)strcspn(rest, "\r\n"), rest);
	snprintf(name, sizeof(name), "%.*s", (int)(end - s), s);
	begin_section(r, name);
	r->goes_on = 0;
	return 0;
}

/* What libinih will take the line for: 0, or -1 where that is nothing at all. It tells of a section only with its first
 * key, and of such lines only the first; so sections begin here, and the caller takes such lines out. */
static int
look_at(struct reading *r, const char *line)
{
	const char *s = line + strspn(line, BLANKS);
	const char *end;

	if (!*s || *s == ';' || *s == '#' || (s > line && r->goes_on))
		return 0;
	if (*s == '[')
		return section_line(r, s + 1);
	end = find_any(s, "=:");
	if (*end != '=' && *end != ':')
		return -1;
	r->goes_on = end > s;
	return 0;
}

/* libinih's reader: counts lines, and keeps from it what it would misunderstand without a word: lines that are too long
 * for its buffer, which it would split, or cut off by a NUL byte. */
static char *
read_line(char *buf, int size, void *arg)
{
	struct reading *r = arg;
	int nul;
	int n;

	if (r->bytes >= CONF_FILE_MAX) {
		fault(r, r->line, "the file goes on beyond %d bytes", CONF_FILE_MAX);
		return NULL;
	}
	n = get_line(r, buf, size, &nul);
	if (n < 0)
		return NULL;
	r->line++;
	if (nul)
		fault(r, r->line, "there is a NUL byte in the line");
	else if (n > size - 2)
		fault(r, r->line, "the line is longer than %d characters", size - 2);
	/* A byte order mark is skipped, as libinih does. */
	else if (look_at(r, buf + (r->line == 1 && !strncmp(buf, "\xEF\xBB\xBF", 3) ? 3 : 0)))
		fault(r, r->line, "neither a [section], nor a key = value, nor a comment");
	else
		return buf;
	return strcpy(buf, "\n");
}

static void
resolve_functions(struct reading *r, unsigned vm)
{
	char *save = NULL;

	if (!r->wanted[vm].line)
		return;
	for (char *s = strtok_r(r->wanted[vm].names, " \t,", &save); s; s = strtok_r(NULL, " \t,", &save)) {
		int i = conf_function_index(r->conf, s);

		if (i < 0)
			fault(r, r->wanted[vm].line, "functions: there is no [function %s]", s);
		else
			r->conf->vm[vm].functions |= 1ull << i;
	}
}

static void
defaults(struct conf *c)
{
	memset(c, 0, sizeof(*c));
	strcpy(c->watcher, "nobody");
	c->instances = 256;
	c->memory = 4 * GIB;
	for (unsigned i = 0; i < CONF_FUNCTIONS_MAX; i++)
		c->function[i] = (struct conf_function){ .backend = "software",
			.spin_us = 50,
			.arena_max = 64 << 20,
			.slots_max = 64,
			.timeout_ms = 5000,
			.cpu = 100,
			.xrt = { .device = "0", .timeout_ms = 10000, .res_kind = VFUN_KIND_BYTES } };
	c->net_connections = 64;
	c->net_idle = 600;
	for (unsigned i = 0; i < CONF_CLIENTS; i++)
		c->vm[i] = (struct conf_vm){
			.window = GIB, .memory = GIB, .instances = 32, .direct_io = 1, .connections = 16
		};
	strcpy(c->vm[CONF_HOST].name, "host");
}

/* What vfun.conf says of it has to mean what the function says; from here on it is the function's text that counts. */
static void
check_signature(struct reading *r, struct conf_function *f, const struct backend_function *fn)
{
	struct vfun_signature own;
	struct vfun_signature said;
	char why[VFUN_TEXT_MAX];

	if (f->signature[0] && vfun_signature_parse(&said, f->signature, why))
		fault(r, f->line, "[function %s]: signature: %s", f->name, why);
	else if (f->signature[0] && !vfun_signature_parse(&own, fn->signature, why) && memcmp(&own, &said, sizeof(own)))
		fault(r, f->line, "[function %s]: signature: the function's own is %s", f->name, fn->signature);
	snprintf(f->signature, sizeof(f->signature), "%s", fn->signature);
}

/* Do both take the same, and give the same, as far as a command line can tell? */
static int
alike(const char *one, const char *other)
{
	struct vfun_signature a;
	struct vfun_signature b;
	char why[VFUN_TEXT_MAX];

	return !vfun_signature_parse(&a, one, why) && !vfun_signature_parse(&b, other, why) &&
	       vfun_signature_arg_kind(&a) == vfun_signature_arg_kind(&b) &&
	       vfun_signature_res_kind(&a) == vfun_signature_res_kind(&b);
}

/* A function in hardware: is its description complete, and does the software that takes its place fit? */
static void
check_hardware(struct reading *r, unsigned i)
{
	struct conf_function *f = &r->conf->function[i];
	const struct backend_function *software = backend_function(&backend_software, f->fallback);
	struct xrt_texts texts;
	char why[BACKEND_TEXT];
	struct backend_function made;
	const char *lacks = !f->xrt.xclbin[0]	? "xclbin"
			    : !f->xrt.kernel[0] ? "kernel"
			    : !f->xrt.nargs	? "arguments"
						: NULL;

	if (lacks) {
		fault(r, f->line, "[function %s]: backend xrt needs %s", f->name, lacks);
		return;
	}
	if (f->workers > 1)
		fault(r, f->line, "[function %s]: workers: hardware has a queue instead", f->name);
	if (xrt_check(&f->xrt, why)) {
		fault(r, f->line, "[function %s]: arguments: %s", f->name, why);
		return;
	}
	xrt_function(&f->xrt, f->name, &texts, &made);
	check_signature(r, f, &made);
	if (f->fallback[0] && !software)
		fault(r, f->line, "[function %s]: fallback: backend software has no function %s", f->name, f->fallback);
	else if (software && !f->xrt.measure && !alike(software->signature, made.signature))
		fault(r, f->line, "[function %s]: fallback: %s takes or gives something else", f->name, f->fallback);
}

/* A program: what vfun.conf alone can tell; the rest is asked of the program itself, see roles/daemon/programs.c. */
static void
check_program(struct reading *r, const struct conf_function *f)
{
	char files[sizeof(f->program.files)];
	char *save = NULL;
	unsigned n = 0;

	if (!f->program.path[0])
		fault(r, f->line, "[function %s]: backend program needs program", f->name);
	strcpy(files, f->program.files);
	for (char *s = strtok_r(files, BLANKS ",", &save); s; s = strtok_r(NULL, BLANKS ",", &save), n++)
		if (s[0] != '/' || strstr(s, "/../"))
			fault(r, f->line, "[function %s]: files: '%s' is not a file's name from / on", f->name, s);
	if (n > PROGRAM_FILES_MAX)
		fault(r, f->line, "[function %s]: files: more than %d of them", f->name, PROGRAM_FILES_MAX);
}

static void
check_function(struct reading *r, unsigned i)
{
	struct conf_function *f = &r->conf->function[i];
	const struct backend *b = backend_find(f->backend);
	int hardware = conf_is_hardware(f);

	if (!f->workers)
		f->workers = 1;
	if (hardware && !f->queue)
		f->queue = HARDWARE_QUEUE;
	if (!f->overhead)
		f->overhead = hardware ? HARDWARE_OVERHEAD : conf_is_program(f) ? PROGRAM_OVERHEAD : 64 << 20;
	if (!conf_is_program(f) && (f->program.path[0] || f->program.syscalls[0] || f->program.files[0]))
		fault(r, f->line, "[function %s]: program, syscalls and files are for backend program", f->name);
	if (hardware && f->program.limit_ms)
		fault(r, f->line, "[function %s]: call-timeout is for software: a device has timeout", f->name);
	if (hardware)
		check_hardware(r, i);
	else if (f->xrt.xclbin[0] || f->xrt.kernel[0] || f->xrt.nargs || f->fallback[0] || f->queue)
		fault(r, f->line, "[function %s]: xclbin, kernel, arguments, queue and fallback are for backend xrt",
		    f->name);
	else if (conf_is_program(f))
		check_program(r, f);
	else if (!b || b->half)
		fault(r, f->line, "[function %s]: there is no backend '%s' (there are: software, program, xrt)",
		    f->name, f->backend);
	else if (!backend_function(b, f->name))
		fault(r, f->line, "[function %s]: backend %s has no such function", f->name, f->backend);
	else if (f->workers > 1 && !backend_function(b, f->name)->threads)
		fault(r, f->line, "[function %s]: workers: this function can have only one", f->name);
	else
		check_signature(r, f, backend_function(b, f->name));
}

/* What VMs, net clients and root have left of everything, whatever users of the host do: a quarter, unless it is said.
 */
static void
bound_host(struct conf *c)
{
	struct conf_vm *host = &c->vm[CONF_HOST];

	if (!host->total_instances)
		host->total_instances = c->instances - c->instances / 4;
	if (!host->total_memory)
		host->total_memory = c->memory - c->memory / 4;
}

int
conf_load(struct conf *c, const char *path, conf_complain *complain, void *arg)
{
	struct reading *r = calloc(1, sizeof(*r));
	int n;

	if (!r)
		return -ENOMEM;
	defaults(c);
	*r = (struct reading){ .conf = c, .complain = complain, .arg = arg, .file = fopen(path, "re") };
	if (!r->file) {
		n = -errno;
		free(r);
		return n;
	}
	n = ini_parse_stream(read_line, r, on_key, r);
	if (n > 0)
		fault(r, n, "neither a [section], nor a key = value, nor a comment");
	else if (n < 0)
		fault(r, 0, "out of memory");
	if (ferror(r->file))
		fault(r, 0, "reading failed: %s", strerror(EIO));
	for (unsigned i = 0; i < CONF_CLIENTS; i++)
		resolve_functions(r, i);
	for (unsigned i = CONF_NET; i < CONF_NET + c->nets; i++)
		if (!c->vm[i].key_file[0])
			fault(r, c->vm[i].line, "[net-client %s]: it needs a key-file", c->vm[i].name);
	for (unsigned i = 0; i < c->functions; i++)
		check_function(r, i);
	bound_host(c);
	for (unsigned i = 0; i < CONF_CLIENTS; i++)
		strcpy(c->vm[i].id, c->vm[i].name);
	if (!c->functions)
		fault(r, 0, "there is no [function NAME]: nothing to offer");
	n = r->faults;
	fclose(r->file);
	free(r);
	return n;
}

int
conf_vm_index(const struct conf *c, const char *name)
{
	for (unsigned i = 0; i < c->vms; i++)
		if (!strcmp(c->vm[i].name, name))
			return (int)i;
	return -1;
}

int
conf_net_index(const struct conf *c, const char *name)
{
	for (unsigned i = CONF_NET; i < CONF_NET + c->nets; i++)
		if (!strcmp(c->vm[i].name, name))
			return (int)i;
	return -1;
}

int
conf_function_index(const struct conf *c, const char *name)
{
	for (unsigned i = 0; i < c->functions; i++)
		if (!strcmp(c->function[i].name, name) && !c->function[i].withdrawn)
			return (int)i;
	return -1;
}

const char *
conf_path(const char *opt)
{
	static char buf[PATH_MAX];
	const char *dir;

	if (opt)
		return opt;
	if (geteuid() != 0) {
		dir = getenv("XDG_CONFIG_HOME");
		if (dir && *dir)
			snprintf(buf, sizeof(buf), "%s/vfun.conf", dir);
		else if ((dir = getenv("HOME")) && *dir)
			snprintf(buf, sizeof(buf), "%s/.config/vfun.conf", dir);
		if (buf[0] && access(buf, R_OK) == 0)
			return buf;
	}
	return "/etc/vfun.conf";
}

const char *
conf_run(const char *opt)
{
	static char buf[PATH_MAX];
	const char *dir = opt ? opt : getenv("VFUN_RUN_DIR");

	if (dir && *dir)
		return dir;
	if (geteuid() == 0)
		return "/run/vfun";
	dir = getenv("XDG_RUNTIME_DIR");
	if (!dir || !*dir)
		return NULL;
	snprintf(buf, sizeof(buf), "%s/vfun", dir);
	return buf;
}

const char *
conf_state(const char *opt, const char *run)
{
	static char buf[PATH_MAX];
	const char *other = getenv("VFUN_RUN_DIR");
	const char *dir;

	if (opt || run || (other && *other))
		return opt;
	if (geteuid() == 0)
		return "/var/lib/vfun";
	dir = getenv("XDG_STATE_HOME");
	if (dir && *dir)
		snprintf(buf, sizeof(buf), "%s/vfun", dir);
	else if ((dir = getenv("HOME")) && *dir)
		snprintf(buf, sizeof(buf), "%s/.local/state/vfun", dir);
	return buf[0] ? buf : NULL;
}
