/* SPDX-License-Identifier: MIT
 *
 * network.h - the guest's network
 */
#ifndef INIT_NETWORK_H
#define INIT_NETWORK_H

/* Give lo and the first network card their addresses. NULL, or what failed (errno says why). */
const char *network_up(void);

#endif
