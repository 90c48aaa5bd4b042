/* SPDX-License-Identifier: MIT
 *
 * command.h - the parts of `vfun domain` in the host half
 */
#ifndef DOMAIN_COMMAND_H
#define DOMAIN_COMMAND_H

#include "domain.h"
#include "virt.h"
#include "xml.h"

struct job {
	struct virt v;
	const struct domain_ask *ask;
	struct virt_conn *conn;
	struct virt_domain *domain;
	char uuid[VIRTD_UUID_MAX];
};

/* "vfun domain: NAME: ..." on standard error; returns the status. */
int say(const struct job *j, int status, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
int say_libvirt(const struct job *j); /* libvirt's last error */

/* The definition, running or persistent, to be freed by xml_free(). 0, or a status after a message: *doc is NULL. */
int definition(const struct job *j, unsigned where, struct xml_doc **doc);

/* attach.c, detach.c, show.c: an exit status */
int domain_attach(struct job *j);
int domain_detach(struct job *j);
int domain_list(struct job *j);
int domain_xml(struct job *j);

/* choose.c: the best path that this domain's QEMU has, or the one asked for if it has it. 0, or a status after a
 * message. */
int choose_path(const struct job *j, const struct xml_facts *f, int live, uint32_t *path);

/* identity.c: what libvirt starts QEMU as, on this connection. */
struct identity {
	uint32_t uid, gid;	     /* UINT32_MAX: libvirt doesn't say */
	char kvm[VIRTD_LABEL_MAX];   /* SELinux: domains of type kvm, before categories are added; "": not labelled */
	char tcg[VIRTD_LABEL_MAX];   /* of type qemu */
	char image[VIRTD_LABEL_MAX]; /* and their images; "": not known */
};

/* -1: libvirt doesn't answer, see its last error. */
int qemu_identity(const struct virt *v, struct virt_conn *c, struct identity *id);
/* The labels of the domain with this definition: m->label and m->file_label. */
void qemu_labels(const struct identity *id, struct xml_doc *definition, struct virtd_msg *m);

/* diff.c: the lines that differ, on standard output */
void diff_show(const char *before, const char *after);

/* An ivshmem device's size: the memory that was asked for, as far as vfun.conf allows it, as a power of two. */
uint64_t ivshmem_size(const struct domain_ask *ask);

/* For half.c's table */
int domain_main(void);
int watch_main(const char *uri, const char *folder);

#endif
