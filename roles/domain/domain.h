/* SPDX-License-Identifier: MIT
 *
 * domain.h - what `vfun domain` asks the host half to do
 *
 * The static executable reads the command line and completes it; the host half finds this at descriptor DOMAIN_ASK_FD.
 */
#ifndef DOMAIN_H
#define DOMAIN_H

#include <limits.h>
#include <stdint.h>

#include "../common/virtd.h"

#define DOMAIN_ASK_FD 3
#define DOMAIN_LIVE 1u	 /* the running domain */
#define DOMAIN_CONFIG 2u /* its persistent definition */
#define DOMAIN_BOTH (DOMAIN_LIVE | DOMAIN_CONFIG)

enum domain_command { DOMAIN_ATTACH = 1, DOMAIN_DETACH, DOMAIN_LIST, DOMAIN_XML };

struct domain_ask {
	uint32_t command;
	uint32_t where; /* DOMAIN_LIVE | DOMAIN_CONFIG */
	uint32_t path;	/* enum virtd_path */
	uint32_t instances;
	uint64_t memory;
	uint64_t memory_max; /* what [libvirt] of vfun.conf allows, 0: not known */
	uint32_t fix;
	uint32_t unit;
	char uri[256]; /* "": libvirt's own choice */
	char domain[256];
	char functions[VIRTD_FUNCTIONS_MAX];
	char run[PATH_MAX]; /* vfund's run folder, from / on */
};

#endif
