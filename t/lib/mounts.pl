# SPDX-License-Identifier: MIT
#
# mounts.pl - run a command as root where it can't harm this machine's mounts
#
#	perl t/lib/mounts.pl FILE COMMAND...
#
# In new user and mount namespaces, in which each uid is itself, and in which no network namespace can be made. The mounts
# there are listed in FILE.before and FILE.after.
use strict;
use warnings;

my $file = shift;
pipe(my $mapped, my $map) && pipe(my $made, my $make) or die;
my $pid = fork // die;
if (!$pid) {
	close $map;
	syscall(272, 0x10020000) == 0 or die "unshare: $!";    # CLONE_NEWUSER | CLONE_NEWNS on x86-64
	syswrite $make, 'x';
	sysread $mapped, my $x, 1;
	exec 'sh', '-c', 'echo 0 >/proc/sys/user/max_net_namespaces && cat /proc/self/mountinfo >"$0.before" && "$@"; s=$?
		cat /proc/self/mountinfo >"$0.after"; exit $s', $file, @ARGV;
}
sysread $made, my $x, 1;
for my $ids ("/proc/$pid/uid_map", "/proc/$pid/gid_map") {
	open my $f, '>', $ids or die "$ids: $!";
	syswrite $f, '0 0 4294967295' or die "$ids: $!";
}
close $map;
waitpid $pid, 0;
exit $? >> 8;
