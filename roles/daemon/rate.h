/* SPDX-License-Identifier: MIT
 *
 * rate.h - how many control messages a client may have looked at
 */
#ifndef DAEMON_RATE_H
#define DAEMON_RATE_H

#include <stdint.h>

#define RATE_CONNECT 2 /* what a new connection costs, in messages */

/* Take `cost` messages from the budget of this client: a VM of vfun.conf, or a user of the host. 1, or 0 if it is used
 * up for now: the caller then leaves the client alone for RATE_PAUSE_MS. */
#define RATE_PAUSE_MS 10
int rate_take(uint32_t vm, uint32_t uid, unsigned cost);

int64_t rate_ms(void); /* CLOCK_MONOTONIC, never 0 */

#endif
