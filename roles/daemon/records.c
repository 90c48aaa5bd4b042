/* SPDX-License-Identifier: MIT
 *
 * records.c - records on disk: what an administrator finds under <run>/service
 *
 * A record is a few lines of text, for people and scripts; vfund itself never reads one. A disk that is full costs the
 * record and a line of log, not the instance.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../common/fd.h"
#include "../../backends/backend.h"
#include "../common/log.h"
#include "engine.h"

static void write_text(int dir, const char *name, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

static void
write_text(int dir, const char *name, const char *fmt, ...)
{
	char text[512];
	va_list ap;
	int fd;
	int r;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	fd = openat(dir, name, RECORD_FLAGS, 0644);
	r = fd < 0 ? -errno : fd_write_all(fd, text, strlen(text));
	if (fd >= 0)
		close(fd);
	if (r)
		log_warn("record %s can't be written: %s", name, strerror(-r));
}

/* <clientID>/<functionID>, relative to the folder of services. Both are checked names, or made of digits. */
static void
folder_of(const struct instance *in, char *client, char *path, size_t size)
{
	snprintf(client, CONF_ID_MAX, "%s", in->client);
	snprintf(path, size, "%s/%s", client, engine.st->conf.function[in->function].name);
}

void
record_write(const struct instance *in)
{
	int top = engine.keep.fds[SLOT_SERVICE];
	char client[CONF_ID_MAX];
	char path[VFUN_NAME_MAX + CONF_ID_MAX];
	char name[3 * VFUN_NAME_MAX + CONF_ID_MAX];
	int hardware = in->target == VFUN_TARGET_HARDWARE;

	folder_of(in, client, path, sizeof(path));
	if ((mkdirat(top, client, 0755) < 0 && errno != EEXIST) || (mkdirat(top, path, 0755) < 0 && errno != EEXIST)) {
		log_warn("folder of record %s can't be made: %s", path, strerror(errno));
		return;
	}
	snprintf(name, sizeof(name), "%s/%llu", path, (unsigned long long)in->number);
	write_text(top, name, "pid=%u\nbackend=%s\ntarget=%s\nsince=%llu\nuid=%u\nmemory=%llu\n", in->pid,
	    hardware ? engine.st->conf.function[in->function].backend : backend_software.name,
	    hardware ? "hardware" : "software", (unsigned long long)in->since, in->who.uid,
	    (unsigned long long)(in->out_size + in->in_size));
}

void
record_remove(const struct instance *in)
{
	int top = engine.keep.fds[SLOT_SERVICE];
	char client[CONF_ID_MAX];
	char path[VFUN_NAME_MAX + CONF_ID_MAX];
	char name[3 * VFUN_NAME_MAX + CONF_ID_MAX];

	folder_of(in, client, path, sizeof(path));
	snprintf(name, sizeof(name), "%s/%llu", path, (unsigned long long)in->number);
	(void)unlinkat(top, name, 0);
	/* The folders go with their last entry; before that this fails, as it should. */
	(void)unlinkat(top, path, AT_REMOVEDIR);
	(void)unlinkat(top, client, AT_REMOVEDIR);
}
