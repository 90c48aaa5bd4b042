/* SPDX-License-Identifier: MIT
 *
 * data.c - reading and writing data files, the bell
 *
 * With DAX the guest does neither read nor write here: it maps the files (window.c). Without, READ and WRITE go
 * straight between the request's buffers and the memfd, which is what the service has mapped: coherent, if slow.
 *
 * The bell carries no data. A write wakes the service, which sleeps in a futex on dataout's first page. A read is the
 * guest's sleep: answered when the service rings, and with -EAGAIN after BELL_MS, because a process that was killed
 * stays until its read is answered.
 */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../common/log.h"
#include "share.h"

#define BELL_MS 100u
#define BELL_WAITING_MAX 32u /* well below the ring's size: sleepers must not keep others out */

static struct iovec slice[CHAIN_MAX];

static int
bell_read(struct share *s, struct req *r, struct chain *c, struct share_instance *in, uint32_t size)
{
	if (size < sizeof(in->bell))
		return -EINVAL;
	/* One whose service has ended: at once, and each time. */
	if (in->bell || in->dying) {
		uint64_t count = in->bell ? in->bell : 1;

		in->bell = 0;
		return chain_put(c, &count, sizeof(count));
	}
	if (r->deadline == REQ_LATE)
		return -EAGAIN;
	if (!r->deadline) {
		if (share_waiting(s, WAIT_BELL) >= BELL_WAITING_MAX)
			return -EAGAIN;
		r->deadline = share_now() + BELL_MS;
	}
	r->wait = WAIT_BELL;
	return REQ_WAIT;
}

static int
bell_write(struct share *s, struct chain *c, struct share_instance *in, uint32_t size)
{
	struct fuse_write_out out = { .size = size };
	struct vfun_hdr *page = s->local[share_index(s, in)].page;

	if (size < 1 || size > 8)
		return -EINVAL;
	__atomic_fetch_add(&page->bell, 1, __ATOMIC_SEQ_CST);
	syscall(SYS_futex, &page->bell, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
	return chain_put(c, &out, sizeof(out));
}

void
data_rung(struct loop_src *src, uint32_t events)
{
	struct share_local *l = loop_container(src, struct share_local, ring);
	struct share *s = share_self();
	uint64_t count;

	(void)events;
	if (read(src->fd, &count, sizeof(count)) != sizeof(count))
		return;
	s->st->instance[l - s->local].bell += count;
	share_retry(s, WAIT_BELL);
}

int
data_read(struct share *s, struct req *r, struct chain *c, const struct fuse_read_in *a)
{
	enum share_file file;
	struct share_instance *in = tree_instance(s, r->u.hdr.nodeid, &file);
	uint64_t len = a->size;
	unsigned n;
	ssize_t got;

	if (!in)
		return -ENODEV;
	if (file == FILE_BELL)
		return bell_read(s, r, c, in, a->size);
	if (file == FILE_FOLDER)
		return -EISDIR;
	if (a->offset >= in->size[file])
		return 0;
	if (len > in->size[file] - a->offset)
		len = in->size[file] - a->offset;
	if (c->out_len < sizeof(struct fuse_out_header) || len > c->out_len - sizeof(struct fuse_out_header))
		return -EIO;
	n = chain_slice(c->out, c->nout, sizeof(struct fuse_out_header), len, slice);
	got = preadv(
	    s->k.fds[SLOT_INSTANCE + 3 * share_index(s, in) + file], slice, (int)n, (off_t)(in->off[file] + a->offset));
	if (got < 0)
		return -errno;
	c->put = (uint64_t)got;
	return 0;
}

int
data_write(struct share *s, struct req *r, struct chain *c, const struct fuse_write_in *a)
{
	enum share_file file;
	struct share_instance *in = tree_instance(s, r->u.hdr.nodeid, &file);
	struct fuse_write_out out = { 0 };
	uint64_t len = a->size;
	unsigned n;
	ssize_t got;

	if (!in)
		return -ENODEV;
	if (file == FILE_BELL)
		return bell_write(s, c, in, a->size);
	if (file != FILE_OUT)
		return file == FILE_FOLDER ? -EISDIR : -EBADF;
	if (a->offset >= in->size[file])
		return len ? -EFBIG : 0;
	if (len > in->size[file] - a->offset)
		len = in->size[file] - a->offset;
	n = chain_slice(c->in, c->nin, sizeof(r->u.hdr) + sizeof(*a), len, slice);
	got = pwritev(
	    s->k.fds[SLOT_INSTANCE + 3 * share_index(s, in) + file], slice, (int)n, (off_t)(in->off[file] + a->offset));
	if (got < 0)
		return -errno;
	out.size = (uint32_t)got;
	return chain_put(c, &out, sizeof(out));
}
