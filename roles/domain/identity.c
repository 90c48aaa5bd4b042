/* SPDX-License-Identifier: MIT
 *
 * identity.c - what libvirt runs QEMU as: whose user, and with which SELinux label; in the host half
 *
 * The host's DAC model has "+64055:+994", for this connection. A domain may have a user of its own, which isn't looked
 * at.
 *
 * The host's SELinux model has a label for each kind of domain, "system_u:system_r:svirt_t:s0", to which the start of
 * one adds two categories of its own, ":c12,c345", unless the domain's definition has a label of its own, or says that
 * it has none. The files that libvirt gives to a domain have the label that a file of the policy's names, with the
 * domain's level and categories. It is libselinux, which libvirt needs itself, that knows where that file is.
 */
#include <dlfcn.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "command.h"

#define BASE(type) "string(/capabilities/host/secmodel[model='selinux']/baselabel[@type='" type "'])"
#define OWN "/domain/seclabel[@model='selinux' or not(@model)][1]"

static void
read_user(struct xml_doc *doc, struct identity *id)
{
	char label[XML_WORD];

	xml_string(doc, "string(/capabilities/host/secmodel[model='dac']/baselabel[1])", label, sizeof(label));
	if (sscanf(label, "+%" SCNu32 ":+%" SCNu32, &id->uid, &id->gid) != 2)
		id->uid = id->gid = UINT32_MAX;
}

/* The label of images: the first line of the file. */
static void
read_image(char label[VIRTD_LABEL_MAX])
{
	void *so = dlopen("libselinux.so.1", RTLD_NOW);
	const char *(*path)(void) = NULL;
	FILE *f = NULL;

	if (so)
		path = (const char *(*)(void))(uintptr_t)dlsym(so, "selinux_virtual_image_context_path");
	if (path)
		f = fopen(path(), "re");
	if (!f || !fgets(label, VIRTD_LABEL_MAX, f))
		label[0] = '\0';
	label[strcspn(label, "\n")] = '\0';
	if (f)
		fclose(f);
	if (so)
		dlclose(so);
}

int
qemu_identity(const struct virt *v, struct virt_conn *c, struct identity *id)
{
	char *text = v->ConnectGetCapabilities(c);
	struct xml_doc *doc = xml_read(text);
	int r = text ? 0 : -1;

	*id = (struct identity){ .uid = UINT32_MAX, .gid = UINT32_MAX };
	if (doc) {
		read_user(doc, id);
		xml_string(doc, BASE("kvm"), id->kvm, sizeof(id->kvm));
		xml_string(doc, BASE("qemu"), id->tcg, sizeof(id->tcg));
	}
	if (id->kvm[0])
		read_image(id->image);
	xml_free(doc);
	free(text);
	return r;
}

/* A label's level, which is what follows user, role and type; NULL: none. */
static char *
level_of(const char *label)
{
	char *s = strchr(label, ':');

	for (int i = 0; s && i < 2; i++)
		s = strchr(s + 1, ':');
	return s;
}

/* An image's label with the domain's level. */
static void
file_label(const struct identity *id, struct virtd_msg *m)
{
	const char *level = level_of(m->label);
	const char *end = level_of(id->image);
	int len = (int)(end ? (size_t)(end - id->image) : strlen(id->image));

	if (snprintf(m->file_label, sizeof(m->file_label), "%.*s%s", len, id->image, level ? level : "") >=
	    (int)sizeof(m->file_label))
		m->file_label[0] = '\0';
}

void
qemu_labels(const struct identity *id, struct xml_doc *definition, struct virtd_msg *m)
{
	if (xml_has(definition, OWN "[@type='none']"))
		return;
	if (xml_has(definition, OWN "[@type='static']"))
		xml_string(definition, "string(" OWN "/label)", m->label, sizeof(m->label));
	else if (xml_has(definition, OWN "/baselabel"))
		xml_string(definition, "string(" OWN "/baselabel)", m->label, sizeof(m->label));
	else
		strcpy(m->label, xml_has(definition, "/domain[@type='qemu']") ? id->tcg : id->kvm);
	if (m->label[0] && id->image[0])
		file_label(id, m);
}
