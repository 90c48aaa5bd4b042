/* SPDX-License-Identifier: MIT
 *
 * xml.h - a domain's definition: what it has, and what vfun adds to it and takes away again; in the host half
 *
 * Through libxml2, which libvirt itself needs, found at run time.
 */
#ifndef DOMAIN_XML_H
#define DOMAIN_XML_H

#include <limits.h>
#include <stddef.h>
#include <stdint.h>

#include "../common/virtd.h"

#define XML_WORD 64
#define XML_SHMEM_PREFIX "vfun-" /* of a plugged ivshmem device's name, before the uuid */

struct xml_doc; /* xmlDoc */

/* <vfun:vfun> in a domain's <metadata> */
struct xml_element {
	uint32_t path; /* enum virtd_path */
	uint32_t instances;
	uint64_t memory;
	uint64_t ivshmem;
	char functions[VIRTD_FUNCTIONS_MAX];
	char
	    fixed[2 * XML_WORD]; /* what --fix found, to be put back: memoryBacking's source and access; "": not used */
};

enum xml_machine { XML_OTHER, XML_Q35, XML_I440FX };

/* What a definition has, as far as it matters here. */
struct xml_facts {
	char uuid[VIRTD_UUID_MAX];
	char type[XML_WORD]; /* kvm, qemu, test */
	char arch[XML_WORD];
	char machine[XML_WORD];
	char emulator[PATH_MAX];
	enum xml_machine kind;
	int element;	       /* 1: it has the element */
	int foreign;	       /* 1: another file system has the tag */
	int shared;	       /* 1: its memory can be shared with another process */
	int numa_private;      /* 1: no, because of a NUMA cell, which only the user can change */
	unsigned root_ports;   /* free PCIe root ports */
	unsigned port;	       /* the first one's bus */
	unsigned slot;	       /* a free slot of the root bus, for qemu:commandline; 0: none */
	uint32_t slots;	       /* all that are taken */
	char source[XML_WORD]; /* memoryBacking's, "": none */
	char access[XML_WORD];
};

/* Load the library. NULL, or what is missing. */
const char *xml_load(void);

/* A document from text (NULL: it isn't XML), to be freed; and text, to be freed by xml_text_free(). */
struct xml_doc *xml_read(const char *text);
void xml_free(struct xml_doc *doc);
char *xml_text(struct xml_doc *doc);
void xml_text_free(char *text);

/* The value of an XPath expression, as text; "q" is QEMU's name space, "v" vfun's. "" where there is none, or where it
 * is too long. */
void xml_string(struct xml_doc *doc, const char *expression, char *buf, size_t room);
int xml_has(struct xml_doc *doc, const char *expression);

void xml_facts(struct xml_doc *doc, struct xml_facts *f);

/* Read the element, from a document that is the element or has it. NULL, or what is wrong with it. */
const char *xml_element(struct xml_doc *doc, struct xml_element *e);

/* The element as text, for virDomainSetMetadata() (prefix 0: libvirt adds its own). To be freed by xml_text_free(). */
char *xml_element_text(const struct xml_element *e);

/* The <filesystem> or <shmem> alone, for hot-plug: as it would be added (port: the root port's bus, 0: none is wanted),
 * or as it is in the document. NULL: none. */
enum xml_kind { XML_FILESYSTEM, XML_SHMEM };
char *xml_device(const char *socket);
char *xml_shmem(const char *uuid, uint64_t size, unsigned port);
char *xml_own_device(struct xml_doc *doc, const char *uuid, enum xml_kind kind);

/* Make the memory shared; what was there goes to e->fixed. */
void xml_share_memory(struct xml_doc *doc, const struct xml_facts *f, struct xml_element *e);

/* Add what e->path needs, and the element. 0, or -ENAMETOOLONG. */
int xml_attach(struct xml_doc *doc, const struct xml_facts *f, const struct xml_element *e, const char *run);

/* Take all of it out again. */
void xml_detach(struct xml_doc *doc, const char *uuid, const struct xml_element *e);

const char *xml_path_name(uint32_t path);

/* A share's files: <run>/vmcli/<uuid>/<name>. 0, or -ENAMETOOLONG. */
int xml_file(char *buf, size_t room, const char *run, const char *uuid, const char *name);

#endif
