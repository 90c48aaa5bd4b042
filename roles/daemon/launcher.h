/* SPDX-License-Identifier: MIT
 *
 * launcher.h - vfund's privileged half: what its files share
 */
#ifndef DAEMON_LAUNCHER_H
#define DAEMON_LAUNCHER_H

#include <sys/types.h>

#include "../common/conf.h"
#include "../common/keep.h"
#include "../common/loop.h"
#include "../common/svc.h"
#include "../common/view.h"
#include "../common/virtd.h"

struct launcher;

/* System mode: the uids from uid-base on, and the gids of the same numbers. */
#define UIDS 65536u
enum {
	UID_SHARE = 0, /* + the VM's index */
	UID_NET = CONF_VMS_MAX,
	UID_ENGINE, /* unless vfun.conf names a user */
	UID_NAMES,
	UID_XCLBIN,
	UID_DESCRIBE = 1023, /* a program that is asked what it is */
	UID_SERVICE = 1024,  /* and those behind */
};

#define CLOSERS_MAX 8  /* closers that don't come to an end, for one child */
#define RESERVE_MAX 12 /* descriptors; for each child that is replaced: three that stay, and some while it starts */

/* Something to do at another time, see later.c. */
struct later {
	struct later *next;
	int64_t at; /* ms */
	void (*fn)(struct later *t);
};

/* A child whose state and descriptors survive it (keep.h): the engine, or a VM's share. */
struct kept {
	struct launcher *l;
	const char *role; /* argv[0] */
	const char *name; /* the VM's, or "engine" */
	uint32_t client;  /* whose lines of log are about it, see rate.h: a VM, CONF_NET or CONF_HOST */
	struct keep_start start;
	int state; /* memfd, -1: not in use */
	int fds[KEEP_SLOTS];
	uint64_t commits;
	pid_t pid;	      /* 0: not running */
	struct loop_src exit; /* pidfd */
	struct loop_src rpc;
	struct loop_src events;
	struct event *first, *last; /* events that the socket didn't take yet */
	unsigned queued;
	int up;		     /* it has said that it serves, once */
	int serving;	     /* the one that runs now has */
	unsigned failed;     /* starts without that, in a row */
	struct later retry;  /* when there is to be a successor */
	int paused;	     /* too much of what it sent waits to be closed */
	int64_t heard;	     /* ms: when it has asked for something, or was started */
	int64_t asked;	     /* ms: since when it owes an answer; 0: it doesn't */
	int64_t killed;	     /* ms: since when it ought to end; 0: it needn't */
	int hopeless;	     /* it has sent what can't be closed: it must not be started any more. kept_init()
			      * leaves that */
	unsigned deaths;     /* since first_death */
	int64_t first_death; /* ms */
	/* requests that only the engine may make; NULL: none */
	int (*request)(struct kept *k, struct keep_msg *msg);
	/* between START and GO of every start: more to tell (0 or -errno); NULL: nothing */
	int (*greet)(struct kept *k);
	/* after GO of every start; NULL: nothing */
	void (*started)(struct kept *k);
	/* it serves for the first time; NULL: nothing */
	void (*serves)(struct kept *k);
	/* it ended for good: exit status 0, or too many deaths */
	void (*ended)(struct kept *k);
};

/* Prepare (state memfd, all zeros); fds may then be put into k->fds before kept_start(). 0 or -errno. */
int kept_init(struct kept *k);

/* It has sent too much whose close() waits for somebody: it must not be started any more. */
int kept_hopeless(const struct kept *k);

/* Is it, was it, to be gone on with, or to be given up? 1: look again soon. */
int kept_look(struct kept *k);

/* Kill it; a successor takes over, also if the kernel keeps it. */
void kept_replace(struct kept *k);

/* Start the process and hand everything over. 0 or -errno. */
int kept_start(struct kept *k);

/* Send an event with up to 3 descriptors, now or when the child has read what came before; they stay the caller's. 0 or
 * -errno: it isn't running, or reads nothing (it is then killed and replaced, since it would not know what it missed).
 */
int kept_event(struct kept *k, const struct keep_msg *msg, const int *fds, int nfds);

/* Kill it, and forget everything. `ended` is not called. */
void kept_end(struct kept *k);

/* A VM's ivshmem memory, see bar.c. */
struct bar_part;
struct bar {
	int fd;			/* memfd; -1: this VM has none */
	uint64_t size;		/* bytes */
	uint64_t id;		/* vfun_bar.id; 0: no QEMU is connected */
	struct bar_part *parts; /* what is given away, by offset */
	struct holder {
		pid_t pid;	       /* 0: it isn't running, or not needed */
		int64_t since;	       /* ms */
		struct loop_src exit;  /* pidfd */
		struct loop_src ready; /* pipe, at its end when it is; -1: it is, or there is none */
		struct loop_src again; /* timerfd: when to start it once more; -1: there is none */
		unsigned wait_ms;      /* the last time */
	} holder;
};

/* One VM of vfun.conf: its socket, and its share while a QEMU is connected. */
struct vm {
	struct launcher *l;
	const struct virtd_msg *qemu; /* whose user and labels its socket and memory have */
	struct loop_src listener;
	int deaf;	   /* nobody is let in for now */
	unsigned connects; /* since connects_since */
	int64_t connects_since;
	struct later resume; /* when to listen again after too many */
	struct kept share;
	struct bar bar;
};

/* What a program prints, see words.c. */
struct words {
	struct loop_src src; /* the pipe; fd -1: none */
	int64_t again;	     /* ms: when to look once more, 0: whenever there is something */
	unsigned len;	     /* of a line that is not yet whole */
	char line[160];
	char last[160]; /* the last one that was */
};

/* A service process. */
struct service {
	struct launcher *l;
	struct service *next;
	struct loop_src exit; /* pidfd */
	struct loop_src sock; /* watched until it is ready */
	pid_t pid;
	uint64_t id;
	uint32_t slot;	  /* no two living services have the same: the uid */
	int64_t deadline; /* ms, 0: it is ready */
	int regions[3];	  /* dataout, datain, ring eventfd; -1 until ready */
	uint64_t off[2];  /* where the regions begin in their descriptors: not 0 in a BAR */
	uint64_t size[2]; /* bytes */
	uint64_t huge;	  /* of them, in huge pages */
	int told_to_end;
	int refused;	  /* the system call that it has told to be ended for; -1: none */
	int given;	  /* its client has got the regions, or may have */
	int unwanted;	  /* KEEP_FREE came: its memory isn't to be held when it ends */
	uint32_t wait_ms; /* it has crashed lately: before it begins */
	const struct conf_function *fn;
	int hardware;	  /* 1: computed by a device */
	int copies;	  /* 1: which doesn't use the arenas in place */
	int program;	  /* 1: computed by an executable of the administrator's */
	uint32_t vm;	  /* whose it is: index in vfun.conf, as the engine says */
	uint32_t account; /* and of the host's users, whose */
	uint32_t conn;	  /* of the host: slot of the connection among the engine's */
	uint64_t cookie;  /* which one that was */
	int pollable;	  /* which gets the ring eventfd, too */
	struct words words;
	char client[IMSG_NAME_MAX];
	char signature[VFUN_SIGNATURE_MAX]; /* of a program, as it was when this was started */
};

/* What closes descriptors, see closer.c. */
struct closer {
	pid_t pid;
	int pipe[2];
	struct closed *done;		 /* shared with it */
	uint32_t put[CONF_VMS_MAX + 3u]; /* descriptors that it was given, by whose they were */
	uint32_t total;			 /* all of them */
	uint32_t seen;			 /* how many it had closed at `since` */
	int64_t since;			 /* ms: when it was last seen to do something; 0: there is nothing to do */
	int64_t look;			 /* ms: when those that were killed are looked at again */
	struct stuck *stuck;
};

/* vfun.conf being read again, see reload.c. */
struct reload {
	pid_t pid; /* 0: it isn't */
	struct loop_src sock;
	struct reading *reading; /* shared with that process */
	int program[CONF_FUNCTIONS_MAX];
	unsigned times; /* that it was done */
	int again;	/* 1: SIGHUP came meanwhile */
};

struct launcher {
	struct loop loop;
	struct conf *conf; /* its VMs beyond conf->vms are domains.c's */
	const char *conf_path;
	const char *run;		 /* absolute, for people */
	int dir;			 /* the run folder */
	int lock;			 /* its lock */
	int state;			 /* the state folder; -1: none */
	int spare;			 /* see fd_accept() */
	int self;			 /* this executable, for execveat() */
	int half;			 /* the host half, likewise */
	int program[CONF_FUNCTIONS_MAX]; /* functions that are programs, likewise; -1: it isn't one */
	int verbose;
	int system_mode;   /* root */
	uint32_t uid_base; /* claimed; 0: none */
	int uids;	   /* what says so, -1: nothing does */
	int stopping;
	int attention; /* 1: a child is paused, or was killed: kept_look() */
	struct closer closer;
	int reserve[RESERVE_MAX]; /* descriptors for kept_start(); 0: none */
	unsigned reserves;	  /* how many there are to be */
	struct later *later;
	struct loop_src signals;
	struct kept engine;
	struct kept net;
	struct vm vm[CONF_VMS_MAX];
	struct service *services;
	struct service *held; /* those that have ended, for their memory: held.c */
	struct reload reload;
	struct watcher {
		pid_t pid;	      /* 0: it isn't running */
		struct loop_src exit; /* pidfd */
		struct loop_src sock;
		struct loop_src again; /* timerfd: when to start it once more; fd -1: never needed yet */
		int waits;	       /* for a folder of libvirt's sockets: that was said */
	} watcher;		       /* of libvirt's domains */
};

/* daemon.c: read and check vfun.conf, ask its programs. The number of faults, or -errno. l->self and l->conf must be
 * set. */
int daemon_load(struct launcher *l, struct conf *conf, int program[CONF_FUNCTIONS_MAX], const char *path, int check,
    conf_complain *complain, void *arg); /* check: 1: only that, nothing is claimed */

/* uids.c: complete conf->uid_base. The number of faults. */
int uids_claim(struct launcher *l, struct conf *conf, int check, conf_complain *complain, void *arg);
void uids_release(const struct launcher *l);

/* reload.c */
int reload_begin(struct launcher *l);	    /* 0: the engine will be told what becomes of it; or -errno */
void reload_signal(struct launcher *l);	    /* SIGHUP: now, or when the one under way is over */
void reload_introduce(struct kept *engine); /* a new engine */
void reload_end(struct launcher *l);

/* launcher.c */
int launcher_run(struct launcher *l); /* exit status */
int64_t launcher_ms(void);	      /* CLOCK_MONOTONIC */
/* fork and execute this executable as `role` with `fds[i]` at descriptor 3 + i. Returns pid, *pidfd, or -errno. */
pid_t launcher_spawn(struct launcher *l, const char *const argv[], const int *fds, int nfds, int *pidfd);
/* Collect a process that has ended, or was killed and is about to: its wait status. -ETIMEDOUT: it doesn't end, since
 * the kernel waits for a device or file system on its behalf. */
int launcher_collect(pid_t pid, int pidfd, int *status);
/* What a process does, as /proc says it: R, S, D, T; 0: unknown. *cpu_ms: how long it has run. */
char launcher_state(pid_t pid, int64_t *cpu_ms);

/* rules.c */
/* May this child ask for this, with these descriptors? 0 or -EPERM. */
int rules_check(const struct kept *k, const struct keep_msg *msg, const int *fds, int nfds);
int rules_regions(const int fds[3]); /* may these be an instance's? 0 or -EPERM */

/* closer.c */
int closer_start(struct launcher *l); /* 0 or -errno */
/* Have fd closed, which a child sent, or whose close() may wait for another reason; k NULL: nobody's. */
void closer_put(struct launcher *l, int fd, const struct kept *k);
unsigned closer_pending(const struct launcher *l, const struct kept *k); /* of this child: not closed yet */
void closer_left(struct launcher *l, pid_t pid); /* a child that doesn't end: collected when it does */
int64_t closer_deadline(struct launcher *l);	 /* ms: when closer_look() has something to do; 0: never */
void closer_look(struct launcher *l);
void closer_end(struct launcher *l);

/* later.c */
void later_do(struct launcher *l, struct later *t, int ms, void (*fn)(struct later *)); /* once, and not what t was */
void later_forget(struct launcher *l, struct later *t);
int64_t later_deadline(const struct launcher *l); /* ms; 0: there is nothing to do */
void later_run(struct launcher *l);

/* services.c */
int services_launch(struct launcher *l, const struct keep_launch *req); /* 0: its fate comes as an event; or -errno */
int services_kill(struct launcher *l, uint64_t id);
int services_free(struct launcher *l, uint64_t id); /* and hold nothing of it; unknown ids are ignored. 0 or -errno */
void service_free(struct service *s);		    /* unlinked, and without a process */
struct service *services_find(struct launcher *l, uint64_t id);
int64_t services_deadline(const struct launcher *l); /* ms of CLOCK_MONOTONIC of the next one to time out, 0: none */
void services_expire(struct launcher *l);
int services_greet(struct kept *engine); /* KEEP_SERVICE_ALIVE for each, and for what is held */
void services_end(struct launcher *l);	 /* kill and collect all */

/* give.c */
int give_settle(struct service *s, const struct keep_launch *req); /* who gets its regions. 0 or -EINVAL */
int give_regions(struct launcher *l, struct keep_give *g);	   /* KEEP_GIVE. 0 or -errno */

/* held.c */
void held_mark_gone(const struct service *s, uint32_t reason); /* its process is dead: store `gone`, wake its client */
int held_wanted(const struct service *s); /* 1: datain is to be held; what isn't is given back here */
void held_add(struct service *s);	  /* unlinked, and without a process */
int held_is(struct launcher *l, uint64_t id);
void held_free(struct launcher *l, uint64_t id);	       /* unknown ids are ignored */
unsigned held_usage(const struct launcher *l, uint64_t *size); /* how many; adds their bytes */
int held_greet(struct kept *engine);
void held_end(struct launcher *l);

/* bar.c */
/* With its path, for vm->qemu; size 0: none. 0 or -errno. */
int bar_make(struct vm *vm, uint64_t size);
void bar_begin(struct vm *vm);				     /* a QEMU connects: empty, with a new id */
void bar_over(struct vm *vm);				     /* it has gone: empty, no id */
uint64_t bar_take(struct vm *vm, uint64_t id, uint64_t len); /* for service `id`: its offset, or 0: no room */
void bar_free(struct launcher *l, uint64_t id);		     /* emptied, and anybody's; unknown ids are ignored */
void bar_end(struct vm *vm);

/* holder.c: the path of bar->fd */
int holder_start(struct vm *vm); /* 0 or -errno */
void holder_end(struct vm *vm);

/* shares.c */
int shares_listen(struct launcher *l); /* 0 or -errno, after a line of log */
/* One more VM, for a QEMU of this user and with these labels, which stay the caller's as long as the VM is there. 0 or
 * -errno. */
int shares_listen_vm(struct launcher *l, unsigned i, const struct virtd_msg *qemu);
void shares_end_vm(struct launcher *l, unsigned i); /* and one less: its device is lost */
void shares_introduce(struct kept *engine);	    /* a new engine: connect all shares to it */
int shares_look(struct launcher *l);		    /* kept_look() for all; 1: again soon */
void shares_end(struct launcher *l);
int shares_stranger(const struct launcher *l, uint32_t uid); /* is this user of QEMU's another than vfund's? */

/* label.c: SELinux. 0 or -errno */
int label_sockets(const char *label); /* those made from now on; "": as the policy says */
int label_file(int dir, const char *name, const char *label);
void label_failed(const char *vm, const char *what, const char *label, int r); /* to the log */
void label_memory(const struct vm *vm, int fd, const char *what); /* as its QEMU's files, if it has labels */

/* domains.c: libvirt's domains as VMs */
void domains_start(struct launcher *l);
void domains_introduce(struct kept *engine);	   /* a new engine: the VMs that vfun.conf doesn't have */
void domains_ask_again(struct launcher *l);	   /* after a while: [libvirt] has changed */
void domains_left(struct launcher *l, unsigned i); /* VM i has no QEMU any more: what changed meanwhile counts now */
void domains_end(struct launcher *l);

/* remember.c: the domains that libvirt named, for the next vfund */
void remember_open(struct launcher *l, const char *dir); /* l->state; NULL: nothing is remembered */
/* What was saved: how many, as yet unchecked, and *said, which is static. */
unsigned remember_load(const struct launcher *l, const struct virtd_msg **said);
/* What was said of each of the CONF_VMS_MAX VMs; of those that are no domain, nothing (kind 0). Faults are logged. */
void remember_save(const struct launcher *l, const struct virtd_msg *said);

void notify_ready(void); /* notify.c: to the service manager, where there is one */

/* cgroup.c: limits of services, where the system delegates a cgroup; elsewhere these do nothing */
void cgroup_start(const struct launcher *l); /* says in the log what there is, or why not; the run folder is locked */
void cgroup_end(void);			     /* remove all that was made */
/* Before the service is told what to do: as much memory and as many threads as it will be told, cpu in percent of one
 * processor for each thread. 0 or -errno after a line of log; cgroup_remove() in any case. */
int cgroup_add(uint64_t id, const struct svc_start *start, uint32_t cpu, pid_t pid);
void cgroup_remove(uint64_t id); /* its process is gone */
int cgroup_oom(uint64_t id);	 /* 1: somebody in it was killed because its memory was used up */

/* names.c: users and groups of the host. Completes conf, system mode. The number of faults. */
int names_read(struct conf *conf, conf_complain *complain, void *arg);

/* nets.c */
/* Can the net clients' keys be read? The number of faults. */
int nets_check(const struct conf *conf, conf_complain *complain, void *arg);
int nets_prepare(struct launcher *l); /* listen, with all rights; 0 or -errno after a line of log */
int nets_start(struct launcher *l);   /* 0 or -errno */
void nets_introduce(struct launcher *l);
void nets_end(struct launcher *l);

/* halves.c */
#define HALF_FDS 4
struct half_job {
	const char *const *argv; /* argv[1]: what it is to be */
	const char *const *env;
	int fds[HALF_FDS]; /* from descriptor 3 on, and behind them the filter */
	int nfds;
	int out;			  /* standard output; -1: none */
	uint32_t uid, gid;		  /* system mode; 0: user mode */
	uint32_t optional;		  /* stages */
	const struct sandbox_call *calls; /* besides those that load libraries */
};
/* In a child of sandbox_fork(): confine it, with this view and libraries, and become the host half. */
void half_run(int half, const struct half_job *j, struct view *v) __attribute__((noreturn));

/* xclbins.c: do the descriptions of functions in hardware fit their xclbins? The number of faults. */
int xclbins_check(const struct conf *conf, conf_complain *complain, void *arg);

/* programs.c: open, and ask, the programs of vfun.conf, and complete their descriptions. The number of faults. l->self
 * and l->conf must be set. */
int programs_load(
    struct launcher *l, struct conf *conf, int program[CONF_FUNCTIONS_MAX], conf_complain *complain, void *arg);
/* What a program says (n bytes of it): may it serve? 0, or why not, with a sentence. */
enum vfun_reason program_ready(
    const struct service *s, struct vfun_program_ready *ready, long n, char text[VFUN_TEXT_MAX]);
/* It has ended, with this wait status, without having been told to: what to tell its client. */
enum vfun_reason program_end(const struct service *s, int status, char text[VFUN_TEXT_MAX]);

/* words.c */
int words_begin(struct service *s, int fd); /* the pipe, its own from now on. 0 or -errno */
void words_again(struct service *s);	    /* if it is time to look */
void words_end(struct service *s);	    /* the last ones */

/* refused.c: the system call that a service ended for */
/* Is this message of n bytes a service's word about that? The call's number, or -1. */
int refused_call(const void *msg, long n);
/* It has ended: if it says so, the sentence; else `text` stays. */
void refused_text(const struct service *s, char text[VFUN_TEXT_MAX]);
/* The same of a program by its name, with what to write into vfun.conf. */
void refused_sentence(const char *program, int nr, char text[VFUN_TEXT_MAX]);

/* crashes.c */
void crashes_count(const struct service *s);
int crashes_wait(const struct service *s);	     /* ms until it may start; -1: it may not */
void crashes_forget(const struct conf_function *fn); /* it is another program now */

/* rundir.c: the run folder */
struct rundir {
	int control; /* listening SOCK_SEQPACKET sockets */
	int admin;
	int service; /* folder, the engine's */
};
/* Make it, lock it, clear what a vfund that was killed left there. Sets l->run and l->dir. 0, or the exit
 * status after a line of log. */
int rundir_make(struct launcher *l, const char *run, struct rundir *rd);
/* Remove everything in it, and itself if it is then empty. */
void rundir_remove(const struct launcher *l);
/* A listening socket of `type` at run/`name`, with that mode. Descriptor (not blocking) or -errno after a line of log.
 */
int rundir_listen(const struct launcher *l, const char *name, int type, unsigned mode);

#endif
