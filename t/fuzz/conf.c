/* SPDX-License-Identifier: MIT
 *
 * conf.c - fuzz target: vfun.conf(5)
 *
 * The input is the file. Whatever it says, conf_load() counts the faults it complains of, and what it leaves behind is
 * within the limits that the rest of vfund relies on.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <stdio.h>
#include <unistd.h>

#include "fuzz.h"

static const uint8_t *file;
static size_t file_size;

static FILE *
fuzz_fopen(const char *path, const char *mode)
{
	(void)path;
	(void)mode;
	/* fmemopen() refuses a length of 0. */
	return file_size ? fmemopen((void *)(uintptr_t)file, file_size, "r") : fopen("/dev/null", "re");
}

#define fopen(path, mode) fuzz_fopen(path, mode)
#include "../../roles/common/conf.c"

static void
complain_of(void *arg, int line, const char *text)
{
	CHECK(line >= 0, "%d", line);
	CHECK(text[0] && strlen(text) < 256, "%s", text);
	++*(int *)arg;
}

static void
check_vm(const struct conf *c, const struct conf_vm *vm)
{
	CHECK(!(vm->window & (vm->window - 1)) && vm->window >= 2 << 20 && vm->window <= 64 * GIB, "window");
	CHECK(vm->memory <= 1024 * GIB && vm->instances <= 1024 && vm->direct_io <= 1, "a VM's limits");
	CHECK(c->functions == 64 || !(vm->functions >> c->functions), "functions that aren't there");
}

static void
check_conf(const struct conf *c, int faults)
{
	CHECK(c->functions <= CONF_FUNCTIONS_MAX && c->vms <= CONF_VMS_MAX, "too many");
	CHECK(memchr(c->user, 0, sizeof(c->user)), "user");
	CHECK(c->instances >= 1 && c->instances <= 1024 && c->memory >= 1 << 20 && c->memory <= 1024 * GIB, "limits");
	for (unsigned i = 0; i < c->functions; i++) {
		const struct conf_function *f = &c->function[i];

		CHECK(memchr(f->name, 0, sizeof(f->name)) && conf_name_ok(f->name), "a function's name");
		CHECK(conf_function_index(c, f->name) == (int)i, "%s twice", f->name);
		CHECK(memchr(f->backend, 0, sizeof(f->backend)), "backend");
		CHECK(f->slots_max && f->slots_max <= VFUN_SLOTS_MAX && !(f->slots_max & (f->slots_max - 1)), "slots");
		CHECK(f->arena_max <= 64 * GIB && f->spin_us <= 1000000 && f->timeout_ms, "a function's limits");
		CHECK(faults || conf_is_hardware(f) || conf_is_program(f) ||
			  backend_function(backend_find(f->backend), f->name),
		    "not to be computed");
	}
	for (unsigned i = 0; i < c->vms; i++) {
		CHECK(memchr(c->vm[i].name, 0, sizeof(c->vm[i].name)) && conf_name_ok(c->vm[i].name), "a VM's name");
		CHECK(conf_vm_index(c, c->vm[i].name) == (int)i, "%s twice", c->vm[i].name);
		check_vm(c, &c->vm[i]);
	}
	check_vm(c, &c->vm[CONF_HOST]);
	CHECK(c->nets <= CONF_NETS_MAX && memchr(c->listen, 0, sizeof(c->listen)), "net");
	CHECK(c->net_connections >= 1 && c->net_connections <= 256 && c->net_idle >= 1 && c->net_idle <= 86400,
	    "net's limits");
	for (unsigned i = CONF_NET; i < CONF_NET + c->nets; i++) {
		const struct conf_vm *v = &c->vm[i];

		CHECK(memchr(v->name, 0, sizeof(v->name)) && conf_name_ok(v->name), "a net client's name");
		CHECK(conf_net_index(c, v->name) == (int)i && conf_vm_index(c, v->name) < 0, "%s twice", v->name);
		CHECK(memchr(v->key_file, 0, sizeof(v->key_file)) && (faults || v->key_file[0] == '/'), "key file");
		CHECK(v->connections >= 1 && v->connections <= 256, "connections");
		check_vm(c, v);
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct conf c;
	int complaints = 0;
	int faults;

	file = data;
	file_size = size;
	faults = conf_load(&c, "", complain_of, &complaints);
	CHECK(faults == complaints, "%d faults, %d complaints", faults, complaints);
	check_conf(&c, faults);
	return 0;
}
