/* SPDX-License-Identifier: MIT
 *
 * xclbin.c - what an xclbin says of itself, compared with vfun.conf's description; in the host half
 *
 * An xclbin is a header (struct axlf of XRT's xclbin.h) and sections. One of them is XML that Vitis wrote when it made
 * the kernel: its arguments in order, with their names, sizes and whether they are buffers. It is read by libexpat, as
 * found on the host. The file is the administrator's; its offsets are checked all the same, since it may be cut off.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "xrt.h"

/* struct axlf: offsets */
#define AXLF_MAGIC "xclbin2"
#define AXLF_UUID 416
#define AXLF_SECTIONS 448 /* their number, 32 bits */
#define AXLF_HEADERS 456
#define SECTION_SIZE 40 /* struct axlf_section_header: kind at 0, offset and size at 24 and 32 */
#define EMBEDDED_METADATA 2

/* addressQualifier */
#define QUALIFIER_SCALAR 0
#define QUALIFIER_GLOBAL 1

/* libexpat's functions. */
static struct {
	void *(*ParserCreate)(const char *encoding);
	void (*SetUserData)(void *parser, void *user);
	void (*SetElementHandler)(
	    void *parser, void (*start)(void *, const char *, const char **), void (*end)(void *, const char *));
	int (*Parse)(void *parser, const char *s, int len, int final);
	void (*ParserFree)(void *parser);
} xml;

struct comparison {
	const struct xrt_desc *d;
	int in_kernel; /* 1: within the kernel that is described */
	int found;
	unsigned args;
	int faults;
};

static int
load_expat(void)
{
	void *so = dlopen("libexpat.so.1", RTLD_NOW);

	if (!so)
		return -ENOENT;
	*(void **)&xml.ParserCreate = dlsym(so, "XML_ParserCreate");
	*(void **)&xml.SetUserData = dlsym(so, "XML_SetUserData");
	*(void **)&xml.SetElementHandler = dlsym(so, "XML_SetElementHandler");
	*(void **)&xml.Parse = dlsym(so, "XML_Parse");
	*(void **)&xml.ParserFree = dlsym(so, "XML_ParserFree");
	return xml.ParserCreate && xml.SetUserData && xml.SetElementHandler && xml.Parse && xml.ParserFree ? 0
													   : -ENOENT;
}

static uint64_t
read_u64(const uint8_t *p)
{
	uint64_t n;

	memcpy(&n, p, sizeof(n));
	return n;
}

static uint32_t
read_u32(const uint8_t *p)
{
	uint32_t n;

	memcpy(&n, p, sizeof(n));
	return n;
}

static int
is_xclbin(const uint8_t *image, uint64_t len)
{
	return len >= AXLF_HEADERS && !memcmp(image, AXLF_MAGIC, sizeof(AXLF_MAGIC));
}

int
xrt_image_uuid(const void *image, uint64_t len, unsigned char uuid[16])
{
	if (!is_xclbin(image, len))
		return -EINVAL;
	memcpy(uuid, (const uint8_t *)image + AXLF_UUID, 16);
	return 0;
}

/* The section of this kind. NULL: there is none. */
static const uint8_t *
section(const uint8_t *image, uint64_t len, uint32_t kind, uint64_t *size)
{
	uint32_t n = read_u32(image + AXLF_SECTIONS);

	for (uint32_t i = 0; i < n && AXLF_HEADERS + (i + 1ull) * SECTION_SIZE <= len; i++) {
		const uint8_t *h = image + AXLF_HEADERS + (uint64_t)i * SECTION_SIZE;
		uint64_t off = read_u64(h + 24);

		*size = read_u64(h + 32);
		if (read_u32(h) == kind && off <= len && *size <= len - off && *size < 1u << 30)
			return image + off;
	}
	return NULL;
}

static const char *
attribute(const char **attributes, const char *name)
{
	for (; attributes[0]; attributes += 2)
		if (!strcmp(attributes[0], name))
			return attributes[1];
	return "";
}

static const char *
what_it_is(const struct xrt_arg *a)
{
	return a->type == XRT_SCALAR ? "a number" : "a buffer";
}

/* One argument of the kernel, as its metadata has it. */
static void
compare_arg(struct comparison *c, const char **attributes)
{
	const char *name = attribute(attributes, "name");
	unsigned long id = strtoul(attribute(attributes, "id"), NULL, 0);
	unsigned long qualifier = strtoul(attribute(attributes, "addressQualifier"), NULL, 0);
	unsigned long size = strtoul(attribute(attributes, "size"), NULL, 0);
	const struct xrt_arg *a;

	c->args++;
	if (id >= c->d->nargs) {
		c->faults++;
		printf("the kernel has an argument '%s' more\n", name);
		return;
	}
	a = &c->d->arg[id];
	if (strcmp(name, a->name)) {
		c->faults++;
		printf("argument %lu of the kernel is '%s', not '%s'\n", id + 1, name, a->name);
	} else if (qualifier > QUALIFIER_GLOBAL) {
		c->faults++;
		printf("argument '%s' is neither a number nor a buffer, but a stream or the like\n", name);
	} else if ((qualifier == QUALIFIER_GLOBAL) != (a->type != XRT_SCALAR)) {
		c->faults++;
		printf("argument '%s' of the kernel is %s, not %s\n", name,
		    qualifier == QUALIFIER_GLOBAL ? "a buffer" : "a number", what_it_is(a));
	} else if (a->type == XRT_SCALAR && size != a->size) {
		c->faults++;
		printf("argument '%s' of the kernel has %lu bits, not %u\n", name, size * 8, a->size * 8u);
	}
}

static void
on_start(void *user, const char *element, const char **attributes)
{
	struct comparison *c = user;
	size_t len = strcspn(c->d->kernel, ":");

	if (!strcmp(element, "kernel")) {
		const char *name = attribute(attributes, "name");

		c->in_kernel = strlen(name) == len && !strncmp(name, c->d->kernel, len);
		c->found |= c->in_kernel;
	} else if (!strcmp(element, "arg") && c->in_kernel) {
		compare_arg(c, attributes);
	}
}

static void
on_end(void *user, const char *element)
{
	struct comparison *c = user;

	if (!strcmp(element, "kernel"))
		c->in_kernel = 0;
}

int
xrt_compare(const struct xrt_desc *d, const void *image, uint64_t len)
{
	struct comparison c = { .d = d };
	const uint8_t *text;
	uint64_t size;
	void *parser;
	int ok;

	if (!is_xclbin(image, len))
		return printf("it is not an xclbin\n"), 1;
	text = section(image, len, EMBEDDED_METADATA, &size);
	if (!text)
		return printf("it has no metadata of its kernels, or is cut off\n"), 1;
	if (load_expat())
		return printf("it can't be compared: libexpat.so.1 is missing on this host (Debian: libexpat1)\n"), 1;
	parser = xml.ParserCreate(NULL);
	if (!parser)
		return -ENOMEM;
	xml.SetUserData(parser, &c);
	xml.SetElementHandler(parser, on_start, on_end);
	ok = xml.Parse(parser, (const char *)text, (int)strnlen((const char *)text, size), 1);
	xml.ParserFree(parser);
	if (!ok)
		return printf("its metadata of its kernels is garbled\n"), 1;
	if (!c.found)
		return printf("it has no kernel '%.*s'\n", (int)strcspn(d->kernel, ":"), d->kernel), 1;
	if (c.args < d->nargs) {
		c.faults++;
		printf("the kernel has only %u arguments\n", c.args);
	}
	return c.faults;
}
