/* SPDX-License-Identifier: MIT
 *
 * detach.c - `vfun domain detach`: what attach did, the other way round
 *
 * The running domain: first the devices, which takes a guest that lets go of them, then the element, since vfund ends
 * the share with the element and QEMU doesn't bear that.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../roles.h"
#include "command.h"

#define UNPLUG_WAIT_MS 15000

static int
detach_config(const struct job *j, struct xml_doc *doc, const struct xml_element *e)
{
	struct virt_domain *d;
	char *after;

	xml_detach(doc, j->uuid, e);
	after = xml_text(doc);
	d = after ? j->v.DomainDefineXML(j->conn, after) : NULL;
	xml_text_free(after);
	if (!d)
		return say_libvirt(j);
	j->v.DomainFree(d);
	printf("%s: detached from the definition\n", j->ask->domain);
	return EXIT_OK;
}

static int
device_is_there(const struct job *j, enum xml_kind kind)
{
	struct xml_doc *doc;
	char *device = definition(j, DOMAIN_LIVE, &doc) ? NULL : xml_own_device(doc, j->uuid, kind);
	int there = device != NULL;

	xml_text_free(device);
	xml_free(doc);
	return there;
}

/* Take it away, if it is there. */
static int
unplug(const struct job *j, struct xml_doc *doc, enum xml_kind kind)
{
	char *device = xml_own_device(doc, j->uuid, kind);
	int r = !device ? 0 : j->v.DomainDetachDeviceFlags(j->domain, device, VIRT_AFFECT_LIVE);

	xml_text_free(device);
	if (r < 0)
		return say_libvirt(j);
	for (int ms = 0; device && ms < UNPLUG_WAIT_MS; ms += 100) {
		if (!device_is_there(j, kind))
			return EXIT_OK;
		usleep(100000);
	}
	return !device
		   ? EXIT_OK
		   : say(j, EXIT_TIMEOUT,
			 "its guest doesn't let go of the device: there, umount /run/vfun; then detach it once more");
}

/* What QEMU was started with can't be unplugged. */
static int
is_fixed(const struct job *j, struct xml_doc *doc, const struct xml_element *e)
{
	char *device = xml_own_device(doc, j->uuid, XML_SHMEM);
	int plugged = device != NULL;

	xml_text_free(device);
	return e->path == VIRTD_DAX || (e->path == VIRTD_IVSHMEM && !plugged);
}

static int
detach_live(const struct job *j, struct xml_doc *doc, const struct xml_element *e)
{
	int r;

	if (is_fixed(j, doc, e))
		return say(j, EXIT_NO_PATH,
		    "path %s can't be taken from a running domain, since it came by qemu:commandline: use --config, "
		    "and shut it down",
		    xml_path_name(e->path));
	r = unplug(j, doc, XML_FILESYSTEM);
	if (!r)
		r = unplug(j, doc, XML_SHMEM);
	if (!r && j->v.DomainSetMetadata(j->domain, VIRT_METADATA_ELEMENT, NULL, NULL, VIRTD_URN, VIRT_AFFECT_LIVE) < 0)
		r = say_libvirt(j);
	if (!r)
		printf("%s: detached from the running domain\n", j->ask->domain);
	return r;
}

/* Has it something to take away? 0 or a status. */
static int
look(const struct job *j, unsigned where, struct xml_doc **doc, struct xml_element *e)
{
	struct xml_facts f;
	int r = definition(j, where, doc);

	if (r)
		return r;
	xml_facts(*doc, &f);
	/* One that is faulty is taken away all the same. */
	(void)xml_element(*doc, e);
	if (f.element)
		return EXIT_OK;
	return say(j, EXIT_REFUSED, "the %s has no functions of vfun: see vfun domain list",
	    where == DOMAIN_LIVE ? "running domain" : "definition");
}

int
domain_detach(struct job *j)
{
	struct xml_doc *live = NULL;
	struct xml_doc *config = NULL;
	struct xml_element le;
	struct xml_element ce;
	int r = EXIT_OK;

	if ((j->ask->where & DOMAIN_LIVE) && j->v.DomainIsActive(j->domain) != 1)
		return say(j, EXIT_REFUSED, "it isn't running: use --config");
	if ((j->ask->where & DOMAIN_CONFIG) && j->v.DomainIsPersistent(j->domain) != 1)
		return say(j, EXIT_REFUSED, "it is transient, it has no persistent definition: use --live");
	if (j->ask->where & DOMAIN_LIVE)
		r = look(j, DOMAIN_LIVE, &live, &le);
	if (!r && (j->ask->where & DOMAIN_CONFIG))
		r = look(j, DOMAIN_CONFIG, &config, &ce);
	if (!r && live)
		r = detach_live(j, live, &le);
	if (!r && config)
		r = detach_config(j, config, &ce);
	xml_free(live);
	xml_free(config);
	return r;
}
