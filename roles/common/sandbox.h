/* SPDX-License-Identifier: MIT
 *
 * sandbox.h - confining a process before it touches what a guest can reach
 */
#ifndef COMMON_SANDBOX_H
#define COMMON_SANDBOX_H

#include <stdint.h>
#include <sys/syscall.h>
#include <sys/types.h>

/* Built with the address sanitizer, which is for tests: its runtime needs more than the lists and limits of the roles
 * give, see sandbox.c. */
#if defined(__SANITIZE_ADDRESS__)
#define SANDBOX_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANDBOX_SANITIZED 1
#endif
#endif
#ifndef SANDBOX_SANITIZED
#define SANDBOX_SANITIZED 0
#endif

/* One thing that a process with libraries or a device sees in its root, which is empty else. */
struct sandbox_view {
	enum sandbox_view_kind {
		VIEW_FILES = 1, /* a file or folder of the host, read-only */
		VIEW_DEVICE,	/* a device node */
		VIEW_SOCKET,	/* a socket to connect to */
		VIEW_SHARED,	/* a folder in which another process makes files for this one to write to */
		VIEW_SCRATCH,	/* a folder of its own, of 16 MB, to write to */
		VIEW_LINK,	/* a symbolic link */
		VIEW_TEXT,	/* a file with this text */
	} kind;
	const char *path;   /* where, without the leading '/' */
	const char *source; /* the host's path; the link's target; the text; NULL for SCRATCH */
	int trusted;	    /* FILES: 1: what only the administrator can change, see trusted.h */
};

#define SANDBOX_DATA (128u << 20) /* ample for a process that computes nothing and whose large memory is shared */

struct sandbox {
	const int *keep; /* descriptors to keep open, besides 0..2 */
	int nkeep;
	uint32_t uid; /* system mode: the uid and gid to become; 0: user mode, in a user namespace */
	uint32_t gid;
	uint64_t memory_max; /* RLIMIT_AS in bytes, 0: no limit */
	uint64_t data_max;   /* RLIMIT_DATA in bytes, memory of its own, 0: no limit */
	unsigned files_max;  /* RLIMIT_NOFILE */
	unsigned threads;    /* that it may have, until sandbox_no_more_threads(); 0: none but itself */
	uint64_t file_max;   /* RLIMIT_FSIZE in bytes, 0: no limit; not where the log is a file */
	const int *folder;   /* the one folder below which files may be made, written and removed; NULL: none */
	uint32_t optional;   /* stages that may fail, sandbox_stage() bits */
	const struct sandbox_view *view; /* what its root holds, folders before what is in them */
	unsigned views;			 /* 0: nothing */
	gid_t device_gid;		 /* system mode: a further group, whose device it uses; 0: none */
};

/* The bit of a stage by its name, 0 if there is none. */
uint32_t sandbox_stage(const char *name);

/* Everything but system calls: closed descriptors, rlimits, namespaces with an empty read-only root, ids, capabilities,
 * no_new_privs, not dumpable. The process must be single-threaded. Returns 0, or -errno with *stage naming what failed:
 * the caller must then not go on. */
int sandbox_enter(const struct sandbox *s, const char **stage);

/* 1: this kernel has Landlock, which confined processes then use; 0: they do without. */
int sandbox_landlock(void);

/* For a process that the launcher forks for work that takes no rights: no capabilities, and none to be had. 0 or
 * -errno. */
int sandbox_powerless(void);

/* From here on this process starts no further thread, for ever. 0 or -errno. */
int sandbox_no_more_threads(void);

/* fork(), but the child is number 1 of a pid namespace of its own: it sees no other process, and none survives it. In
 * user mode that takes a user namespace, in which the user is himself. Returns the child's pid, 0 in the child, or
 * -errno; a child that can't be set up says so and exits. */
pid_t sandbox_fork(int user_mode, uint32_t optional);

/* For the launcher, in system mode: keep only the capabilities that starting, confining and ending children takes, also
 * as a bound for those children. chown: and those of giving a socket to somebody else, and a label to the services'
 * memory. 0 or -errno. */
int sandbox_launcher(int chown);

#define SANDBOX_VALUES 4

/* A system call that is allowed, and why. Where n isn't 0, only if argument `arg`, masked by `mask`, is one of
 * value[0..n); and only if argument `other` has none of the bits `none`. A call may stand in a list several times: any
 * of the entries is enough. The list ends with an entry without `why`. */
struct sandbox_call {
	const char *name;
	const char *why;
	int16_t nr;
	int16_t error; /* not 0: it isn't allowed but fails with this errno, and the process lives */
	uint8_t arg;
	uint8_t n;
	uint8_t other;
	uint32_t mask;
	uint32_t none;
	uint32_t value[SANDBOX_VALUES];
};

#define SANDBOX_CALL(call, reason)                                                                                     \
	{                                                                                                              \
		.nr = SYS_##call, .name = #call, .why = (reason)                                                       \
	}
/* Only with these values of (argument & mask). */
#define SANDBOX_CALL_IF(call, reason, argument, argmask, count, ...)                                                   \
	{                                                                                                              \
		.nr = SYS_##call, .name = #call, .why = (reason), .arg = (argument), .n = (count), .mask = (argmask),  \
		.value = {                                                                                             \
			__VA_ARGS__                                                                                    \
		}                                                                                                      \
	}
/* Only if the argument has no bits besides these: flags of which a few are used, and more may come with every kernel.
 */
#define SANDBOX_CALL_BITS(call, reason, argument, bits)                                                                \
	SANDBOX_CALL_IF(call, reason, argument, UINT32_MAX & ~(uint32_t)(bits), 1, 0)
/* Memory to read and write, never executable: a descriptor's, or one's own. What is anonymous and shared is in no limit
 * (RLIMIT_DATA), and nothing that anybody needs. Two entries. */
#define SANDBOX_CALL_MMAP(reason)                                                                                      \
	{ .nr = SYS_mmap,                                                                                              \
		.name = "mmap",                                                                                        \
		.why = (reason),                                                                                       \
		.arg = 2,                                                                                              \
		.n = 1,                                                                                                \
		.mask = UINT32_MAX & ~(uint32_t)(PROT_READ | PROT_WRITE),                                              \
		.other = 3,                                                                                            \
		.none = MAP_ANONYMOUS },                                                                               \
	{                                                                                                              \
		.nr = SYS_mmap, .name = "mmap", .why = "malloc", .arg = 2, .n = 1,                                     \
		.mask = UINT32_MAX & ~(uint32_t)(PROT_READ | PROT_WRITE), .other = 3, .none = MAP_SHARED               \
	}
/* It fails with this errno, which is something that the caller knows to do without. */
#define SANDBOX_CALL_FAILS(call, reason, err)                                                                          \
	{                                                                                                              \
		.nr = SYS_##call, .name = #call, .why = (reason), .error = (err)                                       \
	}
#define SANDBOX_END                                                                                                    \
	{                                                                                                              \
		.why = NULL                                                                                            \
	}

/* Allow these system calls and no others, for ever and in all threads: anything else kills the process. May be called
 * again with a shorter list; the first one must then have allowed seccomp, prctl and what malloc needs. more: a second
 * list to add, or NULL. 0 or -errno. */
int sandbox_syscalls(const struct sandbox_call *allowed, const struct sandbox_call *more);

/* The same for a service: any other call raises SIGSYS, for filter_tells() (proto/filter.h). */
int sandbox_syscalls_told(const struct sandbox_call *allowed, const struct sandbox_call *more);

/* Write that filter to a descriptor, as the kernel takes it, for a process that has no libseccomp. 0 or -errno. */
int sandbox_export(int fd, const struct sandbox_call *allowed, const struct sandbox_call *more);

/* The number of a system call of this name, or -1. */
int sandbox_call_number(const char *name);

#define SANDBOX_NAME 28

/* And the name of a number. 0: there is none. */
int sandbox_call_name(int nr, char name[SANDBOX_NAME]);

/* Print a list for people: one call a line. */
void sandbox_print(const char *title, const struct sandbox_call *allowed, const struct sandbox_call *more);

#endif
