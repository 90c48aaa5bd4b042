/* SPDX-License-Identifier: MIT
 *
 * rate.h - how many control messages a client may have looked at, and how many lines of log it may cause
 */
#ifndef DAEMON_RATE_H
#define DAEMON_RATE_H

#include <stdint.h>

#include "../common/log.h"

#define RATE_CONNECT 5 /* what a new connection costs, in messages */
#define RATE_HANG_UP 3 /* and its end */

/* Take `cost` messages from the budget of this client: a VM or net client of vfun.conf, or a user of the host. 1, or 0
 * if it is used up for now: the caller then leaves the client alone for RATE_PAUSE_MS. */
#define RATE_PAUSE_MS 10
int rate_take(uint32_t vm, uint32_t uid, unsigned cost);

/* May this client cause another line of log? 1 or 0; 2: this one, and then none for the rest of the minute. */
#define RATE_LINES 60 /* a minute */
int rate_line(uint32_t vm, uint32_t uid);

/* Such a line, if it may be; `whose` for people. */
void rate_say(uint32_t vm, uint32_t uid, const char *whose, enum log_level level, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));

int rate_lines(void); /* likewise, of those that anybody can cause */

int64_t rate_ms(void); /* CLOCK_MONOTONIC, never 0 */

#endif
