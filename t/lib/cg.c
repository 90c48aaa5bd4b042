/* SPDX-License-Identifier: MIT
 *
 * cg.c - for t/cgroup.t: a process in a cgroup
 *
 *   cg in FOLDER UID COMMAND...   go into this cgroup, become this user, execute the command
 *   cg eat MEGABYTES              use so much memory
 *   cg fork                       say what a fork() is answered
 *   cg mark FOLDER                mark a cgroup as systemd marks delegated ones
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

static int
go(const char *folder, int uid, char **argv)
{
	char path[300];
	int fd;

	snprintf(path, sizeof(path), "%s/cgroup.procs", folder);
	fd = open(path, O_WRONLY);
	if (fd < 0 || write(fd, "0", 1) != 1 || close(fd) || setgid((gid_t)uid) || setuid((uid_t)uid)) {
		perror(path);
		return 1;
	}
	execvp(argv[0], argv);
	perror(argv[0]);
	return 1;
}

int
main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	if (!strcmp(what, "in") && argc > 4)
		return go(argv[2], atoi(argv[3]), argv + 4);
	if (!strcmp(what, "eat") && argc == 3) {
		size_t n = strtoul(argv[2], NULL, 10) << 20;
		void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

		memset(p, 1, n);
		puts("eaten");
		return 0;
	}
	if (!strcmp(what, "fork")) {
		pid_t pid = fork();

		if (pid == 0)
			_exit(0);
		puts(pid < 0 ? strerrorname_np(errno) : "forked");
		return 0;
	}
	if (!strcmp(what, "mark") && argc == 3)
		return setxattr(argv[2], "user.delegate", "1", 1, 0) ? perror(argv[2]), 1 : 0;
	return 2;
}
