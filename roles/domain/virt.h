/* SPDX-License-Identifier: MIT
 *
 * virt.h - libvirt's API, found at run time: libvirt.so.0; in the host half
 *
 * Declared here as libvirt/libvirt.h has it, so that building needs no libvirt.
 */
#ifndef DOMAIN_VIRT_H
#define DOMAIN_VIRT_H

#include <stddef.h>

struct virt_conn;   /* virConnect */
struct virt_domain; /* virDomain */

#define VIRT_METADATA_ELEMENT 2
#define VIRT_AFFECT_LIVE 1u /* virDomainModificationImpact */
#define VIRT_AFFECT_CONFIG 2u
#define VIRT_XML_SECURE 1u
#define VIRT_XML_INACTIVE 2u

enum virt_error {
	VIRT_ERR_OPERATION_DENIED = 29,
	VIRT_ERR_NO_DOMAIN = 42,
	VIRT_ERR_AUTH_FAILED = 45,
	VIRT_ERR_AUTH_CANCELLED = 79,
	VIRT_ERR_NO_METADATA = 80,
	VIRT_ERR_ACCESS_DENIED = 88,
	VIRT_ERR_AUTH_UNAVAILABLE = 94,
};

enum virt_state {
	VIRT_RUNNING = 1,
	VIRT_BLOCKED,
	VIRT_PAUSED,
	VIRT_SHUTDOWN,
	VIRT_SHUTOFF,
	VIRT_CRASHED,
	VIRT_SUSPENDED
};

#define VIRT_EVENT_LIFECYCLE 0 /* virDomainEventID */
#define VIRT_EVENT_METADATA 23
#define VIRT_HANDLE_READABLE 1 /* virEventHandleType */
#define VIRT_HANDLE_HANGUP 8

typedef void virt_event(void); /* cast from one of the two below, as libvirt wants it */
typedef void virt_lifecycle(struct virt_conn *c, struct virt_domain *d, int event, int detail, void *arg);
typedef void virt_metadata(struct virt_conn *c, struct virt_domain *d, int type, const char *uri, void *arg);
typedef void virt_closed(struct virt_conn *c, int reason, void *arg);
typedef void virt_handle(int watch, int fd, int events, void *arg);
typedef void virt_timeout(int timer, void *arg);

struct virt {
	int (*Initialize)(void);
	struct virt_conn *(*ConnectOpen)(const char *uri);
	struct virt_conn *(*ConnectOpenReadOnly)(const char *uri);
	int (*ConnectClose)(struct virt_conn *c);
	int (*ConnectSetKeepAlive)(struct virt_conn *c, int interval, unsigned count);
	int (*ConnectRegisterCloseCallback)(struct virt_conn *c, virt_closed *cb, void *arg, void (*release)(void *));
	int (*ConnectUnregisterCloseCallback)(struct virt_conn *c, virt_closed *cb);
	char *(*ConnectGetCapabilities)(struct virt_conn *c);
	char *(*ConnectGetDomainCapabilities)(struct virt_conn *c, const char *emulator, const char *arch,
	    const char *machine, const char *type, unsigned flags);
	int (*ConnectListAllDomains)(struct virt_conn *c, struct virt_domain ***list, unsigned flags);
	int (*ConnectDomainEventRegisterAny)(
	    struct virt_conn *c, struct virt_domain *d, int id, virt_event *cb, void *arg, void (*release)(void *));
	struct virt_domain *(*DomainLookupByName)(struct virt_conn *c, const char *name);
	struct virt_domain *(*DomainLookupByUUIDString)(struct virt_conn *c, const char *uuid);
	int (*DomainFree)(struct virt_domain *d);
	const char *(*DomainGetName)(struct virt_domain *d);
	int (*DomainGetUUIDString)(struct virt_domain *d, char *buf);
	int (*DomainGetState)(struct virt_domain *d, int *state, int *reason, unsigned flags);
	int (*DomainIsActive)(struct virt_domain *d);
	int (*DomainIsPersistent)(struct virt_domain *d);
	char *(*DomainGetXMLDesc)(struct virt_domain *d, unsigned flags);
	char *(*DomainGetMetadata)(struct virt_domain *d, int type, const char *uri, unsigned flags);
	int (*DomainSetMetadata)(
	    struct virt_domain *d, int type, const char *metadata, const char *key, const char *uri, unsigned flags);
	struct virt_domain *(*DomainDefineXML)(struct virt_conn *c, const char *xml);
	int (*DomainAttachDeviceFlags)(struct virt_domain *d, const char *xml, unsigned flags);
	int (*DomainDetachDeviceFlags)(struct virt_domain *d, const char *xml, unsigned flags);
	int (*EventRegisterDefaultImpl)(void);
	int (*EventRunDefaultImpl)(void);
	int (*EventAddHandle)(int fd, int events, virt_handle *cb, void *arg, void (*release)(void *));
	int (*EventAddTimeout)(int ms, virt_timeout *cb, void *arg, void (*release)(void *));
	void (*EventUpdateTimeout)(int timer, int ms);
	void (*SetErrorFunc)(void *arg, void (*handler)(void *, void *));
	int (*GetLastErrorCode)(void);
	const char *(*GetLastErrorMessage)(void);
};

/* Load it, and keep it from writing to standard error. NULL, or what is missing. */
const char *virt_load(struct virt *v);

/* What libvirt's last error means for the user, in one sentence, and the exit status that goes with it. */
int virt_explain(const struct virt *v, char *text, size_t room);

#endif
