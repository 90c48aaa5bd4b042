/* SPDX-License-Identifier: MIT
 *
 * vfun.h - the vfun protocol: wire ABI and client interface
 *
 * A client (a program in a VM, or on the host) obtains a vFunction from vfund, the host's daemon, in four
 * phases (VirtFun, Petry and de Azevedo 2020, section 3.2): negotiation, activation, computation, release.
 * Negotiation, activation and release are control messages (part 1 below). Computation needs no message: client and
 * service share two memory regions (part 2). Part 3 is the client library, for programs that link it.
 *
 * Part 4 is the same over TCP, where there is no memory to share. Part 5 is for programs that are vFunctions
 * themselves.
 *
 * This header and vfun-protocol(7) are meant to be enough to write a second implementation.
 *
 * Conventions of the ABI: integers are little-endian and naturally aligned; strings are NUL-terminated and
 * NUL-padded; fields called "reserved" or "pad" are sent as 0 and ignored when received, which is the room to grow.
 */
#ifndef VFUN_H
#define VFUN_H

#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the vfun ABI is little-endian, and this implementation is for little-endian machines"
#endif

#ifdef __cplusplus
extern "C" {
#define VFUN_ASSERT(cond, text) static_assert(cond, text)
#else
#define VFUN_ASSERT(cond, text) _Static_assert(cond, text)
#endif

/* Protocol version: major in the high byte, minor in the low. Two sides work together when the majors are equal;
 * a minor only adds what the other side may ignore. A client offers a range and vfund picks the highest it knows. */
#define VFUN_VERSION 0x0104	   /* 1.1: path ivshmem; 1.2: hardware; 1.3: signatures; 1.4: features, limits */
#define VFUN_VERSION_OLDEST 0x0100 /* the oldest that vfund and this client speak */

#define VFUN_NAME_MAX 32       /* bytes of a function's or client's name, with the NUL */
#define VFUN_FOLDER_MAX 56     /* bytes of an instance folder's name, with the NUL */
#define VFUN_TEXT_MAX 112      /* bytes of a reply's sentence, with the NUL */
#define VFUN_SIGNATURE_MAX 512 /* bytes of a function's signature, with the NUL */

/* ---------------------------------------------------------------------------------------------------------------
 * Part 1: control messages
 *
 * One request, one reply, both struct vfun_msg. Carried by
 *   on the host   the SOCK_SEQPACKET socket <run>/control: one message, one datagram. The reply to ACTIVATE carries
 *                 two descriptors by SCM_RIGHTS: dataout, datain.
 *   in a guest    the file <mount>/control of the VM's virtiofs share: ioctl(fd, VFUN_IOC_CONTROL, &msg) replaces the
 *                 request by its reply; or write() of one request followed by read() of its reply. The reply to
 * ACTIVATE names the instance's folder <mount>/<folder>, which holds dataout, datain and bell.
 *
 * The connection (or open control file) that activated an instance is its lease, and in a guest so is every open file
 * in the instance's folder: when the last of them is closed, for instance because the process died, it is released.
 * --------------------------------------------------------------------------------------------------------------- */

#define VFUN_MSG_MAGIC 0x6e756676u /* "vfun" */

/* Types of request. The reply has VFUN_MSG_REPLY set as well. */
enum vfun_msg_type {
	VFUN_MSG_NEGOTIATE = 1, /* body.negotiate -> body.grant */
	VFUN_MSG_ACTIVATE = 2,	/* body.activate  -> body.active */
	VFUN_MSG_RELEASE = 3,	/* body.release   -> nothing */
	VFUN_MSG_LIST = 4,	/* body.query     -> body.function: functions this client may have, one a message */
	VFUN_MSG_STATUS = 5,	/* body.query     -> body.instance: instances this client may see, one a message;
				 * the text says why one has ended (1.4) */
	VFUN_MSG_INFO = 6,	/* nothing        -> body.info: who vfund is */
	VFUN_MSG_SIGNATURE = 7, /* body.ask       -> body.part: a text about a function, piece by piece (1.3) */
	VFUN_MSG_RELOAD = 8,	/* nothing        -> nothing: the administrator has vfund read vfun.conf again (1.3) */
	VFUN_MSG_GONE = 9, /* never a request: with VFUN_FEATURE_EVENTFD vfund sends it, as a reply with tag 0, when an
			    * instance of this connection has ended: body.release, and why in `reason` (1.4) */
	VFUN_MSG_REPLY = 0x8000,
};

/* Reason codes: 0 is an ack, everything else a nack. Codes below 64 answer control messages, those from 64 on answer
 * slots. A nack's sentence (vfun_msg.text) says the same for people. Codes are never reused. */
enum vfun_reason {
	VFUN_OK = 0,
	VFUN_R_MALFORMED = 1, /* the message breaks this ABI: size, magic, type, a string without end */
	VFUN_R_VERSION = 2,   /* no protocol version in common */
	VFUN_R_UNKNOWN = 3,   /* vfund knows no function of this name */
	VFUN_R_DENIED = 4,    /* it does, but not for this client */
	VFUN_R_NO_HARDWARE =
	    5, /* hardware wanted, not there; VFUN_F_SOFTWARE_OK is set where software would be granted */
	VFUN_R_NO_RESOURCE = 6,	  /* no memory, instance or process left now: a later try may succeed */
	VFUN_R_TOO_LARGE = 7,	  /* asks for more than vfun.conf will ever allow */
	VFUN_R_NO_GRANT = 8,	  /* ACTIVATE of a grant that this client doesn't hold */
	VFUN_R_NO_INSTANCE = 9,	  /* no such instance, or not this client's */
	VFUN_R_START_FAILED = 10, /* the service could not be set up or confined */
	VFUN_R_TIMEOUT = 11,	  /* the service did not get ready in time */
	VFUN_R_SHUTDOWN = 12,	  /* vfund is going down */
	VFUN_R_END = 13,	  /* LIST, STATUS: nothing at or after this position */
	VFUN_R_LOST = 14,	  /* vfund was replaced while the request was under way: ask again */
	VFUN_R_NO_DEVICE = 15,	  /* the device isn't there, or can't be opened */
	VFUN_R_DEVICE_BUSY = 16,  /* the device is in use for something else */
	VFUN_R_IMAGE = 17,	  /* the device's image is missing, or isn't what vfun.conf describes */
	VFUN_R_LIBRARY = 18,	  /* this host lacks a library that the backend needs */
	VFUN_R_NO_SOFTWARE = 19,  /* software wanted, and the function is hardware only */
	VFUN_R_CRASHING = 20,	  /* the function's program keeps crashing: a later try may succeed */
	VFUN_R_CONF = 21,	  /* RELOAD: vfun.conf has faults, nothing was changed */

	VFUN_R_SLOT_COMMAND = 64, /* unknown command */
	VFUN_R_SLOT_LENGTH = 65,  /* len is not a multiple of 8, or exceeds the payload */
	VFUN_R_SLOT_FLAGS = 66,	  /* unknown flag */
	VFUN_R_SLOT_RANGE = 67,	  /* (offset, length) is not inside the arena */
	/* They don't fit the function's signature: the answer's payload is a sentence of `len` bytes (before
	 * version 1.3: of none) that names the argument. Or the function refuses them. */
	VFUN_R_ARGUMENTS = 68,
	VFUN_R_RESULT_SIZE =
	    69,		      /* the result does not fit the room given; `need` tells how much would do, 0 if unknown */
	VFUN_R_FUNCTION = 70, /* the function failed */
	VFUN_R_NO_DATA = 71,  /* GET without arguments and without a SET before it */
	VFUN_R_CUT_OFF = 72,  /* too many insane slots: the service ends the instance */
	VFUN_R_GONE = 73,     /* the service has ended (vfun_hdr.gone) */
	VFUN_R_LATE = 74,     /* the call took longer than vfun.conf allows, and the service has ended */
	VFUN_R_DEVICE = 75,   /* the device failed, and the service has ended, or will */
	VFUN_R_CANCELLED = 76, /* the client cancelled the call (1.4) */
	VFUN_R_LIMIT = 77,     /* the call took longer than its own limit (1.4) */
	VFUN_R_SLOT_SEQ = 78,  /* a position was skipped, or its slot used again too early: the instance ends (1.4) */
};

/* What a client wants its function to run on, and what it got. */
enum vfun_target {
	VFUN_TARGET_ANY = 0,
	VFUN_TARGET_SOFTWARE = 1,
	VFUN_TARGET_HARDWARE = 2,
};

/* How the client means to wait for answers: a hint for the service, which then parks sooner or later. */
enum vfun_wait {
	VFUN_WAIT_ADAPTIVE = 0, /* spin for a while, then park */
	VFUN_WAIT_PARK = 1,	/* don't spin: calls are rare */
};

/* How to write arguments and results down for people. */
enum vfun_kind {
	VFUN_KIND_NONE = 0,  /* nothing */
	VFUN_KIND_INT = 1,   /* argument: inline u64 values; result: unsigned little-endian integer of any length */
	VFUN_KIND_BYTES = 2, /* bulk bytes */
	VFUN_KIND_HEX = 3,   /* result: bytes, shown as lower-case hex */
};

/* What both sides know beyond the version: the client offers what it knows and may use, the grant acknowledges what
 * this instance has. Bits that a side doesn't know are 0 in what it says. (1.4) */
#define VFUN_FEATURE_CANCEL 1ull  /* the service looks at vfun_hdr.cancel */
#define VFUN_FEATURE_LIMIT 2ull	  /* and at vfun_request.limit */
#define VFUN_FEATURE_ORDERED 4ull /* and knows VFUN_SLOT_ORDERED */
#define VFUN_FEATURE_EVENTFD 8ull /* host: ACTIVATE brings a third descriptor, and VFUN_MSG_GONE comes at the end */
#define VFUN_FEATURES_KNOWN 15ull

/* NEGOTIATE: what the client wants. Sizes are wishes; body.grant says what it gets (at least that much). */
struct vfun_negotiate {
	char function[VFUN_NAME_MAX];
	uint16_t version_min; /* lowest and highest protocol version the client speaks */
	uint16_t version_max;
	uint8_t target;	    /* enum vfun_target */
	uint8_t wait;	    /* enum vfun_wait */
	uint16_t slots;	    /* calls in flight, 0: vfund's choice */
	uint64_t out_arena; /* bytes of bulk data client -> service, 0: none */
	uint64_t in_arena;  /* bytes of bulk data service -> client, 0: none */
	uint64_t features;  /* VFUN_FEATURE_* that the client knows; before version 1.4: 0 */
	uint8_t pad[64];
};

/* Data paths, in masks. Version 1.0 has them in vfun_active only, as a hint, and without ivshmem. */
#define VFUN_PATH_HOST 1u
#define VFUN_PATH_DAX 2u
#define VFUN_PATH_COPY 4u
#define VFUN_PATH_IVSHMEM 8u
#define VFUN_PATH_NET 16u

/* The reply: the grant is valid for this connection or open file only, and for one ACTIVATE. */
struct vfun_grant {
	uint64_t grant;
	uint64_t out_arena; /* bytes, a multiple of 4096 */
	uint64_t in_arena;
	uint16_t version; /* the version to speak */
	uint16_t slots;	  /* a power of two, 1..VFUN_SLOTS_MAX */
	uint8_t target;	  /* enum vfun_target: software or hardware */
	uint8_t arg_kind; /* enum vfun_kind */
	uint8_t res_kind;
	uint8_t software_ok; /* 1: hardware, and software would be granted as well; before version 1.2: 0 */
	uint32_t spin_us;    /* how long the service spins before it parks, at most */
	uint32_t paths;	     /* VFUN_PATH_* that this client's VM, or the host, has; version 1.0: 0 */
	uint64_t bar;	     /* vfun_bar.id of the VM's ivshmem BAR; 0: it has none */
	uint16_t workers;    /* a power of two, at most `slots`: requests that it computes at a time; version 1.0: 0 */
	/* From here on: before version 1.4: 0 */
	uint16_t slots_max;	/* of this function */
	uint32_t call_ms;	/* how long a call may take, see VFUN_R_LATE; 0: as long as it likes */
	uint64_t features;	/* VFUN_FEATURE_* that were offered, and that this instance has */
	uint64_t arena_max;	/* of this function, bytes for each direction */
	uint64_t memory_max;	/* bytes that all regions of this client may have, and */
	uint64_t memory_left;	/* how many of them are left now, also if vfund as a whole has fewer */
	uint32_t instances_max; /* likewise instances */
	uint32_t instances_left;
	uint32_t grant_s; /* seconds for which this grant holds; 0: as long as the connection */
	uint8_t pad[28];
};

struct vfun_activate {
	uint64_t grant;
	/* In a guest: with VFUN_PATH_IVSHMEM the regions go into the VM's BAR, which this client has found and can map;
	 * with other bits beside it, they go elsewhere if there is no room. 0, as in version 1.0: not into the BAR. */
	uint32_t paths;
	uint8_t pad[116];
};

/* The reply: the instance, and where it is. */
struct vfun_active {
	uint64_t instance; /* number, unique while vfund runs */
	uint64_t session;  /* random; the same value stands in both region headers */
	uint64_t out_size; /* bytes of the whole dataout region, header and ring included */
	uint64_t in_size;
	uint32_t paths; /* VFUN_PATH_* that this instance offers */
	uint8_t pad0[4];
	char folder[VFUN_FOLDER_MAX]; /* in a guest: the folder's name in the mount; on the host for display only */
	uint64_t out_off;	      /* with VFUN_PATH_IVSHMEM: where dataout is in the BAR, a multiple of 4096 */
	uint64_t in_off;
	uint8_t pad[16];
};

struct vfun_release {
	uint64_t instance;
	uint8_t pad[120];
};

/* LIST and STATUS: walk by asking for position 0, then for `next` of each reply, until VFUN_R_END. */
struct vfun_query {
	uint64_t position;
	uint8_t pad[120];
};

struct vfun_function_info {
	uint64_t next;
	char name[VFUN_NAME_MAX];
	char backend[16];
	char summary[64]; /* one line: arguments and what it does */
	uint8_t target;	  /* enum vfun_target */
	uint8_t arg_kind; /* enum vfun_kind */
	uint8_t res_kind;
	uint8_t software_ok; /* 1: hardware, and software in its place */
	uint8_t pad[4];
};

/* SIGNATURE: begin at offset 0, and go on behind each part until `total` bytes are there. Refused as NEGOTIATE would
 * be. */
enum vfun_about {
	VFUN_ABOUT_SIGNATURE = 0, /* what it takes and gives, VFUN_SIGNATURE_MAX bytes at most, see signature.h */
	VFUN_ABOUT_LIMITS = 1,	  /* what vfun.conf lets it have, a line for each thing, for people */
};

struct vfun_ask {
	char function[VFUN_NAME_MAX];
	uint32_t offset;
	uint32_t what;	/* enum vfun_about */
	uint8_t target; /* enum vfun_target, as in NEGOTIATE: software may take something else than hardware */
	uint8_t pad[87];
};

struct vfun_part {
	uint32_t total; /* bytes of the whole text */
	char text[112]; /* of which these are here: 112, or those up to the end; no NUL */
	uint8_t pad[12];
};

struct vfun_instance_info {
	uint64_t next;
	uint64_t instance;
	uint64_t since;		    /* seconds since 1970-01-01 UTC */
	uint64_t memory;	    /* bytes of both regions */
	uint32_t pid;		    /* of the service; 0 for a client in a guest */
	uint32_t uid;		    /* of the application, as its own kernel says */
	char client[VFUN_NAME_MAX]; /* the VM, or "uid-N" */
	char function[VFUN_NAME_MAX];
	uint8_t target;
	uint8_t state; /* enum vfun_instance_state */
	uint16_t slots;
	uint32_t paths; /* VFUN_PATH_* that it offers; version 1.0: 0 */
	uint8_t pad[16];
};

/* The life of an instance: told apart so that an administrator sees where one hangs. */
enum vfun_instance_state {
	VFUN_INSTANCE_STARTING = 1, /* activation under way */
	VFUN_INSTANCE_ACTIVE = 2,   /* computing, or ready to */
	VFUN_INSTANCE_ENDING = 3,   /* its service is being collected, or has ended and its client may still read */
};

struct vfun_info {
	uint64_t pid;	    /* vfund's, 0 for a client in a guest */
	uint64_t since;	    /* seconds since 1970-01-01 UTC */
	uint32_t instances; /* that this client sees */
	uint32_t vms;	    /* connected VMs; 0 for a client in a guest */
	char release[32];
	char client[VFUN_NAME_MAX]; /* whom vfund takes the asker for */
	uint8_t admin;		    /* 1: the asker is an administrator */
	uint8_t pad[39];
};

/* vfun_msg.flags, nack NO_HARDWARE, or nack of ACTIVATE for hardware: the same request for software would be granted */
#define VFUN_F_SOFTWARE_OK 1u

/* The one control message, request and reply alike: 256 bytes. */
struct vfun_msg {
	uint32_t magic;	  /* VFUN_MSG_MAGIC */
	uint16_t type;	  /* enum vfun_msg_type; replies with VFUN_MSG_REPLY */
	uint16_t version; /* of the sender, VFUN_VERSION; a receiver refuses another major with VFUN_R_VERSION */
	uint32_t tag;	  /* the client's choice; the reply repeats it */
	uint16_t reason;  /* enum vfun_reason; 0 in requests */
	uint16_t flags;	  /* VFUN_F_*; 0 in requests */
	union {
		struct vfun_negotiate negotiate;
		struct vfun_grant grant;
		struct vfun_activate activate;
		struct vfun_active active;
		struct vfun_release release;
		struct vfun_query query;
		struct vfun_function_info function;
		struct vfun_instance_info instance;
		struct vfun_info info;
		struct vfun_ask ask;
		struct vfun_part part;
		uint8_t raw[128];
	} body;
	char text[VFUN_TEXT_MAX]; /* replies: one sentence for people, may be empty; requests: zeros */
};

#define VFUN_AT(type, field, offset) VFUN_ASSERT(offsetof(type, field) == (offset), #type "." #field)
#define VFUN_SIZE(type, size) VFUN_ASSERT(sizeof(type) == (size), #type)

VFUN_SIZE(struct vfun_msg, 256);
VFUN_AT(struct vfun_msg, type, 4);
VFUN_AT(struct vfun_msg, version, 6);
VFUN_AT(struct vfun_msg, tag, 8);
VFUN_AT(struct vfun_msg, reason, 12);
VFUN_AT(struct vfun_msg, flags, 14);
VFUN_AT(struct vfun_msg, body, 16);
VFUN_AT(struct vfun_msg, text, 144);
VFUN_SIZE(struct vfun_negotiate, 128);
VFUN_AT(struct vfun_negotiate, version_min, 32);
VFUN_AT(struct vfun_negotiate, version_max, 34);
VFUN_AT(struct vfun_negotiate, target, 36);
VFUN_AT(struct vfun_negotiate, wait, 37);
VFUN_AT(struct vfun_negotiate, slots, 38);
VFUN_AT(struct vfun_negotiate, out_arena, 40);
VFUN_AT(struct vfun_negotiate, in_arena, 48);
VFUN_AT(struct vfun_negotiate, features, 56);
VFUN_SIZE(struct vfun_grant, 128);
VFUN_AT(struct vfun_grant, out_arena, 8);
VFUN_AT(struct vfun_grant, in_arena, 16);
VFUN_AT(struct vfun_grant, version, 24);
VFUN_AT(struct vfun_grant, slots, 26);
VFUN_AT(struct vfun_grant, target, 28);
VFUN_AT(struct vfun_grant, arg_kind, 29);
VFUN_AT(struct vfun_grant, res_kind, 30);
VFUN_AT(struct vfun_grant, software_ok, 31);
VFUN_AT(struct vfun_grant, spin_us, 32);
VFUN_AT(struct vfun_grant, paths, 36);
VFUN_AT(struct vfun_grant, bar, 40);
VFUN_AT(struct vfun_grant, workers, 48);
VFUN_AT(struct vfun_grant, slots_max, 50);
VFUN_AT(struct vfun_grant, call_ms, 52);
VFUN_AT(struct vfun_grant, features, 56);
VFUN_AT(struct vfun_grant, arena_max, 64);
VFUN_AT(struct vfun_grant, memory_max, 72);
VFUN_AT(struct vfun_grant, memory_left, 80);
VFUN_AT(struct vfun_grant, instances_max, 88);
VFUN_AT(struct vfun_grant, instances_left, 92);
VFUN_AT(struct vfun_grant, grant_s, 96);
VFUN_SIZE(struct vfun_activate, 128);
VFUN_AT(struct vfun_activate, paths, 8);
VFUN_SIZE(struct vfun_active, 128);
VFUN_AT(struct vfun_active, session, 8);
VFUN_AT(struct vfun_active, out_size, 16);
VFUN_AT(struct vfun_active, in_size, 24);
VFUN_AT(struct vfun_active, paths, 32);
VFUN_AT(struct vfun_active, folder, 40);
VFUN_AT(struct vfun_active, out_off, 96);
VFUN_AT(struct vfun_active, in_off, 104);
VFUN_SIZE(struct vfun_release, 128);
VFUN_SIZE(struct vfun_query, 128);
VFUN_SIZE(struct vfun_function_info, 128);
VFUN_AT(struct vfun_function_info, name, 8);
VFUN_AT(struct vfun_function_info, backend, 40);
VFUN_AT(struct vfun_function_info, summary, 56);
VFUN_AT(struct vfun_function_info, target, 120);
VFUN_AT(struct vfun_function_info, arg_kind, 121);
VFUN_AT(struct vfun_function_info, res_kind, 122);
VFUN_AT(struct vfun_function_info, software_ok, 123);
VFUN_SIZE(struct vfun_ask, 128);
VFUN_AT(struct vfun_ask, offset, 32);
VFUN_AT(struct vfun_ask, what, 36);
VFUN_AT(struct vfun_ask, target, 40);
VFUN_SIZE(struct vfun_part, 128);
VFUN_AT(struct vfun_part, text, 4);
VFUN_SIZE(struct vfun_instance_info, 128);
VFUN_AT(struct vfun_instance_info, instance, 8);
VFUN_AT(struct vfun_instance_info, since, 16);
VFUN_AT(struct vfun_instance_info, memory, 24);
VFUN_AT(struct vfun_instance_info, pid, 32);
VFUN_AT(struct vfun_instance_info, uid, 36);
VFUN_AT(struct vfun_instance_info, client, 40);
VFUN_AT(struct vfun_instance_info, function, 72);
VFUN_AT(struct vfun_instance_info, target, 104);
VFUN_AT(struct vfun_instance_info, state, 105);
VFUN_AT(struct vfun_instance_info, slots, 106);
VFUN_AT(struct vfun_instance_info, paths, 108);
VFUN_SIZE(struct vfun_info, 128);
VFUN_AT(struct vfun_info, since, 8);
VFUN_AT(struct vfun_info, instances, 16);
VFUN_AT(struct vfun_info, vms, 20);
VFUN_AT(struct vfun_info, release, 24);
VFUN_AT(struct vfun_info, client, 56);
VFUN_AT(struct vfun_info, admin, 88);

/* In a guest: one transaction on the mount's control file. The kernel sees a read-write ioctl of 256 bytes, which
 * virtiofs carries as one FUSE_IOCTL request. Returns 0 and the reply in place; -1 with errno for trouble on the way.
 */
#define VFUN_IOC_CONTROL _IOWR('v', 0x01, struct vfun_msg)

/* ---------------------------------------------------------------------------------------------------------------
 * Part 2: the mapping
 *
 * Two regions per instance (the paper's section 3.3): the client writes dataout and only reads datain; the service
 * writes datain and only reads dataout. Each region is
 *
 *   0            4096               4096 + ring size                      size
 *   | header page | ring of slots     | arena                               |
 *
 * with ring size = slots * 64 rounded up to 4096, and sizes that never change once the region exists.
 *
 * The ring. Positions count up from 0 for ever (mod 2^32); position p uses slot p & (slots - 1) of both rings. To call,
 * the client fills dataout's slot and last stores its seq = p + 1 (release). The service waits for exactly that value,
 * copies the slot, validates the copy, computes, fills datain's slot, and last stores its seq = p + 1 (release). The
 * client takes the answer when it sees that value, and may then use the slot for position p + slots. Slots are
 * submitted in order; answers may come in any order. A fresh region is all zeros, so no slot is mistaken for a request
 * or an answer.
 *
 * Workers. A service with n workers (vfun_grant.workers) computes n requests at a time: the one of position p is for
 * worker p % n, which takes its own in order. A SET counts for requests submitted after its answer was seen.
 *
 * Bulk data. With VFUN_SLOT_BULK the payload starts with struct vfun_bulk: input (offset, length) in dataout's arena,
 * and room for the result (offset, length) in datain's arena; offsets count from the arena's start. It is used in
 * place. A client that changes it while the call is under way gets a wrong answer and nothing else.
 *
 * Parking. A service that has spun long enough sets datain's header `parked` (each worker its bit, 1 << worker), then
 * (full barrier) looks at its next slot once more, and then sleeps in FUTEX_WAIT on dataout's header `bell`. A client
 * that has stored a seq, or several, does (full barrier) look at datain's `parked`: unless it is 0, it rings. On the
 * host: increment dataout's `bell`, FUTEX_WAKE all that sleep on it. In a guest: write() any 1..8 bytes to the
 * instance's `bell` file, and the share does the same on the client's behalf. The other way round likewise: client
 * parks with dataout's `parked` = 1 and sleeps on datain's `bell`. A client of a service with one worker may say in
 * dataout's `until`, before it sets `parked`, which answer it sleeps for: earlier ones don't ring, so that one ring
 * does for a batch. A sleep is always bounded: a client looks again at least ten times a second, a service once a
 * minute, and whoever finds datain's `gone` set stops waiting.
 * --------------------------------------------------------------------------------------------------------------- */

#define VFUN_PAGE 4096u
#define VFUN_LINE 64u
#define VFUN_SLOTS_MAX 256u
#define VFUN_OUT_MAGIC 0x3174754f6e754676ull /* "vFunOut1" */
#define VFUN_IN_MAGIC 0x315f6e496e754676ull  /* "vFunIn_1" */

/* Region header: the first page. The service fills line 0 before anybody else sees the region, magic last; it never
 * changes. The service takes the geometry from vfund, never from here; a client checks that it is what ACTIVATE said.
 */
struct vfun_hdr {
	/* line 0: what this is */
	uint64_t magic;	  /* VFUN_OUT_MAGIC or VFUN_IN_MAGIC */
	uint64_t session; /* as in vfun_active */
	uint64_t instance;
	uint64_t size;	    /* bytes of the region */
	uint16_t version;   /* the version granted */
	uint16_t slot_size; /* 64 */
	uint32_t slots;
	uint64_t ring_off; /* 4096 */
	uint64_t arena_off;
	uint64_t arena_size;
	/* line 1: the end, written by vfund in datain when the service has ended */
	uint32_t gone; /* 0, or a VFUN_R_* code: nobody serves here any more */
	uint8_t pad1[60];
	/* line 2: futex word, incremented by whoever wakes the sleeper that reads this region */
	uint32_t bell;
	uint8_t pad2[60];
	/* line 3: not 0 while this region's writer, or a thread of it, sleeps or is about to */
	uint32_t parked;
	uint32_t cpu;	/* a hint: 1 + the processor where the writer parked or rang last; 0: unknown, or in a guest */
	uint32_t until; /* dataout: ring for the answer with this seq, or a later one; 0: for any */
	uint32_t cancels; /* dataout: 0 until the client has cancelled anything: nobody need look at `cancel` (1.4) */
	uint8_t pad3[48];
	/* line 4, datain: the service's state, enum vfun_state, for people and for clients with no slot in flight */
	uint32_t state;
	uint8_t pad4[60];
	/* lines 5 to 20, dataout: of each slot, the seq of the request that isn't wanted any more (1.4) */
	uint32_t cancel[VFUN_SLOTS_MAX];
	uint8_t reserved[VFUN_PAGE - 21 * VFUN_LINE];
};

VFUN_SIZE(struct vfun_hdr, 4096);
VFUN_AT(struct vfun_hdr, session, 8);
VFUN_AT(struct vfun_hdr, instance, 16);
VFUN_AT(struct vfun_hdr, size, 24);
VFUN_AT(struct vfun_hdr, version, 32);
VFUN_AT(struct vfun_hdr, slot_size, 34);
VFUN_AT(struct vfun_hdr, slots, 36);
VFUN_AT(struct vfun_hdr, ring_off, 40);
VFUN_AT(struct vfun_hdr, arena_off, 48);
VFUN_AT(struct vfun_hdr, arena_size, 56);
VFUN_AT(struct vfun_hdr, gone, 64);
VFUN_AT(struct vfun_hdr, bell, 128);
VFUN_AT(struct vfun_hdr, parked, 192);
VFUN_AT(struct vfun_hdr, cpu, 196);
VFUN_AT(struct vfun_hdr, until, 200);
VFUN_AT(struct vfun_hdr, cancels, 204);
VFUN_AT(struct vfun_hdr, state, 256);
VFUN_AT(struct vfun_hdr, cancel, 320);

/* Path ivshmem: the first page of BAR 2 of the VM's ivshmem device (PCI 1af4:1110), of which there may be others. vfund
 * writes it when the VM connects and never reads it. Regions lie behind it, page by page, and are other clients' unless
 * ACTIVATE said where. A file of the instance's folder has to be open for as long as a region is mapped: after that its
 * place is given to others. */
#define VFUN_BAR_MAGIC 0x317261426e756676ull /* "vfunBar1" */
#define VFUN_PCI_VENDOR 0x1af4u
#define VFUN_PCI_DEVICE 0x1110u

struct vfun_bar {
	uint64_t magic; /* VFUN_BAR_MAGIC */
	uint64_t id;	/* random, as in vfun_grant.bar; another one for each life of the VM */
	uint64_t size;	/* bytes of the BAR */
	uint16_t version;
	uint8_t pad[6];
	char vm[VFUN_NAME_MAX]; /* for people */
};

VFUN_SIZE(struct vfun_bar, 64);
VFUN_AT(struct vfun_bar, id, 8);
VFUN_AT(struct vfun_bar, size, 16);
VFUN_AT(struct vfun_bar, version, 24);
VFUN_AT(struct vfun_bar, vm, 32);

/* Commands (the paper's section 3.2.3). */
enum vfun_cmd {
	/* Hand arguments over. To a function whose signature has `set`: they are its own. To others: for a GET without
	 * arguments, and the answer says only whether the slot is well-formed. */
	VFUN_CMD_SET = 1,
	VFUN_CMD_GET =
	    2, /* compute and return the result: of this slot's own arguments if it has any, else of the last SET's */
	VFUN_CMD_RST = 3,  /* forget the arguments set, and the function's own state */
	VFUN_CMD_ECHO = 4, /* return the inline payload: proves the mapping, and is the null call of benchmarks */
};

/* States (section 3.2.3), of a slot (vfun_answer.state) and of the service as a whole (vfun_hdr.state). */
enum vfun_state {
	VFUN_STATE_WAIT = 0, /* ready for a request */
	VFUN_STATE_BUSY =
	    1, /* a request is being computed; the service shows it only for calls with bulk data, or long ones */
	VFUN_STATE_DONE = 2, /* the answer is there */
};

#define VFUN_SLOT_BULK 1u    /* vfun_request.flags: the payload starts with struct vfun_bulk */
#define VFUN_SLOT_LONG 2u    /* vfun_request.flags: a hint that this call takes long: the service shows BUSY */
#define VFUN_SLOT_ORDERED 4u /* vfun_request.flags: not before all earlier positions are answered (1.4) */

#define VFUN_PAYLOAD 56u

/* A slot of dataout's ring: one cache line. */
struct vfun_request {
	uint32_t seq;  /* position + 1, stored last */
	uint8_t cmd;   /* enum vfun_cmd */
	uint8_t flags; /* VFUN_SLOT_* */
	uint8_t len;   /* bytes of payload used, a multiple of 8, 0..56, bulk descriptor included */
	uint8_t limit; /* 0, or how long the call may take: (8 + limit % 8) << limit / 8 microseconds (1.4) */
	union {
		uint64_t arg[VFUN_PAYLOAD / 8]; /* inline arguments; with BULK they follow the descriptor, at arg[4] */
		uint8_t bytes[VFUN_PAYLOAD];
	} payload;
};

/* The bulk descriptor: the payload's first 32 bytes when VFUN_SLOT_BULK is set. Bytes, from the arenas' starts. */
struct vfun_bulk {
	uint64_t in_off; /* the input, in dataout's arena */
	uint64_t in_len;
	uint64_t out_off; /* room for the result, in datain's arena */
	uint64_t out_len;
};

#define VFUN_ANSWER_BULK                                                                                               \
	1u /* vfun_answer.flags: the result lies at the request's out_off; payload[0] is its length                    \
	    */

/* A slot of datain's ring: one cache line. */
struct vfun_answer {
	uint32_t seq;	/* the request's, stored last */
	uint8_t state;	/* enum vfun_state */
	uint8_t flags;	/* VFUN_ANSWER_* */
	uint8_t reason; /* enum vfun_reason */
	uint8_t len;	/* bytes of payload used */
	union {
		uint64_t word[VFUN_PAYLOAD / 8]; /* BULK: word[0] = length; RESULT_SIZE: word[0] = need */
		uint8_t bytes[VFUN_PAYLOAD];
	} payload;
};

VFUN_SIZE(struct vfun_request, 64);
VFUN_AT(struct vfun_request, cmd, 4);
VFUN_AT(struct vfun_request, flags, 5);
VFUN_AT(struct vfun_request, len, 6);
VFUN_AT(struct vfun_request, limit, 7);
VFUN_AT(struct vfun_request, payload, 8);
VFUN_SIZE(struct vfun_bulk, 32);
VFUN_AT(struct vfun_bulk, in_len, 8);
VFUN_AT(struct vfun_bulk, out_off, 16);
VFUN_AT(struct vfun_bulk, out_len, 24);
VFUN_SIZE(struct vfun_answer, 64);
VFUN_AT(struct vfun_answer, state, 4);
VFUN_AT(struct vfun_answer, flags, 5);
VFUN_AT(struct vfun_answer, reason, 6);
VFUN_AT(struct vfun_answer, len, 7);
VFUN_AT(struct vfun_answer, payload, 8);

/* The first 8 bytes of a slot, which hold its seq and are stored at once. */
static inline uint64_t
vfun_request_head(uint32_t seq, unsigned cmd, unsigned flags, unsigned len, unsigned limit)
{
	return seq | (uint64_t)cmd << 32 | (uint64_t)flags << 40 | (uint64_t)len << 48 | (uint64_t)limit << 56;
}

static inline uint64_t
vfun_answer_head(uint32_t seq, unsigned state, unsigned flags, unsigned reason, unsigned len)
{
	return seq | (uint64_t)state << 32 | (uint64_t)flags << 40 | (uint64_t)reason << 48 | (uint64_t)len << 56;
}

/* vfun_request.limit as microseconds, and the smallest limit that is not below `us` (1 us to 4.4 hours; 0: none). */
static inline uint64_t
vfun_limit_us(unsigned limit)
{
	return limit ? (8ull + limit % 8) << limit / 8 : 0;
}

static inline unsigned
vfun_limit_of(uint64_t us)
{
	unsigned limit = us ? 1 : 0;

	while (limit && limit < 255 && vfun_limit_us(limit) < us)
		limit++;
	return limit;
}

/* Bytes of a ring of `slots` slots, and of a whole region. */
static inline uint64_t
vfun_ring_size(uint32_t slots)
{
	return ((uint64_t)slots * VFUN_LINE + VFUN_PAGE - 1) & ~(uint64_t)(VFUN_PAGE - 1);
}

static inline uint64_t
vfun_region_size(uint32_t slots, uint64_t arena)
{
	return VFUN_PAGE + vfun_ring_size(slots) + arena;
}

/* One turn of a spinning wait. */
static inline void
vfun_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield" ::: "memory");
#endif
}

/* ---------------------------------------------------------------------------------------------------------------
 * Part 3: the client library (proto/client.c, control.c, path.c, ivshmem.c, channel.c, buffer.c; and proto/net.c,
 * netframe.c and netauth.c, which need libnettle)
 *
 * One handle is one instance, for one thread at a time. Functions return 0 or -errno unless they say otherwise:
 *   -ENOENT        no vfund and no share at the place given
 *   -EACCES        refused: vfun_reason() and vfun_text() say why (nack)
 *   -ETIMEDOUT     no answer in time
 *   -ENODEV        the data path asked for is not to be had (not offered, or the mapping isn't coherent)
 *   -ECONNRESET    vfund, the share or the service went away
 *   -EPROTO        the other side breaks the ABI
 *   -EPERM         the handle is the parent process's: a child of fork() can do nothing with it but close it
 *   others         this process: memory, descriptors
 * --------------------------------------------------------------------------------------------------------------- */

/* Data paths, and what to ask for. */
enum vfun_path {
	VFUN_PATH_AUTO = 0,
	VFUN_PATH_IS_HOST = 1,	  /* memfds passed by vfund */
	VFUN_PATH_IS_DAX = 2,	  /* mmap() of the share's files, proved coherent by an echo */
	VFUN_PATH_IS_COPY = 3,	  /* pread()/pwrite() on the share's files */
	VFUN_PATH_IS_IVSHMEM = 4, /* mmap() of the VM's ivshmem BAR, proved by an echo */
	VFUN_PATH_IS_NET = 5,	  /* slots and bulk data over TCP (part 4) */
};

/* What vfun_open() asks for. Zeros are good defaults. The strings must live until vfun_open() returns. */
struct vfun_options {
	size_t size;	 /* sizeof(struct vfun_options): lets the struct grow */
	const char *run; /* folder with `control`; NULL: $VFUN_RUN_DIR, else the usual places */
	enum vfun_target target;
	enum vfun_path path;
	enum vfun_wait wait;
	unsigned slots;	    /* calls in flight */
	uint64_t out_arena; /* bytes */
	uint64_t in_arena;
	unsigned timeout_ms; /* for each phase of opening and closing; 0: 10 seconds */
	unsigned echo_ms;    /* how long a mapping may take to prove itself; 0: 1 second */
	/* Path net: "ADDRESS:PORT" or "[ADDRESS]:PORT", numeric; NULL: $VFUN_SERVER. Named here, it is used unless
	 * `path` says another; named in the environment, if `path` says so or nothing is there locally. */
	const char *server;
	const char *key_file; /* NULL: $VFUN_KEY_FILE; NAME and 64 hexadecimal digits, readable by its owner only */
	unsigned spin_us;  /* how long a wait spins before it sleeps, at most; 0: $VFUN_SPIN, else 50; see also `wait`.
			    * Of some milliseconds it sleeps most, if the last answers took about as long each */
	unsigned pollable; /* 1: vfun_fd() will be used; costs two descriptors */
};

struct vfun;

/* How long each phase took, in nanoseconds of CLOCK_MONOTONIC. */
struct vfun_times {
	uint64_t negotiate;
	uint64_t activate; /* with mapping and echo */
	uint64_t release;
};

/* A finished call. `inline_result` is a private copy; a bulk result stays in the arena, at the room that was given. */
struct vfun_result {
	enum vfun_reason reason; /* VFUN_OK or why not */
	int bulk;		 /* 1: the result is in datain's arena */
	uint64_t len; /* bytes of the result; RESULT_SIZE: bytes needed; others: of the sentence in inline_result */
	union {
		uint8_t inline_result[VFUN_PAYLOAD];
		uint64_t inline_word[VFUN_PAYLOAD / 8];
	};
};

/* Negotiate, activate, map, and prove the mapping. On success *out is a handle to be given to vfun_close(); on failure
 * *out is a handle as well (or NULL on -ENOMEM), good only for vfun_reason(), vfun_text() and vfun_close(). */
int vfun_open(struct vfun **out, const char *function, const struct vfun_options *opt);

/* Release and free. Accepts NULL. Returns what the release said; the handle is gone either way. */
int vfun_close(struct vfun *v, struct vfun_times *times);

/* The reason code and sentence of the last refusal or failure, calls that failed included; never NULL. */
enum vfun_reason vfun_reason(const struct vfun *v);
const char *vfun_text(const struct vfun *v);

/* With VFUN_TARGET_ANY, why it is software although there is hardware for it: a sentence; "" in any other case. */
const char *vfun_fallback(const struct vfun *v);

/* Path copy: 1 if there was a mapping that proved not to be coherent, as vfun_text() says; 0: there was none. */
int vfun_incoherent(const struct vfun *v);

/* What was granted. Valid until vfun_close(). */
const struct vfun_grant *vfun_granted(const struct vfun *v);
const struct vfun_active *vfun_activated(const struct vfun *v);
enum vfun_path vfun_path(const struct vfun *v);
const char *vfun_path_name(enum vfun_path path);
const char *vfun_reason_name(enum vfun_reason reason);
struct vfun_times vfun_times(const struct vfun *v);

/* Bulk data. With path copy only vfun_put() and vfun_fetch() work, and the first two functions return NULL; with the
 * others the arenas are plain memory. With path net it is this process's own: a call takes its input along and brings
 * its result, and nothing else of the arenas is the service's. Offsets and lengths in bytes of the arena; -ERANGE
 * outside it. */
void *vfun_out_arena(struct vfun *v);
const void *vfun_in_arena(struct vfun *v);
int vfun_put(struct vfun *v, uint64_t off, const void *data, uint64_t len);
int vfun_fetch(struct vfun *v, uint64_t off, void *data, uint64_t len);

/* A piece of an arena as plain memory, whatever the path. A call takes its input from one and leaves its result in
 * another, with { in.off, in.len, room.off, room.len } as its bulk descriptor; nothing is copied but by the paths that
 * can't do without. It is used for any number of calls, one at a time, and there until vfun_close(). */
struct vfun_buffer {
	void *data;   /* starts at a multiple of 64, from a page's length on of 4096 */
	uint64_t off; /* in the arena */
	uint64_t len; /* bytes, as asked for */
};

/* The next piece of dataout's arena: for inputs; and of datain's: for results. -ENOSPC: not that much is left of what
 * was asked for by vfun_options.out_arena and in_arena. */
int vfun_input(struct vfun *v, struct vfun_buffer *b, uint64_t len);
int vfun_room(struct vfun *v, struct vfun_buffer *b, uint64_t len);

/* The bytes of a result (res->len) of a call whose room this is; short ones don't come there. */
static inline const void *
vfun_result_data(const struct vfun_result *res, const struct vfun_buffer *room)
{
	return res->bulk ? room->data : res->inline_result;
}

/* Submit one request: cmd, inline arguments (nargs <= 7, with bulk <= 3), bulk descriptor or NULL. *ticket names it.
 * -EAGAIN: the next slot holds a request whose answer wasn't taken, as when as many are in flight as there are slots.
 * Nothing is rung until vfun_ring(), or until vfun_wait() or vfun_reap(): submit a batch, and ring once.
 *
 *	while (left && !vfun_submit(v, VFUN_CMD_GET, &arg[i], 1, NULL, &ticket))
 *		...
 *	n = vfun_reap(v, done, 64, timeout_ns);
 */
int vfun_submit(struct vfun *v, enum vfun_cmd cmd, const uint64_t *args, unsigned nargs, const struct vfun_bulk *bulk,
    uint32_t *ticket);

/* Wake the service if it sleeps. One for a whole batch. */
int vfun_ring(struct vfun *v);

/* Take the answer of `ticket`. vfun_poll() returns -EAGAIN if it isn't there yet; vfun_wait() spins, then sleeps, at
 * most timeout_ns (-ETIMEDOUT). Each ticket is taken once (-EINVAL after that), in any order. The slot is free again
 * afterwards. */
int vfun_poll(struct vfun *v, uint32_t ticket, struct vfun_result *res);
int vfun_wait(struct vfun *v, uint32_t ticket, struct vfun_result *res, uint64_t timeout_ns);

/* How long each call that is submitted from now on may take, once the service has begun it: the answer is VFUN_R_LIMIT
 * then, if the function can be stopped (see vfun_stopped()). In nanoseconds, rounded up by an eighth at most; 0: no
 * limit. -EOPNOTSUPP: this service has none. */
int vfun_limit(struct vfun *v, uint64_t ns);

/* Tell the service that the answer of `ticket` isn't wanted any more. It comes all the same, and is taken as ever:
 * VFUN_R_CANCELLED, or the result if that was sooner or the function can't be stopped. 0; -EINVAL: no such ticket is
 * pending; -EOPNOTSUPP: this service can't. */
int vfun_cancel(struct vfun *v, uint32_t ticket);

/* Cancel it, and never look at its answer: the slot is free for another request as soon as the answer is there. The
 * room given to it may be used at once: the next request begins after this one's end. A vfun_call() that times out does
 * this by itself. 0; -EINVAL: no such ticket is pending. */
int vfun_forget(struct vfun *v, uint32_t ticket);

/* To wait with poll(2) and the like, on the host: a descriptor that becomes readable when an answer is there, or the
 * instance has ended, provided that vfun_arm() returned 0 after the last answer was taken. vfun_arm() returns 1 if
 *there is something to take now. The descriptor is the handle's: don't read or close it.
 *
 *	while (!(r = vfun_arm(v)))
 *		poll(&(struct pollfd){ .fd = vfun_fd(v), .events = POLLIN }, 1, -1);
 *	n = vfun_reap(v, done, 64, 0);
 *
 * -EOPNOTSUPP: not with this path, or this vfund. */
int vfun_fd(struct vfun *v);
int vfun_arm(struct vfun *v);

/* One of a batch of answers. */
struct vfun_done {
	uint32_t ticket;
	struct vfun_result result;
};

/* Take the answers that are there, whichever they are: at most `max`, into done[], and wait as vfun_wait() does until
 * there is at least one. Returns how many; 0 when nothing is in flight; -ETIMEDOUT, with timeout_ns 0 at once. */
int vfun_reap(struct vfun *v, struct vfun_done *done, unsigned max, uint64_t timeout_ns);

/* The same, but wait until there are at least `min`, or all that are in flight: the service wakes a sleeper once for
 * all of them, where it can (one worker). Fewer after timeout_ns, or -ETIMEDOUT for none. */
int vfun_gather(struct vfun *v, struct vfun_done *done, unsigned min, unsigned max, uint64_t timeout_ns);

/* vfun_submit() + vfun_wait() of one request. */
int vfun_call(struct vfun *v, enum vfun_cmd cmd, const uint64_t *args, unsigned nargs, const struct vfun_bulk *bulk,
    struct vfun_result *res, uint64_t timeout_ns);

/* Control transactions outside an instance (LIST, STATUS, INFO, RELEASE). vfun_control_open() returns a descriptor, to
 * be closed by close(), or -errno; with admin = 1 it is the administrator's where this user may open that
 * (<run>/admin/socket). vfun_control() sends the request whose type and body the caller has set, and *msg becomes the
 * reply. A nack is not an error here: look at msg->reason. */
int vfun_control_open(const char *run, int admin);
/* The same where vfun_open() with these options would ask. */
int vfun_control_for(const struct vfun_options *opt);
int vfun_control(int fd, struct vfun_msg *msg, unsigned timeout_ms);

/* What a function takes and gives (proto/signature.h), asked where vfun_open() with these options would ask. Besides
 * the usual: -EACCES: vfund refuses, `text` is its sentence; -EOPNOTSUPP: vfund is older than version 1.3. */
int vfun_signature(const struct vfun_options *opt, const char *function, char text[VFUN_SIGNATURE_MAX]);
/* The same, and other texts, through an open descriptor; offset 0. What is longer than `size` is cut off. */
int vfun_about(int fd, const struct vfun_ask *ask, char *text, size_t size, unsigned timeout_ms);

/* ---------------------------------------------------------------------------------------------------------------
 * Part 4: over TCP (path net)
 *
 * For a program that shares no memory with the host: in a VM without a share, on another machine, or on the host to
 * compare. The channel is authenticated when it is opened and not encrypted. One connection is one client's and holds
 * one instance at most; it is the lease of that. Both sides send frames: struct vfun_net_frame, then a body whose size
 * the type says, then `len` bytes of bulk data.
 *
 *   server                               client
 *   HELLO    version, nonce      -->
 *                                <--     AUTH     name, version, nonce, proof
 *   WELCOME  proof               -->
 *                                <--     CONTROL  a request; the next one when this one is answered
 *   CONTROL  its reply           -->
 *                                <--     CALL     the slot as it would stand in dataout, bulk: its input
 *   ANSWER   the slot of datain  -->              bulk: its result
 *                                <--     CANCEL   the seq of a call that isn't wanted any more (1.4)
 *   GONE     reason              -->              the service has ended: as datain's `gone`
 *
 * A CONTROL of type VFUN_MSG_REPLY alone answers nothing: it says why the server ends the connection, which follows.
 *
 * Slots are those of part 2, positions included, and are judged by the service alone: the server looks only at what it
 * needs to carry them. Each side thus has the two regions by itself, of which the slots in use and the bulk data of
 * calls under way are the same.
 *
 * A proof is HMAC-SHA256, by the client's 32-byte key, of struct vfun_net_proof: who knows the key, knows it now (the
 * other side's nonce is fresh), and is the side that it says.
 * --------------------------------------------------------------------------------------------------------------- */

#define VFUN_NET_MAGIC 0x74656e76u /* "vnet" */
#define VFUN_NET_KEY 32u	   /* bytes of keys, nonces and proofs */

enum vfun_net_type {
	VFUN_NET_HELLO = 1,
	VFUN_NET_AUTH = 2,
	VFUN_NET_WELCOME = 3,
	VFUN_NET_CONTROL = 4, /* body: struct vfun_msg */
	VFUN_NET_CALL = 5,    /* body: struct vfun_request; bulk data for `off` of dataout's arena */
	VFUN_NET_ANSWER = 6,  /* body: struct vfun_answer; bulk data for `off` of datain's arena */
	VFUN_NET_GONE = 7,
	VFUN_NET_CANCEL = 8, /* body: struct vfun_net_cancel; only with VFUN_FEATURE_CANCEL (1.4) */
};

struct vfun_net_frame {
	uint32_t magic; /* VFUN_NET_MAGIC */
	uint16_t type;	/* enum vfun_net_type */
	uint16_t body;	/* bytes of the body */
	uint64_t off;	/* CALL, ANSWER: where the bulk data belongs; 0 without */
	uint64_t len;	/* bytes of bulk data, 0: none */
};

struct vfun_net_hello {
	uint16_t version; /* the server's; a client of another major goes */
	uint8_t pad[6];
	uint8_t nonce[VFUN_NET_KEY]; /* random, never the same */
};

struct vfun_net_auth {
	char client[VFUN_NAME_MAX]; /* [net-client NAME] of vfun.conf */
	uint16_t version;	    /* the client's */
	uint8_t pad[6];
	uint8_t nonce[VFUN_NET_KEY];
	uint8_t proof[VFUN_NET_KEY];
};

struct vfun_net_welcome {
	uint8_t proof[VFUN_NET_KEY];
};

struct vfun_net_gone {
	uint32_t reason; /* VFUN_R_* */
	uint8_t pad[4];
};

struct vfun_net_cancel {
	uint32_t seq;
	uint8_t pad[4];
};

/* What is proved: never sent. */
struct vfun_net_proof {
	char side[16]; /* "vfun-net client" or "vfun-net server" */
	char client[VFUN_NAME_MAX];
	uint16_t server_version;
	uint16_t client_version;
	uint8_t pad[4];
	uint8_t server_nonce[VFUN_NET_KEY];
	uint8_t client_nonce[VFUN_NET_KEY];
};

VFUN_SIZE(struct vfun_net_frame, 24);
VFUN_AT(struct vfun_net_frame, type, 4);
VFUN_AT(struct vfun_net_frame, body, 6);
VFUN_AT(struct vfun_net_frame, off, 8);
VFUN_AT(struct vfun_net_frame, len, 16);
VFUN_SIZE(struct vfun_net_hello, 40);
VFUN_AT(struct vfun_net_hello, nonce, 8);
VFUN_SIZE(struct vfun_net_auth, 104);
VFUN_AT(struct vfun_net_auth, version, 32);
VFUN_AT(struct vfun_net_auth, nonce, 40);
VFUN_AT(struct vfun_net_auth, proof, 72);
VFUN_SIZE(struct vfun_net_welcome, 32);
VFUN_SIZE(struct vfun_net_gone, 8);
VFUN_SIZE(struct vfun_net_cancel, 8);
VFUN_SIZE(struct vfun_net_proof, 120);
VFUN_AT(struct vfun_net_proof, client, 16);
VFUN_AT(struct vfun_net_proof, server_version, 48);
VFUN_AT(struct vfun_net_proof, client_version, 50);
VFUN_AT(struct vfun_net_proof, server_nonce, 56);
VFUN_AT(struct vfun_net_proof, client_nonce, 88);

/* ---------------------------------------------------------------------------------------------------------------
 * Part 5: a function of one's own (proto/program.c), see vfun-function(7)
 *
 * A vFunction may be an executable of the host's administrator, [function NAME] with `backend = program` in vfun.conf.
 * vfund starts it, confined, once for each instance. In C, such a program is a struct vfun_program and one call:
 *
 *	static int
 *	call(void *state, const struct vfun_incoming *in, struct vfun_outgoing *out)
 *	{
 *		const float *a = in->array[0].data;
 *		float *b = out->array[0].data;
 *
 *		for (uint64_t i = 0; i < in->array[0].n; i++)
 *			b[i] = a[i] * a[i];
 *		return 0;
 *	}
 *
 *	int
 *	main(int argc, char **argv)
 *	{
 *		static const struct vfun_program square = {
 *			.size = sizeof(square),
 *			.signature = "a f32[n] -> b f32[n]",
 *			.summary = "the square of each number",
 *			.call = call,
 *		};
 *
 *		return vfun_serve(&square, argc, argv);
 *	}
 *
 * The signature says what a call brings and what it gives, see vfun-protocol(7). A call that doesn't fit it is refused
 * before call() sees it.
 * --------------------------------------------------------------------------------------------------------------- */

#define VFUN_SUMMARY_MAX 64 /* bytes of a summary, with the NUL */
#define VFUN_ARRAYS_MAX 16  /* arrays in one direction of a call */
#define VFUN_DIMS_MAX 4	    /* dimensions of an array */

/* An array of a call, aligned as the signature says, or to 64 bytes if that says more. One for the result is writable:
 * nobody but the client reads it. */
struct vfun_array {
	void *data;
	uint64_t bytes;
	uint64_t n; /* elements: the product of dim[]; of a result of any length, those that its room holds */
	uint64_t dim[VFUN_DIMS_MAX];
	unsigned dims;
};

/* May the call be given up? A function that takes long asks now and then, between two pieces of its work: 0, or what
 * call() is to return then: -ECANCELED, the client has cancelled it; -ETIME, the call's own limit is over. Costs a
 * load, and with a limit a look at the clock. NULL: nobody can stop it. From any thread. */
struct vfun_stop {
	const uint32_t *cancel; /* NULL: this client never cancels */
	uint32_t seq;
	uint64_t until; /* CLOCK_MONOTONIC ns; 0: no limit */
};

int vfun_stopped(const struct vfun_stop *stop);

/* What a call brings. Arrays lie in memory that the client may change at any moment: what is decided upon has to be
 * read once, into a copy. Everything is valid until call() returns. */
struct vfun_incoming {
	enum vfun_cmd cmd;   /* VFUN_CMD_GET; VFUN_CMD_SET as well if the signature has a `set` */
	const uint64_t *arg; /* the scalars of this command, in order, defaults filled in; a private copy */
	unsigned nargs;
	unsigned narrays;
	const struct vfun_array *array;
	const struct vfun_stop *stop; /* for vfun_stopped() */
};

/* What it is to give. Results whose length is known from the signature and the call have their arrays here, all that is
 * to be written, and need nothing else; their room is there before call() is called. A result of any length (int, hex
 * and [*]) has vfun_result_put(); or, where it is the only one, is written to array[0], whose `bytes` are the room, and
 * vfun_result_length() says how long it became. */
struct vfun_outgoing {
	unsigned narrays;
	struct vfun_array array[VFUN_ARRAYS_MAX];
	/* vfun_serve()'s own: */
	uint8_t *room; /* the client's, for a result of any length, behind what is in front of it */
	uint64_t room_len;
	uint64_t len; /* bytes so far */
	uint64_t need;
	int in_room;
	char why[VFUN_PAYLOAD];
	uint64_t small[VFUN_PAYLOAD / 8] __attribute__((aligned(64))); /* a short result */
};

struct vfun_program {
	size_t size; /* sizeof(struct vfun_program): lets the struct grow */
	const char *signature;
	const char *summary; /* one line, what it does */

	/* Before anything is served, once for each thread: allocate and open all that calls will need. Afterwards no
	 * file can be opened any more; memory can, within the function's bounds. result_max: bytes of the largest
	 * result that a call can have. 0, or -errno: the instance isn't to be. NULL: there is nothing to do. */
	int (*init)(void **state, uint64_t result_max);

	/* One call. 0; -EINVAL: these arguments won't do, vfun_refuse() says why; -ENOSPC: the client gave no room for
	 * the result; what vfun_stopped() said: it is given up; any other -errno: the function failed. */
	int (*call)(void *state, const struct vfun_incoming *in, struct vfun_outgoing *out);

	/* The client's RST: forget what earlier calls left behind. NULL: nothing. */
	void (*reset)(void *state);

	/* 1: call() may be in several threads at once, each with a state of its own, where vfun.conf has `workers`. Not
	 * for signatures with a `set`. */
	unsigned threads;
};

/* main()'s whole body: everything up to the end of the process. An exit status. What the program prints goes to
 * vfund's log, as long as it is little. With the one argument --describe it prints signature, summary and
 * "features N", the VFUN_FEATURE_* that it knows, a line each: that is how vfund asks. Without the third line: none.
 * Started by anybody but vfund it says so, and returns 64. */
int vfun_serve(const struct vfun_program *p, int argc, char **argv);

/* Append to a result of any length: 0, or -ENOSPC, for call() to return. */
int vfun_result_put(struct vfun_outgoing *out, const void *data, uint64_t len);

/* So much of out->array[0] is the result. 0 or -ENOSPC. */
int vfun_result_length(struct vfun_outgoing *out, uint64_t len);

/* Why these arguments won't do, in a sentence of at most 55 bytes that the client gets to see. Returns -EINVAL. */
int vfun_refuse(struct vfun_outgoing *out, const char *sentence);

/* A scalar of type f32 or f64, and of a signed type. */
static inline double
vfun_f64(uint64_t arg)
{
	double d;

	__builtin_memcpy(&d, &arg, sizeof(d));
	return d;
}

static inline int64_t
vfun_i64(uint64_t arg)
{
	return (int64_t)arg;
}

/* Without vfun_serve(), in any language: what the process finds when it is executed, and has to do.
 *
 *   - map dataout (for reading) and datain; prepare itself
 *   - close all descriptors but SOCKET and RING; start no further thread; load the filter of system calls in FILTER,
 *     for all threads, by seccomp(2)
 *   - write() one struct vfun_program_ready to SOCKET
 *   - serve, as part 2 says. RING is an eventfd: adding 1 to it after having woken a client by the bell wakes one in a
 *     guest.
 *
 * What a filter refuses raises SIGSYS. Unhandled it is the end; vfun_serve() has a handler that writes the siginfo_t to
 * SOCKET, so that vfund can name the call, and then ends. Once the filter is loaded no other handler can be set.
 *
 * The regions' headers are filled in. If it can't get ready: one struct vfun_program_ready with a reason, and the end.
 * Exit statuses that say more than others: 10, too many insane slots; 11, a call took longer than `limit_ms`; 13, a
 * position was skipped, or its slot used again too early. */
enum vfun_program_fd {
	VFUN_PROGRAM_SOCKET = 3,
	VFUN_PROGRAM_RING = 4,
	VFUN_PROGRAM_START = 5,	 /* a file of one struct vfun_program_start */
	VFUN_PROGRAM_OUT = 6,	 /* dataout */
	VFUN_PROGRAM_IN = 7,	 /* datain */
	VFUN_PROGRAM_FILTER = 8, /* a file of struct sock_filter, the whole of it */
};

#define VFUN_PROGRAM_MAGIC 0x316772506e754676ull /* "vFunPrg1" */

struct vfun_program_start {
	uint64_t magic;	  /* VFUN_PROGRAM_MAGIC */
	uint64_t out_off; /* where the regions begin in their descriptors */
	uint64_t in_off;
	uint64_t out_arena; /* bytes */
	uint64_t in_arena;
	uint32_t slots;	   /* a power of two */
	uint32_t workers;  /* requests to be computed at a time, a power of two, at most `slots` */
	uint32_t spin_us;  /* how long to spin before parking, at most */
	uint32_t limit_ms; /* how long a call may take; 0: as long as it likes */
	uint16_t version;  /* the protocol version granted */
	uint8_t pad[2];
	uint32_t features; /* VFUN_FEATURE_* granted, of those that --describe named */
	char function[VFUN_NAME_MAX];
	char client[VFUN_NAME_MAX];	    /* for people */
	char signature[VFUN_SIGNATURE_MAX]; /* what clients have been told */
};

struct vfun_program_ready {
	uint64_t magic;	 /* VFUN_PROGRAM_MAGIC */
	uint16_t reason; /* 0, or why not: VFUN_R_*, below 64 */
	uint8_t pad[6];
	char text[VFUN_TEXT_MAX];	    /* a sentence, with a reason */
	char signature[VFUN_SIGNATURE_MAX]; /* the program's: has to be what it said to --describe */
};

VFUN_AT(struct vfun_program_start, slots, 40);
VFUN_AT(struct vfun_program_start, version, 56);
VFUN_AT(struct vfun_program_start, features, 60);
VFUN_AT(struct vfun_program_start, function, 64);
VFUN_AT(struct vfun_program_start, signature, 128);
VFUN_SIZE(struct vfun_program_start, 640);
VFUN_AT(struct vfun_program_ready, text, 16);
VFUN_AT(struct vfun_program_ready, signature, 128);
VFUN_SIZE(struct vfun_program_ready, 640);

#ifdef __cplusplus
}
#endif
#endif
