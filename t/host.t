#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# host.t - calls from the host itself: every function against known answers, bulk data, JSON, every exit status
use strict;
use warnings;
use lib 't/lib';
use Digest::SHA qw(sha256_hex);
use JSON::PP;
use Math::BigInt;
use Test::More;
use Vfun;

my $d = Vfun->new;
ok($d->up, 'vfund starts') or BAIL_OUT('no vfund');
$ENV{VFUN_RUN_DIR} = $d->{run};

sub call { return vfun('call', @_); }

# Numbers, exact
is(call('factorial', 51)->{out}, "1551118753287382280224243016469303211063259720016986112000000000000\n", 'factorial 51');
my $f = Math::BigInt->new(1);
for my $n (0 .. 1000) {
	$f *= $n if $n;
	next if $n > 22 && $n % 97 && $n != 1000;
	is(call('factorial', $n)->{out}, "$f\n", "factorial $n");
}
my ($x, $y) = (Math::BigInt->new(0), Math::BigInt->new(1));
for my $n (0 .. 1000) {
	is(call('fibonacci', $n)->{out}, "$x\n", "fibonacci $n") if $n < 4 || $n == 93 || $n % 111 == 0 || $n == 1000;
	($x, $y) = ($y, $x + $y);
}
is(call('factorial', 51, 3)->{out}, call('factorial', 51)->{out}, 'three times the work, the same result');
my $r = call('factorial', 20000);
is($r->{status}, 0, 'a result of 77338 digits fits the default room');
is(length $r->{out}, 77338 + 1, 'and has them') or diag($r->{err});

# Bulk
for my $size (0, 1, 55, 64, 4095, 4096, 4097, 100_000, 200_000, 1 << 20, 3_000_001) {
	my $data = join '', map { chr(($_ * 7919 >> 3) & 255) } 1 .. ($size > 70000 ? 70000 : $size);
	$data .= $data while length $data < $size;
	$data = substr $data, 0, $size;
	spew(tmp('data'), $data);
	is(call('sha256', tmp('data'))->{out}, sha256_hex($data) . "\n", "sha256 of $size bytes");
	is(run([$VFUN, 'call', 'sha256', '-'], stdin => $data)->{out}, sha256_hex($data) . "\n", 'the same from standard input');
	my $z = call('zstd', tmp('data'));
	spew(tmp('z'), $z->{out});
	my $back = run(['zstd', '-q', '-d', '-c', tmp('z')]);
	ok($back->{status} == 0 && $back->{out} eq $data, "zstd of $size bytes is a valid frame of them") or diag($z->{err}, $back->{err});
}
cmp_ok(-s tmp('z'), '<', 100_000, 'and is shorter than they are');
is(call('checksum', spew(tmp('words'), pack 'Q<Q<C', 5, ~0, 7))->{out}, "11\n", 'checksum of two words and a byte');
is(call('zstd', tmp('data'), '-o', tmp('z2'))->{status}, 0, 'zstd -o FILE');
ok(slurp(tmp('z2')) eq slurp(tmp('z')), 'the same frame');
is(run(['sh', '-c', "cat '" . tmp('data') . "' | $VFUN call sha256 -"])->{out}, sha256_hex(slurp(tmp('data'))) . "\n", 'from a pipe');
my $random = slurp('/bin/ls');
spew(tmp('data'), $random);
spew(tmp('z'), call('zstd', tmp('data'))->{out});
ok(run(['zstd', '-q', '-d', '-c', tmp('z')])->{out} eq $random, 'zstd of a program');

# JSON, verbose
$r = call('--json', 'fibonacci', 93);
my $j = decode_json($r->{out});
is($j->{result}, '12200160415121876738', 'JSON: the result, as text: it has more than 53 bits');
is("$j->{function} $j->{path} $j->{target}", 'fibonacci host software', 'function, path, target');
cmp_ok($j->{times_us}{$_}, '>', 0, "time of $_") for qw(negotiation activation computation release);
is($r->{err}, '', 'nothing on standard error');
$j = decode_json(call('--json', 'zstd', '-o', tmp('z'), tmp('data'))->{out});
is($j->{bytes}, -s tmp('z'), 'JSON of a result that is bytes, which go to a file');
$r = call('-v', 'factorial', 5);
is($r->{out}, "120\n", 'verbose: the result alone on standard output');
like($r->{err}, qr/path host.*negotiation .*ms.*activation .*ms.*computation .*ms.*release .*ms/s, 'the rest on standard error');
$j = decode_json(vfun('list', '--json')->{out});
is_deeply([sort map { $_->{name} } @$j], [qw(checksum factorial fibonacci pingpong sha256 zstd)], 'list --json');
like(vfun('list')->{out}, qr/^factorial +software +software +n!/m, 'list');

is(call('sha256', '/proc/version')->{out}, sha256_hex(slurp('/proc/version')) . "\n", 'a file of /proc, whose size is said to be 0');
# Somebody has it open for writing, and doesn't write.
run(['mkfifo', tmp('fifo')]);
open(my $fifo, '+<', tmp('fifo')) or die;

# Every exit status
is(call('factorial', 5)->{status}, 0, '0');
for my $case (
	[1, qr/room/, '--room', '64', 'factorial', 1000],
	[1, qr/refuses/, 'factorial', 5, 0],
	[1, qr/refuses/, 'factorial', 5, 1, 1],
	[2, qr/no function named/],
	[2, qr/^vfun call: unrecognized option '--nosuch'$/, '--nosuch', 'factorial', 5],
	[2, qr/^vfun call: unrecognized option '--nosuch'$/, 'factorial', '--nosuch', 5],
	[2, qr/needs a number/, 'factorial'],
	[2, qr/not a number/, 'factorial', 'x'],
	[2, qr/'-5' is not a number from 0/, 'factorial', '-5'],
	[2, qr/'-1' is not a number from 0/, 'factorial', 5, '-1', '--json'],
	[2, qr/'-5' is not a number/, 'factorial', '--', '-5'],
	[2, qr/'--json' is not a number/, '--', 'factorial', 5, '--json'],
	[2, qr/not a number/, 'factorial', '18446744073709551616'],
	[2, qr/not a number/, 'factorial', '5x'],
	[1, qr/refuses/, 'factorial', 1 .. 3],
	[2, qr/factorial: too many arguments/, 'factorial', 1 .. 4],
	[2, qr/factorial: too many arguments/, 'factorial', 1 .. 9],
	[2, qr/sha256: too many arguments/, 'sha256', tmp('data'), 1 .. 4],
	[2, qr/needs a file/, 'sha256'],
	[2, qr/No such file/, 'sha256', tmp('nosuch')],
	[2, qr/folder/, 'sha256', tmp()],
	[2, qr/--path/, '--path', 'x', 'factorial', 5],
	[2, qr/--target/, '--target', 'x', 'factorial', 5],
	[2, qr/--timeout/, '--timeout', 'x', 'factorial', 5],
	[2, qr/--timeout/, '--timeout', '0', 'factorial', 5],
	[2, qr/--room/, '--room', 'x', 'factorial', 5],
	[3, qr/no function 'nosuch'.*unknown-function/, 'nosuch', 1],
	[3, qr/no function/, 'x' x 100, 1],
	[3, qr/no function 'nosuch'/, 'nosuch'],
	[3, qr/no function 'nosuch'/, 'nosuch', tmp('data')],
	[2, qr/-o FILE/, '--json', 'zstd', tmp('data')],
	[3, qr/software would be granted.*no-hardware/, '--target', 'hardware', 'factorial', 5],
	[3, qr/too-large/, '--room', '1000G', 'factorial', 5],
	[4, qr/no vfund/, '--run', tmp('nosuch'), 'factorial', 5],
	[4, qr/no vfund/, '--run', tmp(), 'factorial', 5],
	[5, qr/no answer within 0.3 s/, '--timeout', '0.3', 'factorial', 51, '18446744073709551615'],
	[5, qr/no answer within/, '--timeout', '0.3', 'fibonacci', 93, '18446744073709551615'],
	[5, qr/no answer within/, '--timeout', '0.3', 'sha256', tmp('data'), '18446744073709551615'],
	[5, qr/no answer within/, '--timeout', '0.3', 'zstd', tmp('data'), '18446744073709551615'],
	[5, qr/no end of it within/, '--timeout', '0.3', 'sha256', tmp('fifo')],
	[6, qr/path dax/, '--path', 'dax', 'factorial', 5],
	[6, qr/path copy/, '--path', 'copy', 'factorial', 5],
	[6, qr/path ivshmem/, '--path', 'ivshmem', 'factorial', 5],
	[8, qr/nosuch/, '-o', tmp('nosuch/x'), 'zstd', tmp('data')])
{
	my ($status, $text, @args) = @$case;
	$r = call(@args);
	my $name = join ' ', map { substr $_, 0, 20 } @args;
	is($r->{status}, $status, "$status: vfun call $name") or diag($r->{err});
	like($r->{err}, $text, 'says why');
	is($r->{out}, '', 'nothing on standard output');
	is($r->{err} =~ tr/\n//, 1, 'in one line');
}
$r = run(['sh', '-c', "$VFUN call factorial 1000 >/dev/full"]);
is($r->{status}, 8, '8: standard output on a full disk');
like($r->{err}, qr/No space left/, 'is said');
is(run(['sh', '-c', "$VFUN call zstd -o /dev/full " . tmp('data')])->{status}, 8, '8: -o on a full disk');

# Who doesn't answer isn't asked again and waited for a second time.
my ($engine) = grep { $_->[1] eq 'vfun-engine' } descendants();
kill 'STOP', $engine->[0];
$r = call('--timeout', 0.5, 'factorial', 5);
is($r->{status}, 5, '5: the engine is stopped');
is($r->{err}, "vfun call: factorial: vfund did not answer within 0.5 seconds\n", 'which the first question shows');
kill 'CONT', $engine->[0];
is(call('factorial', 5)->{out}, "120\n", 'it goes on');

# 7: the service dies under the call
my $job = start([$VFUN, 'call', 'factorial', 51, '18446744073709551615']);
my $service = sub { (grep { $_->[1] eq 'vfun-service' } descendants())[0] };
my $pid = wait_until(5, sub { my $s = $service->(); $s && vfun('status')->{out} =~ / active / && $s->[0] });
sleep 1;
kill 'KILL', $pid;
$r = finish($job, 10);
is($r->{status}, 7, '7: the service was killed') or diag($r->{err});
like($r->{err}, qr/service has ended: signal 9$/m, 'says so, and why');
cmp_ok($r->{seconds}, '<', 5, 'and does not wait for the time-out');

# status and release
my $status = decode_json(vfun('status', '--json')->{out});
is_deeply($status->{instances}, [], 'nothing is left of all that');
$job = start([$VFUN, 'call', 'factorial', 51, '18446744073709551615']);
wait_until(5, sub { vfun('status')->{out} =~ / active / });
$status = decode_json(vfun('status', '--json')->{out});
is(scalar @{ $status->{instances} }, 1, 'status shows an instance');
my $i = $status->{instances}[0];
is("$i->{client} $i->{function} $i->{state} $i->{target}", "uid-$> factorial active software", 'whose, what');
like(slurp("$d->{run}/service/uid-$>/factorial/$i->{instance}"), qr/^pid=$i->{pid}\nbackend=software\n/, 'its record on disk');
is(vfun('release', $i->{instance} + 1)->{status}, 3, 'release of another: refused');
is(vfun('release', 'x')->{status}, 2, 'release of nonsense: usage');
is(vfun('release', $i->{instance})->{status}, 0, 'release');
is(finish($job, 10)->{status}, 7, 'ends the call');
is_deeply(decode_json(vfun('status', '--json')->{out})->{instances}, [], 'nothing is left');
ok(!-e "$d->{run}/service/uid-$>", 'nor a record');
for my $role ('list', 'status', 'release') {
	my @arg = $role eq 'release' ? (1) : ();
	is(vfun($role, '--run', tmp('nosuch'), @arg)->{status}, 4, "$role without a vfund: 4");
	is(vfun($role, '--nosuch', @arg)->{status}, 2, "$role --nosuch: 2");
}
is_deeply([$d->down], [], 'vfund stops and leaves nothing');
ok(!-e $d->{run}, 'its run folder is gone');
done_testing();
