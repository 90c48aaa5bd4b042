#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# xrt-device.t - the test device of t/xrt, alone: real XRT libraries, a small host program, kernels in C and in Verilog
use strict;
use warnings;
use lib 't/lib';
use IO::Socket::UNIX;
use Math::BigInt;
use Test::More;
use Vfun;
use Xrt;

requires('root', 'tree', 'xrt');

my $built = xrt_build();
unlike($built->{out} . $built->{err}, qr/warning/i, 'builds without warnings');
my $lint = run(['make', '-s', '-f', 't/xrt/Makefile', 'lint']);
is($lint->{status} . $lint->{out} . $lint->{err}, '0', 'Verilator finds nothing in the Verilog');

my %limit = (factorial => 300, fibonacci => 2900);
my @fibonacci = (Math::BigInt->new(0), Math::BigInt->new(1));
push @fibonacci, $fibonacci[-1] + $fibonacci[-2] while @fibonacci <= $limit{fibonacci};
my %right = (factorial => sub { Math::BigInt->new($_[0])->bfac }, fibonacci => sub { $fibonacci[$_[0]] });

sub ok_number {
	my ($kernel, $n) = @_;
	return sprintf 'ok %0512s', $right{$kernel}->($n)->to_hex;
}

sub kernels_right {
	my ($device, $kind) = @_;
	for my $kernel (sort keys %limit) {
		my @n = (0, 1, 2, 20, 51, $limit{$kernel}, map { int rand($limit{$kernel} + 1) } 1 .. 40);
		my @answers = $device->probe('load vfun.xclbin', map { "number $kernel $_" } @n, $limit{$kernel} + 1);
		my @want = ((map { ok_number($kernel, $_) } @n), 'ok ' . 'f' x 512);
		is_deeply([@answers[1 .. $#answers]], \@want, "$kind: $kernel of " . @n . ' numbers, and one out of range');
		like($device->log, qr/ runs $kernel n=51 reps=1 out=\d+, run \d+, $kind$/m, "$kind: it was that kernel");
	}
	my ($load, @sums) = $device->probe('load vfun.xclbin', map { "vadd $_ $_" } 1, 2, 63, 128, 129, 1000, 4097, 250001);
	is_deeply(\@sums, [('ok 0 wrong') x 8], "$kind: vadd of several lengths");
	my ($l, @own) = $device->probe('load vfun.xclbin', map { "userptr $_" } 1, 1024, 99999);
	is_deeply(\@own, [('ok 0 wrong') x 3], "$kind: with user-pointer buffers, inputs read-only; no zero copy");
	my ($m, $threads, $queue) = $device->probe('load vfun.xclbin', 'threads 4 50', 'queue 8 25');
	is($threads, 'ok 200 right', "$kind: four threads");
	is($queue, 'ok 200 right', "$kind: eight runs queued at a time");
	return;
}

sub cycles {
	my ($log, $what) = @_;
	my ($run) = $log =~ / runs $what .*, run (\d+), / or return 0;
	return $log =~ /, run $run, (\d+) cycles/ ? $1 : 0;
}

sub repeats {
	my ($device, $kind) = @_;
	my @answers = $device->probe('load vfun.xclbin', 'number factorial 30 1', 'number factorial 30 50');
	is($answers[2], $answers[1], "$kind: the repeated work's answer");
	my ($one, $fifty) = map { cycles($device->log, "factorial n=30 reps=$_") } 1, 50;
	cmp_ok($fifty, '>', 40 * $one, "rtl: $one cycles once, $fifty fifty times") if $kind eq 'rtl';
	return;
}

sub two_at_once {
	my ($device, $kind) = @_;
	my @n = map { [map { int rand 301 } 1 .. 60] } 0, 1;
	my @jobs = map { my $n = $_; $device->probe_start('load vfun.xclbin', map { "number factorial $_" } @$n) } @n;
	my @got = map { $device->probe_finish($_)->{answers} } @jobs;
	for my $i (0, 1) {
		my ($load, @answers) = @{ $got[$i] };
		is_deeply(\@answers, [map { ok_number('factorial', $_) } @{ $n[$i] }], "$kind: two processes at once, $i");
	}
	return;
}

# Freed memory isn't cleared, and clients can't have different xclbins.
sub shares {
	my ($device, $kind) = @_;
	$device->probe('load vfun.xclbin', 'fill 65536 0xfeedc0de');
	my ($l, $word) = $device->probe('load vfun.xclbin', 'buffer 65536');
	is($word, 'ok feedc0de', "$kind: a buffer that isn't cleared shows what another process had there");

	my $holder = $device->probe_start('load vfun.xclbin', 'sleep 2000', 'number factorial 5');
	wait_until(10, sub { ($device->log =~ /^(client (\d+) connects)(?!.*client \2 is gone).*client \2 loads [0-9a-f]{16}$/ms) });
	my $other = $device->probe_finish($device->probe_start('load other.xclbin'));
	like($other->{answers}[0], qr/^failed -1/, "$kind: another xclbin is refused while one is in use");
	like($device->log, qr/refused, [0-9a-f]{16} is in use/, "$kind: and that is why");
	my ($same, $n) = $device->probe('load vfun.xclbin', 'number factorial 6');
	is($n, ok_number('factorial', 6), "$kind: the same one isn't");
	is($device->probe_finish($holder)->{answers}[2], ok_number('factorial', 5), "$kind: who had it noticed nothing");
	my ($o, $sum) = $device->probe('load other.xclbin', 'vadd 100');
	is($sum, 'ok 0 wrong', "$kind: the other one once nobody has it");
	return;
}

sub faults {
	my ($device, $kind) = @_;
	my $stale = 'ok ' . 'ee' x 256;
	my $r = $device->probe_finish($device->probe_start('load vfun.xclbin', 'fault slow 300', 'number factorial 9'));
	is($r->{answers}[2], ok_number('factorial', 9), "$kind: slow: right");
	cmp_ok($r->{ms}[2], '>=', 300, "$kind: slow: $r->{ms}[2] ms");
	for my $fault ('no-write', 'bad-sync', 'garbage') {
		my @a = $device->probe('load vfun.xclbin', "fault $fault", 'number factorial 9', 'fault', 'number factorial 9');
		is($a[2], $stale, "$kind: $fault: no error that XRT would tell, and old data");
		is($a[4], ok_number('factorial', 9), "$kind: $fault: right afterwards");
	}
	$device->fault('refuse-load');
	like(($device->probe('load vfun.xclbin'))[0], qr/^failed -1/, "$kind: refuse-load: an error");
	$device->fault('');
	$r = $device->probe_finish($device->probe_start('load vfun.xclbin', 'fault fail-alloc', 'buffer 4096', 'number factorial 9'));
	is($r->{answers}[2], 'failed -1 not mapped', "$kind: fail-alloc: a buffer that can't be mapped;");
	like($r->{status} . ' ' . @{ $r->{answers} }, qr{^(?:1|139) 3$}, "$kind: fail-alloc: if it was XRT's own, for a run, XRT crashes");
	$device->fault('');
	my @a = $device->probe('load vfun.xclbin', 'buffer 5000000000');
	is($a[1], 'failed -1 no buffer', "$kind: more than the card has: no buffer");

	my $job = $device->probe_start('load vfun.xclbin', 'fault hang', 'number factorial 9');
	ok(wait_until(10, sub { $device->log =~ /n=9 .*\n\z/ }), "$kind: hang: it runs");
	my $second = $device->probe_start('load vfun.xclbin', 'fault', 'number factorial 10');
	sleep 2;
	is(slurp($job->{out}) =~ tr/\n//, slurp($second->{out}) =~ tr/\n//, "$kind: hang: it and the next in the queue wait");
	kill 'KILL', $job->{pid};
	is($device->probe_finish($second)->{answers}[2], ok_number('factorial', 10), "$kind: hang: killed, the next gets its turn");
	finish($job, 5);
	like($device->log, qr/leaves a run of factorial unfinished/, "$kind: hang: its run is given up");

	$job = $device->probe_start('load vfun.xclbin', 'fault die', 'number factorial 9');
	is(finish($device->{job}, 10)->{status}, 1, "$kind: die: the model is gone");
	wait_until(2, sub { 0 });
	kill 'KILL', $job->{pid};
	is(scalar @{ $device->probe_finish($job, 5)->{answers} }, 2, "$kind: die: no answer");
	$device->start_model;
	$device->fault('die-load');
	$job = $device->probe_start('load vfun.xclbin');
	is(finish($device->{job}, 10)->{status}, 1, "$kind: die-load: the model is gone");
	wait_until(2, sub { 0 });
	kill 'KILL', $job->{pid};
	is(scalar @{ $device->probe_finish($job, 5)->{answers} }, 0, "$kind: die-load: no answer");
	$device->start_model;
	return;
}

# One call by hand; returns the answer's message, or undef when disconnected.
sub call {
	my ($socket, $api, $message, $length) = @_;
	$socket->syswrite(pack('CQ<CL<', 9, $length // length $message, 0x15, $api) . $message);
	my $header = '';
	while (length $header < 9) {
		$socket->sysread($header, 9 - length $header, length $header) or return;
	}
	my ($tag, $size) = unpack('CQ<', $header);
	my $answer = '';
	while (length $answer < $size) {
		$socket->sysread($answer, $size - length $answer, length $answer) or return;
	}
	return $answer;
}

sub hostile {
	my ($device, $kind) = @_;
	my $connect = sub { IO::Socket::UNIX->new(Peer => "$device->{folder}/socket") // die "connect: $!" };
	my %refused = (
		'an unknown call' => [99, "\x08\x01"],
		'a message longer than any' => [6, '', 1 << 40],
		'an unfinished number' => [4, "\x08\xff\xff"],
		'bytes beyond the end' => [6, "\x22\xff\x7f"],
		'fields missing' => [4, ''],
		'bytes for a number' => [4, "\x0a\x01a\x10\x01"],
		'a size that is not the data' => [6, "\x12\x01a\x18\x00\x22\x01a\x28\x05\x30\x00"],
		'too much to read back' => [7, "\x12\x01a\x1a\x01a\x20\x00\x28\xff\xff\xff\xff\x7f\x30\x00"],
		'more registers than there are' => [11, "\x10\x00\x18\x80\x80\x04"],
	);
	for my $what (sort keys %refused) {
		my $socket = $connect->();
		is(call($socket, @{ $refused{$what} }), undef, "$kind: $what: disconnected");
	}
	my $socket = $connect->();
	is(call($socket, 6, "\x12\x01a\x18\x80\x20\x22\x01a\x28\x01\x30\x00"), "\x08\x00", "$kind: memory not its own: not written");
	is(call($socket, 7, "\x12\x01a\x1a\x01a\x20\x80\x20\x28\x01\x30\x00"), "\x08\x00\x12\x00", "$kind: nor read");
	is(call($socket, 9, "\x10\x80\x80\x80\x0c\x18\x04\x22\x04\x01\x00\x00\x00"), "\x08\x00", "$kind: no run without an xclbin");
	is(call($socket, 4, "\x08\x00\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), "\x08\x00", "$kind: not so much memory");
	my $log = $device->log;
	like($log, qr/writes 0x1000, 1 bytes: refused, not its memory/, "$kind: which is in the log");
	my ($load, $n) = $device->probe('load vfun.xclbin', 'number factorial 7');
	is($n, ok_number('factorial', 7), "$kind: it still serves");
	return;
}

for my $kind ('c', 'rtl') {
	my $device = Xrt->new($kind);
	kernels_right($device, $kind);
	repeats($device, $kind);
	two_at_once($device, $kind);
	shares($device, $kind);
	hostile($device, $kind);
	faults($device, $kind);
	is_deeply([$device->end], [], "$kind: stops, and leaves nothing");
}
done_testing;
