/* SPDX-License-Identifier: MIT
 *
 * model-load.c - the test device: which xclbin is loaded, and where its kernels' registers are
 *
 * The shim doesn't send the xclbin: it writes the metadata (XML) and the bit stream to files in a folder of its own and
 * sends their names. They are names in the client's file system, which needn't be this process's (vfun's services have
 * a root of their own): it is reached through /proc. Two xclbins are the same if both files are.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "model.h"

#define LARGEST (1 << 20)

static const char *const names[KERNELS] = { "factorial", "fibonacci", "vadd" };
static uint64_t loaded;

static int
open_of_client(const struct client *c, const char *path)
{
	struct open_how how = { .flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK, .resolve = RESOLVE_IN_ROOT };
	char name[64];
	int root, fd;

	snprintf(name, sizeof(name), "/proc/%d/root", (int)c->pid);
	root = open(name, O_PATH | O_CLOEXEC);
	if (root < 0)
		return -1;
	fd = syscall(SYS_openat2, root, path, &how, sizeof(how));
	close(root);
	return fd;
}

/* The file's text, to be freed; and the hash (FNV-1a) goes on over it. */
static char *
read_of_client(const struct client *c, const char *path, uint64_t *hash)
{
	char *text = calloc(1, LARGEST + 1);
	int fd = open_of_client(c, path);
	ssize_t n = fd < 0 || !text ? -1 : read(fd, text, LARGEST);

	if (n < 0)
		say("client %u: its file %s: %s", c->number, path, strerror(errno));
	if (fd >= 0)
		close(fd);
	if (n < 0) {
		free(text);
		return NULL;
	}
	for (ssize_t i = 0; i < n; i++)
		*hash = (*hash ^ (uint8_t)text[i]) * 0x100000001b3;
	*hash = (*hash ^ 0x100) * 0x100000001b3;
	return text;
}

/* <kernel name="NAME" ...> ... <addrRemap base="0x..." */
static void
place_kernels(const char *metadata)
{
	static const char remap[] = "<addrRemap base=\"";

	units_clear();
	for (unsigned int k = 0; k < KERNELS; k++) {
		char start[64];
		const char *at;

		snprintf(start, sizeof(start), "<kernel name=\"%s\"", names[k]);
		at = strstr(metadata, start);
		at = at ? strstr(at, remap) : NULL;
		if (at)
			units_place(k, strtoull(at + strlen(remap), NULL, 0));
	}
}

static bool
in_use(const struct client *but)
{
	for (const struct client *c = clients; c; c = c->next) {
		if (c != but && c->loaded)
			return true;
	}
	return false;
}

bool
load_xclbin(struct client *c, const char *metadata, const char *bitstream)
{
	uint64_t hash = 0xcbf29ce484222325;
	char *xml = read_of_client(c, metadata, &hash);
	char *bits = read_of_client(c, bitstream, &hash);
	bool readable = xml && bits;

	if (!readable) {
		say("client %u: its xclbin can't be read", c->number);
	} else if (hash != loaded && in_use(c)) {
		say("client %u loads %016llx: refused, %016llx is in use", c->number, (unsigned long long)hash,
		    (unsigned long long)loaded);
	} else {
		if (hash != loaded)
			place_kernels(xml);
		loaded = hash;
		c->loaded = true;
		say("client %u loads %016llx", c->number, (unsigned long long)hash);
	}
	free(xml);
	free(bits);
	return c->loaded;
}

void
load_drop(struct client *c)
{
	c->loaded = false;
}
