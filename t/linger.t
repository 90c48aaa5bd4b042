#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# linger.t - nobody freezes vfund by sending descriptors whose close() waits
#
# On this kernel, and on one that can't refuse descriptors: there they arrive, and closing them has to wait elsewhere.
use strict;
use warnings;
use lib 't/lib';
use IO::Socket::UNIX;
use Test::More;
use Vfun;

requires('root');

# Whether the attack is one at all, where descriptors arrive.
my $can_refuse = run([client('linger'), 'old', '/bin/true'])->{status} == 0 && (`uname -r` =~ /^(\d+)\.(\d+)/, $1 > 6 || ($1 == 6 && $2 >= 16));

sub serves {
	my ($d, $what) = @_;
	my $r = run([$VFUN, 'list', '--run', $d->{run}], as => [65534, 65534], timeout => 20);
	ok(!$r->{timeout} && $r->{status} == 0 && $r->{out} =~ /factorial/, "$what: another user is served") or diag($r->{err}, $d->log);
	return;
}

sub attack {
	my ($d, $as, @what) = @_;
	my $job = start([client('linger'), @what], as => $as);
	ok(wait_until(20, sub { slurp($job->{out}) =~ /^\w/ }), "attack: $what[0]");
	return ($job, slurp($job->{out}) =~ s/\n//r);
}

for my $old (0, 1) {
	my $where = $old ? 'a kernel before 6.16' : 'this kernel';
	my $d = Vfun->new(conf => slurp('vfun.conf') . "\n[vm lazy]\nfunctions = factorial\n", wrap => $old ? [client('linger'), 'old'] : []);
	ok($d->up, "vfund starts: $where") or BAIL_OUT('no vfund');
	my $engine;
	ok(wait_until(10, sub { ($engine) = grep { $_->[1] eq 'vfun-engine' } descendants() }), 'with an engine');
	my @jobs;
	for my $how ('message', 'queue', 'many') {
		my ($job, $said) = attack($d, [65533, 65533], $how, "$d->{run}/control", 200);
		push @jobs, $job;
		is($said, $old || !$can_refuse ? 'ok' : 'refused', "$where: " . ($old || !$can_refuse ? 'the descriptors arrive' : 'descriptors are refused'));
		serves($d, "$where, $how");
	}
	is(run([$VFUN, 'call', '--run', $d->{run}, 'factorial', 5], timeout => 20)->{out}, "120\n", 'calls go on');

	# A VM's socket takes descriptors. Who is turned away has sent one.
	my $front = IO::Socket::UNIX->new(Peer => "$d->{run}/vmcli/lazy/share.sock");
	ok($front && wait_until(10, sub { $d->log =~ /VM lazy is connected/ }), 'something like a QEMU is connected');
	for my $i (1 .. 12) {
		my ($job, $said) = attack($d, undef, 'stream', "$d->{run}/vmcli/lazy/share.sock");
		push @jobs, $job;
	}
	ok(wait_until(20, sub { 12 == (() = $d->log =~ /VM lazy: a second QEMU connects .*turned away/g) }), 'those who come after it are turned away')
	    or diag($d->log);
	serves($d, "$where, a VM's socket");
	is(run([$VFUN, 'call', '--run', $d->{run}, 'factorial', 6], timeout => 20)->{out}, "720\n", 'services start');
	close($front);
	ok(wait_until(20, sub { $d->log =~ /VM lazy is gone/ }), 'the VM goes');
	# The first of those who connect now is it, and its share waits for what it sent.
	for my $i (1 .. 3) {
		my ($job, $said) = attack($d, undef, 'stream', "$d->{run}/vmcli/lazy/share.sock");
		push @jobs, $job;
	}
	serves($d, "$where, a VM whose share waits");
	my ($now) = grep { $_->[1] eq 'vfun-engine' } descendants();
	is($now->[0], $engine->[0], 'the engine is the same');
	is_deeply([$d->down], [], "$where: vfund stops and leaves nothing");
	kill 'KILL', map { $_->{pid} } @jobs;
	finish($_, 5) for @jobs;
}
done_testing();
