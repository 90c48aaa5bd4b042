/* SPDX-License-Identifier: MIT
 *
 * virtd.h - what vfund is told about libvirt's domains
 *
 * vfund starts the host half as `vfun-half libvirt-watch URI FOLDER`, confined, with one end of a SOCK_SEQPACKET pair
 * at descriptor VIRTD_FD; FOLDER is where libvirtd's sockets are. vfund believes none of it: what is said is checked.
 * The watcher connects to libvirt, says what is there, then what changes, each in one virtd_msg; vfund says nothing.
 * Strings end with a NUL within their field, and what isn't used is zero.
 *
 *   VIRTD_BEGIN   a full list follows: after connecting, and after connecting again
 *   VIRTD_DOMAIN  this domain is there, with an element for vfun: new, or something about it changed. Between BEGIN and
 *                 END, and at any time later
 *   VIRTD_END     the list is complete: who was not named since BEGIN is gone
 *   VIRTD_GONE    undefined, or without its element; also said of domains that never had one. Only uuid is set
 *   VIRTD_LOST    no connection: `text` says why. Nothing is known until the next BEGIN, so nothing should be ended:
 *                 libvirtd may be restarted without any domain noticing. Said once for each time
 *
 * Domains that aren't running are named as well, since QEMU connects to the share's socket before libvirt tells anybody
 * that it has started: the socket has to be there as long as the domain is defined.
 *
 * The end of the stream, and the exit status of the watcher: EXIT_NO_LIBVIRT, no library on this host (after LOST), so
 * trying again is useless; anything else, a fault or a signal. It ends by itself when vfund's end is closed.
 */
#ifndef COMMON_VIRTD_H
#define COMMON_VIRTD_H

#include <stdint.h>

#define VIRTD_FD 3
#define VIRTD_FILTER_FD 4 /* its list of system calls, see proto/filter.h */
#define VIRTD_UUID_MAX 37
#define VIRTD_NAME_MAX 64 /* a longer name is cut: it is for display */
#define VIRTD_FUNCTIONS_MAX 512
#define VIRTD_TEXT_MAX 256
#define VIRTD_LABEL_MAX 256
#define VIRTD_URN "urn:vfun:domain:1" /* the element's name space */

enum virtd_kind { VIRTD_BEGIN = 1, VIRTD_DOMAIN, VIRTD_END, VIRTD_GONE, VIRTD_LOST };

/* What its QEMU does. Paused, it keeps everything. */
enum virtd_state { VIRTD_SHUT_OFF, VIRTD_RUNNING, VIRTD_PAUSED, VIRTD_CRASHED };

/* What it was attached with. AUTO: the element doesn't say, as where somebody wrote it by hand. */
enum virtd_path { VIRTD_AUTO, VIRTD_DAX, VIRTD_IVSHMEM, VIRTD_COPY };

struct virtd_msg {
	uint32_t kind;
	uint32_t state;
	uint32_t path;
	uint32_t instances; /* 0: not said */
	uint64_t memory;    /* quota, bytes; 0: not said */
	uint64_t ivshmem;   /* size of its ivshmem memory, bytes, a power of two; 0: it has none */
	uint32_t uid;	    /* who libvirt runs QEMU as, who must reach the socket; UINT32_MAX: not known */
	uint32_t gid;
	char uuid[VIRTD_UUID_MAX + 3];
	char name[VIRTD_NAME_MAX];
	char functions[VIRTD_FUNCTIONS_MAX]; /* names, each but the first after one blank; "": not said */
	char text[VIRTD_TEXT_MAX];
	/* SELinux: what QEMU's label begins with, which the domain's start adds its categories to, and what the files
	 * have that are made for it; "": none */
	char label[VIRTD_LABEL_MAX];
	char file_label[VIRTD_LABEL_MAX];
};

#endif
