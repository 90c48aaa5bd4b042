/* SPDX-License-Identifier: MIT
 *
 * model-memory.c - the test device: its memory, shared by all clients
 *
 * XRT's shim manages addresses by itself, in each client process from 0 on. So an address means something only together
 * with the client; each allocation is a block of the one memory, first fit, like pages behind an IOMMU. What was freed
 * is not cleared, and the next allocation that fits gets it.
 */
#include <stdlib.h>
#include <sys/mman.h>
#include "model.h"

#define PAGE 4096

struct block {
	const struct client *client;
	uint64_t address, size; /* as the client sees it */
	size_t at, length;	/* in the memory; whole pages */
	struct block *next;	/* by rising `at` */
};

static uint8_t *memory;
static size_t memory_size;
static struct block *blocks;

bool
memory_init(size_t size)
{
	memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	memory_size = size;
	return memory != MAP_FAILED;
}

static bool
overlaps(const struct client *c, uint64_t address, uint64_t size)
{
	for (const struct block *b = blocks; b; b = b->next) {
		if (b->client == c && address < b->address + b->size && b->address < address + size)
			return true;
	}
	return false;
}

bool
memory_alloc(const struct client *c, uint64_t address, uint64_t size)
{
	struct block **link = &blocks, *b;
	size_t at = 0, length;

	if (!size || size > memory_size || address + size < address || overlaps(c, address, size))
		return false;
	length = (size + PAGE - 1) & ~(size_t)(PAGE - 1);
	for (; *link && (*link)->at - at < length; link = &(*link)->next)
		at = (*link)->at + (*link)->length;
	if (length > memory_size - at)
		return false;
	b = malloc(sizeof(*b));
	if (!b)
		return false;
	*b = (struct block){ c, address, size, at, length, *link };
	*link = b;
	return true;
}

static void
unlink_block(struct block **link)
{
	struct block *b = *link;

	*link = b->next;
	free(b);
}

bool
memory_free(const struct client *c, uint64_t address)
{
	for (struct block **link = &blocks; *link; link = &(*link)->next) {
		if ((*link)->client == c && (*link)->address == address) {
			unlink_block(link);
			return true;
		}
	}
	return false;
}

void
memory_drop(const struct client *c)
{
	struct block **link = &blocks;

	while (*link) {
		if ((*link)->client == c)
			unlink_block(link);
		else
			link = &(*link)->next;
	}
}

/* Where these bytes of the client's are; NULL if they aren't all in one allocation of its own. */
void *
memory_at(const struct client *c, uint64_t address, uint64_t size)
{
	for (const struct block *b = blocks; b; b = b->next) {
		uint64_t offset = address - b->address;

		if (b->client == c && address >= b->address && offset <= b->size && size <= b->size - offset)
			return memory + b->at + offset;
	}
	return NULL;
}
