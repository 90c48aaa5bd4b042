/* SPDX-License-Identifier: MIT
 *
 * network.c - the guest's network: fixed addresses, no route, no name service
 *
 * The card is called eth0, since nothing renames it here. There is no route, because the one machine to be reached, the
 * host, is in the same network.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "../common/guest.h"
#include "network.h"

static int
set_address(int fd, const char *card, unsigned long request, uint32_t address)
{
	struct ifreq ifr = { 0 };
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(address) };

	strcpy(ifr.ifr_name, card);
	memcpy(&ifr.ifr_addr, &in, sizeof(in));
	return ioctl(fd, request, &ifr);
}

static int
switch_on(int fd, const char *card)
{
	struct ifreq ifr = { 0 };

	strcpy(ifr.ifr_name, card);
	if (ioctl(fd, SIOCGIFFLAGS, &ifr) < 0)
		return -1;
	ifr.ifr_flags |= IFF_UP;
	return ioctl(fd, SIOCSIFFLAGS, &ifr);
}

/* The card may still be on its way when its driver has just been loaded. */
static int
wait_for(int fd, const char *card)
{
	const struct timespec tick = { .tv_nsec = 20000000 };
	struct ifreq ifr = { 0 };

	strcpy(ifr.ifr_name, card);
	for (int tries = 0; ioctl(fd, SIOCGIFFLAGS, &ifr) < 0; tries++) {
		if (errno != ENODEV || tries >= 100)
			return -1;
		nanosleep(&tick, NULL);
	}
	return 0;
}

const char *
network_up(void)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	const char *fault = NULL;

	if (fd < 0)
		return "socket";
	if (switch_on(fd, "lo") < 0)
		fault = "lo";
	else if (wait_for(fd, "eth0") < 0)
		fault = "no card (does this kernel have virtio_net, or its modules?)";
	else if (set_address(fd, "eth0", SIOCSIFADDR, GUEST_ADDRESS) < 0 ||
		 set_address(fd, "eth0", SIOCSIFNETMASK, GUEST_NETMASK) < 0 || switch_on(fd, "eth0") < 0)
		fault = "eth0";
	close(fd);
	return fault;
}
