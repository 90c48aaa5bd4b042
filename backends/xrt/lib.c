/* SPDX-License-Identifier: MIT
 *
 * lib.c - XRT's C API, found at run time; in the host half
 */
#include <dlfcn.h>
#include <string.h>

#include "lib.h"

const char *
xrt_lib_load(struct xrt_lib *lib)
{
	static const struct {
		const char *name;
		size_t offset;
	} functions[] = {
#define FUNCTION(f) { "xrt" #f, offsetof(struct xrt_lib, f) }
		FUNCTION(DeviceOpen),
		FUNCTION(DeviceOpenByBDF),
		FUNCTION(DeviceClose),
		FUNCTION(DeviceLoadXclbin),
		FUNCTION(DeviceGetXclbinUUID),
		FUNCTION(PLKernelOpen),
		FUNCTION(KernelClose),
		FUNCTION(KernelArgGroupId),
		FUNCTION(RunOpen),
		FUNCTION(RunSetArg),
		FUNCTION(RunStart),
		FUNCTION(RunWait),
		FUNCTION(RunClose),
		FUNCTION(BOAlloc),
		FUNCTION(BOAllocUserPtr),
		FUNCTION(BOSubAlloc),
		FUNCTION(BOFree),
		FUNCTION(BOSync),
		FUNCTION(BOMap),
#undef FUNCTION
	};
	/* Never closed: XRT has threads and handlers that don't end. */
	void *so = dlopen("libxrt_coreutil.so.2", RTLD_NOW | RTLD_GLOBAL);

	if (!so)
		return "libxrt_coreutil.so.2 is missing on this host: install XRT (Debian: libxrt2 and libxrt-alveo2)";
	for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++) {
		void *f = dlsym(so, functions[i].name);

		if (!f)
			return "libxrt_coreutil.so.2 on this host is too old: XRT 2.25 is needed";
		memcpy((char *)lib + functions[i].offset, &f, sizeof(f));
	}
	return NULL;
}
