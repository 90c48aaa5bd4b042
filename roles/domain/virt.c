/* SPDX-License-Identifier: MIT
 *
 * virt.c - libvirt's API, found at run time; in the host half
 */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "../roles.h"
#include "virt.h"

/* libvirt prints every error unless somebody else takes care of it; here, the caller says it in a sentence. */
static void
silent(void *arg, void *error)
{
	(void)arg;
	(void)error;
}

const char *
virt_load(struct virt *v)
{
	static const struct {
		const char *name;
		size_t offset;
	} functions[] = {
#define FUNCTION(f) { "vir" #f, offsetof(struct virt, f) }
		FUNCTION(Initialize),
		FUNCTION(ConnectOpen),
		FUNCTION(ConnectOpenReadOnly),
		FUNCTION(ConnectClose),
		FUNCTION(ConnectSetKeepAlive),
		FUNCTION(ConnectRegisterCloseCallback),
		FUNCTION(ConnectUnregisterCloseCallback),
		FUNCTION(ConnectGetCapabilities),
		FUNCTION(ConnectGetDomainCapabilities),
		FUNCTION(ConnectListAllDomains),
		FUNCTION(ConnectDomainEventRegisterAny),
		FUNCTION(DomainLookupByName),
		FUNCTION(DomainLookupByUUIDString),
		FUNCTION(DomainFree),
		FUNCTION(DomainGetName),
		FUNCTION(DomainGetUUIDString),
		FUNCTION(DomainGetState),
		FUNCTION(DomainIsActive),
		FUNCTION(DomainIsPersistent),
		FUNCTION(DomainGetXMLDesc),
		FUNCTION(DomainGetMetadata),
		FUNCTION(DomainSetMetadata),
		FUNCTION(DomainDefineXML),
		FUNCTION(DomainAttachDeviceFlags),
		FUNCTION(DomainDetachDeviceFlags),
		FUNCTION(EventRegisterDefaultImpl),
		FUNCTION(EventRunDefaultImpl),
		FUNCTION(EventAddHandle),
		FUNCTION(EventAddTimeout),
		FUNCTION(EventUpdateTimeout),
		FUNCTION(SetErrorFunc),
		FUNCTION(GetLastErrorCode),
		FUNCTION(GetLastErrorMessage),
#undef FUNCTION
	};
	/* Never closed: libvirt has threads. */
	void *so = dlopen("libvirt.so.0", RTLD_NOW);

	if (!so)
		return "libvirt.so.0 is missing on this host: install libvirt's library (Debian: libvirt0)";
	for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++) {
		void *f = dlsym(so, functions[i].name);

		if (!f)
			return "libvirt.so.0 on this host is too old: libvirt 7.0 is needed";
		memcpy((char *)v + functions[i].offset, &f, sizeof(f));
	}
	if (v->Initialize() < 0)
		return "libvirt.so.0 on this host can't be initialized";
	v->SetErrorFunc(NULL, silent);
	return NULL;
}

int
virt_explain(const struct virt *v, char *text, size_t room)
{
	const char *said = v->GetLastErrorMessage();

	switch (v->GetLastErrorCode()) {
	case VIRT_ERR_NO_DOMAIN:
		snprintf(text, room, "libvirt has no such domain: see virsh list --all");
		return EXIT_REFUSED;
	case VIRT_ERR_OPERATION_DENIED:
	case VIRT_ERR_AUTH_FAILED:
	case VIRT_ERR_AUTH_CANCELLED:
	case VIRT_ERR_AUTH_UNAVAILABLE:
	case VIRT_ERR_ACCESS_DENIED:
		snprintf(text, room, "libvirt doesn't let you: be root, or in the group libvirt (%s)", said);
		return EXIT_NO_LIBVIRT;
	default:
		snprintf(text, room, "%s", said);
		return EXIT_SYSTEM;
	}
}
