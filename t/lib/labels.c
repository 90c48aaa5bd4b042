/* SPDX-License-Identifier: MIT
 *
 * labels.c - what the host half makes of libvirt's capabilities and a domain's definition: its SELinux labels
 *
 *	labels CAPABILITIES DOMAIN	two files; prints user, group, label and file's label, one a line
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../roles/domain/command.h"

static char *
read_all(const char *path)
{
	char *text = calloc(1, 1 << 16);
	FILE *f = fopen(path, "re");

	if (!f || !text || !fread(text, 1, (1 << 16) - 1, f))
		exit(1);
	fclose(f);
	return text;
}

static char *
capabilities(struct virt_conn *c)
{
	return read_all((const char *)c);
}

int
main(int argc, char **argv)
{
	struct virt v = { .ConnectGetCapabilities = capabilities };
	struct virtd_msg m = { .kind = VIRTD_DOMAIN };
	struct identity id;

	if (argc != 3 || xml_load() || qemu_identity(&v, (struct virt_conn *)argv[1], &id))
		return 1;
	qemu_labels(&id, xml_read(read_all(argv[2])), &m);
	printf("%" PRIu32 " %" PRIu32 "\n%s\n%s\n", id.uid, id.gid, m.label, m.file_label);
	return 0;
}
