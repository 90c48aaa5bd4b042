/* SPDX-License-Identifier: MIT
 *
 * xrt.h - a vFunction that is a kernel on an XRT device: its description, and what the backend's files share
 *
 * The description is vfun.conf's, for one function: which xclbin, kernel and device, and what each of the kernel's
 * arguments is made of. It goes from vfund to the service as it is; the xclbin's own metadata is compared with it when
 * vfund starts (xclbin.c).
 *
 *   arguments = n u64 0..300, reps u64 default 1, out out 256
 *   arguments = a in, b in, out out, count u32 elements 4
 *
 *   NAME u8|u16|u32|u64 [MIN..MAX] [default N]   the call's next inline argument
 *   NAME u8|u16|u32|u64 elements BYTES           computed: how many elements of so many bytes a share of the input has
 *   NAME in [SIZE]       a buffer that the kernel reads: the next SIZE bytes of the input; without SIZE: a share
 *   NAME inout [SIZE]    likewise, and what the kernel makes of it is part of the result
 *   NAME out [SIZE]      a buffer that the kernel writes: the next part of the result; without SIZE: as long as a share
 *
 * Shares: what the SIZEs leave of the input, divided evenly among the buffers without one.
 */
#ifndef BACKENDS_XRT_H
#define BACKENDS_XRT_H

#include <stdint.h>

#include "../backend.h"

#define XRT_ARGS_MAX 16
#define XRT_SCALARS_MAX 7    /* inline arguments that a slot has room for */
#define XRT_FIXED_MAX 65536u /* bytes of a buffer's SIZE */

enum xrt_type { XRT_SCALAR = 1, XRT_IN, XRT_INOUT, XRT_OUT };

/* One of the kernel's arguments, in the kernel's order. */
struct xrt_arg {
	char name[32];
	uint8_t type;	  /* enum xrt_type */
	uint8_t size;	  /* SCALAR: bytes, 1, 2, 4 or 8 */
	uint8_t optional; /* SCALAR: 1: `def` if the call ends before it */
	uint8_t pad[5];
	uint64_t min, max, def; /* SCALAR */
	uint64_t elements;	/* SCALAR: bytes of an element: computed; 0: an argument of the call */
	uint64_t bytes;		/* buffers: SIZE; 0: a share */
};

struct xrt_desc {
	char xclbin[200];
	char kernel[64];
	char device[16];     /* index, or the card's PCI address: DDDD:BB:DD.F */
	char emulated[100];  /* socket of the model that takes the card's place; "": a card */
	uint32_t timeout_ms; /* of one call */
	uint32_t measure;    /* 1: for vfun bench, see run.c */
	uint8_t res_kind;    /* enum vfun_kind */
	uint8_t nargs;
	uint8_t pad[6];
	struct xrt_arg arg[XRT_ARGS_MAX];
};

/* Add arguments, as vfun.conf has them, to the description: 0, or -EINVAL and a sentence. */
int xrt_arguments(struct xrt_desc *d, const char *text, char fault[BACKEND_TEXT]);

/* Does it make sense as a whole? 0, or -EINVAL and a sentence. */
int xrt_check(const struct xrt_desc *d, char fault[BACKEND_TEXT]);

/* The texts of the function that it describes. */
struct xrt_texts {
	char summary[64]; /* as in struct vfun_function_info */
	char signature[VFUN_SIGNATURE_MAX];
};

/* The function, as other backends list theirs. `name` and `texts` are kept by reference; the texts are written. */
void xrt_function(const struct xrt_desc *d, const char *name, struct xrt_texts *texts, struct backend_function *fn);

/* How long a call's input is cut up. */
struct xrt_shares {
	uint64_t share; /* bytes of each buffer without SIZE */
	uint64_t out;	/* bytes of the result, each part but the last rounded up to XRT_ALIGN */
};

#define XRT_ALIGN 64u /* bytes: where the parts of a result begin */

/* 0, or -EINVAL: the input doesn't divide. */
int xrt_shares(const struct xrt_desc *d, uint64_t in_len, struct xrt_shares *s);

/* 1: every part of the result has a SIZE. */
int xrt_fixed_result(const struct xrt_desc *d);

/* run.c, in the host half: the driver. */
enum vfun_reason xrt_init(const struct backend_setup *setup, void **state, char text[BACKEND_TEXT]);
int xrt_begin(void *state, const struct backend_call *call, struct backend_result *res);
int xrt_finish(void *state, const struct backend_call *call, struct backend_result *res);
void xrt_reset(void *state);
void xrt_exit(void *state);

/* xclbin.c, in the host half: the UUID by which XRT knows the image; 0, or -EINVAL: it isn't an xclbin. */
int xrt_image_uuid(const void *image, uint64_t len, unsigned char uuid[16]);

/* Likewise: print a line for each thing that doesn't fit, on standard output. How many, or -errno. */
int xrt_compare(const struct xrt_desc *d, const void *image, uint64_t len);

#endif
