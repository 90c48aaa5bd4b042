/* SPDX-License-Identifier: MIT
 *
 * calls.h - how backends write their lists of system calls down: struct backend_syscall
 */
#ifndef BACKENDS_CALLS_H
#define BACKENDS_CALLS_H

#include <sys/syscall.h>

#include "backend.h"

#define CALL(call, reason)                                                                                             \
	{                                                                                                              \
		.nr = SYS_##call, .name = #call, .why = (reason)                                                       \
	}
#define CALL_IF(call, reason, argument, argmask, count, ...)                                                           \
	{                                                                                                              \
		.nr = SYS_##call, .name = #call, .why = (reason), .arg = (argument), .n = (count), .mask = (argmask),  \
		.value = {                                                                                             \
			__VA_ARGS__                                                                                    \
		}                                                                                                      \
	}
#define CALL_FAILS(call, reason, err)                                                                                  \
	{                                                                                                              \
		.nr = SYS_##call, .name = #call, .why = (reason), .error = (err)                                       \
	}
#define END                                                                                                            \
	{                                                                                                              \
		.why = NULL                                                                                            \
	}

#endif
