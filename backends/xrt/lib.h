/* SPDX-License-Identifier: MIT
 *
 * lib.h - XRT's C API, found at run time: libxrt_coreutil.so.2
 *
 * Declared here as xrt/xrt_device.h, xrt_kernel.h and xrt_bo.h of XRT 2.x have it, so that building needs no XRT.
 */
#ifndef XRT_LIB_H
#define XRT_LIB_H

#include <stddef.h>
#include <stdint.h>

typedef void *xrt_handle; /* xrtDeviceHandle, xrtKernelHandle, xrtRunHandle, xrtBufferHandle */

#define XRT_TO_DEVICE 0 /* enum xclBOSyncDirection */
#define XRT_FROM_DEVICE 1
#define XRT_COMPLETED 4 /* enum ert_cmd_state: ERT_CMD_STATE_COMPLETED */

struct xrt_lib {
	xrt_handle (*DeviceOpen)(unsigned index);
	xrt_handle (*DeviceOpenByBDF)(const char *bdf);
	int (*DeviceClose)(xrt_handle device);
	int (*DeviceLoadXclbin)(xrt_handle device, const void *axlf);
	int (*DeviceGetXclbinUUID)(xrt_handle device, unsigned char uuid[16]);
	xrt_handle (*PLKernelOpen)(xrt_handle device, const unsigned char uuid[16], const char *name); /* shared */
	int (*KernelClose)(xrt_handle kernel);
	int (*KernelArgGroupId)(xrt_handle kernel, int arg); /* memory bank */
	xrt_handle (*RunOpen)(xrt_handle kernel);
	int (*RunSetArg)(xrt_handle run, int arg, ...);
	int (*RunStart)(xrt_handle run);
	int (*RunWait)(xrt_handle run); /* enum ert_cmd_state */
	int (*RunClose)(xrt_handle run);
	xrt_handle (*BOAlloc)(xrt_handle device, size_t size, uint64_t flags, uint32_t group);
	xrt_handle (*BOAllocUserPtr)(xrt_handle device, void *p, size_t size, uint64_t flags, uint32_t group);
	xrt_handle (*BOSubAlloc)(xrt_handle parent, size_t size, size_t offset);
	int (*BOFree)(xrt_handle bo);
	int (*BOSync)(xrt_handle bo, int direction, size_t size, size_t offset);
	void *(*BOMap)(xrt_handle bo);
};

/* Load it. NULL, or what is missing. */
const char *xrt_lib_load(struct xrt_lib *lib);

#endif
