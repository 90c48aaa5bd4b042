/* SPDX-License-Identifier: MIT
 *
 * lxml.h - libxml2, found at run time; in the host half
 *
 * Declared here as libxml/tree.h and libxml/xpath.h have it, so that building needs no libxml2. Of its structures only
 * the beginning of XPath's results is looked into, which has been the same since libxml2 2.0 and in 2.14, which is
 * another libxml2.so (16 instead of 2).
 */
#ifndef DOMAIN_LXML_H
#define DOMAIN_LXML_H

#include <stddef.h>

struct xml_doc;	 /* xmlDoc */
struct xml_node; /* xmlNode */
struct xml_ns;	 /* xmlNs */

struct xml_nodes { /* xmlNodeSet */
	int count;
	int max;
	struct xml_node **node;
};

struct xml_object { /* xmlXPathObject */
	int type;
	struct xml_nodes *nodes;
};

#define XML_QUIET (32 | 64 | 256 | 2048) /* xmlParserOption: NOERROR, NOWARNING, NOBLANKS, NONET */

struct lxml {
	struct xml_doc *(*ReadMemory)(const char *text, int len, const char *url, const char *encoding, int options);
	void (*FreeDoc)(struct xml_doc *doc);
	void (*DocDumpFormatMemory)(struct xml_doc *doc, char **text, int *len, int format);
	struct xml_node *(*DocGetRootElement)(struct xml_doc *doc);
	struct xml_node *(*NewChild)(struct xml_node *parent, struct xml_ns *ns, const char *name, const char *content);
	void *(*SetProp)(struct xml_node *node, const char *name, const char *value);
	char *(*GetProp)(struct xml_node *node, const char *name);
	struct xml_ns *(*NewNs)(struct xml_node *node, const char *uri, const char *prefix);
	void (*SetNs)(struct xml_node *node, struct xml_ns *ns);
	struct xml_ns *(*SearchNsByHref)(struct xml_doc *doc, struct xml_node *node, const char *uri);
	void (*UnlinkNode)(struct xml_node *node);
	void (*FreeNode)(struct xml_node *node);
	struct xml_node *(*DocCopyNode)(struct xml_node *node, struct xml_doc *doc, int deep);
	struct xml_doc *(*NewDoc)(const char *version);
	struct xml_node *(*DocSetRootElement)(struct xml_doc *doc, struct xml_node *root);
	void *(*XPathNewContext)(struct xml_doc *doc);
	void (*XPathFreeContext)(void *context);
	int (*XPathRegisterNs)(void *context, const char *prefix, const char *uri);
	struct xml_object *(*XPathEval)(const char *expression, void *context);
	void (*XPathFreeObject)(struct xml_object *object);
	char *(*XPathCastToString)(struct xml_object *object);
	void (**Free)(void *p); /* xmlFree is a variable */
};

extern struct lxml lxml;

#define XML_QEMU "http://libvirt.org/schemas/domain/qemu/1.0"

/* The result of an XPath expression, to be freed; its first node; every node. */
struct xml_object *xml_eval(struct xml_doc *doc, const char *expression);
struct xml_node *xml_first(struct xml_doc *doc, const char *expression);
void xml_each(struct xml_doc *doc, const char *expression, void (*each)(struct xml_node *n, void *arg), void *arg);

/* An attribute's value; "" where there is none, or where it is too long. */
void xml_attribute(struct xml_node *n, const char *name, char *buf, size_t room);

/* A new element at the end of another, with one attribute or none; <domain>'s child of this name, made where missing.
 */
struct xml_node *xml_add(struct xml_node *parent, const char *name, const char *key, const char *value);
struct xml_node *xml_child(struct xml_doc *doc, const char *name);
void xml_remove(struct xml_node *n);

#endif
