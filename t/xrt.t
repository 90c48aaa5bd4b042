#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# xrt.t - functions in hardware, by the real XRT libraries and the test device of t/xrt: right answers from the host and from
# guests, down to Verilog; sharing; confinement; faults
use strict;
use warnings;
use lib 't/lib';
use Math::BigInt;
use Test::More;
use Vfun;
use Xrt;

requires('root', 'tree', 'xrt', 'qemu');
xrt_build();
my $factorial_51 = '1551118753287382280224243016469303211063259720016986112000000000000';
my $model = tmp('model');
my $hardware = client('hardware');
my $other = '';    # a function of another xclbin
run(['cp', "$XRT/vfun.xclbin", "$XRT/other.xclbin", tmp()]);
our $xclbin = tmp('vfun.xclbin');

my %is = (
	factorial => "kernel = factorial\narguments = n u64 0..300, reps u64 default 1, out out 256\nresult = int\nfallback = factorial\n",
	fibonacci => "kernel = fibonacci\narguments = n u64 0..2900, reps u64 default 1, out out 256\nresult = int\nfallback = fibonacci\n",
	vadd => "kernel = vadd\narguments = a in, b in,\n  out out, count u32 elements 4\n",
);

sub function {
	my ($name, $text) = @_;
	return "[function $name]\nbackend = xrt\nxclbin = $xclbin\nemulated = $model\ntimeout = 1500\nready-timeout = 4000\n" . ($text // $is{$name});
}

sub conf {
	my (@more) = @_;
	return $other . join('', map { function($_) } sort keys %is) . "[function sha256]\nbackend = software\n"
		. join('', map { "[$_]\nfunctions = factorial fibonacci vadd sha256 " . ($other ? "other\n" : "\n") } 'host', 'vm one', 'vm two') . join '', @more;
}

# The model: in C or in Verilog.
my $job;

sub model {
	my ($kind) = @_;
	if ($job) {
		kill 'TERM', $job->{pid};
		finish($job, 10);
	}
	unlink $model;
	spew(tmp('log'), '');
	fault('');
	my $mask = umask 0;    # services have uids of their own
	$job = start(["$XRT/model-$kind", '--socket', $model, '--log', tmp('log'), '--fault', tmp('fault')]);
	umask $mask;
	return wait_until(10, sub { -S $model && slurp(tmp('log')) =~ /serves/ });
}

sub fault { return spew(tmp('fault'), $_[0]); }

sub saw { return slurp(tmp('log')); }

# What -n says.
sub check {
	my ($conf) = @_;
	return run([in_tree(undef, vfun_here(), 'daemon', '-n', '-c', spew(tmp('n.conf'), $conf))]);
}

# Descriptions
is(check(conf())->{err}, '', 'descriptions that fit their kernels');
for my $case (
	['factorial', 's/= n u64/= m u64/', qr/argument 1 of the kernel is 'n', not 'm'/, "an argument's name"],
	['factorial', 's/reps u64/reps u32/', qr/argument 'reps' of the kernel has 64 bits, not 32/, 'its size'],
	['factorial', 's/out out 256/out u64 default 1/; s/fallback.*//', qr/argument 'out' of the kernel is a buffer, not a number/, 'a buffer that is none'],
	['factorial', 's/, out out 256//; s/fallback.*//', qr/the kernel has an argument 'out' more/, 'an argument too few'],
	['factorial', 's/(out out 256)/$1, more u32 default 1/', qr/the kernel has only 3 arguments/, 'one too many'],
	['factorial', 's/kernel = .*/kernel = nosuch/', qr/it has no kernel 'nosuch'/, 'a kernel that is not there'],
	['factorial', 's/0\.\.300/300..0/', qr/n: '300\.\.0' is not MIN\.\.MAX, in 64 bits/, 'a range'],
	['factorial', 's/default 1/default x/', qr/reps: default needs a number/, 'a default'],
	['factorial', 's/out out 256/out out/', qr/out: as long as what\? It needs a size/, 'a result of no length'],
	['factorial', 's/out out 256/out out 100/', qr/out: '100' is not a size/, 'an odd length'],
	['factorial', 's/n u64/n f64/', qr/n: 'f64' is not a type/, 'a type'],
	['factorial', 's/kernel = .*//', qr/backend xrt needs kernel/, 'no kernel'],
	['factorial', 's/arguments = .*//', qr/backend xrt needs arguments/, 'no arguments'],
	['factorial', 's/fallback = .*/fallback = sha256/', qr/fallback: sha256 takes or gives something else/, 'a fallback of another kind'],
	['factorial', 's/fallback = .*/fallback = nosuch/', qr/fallback: backend software has no function nosuch/, 'a fallback that is none'],
	['factorial', 's/result = int/result = float/', qr/result: 'float' is neither/, 'a result'],
	['factorial', 's/result/workers = 2\nresult/', qr/hardware has a queue instead/, 'workers'],
	['vadd', 's/elements 4/elements/', qr/count: elements needs the bytes of one/, 'elements of no size'])
{
	my ($name, $change, $fault, $what) = @$case;
	local $is{$name} = $is{$name};
	eval join(';', map { "\$is{$name} =~ $_" } split /; /, $change) . '; 1' or die $@;
	my $r = check(conf());
	is($r->{status}, 2, "$what: refused");
	like($r->{err}, qr/^\S+:\d+: .*$fault/m, 'and why');
}
{
	local $xclbin = tmp('cut.xclbin');
	like(check(conf())->{err}, qr/cut\.xclbin: it can't be opened: No such file/, 'no xclbin');
	for my $case ([0, 'it can\'t be compared|it is not an xclbin'], [100, 'it is not an xclbin'], [600, 'it has no metadata of its kernels, or is cut off'], [3000, 'it has no metadata of its kernels, or is cut off']) {
		spew($xclbin, substr(slurp(tmp('vfun.xclbin')), 0, $case->[0]));
		my $r = check(conf());
		is($r->{status}, 2, "$case->[0] bytes of one");
		like($r->{err}, qr/cut\.xclbin: (?:$case->[1])/, 'are noticed') or diag($r->{err});
	}
}

# A host without XRT
ok(model('c'), 'the model, in C');
my $d = Vfun->new(conf => conf());
SKIP: {
	skip 'this machine has an XRT of its own', 5 if glob '/usr/lib/*/libxrt_coreutil.so.2';
	ok($d->up, 'vfund on a host without XRT');
	local $ENV{VFUN_RUN_DIR} = $d->{run};
	my $r = vfun('call', '--target', 'hardware', 'factorial', 51);
	is($r->{status}, 3, 'hardware is refused');
	like($r->{err}, qr/libxrt_coreutil\.so\.2 is missing on this host: install XRT \(Debian: [^)]+\) \[library\]$/, 'in one sentence, with the package');
	$r = vfun('call', 'factorial', 51);
	is($r->{out}, "$factorial_51\n", 'any target: software computes it');
	like($r->{err}, qr/^vfun call: factorial: libxrt_coreutil\S+ is missing .*: software computes it$/, 'which is said');
	is_deeply([$d->down], [], 'nothing is left');
}

# From the host
$other = function('other', $is{vadd}) =~ s/vfun\.xclbin/other.xclbin/r;
$d = Vfun->new(conf => conf(), tree => 1);
ok($d->up, 'vfund with XRT') or BAIL_OUT($d->log);
$ENV{VFUN_RUN_DIR} = $d->{run};
my $r = vfun('call', '-j', '--target', 'hardware', 'factorial', 51);
like($r->{out}, qr/"result":"$factorial_51".*"target":"hardware"/, 'a call') or diag($r->{err}, $d->log);
like(saw(), qr/ runs factorial n=51 reps=1 .*, c$/m, 'which the model computed');
like($d->log, qr/active, pid \d+, \d+ bytes, used in place by the device$/m, 'the log says whether arenas are copied');
is(vfun('call', '--target', 'software', 'factorial', 51)->{out}, "$factorial_51\n", 'the same function in software');
is(vfun('call', 'factorial', 51)->{err}, '', 'any target: hardware, without a word');
is(vfun('call', '--target', 'hardware', 'factorial', 300, 3)->{out}, Math::BigInt->new(300)->bfac . "\n", 'the largest, three times');
is(vfun('call', 'factorial', 301)->{status}, 1, 'out of its range');
is(vfun('call', '--target', 'hardware', 'sha256', $xclbin)->{status}, 3, 'a function without hardware');
$r = vfun('call', '--target', 'software', 'vadd', $xclbin);
is($r->{status}, 3, 'one without software');
like($r->{err}, qr/vadd is hardware only \[no-software\]/, 'and its reason');
spew(tmp('seven'), '1234567');
is(vfun('call', 'vadd', tmp('seven'))->{status}, 1, 'input that does not divide');
my @words = map { int rand(2**32) } 1 .. 5000;
spew(tmp('words'), pack('V*', @words));
ok(vfun('call', 'vadd', tmp('words'))->{out} eq pack('V*', map { ($words[$_] + $words[2500 + $_]) & 0xffffffff } 0 .. 2499), 'bulk data');
like(vfun('list')->{out}, qr/^factorial +xrt +hardware +kernel factorial\n  n u64 0\.\.300, reps u64 default 1 -> int$/m, 'listed');
like(vfun('list')->{out}, qr/^  align 1 64: a u32\[n\], b u32\[n\] -> out u32\[n\]$/m, 'arrays, of which their length is computed');
is(vfun('call', 'vadd', '1,2,4294967295', '[10,20,30]')->{out}, "[11,22,29]\n", 'which can be given as lists');
like(vfun('call', 'vadd', '1,2,3', '1,2')->{err}, qr/^vfun call: vadd refuses its arguments: input: 20 bytes: no whole n$/, 'of the same length');
like(vfun('call', 'factorial', 301)->{err}, qr/^vfun call: factorial refuses its arguments: n: 301 is not 0\.\.300$/, 'a range');
is(vfun('call', '--target', 'software', 'factorial', 301)->{status}, 0, 'which is not that of the software in its place');
is(run([$hardware, 'same', 'host', 1500, 7], timeout => 300)->{out}, "ok 1500 of each\n", 'random numbers: as software');
is(run([$hardware, 'vadd', 'host', 200, 8], timeout => 120)->{out}, "ok 200 sums\n", 'sums in flight, in place');
like(run([client(), 'inflight', 'host', 16, 320])->{out}, qr/^ok 320 calls/, 'many in flight, taken out of order');

# Somebody else's data
is(run([$hardware, 'last', 'host'])->{status}, 0, 'a result on the device');
fault('no-write');
is(vfun('call', 'factorial', 51)->{out}, "0\n", 'a kernel that writes nothing gives the next client zeros, not that');
ok(vfun('call', 'vadd', tmp('words'))->{out} eq "\0" x 10000, 'in an arena as well');
fault('');

# The living service
my $held = start([client(), 'hold', 'vadd', 'host']);
ok(wait_until(10, sub { slurp($held->{out}) =~ /^ok/ }), 'an instance is held');
my ($p) = grep { $_->[1] =~ /vfun-half|exe|vfun-service/ && slurp("/proc/$_->[0]/cmdline") =~ /^vfun-service\0vadd/ } descendants();
ok($p, 'its service') or BAIL_OUT(join ' ', map { "@$_" } descendants());
my $status = slurp("/proc/$p->[0]/status");
like($status, qr/^Cap$_:\t0{16}$/m, "$_ empty") for qw(Inh Prm Eff Bnd Amb);
like($status, qr/^NoNewPrivs:\t1$/m, 'no new privileges');
like($status, qr/^Seccomp:\t2$/m, 'filtered');
like($status, qr/^Uid:\t20000\d\d\d\d\d\t/m, 'a uid of its own');
like(slurp("/proc/$p->[0]/limits"), qr/^Max processes +0 +0 /m, 'no further thread');
for my $ns (qw(mnt net pid ipc uts cgroup)) {
	isnt(readlink("/proc/$p->[0]/ns/$ns"), readlink("/proc/self/ns/$ns"), "its own $ns namespace");
}
my @top = map { s{.*/}{}r } glob "/proc/$p->[0]/root/*";
is_deeply([grep { !/^(?:lib|lib64|usr|etc|proc|tmp|xrt\.ini|emconfig\.json|opt)$/ } @top], [], "its root: @top");
is_deeply([glob "/proc/$p->[0]/root/etc/*"], ["/proc/$p->[0]/root/etc/ld.so.cache"], 'of /etc, one file');
is_deeply([glob "/proc/$p->[0]/root/proc/*"], ["/proc/$p->[0]/root/proc/self"], 'no process in /proc');
is_deeply([grep { !m{ /(?:usr/)?lib\S* ro,} && !m{ / ro,} && !m{ /etc/ld\.so\.cache ro,} && !m{ /tmp(?:/vfun/model)? rw,nosuid,nodev} }
		split /\n/, slurp("/proc/$p->[0]/mountinfo")], [], 'all that is mounted there is read-only, but its scratch and the socket');
is(scalar(grep { $_->[0] != $p->[0] && slurp("/proc/$_->[0]/status") =~ /^PPid:\t$p->[0]$/m } descendants()), 0, 'and it has no children');
like(vfun('call', 'other', tmp('words'))->{err}, qr/the device doesn't take the xclbin: it is wrong, or another is in use there \[(?:image|device-busy)\]$/, 'another xclbin beside it: refused');
kill 'KILL', $held->{pid};
finish($held, 5);
ok(wait_until(5, sub { !grep { slurp("/proc/$_->[0]/cmdline") =~ /^vfun-service\0vadd/ } descendants() }), 'it goes with its client');
ok(wait_until(5, sub { my $log = saw(); (() = $log =~ / connects/g) == (() = $log =~ / is gone/g) }), 'and the device has no client left');

ok(vfun('call', 'other', tmp('words'))->{out} eq pack('V*', map { ($words[$_] + $words[2500 + $_]) & 0xffffffff } 0 .. 2499), 'the other xclbin, now that the device is free');

# Faults: what the client is told, within the times of vfun.conf; and software in its place.
for my $case (
	['slow 300', 0, ''],
	['hang', 7, 'the call took longer than vfun\.conf allows'],
	['die', 7, 'the call took longer than vfun\.conf allows|the device failed'],
	['die-load', 3, '.* \[(?:timeout|device)\]'],
	['bad-sync', 3, "what is written to the device's memory doesn't come back \\[device\\]"],
	['refuse-load', 3, "the device doesn't take the xclbin.* \\[image\\]"],
	['fail-alloc', 3, '.* \[(?:device|no-resource)\]'])
{
	my ($fault, $want, $text) = @$case;
	for my $target ('hardware', 'any') {
		ok(model('c'), 'a fresh model');
		fault($fault);
		my $r = vfun('call', '--target', $target, 'factorial', 51);
		my $right = $want && $target eq 'hardware' ? $want : 0;
		is($r->{status}, $right, "$fault, $target: status $right") or diag($r->{err}, $d->log);
		is($r->{out}, $right ? '' : "$factorial_51\n", 'and the answer');
		like($r->{err}, !$want ? qr/^$/ : $right ? qr/^vfun call: factorial: (?:$text)$/ : qr/^vfun call: factorial: .*: software computes it$/, 'and what is said');
		cmp_ok($r->{seconds}, '<', 8, 'in time');
	}
}
kill 'KILL', $job->{pid};
finish($job, 5);
like(vfun('call', '--target', 'hardware', 'factorial', 51)->{err}, qr/doesn't answer \[no-device\]$/, 'a model that has gone');
unlink $model;
like(vfun('call', '--target', 'hardware', 'factorial', 51)->{err}, qr/\[no-device\]$/, 'and its socket');
ok(model('c'), 'it is back');
is(vfun('call', '--target', 'hardware', 'factorial', 51)->{out}, "$factorial_51\n", 'and used');
is_deeply([$d->down], [], 'vfund stops and leaves nothing');

# An ordinary user
$d = Vfun->new(conf => conf(), tree => 1, as => [65534, 65534]);
ok($d->up, "vfund as an ordinary user") or diag($d->log);
$ENV{VFUN_RUN_DIR} = $d->{run};
is(run([vfun_here(), 'call', '--target', 'hardware', 'factorial', 51], as => [65534, 65534])->{out}, "$factorial_51\n", 'has hardware too') or diag($d->log);
is_deeply([$d->down], [], 'nothing is left');

# Verilog, and guests
ok(model('rtl'), 'the model, in Verilog');
$d = Vfun->new(conf => conf() =~ s/^timeout = \d+/timeout = 60000/mgr, tree => 1);
ok($d->up, 'vfund') or BAIL_OUT($d->log);
$ENV{VFUN_RUN_DIR} = $d->{run};
is(vfun('call', '--target', 'hardware', 'fibonacci', 2900)->{out}, vfun('call', '--target', 'software', 'fibonacci', 2900)->{out}, 'fibonacci(2900) in Verilog');
is(run([$hardware, 'same', 'host', 500, 9], timeout => 300)->{out}, "ok 500 of each\n", 'random numbers: as software');
is(run([$hardware, 'vadd', 'host', 40, 10], timeout => 300)->{out}, "ok 40 sums\n", 'sums');
my $guest = $d->guest('tree', ['vfun', 'call', '-v', '--target', 'hardware', 'factorial', 51], '--vm', 'one', '--path', 'dax');
$r = finish($guest, 120);
is($r->{out}, "$factorial_51\n", 'a call from a DAX guest') or diag($r->{err}, $d->log);
like($r->{err}, qr/factorial: hardware, path dax/, 'in hardware, by dax');
like(saw(), qr/ runs factorial n=51 reps=1 .*, rtl$/m, 'ends in the Verilog kernel');

# Two VMs and the host at the same time
ok(model('c'), 'the model, in C');
my $in_guest = guest_client('hardware');
my @loads = (
	$d->guest('tree', ['/hw', 'load', 'dax', 20], '--vm', 'one', '--path', 'dax', '--add', "$in_guest:/hw"),
	$d->guest('own', ['/hw', 'load', 'auto', 20], '--vm', 'two', '--add', "$in_guest:/hw"));
wait_until(60, sub { (() = saw() =~ / loads /g) >= 2 });
push @loads, start([$hardware, 'load', 'host', 3]);
like($_->{out}, qr/^ok \d+ calls$/, 'every answer right, beside two others') or diag($_->{err}, $d->log) for map { finish($_, 120) } reverse @loads;
my ($most, %loaded) = (0);
for (split /\n/, saw()) {
	$loaded{$1} = 1 if /^client (\d+) loads /;
	delete $loaded{$1} if /^client (\d+) is gone/;
	$most = keys %loaded if keys %loaded > $most;
}
cmp_ok($most, '>=', 3, "three services used the device at the same time: $most");
is_deeply([$d->down], [], 'vfund stops and leaves nothing');

# The benchmark
my $bench = spew(tmp('bench.conf'), function('fac'=> $is{factorial}) . "[host]\nfunctions = fac\n");
delete local $ENV{VFUN_RUN_DIR};
$r = run([in_tree(undef, vfun_here(), qw(bench hardware --json --count 40 --rounds 3 --function fac --args), '5 1', '--conf', $bench,
	qw(--qemu /usr/bin/qemu-system-x86_64 --kernel /kernel/vmlinuz --accel tcg))], timeout => 240);
is($r->{status}, 0, 'vfun bench hardware') or diag($r->{err});
my $rows = () = $r->{out} =~ /"xrt_us":\s*[\d.]+,\s*"vfun_us":\s*[\d.]+,\s*"adds_us":\s*-?[\d.]+/g;
is($rows, 4, 'on host and in guest, one at a time and queued: beside XRT alone') or diag($r->{out});
like($r->{out}, qr/"where":\s*"guest",\s*"path":\s*"dax"/, 'the guest by dax');
like(run([in_tree(undef, vfun_here(), qw(bench hardware --function nosuch --conf), $bench)])->{err}, qr/there is no \[function nosuch\]/, 'a function that is not there');
kill 'TERM', $job->{pid};
is(finish($job, 10)->{status}, 0, 'the model ends');
done_testing();
