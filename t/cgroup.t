#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# cgroup.t - where a cgroup is delegated, services are limited by it and nothing of it is left; elsewhere the log says why
#
# A guest is a system with all controllers of cgroup v2, and nobody else in it: t/lib/cgroup.sh is what happens there.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Vfun;

requires('qemu', 'kernel', 'tree');

# Here: whatever this machine has, one line says which limits there are, or why there are none.
my $d = Vfun->new;
ok($d->up, 'vfund starts') or BAIL_OUT('no vfund');
wait_until(5, sub { $d->log =~ /cgroup/ });    # the sockets are there before
my @lines = grep { /cgroup/ } split /\n/, $d->log;
is(scalar @lines, 1, 'one line of log about cgroups');
like($lines[0], qr{: services have (?:limits by cgroup in /sys/fs/cgroup\S*:(?: (?:cpu|memory|pids))+|no limits by cgroup, only rlimits: \S.*)}, "$lines[0]");
is(vfun('call', '--run', $d->{run}, 'factorial', 5)->{out}, "120\n", 'and functions are computed');
is_deeply([$d->down], [], 'vfund stops and leaves nothing');
is_deeply([map { glob "$_/vfund-*" } '/sys/fs/cgroup', '/sys/fs/cgroup/unified'], [], 'nor a cgroup');

my $r = run(['gcc', qw(-O1 -std=gnu11 -D_GNU_SOURCE -static -o), tmp('cg'), 't/lib/cg.c']);
is($r->{status}, 0, 'a program for the guest') or diag($r->{err});
spew(tmp('vfun.conf'), "[function factorial]\nslots = 256\ncpu = 20\noverhead = 48M\n[function zstd]\ncpu = 30\nworkers = 2\n[host]\nfunctions = factorial zstd\n");
spew(tmp('passwd'), "root:x:0:0::/:\nnobody:x:65534:65534::/:\n");
$r = run([$VFUN, 'vm', guest_args('tree'), '--path', 'none', '--timeout', 200, '--memory', '768M', '--add', guest_client() . ':/bin/client', '--add', guest_client('ending') . ':/bin/ending',
	'--add', tmp('cg') . ':/bin/cg', '--add', '/bin/busybox:/bin/busybox', '--add', tmp('vfun.conf'), '--add', 't/lib/cgroup.sh',
	'--add', tmp('passwd') . ':/etc/passwd', '--', 'busybox', 'sh', '/cgroup.sh'], timeout => 220);
is($r->{status}, 0, 'a guest') or diag($r->{out}, $r->{err});
my %part = $r->{out} =~ /^== (\w+)\n(.*?)(?=^== |\z)/msg;
ok(exists $part{END}, 'comes to the end') or do { diag($r->{out}); done_testing(); exit };

# 4096 + 4096 + 4096 for each region, a result's room twice, and what vfun.conf allows beyond that
my $memory = 2 * 3 * 4096 + 2 * 4096 + (48 << 20);
my $limits = qr/^pids\.max 1\nmemory\.max $memory\ncpu\.max 20000 100000\npids\.current 1\nin it: vfun-service$/m;
sub part {
	my ($name, $text, $what) = @_;
	like($part{$name}, $text, "$name: $what") or diag($part{$name});
	return;
}
part('ROOT', qr{: services have limits by cgroup in /sys/fs/cgroup: cpu memory pids$}m, 'said at the start');
part('ROOT', $limits, "a service's limits, and its pid");
part('ROOT', qr/^shmem 24576$/m, 'its regions count as its own');
part('ROOT', qr{^engine: 0::/vfund-[0-9a-f]{16}$}m, 'the engine is elsewhere');
part('ROOT', qr/^155111875\d+\n2\ncpu memory pids\n\z/m, 'the group of an instance goes with it');
part('PIDS', qr/^EAGAIN$/m, 'no second process');
part('CPU', qr/^nr_throttled [1-9]/m, 'a fifth of a processor, and no more');
part('MEMORY', qr/^status 137\noom_kill 1\n/m, 'who takes more is killed');
part('MEMORY', qr/^ok instance/m, 'the service is not, which takes less');
part('OOM', qr/warning: instance \d+ .*: the service of factorial ended: it took more memory than its cgroup may$/m, 'a service that does is, with a line of log');
part('OOM', qr/^1\ncpu memory pids\n\z/m, 'its group is gone');
part('ENDING', qr/^status 0\nready \d+\nok 16 calls\n\z/m, 'what it had answered before is read by its client');
part('WORKERS', qr/^pids\.max 2\n.*^cpu\.max 60000 100000\n.*^in it: vfun-service$/ms, 'a service with two workers: as much for each');
part('KILLED', qr/^2\ncpu memory pids\n.*^1\ncpu memory pids\n\z/ms, 'what a killed vfund left is removed by the next');
part('TERM', qr/^status 0\n0\n\z/m, 'nothing is left, nor a controller handed on');
part('PARTIAL', qr{: services have limits by cgroup in /sys/fs/cgroup/part: pids; not available there: cpu memory$}m, 'pids only: said');
part('PARTIAL', qr/warning: \[function factorial\]: its cpu limit can't be kept here$/m, 'as is what vfun.conf wants and does not get');
part('PARTIAL', qr/^pids\.max 1\npids\.current 1\nin it: vfun-service$/m, 'applied');
part('PARTIAL', qr/^status 0\n0\n\z/m, 'nothing is left');
part('BUSY', qr{only rlimits: /sys/fs/cgroup/part: .*other processes are in it$}m, 'other processes in the cgroup: said');
part('BUSY', qr/^120\n.*^status 0\n0\n\z/ms, 'it works without limits, and leaves nothing');
part('USER', qr{: services have limits by cgroup in /sys/fs/cgroup/user: cpu memory pids\n.*ready: user mode}, "a user's own cgroup");
part('USER', $limits, 'limits in user mode');
part('USER', qr/^status 0\n0\n\z/m, 'nothing is left');
part('FOREIGN', qr{only rlimits: /sys/fs/cgroup/root: Permission denied$}m, "root's cgroup, for a user: said");
part('FOREIGN', qr/^status 0\n0\n\z/m, 'nothing is left');
part('SYSTEMD', qr{only rlimits: /sys/fs/cgroup/root: systemd doesn't delegate it: set Delegate=yes}, 'where systemd runs, without its mark: said');
part('SYSTEMD', qr{: services have limits by cgroup in /sys/fs/cgroup/root: cpu memory pids$}m, 'with its mark: limits');
part('MANAGER', qr{: services have limits by cgroup in /sys/fs/cgroup/user: cpu memory pids$}m, "a user's own cgroup, without a mark: limits");
part('MANAGER', qr/$limits.*^status 0\n0\n\z/ms, 'which are applied, and nothing is left');
part('SYSTEMD', qr/$limits.*^status 0\n0\n\z/ms, 'which are applied, and nothing is left');
done_testing();
