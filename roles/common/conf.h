/* SPDX-License-Identifier: MIT
 *
 * conf.h - vfun.conf(5), read once by the daemon and by roles that ask it about a VM
 */
#ifndef COMMON_CONF_H
#define COMMON_CONF_H

#include <limits.h>
#include <stdint.h>

#include "../../backends/program.h"
#include "../../backends/xrt/xrt.h"
#include "../../proto/vfun.h"

#define CONF_FUNCTIONS_MAX 64
#define CONF_VMS_MAX 64
#define CONF_NETS_MAX 64
/* Clients are numbered: VMs from 0 on, first those of vfun.conf, then libvirt's domains as they come and go; then the
 * host, then the clients over the network. The last is no client: the bounds of libvirt's domains. */
#define CONF_HOST CONF_VMS_MAX
#define CONF_NET (CONF_HOST + 1)
#define CONF_LIBVIRT (CONF_NET + CONF_NETS_MAX)
#define CONF_CLIENTS (CONF_LIBVIRT + 1)
#define CONF_UID_BASE 2000000000u /* where vfund looks for uids, if vfun.conf doesn't say it */
#define CONF_ID_MAX 40		  /* bytes of a clientID, with the NUL */
#define CONF_PATH_MAX 200	  /* bytes of a file's name, with the NUL: more than fits a line */

/* [function NAME] */
struct conf_function {
	char name[VFUN_NAME_MAX];
	char backend[16];
	uint32_t spin_us;   /* how long its services spin before they park */
	uint64_t arena_max; /* bytes, per region */
	uint32_t slots_max;
	uint32_t workers;    /* threads of a service, a power of two */
	uint32_t queue;	     /* backend xrt: calls in the device's queue, a power of two */
	uint32_t timeout_ms; /* to get ready */
	uint32_t withdrawn;  /* 1: vfun.conf doesn't have it any more; it stays for the instances that do */
	uint32_t cpu;	     /* percent of one processor that a service may take, 100: no limit */
	uint64_t overhead;   /* bytes that a service may take beyond its regions and results */
	char signature[VFUN_SIGNATURE_MAX]; /* the function's own, once conf_load() is done */
	/* backend xrt: */
	struct xrt_desc xrt;
	char fallback[VFUN_NAME_MAX]; /* the software backend's function that takes its place; "": none */
	struct program_desc program;  /* backend program */
	int line;		      /* where its section begins, for who reads the xclbin, or asks the program */
};

/* [vm NAME], [net-client NAME], and [host] for clients on the host itself */
struct conf_vm {
	char name[VFUN_NAME_MAX]; /* for people; "": not in use */
	char id[CONF_ID_MAX];	  /* clientID, of which folders are named: the name, or a domain's uuid */
	uint64_t functions;	  /* bit i: may have function i */
	uint64_t window;	  /* DAX window, bytes, a power of two */
	uint64_t ivshmem;	  /* BAR of its ivshmem device, bytes, a power of two; 0: none */
	uint64_t memory;	  /* quota over all its instances, bytes */
	uint32_t instances;	  /* quota */
	uint32_t direct_io;	  /* 1: the guest must not cache data files (without DAX) */
	/* [host], over all its users but root: */
	uint32_t total_instances;
	uint32_t pad; /* two of these are compared as bytes */
	uint64_t total_memory;
	/* net clients: */
	char key_file[CONF_PATH_MAX];
	uint32_t connections; /* quota */
	int line;	      /* where its section begins, for who reads the key */
};

/* Further uids of a user of the host, from /etc/subuid. */
#define CONF_RANGES_MAX 1024
struct conf_range {
	uint32_t first;
	uint32_t count;
	uint32_t owner; /* the user's uid */
};

/* [libvirt]: as whom QEMU may run. */
#define CONF_QEMU_MAX 8
struct conf_qemu {
	char user[32]; /* a name, or a number; "": the usual ones */
	char group[32];
	unsigned uids; /* what these are, see names.c */
	unsigned gids;
	uint32_t uid[CONF_QEMU_MAX];
	uint32_t gid[CONF_QEMU_MAX];
};

struct conf {
	struct conf_function function[CONF_FUNCTIONS_MAX];
	unsigned functions;
	struct conf_vm vm[CONF_CLIENTS]; /* VMs, [CONF_HOST], [CONF_NET] and the rest of the network's */
	unsigned vms;
	unsigned nets;
	char listen[64];	  /* ADDRESS:PORT; "": no network */
	char connect[100];	  /* libvirt's URI; "": libvirt isn't asked */
	char watcher[32];	  /* system mode: whose uid what asks it has */
	uint32_t net_connections; /* over all net clients */
	uint32_t net_idle;	  /* seconds */
	char user[32];		  /* system mode: whose uid the engine takes; "": one from uid_base on */
	char group[32];		  /* system mode: who may use the control socket; "": everybody */
	int user_line;		  /* where that is said, 0: nowhere */
	uint32_t uid_base;	  /* system mode: uids uid_base + n belong to vfund's processes; 0: not said */
	uint64_t memory;	  /* over all clients, bytes */
	uint32_t instances;	  /* over all clients */
	uint32_t optional;	  /* sandbox stages that may fail on this host, see sandbox.h */
	/* What vfund found out, in system mode: */
	uint32_t uid, gid; /* the engine's */
	uint32_t watcher_uid, watcher_gid;
	uint32_t control_gid; /* 0: everybody's */
	struct conf_qemu qemu;
	unsigned ranges;
	struct conf_range range[CONF_RANGES_MAX];
};

/* Called once for each fault: line (0: the whole file) and what is wrong, in one sentence. */
typedef void conf_complain(void *arg, int line, const char *fault);

/* Read the file. Returns the number of faults (0: conf is good) or -errno where it can't be read. */
int conf_load(struct conf *c, const char *path, conf_complain *complain, void *arg);

/* Index of a VM, net client or function (that isn't withdrawn) by name, -1 if there is none. */
int conf_vm_index(const struct conf *c, const char *name);
int conf_net_index(const struct conf *c, const char *name);
int conf_function_index(const struct conf *c, const char *name);

/* The user of the host whom this uid's limits are counted for. */
uint32_t conf_account(const struct conf *c, uint32_t uid);

/* Is it computed by a device? 1 or 0. */
int conf_is_hardware(const struct conf_function *f);

/* Is it an executable of the administrator's? 1 or 0. */
int conf_is_program(const struct conf_function *f);
/* describe.c: the function itself; `texts` have to live as long. NULL: the backend has none of that name. */
const struct backend_function *conf_function_of(
    const struct conf_function *f, struct xrt_texts *texts, struct backend_function *made);

/* How many requests a service computes at a time for a client of this protocol version, and which VFUN_FEATURE_* its
 * clients may have; those on the host have VFUN_FEATURE_EVENTFD as well. */
uint32_t conf_workers(const struct conf_function *f, uint32_t version, uint32_t slots);
uint32_t conf_features(const struct conf_function *f);

/* What clients are told of it; all but `next`. */
void conf_describe(const struct conf_function *f, struct vfun_function_info *info);

/* The texts of VFUN_MSG_SIGNATURE. */
#define CONF_ABOUT_MAX 2048
void conf_about(const struct conf_function *f, const struct vfun_ask *ask, int admin, char text[CONF_ABOUT_MAX]);

/* The file to read: `opt` if given, else ./vfun.conf's installed place for root, or the user's own. Static storage. */
const char *conf_path(const char *opt);

/* The run folder: `opt` if given, else $VFUN_RUN_DIR, else /run/vfun for root, $XDG_RUNTIME_DIR/vfun for others.
 * Static storage; NULL if there is no place. */
const char *conf_run(const char *opt);

/* The state folder, for what outlives vfund: `opt` if given; else /var/lib/vfun for root, $XDG_STATE_HOME/vfun or
 * ~/.local/state/vfun for others. Static storage; NULL: none, as with a run folder (`run`, $VFUN_RUN_DIR) that isn't
 * the usual one, since two vfunds can't have the same. */
const char *conf_state(const char *opt, const char *run);

/* A function's or VM's name: a letter, then letters, digits, '_', '-', '.'; shorter than VFUN_NAME_MAX. 1 or 0. */
int conf_name_ok(const char *s);

/* A domain's uuid, which is a clientID as well: 8-4-4-4-12 hexadecimal digits. 1 or 0. */
int conf_uuid_ok(const char *s);

#endif
