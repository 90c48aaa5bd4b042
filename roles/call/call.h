/* SPDX-License-Identifier: MIT
 *
 * call.h - vfun call: what its files share
 */
#ifndef CALL_CALL_H
#define CALL_CALL_H

#include <stdint.h>
#include <stdio.h>

#include "../../proto/signature.h"
#include "../common/cli.h"
#include "../roles.h"

/* Where an array comes from: a file or a pipe, or what was made of a text. */
struct source {
	const char *file; /* NULL: none */
	int fd;		  /* -1: none */
	uint64_t at;	  /* bytes of the file before the data */
	uint64_t len;	  /* bytes of data */
	uint8_t *mem;	  /* the data, if it doesn't lie in the file as it is; owned */
	unsigned dims;	  /* its shape; 0: it doesn't say */
	uint64_t dim[VFUN_SIGNATURE_DIMS];
};

/* One slot: of `set`, as many as there are, and of `get`, the last. */
struct slot {
	enum vfun_cmd cmd;
	uint64_t arg[VFUN_SIGNATURE_SCALARS + 1];
	unsigned nargs;
	struct source src[VFUN_SIGNATURE_ARRAYS];
	unsigned sources;
	int whole;	 /* 1: one source has all the arrays */
	uint64_t in_len; /* bytes of input */
};

struct call {
	struct vfun_options opt;
	const char *function;
	char **argv; /* its arguments */
	int argc;
	const char *output; /* -o, NULL: standard output */
	int json;
	int verbose;
	unsigned timeout_ms;
	uint64_t room; /* for a result of any length, bytes */
	int unlisted;  /* vfund has no such function for us: its nack says it best */
	struct vfun_signature sig;
	int plain; /* 1: a file was named as it is, without @: results are bytes as well */
	struct slot *slot;
	unsigned slots;
	struct vfun_fit fit;
	struct vfun *v;
	struct vfun_grant grant; /* outlive v */
	enum vfun_path path;
	struct vfun_times times;
	uint64_t compute_ns;
	struct vfun_result res;
	uint8_t *result; /* res.len bytes */
};

/* call.c: a line on standard error. Returns status. */
int call_fail(int status, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
uint64_t call_ns(void);

/* input.c: each 0, or an exit status after a message. */
int input_parse(struct call *c);		      /* the command line's arguments, by the signature */
int input_check(struct call *c);		      /* do they fit? Sizes of the arenas */
int input_fill(struct call *c, const struct slot *s); /* into the arena */
void input_free(struct call *c);

/* output.c */
int output_possible(const struct call *c); /* 0, or an exit status: not in the way that is wanted */
int output_result(struct call *c);	   /* write c->result; an exit status */

/* outfile.c: a file that is there as a whole, or not at all. Both 0 or -errno; after outfile_open() has succeeded write
 * to f, whose errors outfile_close() reports. */
struct outfile {
	FILE *f;
	char *name;    /* the file; owned */
	char *written; /* what is written to and becomes the file; owned; NULL: the file itself */
};

int outfile_open(struct outfile *o, const char *name);
int outfile_close(struct outfile *o);

/* list.c: a number as it travels, 0 or -EINVAL. */
int list_number(const char *text, enum vfun_type type, uint64_t *n);
/* Lists of numbers, one in another, as JSON has them, or without the outer brackets: elements of this type, to be
 * freed, and their shape into *s. 0, -ENOMEM, or -EINVAL and a sentence. */
int list_parse(const char *text, enum vfun_type type, struct source *s, char why[VFUN_TEXT_MAX]);
/* One element, as text. */
void list_print_number(FILE *f, enum vfun_type type, const uint8_t *element, int json);
/* Elements of this shape, as lists. */
void list_print(FILE *f, enum vfun_type type, unsigned dims, const uint64_t *dim, const uint8_t *data, int json);

/* npy.c: NumPy's file format. The header of s->fd: s->at, shape and length; 0, or -EINVAL and a sentence: it isn't one,
 * or its elements aren't of this type. */
int npy_header(struct source *s, enum vfun_type type, char why[VFUN_TEXT_MAX]);
void npy_write_header(FILE *f, enum vfun_type type, unsigned dims, const uint64_t *dim);

#endif
