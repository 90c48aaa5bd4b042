#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# confine.t - each confined process can do what its printed list says, and nothing else
use strict;
use warnings;
use lib 't/lib';
use IO::Socket::UNIX;
use Test::More;
use Vfun;

# The printed lists, and how long they may be.
my %max = (service => 12, share => 30, engine => 30, net => 22, hold => 2);
for my $role (sort keys %max) {
	my $r = vfun($role, '--print-syscalls');
	is($r->{status}, 0, "$role --print-syscalls");
	my ($n) = $r->{out} =~ /serving: (\d+)\n/;
	cmp_ok($n, '<=', $max{$role}, "$n system calls while serving");
	is(scalar(() = $r->{out} =~ /^  \w+ +\S.*$/mg), eval { my $sum = 0; $sum += $1 while $r->{out} =~ /: (\d+)\n/g; $sum },
		'each with its reason');
}
my $service = vfun('service', '--print-syscalls')->{out};
is(scalar(() = $service =~ /^  sched_yield /mg), 2, 'a service may give its processor away, in both stages');
is(vfun('service', '--print-syscalls', 'nosuch')->{status}, 2, 'no such backend');

# Where an argument matters, it is restricted; and what could not be restricted usefully isn't there at all.
my %argument = (
	service => [qw(futex:2 write:1 mmap:3 mprotect:3 madvise:3 sendmsg:1 prctl:1 seccomp:1)],
	share => [qw(futex:2 ioctl:2 mmap:3 recvmsg:3 sendmsg:3 newfstatat:4)],
	engine => [qw(openat:3 recvmsg:3 recvfrom:4 sendmsg:3 getsockopt:3)],
	net => [qw(futex:2 mmap:3 recvmsg:3 recvfrom:4 sendmsg:3 newfstatat:4)]);
for my $role (sort keys %argument) {
	my $list = vfun($role, '--print-syscalls')->{out};
	for (@{ $argument{$role} }) {
		my ($call, $n) = split /:/;
		like($list, qr/^  $call +\S.*; argument $n(?: only|:) /m, "$role: argument $n of $call is restricted");
		unlike($list, qr/^  $call (?!.*; argument )/m, 'wherever it is listed');
	}
	unlike($list, qr/^  ioctl (?!.*; argument 2 only 0x5411$)/m, "$role: no ioctl, or a harmless one");
	unlike($list, qr/^  (?:fcntl|open|socket\w*|clone3?|fork|execve\w*|ptrace|process_\w+|io_uring\w*|bpf|kill|tgkill|sendto) /m,
		"$role: none of the calls that open other doors");
}

SKIP: {
	skip 'a sanitizer adds to the lists and takes a limit away: the other build is tried', $> == 0 ? 24 : 23 if $SANITIZE;

	# Every number tried from inside.
	my @objects = grep { -e } map { "$BUILD/obj/" . s/c$/o/r } glob '{proto,backends,backends/*,roles,roles/*}/*.c';
	my @cc = (qw(gcc -O1 -std=gnu11 -D_GNU_SOURCE -fPIE -static-pie), '-Wl,--gc-sections');
	my @libs = qw(-linih -lseccomp -lcap-ng -lnettle -lzstd -lgmp);
	for my $case (
		['service', 'roles/service/service.c', 'calls_serving', '-DSETUP_LIST=calls_setup'],
		['service xrt', 'roles/service/service.c', 'calls_serving', '-DSETUP_LIST=calls_setup', '-DBACKEND=backend_xrt'],
		['service xrt-emulated', 'roles/service/service.c', 'calls_serving', '-DSETUP_LIST=calls_setup', '-DBACKEND=backend_xrt_emulated'],
		['share', 'roles/share/share.c', 'calls'],
		['engine', 'roles/daemon/engine.c', 'calls'],
		['net', 'roles/net/net.c', 'calls'])
	{
		my ($role, $file, $list, @more) = @$case;
		(my $object = "$BUILD/obj/$file") =~ s/c$/o/;
		my $r = run([@cc, "-DROLE_FILE=\"../../$file\"", "-DSERVING_LIST=$list", @more, '-o', tmp($role =~ s/ /-/gr), 't/lib/trysys.c',
			(grep { $_ ne $object } @objects), @libs]);
		is($r->{status}, 0, "$role: compiled for the trial") or diag($r->{err});
		$r = run([tmp($role =~ s/ /-/gr)], timeout => 240);
		is($r->{status}, 0, "$role: every system call number: what is listed returns, everything else is killed") or diag($r->{out});
		my ($name, @backend) = split / /, $role;
		my ($serving) = vfun($name, '--print-syscalls', @backend)->{out} =~ /serving: \d+\n(.*)/s;
		my %listed = map { $_ => 1 } $serving =~ /^  (\w+) /mg;
		my $listed = keys %listed;
		like($r->{out}, qr/^ok serving $listed \d{3}, arguments \d+ \d{3,}$/m, "$role: $listed return, of arguments those that are listed");
		like($r->{out}, qr/^ok setup \d+ \d{3}, arguments \d+ \d{3,}$/m, 'also while setting up') if @more;
	}

	# Without the filter: the other stages
	is(run([@cc, '-o', tmp('inside'), 't/lib/inside.c', "$BUILD/obj/roles/common/sandbox.o", "$BUILD/obj/roles/common/fd.o", "$BUILD/obj/roles/common/log.o",
		"$BUILD/obj/roles/common/trusted.o", "$BUILD/obj/roles/common/nonss.o", "$BUILD/obj/proto/plain.o", @libs])->{status}, 0, 'a program that confines itself');
	chmod 0755, tmp('inside');
	my $ok = qr/^landlock \d+\nok\n\z/;
	mkdir tmp('own');
	chmod 0777, tmp('own');
	like(run([tmp('inside'), 2000000007, tmp('own')])->{out}, $ok, 'gets nowhere in system mode') if $> == 0;
	my $r = run([tmp('inside'), 0, tmp('own')], $> == 0 ? (as => [65534, 65534]) : ());
	like($r->{out}, $ok, 'gets nowhere in user mode');
	note($r->{out} =~ s/\n.*//sr);
}

# A stage that can't be set up: everything is refused, with its name; unless vfun.conf names it. Without user namespaces,
# as on some hosts, an ordinary user's process can have neither namespaces nor a root of its own.
SKIP: {
	skip 'needs root to make such a place', 10 if $> != 0;
	my $dir = tmp('w');
	mkdir "$dir";
	mkdir "$dir/root";
	chmod 0777, $dir;
	run(['cp', $VFUN, "$dir/vfun"]);
	# Who is in a chroot gets no user namespace.
	my @without = ('unshare', '-m', 'sh', '-c', "mount --rbind / '$dir/root' && exec chroot '$dir/root' setpriv --reuid 65534 --regid 65534 --clear-groups \"\$0\" \"\$@\"");
	isnt(run([@without, 'unshare', '-U', 'true'])->{status}, 0, 'a place without user namespaces');
	my $conf = slurp('vfun.conf');
	my $r = run([@without, "$dir/vfun", 'daemon', '-c', spew("$dir/strict.conf", $conf), '--run', "$dir/r"], timeout => 20);
	is($r->{status}, 8, 'vfund does not start there');
	like($r->{err}, qr/stage pid-namespace can't be set up: Operation not permitted \(.*user namespaces/, 'and names the stage')
	    or diag($r->{err});
	ok(!-e "$dir/r", 'and leaves nothing');
	$conf =~ s/^\[vfund\]\n/[vfund]\noptional-stages = pid-namespace namespaces bounding-set root\n/m;
	my $job = start([@without, "$dir/vfun", 'daemon', '-c', spew("$dir/lax.conf", $conf), '--run', "$dir/r"], log => tmp('lax.log'));
	ok(wait_until(10, sub { -S "$dir/r/control" }), 'with these stages called optional it does') or diag(slurp(tmp('lax.log')));
	is(run(["$dir/vfun", 'call', '--run', "$dir/r", 'factorial', 5], as => [65534, 65534])->{out}, "120\n", 'and serves');
	like(slurp(tmp('lax.log')), qr/stage $_ can't be set up: .*; vfun\.conf calls it optional/, "warning of stage $_")
		for qw(pid-namespace namespaces root);
	kill 'TERM', (grep { $_->[1] =~ /^(?:vfun|vfund)$/ } descendants())[0][0];
	is(finish($job, 10)->{status}, 0, 'it stops');
}

# Without namespaces no root either: pulling away the one that is there would take this machine's mounts from everybody.
SKIP: {
	skip 'needs root to make such a place', 9 if $> != 0;
	my @place = ('perl', 't/lib/mounts.pl', tmp('mounts'));
	my $conf = slurp('vfun.conf') =~ s/^\[vfund\]\n/[vfund]\noptional-stages = namespaces\n/mr;
	my $r = run([@place, $VFUN, 'daemon', '-c', spew(tmp('n.conf'), $conf), '--run', tmp('n')], timeout => 20);
	is($r->{status}, 8, 'namespaces optional, root not, and no namespaces to be had: vfund does not start');
	like($r->{err}, qr/the engine can't be confined: root: /, 'and names the stage') or diag($r->{err});
	ok(slurp(tmp('mounts.after')), 'mounts are there');
	is(slurp(tmp('mounts.after')), slurp(tmp('mounts.before')), 'and as they were');
	$conf =~ s/(optional-stages = namespaces)/$1 root/;
	unlink tmp('mounts.after');
	my $job = start([@place, $VFUN, 'daemon', '-c', spew(tmp('n.conf'), $conf), '--run', tmp('n')], log => tmp('n.log'));
	ok(wait_until(10, sub { -S tmp('n/control') }), 'with both optional it does') or diag(slurp(tmp('n.log')));
	is(vfun('call', '--run', tmp('n'), 'factorial', 5)->{out}, "120\n", 'and serves');
	like(slurp(tmp('n.log')), qr/stage root can't be set up: .*; vfun\.conf calls it optional/, 'with a warning');
	kill 'TERM', (grep { $_->[1] eq 'vfun' } descendants())[0][0];
	is(finish($job, 10)->{status}, 0, 'it stops');
	is(slurp(tmp('mounts.after')), slurp(tmp('mounts.before')), 'the mounts are as they were');
}
my $r = vfun('daemon', '-n', '-c', spew(tmp('o.conf'), slurp('vfun.conf') . "\n[vfund]\noptional-stages = landlock nosuch\n"));
like($r->{err}, qr/no stage 'nosuch'/, 'a stage that does not exist');

# The living processes
my $key = spew(tmp('lab.key'), 'lab ' . '5e' x 32);
chmod 0600, $key;
my $d = Vfun->new(conf => slurp('vfun.conf') . "\n[net]\nlisten = 127.0.0.1:17448\n[net-client lab]\nkey-file = $key\n", stdin => "a secret\n");
ok($d->up, 'vfund starts') or BAIL_OUT('no vfund');
$ENV{VFUN_RUN_DIR} = $d->{run};
my $held = start([client(), 'hold', 'zstd', 'host']);
ok(wait_until(10, sub { slurp($held->{out}) =~ /^ok/ }), 'an instance is held');
my $front = IO::Socket::UNIX->new(Peer => "$d->{run}/vmcli/demo/share.sock");
ok($front && wait_until(10, sub { $d->log =~ /VM demo is connected/ }), 'something like a QEMU is connected');
for my $name ('vfun-service', 'vfun-engine', 'vfun-net', 'vfun-share') {
	my ($p) = grep { $_->[1] eq $name } descendants();
	my $status = slurp("/proc/$p->[0]/status");
	like($status, qr/^Cap$_:\t0{16}$/m, "$name: $_ empty") for qw(Inh Prm Eff Bnd Amb);
	like($status, qr/^NoNewPrivs:\t1$/m, 'no new privileges');
	like($status, qr/^Seccomp:\t2$/m, 'filtered');
	like($status, qr/^Threads:\t1$/m, 'one thread');
	like($status, qr/^Groups:\t\s*$/m, 'no further groups') if $> == 0;
	unlike($status, qr/^Uid:\t0\t/m, 'not root') if $> == 0;
	like(slurp("/proc/$p->[0]/limits"), qr/^Max core file size +0 +0 /m, 'no core file');
	is((stat "/proc/$p->[0]/status")[4], 0, "not dumpable: its /proc is root's") if $> == 0;
	like(slurp("/proc/$p->[0]/limits"), qr/^Max data size +134217728 +134217728 /m, 'bounded memory of its own') if !$SANITIZE && $name ne 'vfun-service';
	for my $ns (qw(mnt net pid ipc uts cgroup)) {
		isnt(readlink("/proc/$p->[0]/ns/$ns"), readlink("/proc/self/ns/$ns"), "its own $ns namespace");
	}
	is_deeply([glob "/proc/$p->[0]/root/*"], [], 'an empty root');
	like(slurp("/proc/$p->[0]/mountinfo"), qr/^\d+ \d+ \S+ \S+ \/ ro,[^\n]* - tmpfs [^\n]*\n\z/, 'which is a read-only tmpfs, the only mount');
	my @fds = map { readlink } glob "/proc/$p->[0]/fd/*";
	is_deeply([grep { !m{^(?:socket:|anon_inode:|/memfd:|/dev/null|/\z|/tmp/vt-\w+/\w+\.log)} } @fds], [],
		'descriptors: none but its own') or diag("@fds");
	is(readlink "/proc/$p->[0]/fd/$_", '/dev/null', "nothing of vfund's at descriptor $_") for 0, 1;
	cmp_ok(scalar @fds, '<=', $name eq 'vfun-service' ? 5 : 16, scalar(@fds) . ' of them');
}
my ($launcher) = $d->{job}{pid};
like(slurp("/proc/$launcher/status"), qr/^CapPrm:\t00000000002001e2\nCapEff:\t00000000002001e2\nCapBnd:\t00000000002001e2$/m,
	'the launcher keeps six capabilities') if $> == 0;
kill 'KILL', $held->{pid};
finish($held, 5);
is_deeply([$d->down], [], 'vfund stops and leaves nothing');

# Without Landlock: it says so, and the engine's folder still is all that it reaches.
$d = Vfun->new(wrap => [client('linger'), 'bare']);
ok($d->up, 'vfund starts without Landlock') or diag($d->log);
is(run([$VFUN, 'call', '--run', $d->{run}, 'factorial', 5])->{out}, "120\n", 'and serves');
like($d->log, qr/no Landlock/, 'and says that it is missing');
my ($engine) = grep { $_->[1] eq 'vfun-engine' } descendants();
is_deeply([grep { /service/ } map { readlink } glob "/proc/$engine->[0]/fd/*"], [], "the engine's folder is a mount without a path");
is_deeply([$d->down], [], 'it stops');
done_testing();
