/* SPDX-License-Identifier: MIT
 *
 * notify.c - tells a service manager that vfund is ready (Type=notify in systemd.service(5))
 *
 * Who is to start after vfund, as a libvirtd whose domains connect to its sockets at once, must not do so before these
 * are there. The protocol is one datagram to the socket in $NOTIFY_SOCKET, see sd_notify(3).
 */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "../common/log.h"
#include "launcher.h"

void
notify_ready(void)
{
	static const char ready[] = "READY=1";
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	const char *path = getenv("NOTIFY_SOCKET");
	size_t len = path ? strlen(path) : 0;
	int fd;

	if (!len)
		return;
	if (len >= sizeof(sa.sun_path)) {
		log_warn("NOTIFY_SOCKET is too long: nobody is told that vfund is ready");
		return;
	}
	memcpy(sa.sun_path, path, len);
	/* An abstract name begins with a NUL, which is written as '@'. */
	if (path[0] == '@')
		sa.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || sendto(fd, ready, sizeof(ready) - 1, MSG_NOSIGNAL, (struct sockaddr *)&sa,
			  (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)) < 0)
		log_warn("%s can't be told that vfund is ready: %s", path, strerror(errno));
	if (fd >= 0)
		close(fd);
}
