/* SPDX-License-Identifier: MIT
 *
 * choose.c - which path can a domain have?
 *
 * libvirt is asked which QEMU the domain has and whether it has virtiofs (domain capabilities); that QEMU is asked for
 * its devices, as `vfun share --qemu-args` does, since libvirt knows nothing of the test device. Where it can't be
 * executed, as for libvirt on another host or its test driver, what libvirt says must do.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../common/qemu.h"
#include "../roles.h"
#include "command.h"

#define FILESYSTEM "/domainCapabilities/devices/filesystem"
#define IVSHMEM_DEFAULT (64ull << 20)
#define PORT_ROOM (2ull << 20) /* what a firmware reserves at a root port for a device to come */

struct able {
	int asked;    /* 1: the QEMU was asked itself */
	int virtiofs; /* 0 only where it is said that there is none: libvirt's test driver says nothing */
	int ivshmem;
	int dax;
	int linker;	   /* 1: QEMU follows this user's link in /dev/shm */
	int labelled;	   /* 1: SELinux confines it, whose policies may not let it have memory of another's */
	uint32_t stranger; /* QEMU runs as this user, who isn't vfund's; 0: he is, or it isn't known */
	unsigned major, minor;
	char emulator[PATH_MAX];
};

uint64_t
ivshmem_size(const struct domain_ask *ask)
{
	uint64_t memory = ask->memory ? ask->memory : IVSHMEM_DEFAULT;
	uint64_t size = 1 << 20;

	if (ask->memory_max && memory > ask->memory_max)
		memory = ask->memory_max;
	while (size < memory && size < 64ull << 30)
		size <<= 1;
	return size;
}

static void
ask_libvirt(const struct job *j, const struct xml_facts *f, struct able *a)
{
	char *text = j->v.ConnectGetDomainCapabilities(j->conn, f->emulator[0] ? f->emulator : NULL,
	    f->arch[0] ? f->arch : NULL, f->machine[0] ? f->machine : NULL, f->type, 0);
	struct xml_doc *doc = xml_read(text);

	strcpy(a->emulator, f->emulator);
	a->virtiofs = 1;
	if (doc) {
		if (!a->emulator[0])
			xml_string(doc, "string(/domainCapabilities/path)", a->emulator, sizeof(a->emulator));
		a->virtiofs =
		    !xml_has(doc, FILESYSTEM) ||
		    xml_has(doc, FILESYSTEM "[@supported='yes']/enum[@name='driverType']/value[.='virtiofs']");
		xml_free(doc);
	}
	free(text);
}

static void
ask_qemu(struct able *a)
{
	struct qemu q;

	if (!a->emulator[0] || a->emulator[0] != '/' || qemu_detect(&q, a->emulator))
		return;
	a->asked = 1;
	a->dax = q.form == QEMU_DAX;
	a->ivshmem = q.ivshmem;
	a->major = q.major;
	a->minor = q.minor;
}

/* Does SELinux refuse what its policy doesn't allow, or only say so? */
static int
enforcing(void)
{
	FILE *f = fopen("/sys/fs/selinux/enforce", "re");
	int c = f ? getc(f) : EOF;

	if (f)
		fclose(f);
	return c == '1';
}

/* The ivshmem memory is a descriptor, which only the user of the process that holds it can open; a vfund of root's has
 * one of QEMU's user. The run folder tells whose it is. */
static void
ask_identity(const struct job *j, struct able *a)
{
	struct stat st;
	uint32_t own = stat(j->ask->run, &st) == 0 ? st.st_uid : geteuid();
	struct identity id;

	(void)qemu_identity(&j->v, j->conn, &id);
	if (id.uid != UINT32_MAX && own && id.uid != own)
		a->stranger = id.uid;
	a->linker = !geteuid() || id.uid == geteuid();
	a->labelled = id.kvm[0] && enforcing();
}

static int
refuse_dax(const struct job *j, const struct able *a)
{
	if (a->asked)
		return say(j, EXIT_NO_PATH, "path dax needs QEMU 11.1 with vhost-user-test-device-pci, and %s is %u.%u",
		    a->emulator, a->major, a->minor);
	return say(j, EXIT_NO_PATH, "path dax needs QEMU 11.1, and '%s' can't be asked from here", a->emulator);
}

/* An i440fx machine's guest finds a place for any device; what a root port has was decided by the firmware. */
static int
can_be_plugged(const struct job *j, const struct xml_facts *f)
{
	return f->kind == XML_I440FX || (f->kind == XML_Q35 && f->root_ports > 1 && ivshmem_size(j->ask) <= PORT_ROOM);
}

/* DAX and ivshmem come by qemu:commandline, which is read when QEMU starts, and want a place; ivshmem can be plugged as
 * well. 0 or a status. */
static int
check_place(const struct job *j, const struct xml_facts *f, int live, uint32_t path)
{
	const char *name = xml_path_name(path);

	if (live && path == VIRTD_IVSHMEM)
		return can_be_plugged(j, f)
			   ? EXIT_OK
			   : say(j, EXIT_NO_PATH,
				 "path ivshmem can be plugged into an i440fx machine, or into a q35 machine "
				 "that has two PCIe root ports free, with --memory 2M, since a root port has "
				 "no more room: use --config, and start it anew");
	if (live)
		return say(j, EXIT_NO_PATH,
		    "path %s can't be given to a running domain, since libvirt reads qemu:commandline when it starts: "
		    "use --config, and start it anew",
		    name);
	if (f->kind == XML_OTHER)
		return say(
		    j, EXIT_NO_PATH, "path %s is for machines q35 and i440fx, and this one is '%s'", name, f->machine);
	if (!f->slot)
		return say(j, EXIT_NO_PATH,
		    "path %s needs a free slot of PCI bus 0, and all are taken: remove a device, or use --path copy",
		    name);
	return EXIT_OK;
}

static int
check(const struct job *j, const struct xml_facts *f, const struct able *a, int live, uint32_t path)
{
	if (path == VIRTD_DAX && !a->dax)
		return refuse_dax(j, a);
	if (path == VIRTD_IVSHMEM && !a->ivshmem)
		return say(
		    j, EXIT_NO_PATH, "path ivshmem needs a QEMU with ivshmem-plain, which '%s' has not", a->emulator);
	if (path == VIRTD_IVSHMEM && a->stranger)
		return say(j, EXIT_NO_PATH,
		    "path ivshmem needs a QEMU that runs as vfund's own user, or a vfund of root's, and libvirt runs "
		    "QEMU as uid %u: see user in qemu.conf, or use --path copy",
		    a->stranger);
	if (path == VIRTD_IVSHMEM && live && !a->linker)
		return say(j, EXIT_NO_PATH,
		    "path ivshmem can be plugged by root or QEMU's own user only: use --config, or --path copy");
	if (path != VIRTD_DAX && !a->virtiofs)
		return say(j, EXIT_NO_PATH, "its QEMU is too old: libvirt says that '%s' has no virtiofs", a->emulator);
	return path == VIRTD_COPY ? EXIT_OK : check_place(j, f, live, path);
}

int
choose_path(const struct job *j, const struct xml_facts *f, int live, uint32_t *path)
{
	struct able a = { 0 };
	int qemu = !strcmp(f->type, "kvm") || !strcmp(f->type, "qemu") || !strcmp(f->type, "test");
	int place = !live && f->kind != XML_OTHER && f->slot;
	int bar;

	if (!qemu)
		return say(j, EXIT_NO_PATH, "it is a domain of type '%s', and QEMU's are wanted: kvm or qemu", f->type);
	ask_libvirt(j, f, &a);
	ask_qemu(&a);
	ask_identity(j, &a);
	*path = j->ask->path;
	bar = a.ivshmem && !a.stranger && (live ? a.linker && can_be_plugged(j, f) : place);
	if (*path == VIRTD_AUTO)
		*path = a.labelled ? VIRTD_COPY : a.dax && place ? VIRTD_DAX : bar ? VIRTD_IVSHMEM : VIRTD_COPY;
	return check(j, f, &a, live, *path);
}
