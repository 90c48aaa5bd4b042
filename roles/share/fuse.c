/* SPDX-License-Identifier: MIT
 *
 * fuse.c - FUSE requests: checks and dispatch
 *
 * Theory of operation
 *
 * A request's small part (headers, names, control messages) is copied out of guest memory once, when it is taken, and
 * only the copy is looked at. Bulk data of READ and WRITE goes straight between guest memory and the files.
 *
 * Every handler may be executed again, by a successor or because what it waits for has come (REQ_WAIT): it looks at
 * the state, does what is missing, and answers when all is there.
 */
#include <errno.h>
#include <string.h>

#include "../common/log.h"
#include "share.h"

#define FUSE_MINOR 38	  /* spoken by this file; structures up to here */
#define FUSE_MINOR_MIN 31 /* SETUPMAPPING */
#define MAX_WRITE (1u << 20)

/* Copy the request's beginning and check that its header tells the truth. 0 or -errno. */
static int
fuse_take(struct share *s, struct req *r)
{
	const struct chain *c = &s->chain;

	if (r->have_in)
		return 0;
	r->in_len = (uint32_t)chain_get(c, r->u.in, sizeof(r->u.in) - 1);
	r->u.in[r->in_len] = '\0'; /* so that a name ends, whatever the guest says */
	if (r->in_len < sizeof(r->u.hdr) || r->u.hdr.len != c->in_len)
		return -EINVAL;
	r->have_in = 1;
	return 0;
}

/* Write the answer's header, and give the request back. */
static void
fuse_answer(struct share *s, struct req *r, int err)
{
	struct chain *c = &s->chain;
	struct fuse_out_header out = { .unique = r->u.hdr.unique };

	if (c->out_len < sizeof(out)) {
		virtq_complete(s, r, 0);
		return;
	}
	out.error = err < 0 ? err : 0;
	if (err < 0)
		c->put = 0;
	out.len = (uint32_t)(sizeof(out) + c->put);
	chain_head(c, &out, sizeof(out));
	virtq_complete(s, r, out.len);
}

static int
fuse_init(struct share *s, struct chain *c, const uint8_t *arg, size_t len)
{
	const uint64_t offered = FUSE_ASYNC_READ | FUSE_ATOMIC_O_TRUNC | FUSE_BIG_WRITES | FUSE_PARALLEL_DIROPS |
				 FUSE_MAX_PAGES | FUSE_INIT_EXT | FUSE_MAP_ALIGNMENT | FUSE_HAS_INODE_DAX |
				 FUSE_ASYNC_DIO;
	const uint64_t dax = FUSE_MAP_ALIGNMENT | FUSE_HAS_INODE_DAX;
	struct fuse_init_in in = { 0 };
	struct fuse_init_out out = { .major = FUSE_KERNEL_VERSION, .minor = FUSE_MINOR };
	uint64_t flags;

	if (len < 16)
		return -EINVAL;
	memcpy(&in, arg, len < sizeof(in) ? len : sizeof(in));
	if (in.major > FUSE_KERNEL_VERSION)
		return chain_put(c, &out, sizeof(out)); /* it asks again with ours */
	if (in.major < FUSE_KERNEL_VERSION || in.minor < FUSE_MINOR_MIN) {
		if (share_may_say(s))
			log_warn("VM %s: its FUSE %u.%u is too old", s->k.start.name, in.major, in.minor);
		return -EPROTO;
	}
	/* A new mount: whatever an earlier one held open is gone with it. */
	fuse_forget_mount(s);
	flags = in.flags;
	if (in.flags & FUSE_INIT_EXT)
		flags |= (uint64_t)in.flags2 << 32;
	/* Such a kernel would use DAX for the control file and bells as well, whatever it is answered. */
	if ((flags & dax) == FUSE_MAP_ALIGNMENT) {
		if (share_may_say(s))
			log_warn("VM %s: mounted with -o dax or dax=always: refused; mount it without, DAX is used all "
				 "the same",
			    s->k.start.name);
		return -EINVAL;
	}
	flags &= offered;
	if (!(s->st->protocol & 1ull << PROTOCOL_SHMEM) || s->k.fds[SLOT_BACK] < 0 || (flags & dax) != dax)
		flags &= ~dax;
	s->st->dax = (flags & dax) == dax;
	out.max_readahead = in.max_readahead;
	out.flags = (uint32_t)flags;
	out.flags2 = (uint32_t)(flags >> 32);
	out.max_background = 64;
	out.congestion_threshold = 48;
	out.max_write = MAX_WRITE;
	out.time_gran = 1;
	out.max_pages = MAX_WRITE / 4096;
	out.map_alignment = 12;
	if (share_may_say(s))
		log_info("VM %s: mounted, FUSE 7.%u, %s", s->k.start.name, in.minor, s->st->dax ? "DAX" : "no DAX");
	return chain_put(c, &out, sizeof(out));
}

void
fuse_forget_mount(struct share *s)
{
	window_drop_all(s);
	tree_close_all(s);
}

static int
fuse_statfs(struct chain *c)
{
	struct fuse_statfs_out out = { .st = { .bsize = 4096, .frsize = 4096, .namelen = VFUN_FOLDER_MAX - 1 } };

	return chain_put(c, &out, sizeof(out));
}

static int
fuse_lookup(struct share *s, struct req *r, struct chain *c, size_t len)
{
	const char *name = (const char *)r->u.in + sizeof(r->u.hdr);
	size_t n = strnlen(name, len);

	if (n == len || n == 0)
		return -EINVAL;
	if (n > 255)
		return -ENAMETOOLONG;
	return tree_lookup(s, c, &r->u.hdr, name);
}

static int
fuse_read(struct share *s, struct req *r, struct chain *c, const struct fuse_read_in *a)
{
	struct share_handle *h = tree_handle(s, a->fh);

	if (!h || h->node != r->u.hdr.nodeid)
		return -EBADF;
	if (h->node == NODE_CONTROL)
		return control_read(r, c, h, a->size);
	return data_read(s, r, c, a);
}

static int
fuse_write(struct share *s, struct req *r, struct chain *c, const struct fuse_write_in *a)
{
	struct share_handle *h = tree_handle(s, a->fh);

	if (!h || h->node != r->u.hdr.nodeid)
		return -EBADF;
	if (a->size != c->in_len - sizeof(r->u.hdr) - sizeof(*a))
		return -EINVAL;
	if (h->node == NODE_CONTROL)
		return control_write(s, r, c, h, a + 1, a->size);
	return data_write(s, r, c, a);
}

/* The fixed part of each request's arguments that is looked at. */
static size_t
fuse_args(uint32_t opcode)
{
	switch (opcode) {
	case FUSE_OPEN:
		return sizeof(struct fuse_open_in);
	case FUSE_RELEASE:
		return sizeof(struct fuse_release_in);
	case FUSE_READ:
	case FUSE_READDIR:
		return sizeof(struct fuse_read_in);
	case FUSE_WRITE:
		return sizeof(struct fuse_write_in);
	case FUSE_IOCTL:
		return sizeof(struct fuse_ioctl_in);
	case FUSE_SETUPMAPPING:
		return sizeof(struct fuse_setupmapping_in);
	case FUSE_REMOVEMAPPING:
		return sizeof(struct fuse_removemapping_in);
	case FUSE_LOOKUP:
		return 2;
	default:
		return 0;
	}
}

static int
fuse_dispatch(struct share *s, struct req *r, struct chain *c)
{
	const struct fuse_in_header *h = &r->u.hdr;
	const uint8_t *arg = r->u.in + sizeof(*h);
	size_t len = r->in_len - sizeof(*h);

	if (len < fuse_args(h->opcode))
		return -EINVAL;
	switch (h->opcode) {
	case FUSE_INIT:
		return fuse_init(s, c, arg, len);
	case FUSE_DESTROY:
		fuse_forget_mount(s);
		return 0;
	case FUSE_LOOKUP:
		return fuse_lookup(s, r, c, len);
	case FUSE_FORGET: /* node ids are never used again: there is nothing to forget */
	case FUSE_BATCH_FORGET:
	case FUSE_INTERRUPT: /* what waits, waits for a bounded time */
		return REQ_SILENT;
	case FUSE_GETATTR:
		return tree_getattr(s, c, h);
	case FUSE_STATFS:
		return fuse_statfs(c);
	case FUSE_OPEN:
		return tree_open(s, c, h, ((const struct fuse_open_in *)arg)->flags, (int)r->repeat);
	case FUSE_RELEASE:
		return tree_release(s, ((const struct fuse_release_in *)arg)->fh);
	case FUSE_OPENDIR:
		return tree_opendir(s, c, h);
	case FUSE_READDIR:
		return tree_readdir(
		    s, c, h, ((const struct fuse_read_in *)arg)->offset, ((const struct fuse_read_in *)arg)->size);
	case FUSE_RELEASEDIR:
	case FUSE_FSYNC:
	case FUSE_FSYNCDIR:
		return 0;
	case FUSE_READ:
		return fuse_read(s, r, c, (const struct fuse_read_in *)arg);
	case FUSE_WRITE:
		return fuse_write(s, r, c, (const struct fuse_write_in *)arg);
	case FUSE_IOCTL:
		return control_ioctl(s, r, c, (const struct fuse_ioctl_in *)arg, len);
	case FUSE_SETUPMAPPING:
		return window_setup(s, r, (const struct fuse_setupmapping_in *)arg);
	case FUSE_REMOVEMAPPING:
		return window_remove(s, r, arg, len);
	case FUSE_SETATTR:
	case FUSE_MKNOD:
	case FUSE_MKDIR:
	case FUSE_UNLINK:
	case FUSE_RMDIR:
	case FUSE_RENAME:
	case FUSE_RENAME2:
	case FUSE_LINK:
	case FUSE_SYMLINK:
		return -EPERM;
	default: /* FLUSH, ACCESS, xattr, CREATE (then MKNOD is tried), locks (the guest's own), ... */
		return -ENOSYS;
	}
}

void
fuse_run(struct share *s, struct req *r)
{
	int err;

	r->wait = WAIT_NOTHING;
	if (r->deadline && share_now() >= r->deadline)
		r->deadline = REQ_LATE;
	if (virtq_chain(s, r->queue, r->head, &s->chain)) {
		r->used = 0;
		return;
	}
	err = fuse_take(s, r);
	if (!err)
		err = fuse_dispatch(s, r, &s->chain);
	if (err == REQ_WAIT)
		return;
	if (err == REQ_SILENT)
		virtq_complete(s, r, 0);
	else
		fuse_answer(s, r, err);
}
