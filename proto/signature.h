/* SPDX-License-Identifier: MIT
 *
 * signature.h - what a function takes and gives, as one line of text, and whether a call fits it
 *
 *	signature = [ "align" IN OUT ":" ] [ "set" args ";" ] [ "get" ] [ args ] "->" results
 *	args      = arg { "," arg }
 *	arg       = NAME TYPE [ MIN ".." [ MAX ] ] [ "default" N ]     a scalar; without MAX: all that it can hold
 *	          | NAME TYPE "[" dim { "," dim } "]"                  an array
 *	results   = "nothing" | result { "," result }
 *	result    = "int"                                              an unsigned integer of any length, the last one
 *	          | NAME TYPE [ "[" dims "]" ]
 *	          | NAME "hex" [ "[" dims "]" ]                        bytes, shown as hex; without dims: any number
 *	TYPE      = u8 u16 u32 u64 i8 i16 i32 i64 f32 f64
 *	dim       = a number | the name of an unsigned scalar | any other name (free) | "*" (free, without a name)
 *
 *	n u64 0..20000, reps u64 1.. default 1 -> int
 *	align 1 64: a u32[n], b u32[n] -> out u32[n]
 *	set n u32 1..1000000, d u32 1..4096, base f32[n,d]; get queries f32[m,d] -> index u32[m]
 *
 * Scalars are the call's inline arguments in order, 64 bits each: signed ones in two's complement, f32 and f64 as the
 * bits of a double. Arrays are its input, one behind the other, each at the next multiple of IN bytes, without padding
 * behind the last; results likewise by OUT. Both are 8 unless the signature says otherwise.
 *
 * A free dimension follows from the input's length: each command has one at most. A result may have it, those of a
 * preceding set, and the scalars of both; its own free dimension, in the last result only, is: as many as the function
 * likes.
 *
 * No function here makes a system call or takes memory. Everything is plain data, which may be copied and sent.
 */
#ifndef PROTO_SIGNATURE_H
#define PROTO_SIGNATURE_H

#include <stdint.h>

#include "vfun.h"

#define VFUN_SIGNATURE_ITEMS 40	 /* arguments and results, all together */
#define VFUN_SIGNATURE_ARRAYS 16 /* arrays of a command; results */
#define VFUN_SIGNATURE_SCALARS 7 /* of a command without arrays; with arrays: 3, what a slot has room for */
#define VFUN_SIGNATURE_DIMS 4	 /* of an array */
#define VFUN_WHY_MAX 56		 /* bytes of a refusal's sentence, with its NUL: it fits an answer's payload */

enum vfun_type {
	VFUN_TYPE_U8 = 1,
	VFUN_TYPE_U16,
	VFUN_TYPE_U32,
	VFUN_TYPE_U64,
	VFUN_TYPE_I8,
	VFUN_TYPE_I16,
	VFUN_TYPE_I32,
	VFUN_TYPE_I64,
	VFUN_TYPE_F32,
	VFUN_TYPE_F64,
	VFUN_TYPE_HEX, /* results only: bytes */
	VFUN_TYPE_INT, /* results only: an unsigned little-endian integer of any length, its dimension is ANY */
};

/* Values that dimensions can have are numbered: a command's scalars in order, and after them its free dimension. */
#define VFUN_VARS 8 /* of one command */
#define VFUN_VAR_FREE 7
#define VFUN_VAR_SET 0 /* set's begin here */
#define VFUN_VAR_GET 8

enum vfun_dim_kind {
	VFUN_DIM_NUMBER = 1, /* n */
	VFUN_DIM_VAR,	     /* the value of variable n */
	VFUN_DIM_ANY,	     /* results: as many as the function likes */
};

struct vfun_dim {
	uint64_t n;
	uint8_t kind; /* enum vfun_dim_kind */
	uint8_t pad[7];
};

/* An argument, or a result. */
struct vfun_item {
	char name[VFUN_NAME_MAX]; /* "" of `int` */
	uint8_t type;		  /* enum vfun_type */
	uint8_t dims;		  /* 0: a scalar */
	uint8_t ranged;		  /* scalars: 1: MIN..MAX was given */
	uint8_t optional;	  /* scalars: 1: it has a default */
	uint8_t size;		  /* bytes of an element */
	uint8_t pad[3];
	struct vfun_dim dim[VFUN_SIGNATURE_DIMS];
	uint64_t min, max, def; /* scalars: as they travel */
};

/* set or get: which items, and what of them is looked at in each call. */
struct vfun_command {
	uint8_t present; /* 1, or it is `set` of a function without */
	uint8_t first;	 /* its items: item[first..first + items) */
	uint8_t items;
	uint8_t scalars;
	uint8_t scalars_min; /* those without a default */
	uint8_t arrays;
	uint8_t floats;				    /* scalars that are f32 or f64, a bit each */
	uint8_t uses_set;			    /* 1: dimensions of get, or of the results, are values of set's */
	uint8_t scalar[VFUN_SIGNATURE_SCALARS + 1]; /* items */
	uint8_t array[VFUN_SIGNATURE_ARRAYS];	    /* items */
	char free[VFUN_NAME_MAX];		    /* the free dimension's name; "*"; "": it has none */
	/* Integers, signed or not: fits if value - min <= span. Of floats span is all. */
	uint64_t each; /* bytes for each one of the free dimension, where it is the only array's only one; else 0 */
	uint64_t min[VFUN_SIGNATURE_SCALARS];
	uint64_t span[VFUN_SIGNATURE_SCALARS];
	uint64_t def[VFUN_SIGNATURE_SCALARS];
};

struct vfun_signature {
	struct vfun_command set;
	struct vfun_command get;
	uint8_t first_result; /* results: item[first_result..first_result + results) */
	uint8_t results;
	uint8_t any;   /* 1: the last result's length is the function's choice */
	uint8_t plain; /* 1: get has no arrays, and at most one result, whose only dimension is the function's choice */
	uint16_t in_align;
	uint16_t out_align;
	struct vfun_item item[VFUN_SIGNATURE_ITEMS];
};

/* Where an array is, and its shape. */
struct vfun_place {
	uint64_t off; /* bytes from the start of the input, or of the result */
	uint64_t len; /* bytes; 0 of a result whose length is the function's choice */
	uint64_t dim[VFUN_SIGNATURE_DIMS];
};

/* What a call comes to. Zeros at first; one for each instance, used again for each of its calls, since it keeps what a
 * set said. */
struct vfun_fit {
	uint64_t var[2 * VFUN_VARS]; /* the scalars, defaults filled in, and free dimensions: set's, get's */
	int kept;		     /* 1: there was a set */
	uint64_t kept_var[VFUN_VARS];
	struct vfun_place in[VFUN_SIGNATURE_ARRAYS];  /* of the command's arrays, in order */
	struct vfun_place out[VFUN_SIGNATURE_ARRAYS]; /* get: of the results */
	uint64_t out_len;			      /* get: bytes of the result; 0: unknown, or nothing */
};

/* The scalars as the function gets them: as many as the command has. */
static inline const uint64_t *
vfun_fit_args(const struct vfun_fit *fit, enum vfun_cmd cmd)
{
	return fit->var + (cmd == VFUN_CMD_SET ? VFUN_VAR_SET : VFUN_VAR_GET);
}

static inline const struct vfun_command *
vfun_signature_command(const struct vfun_signature *s, enum vfun_cmd cmd)
{
	return cmd == VFUN_CMD_SET ? &s->set : &s->get;
}

/* Parse. 0, or -EINVAL and a sentence. Two texts mean the same if memcmp() says so of their parsed forms. */
int vfun_signature_parse(struct vfun_signature *s, const char *text, char fault[VFUN_TEXT_MAX]);

/* Does this call fit? cmd is SET or GET; bulk: 1 if it has a bulk descriptor, with in_len bytes of input. Returns
 *   0		it does, and *fit says what it comes to
 *   -EINVAL	it doesn't: a sentence in `why`, which names the argument
 *   -ENODATA	get needs what a set says, and there was none: a sentence in `why`
 * What a set said counts from vfun_signature_keep() on, and until vfun_signature_forget(). */
int vfun_signature_fits(const struct vfun_signature *s, enum vfun_cmd cmd, const uint64_t *arg, unsigned nargs,
    int bulk, uint64_t in_len, struct vfun_fit *fit, char why[VFUN_WHY_MAX]);

/* The function has accepted the set that fits() was asked about last. */
void vfun_signature_keep(struct vfun_fit *fit);

/* rst */
void vfun_signature_forget(struct vfun_fit *fit);

/* How clients before version 1.3 write its arguments and results down: enum vfun_kind. */
uint8_t vfun_signature_arg_kind(const struct vfun_signature *s);
uint8_t vfun_signature_res_kind(const struct vfun_signature *s);

/* Bytes of an element, and its name. INT: 1. */
unsigned vfun_type_size(enum vfun_type type);
const char *vfun_type_name(enum vfun_type type);
int vfun_type_float(enum vfun_type type);
int vfun_type_signed(enum vfun_type type);

#endif
