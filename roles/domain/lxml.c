/* SPDX-License-Identifier: MIT
 *
 * lxml.c - libxml2, found at run time, and small things made of it; in the host half
 */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "lxml.h"
#include "xml.h"

struct lxml lxml;

const char *
xml_load(void)
{
	static const struct {
		const char *name;
		size_t offset;
	} functions[] = {
#define FUNCTION(f) { "xml" #f, offsetof(struct lxml, f) }
		FUNCTION(ReadMemory),
		FUNCTION(FreeDoc),
		FUNCTION(DocDumpFormatMemory),
		FUNCTION(DocGetRootElement),
		FUNCTION(NewChild),
		FUNCTION(SetProp),
		FUNCTION(GetProp),
		FUNCTION(NewNs),
		FUNCTION(SetNs),
		FUNCTION(SearchNsByHref),
		FUNCTION(UnlinkNode),
		FUNCTION(FreeNode),
		FUNCTION(DocCopyNode),
		FUNCTION(NewDoc),
		FUNCTION(DocSetRootElement),
		FUNCTION(XPathNewContext),
		FUNCTION(XPathFreeContext),
		FUNCTION(XPathRegisterNs),
		FUNCTION(XPathEval),
		FUNCTION(XPathFreeObject),
		FUNCTION(XPathCastToString),
		FUNCTION(Free),
#undef FUNCTION
	};
	void *so = dlopen("libxml2.so.2", RTLD_NOW);

	if (!so)
		so = dlopen("libxml2.so.16", RTLD_NOW);
	if (!so)
		return "libxml2.so.2 is missing on this host: install it (Debian: libxml2, or libxml2-16)";
	for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++) {
		void *f = dlsym(so, functions[i].name);

		if (!f)
			return "libxml2 on this host is not one that vfun knows";
		memcpy((char *)&lxml + functions[i].offset, &f, sizeof(f));
	}
	return NULL;
}

struct xml_doc *
xml_read(const char *text)
{
	return text ? lxml.ReadMemory(text, (int)strlen(text), NULL, NULL, XML_QUIET) : NULL;
}

void
xml_free(struct xml_doc *doc)
{
	if (doc)
		lxml.FreeDoc(doc);
}

char *
xml_text(struct xml_doc *doc)
{
	char *text = NULL;
	int len;

	lxml.DocDumpFormatMemory(doc, &text, &len, 1);
	return text;
}

void
xml_text_free(char *text)
{
	if (text)
		(*lxml.Free)(text);
}

struct xml_object *
xml_eval(struct xml_doc *doc, const char *expression)
{
	void *context = lxml.XPathNewContext(doc);
	struct xml_object *o = NULL;

	if (!context)
		return NULL;
	lxml.XPathRegisterNs(context, "q", XML_QEMU);
	lxml.XPathRegisterNs(context, "v", VIRTD_URN);
	o = lxml.XPathEval(expression, context);
	lxml.XPathFreeContext(context);
	return o;
}

void
xml_string(struct xml_doc *doc, const char *expression, char *buf, size_t room)
{
	struct xml_object *o = xml_eval(doc, expression);
	char *text = o ? lxml.XPathCastToString(o) : NULL;

	buf[0] = '\0';
	if (text && strlen(text) < room)
		strcpy(buf, text);
	xml_text_free(text);
	if (o)
		lxml.XPathFreeObject(o);
}

int
xml_has(struct xml_doc *doc, const char *expression)
{
	struct xml_object *o = xml_eval(doc, expression);
	int has = o && o->nodes && o->nodes->count > 0;

	if (o)
		lxml.XPathFreeObject(o);
	return has;
}

struct xml_node *
xml_first(struct xml_doc *doc, const char *expression)
{
	struct xml_object *o = xml_eval(doc, expression);
	struct xml_node *n = o && o->nodes && o->nodes->count > 0 ? o->nodes->node[0] : NULL;

	if (o)
		lxml.XPathFreeObject(o);
	return n;
}

void
xml_each(struct xml_doc *doc, const char *expression, void (*each)(struct xml_node *n, void *arg), void *arg)
{
	struct xml_object *o = xml_eval(doc, expression);

	for (int i = 0; o && o->nodes && i < o->nodes->count; i++)
		each(o->nodes->node[i], arg);
	if (o)
		lxml.XPathFreeObject(o);
}

void
xml_attribute(struct xml_node *n, const char *name, char *buf, size_t room)
{
	char *text = lxml.GetProp(n, name);

	buf[0] = '\0';
	if (text && strlen(text) < room)
		strcpy(buf, text);
	xml_text_free(text);
}

void
xml_remove(struct xml_node *n)
{
	if (!n)
		return;
	lxml.UnlinkNode(n);
	lxml.FreeNode(n);
}

struct xml_node *
xml_add(struct xml_node *parent, const char *name, const char *key, const char *value)
{
	struct xml_node *n = lxml.NewChild(parent, NULL, name, NULL);

	if (n && key)
		lxml.SetProp(n, key, value);
	return n;
}

struct xml_node *
xml_child(struct xml_doc *doc, const char *name)
{
	char expression[XML_WORD];
	struct xml_node *n;

	snprintf(expression, sizeof(expression), "/domain/%s", name);
	n = xml_first(doc, expression);
	return n ? n : xml_add(lxml.DocGetRootElement(doc), name, NULL, NULL);
}
