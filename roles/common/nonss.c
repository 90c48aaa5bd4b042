/* SPDX-License-Identifier: MIT
 *
 * nonss.c - no name service in a static executable
 *
 * libcap-ng has one object file, in which capng_change_id() refers to getpwuid() and initgroups(). vfun never calls it,
 * but the linker would bring in glibc's name service switch, which loads shared modules at run time and crashes in a
 * static program of another glibc version, and is 200 KB long. These take their place; nobody calls them.
 */
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stddef.h>

struct passwd *
getpwuid(uid_t uid)
{
	(void)uid;
	errno = ENOENT;
	return NULL;
}

int
initgroups(const char *user, gid_t group)
{
	(void)user;
	(void)group;
	errno = ENOSYS;
	return -1;
}
