/* SPDX-License-Identifier: MIT
 *
 * lists.c - the backends xrt (a card) and xrt-emulated (a model behind XRT's emulation shim), and the system calls that
 * each needs, besides those of every service (roles/service/service.c)
 *
 * The lists of xrt-emulated were found by running it. Those of xrt are derived from the source of XRT's driver shim
 * (core/pcie/linux: shim.cpp, device_linux.cpp, pcidev.cpp) and have NOT been run on hardware: what is missing there
 * ends the service with SIGSYS, is named in vfund's log, and has to be added here.
 */
#include <asm/termbits.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "../calls.h"
#include "xrt.h"

#ifdef VFUN_HOST_HALF
#define DRIVER .begin = xrt_begin, .finish = xrt_finish, .init = xrt_init, .reset = xrt_reset, .exit = xrt_exit
#else
#define DRIVER .init = NULL
#endif

/* The C library's mutexes and condition variables. */
#define LOCKS                                                                                                          \
	CALL_IF(futex, "XRT's locks, threads that wait", 1, UINT32_MAX, 4, FUTEX_WAIT_PRIVATE, FUTEX_WAKE_PRIVATE,     \
	    FUTEX_WAIT_BITSET_PRIVATE, FUTEX_WAIT_BITSET_PRIVATE | FUTEX_CLOCK_REALTIME)

/* malloc(), which XRT calls for each run. Never executable. */
#define MEMORY                                                                                                         \
	CALL_IF(mmap, "malloc", 2, UINT32_MAX & ~(uint32_t)(PROT_READ | PROT_WRITE), 1, 0), CALL(munmap, "malloc"),    \
	    CALL_IF(mprotect, "malloc", 2, UINT32_MAX & ~(uint32_t)(PROT_READ | PROT_WRITE), 1, 0),                    \
	    CALL(brk, "malloc"), CALL_IF(madvise, "malloc gives memory back", 2, UINT32_MAX, 1, MADV_DONTNEED)

/* The dynamic loader and C++'s libraries, XRT's threads: the same for card and model. */
#define LOADING                                                                                                        \
	CALL(mmap, "libraries, which are executable"), CALL(mprotect, "the same"),                                     \
	    CALL(openat, "libraries, and what XRT reads; the root is read-only"), CALL(read, "the same"),              \
	    CALL(pread64, "the same"), CALL(lseek, "the same"), CALL(fstat, "the same"), CALL(newfstatat, "the same"), \
	    CALL(access, "the same"), CALL(readlink, "XRT looks for its settings beside the executable"),              \
	    CALL(getdents64, "XRT looks for drivers and cards"), CALL(getcwd, "XRT looks for its settings"),           \
	    CALL_IF(clone, "XRT's threads, and the watchdog; no process", 0, CLONE_THREAD, 1, CLONE_THREAD),           \
	    CALL_FAILS(clone3, "the C library then takes clone", ENOSYS), CALL(set_robust_list, "a thread"),           \
	    CALL(rseq, "a thread"), CALL(gettid, "a thread, and XRT's messages"), CALL(rt_sigprocmask, "a thread"),    \
	    CALL(rt_sigaction, "XRT's handlers"), CALL(sched_yield, "until the threads are there"),                    \
	    CALL(prlimit64, "no further thread, afterwards"), CALL(getpid, "XRT's messages and files"),                \
	    CALL(getuid, "XRT's paths"), CALL(geteuid, "the same"), CALL(uname, "XRT's log"),                          \
	    CALL(sysinfo, "the C library's number of processors"), CALL(sched_getaffinity, "the same"),                \
	    CALL(fcntl, "descriptors that aren't inherited"), CALL(dup, "perror()"),                                   \
	    CALL(writev, "a last word of the C++ library"), CALL_FAILS(ioctl, "is the log a terminal?", ENOTTY),       \
	    CALL_IF(seccomp, "the second filter, for all threads", 0, UINT32_MAX, 1, 1 /* SET_MODE_FILTER */)

/* The emulation shim: calls of the model through a socket, and files in its scratch folder. */
#define EMULATION                                                                                                      \
	CALL(sendto, "the model is called"), CALL(recvfrom, "the model's answers"),                                    \
	    CALL(write, "the shim's files; there is nothing else to write to"),                                        \
	    CALL_FAILS(kill, "the shim would end its process group, and has none", EPERM),                             \
	    CALL(newfstatat, "a thread of the shim looks for the log of the model, which it did not start"),           \
	    CALL(rt_sigprocmask, "a thread ends"), CALL(exit, "a thread ends"),                                        \
	    CALL(clock_nanosleep, "the shim's threads wait for the model")

static const struct backend_syscall emulated_loading[] = { LOADING, LOCKS, EMULATION,
	CALL_FAILS(ioctl, "is the log a terminal?", ENOTTY),
	CALL_FAILS(bind, "where no model answers, the shim would be one", EACCES),
	CALL_IF(socket, "to the model", 0, UINT32_MAX, 1, AF_UNIX),
	CALL(connect, "to the model: there is no other socket"), CALL(mkdir, "the shim's folders"),
	CALL(unlink, "the shim's files"), CALL(ftruncate, "the shim's files"), END };

static const struct backend_syscall emulated_serving[] = { LOCKS, MEMORY, EMULATION, END };

/* Driver xocl, through the render node: DRM's ioctls alone, whose type is 'd'. */
#define DRM 0x6400
#define CARD                                                                                                           \
	CALL_IF(ioctl, "the card's driver: buffers, syncs, commands", 1, 0xff00, 1, DRM), CALL(poll, "a command's "    \
												     "end")

static const struct backend_syscall card_loading[] = { LOADING, LOCKS, CARD,
	CALL_IF(ioctl, "is the log a terminal?", 1, UINT32_MAX, 1, TCGETS),
	CALL(flock, "XRT's lock of the card while it is loaded"),
	CALL_FAILS(io_setup, "XRT does without asynchronous streams, which no kernel here has", ENOSYS),
	CALL(munmap, "buffers and registers"), END };

static const struct backend_syscall card_serving[] = { LOCKS, MEMORY, CARD, END };

const struct backend backend_xrt = {
	.name = "xrt", .setting_up = card_loading, .serving = card_serving, .half = 1, DRIVER
};

const struct backend backend_xrt_emulated = {
	.name = "xrt-emulated", .setting_up = emulated_loading, .serving = emulated_serving, .half = 1, DRIVER
};
