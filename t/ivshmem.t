#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# ivshmem.t - shared memory on the machine's own QEMU: regions in the BAR of an ivshmem device, chosen by itself; other VMs,
# other clients and the host are out of its reach, and it is given back
use strict;
use warnings;
no warnings 'portable'; # addresses
use lib 't/lib';
use JSON::PP;
use Test::More;
use Vfun;

requires('qemu', 'kernel');

my $conf = slurp('vfun.conf') . "\n[vm one]\nfunctions = factorial\nivshmem = 8M\n[vm two]\nfunctions = factorial\nivshmem = 1M\n[vm none]\n";
my $d = Vfun->new(conf => $conf);
ok($d->up, 'vfund starts') or BAIL_OUT('no vfund');
$ENV{VFUN_RUN_DIR} = $d->{run};

my @tools = map { ('--add', guest_client($_) . ":/bin/$_") } 'client', 'hostile', 'bar';

sub instances { return @{ decode_json(vfun('status', '--json')->{out})->{instances} }; }
sub pid { my ($name) = @_; return (map { $_->[0] } grep { $_->[1] eq $name } descendants())[0]; }

# Bytes of host memory in a VM's BAR.
sub memory {
	my ($vm) = @_;
	return (stat "$d->{run}/vmcli/$vm/ivshmem")[12] * 512;
}

is(memory($_), 0, "$_: no memory before there is a VM") for qw(one two);

# People's own command lines
my $r = run([$VFUN, 'share', '--qemu-args', 'one', '-c', $d->{conf}, '--run', $d->{run}, '--format', 'lines']);
like($r->{out}, qr/^memory-backend-file,id=vfunbar,share=on,size=8M,mem-path=\Q$d->{run}\E\/vmcli\/one\/ivshmem\n-device\nivshmem-plain,memdev=vfunbar$/m,
	'vfun share --qemu-args') or diag($r->{err});

$r = run([$VFUN, 'vm', '--vm', 'none', '--path', 'ivshmem', guest_args('own'), '--', 'vfun', '--version'], timeout => 20);
is($r->{status}, 6, 'a VM without such memory: vfun vm --path ivshmem says so');
like($r->{err}, qr/set `ivshmem` in \[vm none\]/, 'and what to do');

# Everything through the BAR, beside two devices of somebody else's, of which one says that it is ours.
spew(tmp('data'), 'vfun' x 750_000);
my ($sum) = run(['sha256sum', tmp('data')])->{out} =~ /^(\w+)/;
my $forged = pack('a8 Q< Q< S< x6 a32', 'vfunBar1', 12345, 1 << 20, 0x0101, 'demo');
my @foreign = map { spew(tmp("foreign$_"), $_ ? $forged . "\0" x ((1 << 20) - 64) : "\xff" x (1 << 20)) } 0, 1;
my @devices = map {
	my $arg = $_;
	('--qemu-arg', $arg)
} map { ('-object', "memory-backend-file,id=f$_,share=on,size=1M,mem-path=$foreign[$_]", '-device', "ivshmem-plain,memdev=f$_") } 0, 1;
spew(tmp('script'), <<'END');
vfun call -v factorial 51
vfun call sha256 /data
as 1000:1000 vfun call -v factorial 5
vfun call --path copy factorial 6
!6 vfun call --path dax factorial 5
client inflight ivshmem 256 5000
client batch ivshmem 64 3000
client gather ivshmem 5
client gather copy 5
client setget ivshmem
client insane ivshmem
hostile rewrite 20000 ivshmem
vfun bench latency --path ivshmem --blocks 10
bar zero
bar late
client hold factorial ivshmem &
as 1000:1000 client load 4 copy &
sleep 1
bar scribble 2
wait %2
vfun call -v factorial 7
END
my $guest = $d->guest('own', undef, '--script', tmp('script'), '--add', tmp('data'), @tools, @devices);
$r = finish($guest, 120);
is($r->{status}, 0, 'a guest whose QEMU has no DAX') or diag($r->{out}, $r->{err}, $d->log);
like($r->{err}, qr/\A.*factorial: software, path ivshmem/, 'uses ivshmem unasked');
like($r->{out}, qr/^1551118753287382280224243016469303211063259720016986112000000000000$/m, 'a call');
like($r->{out}, qr/^$sum$/m, '3000000 bytes through the arena');
like($r->{err}, qr/path ivshmem: the device's memory can't be opened \(Permission denied\): using path copy/, 'a user who may not: copy, and why');
like($r->{out}, qr/^120\n720$/m, 'which works, also for root');
like($r->{out}, qr/^ok 5120 calls, 256 in flight, path ivshmem$/m, 'calls in flight');
like($r->{out}, qr/^ok 3000 calls, 64 slots, \d+ workers, path ivshmem/m, 'batches');
like($r->{out}, qr/^ok 5 batches, 1 workers, rung [1-9]\d* times$/m, 'gathered: woken once for a batch');
like($r->{out}, qr/^ok 5 batches, 1 workers, rung 0 times$/m, 'by copy as well');
like($r->{out}, qr/^ok path ivshmem$/m, 'set, get, rst');
like($r->{out}, qr/^ok path ivshmem: (?:cut-off|gone)$/m, 'insane slots');
like($r->{out}, qr/^ok \d+ calls, \d+ answered otherwise/m, 'slots and arena rewritten while they are read');
like($r->{out}, qr{^guest\s+ivshmem\s+raw ping-pong.*^guest\s+ivshmem\s+null call}ms, 'vfun bench latency');
like($r->{out}, qr/^ok zeros, \d+ times at the same place$/m, 'a place that is used again is empty');
like($r->{out}, qr/^ok its place is used again once it is unmapped$/m, 'and not before its client has let go');
like($r->{out}, qr/^ok \d+ calls \d+ instances .*\nok \d+ words|^ok \d+ words\nok \d+ calls \d+ instances/m, "root writes over all of it: no error for a user's calls by copy");
like($r->{out}, qr/^5040$/m, 'nor for the next call');
is(slurp($foreign[0]), "\xff" x (1 << 20), "somebody else's device was not touched");
is(slurp($foreign[1]), $forged . "\0" x ((1 << 20) - 64), 'nor the one that says that it is ours');
ok(wait_until(10, sub { !instances() }), 'no instance is left');
ok(wait_until(5, sub { memory('demo') == 0 }), 'nor memory');
unlike($d->log, qr/died/, 'nobody died of it') or diag($d->log);

# Two VMs: what one has in its BAR is not in two's. Two fills its own.
spew(tmp('script'), <<'END');
bar hold sEcReT &
sleep 1
bar find sEcReT
echo HELD
wait %1
echo GONE
sleep 60
END
my $one = $d->guest('own', undef, '--vm', 'one', '--script', tmp('script'), @tools);
ok(wait_until(90, sub { slurp($one->{out}) =~ /^HELD$/m }), 'guest one holds an instance') or diag(slurp($one->{out}), slurp($one->{err}), $d->log);
like(slurp($one->{out}), qr/^ok found [1-9]\d+ in 1$/m, 'whose memory it finds in its BAR');
my ($held) = instances();
is($held->{path}, 'ivshmem', 'vfun status shows the path');
my $before = memory('one');
cmp_ok($before, '>=', $held->{memory}, 'in host memory');

# Its service has what is in the BAR mapped as far as it is its own, and no descriptor of it any more.
my $service = pid('vfun-service');
my $maps = slurp("/proc/$service/maps");
my $mapped = 0;
$mapped += hex($2) - hex($1) while $maps =~ /^(\w+)-(\w+) .*\/memfd:vfun-ivshmem/mg;
is($mapped, $held->{memory}, 'its service has mapped its own regions');
is_deeply([grep { /memfd/ } map { readlink } glob "/proc/$service/fd/*"], [], 'and can reach no others');

spew(tmp('script2'), "bar find sEcReT\nbar fill\nvfun call -v --room 4M factorial 5\nsleep 1\nvfun status\n");
$r = finish($d->guest('own', undef, '--vm', 'two', '--script', tmp('script2'), @tools), 120);
is($r->{status}, 0, 'guest two') or diag($r->{out}, $r->{err}, $d->log);
like($r->{out}, qr/^ok found 0 in 1$/m, 'finds nothing of it in its own');
like($r->{out}, qr/^ok \d+ instances, then none/m, 'a BAR that is full');
like($r->{err}, qr/^.*factorial: software, path copy/m, 'what never fits gets path copy') or diag($r->{err});
like($r->{out}, qr/^120\n.* 0 instances; you are two$/m, 'and is released like any other') or diag($r->{out});

# Its engine and its share killed, it goes on; released from outside, its memory comes back when the client has let go.
for my $name ('vfun-share', 'vfun-engine') {
	my $old = pid($name);
	kill 'KILL', $old;
	ok(wait_until(5, sub { (pid($name) // $old) != $old && vfun('status')->{status} == 0 }), "$name killed: a successor");
}
is(join(' ', map { "$_->{instance} $_->{state} $_->{path}" } instances()), "$held->{instance} active ivshmem", 'which knows the instance');
is(vfun('release', $held->{instance})->{status}, 0, 'vfun release');
ok(wait_until(20, sub { slurp($one->{out}) =~ /^GONE$/m }), 'the client is told');
like(slurp($one->{out}), qr/^ok gone$/m, 'that it is gone');
ok(wait_until(10, sub { !instances() }), 'no instance is left');
is($before - memory('one'), $held->{memory}, 'and all of its memory is given back');
kill 'KILL', $one->{pid};
finish($one, 10);
ok(wait_until(10, sub { memory('one') == 0 }), 'the rest, which the guest itself has looked at, with the VM');

# The share killed again and again under load
$guest = $d->guest('own', ['client', 'load', 6, 'ivshmem'], '--vm', 'one', '--path', 'ivshmem', @tools);
ok(wait_until(90, sub { grep { $_->{state} eq 'active' } instances() }), 'a guest under load');
for my $kill (1 .. 8) {
	kill 'KILL', grep { $_ } pid('vfun-share');
	select undef, undef, undef, 0.5;
}
$r = finish($guest, 60);
is($r->{status}, 0, 'its share killed eight times: the guest sees no error') or diag($r->{out}, $r->{err}, $d->log);
ok(wait_until(10, sub { !instances() && memory('one') == 0 }), 'and nothing is left');

is_deeply([$d->down], [], 'vfund stops and leaves nothing');
done_testing();
