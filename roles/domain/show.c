/* SPDX-License-Identifier: MIT
 *
 * show.c - `vfun domain list` and `vfun domain xml`; in the host half
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../common/qemu.h"
#include "../roles.h"
#include "command.h"

static const char *
state_name(const struct job *j, struct virt_domain *d)
{
	static const char *const names[] = { "-", "running", "running", "paused", "running", "shut off", "crashed",
		"paused" };
	int state = 0;
	int reason;

	if (j->v.DomainGetState(d, &state, &reason, 0) < 0 || state < 0 || state > VIRT_SUSPENDED)
		return names[0];
	return names[state];
}

/* A line for this domain, if it has an element. */
static void
list_one(const struct job *j, struct virt_domain *d)
{
	static const char fmt[] = "%-20s %-36s %-8s %-7s %s\n";
	char *text = j->v.DomainGetMetadata(d, VIRT_METADATA_ELEMENT, VIRTD_URN, 0);
	char uuid[VIRTD_UUID_MAX] = "";
	struct xml_doc *doc;
	struct xml_element e;
	const char *fault;

	/* Given to the running domain but not yet to it, or the other way round. */
	if (!text)
		text = j->v.DomainGetMetadata(d, VIRT_METADATA_ELEMENT, VIRTD_URN, VIRT_AFFECT_CONFIG);
	doc = xml_read(text);
	if (doc) {
		fault = xml_element(doc, &e);
		j->v.DomainGetUUIDString(d, uuid);
		printf(fmt, j->v.DomainGetName(d), uuid, state_name(j, d), fault ? "?" : xml_path_name(e.path),
		    fault	     ? fault
		    : e.functions[0] ? e.functions
				     : "-");
		xml_free(doc);
	}
	free(text);
}

int
domain_list(struct job *j)
{
	struct virt_domain **list = NULL;
	int n = j->v.ConnectListAllDomains(j->conn, &list, 0);

	if (n < 0)
		return say_libvirt(j);
	printf("%-20s %-36s %-8s %-7s %s\n", "domain", "uuid", "state", "path", "functions");
	for (int i = 0; i < n; i++) {
		list_one(j, list[i]);
		j->v.DomainFree(list[i]);
	}
	free(list);
	return EXIT_OK;
}

/* The pieces of one path, as they would be added to a definition that had nothing. */
static int
show_path(const struct job *j, const struct xml_facts *f, uint32_t path)
{
	static const char *const needs[] = { "", "shared memory by virtiofs; QEMU 11.1 or later",
		"shared memory by a PCI device; any QEMU with ivshmem-plain",
		"read and write only; any QEMU with vhost-user-fs-pci" };
	struct xml_element e = { .path = path, .instances = j->ask->instances, .memory = j->ask->memory };
	struct xml_doc *doc = xml_read("<domain/>");
	struct xml_facts none = { 0 };
	char *text = NULL;
	int r = doc ? 0 : -1;

	strcpy(e.functions, j->ask->functions);
	e.ivshmem = path == VIRTD_IVSHMEM ? ivshmem_size(j->ask) : 0;
	if (!r) {
		xml_share_memory(doc, &none, &e);
		e.fixed[0] = '\0';
		r = xml_attach(doc, f, &e, j->ask->run);
	}
	if (!r)
		text = xml_text(doc);
	if (text)
		printf("<!-- path %s: %s -->\n%s\n", xml_path_name(path), needs[path],
		    strchr(text, '\n') ? strchr(text, '\n') + 1 : text);
	xml_text_free(text);
	xml_free(doc);
	return text ? EXIT_OK : say(j, EXIT_SYSTEM, "out of memory, or the run folder's name is too long");
}

int
domain_xml(struct job *j)
{
	struct xml_doc *doc;
	struct xml_facts f;
	int r = definition(j, j->v.DomainIsPersistent(j->domain) ? DOMAIN_CONFIG : DOMAIN_LIVE, &doc);

	if (r)
		return r;
	xml_facts(doc, &f);
	xml_free(doc);
	for (uint32_t path = VIRTD_DAX; !r && path <= VIRTD_COPY; path++)
		if (path == VIRTD_COPY || (f.kind != XML_OTHER && f.slot))
			r = show_path(j, &f, path);
	return r;
}
