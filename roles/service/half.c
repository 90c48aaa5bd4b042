/* SPDX-License-Identifier: MIT
 *
 * half.c - the host half: a dynamically linked program for what needs the host's shared libraries
 *
 * It is built from the same sources, embedded in the one executable, and never seen by anybody. It needs libc alone, of
 * the oldest version that vfun is built for; everything else is looked for at run time.
 *
 *   vfun-service   (argv[0], by handover.c) a service with a device, confined already:
 *                  first list of system calls; regions, libraries, device; the watchdog; no further thread; second
 *                  list, for all threads; serve
 *   xclbin         (by vfund, confined) does the description at descriptor 3 fit the image at descriptor 4?
 *   domain         (by `vfun domain`) libvirt's domains, see roles/domain
 *   libvirt-watch  (by vfund, confined) tells what becomes of them
 *
 * The watchdog is a thread that calls no library: XRT's waits can't be trusted to end. It looks eight times within the
 * time that a call may take, and ends the process when that is over or when the device has failed; the launcher tells
 * the client why.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../../backends/xrt/xrt.h"
#include "../../proto/filter.h"
#include "../../proto/pace.h"
#include "../common/log.h"
#include "../domain/command.h"
#include "../roles.h"
#include "service.h"

/* XRT's emulation shim makes its folders writable through a shell. There is no shell here, and nothing to make
 * writable: this takes the C library's place, for the shim as well. */
int
system(const char *command)
{
	(void)command;
	return 0;
}

static void *
watch(void *arg)
{
	struct service *sv = arg;
	uint64_t tick = sv->limit_ns / 8 > 10000000 ? sv->limit_ns / 8 : 10000000;
	const struct timespec ts = { .tv_sec = (time_t)(tick / 1000000000u), .tv_nsec = (long)(tick % 1000000000u) };
	uint32_t never = 0;
	uint64_t deadline;

	__atomic_fetch_add(&sv->up, 1, __ATOMIC_RELEASE);
	for (;;) {
		syscall(SYS_futex, &never, FUTEX_WAIT, 0, &ts, NULL, 0);
		deadline = __atomic_load_n(&sv->deadline, __ATOMIC_RELAXED);
		if (deadline == 1)
			_exit(SVC_EXIT_DEVICE);
		/* A tick early rather than late. */
		if (deadline && pace_now() + tick > deadline)
			_exit(SVC_EXIT_LATE);
	}
}

static int
start_watchdog(struct service *sv)
{
	pthread_t thread;
	int r = pthread_create(&thread, NULL, watch, sv);

	while (!r && __atomic_load_n(&sv->up, __ATOMIC_ACQUIRE) == 0)
		sched_yield();
	return -r;
}

/* Everything that serving needs is there. */
static int
confine_serving(struct service *sv)
{
	const struct rlimit none = { 0, 0 };
	int r = start_watchdog(sv);

	if (!r && setrlimit(RLIMIT_NPROC, &none) < 0)
		r = -errno;
	return r ? r : filter_load(HANDOVER_SERVING);
}

/* The image, mapped. NULL: it can't be. */
static const void *
map_image(int fd, uint64_t *len)
{
	struct stat st;
	void *p;

	if (fstat(fd, &st) < 0 || st.st_size <= 0)
		return NULL;
	*len = (uint64_t)st.st_size;
	p = mmap(NULL, *len, PROT_READ, MAP_PRIVATE, fd, 0);
	return p == MAP_FAILED ? NULL : p;
}

static int
service(void)
{
	static struct service sv; /* zeros, which take no room in the file */
	struct backend_setup setup = { .description = &sv.start.xrt };
	struct handover h;
	int r;

	sv.out_fd = HANDOVER_OUT;
	sv.in_fd = HANDOVER_IN;
	sv.ring_fd = RING_FD;
	if (pread(HANDOVER_FD, &h, sizeof(h), 0) != (ssize_t)sizeof(h))
		return EXIT_USAGE;
	close(HANDOVER_FD);
	sv.start = h.start;
	sv.out_off = h.out_off;
	sv.in_off = h.in_off;
	sv.huge = h.huge;
	log_init("vfun-service", (int)sv.start.verbose);
	/* Being executed has made it dumpable again. */
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return service_refuse(VFUN_R_START_FAILED, "not dumpable: %s", strerror(errno));
	r = filter_tells();
	if (!r)
		r = filter_load(HANDOVER_SETUP);
	if (r)
		return service_refuse(
		    VFUN_R_START_FAILED, "the service can't be confined: system calls: %s", strerror(-r));
	/* The service has looked at all of it already. */
	sv.backend = backend_find(sv.start.backend);
	if (!sv.backend)
		return service_refuse(VFUN_R_START_FAILED, "there is no backend %s", sv.start.backend);
	sv.function = (struct backend_function){ .name = sv.start.function, .threads = 1 };
	sv.signature = h.signature;
	sv.limit_ns = sv.start.xrt.timeout_ms * 1000000ull;
	setup.image = map_image(HANDOVER_IMAGE, &setup.image_len);
	close(HANDOVER_IMAGE);
	if (!setup.image)
		return service_refuse(VFUN_R_IMAGE, "%s can't be read", sv.start.xrt.xclbin);
	return work(&sv, &setup, confine_serving);
}

#define XCLBIN_FILTER 5

static int
xclbin(void)
{
	struct xrt_desc d;
	uint64_t len;
	const void *image;

	if (filter_load(XCLBIN_FILTER) || pread(3, &d, sizeof(d), 0) != (ssize_t)sizeof(d))
		return EXIT_USAGE;
	image = map_image(4, &len);
	return image && xrt_compare(&d, image, len) >= 0 ? EXIT_OK : EXIT_SYSTEM;
}

int
main(int argc, char **argv)
{
	if (argc > 0 && !strcmp(argv[0], "vfun-service"))
		return service();
	if (argc > 1 && !strcmp(argv[1], "xclbin"))
		return xclbin();
	if (argc > 1 && !strcmp(argv[1], "domain"))
		return domain_main();
	if (argc > 1 && !strcmp(argv[1], "libvirt-watch"))
		return watch_main(argv[2], argc > 3 ? argv[3] : NULL);
	return EXIT_USAGE;
}
