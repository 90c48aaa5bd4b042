/* SPDX-License-Identifier: MIT
 *
 * identity.c - who libvirt runs QEMU as: the host's DAC model has "+64055:+994", for this connection; in the host half
 *
 * A domain may have a label of its own, which isn't looked at.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "command.h"

int
qemu_identity(const struct virt *v, struct virt_conn *c, uint32_t *uid, uint32_t *gid)
{
	char *text = v->ConnectGetCapabilities(c);
	struct xml_doc *doc = xml_read(text);
	char label[XML_WORD] = "";
	int r = text ? 0 : -1;

	*uid = UINT32_MAX;
	*gid = UINT32_MAX;
	if (doc)
		xml_string(doc, "string(/capabilities/host/secmodel[model='dac']/baselabel[1])", label, sizeof(label));
	if (sscanf(label, "+%" SCNu32 ":+%" SCNu32, uid, gid) != 2) {
		*uid = UINT32_MAX;
		*gid = UINT32_MAX;
	}
	xml_free(doc);
	free(text);
	return r;
}
