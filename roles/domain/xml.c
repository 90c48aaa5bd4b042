/* SPDX-License-Identifier: MIT
 *
 * xml.c - a domain's definition: what it has, and what vfun adds to it and takes away again; in the host half
 *
 * What is added, by path:
 *
 *   all      <metadata>: the element, by which vfund knows the domain
 *   copy     <filesystem type='mount'>, driver virtiofs, with the share's socket
 *   ivshmem  that, and by <qemu:commandline> an ivshmem-plain device over the share's memory. libvirt's own <shmem>
 *            always takes the file /dev/shm/NAME, which is good enough for plugging (attach.c)
 *   dax      by <qemu:commandline> the device that libvirt doesn't know
 *
 * Nothing that is recognized by these marks is anybody else's: "vfun" as the id of a chardev, "vfunbar" as that of a
 * memory object, a file system whose socket is this domain's share. So taking away needs no notes, but for one: what
 * --fix changed, which stands in the element.
 *
 * A device of qemu:commandline gets a slot of the root bus that libvirt has given to nobody, from above, since libvirt
 * gives from below.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../common/cli.h"
#include "../common/qemu.h"
#include "lxml.h"
#include "xml.h"

#define COMMANDLINE "/domain/q:commandline"
#define ELEMENT "/domain/metadata/v:vfun"
/* In a definition; or alone, where libvirt has taken the name space away, of which versions leave more or less. */
#define ANY_ELEMENT "(" ELEMENT "|/v:vfun|/vfun|/*[name()='vfun:vfun'])"

static const char *const path_names[] = { "auto", "dax", "ivshmem", "copy" };

const char *
xml_path_name(uint32_t path)
{
	return path < sizeof(path_names) / sizeof(path_names[0]) ? path_names[path] : "?";
}

int
xml_file(char *buf, size_t room, const char *run, const char *uuid, const char *name)
{
	int n = snprintf(buf, room, "%s/vmcli/%s/%s", run, uuid, name);

	return n < 0 || (size_t)n >= room ? -ENAMETOOLONG : 0;
}

static void
take_slot(struct xml_node *n, void *arg)
{
	uint32_t *slots = arg;
	char bus[16];
	char slot[16];

	xml_attribute(n, "bus", bus, sizeof(bus));
	xml_attribute(n, "slot", slot, sizeof(slot));
	if (strtoul(bus, NULL, 0) == 0 && strtoul(slot, NULL, 0) < 32)
		*slots |= 1u << strtoul(slot, NULL, 0);
}

/* Somebody's own device on QEMU's command line. */
static void
take_addr(struct xml_node *n, void *arg)
{
	uint32_t *slots = arg;
	char value[1024];
	const char *p;

	xml_attribute(n, "value", value, sizeof(value));
	p = strstr(value, "addr=");
	if (p && strtoul(p + 5, NULL, 16) < 32)
		*slots |= 1u << strtoul(p + 5, NULL, 16);
}

/* The highest that is free. The lowest three and q35's last have devices that no definition names. */
static unsigned
free_slot(const struct xml_facts *f)
{
	uint32_t taken = f->slots | 7u | (f->kind == XML_Q35 ? 1u << 31 : 0);

	if (f->kind == XML_OTHER)
		return 0;
	for (unsigned slot = 30; slot > 2; slot--)
		if (!(taken & (1u << slot)))
			return slot;
	return 0;
}

struct ports {
	struct xml_doc *doc;
	struct xml_facts *facts;
};

static void
look_at_port(struct xml_node *n, void *arg)
{
	struct ports *p = arg;
	char index[16];
	char expression[128];

	xml_attribute(n, "index", index, sizeof(index));
	snprintf(expression, sizeof(expression), "/domain/devices/*/address[@type='pci' and @bus='0x%02lx']",
	    strtoul(index, NULL, 0));
	if (xml_has(p->doc, expression))
		return;
	if (!p->facts->root_ports++)
		p->facts->port = (unsigned)strtoul(index, NULL, 0);
}

static enum xml_machine
machine_kind(const char *machine)
{
	if (strstr(machine, "q35"))
		return XML_Q35;
	return strstr(machine, "i440fx") || !strcmp(machine, "pc") ? XML_I440FX : XML_OTHER;
}

/* Shared, and of a kind that has a descriptor to hand to another process. */
static void
memory_facts(struct xml_doc *doc, struct xml_facts *f)
{
	int huge = xml_has(doc, "/domain/memoryBacking/hugepages");
	int cells = xml_has(doc, "/domain/cpu/numa/cell");
	int all = cells && !xml_has(doc, "/domain/cpu/numa/cell[not(@memAccess='shared')]");

	xml_string(doc, "string(/domain/memoryBacking/source/@type)", f->source, sizeof(f->source));
	xml_string(doc, "string(/domain/memoryBacking/access/@mode)", f->access, sizeof(f->access));
	f->numa_private = xml_has(doc, "/domain/cpu/numa/cell[@memAccess='private']");
	f->shared = !f->numa_private && (all || !strcmp(f->access, "shared")) &&
		    (huge || !strcmp(f->source, "memfd") || !strcmp(f->source, "file"));
}

void
xml_facts(struct xml_doc *doc, struct xml_facts *f)
{
	struct ports ports = { .doc = doc, .facts = f };

	memset(f, 0, sizeof(*f));
	xml_string(doc, "string(/domain/uuid)", f->uuid, sizeof(f->uuid));
	xml_string(doc, "string(/domain/@type)", f->type, sizeof(f->type));
	xml_string(doc, "string(/domain/os/type/@arch)", f->arch, sizeof(f->arch));
	xml_string(doc, "string(/domain/os/type/@machine)", f->machine, sizeof(f->machine));
	xml_string(doc, "string(/domain/devices/emulator)", f->emulator, sizeof(f->emulator));
	f->kind = machine_kind(f->machine);
	f->element = xml_has(doc, ELEMENT);
	f->foreign = xml_has(doc, "/domain/devices/filesystem[target/@dir='" QEMU_TAG "']");
	memory_facts(doc, f);
	xml_each(doc, "/domain/devices/*/address[@type='pci']", take_slot, &f->slots);
	xml_each(doc, COMMANDLINE "/q:arg", take_addr, &f->slots);
	f->slot = free_slot(f);
	xml_each(doc, "/domain/devices/controller[@type='pci' and @model='pcie-root-port']", look_at_port, &ports);
}

/* A size or number of the element. 0 or -EINVAL. */
static int
number(struct xml_doc *doc, const char *name, uint64_t *n)
{
	char expression[256];
	char value[XML_WORD];

	*n = 0;
	snprintf(expression, sizeof(expression), "string(" ANY_ELEMENT "/@%s)", name);
	xml_string(doc, expression, value, sizeof(value));
	return value[0] ? cli_size(value, n) : 0;
}

/* Blanks, commas and line ends between names become one blank. */
static void
squeeze(char *list)
{
	char *to = list;

	for (char *s = list; *s; s++) {
		if (!strchr(" \t\r\n,", *s))
			*to++ = *s;
		else if (to > list && to[-1] != ' ')
			*to++ = ' ';
	}
	if (to > list && to[-1] == ' ')
		to--;
	*to = '\0';
}

const char *
xml_element(struct xml_doc *doc, struct xml_element *e)
{
	char path[XML_WORD];
	uint64_t n;

	memset(e, 0, sizeof(*e));
	xml_string(doc, "string(" ANY_ELEMENT "/@path)", path, sizeof(path));
	while (path[0] && e->path < VIRTD_COPY && strcmp(path, path_names[e->path]))
		e->path++;
	if (path[0] && strcmp(path, path_names[e->path]))
		return "path is neither dax nor ivshmem nor copy";
	if (number(doc, "instances", &n) || n > 256)
		return "instances is not a number up to 256";
	e->instances = (uint32_t)n;
	if (number(doc, "memory", &e->memory))
		return "memory is not a size like 256M";
	if (number(doc, "ivshmem", &e->ivshmem) || (e->ivshmem & (e->ivshmem - 1)))
		return "ivshmem is not a power of two";
	if (xml_has(doc, ANY_ELEMENT "[string-length(@functions) > 511]"))
		return "the list of functions is too long";
	xml_string(doc, "string(" ANY_ELEMENT "/@functions)", e->functions, sizeof(e->functions));
	squeeze(e->functions);
	xml_string(doc, "string(" ANY_ELEMENT "/@fixed)", e->fixed, sizeof(e->fixed));
	return NULL;
}

static void
put_size(struct xml_node *n, const char *name, uint64_t size)
{
	char text[XML_WORD];

	if (!size)
		return;
	if (size % (1u << 20))
		snprintf(text, sizeof(text), "%" PRIu64, size);
	else
		snprintf(text, sizeof(text), "%" PRIu64 "M", size >> 20);
	lxml.SetProp(n, name, text);
}

static void
put_element(struct xml_node *n, const struct xml_element *e)
{
	char text[XML_WORD];

	if (e->functions[0])
		lxml.SetProp(n, "functions", e->functions);
	snprintf(text, sizeof(text), "%u", e->instances);
	if (e->instances)
		lxml.SetProp(n, "instances", text);
	put_size(n, "memory", e->memory);
	put_size(n, "ivshmem", e->ivshmem);
	lxml.SetProp(n, "path", xml_path_name(e->path));
	if (e->fixed[0])
		lxml.SetProp(n, "fixed", e->fixed);
}

char *
xml_element_text(const struct xml_element *e)
{
	struct xml_doc *doc = xml_read("<vfun/>");
	char *text;

	if (!doc)
		return NULL;
	put_element(lxml.DocGetRootElement(doc), e);
	text = xml_text(doc);
	xml_free(doc);
	return text;
}

static void
put_filesystem(struct xml_node *fs, const char *socket)
{
	lxml.SetProp(fs, "type", "mount");
	xml_add(fs, "driver", "type", "virtiofs");
	xml_add(fs, "source", "socket", socket);
	xml_add(fs, "target", "dir", QEMU_TAG);
}

char *
xml_device(const char *socket)
{
	struct xml_doc *doc = xml_read("<filesystem/>");
	char *text;

	if (!doc)
		return NULL;
	put_filesystem(lxml.DocGetRootElement(doc), socket);
	text = xml_text(doc);
	xml_free(doc);
	return text;
}

/* The domain's own <filesystem>: its socket is <anything>/vmcli/<uuid>/share.sock. */
static struct xml_node *
own_filesystem(struct xml_doc *doc, const char *uuid)
{
	char expression[256];

	snprintf(expression, sizeof(expression),
	    "/domain/devices/filesystem[driver/@type='virtiofs' and contains(source/@socket, '/vmcli/%s/share.sock')]",
	    uuid);
	return xml_first(doc, expression);
}

static struct xml_node *
own_shmem(struct xml_doc *doc, const char *uuid)
{
	char expression[128];

	snprintf(expression, sizeof(expression), "/domain/devices/shmem[@name='" XML_SHMEM_PREFIX "%s']", uuid);
	return xml_first(doc, expression);
}

char *
xml_own_device(struct xml_doc *doc, const char *uuid, enum xml_kind kind)
{
	struct xml_node *n = kind == XML_SHMEM ? own_shmem(doc, uuid) : own_filesystem(doc, uuid);
	struct xml_doc *alone = n ? lxml.NewDoc("1.0") : NULL;
	char *text;

	if (!alone)
		return NULL;
	lxml.DocSetRootElement(alone, lxml.DocCopyNode(n, alone, 1));
	text = xml_text(alone);
	xml_free(alone);
	return text;
}

char *
xml_shmem(const char *uuid, uint64_t size, unsigned port)
{
	static const char form[] = "<shmem name='" XML_SHMEM_PREFIX "%s'><model type='ivshmem-plain'/>"
				   "<size unit='M'>%" PRIu64 "</size>%s</shmem>";
	char address[128] = "";
	char text[sizeof(form) + sizeof(address) + 64];
	struct xml_doc *doc;
	char *r;

	/* libvirt takes it for a conventional device, and puts it into a root port only if told so. */
	if (port)
		snprintf(
		    address, sizeof(address), "<address type='pci' domain='0' bus='%u' slot='0' function='0'/>", port);
	snprintf(text, sizeof(text), form, uuid, size >> 20, address);
	doc = xml_read(text);
	r = doc ? xml_text(doc) : NULL;
	xml_free(doc);
	return r;
}

void
xml_share_memory(struct xml_doc *doc, const struct xml_facts *f, struct xml_element *e)
{
	struct xml_node *backing = xml_child(doc, "memoryBacking");
	struct xml_node *source = xml_first(doc, "/domain/memoryBacking/source");
	struct xml_node *access = xml_first(doc, "/domain/memoryBacking/access");
	int keep = !strcmp(f->source, "file") || !strcmp(f->source, "memfd") ||
		   xml_has(doc, "/domain/memoryBacking/hugepages");

	snprintf(e->fixed, sizeof(e->fixed), "%.60s %.60s",
	    keep     ? "same"
	    : source ? f->source
		     : "none",
	    access ? f->access : "none");
	if (!keep && source)
		lxml.SetProp(source, "type", "memfd");
	else if (!keep)
		xml_add(backing, "source", "type", "memfd");
	if (access)
		lxml.SetProp(access, "mode", "shared");
	else
		xml_add(backing, "access", "mode", "shared");
}

static void
put_back(struct xml_doc *doc, const char *expression, const char *attribute, const char *was)
{
	struct xml_node *n = xml_first(doc, expression);

	if (!n || !strcmp(was, "same"))
		return;
	if (!strcmp(was, "none"))
		xml_remove(n);
	else
		lxml.SetProp(n, attribute, was);
}

static void
unshare_memory(struct xml_doc *doc, const char *fixed)
{
	char source[XML_WORD];
	char access[XML_WORD];

	if (sscanf(fixed, "%63s %63s", source, access) != 2)
		return;
	put_back(doc, "/domain/memoryBacking/source", "type", source);
	put_back(doc, "/domain/memoryBacking/access", "mode", access);
	xml_remove(xml_first(doc, "/domain/memoryBacking[not(*)]"));
}

static struct xml_node *
commandline(struct xml_doc *doc)
{
	struct xml_node *n = xml_first(doc, COMMANDLINE);
	struct xml_node *root = lxml.DocGetRootElement(doc);
	struct xml_ns *ns = lxml.SearchNsByHref(doc, root, XML_QEMU);

	if (n)
		return n;
	return lxml.NewChild(root, ns ? ns : lxml.NewNs(root, XML_QEMU, "qemu"), "commandline", NULL);
}

static void
put_args(struct xml_doc *doc, const struct qemu_args *a)
{
	struct xml_node *list = commandline(doc);
	struct xml_ns *ns = lxml.SearchNsByHref(doc, list, XML_QEMU);

	for (int i = 0; i < a->argc; i++)
		lxml.SetProp(lxml.NewChild(list, ns, "arg", NULL), "value", a->argv[i]);
}

int
xml_attach(struct xml_doc *doc, const struct xml_facts *f, const struct xml_element *e, const char *run)
{
	struct qemu_args a = { 0 };
	char socket[PATH_MAX];
	char bar[PATH_MAX];
	struct xml_node *n;
	int r = xml_file(socket, sizeof(socket), run, f->uuid, "share.sock");

	r = r ? r : xml_file(bar, sizeof(bar), run, f->uuid, "ivshmem");
	if (!r && e->path == VIRTD_DAX)
		r = qemu_dax_args(&a, socket);
	if (!r && e->path == VIRTD_IVSHMEM)
		r = qemu_ivshmem_args(&a, bar, e->ivshmem);
	/* The device is the last argument of both. */
	if (!r && a.argc)
		r = qemu_place(&a, f->kind == XML_Q35 ? "pcie.0" : "pci.0", f->slot);
	if (r)
		return r;
	if (e->path != VIRTD_DAX)
		put_filesystem(xml_add(xml_child(doc, "devices"), "filesystem", NULL, NULL), socket);
	if (a.argc)
		put_args(doc, &a);
	n = lxml.NewChild(xml_child(doc, "metadata"), NULL, "vfun", NULL);
	lxml.SetNs(n, lxml.NewNs(n, VIRTD_URN, "vfun"));
	put_element(n, e);
	return 0;
}

/* An argument of ours, and the one before it that says what it is (-chardev, -device, -object). */
static void
remove_args(struct xml_doc *doc)
{
	static const char own[] = COMMANDLINE "/q:arg[starts-with(@value, 'socket,id=vfun,') or "
					      "contains(@value, ',chardev=vfun,') or "
					      "starts-with(@value, 'memory-backend-file,id=vfunbar,') or "
					      "starts-with(@value, 'ivshmem-plain,memdev=vfunbar')]";
	char before[sizeof(own) + 64];
	struct xml_node *n;

	snprintf(before, sizeof(before), "%s/preceding-sibling::q:arg[1]", own);
	while ((n = xml_first(doc, own))) {
		struct xml_node *option;

		/* All of one kind: the first of ours has the first of the options. */
		option = xml_first(doc, before);
		xml_remove(option);
		xml_remove(n);
	}
	if (!xml_has(doc, COMMANDLINE "/*"))
		xml_remove(xml_first(doc, COMMANDLINE));
}

void
xml_detach(struct xml_doc *doc, const char *uuid, const struct xml_element *e)
{
	xml_remove(own_filesystem(doc, uuid));
	remove_args(doc);
	unshare_memory(doc, e->fixed);
	xml_remove(xml_first(doc, ELEMENT));
	xml_remove(xml_first(doc, "/domain/metadata[not(*)]"));
}
