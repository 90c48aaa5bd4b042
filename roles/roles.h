/* SPDX-License-Identifier: MIT
 *
 * roles.h - the roles of the one executable; vfun.c's table calls them
 *
 * Each is a main(): argv[0] is the role's name, the rest its arguments; returns the exit status.
 */
#ifndef ROLES_H
#define ROLES_H

#define VFUN_RELEASE "0.1"

/* Exit statuses of every role, as the man pages have them. */
enum vfun_exit {
	EXIT_OK = 0,
	EXIT_FUNCTION = 1,   /* the function failed, or refused its arguments */
	EXIT_USAGE = 2,	     /* the command line */
	EXIT_REFUSED = 3,    /* nack */
	EXIT_NO_VFUND = 4,   /* no vfund, or no share, where it was looked for */
	EXIT_TIMEOUT = 5,    /* no answer in time */
	EXIT_NO_PATH = 6,    /* the data path asked for is not to be had */
	EXIT_LOST = 7,	     /* vfund, the share or the service went away under way */
	EXIT_SYSTEM = 8,     /* this system: memory, files, a full disk */
	EXIT_NO_LIBVIRT = 9, /* no libvirt on this host, no answer from it, or no permission */
};

int role_daemon(int argc, char **argv);
int role_engine(int argc, char **argv);
int role_service(int argc, char **argv);
int role_share(int argc, char **argv);
int role_net(int argc, char **argv);
int role_hold(int argc, char **argv);
int role_call(int argc, char **argv);
int role_list(int argc, char **argv);
int role_status(int argc, char **argv);
int role_release(int argc, char **argv);
int role_reload(int argc, char **argv);
int role_bench(int argc, char **argv);
int role_domain(int argc, char **argv);
int role_vm(int argc, char **argv);
int role_init(int argc, char **argv);

#endif
