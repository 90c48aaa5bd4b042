/* SPDX-License-Identifier: MIT
 *
 * tree.c - names, attributes, open files, leases
 *
 *   /                  0555 root
 *   /control           0666, requests to vfund
 *   /FOLDER/           0500, the instance's owner; seen by its owner and by the guest's root only
 *   /FOLDER/dataout    0600
 *   /FOLDER/datain     0400
 *   /FOLDER/bell       0600
 *
 * A node's number is made of its instance's serial, which is never used again. So a number that the guest has kept
 * can't come to mean something else, and nothing needs to be counted for FORGET.
 *
 * Who holds an instance open is not counted either, but looked up among the open handles: the control file that
 * activated it, and every file in its folder.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "../common/log.h"
#include "share.h"

#define NODE_OF(serial, file) ((serial)*4 + (uint64_t)(file))
#define SERIAL_FIRST 16u    /* keeps instances' nodes clear of root and control */
#define CONTROL_VALID 3600u /* seconds that the guest may remember /control */

static const char *const file_name[] = { [FILE_OUT] = "dataout", [FILE_IN] = "datain", [FILE_BELL] = "bell" };

/* ---- instances ---- */

struct share_instance *
tree_serial(struct share *s, uint64_t serial)
{
	for (unsigned i = 0; i < SHARE_INSTANCES; i++)
		if (s->st->instance[i].valid && s->st->instance[i].serial == serial)
			return &s->st->instance[i];
	return NULL;
}

/* The instance that a node belongs to, and which of its files it is. Its service may have ended: who has the file open
 * goes on reading. NULL: none, or none any more. */
struct share_instance *
tree_instance(struct share *s, uint64_t node, enum share_file *file)
{
	*file = (enum share_file)(node % 4);
	return node / 4 < SERIAL_FIRST ? NULL : tree_serial(s, node / 4);
}

/* The same for what opens files and shows names: its service must live. */
static struct share_instance *
tree_living(struct share *s, uint64_t node, enum share_file *file)
{
	struct share_instance *in = tree_instance(s, node, file);

	return in && !in->dying ? in : NULL;
}

int
tree_may(const struct share_instance *in, uint32_t uid)
{
	return uid == 0 || uid == in->uid;
}

/* Is it mapped through the window? What lies in the BAR is mapped there, or not at all. */
int
tree_dax(const struct share *s, const struct share_instance *in)
{
	return s->st->dax && !in->off[0];
}

/* ---- handles ---- */

struct share_handle *
tree_handle(struct share *s, uint64_t fh)
{
	struct share_handle *h = &s->st->handle[fh % SHARE_HANDLES];

	return h->valid && h->fh == fh ? h : NULL;
}

/* By an open file, or by the control handle that activated it. */
int
tree_held(const struct share *s, const struct share_instance *in)
{
	for (unsigned i = 0; i < SHARE_HANDLES; i++) {
		const struct share_handle *h = &s->st->handle[i];

		if (h->valid && (h->node == NODE_CONTROL ? h->control == in->creator : h->node / 4 == in->serial))
			return 1;
	}
	return 0;
}

int
tree_in_use(const struct share *s)
{
	for (unsigned i = 0; i < SHARE_HANDLES; i++)
		if (s->st->handle[i].valid)
			return 1;
	return 0;
}

/* Something was closed, or an instance was added: has its lease ended? */
void
tree_lease(struct share *s, struct share_instance *in)
{
	if (!in->valid || in->dying || in->lease_end || tree_held(s, in))
		return;
	in->lease_end = 1;
	engine_flush(s);
}

/* The same for all of them; a predecessor may have died between a close and this. */
void
tree_leases(struct share *s)
{
	for (unsigned i = 0; i < SHARE_INSTANCES; i++)
		tree_lease(s, &s->st->instance[i]);
}

/* A closed control file's number is kept for the next engine, which may have to be told again. */
static void
handle_close(struct share *s, struct share_handle *h)
{
	struct share_state *st = s->st;

	if (h->node == NODE_CONTROL) {
		st->closed[st->closed_n % SHARE_CLOSED] = h->control;
		state_order();
		st->closed_n++;
		state_order();
	}
	h->valid = 0;
	state_order();
}

int
tree_release(struct share *s, uint64_t fh)
{
	struct share_handle *h = tree_handle(s, fh);

	if (h)
		handle_close(s, h);
	tree_leases(s);
	engine_flush(s);
	engine_dying(s, share_now());
	return 0;
}

void
tree_close_all(struct share *s)
{
	for (unsigned i = 0; i < SHARE_HANDLES; i++)
		if (s->st->handle[i].valid)
			handle_close(s, &s->st->handle[i]);
	tree_leases(s);
	engine_flush(s);
	engine_dying(s, share_now());
}

static struct share_handle *
handle_repeated(struct share *s, uint64_t node, uint64_t unique)
{
	for (unsigned i = 0; i < SHARE_HANDLES; i++) {
		struct share_handle *h = &s->st->handle[i];

		if (h->valid && h->node == node && h->unique == unique)
			return h;
	}
	return NULL;
}

/* One user of the guest doesn't take the others' places; its root may. */
static unsigned
handles_of(const struct share *s, uint32_t uid)
{
	unsigned n = 0;

	for (unsigned i = 0; i < SHARE_HANDLES; i++)
		n += s->st->handle[i].valid && s->st->handle[i].uid == uid;
	return n;
}

static struct share_handle *
handle_new(struct share *s, const struct fuse_in_header *h)
{
	struct share_state *st = s->st;
	struct share_handle *n = NULL;

	if (h->uid && handles_of(s, h->uid) >= SHARE_HANDLES / 4)
		return NULL;
	/* The number picks the place, so that finding it again is one look. */
	for (unsigned i = 0; i < SHARE_HANDLES && !n; i++) {
		st->next_fh++;
		if (!st->handle[st->next_fh % SHARE_HANDLES].valid)
			n = &st->handle[st->next_fh % SHARE_HANDLES];
	}
	if (!n)
		return NULL;
	memset(n, 0, sizeof(*n));
	n->fh = st->next_fh;
	n->node = h->nodeid;
	n->uid = h->uid;
	n->unique = h->unique;
	if (h->nodeid == NODE_CONTROL)
		n->control = ++st->next_control;
	state_order();
	n->valid = 1;
	return n;
}

/* May this caller open this node in this way, and how is it to be cached? 0 or -errno. */
static int
open_check(struct share *s, const struct fuse_in_header *h, uint32_t flags, uint32_t *how)
{
	struct share_instance *in;
	enum share_file file;

	*how = FOPEN_DIRECT_IO;
	if (h->nodeid == NODE_CONTROL)
		return 0;
	if (h->nodeid == NODE_ROOT)
		return -EISDIR;
	in = tree_living(s, h->nodeid, &file);
	if (!in)
		return -ENOENT;
	if (!tree_may(in, h->uid))
		return -EACCES;
	if (file == FILE_FOLDER)
		return -EISDIR;
	if (file == FILE_BELL)
		return 0;
	if (file == FILE_IN && (flags & O_ACCMODE) != O_RDONLY)
		return -EACCES;
	if (flags & O_TRUNC)
		return -EPERM; /* sizes are fixed for life */
	/* Linux 7.3 warns where a second open() is to drop the pages of a file that is mapped by DAX. */
	if (tree_dax(s, in))
		*how = FOPEN_KEEP_CACHE;
	else if (!s->k.start.direct_io)
		*how = 0;
	return 0;
}

int
tree_open(struct share *s, struct chain *c, const struct fuse_in_header *h, uint32_t flags, int repeat)
{
	struct fuse_open_out out = { 0 };
	struct share_handle *n = NULL;
	int err = open_check(s, h, flags, &out.open_flags);

	if (err)
		return err;
	if (repeat)
		n = handle_repeated(s, h->nodeid, h->unique);
	if (!n)
		n = handle_new(s, h);
	if (!n)
		return -ENFILE;
	out.fh = n->fh;
	err = chain_put(c, &out, sizeof(out));
	if (err)
		handle_close(s, n); /* nobody will ever close it */
	return err;
}

/* ---- attributes ---- */

static void
attr_data(struct share *s, struct fuse_attr *a, const struct share_instance *in, enum share_file file)
{
	static const uint32_t mode[] = { [FILE_OUT] = S_IFREG | 0600,
		[FILE_IN] = S_IFREG | 0400,
		[FILE_BELL] = S_IFREG | 0600,
		[FILE_FOLDER] = S_IFDIR | 0500 };

	a->mode = mode[file];
	a->nlink = file == FILE_FOLDER ? 2 : 1;
	a->uid = in->uid;
	a->gid = in->gid;
	if (file == FILE_OUT || file == FILE_IN) {
		a->size = in->size[file];
		a->blocks = a->size / 512;
		if (tree_dax(s, in))
			a->flags = FUSE_ATTR_DAX;
	}
}

/* A node's attributes. 0, or -ENOENT where there is no such node any more. */
static int
tree_attr(struct share *s, uint64_t node, struct fuse_attr *a)
{
	struct share_instance *in;
	enum share_file file;

	memset(a, 0, sizeof(*a));
	a->ino = node;
	a->blksize = 4096;
	if (node == NODE_ROOT) {
		a->mode = S_IFDIR | 0555;
		a->nlink = 2;
		return 0;
	}
	if (node == NODE_CONTROL) {
		a->mode = S_IFREG | 0666;
		a->nlink = 1;
		return 0;
	}
	in = tree_instance(s, node, &file);
	if (!in)
		return -ENOENT;
	attr_data(s, a, in, file);
	return 0;
}

int
tree_getattr(struct share *s, struct chain *c, const struct fuse_in_header *h)
{
	struct fuse_attr_out out = { 0 };
	int err = tree_attr(s, h->nodeid, &out.attr);

	if (err)
		return err;
	out.attr_valid = h->nodeid == NODE_CONTROL ? CONTROL_VALID : 0;
	return chain_put(c, &out, sizeof(out));
}

/* ---- names ---- */

/* The node of a name in the root, for this caller; 0: none. */
static uint64_t
root_find(struct share *s, const char *name, uint32_t uid)
{
	if (!strcmp(name, "control"))
		return NODE_CONTROL;
	for (unsigned i = 0; i < SHARE_INSTANCES; i++) {
		const struct share_instance *in = &s->st->instance[i];

		if (in->valid && !in->dying && tree_may(in, uid) && !strcmp(in->folder, name))
			return NODE_OF(in->serial, FILE_FOLDER);
	}
	return 0;
}

static uint64_t
folder_find(const struct share_instance *in, const char *name)
{
	for (unsigned f = FILE_OUT; f <= FILE_BELL; f++)
		if (!strcmp(name, file_name[f]))
			return NODE_OF(in->serial, f);
	return 0;
}

int
tree_lookup(struct share *s, struct chain *c, const struct fuse_in_header *h, const char *name)
{
	struct fuse_entry_out out = { 0 };
	struct share_instance *in;
	enum share_file file;
	int err;

	if (h->nodeid == NODE_ROOT) {
		out.nodeid = root_find(s, name, h->uid);
	} else {
		in = tree_living(s, h->nodeid, &file);
		if (!in || !tree_may(in, h->uid))
			return -ENOENT;
		if (file != FILE_FOLDER)
			return -ENOTDIR;
		out.nodeid = folder_find(in, name);
	}
	if (!out.nodeid)
		return -ENOENT;
	err = tree_attr(s, out.nodeid, &out.attr);
	if (err)
		return err;
	/* Who sees an instance depends on who asks, so the guest asks each time. */
	if (out.nodeid == NODE_CONTROL)
		out.entry_valid = out.attr_valid = CONTROL_VALID;
	return chain_put(c, &out, sizeof(out));
}

int
tree_opendir(struct share *s, struct chain *c, const struct fuse_in_header *h)
{
	struct fuse_open_out out = { 0 };
	struct share_instance *in;
	enum share_file file;

	if (h->nodeid != NODE_ROOT) {
		in = tree_living(s, h->nodeid, &file);
		if (!in)
			return -ENOENT;
		if (file != FILE_FOLDER)
			return -ENOTDIR;
		if (!tree_may(in, h->uid))
			return -EACCES;
	}
	return chain_put(c, &out, sizeof(out));
}

/* One directory entry, if it fits into what is left of `size`. 1, or 0 when it doesn't. */
static int
dirent_put(struct chain *c, uint32_t size, uint64_t node, uint64_t next, uint32_t type, const char *name)
{
	union {
		struct fuse_dirent d;
		char bytes[FUSE_NAME_OFFSET + VFUN_FOLDER_MAX + 8];
	} e;
	size_t len = strlen(name);
	size_t whole = FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + len);

	memset(&e, 0, sizeof(e));
	if (c->put + whole > size)
		return 0;
	e.d.ino = node;
	e.d.off = next;
	e.d.namelen = (uint32_t)len;
	e.d.type = type >> 12;
	memcpy(e.bytes + FUSE_NAME_OFFSET, name, len);
	return chain_put(c, &e, whole) == 0;
}

/* Places in a folder: 0 ".", 1 "..", then the files, or in the root `control` and the instances' table. */
int
tree_readdir(struct share *s, struct chain *c, const struct fuse_in_header *h, uint64_t offset, uint32_t size)
{
	int root = h->nodeid == NODE_ROOT;
	enum share_file file = FILE_FOLDER;
	struct share_instance *in = root ? NULL : tree_living(s, h->nodeid, &file);
	uint64_t end = root ? 3 + SHARE_INSTANCES : 2 + FILE_BELL + 1;

	if (!root && (!in || !tree_may(in, h->uid)))
		return -ENOENT;
	if (file != FILE_FOLDER)
		return -ENOTDIR;
	for (uint64_t at = offset; at < end; at++) {
		int ok = 1;

		if (at < 2) {
			ok =
			    dirent_put(c, size, at ? (uint64_t)NODE_ROOT : h->nodeid, at + 1, S_IFDIR, at ? ".." : ".");
		} else if (!root) {
			ok = dirent_put(c, size, NODE_OF(in->serial, at - 2), at + 1, S_IFREG, file_name[at - 2]);
		} else if (at == 2) {
			ok = dirent_put(c, size, NODE_CONTROL, at + 1, S_IFREG, "control");
		} else {
			const struct share_instance *i = &s->st->instance[at - 3];

			if (i->valid && !i->dying && tree_may(i, h->uid))
				ok = dirent_put(c, size, NODE_OF(i->serial, FILE_FOLDER), at + 1, S_IFDIR, i->folder);
		}
		if (!ok)
			break;
	}
	return 0;
}
