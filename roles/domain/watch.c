/* SPDX-License-Identifier: MIT
 *
 * watch.c - `vfun-half libvirt-watch [URI]`: tells vfund what becomes of libvirt's domains; in the host half
 *
 * What it says is in roles/common/virtd.h. It never says what an event says, but what is true afterwards: whatever
 * happened, the domain is looked up by its uuid, and its element and state are read again. So a change of name, a
 * migration and an event that this version doesn't know need nothing of their own, and one that is late does no harm.
 * Of a domain's XML it reads the metadata element and the label only.
 *
 *   connected   events are on before the list is made, so that nothing falls in between; libvirt's keep-alive messages
 *               find a libvirtd that hangs
 *   lost        the connection's close callback; tried again after 1, 2, 4, ... 30 s
 *
 * All is done in libvirt's own event loop, which has vfund's end of the socket in it, too: when that is closed, the
 * watcher ends.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../proto/filter.h"
#include "../common/log.h"
#include "../roles.h"
#include "command.h"
#include "lxml.h"

#define BACKOFF_MIN 1000 /* ms */
#define BACKOFF_MAX 30000
#define KEEPALIVE_S 5
#define KEEPALIVE_COUNT 3

struct watch {
	struct virt v;
	const char *uri;
	const char *folder; /* of libvirtd's sockets; NULL: as a test starts it, not confined */
	struct virt_conn *conn;
	int timer;
	int backoff;
	int closed; /* 1: by the close callback */
	int lost;   /* 1: vfund has been told */
	struct identity id;
};

static void
tell(const struct virtd_msg *m)
{
	ssize_t n;

	do
		n = send(VIRTD_FD, m, sizeof(*m), MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n != (ssize_t)sizeof(*m))
		_exit(EXIT_LOST);
}

static void
tell_kind(enum virtd_kind kind)
{
	tell(&(struct virtd_msg){ .kind = kind, .uid = UINT32_MAX, .gid = UINT32_MAX });
}

static void
tell_lost(struct watch *w, const char *why)
{
	struct virtd_msg m = { .kind = VIRTD_LOST };

	if (w->lost)
		return;
	w->lost = 1;
	snprintf(m.text, sizeof(m.text), "%s", why);
	tell(&m);
}

static uint32_t
state_of(int state)
{
	switch (state) {
	case VIRT_RUNNING:
	case VIRT_BLOCKED:
	case VIRT_SHUTDOWN:
		return VIRTD_RUNNING;
	case VIRT_PAUSED:
	case VIRT_SUSPENDED:
		return VIRTD_PAUSED;
	case VIRT_CRASHED:
		return VIRTD_CRASHED;
	default:
		return VIRTD_SHUT_OFF;
	}
}

/* The element of the running domain, or of the definition with which it is started the next time. */
static int
read_element(const struct watch *w, struct virt_domain *d, struct virtd_msg *m)
{
	char *text = w->v.DomainGetMetadata(d, VIRT_METADATA_ELEMENT, VIRTD_URN, 0);
	struct xml_doc *doc;
	struct xml_element e;
	const char *fault;

	if (!text)
		text = w->v.DomainGetMetadata(d, VIRT_METADATA_ELEMENT, VIRTD_URN, VIRT_AFFECT_CONFIG);
	if (!text)
		return 0;
	doc = xml_read(text);
	free(text);
	fault = doc ? xml_element(doc, &e) : "it can't be read";
	xml_free(doc);
	if (fault) {
		log_warn("domain %s: its element for vfun counts for nothing: %s", w->v.DomainGetName(d), fault);
		return 0;
	}
	m->path = e.path;
	m->instances = e.instances;
	m->memory = e.memory;
	m->ivshmem = e.ivshmem;
	strcpy(m->functions, e.functions);
	return 1;
}

/* As what its QEMU runs, or will. */
static void
read_label(const struct watch *w, struct virt_domain *d, struct virtd_msg *m)
{
	char *text = w->v.DomainGetXMLDesc(d, 0);
	struct xml_doc *doc = xml_read(text);

	if (doc)
		qemu_labels(&w->id, doc, m);
	xml_free(doc);
	free(text);
}

/* What is true of this domain now. gone: it is worth a message if it has no element. */
static void
tell_domain(const struct watch *w, struct virt_domain *d, int gone)
{
	struct virtd_msg m = { .kind = VIRTD_DOMAIN, .uid = w->id.uid, .gid = w->id.gid };
	int state = 0;
	int reason;

	if (w->v.DomainGetUUIDString(d, m.uuid) < 0)
		return;
	if (read_element(w, d, &m) && w->v.DomainGetState(d, &state, &reason, 0) == 0) {
		m.state = state_of(state);
		read_label(w, d, &m);
		snprintf(m.name, sizeof(m.name), "%s", w->v.DomainGetName(d));
		tell(&m);
	} else if (gone) {
		struct virtd_msg g = { .kind = VIRTD_GONE };

		memcpy(g.uuid, m.uuid, sizeof(g.uuid));
		tell(&g);
	}
}

/* Something happened to it. The object of the event may have its old name. */
static void
look_again(const struct watch *w, struct virt_domain *old)
{
	struct virtd_msg g = { .kind = VIRTD_GONE };
	struct virt_domain *d;

	if (w->closed || w->v.DomainGetUUIDString(old, g.uuid) < 0)
		return;
	d = w->v.DomainLookupByUUIDString(w->conn, g.uuid);
	if (d) {
		tell_domain(w, d, 1);
		w->v.DomainFree(d);
	} else if (w->v.GetLastErrorCode() == VIRT_ERR_NO_DOMAIN) {
		tell(&g);
	}
}

static void
on_lifecycle(struct virt_conn *c, struct virt_domain *d, int event, int detail, void *arg)
{
	(void)c;
	(void)event;
	(void)detail;
	look_again(arg, d);
}

static void
on_metadata(struct virt_conn *c, struct virt_domain *d, int type, const char *uri, void *arg)
{
	(void)c;
	if (type == VIRT_METADATA_ELEMENT && (!uri || !strcmp(uri, VIRTD_URN)))
		look_again(arg, d);
}

static void
on_closed(struct virt_conn *c, int reason, void *arg)
{
	static const char *const why[] = { "error", "end of file", "no answer to keep-alive messages", "closed" };
	struct watch *w = arg;
	char text[128];

	(void)c;
	snprintf(text, sizeof(text), "libvirt's connection is gone: %s", reason >= 0 && reason < 4 ? why[reason] : "?");
	tell_lost(w, text);
	w->closed = 1;
	w->backoff = BACKOFF_MIN;
	w->v.EventUpdateTimeout(w->timer, w->backoff);
}

static int
tell_all(struct watch *w)
{
	struct virt_domain **list = NULL;
	int n = w->v.ConnectListAllDomains(w->conn, &list, 0);

	if (n < 0)
		return -1;
	tell_kind(VIRTD_BEGIN);
	w->lost = 0;
	for (int i = 0; i < n; i++) {
		tell_domain(w, list[i], 0);
		w->v.DomainFree(list[i]);
	}
	free(list);
	/* Half a list would say that the rest is gone. */
	if (!w->closed)
		tell_kind(VIRTD_END);
	return 0;
}

static void
drop(struct watch *w)
{
	if (!w->conn)
		return;
	w->v.ConnectUnregisterCloseCallback(w->conn, on_closed);
	w->v.ConnectClose(w->conn);
	w->conn = NULL;
}

static int
register_events(struct watch *w)
{
	/* A driver within this process has nothing to lose a connection with, nor to keep alive. */
	w->v.ConnectRegisterCloseCallback(w->conn, on_closed, w, NULL);
	w->v.ConnectSetKeepAlive(w->conn, KEEPALIVE_S, KEEPALIVE_COUNT);
	if (w->v.ConnectDomainEventRegisterAny(
		w->conn, NULL, VIRT_EVENT_LIFECYCLE, (virt_event *)(void *)on_lifecycle, w, NULL) < 0)
		return -1;
	return w->v.ConnectDomainEventRegisterAny(
	    w->conn, NULL, VIRT_EVENT_METADATA, (virt_event *)(void *)on_metadata, w, NULL);
}

/* The timer: connect, or connect again. */
static void
on_timer(int timer, void *arg)
{
	struct watch *w = arg;
	struct stat st;

	w->v.EventUpdateTimeout(timer, -1);
	drop(w);
	w->closed = 0;
	w->conn = w->v.ConnectOpenReadOnly(w->uri);
	if (w->conn && register_events(w) >= 0 && qemu_identity(&w->v, w->conn, &w->id) == 0 && tell_all(w) == 0) {
		w->backoff = BACKOFF_MIN;
		return;
	}
	tell_lost(w, w->v.GetLastErrorMessage());
	/* The folder of the sockets is bound here: another of that name is seen by another watcher only. */
	if (w->folder && (stat(w->folder, &st) < 0 || !st.st_nlink))
		_exit(EXIT_LOST);
	w->v.EventUpdateTimeout(timer, w->backoff);
	w->backoff = w->backoff * 2 > BACKOFF_MAX ? BACKOFF_MAX : w->backoff * 2;
}

static void
on_parent(int watch, int fd, int events, void *arg)
{
	char c;

	(void)watch;
	(void)arg;
	if ((events & ~VIRT_HANDLE_READABLE) || recv(fd, &c, 1, MSG_DONTWAIT) == 0)
		_exit(EXIT_OK);
}

static const char *
prepare(struct watch *w)
{
	const char *missing = virt_load(&w->v);

	if (!missing)
		missing = xml_load();
	if (!missing && w->v.EventRegisterDefaultImpl() < 0)
		missing = "libvirt's event loop can't be set up";
	return missing;
}

int
watch_main(const char *uri, const char *folder)
{
	static struct watch w = { .backoff = BACKOFF_MIN };
	const char *missing;

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	log_init("vfun-libvirt", 0);
	w.folder = folder;
	if (folder && (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 || filter_load(VIRTD_FILTER_FD))) {
		log_err("what watches libvirt can't be confined: system calls");
		return EXIT_SYSTEM;
	}
	/* A user's own libvirtd is started by who wants to run a domain, not by who watches. */
	setenv("LIBVIRT_AUTOSTART", "0", 1);
	w.uri = uri && *uri ? uri : NULL;
	missing = prepare(&w);
	if (missing) {
		tell_lost(&w, missing);
		return EXIT_NO_LIBVIRT;
	}
	if (w.v.EventAddHandle(VIRTD_FD, VIRT_HANDLE_READABLE | VIRT_HANDLE_HANGUP, on_parent, NULL, NULL) < 0)
		return EXIT_SYSTEM;
	w.timer = w.v.EventAddTimeout(0, on_timer, &w, NULL);
	if (w.timer < 0)
		return EXIT_SYSTEM;
	while (w.v.EventRunDefaultImpl() == 0)
		;
	tell_lost(&w, "libvirt's event loop failed");
	return EXIT_SYSTEM;
}
