/* SPDX-License-Identifier: MIT
 *
 * engine.h - vfund's unprivileged half: what its files share
 *
 * Everything that must survive the engine's death lies in struct engine_state, in the state memfd (keep.h). Tables of
 * fixed size, an entry is in use when its number isn't 0; indices are never stored across messages, numbers are.
 */
#ifndef DAEMON_ENGINE_H
#define DAEMON_ENGINE_H

#include <fcntl.h>
#include <stdint.h>

#include "../common/conf.h"
#include "../common/imsg.h"
#include "../common/keep.h"
#include "../common/loop.h"
#include "../common/slots.h"

#define ENGINE_GRANTS 1024
#define ENGINE_INSTANCES 1024
#define ENGINE_GRANTS_EACH 16	/* per connection or control handle */
#define ENGINE_GRANTS_CLIENT 64 /* per VM, or user of the host */
#define ENGINE_CONNS_USER 128	/* per user of the host, unless he is the administrator */
#define GRANT_SECONDS 60	/* a grant that wasn't activated by then is void */

/* Who asks: a connection on the host, or a control handle of a VM's share. */
struct asker {
	uint32_t vm; /* index in vfun.conf: a VM, CONF_HOST, or a net client from CONF_NET on */
	uint32_t
	    handle;   /* the share's number of the control handle; on the host and in the network: of the connection */
	uint64_t req; /* the share's number of the request; on the host: the message's tag */
	uint32_t uid;
	uint32_t gid;
	uint32_t account; /* the user whom limits are counted for: on the host conf_account(uid), else uid */
	uint32_t admin;	  /* may see and end everything */
	uint32_t tag;	  /* the message's */
	uint32_t pad;
};

struct conn {
	uint32_t number; /* 0: free */
	uint32_t uid, gid;
	uint32_t pid;
	uint32_t admin;
	uint32_t account; /* as in struct asker */
};

struct grant {
	uint64_t number; /* 0: free */
	struct asker who;
	int64_t since; /* rate_ms() */
	uint32_t function;
	uint32_t slots;
	uint64_t out_arena;
	uint64_t in_arena;
	uint32_t spin_us;
	uint32_t version;  /* of the protocol */
	uint32_t target;   /* enum vfun_target: software or hardware */
	uint32_t features; /* VFUN_FEATURE_* */
};

/*
 * An instance's life (enum vfun_instance_state); the service itself is the launcher's.
 *
 *   (free) --ACTIVATE, KEEP_LAUNCH--> STARTING --KEEP_SERVICE_READY: show it, ack--> ACTIVE
 *   STARTING --KEEP_SERVICE_FAILED: nack--> ENDING
 *   STARTING, ACTIVE --RELEASE, lease over, VM gone, KEEP_STOP: KEEP_KILL--> ENDING
 *   any --KEEP_SERVICE_EXIT: record removed, share told, RELEASE acked--> ENDING and held, or (free; `released` stays)
 *   held --its client has let go: KEEP_FREE--> (free)
 *
 * What was answered can be read for as long as the lease lasts, whoever or whatever ended the service. On the host the
 * lease is over when the connection that activated the instance is closed or itself sends RELEASE; in a guest when the
 * share says IM_FREE (nobody has its files open); with a net client when the net process says so (it has sent every
 * answer); and when the VM or the net process has gone.
 */
struct instance {
	uint64_t number; /* 0: free */
	uint32_t state;
	uint32_t function;
	struct asker who;    /* who activated it: its owner, and on the host its lease */
	struct asker waiter; /* ENDING: whose RELEASE waits for the end; handle 0: nobody's */
	uint64_t session;
	uint64_t out_size;
	uint64_t in_size;
	uint64_t since;
	uint32_t slots;
	uint32_t pid;
	uint32_t answered;  /* 1: its ACTIVATE has had its reply */
	uint32_t over;	    /* 1: nobody reads its answers any more: nothing is held when the service has ended */
	uint32_t unclaimed; /* 1: in a guest: the control handle that activated it has released it */
	uint32_t held;	    /* 1: its service has gone, its client may still read what it answered */
	uint32_t paths;	    /* VFUN_PATH_*, once it is active */
	uint32_t target;    /* enum vfun_target: software or hardware */
	uint32_t features;  /* VFUN_FEATURE_* granted */
	uint32_t pad;
	char client[CONF_ID_MAX]; /* clientID: of its record, also when the VM is not known any more */
	char why[VFUN_TEXT_MAX];  /* held: the end of its service, in a sentence */
};

struct engine_vm {
	uint32_t connected; /* pid of its share, 0: none */
	uint32_t dax;	    /* 1: its mount has a DAX window */
	uint64_t bar;	    /* vfun_bar.id of its ivshmem BAR; 0: it has none */
};

struct engine_state {
	struct conf conf; /* as the launcher read it */
	char run[PATH_MAX];
	uint64_t since;
	uint32_t daemon_pid;
	uint32_t stopping;
	uint32_t no_rights; /* 1: nobody can send descriptors to the control sockets */
	uint32_t system_mode;
	uint32_t next_conn;
	uint64_t next_grant;
	uint64_t next_instance;
	struct conn conn[ENGINE_CONNS];
	struct grant grant[ENGINE_GRANTS];
	struct instance instance[ENGINE_INSTANCES];
	struct engine_vm vm[CONF_CLIENTS]; /* zeros for what isn't a VM */
	uint32_t net_pid;		   /* of the net process that its clients' instances belong to */
	struct asker released[64];	   /* the last RELEASEs that were acked: a repeated one is acked again */
	uint32_t released_at;
};

_Static_assert(sizeof(struct engine_state) <= KEEP_STATE_SIZE, "the engine's state fits its memfd");

/* This process's part. */
struct engine {
	struct keep keep;
	struct loop loop;
	struct engine_state *st;
	struct loop_src events;
	struct loop_src control;
	struct loop_src admin;
	struct loop_src conn[ENGINE_CONNS];  /* fd -1: none */
	unsigned waiters;		     /* connections that the launcher doesn't know yet */
	struct loop_src share[CONF_VMS_MAX]; /* channels; fd -1: none */
	struct loop_src net;		     /* likewise, to the net process */
};

extern struct engine engine;

/* daemon.c's: fill the state memfd and the kept descriptors of an engine that isn't running yet. 0 or an exit status.
 */
struct kept;
struct launcher;
struct rundir;
int engine_prepare(struct kept *k, const struct launcher *l, const struct rundir *rd);

/* control.c: one control message. Answers through reply(), now or later. */
void control_message(const struct asker *who, const struct vfun_msg *msg);
void control_reloaded(const struct keep_service *how); /* to the one who asked for it */
/* Start a reply to `who`: type, tag, reason; text by printf. */
void control_reply_init(struct vfun_msg *m, const struct asker *who, uint16_t type, enum vfun_reason reason);
void control_nack(const struct asker *who, uint16_t type, enum vfun_reason reason, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
void control_nack_flags(const struct asker *who, uint16_t type, enum vfun_reason reason, uint16_t flags,
    const char *fmt, ...) __attribute__((format(printf, 5, 6)));

/* grants.c */
struct grant *grant_new(const struct asker *who);		    /* a free one, or NULL: not for this client now */
struct grant *grant_find(const struct asker *who, uint64_t number); /* NULL: it has none of that number, or no more */
void grants_drop(uint32_t vm, uint32_t handle);			    /* handle 0: all of the VM's */

/* clients.c: connections and channels */
int clients_start(void); /* take over what was kept, listen; 0 or -errno */
void clients_reply(const struct asker *who, const struct vfun_msg *msg);
void clients_cut_off(const struct asker *who);	/* on the host: it doesn't read its replies */
uint32_t clients_slot(const struct asker *who); /* on the host: of its connection */
int clients_timeout(void);			/* ms until clients_resume() has something to do; -1: never */
void clients_resume(void);			/* look again at clients that were left alone, if it is time */
void clients_share(const struct keep_peer *peer, int fd); /* a share's channel */
void clients_share_gone(uint32_t vm);
void clients_vm(const struct keep_vm *vm);
/* Close a connection or channel that the launcher doesn't keep. Where the other side may have sent descriptors, these
 * lie in its queue, and closing it may wait for them: the launcher has it done. */
void clients_discard(int fd);
void clients_pause(struct loop_src *src); /* until clients_resume() */
void clients_to_share(uint32_t vm, const struct imsg *im);
void clients_name(const struct asker *who, char name[VFUN_NAME_MAX]); /* clientID */

/* remote.c: net clients */
void remote_channel(int fd, uint32_t pid); /* the net process's channel */
void remote_gone(void);

/* instances.c */
struct instance *instance_find(uint64_t number);
int instance_visible(const struct instance *in, const struct asker *who);
int instance_same_owner(const struct instance *in, const struct asker *who);
void instance_activate(const struct asker *who, struct grant *g, uint32_t paths); /* those that the client asks for */
int instance_repeated(
    const struct asker *who); /* 1: this ACTIVATE was taken already, by a share that was replaced since */
uint64_t instances_memory_max(const struct asker *who); /* bytes that its regions may have, ever */
void instances_left(const struct asker *who, uint32_t *instances, uint64_t *memory); /* that it may have now */
void instance_release(struct instance *in, const struct asker *waiter);		     /* waiter NULL: nobody waits */
void instance_lease_over(uint32_t vm, uint64_t number);
void instance_free(uint32_t vm, uint64_t number);	     /* IM_FREE: nobody reads its answers any more */
void instances_of_handle_over(uint32_t vm, uint32_t handle); /* of the host, or a net client */
void instances_of_vm_over(uint32_t vm);
void instances_event(const struct keep_msg *msg);
void instances_show(uint32_t vm); /* a share that starts: all of its VM's instances */
void instances_hide(uint32_t vm); /* tell its share, or the net process, again what has ended and is held */
void instances_take_over(const struct keep_service *known, unsigned n); /* to the launcher */
unsigned instances_stop(void);						/* release all; how many are still there */
void instance_folder(const struct instance *in, char folder[VFUN_FOLDER_MAX]);

/* records.c */
#define RECORD_MAX 65536 /* bytes, of which a record has some hundred */
#define RECORD_FLAGS (O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC) /* how it opens: nothing is read */
void record_write(const struct instance *in);
void record_remove(const struct instance *in);

#endif
