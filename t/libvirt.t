#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# libvirt.t - vfund follows libvirt's domains: a domain with an element of vfun's is a VM, for as long as it has that
use strict;
use warnings;
use lib 't/lib';
use IO::Socket::UNIX;
use Socket qw(SOCK_DGRAM);
use Test::More;
use Vfun;
use Virt;

requires('root', 'tree', 'libvirt');

my $virt = Virt->new;
ok($virt->up, 'libvirtd') or BAIL_OUT($virt->log);
my %uuid = (web => '11111111-aaaa-bbbb-cccc-000000000001', 'odd name!' => '22222222-aaaa-bbbb-cccc-000000000002');
my $shared = "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>";

sub element { my (%a) = @_; return '<metadata><vfun:vfun xmlns:vfun="urn:vfun:domain:1" ' . join(' ', map { "$_='$a{$_}'" } sort keys %a) . '/></metadata>'; }

sub define {
	my ($name, $metadata) = @_;
	my $xml = spew(tmp('domain.xml'), <<"END");
<domain type='qemu'><name>$name</name><uuid>$uuid{$name}</uuid><memory unit='MiB'>256</memory>$shared$metadata
<os><type arch='x86_64' machine='q35'>hvm</type></os></domain>
END
	return $virt->virsh('define', $xml);
}

my $conf = slurp('vfun.conf') . "\n[libvirt]\nconnect = " . $virt->uri . "\nfunctions = factorial sha256\ninstances = 4\nmemory = 64M\n";
like(run([in_tree(undef, vfun_here(), 'daemon', '-n', '-c', spew(tmp('n.conf'), $conf =~ s/^connect = .*/connect = nonsense/mr))])->{err},
	qr/connect: 'nonsense' is not libvirt's URI/, 'a URI that is none');
is(define('web', element(functions => 'factorial', instances => 2))->{status}, 0, 'a domain that is there before vfund');
my $d = Vfun->new(conf => $conf, tree => 1);
my @state = ('--state', tmp('state/vfun'));
ok($d->up(@state), 'vfund') or BAIL_OUT($d->log);
my $sock = sub { "$d->{run}/vmcli/$uuid{$_[0]}/share.sock" };
ok(wait_until(20, sub { -S $sock->('web') }), 'its socket is there, by its uuid') or diag($d->log, $virt->log);
like($d->log, qr/domain web, $uuid{web}: 1 functions, 2 instances, 67108864 bytes/, 'as its element says, and [libvirt] allows');
my ($watcher) = grep { slurp("/proc/$_->[0]/cmdline") =~ /libvirt-watch/ } descendants();
like(slurp("/proc/$watcher->[0]/status"), qr/^Uid:\t65534\t65534.*^NoNewPrivs:\t1\nSeccomp:\t2$/ms, 'the watcher is nobody, and filtered');
like(slurp("/proc/$watcher->[0]/status"), qr/^Cap$_:\t0{16}$/m, "its $_ is empty") for qw(Inh Prm Eff Bnd Amb);
isnt(readlink("/proc/$watcher->[0]/ns/$_"), readlink("/proc/self/ns/$_"), "its own $_ namespace") for qw(mnt net pid ipc uts cgroup);
is_deeply([grep { !m{/root/(?:etc|lib|lib64|usr|var|tmp)$} } glob "/proc/$watcher->[0]/root/*"], [], 'its root holds libraries, and the folder of the socket');
is_deeply([grep { $_ ne 'etc/selinux' } map { s{^/proc/\d+/root/}{}r } glob "/proc/$watcher->[0]/root/{etc,tmp/*}/*"],
	['etc/ld.so.cache', 'etc/nsswitch.conf', 'etc/passwd', $virt->{dir} =~ s{^/}{}r], 'and nothing else');

# What any process of nobody could do: take its socket, and say what it likes
is((stat "/proc/$watcher->[0]/mem")[4], 0, 'it is not dumpable');
my $thief = run(['perl', '-e', '$p = syscall(434, $ARGV[0] + 0, 0); print syscall(438, $p, 3, 0), " ", $!{EPERM} ? "EPERM" : $!, "\n"', $watcher->[0]], as => [65534, 65534]);
is($thief->{out}, "-1 EPERM\n", 'nobody takes its socket');

# It comes, changes, is renamed, goes
is(define('odd name!', element(functions => 'factorial zstd nosuch', instances => 100, memory => '1G'))->{status}, 0, 'another, defined later');
ok(wait_until(10, sub { -S $sock->('odd name!') }), 'its socket');
like($d->log, qr/domain odd_name_, \S+: 1 functions, 4 instances, 67108864 bytes/, 'not more than [libvirt] allows; a name that clients may have');
like($d->log, qr/vfun\.conf doesn't have function $_$/m, "$_ is not offered") for qw(zstd nosuch);
define('odd name!', element(functions => 'factorial sha256'));
ok(wait_until(10, sub { $d->log =~ /domain odd_name_, \S+: 2 functions/ }), 'its element changes');
my $qemu = IO::Socket::UNIX->new(Peer => $sock->('odd name!'));
ok($qemu && wait_until(10, sub { $d->log =~ /VM odd_name_: a QEMU connects/ }), 'something like its QEMU is connected');
define('odd name!', element(path => 'ivshmem', ivshmem => '64M', memory => '40M'));
ok(wait_until(10, sub { $d->log =~ /domain odd_name_, \S+: 2 functions, 4 instances, 41943040 bytes/ }), 'its element changes meanwhile');
ok(!-l "$d->{run}/vmcli/$uuid{'odd name!'}/ivshmem", 'memory that QEMU did not find when it started is not made');
close $qemu;
ok(wait_until(10, sub { -l "$d->{run}/vmcli/$uuid{'odd name!'}/ivshmem" }), 'memory of the size that is allowed');
define('odd name!', element(path => 'ivshmem', ivshmem => '128M'));
ok(wait_until(10, sub { $d->log =~ /domain odd_name_: its ivshmem device of 134217728 bytes is more than memory in \[libvirt\]/ }), 'more is refused in a sentence');
ok(wait_until(5, sub { !-l "$d->{run}/vmcli/$uuid{'odd name!'}/ivshmem" }), 'and is not there');
define('odd name!', '');
ok(wait_until(10, sub { !-e $sock->('odd name!') }), 'without an element it is no VM any more');
ok(!-e "$d->{run}/vmcli/$uuid{'odd name!'}", 'and leaves nothing');
define('odd name!', element());
ok(wait_until(10, sub { $d->log =~ /domain odd_name_, \S+: 2 functions, 4 instances.*domain odd_name_, \S+: 2 functions, 4 instances/s }), 'an element that says nothing: all that [libvirt] has');

# Its SELinux label, which can't be had here, changes; so does its socket, but not while a QEMU is there
my $label = sub { "<seclabel type='static' model='selinux' relabel='no'><label>u:r:$_[0]:s0</label></seclabel>" };
is(define('odd name!', element() . $label->('one_t'))->{status}, 0, 'it has a label');
ok(wait_until(10, sub { $d->log =~ /VM odd_name_: its socket can't be labelled u:r:one_t:s0 / }), 'and a socket with that label') or diag($d->log);
$qemu = IO::Socket::UNIX->new(Peer => $sock->('odd name!'));
ok($qemu && wait_until(10, sub { $d->log =~ /VM odd_name_: a QEMU connects.*VM odd_name_: a QEMU connects/s }), 'something like its QEMU is connected');
define('odd name!', element() . $label->('two_t'));
ok(wait_until(10, sub { slurp("$state[1]/domains") =~ /u:r:two_t:s0/ }), 'it has another');
unlike($d->log, qr/two_t/, 'its socket has not, yet');
close $qemu;
ok(wait_until(10, sub { $d->log =~ /VM odd_name_: its socket can't be labelled u:r:two_t:s0 / }), 'but when that has gone') or diag($d->log);

# A guest at its socket, which vfun vm takes for QEMU's user
sub guest {
	my ($name, @command) = @_;
	return run([$VFUN, 'vm', '--run', $d->{run}, '--vm', $uuid{$name}, guest_args('tree'), '--path', 'dax', '--timeout', 100, @command], timeout => 120);
}
my $script = spew(tmp('script'), "vfun call -v factorial 51\n!3 vfun call sha256 /init\n");
my $r = guest('web', '--script', $script);
is($r->{out}, "1551118753287382280224243016469303211063259720016986112000000000000\n", 'a call from its VM') or diag($r->{err}, $d->log);
like($r->{err}, qr/path dax/, 'by dax');
is($r->{status}, 0, 'what its element doesn\'t name is denied') or diag($r->{err});
ok(wait_until(10, sub { $d->log =~ /VM web is gone/ }), 'vfund knows it by its name');

# The domain goes in the middle of a call
my $busy = start([$VFUN, 'vm', '--run', $d->{run}, '--vm', $uuid{web}, guest_args('tree'), '--path', 'dax', '--timeout', 200, '--', 'vfun', 'call', 'factorial', 1000, 1000000000]);
ok(wait_until(100, sub { -e "$d->{run}/service/$uuid{web}" && glob "$d->{run}/service/$uuid{web}/factorial/*" }), 'a call that takes long; its record by the uuid') or diag($d->log);
is($virt->virsh('undefine', 'web')->{status}, 0, 'undefined meanwhile');
ok(wait_until(10, sub { !-e $sock->('web') }), 'its socket goes');
ok(wait_until(10, sub { !grep { $_->[1] =~ /vfun-service/ } descendants() }), 'and its service');
ok(!-e "$d->{run}/service/$uuid{web}/factorial", 'and its record') or diag(join ' ', glob "$d->{run}/service/$uuid{web}/*/*");
kill 'KILL', map { $_->[0] } grep { $_->[1] =~ /qemu/ } descendants($busy->{pid});
finish($busy, 20) if kill 'KILL', $busy->{pid};

# The engine dies: its successor knows the domains
define('web', element(functions => 'factorial'));
ok(wait_until(10, sub { -S $sock->('web') }), 'defined again');
my ($engine) = grep { $_->[1] eq 'vfun-engine' } descendants();
kill 'KILL', $engine->[0];
ok(wait_until(10, sub { my ($e) = grep { $_->[1] eq 'vfun-engine' } descendants(); $e && $e->[0] != $engine->[0] }), 'another engine');
is(guest('web', '--', 'vfun', 'call', 'factorial', 5)->{out}, "120\n", 'serves them');

# libvirtd goes and comes back; and so does the watcher
my $was = $virt->pid;
kill 'KILL', $was;
ok(wait_until(10, sub { $d->log =~ /warning: libvirt, qemu\S+: / }), 'libvirtd was killed: said');
ok(-S $sock->('web'), 'nothing is ended');
ok(wait_until(40, sub { my $p = $virt->pid; $p && $p != $was && $virt->virsh('version')->{status} == 0 }), 'it is there again');
is(define('web', element(functions => 'sha256'))->{status}, 0, 'a change');
ok(wait_until(60, sub { $d->log =~ /connected.*connected.*domain web, \S+: 1 functions.*domain web/s || $d->log =~ /connected.*connected/s }), 'the watcher is connected again') or diag($d->log);
is(guest('web', '--', 'vfun', 'call', 'factorial', 5)->{status}, 3, 'and the change is known') or diag($d->log);

# The host starts: vfund, then libvirtd, which starts a domain before it answers
my $kept = "$state[1]/domains";
is($virt->domain('detach', 'web')->{status}, 0, 'taken away');
is($virt->domain('attach', 'web', '--run', $d->{run}, '--path', 'copy')->{status}, 0, 'and given, with a device');
is($virt->virsh('autostart', 'web')->{status}, 0, 'it is to be started with the host');
ok($virt->off, 'libvirtd ends');
is_deeply([$d->down], [], 'and vfund');
my $manager = IO::Socket::UNIX->new(Type => SOCK_DGRAM, Local => tmp('notify')) or die "notify: $!";
{
	local $ENV{NOTIFY_SOCKET} = tmp('notify');
	ok($d->up(@state), 'vfund starts');
}
my $word = '';
my $wait = '';
vec($wait, fileno $manager, 1) = 1;
recv($manager, $word, 100, 0) if select($wait, undef, undef, 20);
is($word, 'READY=1', 'it tells the service manager that it is ready');
ok(-S $sock->('web'), 'its socket is there then, before libvirtd is') or diag($d->log);
ok($virt->on, 'libvirtd starts');
ok(wait_until(20, sub { $d->log =~ /VM web: a QEMU connects/ }), 'and the domain: its QEMU finds its socket') or diag($d->log, $virt->log);
like($virt->virsh('domstate', 'web')->{out}, qr/^running$/m, 'it runs') or diag($virt->log);
$virt->virsh('destroy', 'web');

# What is remembered is not what is true any more, or nonsense
sub again {
	my ($change) = @_;
	is_deeply([$d->down], [], 'vfund stops');
	forget($d->{log});
	unlink $d->{log};
	$change->() if $change;
	ok($d->up(@state), 'and starts');
	return;
}
my $good = slurp($kept);
ok(length $good >= 3 * 1424 && length($good) % 1424 == 0, 'the file is a list of messages');
# ivshmem is at byte 24 of a message
again(sub { spew($kept, $good =~ s/\A(.{1424})(.{24}).{8}/$1 . $2 . pack('Q', 1 << 20)/ser); chmod 0600, $kept });
ok(wait_until(20, sub { $d->log =~ /connected/ && -S $sock->('web') && !-l "$d->{run}/vmcli/$uuid{web}/ivshmem" }), 'memory that it does not have any more') or diag($d->log);
ok(wait_until(5, sub { slurp($kept) eq $good }), 'is no longer remembered');
for my $case (['cut off', substr($good, 0, -1), 0600, qr/list of domains is damaged/], ['empty', '', 0600, qr/list of domains is damaged/],
	['writable by others', $good, 0622, qr/list of domains is damaged, or not vfund's own/],
	['with a uuid that is none', $good =~ s/\Q$uuid{web}\E/'..\/' x 12/er, 0600, qr/a remembered domain makes no sense/],
	['without the user of QEMU', $good =~ s/\A(.{1424}.{32}).{8}/$1 . "\xff" x 8/ser, 0600, qr/domain web: who its QEMU runs as isn't known/],
	["with the user of somebody's", $good =~ s/\A(.{1424}.{32}).{8}/$1 . pack('LL', 1, 1)/ser, 0600, qr/domain web: its QEMU is said to run as user 1, group 1, which it may not/],
	['too long', $good x 40, 0600, qr/list of domains is damaged/]) {
	my ($what, $text, $mode, $said) = @$case;
	again(sub { spew($kept, $text); chmod $mode, $kept });
	ok(wait_until(5, sub { $d->log =~ $said }), "$what: said") or diag($d->log);
	ok(wait_until(20, sub { $d->log =~ /connected/ && -S $sock->('web') && length slurp($kept) == length $good }), 'and asked of libvirt') or diag($d->log);
}
again(sub { $virt->virsh('undefine', $_) for keys %uuid });
ok(wait_until(5, sub { $d->log =~ /domain web, \S+: / }), 'undefined meanwhile: it is remembered') or diag($d->log);
ok(wait_until(20, sub { $d->log =~ /domain web: its element of vfun's, or it itself, is gone/ }), 'until libvirt says so') or diag($d->log);
ok(wait_until(5, sub { length slurp($kept) == 2 * 1424 }), 'and forgotten');

is_deeply([$d->down], [], 'vfund stops and leaves nothing');
is_deeply([sort map { s/.*\///r } glob "$state[1]/*"], ['domains'], 'but for what is remembered');
is_deeply([$virt->down], [], 'nor does libvirtd');
done_testing();
