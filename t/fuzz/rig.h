/* SPDX-License-Identifier: MIT
 *
 * rig.h - a share on a test bench: the launcher that keeps for it, and its death
 *
 * The share's own code runs on the kernel of sys.h. Its "process" is `struct share`, its descriptors and mappings; the
 * state and the kept descriptors belong to the launcher, which is played here. rig_mortal(n) lets the process die at
 * the n-th place from now where it matters: at each state_order(), and before and after each of the launcher's deeds.
 */
#ifndef FUZZ_RIG_H
#define FUZZ_RIG_H

#include "sys.h"

#include "../../roles/share/share.h"

struct rig {
	struct share *s;
	struct share_state *st;
	struct sys_file *kept[KEEP_SLOTS];
	struct sys_file *events;  /* the launcher's */
	struct sys_file *channel; /* the share's end of the engine's channel; NULL: no engine */
	uint64_t commits;
	unsigned mortal;
	int over;    /* it ended with its VM */
	int running; /* its code is being run */
	unsigned deaths;
};

extern struct rig rig;

/* The targets': the launcher sends for the share on the front-end's socket, or on the back-end channel. 0 or -errno. */
int rig_committed(uint32_t slot, const void *data, uint32_t len, struct sys_file *with);

void rig_start(void); /* a fresh share with a front-end's socket, no engine */
void rig_end(void);
void rig_run(void (*fn)(void *arg), void *arg); /* run the share's code; takes over if it dies */
void rig_source(struct sys_file *f);		/* what waits for this file, if anything does, and timers after it */
void rig_timers(void);
void rig_kill(void);
void rig_engine(int there); /* a new engine, or none */
void rig_check(void);	    /* the share's tables are consistent */

#endif
