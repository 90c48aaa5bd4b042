/* SPDX-License-Identifier: MIT
 *
 * command.c - `vfun domain` in the host half: connects, finds the domain, and has done what was asked
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../roles.h"
#include "command.h"

int
say(const struct job *j, int status, const char *fmt, ...)
{
	va_list ap;

	fputs("vfun domain: ", stderr);
	if (j->ask->domain[0])
		fprintf(stderr, "%s: ", j->ask->domain);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	putc('\n', stderr);
	return status;
}

int
say_libvirt(const struct job *j)
{
	char text[1024];
	int status = virt_explain(&j->v, text, sizeof(text));

	return say(j, status, "%s", text);
}

int
definition(const struct job *j, unsigned where, struct xml_doc **doc)
{
	/* What is written back must have everything, passwords too. */
	unsigned flags = where == DOMAIN_CONFIG ? VIRT_XML_INACTIVE | VIRT_XML_SECURE : 0;
	char *text = j->v.DomainGetXMLDesc(j->domain, j->ask->command == DOMAIN_XML ? flags & ~VIRT_XML_SECURE : flags);
	int r = EXIT_OK;

	*doc = xml_read(text);
	if (!text)
		r = say_libvirt(j);
	else if (!*doc)
		r = say(j, EXIT_SYSTEM, "libvirt's definition can't be read");
	free(text);
	return r;
}

static int
connect_to(struct job *j)
{
	const char *uri = j->ask->uri[0] ? j->ask->uri : NULL;
	int changes = j->ask->command == DOMAIN_ATTACH || j->ask->command == DOMAIN_DETACH;
	int code;

	j->conn = changes ? j->v.ConnectOpen(uri) : j->v.ConnectOpenReadOnly(uri);
	if (j->conn)
		return EXIT_OK;
	code = j->v.GetLastErrorCode();
	if (code == VIRT_ERR_AUTH_FAILED || code == VIRT_ERR_AUTH_CANCELLED || code == VIRT_ERR_AUTH_UNAVAILABLE)
		return say_libvirt(j);
	fprintf(stderr, "vfun domain: libvirt doesn't answer: is it running, and may you use it? (%s)\n",
	    j->v.GetLastErrorMessage());
	return EXIT_NO_LIBVIRT;
}

/* By name, or by uuid. */
static int
find(struct job *j)
{
	if (!j->ask->domain[0])
		return EXIT_OK;
	j->domain = j->v.DomainLookupByName(j->conn, j->ask->domain);
	if (!j->domain && strlen(j->ask->domain) == VIRTD_UUID_MAX - 1)
		j->domain = j->v.DomainLookupByUUIDString(j->conn, j->ask->domain);
	if (!j->domain || j->v.DomainGetUUIDString(j->domain, j->uuid) < 0)
		return say_libvirt(j);
	return EXIT_OK;
}

static int
work(struct job *j)
{
	int r = connect_to(j);

	r = r ? r : find(j);
	if (r)
		return r;
	switch (j->ask->command) {
	case DOMAIN_ATTACH:
		return domain_attach(j);
	case DOMAIN_DETACH:
		return domain_detach(j);
	case DOMAIN_LIST:
		return domain_list(j);
	case DOMAIN_XML:
		return domain_xml(j);
	default:
		return EXIT_USAGE;
	}
}

int
domain_main(void)
{
	static struct domain_ask ask;
	static struct job j = { .ask = &ask };
	const char *missing;
	int r;

	if (pread(DOMAIN_ASK_FD, &ask, sizeof(ask), 0) != (ssize_t)sizeof(ask))
		return EXIT_USAGE;
	close(DOMAIN_ASK_FD);
	missing = virt_load(&j.v);
	if (!missing)
		missing = xml_load();
	if (missing) {
		fprintf(stderr, "vfun domain: %s\n", missing);
		return EXIT_NO_LIBVIRT;
	}
	r = work(&j);
	if (j.domain)
		j.v.DomainFree(j.domain);
	if (j.conn)
		j.v.ConnectClose(j.conn);
	if ((fflush(stdout) || ferror(stdout)) && !r)
		r = say(&j, EXIT_SYSTEM, "standard output can't be written");
	return r;
}
