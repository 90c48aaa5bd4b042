/* SPDX-License-Identifier: MIT
 *
 * attach.c - `vfun domain attach`: everything is checked first, then the running domain is changed, then its definition
 *
 * The running domain: its element tells vfund, which makes the socket; when that is there, QEMU gets the device. If it
 * doesn't, the element is taken away again.
 *
 * libvirt can plug an ivshmem device, too, but always takes the file /dev/shm/NAME for its memory. So for as long as
 * that takes there is a link of that name to vfund's memory, which a process of its own takes away again, whatever
 * becomes of this one. The kernel follows it, in such a folder, if it is root's or QEMU's user's own.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../common/qemu.h"
#include "../roles.h"
#include "command.h"

#define SOCKET_WAIT_MS 10000
#define LINGER_S 5
#define RUN_TOO_LONG "the run folder's name is too long: a socket's has 107 bytes"

/* One of the two, as it is and as it is to be. */
struct side {
	unsigned where;
	struct xml_doc *doc;
	struct xml_facts facts;
	struct xml_element element;
};

static const char *
side_name(const struct side *s)
{
	return s->where == DOMAIN_LIVE ? "running domain" : "definition";
}

static int
check_memory(const struct job *j, const struct side *s)
{
	if (s->facts.shared || (s->where == DOMAIN_CONFIG && j->ask->fix && !s->facts.numa_private))
		return EXIT_OK;
	if (s->facts.numa_private)
		return say(j, EXIT_REFUSED,
		    "its memory isn't shared: give each <cell> of <numa> the attribute memAccess='shared'");
	if (s->where == DOMAIN_LIVE)
		return say(j, EXIT_REFUSED,
		    "its memory isn't shared, which can't be changed while it runs: use --config --fix, and start it "
		    "anew");
	return say(j, EXIT_REFUSED,
	    "its memory isn't shared: it needs <memoryBacking><source type='memfd'/><access mode='shared'/>"
	    "</memoryBacking>, which --fix puts there");
}

static int
check_side(const struct job *j, struct side *s)
{
	const struct xml_facts *f = &s->facts;
	int r;

	if (f->element)
		return say(j, EXIT_REFUSED, "the %s has its functions already: vfun domain detach takes them away",
		    side_name(s));
	if (f->foreign)
		return say(j, EXIT_REFUSED,
		    "the %s has a file system named " QEMU_TAG " that isn't from here: remove it first", side_name(s));
	r = check_memory(j, s);
	r = r ? r : choose_path(j, f, s->where == DOMAIN_LIVE, &s->element.path);
	if (!r && s->where == DOMAIN_LIVE && f->kind == XML_Q35 && !f->root_ports)
		r = say(j, EXIT_NO_PATH,
		    "no PCIe root port is free for another device: add <controller type='pci' "
		    "model='pcie-root-port'/> to its <devices>, and start it anew, or use --config");
	return r;
}

static int
open_side(const struct job *j, struct side *s, unsigned where)
{
	int r = definition(j, where, &s->doc);

	if (r)
		return r;
	s->where = where;
	xml_facts(s->doc, &s->facts);
	s->element.instances = j->ask->instances;
	s->element.memory = j->ask->memory;
	strcpy(s->element.functions, j->ask->functions);
	return EXIT_OK;
}

/* Can it be had at all? */
static int
check_domain(const struct job *j)
{
	int active = j->v.DomainIsActive(j->domain);
	int persistent = j->v.DomainIsPersistent(j->domain);
	char socket[sizeof(((struct sockaddr_un *)0)->sun_path)];

	if (active < 0 || persistent < 0)
		return say_libvirt(j);
	if ((j->ask->where & DOMAIN_LIVE) && !active)
		return say(j, EXIT_REFUSED, "it isn't running: use --config");
	if ((j->ask->where & DOMAIN_CONFIG) && !persistent)
		return say(j, EXIT_REFUSED, "it is transient, it has no persistent definition: use --live");
	if (xml_file(socket, sizeof(socket), j->ask->run, j->uuid, "share.sock"))
		return say(j, EXIT_USAGE, RUN_TOO_LONG);
	return EXIT_OK;
}

/* vfund makes it when it has heard of the element: the socket, and then the link to the memory, if there is to be one.
 */
static int
wait_for(const struct job *j, const char *path)
{
	struct stat st;

	for (int ms = 0; ms < SOCKET_WAIT_MS; ms += 50) {
		if (lstat(path, &st) == 0 && (S_ISSOCK(st.st_mode) || S_ISLNK(st.st_mode)))
			return EXIT_OK;
		usleep(50000);
	}
	return say(j, EXIT_NO_VFUND, "nobody made %s within %d s: is vfund running, and connected with this libvirt?",
	    path, SOCKET_WAIT_MS / 1000);
}

static int
set_element(const struct job *j, const struct xml_element *e, unsigned where)
{
	char *text = e ? xml_element_text(e) : NULL;
	int r = j->v.DomainSetMetadata(j->domain, VIRT_METADATA_ELEMENT, text, e ? "vfun" : NULL, VIRTD_URN, where);

	xml_text_free(text);
	return r < 0 ? say_libvirt(j) : EXIT_OK;
}

static int
plug(const struct job *j, char *device)
{
	int r = !device ? say(j, EXIT_SYSTEM, "out of memory")
		: j->v.DomainAttachDeviceFlags(j->domain, device, VIRT_AFFECT_LIVE) < 0 ? say_libvirt(j)
											: EXIT_OK;

	xml_text_free(device);
	return r;
}

/* The link's process: makes it, says whether it could, and takes it away again when it is told to. If the one who asked
 * for it dies before that, libvirtd goes on with what it was asked for, and needs the link for some more seconds: QEMU
 * would make a file of that name. */
static _Noreturn void
keep_link(int sock, const char *memory, const char *link)
{
	char end;
	int told;
	int r;

	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	r = symlink(memory, link) < 0 ? errno : 0;
	told = write(sock, &r, sizeof(r)) == (ssize_t)sizeof(r);
	if (told && read(sock, &end, 1) == 0)
		sleep(LINGER_S);
	if (!r)
		(void)unlink(link);
	_exit(EXIT_OK);
}

struct keeper {
	pid_t pid;
	int sock;
};

/* The link is there from now on. 0 or an errno. */
static int
lend_link(struct keeper *k, const char *memory, const char *link)
{
	int pair[2];
	int r = 0;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return errno;
	k->pid = fork();
	if (!k->pid) {
		close(pair[0]);
		keep_link(pair[1], memory, link);
	}
	if (k->pid < 0)
		r = errno;
	close(pair[1]);
	k->sock = pair[0];
	if (!r && read(k->sock, &r, sizeof(r)) != (ssize_t)sizeof(r))
		r = EIO;
	return r;
}

/* And is gone when this returns. */
static void
return_link(const struct keeper *k)
{
	if (k->sock >= 0) {
		(void)send(k->sock, "", 1, MSG_NOSIGNAL);
		close(k->sock);
	}
	if (k->pid > 0)
		(void)waitpid(k->pid, NULL, 0);
}

static int
plug_memory(const struct job *j, const struct side *s)
{
	char memory[PATH_MAX];
	char link[64];
	struct keeper keeper = { 0, -1 };
	int r;

	if (s->element.path != VIRTD_IVSHMEM)
		return EXIT_OK;
	(void)xml_file(memory, sizeof(memory), j->ask->run, j->uuid, "ivshmem");
	snprintf(link, sizeof(link), "/dev/shm/" XML_SHMEM_PREFIX "%s", j->uuid);
	r = wait_for(j, memory);
	if (r)
		return r;
	r = lend_link(&keeper, memory, link);
	if (r)
		r = say(j, EXIT_SYSTEM, "can't make %s for as long as the device is plugged: %s", link, strerror(r));
	else
		r = plug(j, xml_shmem(j->uuid, s->element.ivshmem, s->facts.kind == XML_Q35 ? s->facts.port : 0));
	return_link(&keeper);
	return r;
}

static void
unplug_memory(const struct job *j, const struct side *s)
{
	char *device = s->element.path == VIRTD_IVSHMEM ? xml_shmem(j->uuid, s->element.ivshmem, 0) : NULL;

	if (device)
		j->v.DomainDetachDeviceFlags(j->domain, device, VIRT_AFFECT_LIVE);
	xml_text_free(device);
}

static int
attach_live(const struct job *j, struct side *s)
{
	char socket[PATH_MAX];
	int r;

	s->element.ivshmem = s->element.path == VIRTD_IVSHMEM ? ivshmem_size(j->ask) : 0;
	r = set_element(j, &s->element, VIRT_AFFECT_LIVE);
	if (r)
		return r;
	/* It has been checked that the name isn't too long. */
	(void)xml_file(socket, sizeof(socket), j->ask->run, j->uuid, "share.sock");
	r = wait_for(j, socket);
	if (!r)
		r = plug_memory(j, s);
	if (!r) {
		r = plug(j, xml_device(socket));
		if (r)
			unplug_memory(j, s);
	}
	if (r)
		set_element(j, NULL, VIRT_AFFECT_LIVE);
	return r;
}

static int
attach_config(const struct job *j, struct side *s)
{
	char *before = xml_text(s->doc);
	char *after = NULL;
	struct virt_domain *d;
	int r = EXIT_OK;

	s->element.ivshmem = s->element.path == VIRTD_IVSHMEM ? ivshmem_size(j->ask) : 0;
	if (!s->facts.shared)
		xml_share_memory(s->doc, &s->facts, &s->element);
	if (xml_attach(s->doc, &s->facts, &s->element, j->ask->run))
		r = say(j, EXIT_USAGE, RUN_TOO_LONG);
	else
		after = xml_text(s->doc);
	if (after && before && j->ask->fix)
		diff_show(before, after);
	if (after) {
		d = j->v.DomainDefineXML(j->conn, after);
		r = d ? EXIT_OK : say_libvirt(j);
		if (d)
			j->v.DomainFree(d);
	}
	xml_text_free(before);
	xml_text_free(after);
	return r;
}

static void
report(const struct job *j, const struct side *s)
{
	printf("%s: attached to the %s, path %s%s%s\n", j->ask->domain, side_name(s), xml_path_name(s->element.path),
	    s->element.functions[0] ? ", functions " : ", all functions that vfun.conf allows", s->element.functions);
	if (s->where == DOMAIN_CONFIG && j->v.DomainIsActive(j->domain) == 1)
		printf("it has it when it is shut down and started the next time\n");
	if (s->element.path == VIRTD_DAX)
		printf("QEMU ends if the guest is reset while it has an instance mapped that was there in a pause: see "
		       "vfun-share(8)\n");
}

static void
report_guest(const struct job *j)
{
	if (!j->ask->unit) {
		printf("in the guest: mkdir -p /run/vfun && mount -t virtiofs " QEMU_TAG " /run/vfun\n");
		return;
	}
	printf("# in the guest: /etc/systemd/system/run-vfun.mount, then systemctl enable --now run-vfun.mount\n"
	       "[Unit]\nDescription=vfun: functions of the host\n\n"
	       "[Mount]\nWhat=" QEMU_TAG "\nWhere=/run/vfun\nType=virtiofs\n\n"
	       "[Install]\nWantedBy=multi-user.target\n");
}

int
domain_attach(struct job *j)
{
	struct side live = { 0 };
	struct side config = { 0 };
	int r = check_domain(j);

	if (!r && (j->ask->where & DOMAIN_LIVE))
		r = open_side(j, &live, DOMAIN_LIVE);
	if (!r && (j->ask->where & DOMAIN_CONFIG))
		r = open_side(j, &config, DOMAIN_CONFIG);
	if (!r && config.doc)
		r = check_side(j, &config);
	if (!r && live.doc)
		r = check_side(j, &live);
	if (!r && live.doc)
		r = attach_live(j, &live);
	if (!r && live.doc)
		report(j, &live);
	if (!r && config.doc)
		r = attach_config(j, &config);
	if (!r && config.doc)
		report(j, &config);
	if (!r)
		report_guest(j);
	xml_free(live.doc);
	xml_free(config.doc);
	return r;
}
